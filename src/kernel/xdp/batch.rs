//! Filling a map by one call (`BPF_MAP_UPDATE_BATCH`, Linux 5.6), which aya does not have: one call an element takes
//! a second for a hundred thousand.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya::Pod;

/// `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd`.
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

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
    while done < keys.len().min(values.len()) {
        let (keys, values) = (&keys[done..], &values[done..]);
        let mut batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr().addr() as u64,
            values: values.as_ptr().addr() as u64,
            count: u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX),
            map: map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `count` keys and values, of the sizes that the map has and the caller's types are, from
        // two slices that are at least so long and live until the call returns; it writes `count`, within the struct.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut batch, size_of::<Batch>()) };
        if result < 0 {
            let error = io::Error::last_os_error();
            return Err((done + batch.count as usize, error));
        }
        done += batch.count as usize;
        if batch.count == 0 {
            return Err((done, io::Error::other("the kernel set no element")));
        }
    }
    Ok(())
}
