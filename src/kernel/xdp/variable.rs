//! A map in the place of a variable.
//!
//! A variable of the program is the one element of an array map that aya makes for its section. The program holds its address, so
//! an index into it is an addition, where a lookup in a map is a dozen instructions. But such a map cannot be mapped into memory
//! (`BPF_F_MMAPABLE`). The kernel asks of a map whose element's address a program holds only that it is an array of one element: so
//! here another map, which user space can write to, takes the place of the variable's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::{
    Ebpf,
    maps::{Map, MapError},
    sys::SyscallError,
};

use super::XdpError;

/// Makes the program use `map` as the variable of the section `variable`. To be called before the program is loaded: its
/// instructions name maps by their descriptors until then.
///
/// # Errors
///
/// [`XdpError::Object`] when one of them is missing or not as large as the other, [`XdpError::Map`] when the kernel refuses.
pub(super) fn replace(object: &mut Ebpf, variable: &'static str, map: &'static str) -> Result<(), XdpError> {
    let (of_variable, bytes) = single(object, variable)?;
    let (of_map, map_bytes) = single(object, map)?;
    if bytes != map_bytes {
        return Err(XdpError::Object { name: map });
    }
    // SAFETY: the object owns the descriptor `of_variable`, goes on owning it, and is not used by anyone else meanwhile; it is of an
    // array map of one element as before. What it named until now is closed, and nobody has it by another descriptor.
    let result = unsafe { libc::dup3(of_map.as_raw_fd(), of_variable.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 {
        let source = SyscallError { call: "dup3", io_error: io::Error::last_os_error() };
        return Err(XdpError::map(map, "its descriptor".to_owned(), MapError::SyscallError(source)));
    }
    Ok(())
}

/// An array map of one element, and its bytes.
fn single<'a>(object: &'a Ebpf, name: &'static str) -> Result<(BorrowedFd<'a>, u32), XdpError> {
    let Some(Map::Array(data)) = object.map(name) else {
        return Err(XdpError::Object { name });
    };
    let info = data.info().map_err(|source| XdpError::map(name, "its sizes".to_owned(), source))?;
    if info.max_entries() != 1 {
        return Err(XdpError::Object { name });
    }
    Ok((data.fd().as_fd(), info.value_size()))
}
