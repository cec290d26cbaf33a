//! Filling and emptying a map by one call (`BPF_MAP_UPDATE_BATCH` and `BPF_MAP_DELETE_BATCH`, Linux 5.6), which aya does
//! not have: one call an element takes a second for a hundred thousand.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya::Pod;

/// `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd`.
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
/// `BPF_MAP_DELETE_BATCH`, the next.
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// The part of `union bpf_attr` for batches.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Sets each key to the value of the same place, in order. `K` and `V` have to be the map's own.
///
/// # Errors
///
/// How many elements were set, and what the kernel said to the next one.
pub(super) fn update<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    let count = keys.len().min(values.len());
    while done < count {
        done += call(BPF_MAP_UPDATE_BATCH, map, &keys[done..count], &values[done..count])
            .map_err(|(more, source)| (done + more, source))?;
    }
    Ok(())
}

/// Removes each key, in order; one that is not there is fine. `K` has to be the map's own.
///
/// # Errors
///
/// How many keys were removed, and what the kernel said to the next one.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < keys.len() {
        done += match call::<K, u8>(BPF_MAP_DELETE_BATCH, map, &keys[done..], &[]) {
            Err((more, source)) if source.raw_os_error() == Some(libc::ENOENT) => more + 1,
            result => result.map_err(|(more, source)| (done + more, source))?,
        };
    }
    Ok(())
}

/// One call, for all keys; `values` are as many, or none for a command that takes none. How many elements were handled.
fn call<K: Pod, V: Pod>(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<usize, (usize, io::Error)> {
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: map.as_raw_fd().cast_unsigned(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys, and for an update as many values, of the sizes that the map has and the
    // caller's types are, from two slices that are so long and live until the call returns; it writes `count`, within the
    // struct.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut batch, size_of::<Batch>()) };
    match batch.count as usize {
        done if result < 0 => Err((done, io::Error::last_os_error())),
        0 => Err((0, io::Error::other("the kernel handled no element"))),
        done => Ok(done),
    }
}
