//! The object file with the XDP programs, and how one of them gets into the kernel.

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray},
    programs::{ProgramError, Xdp},
};

use crate::error::{Error, Result};

/// Built from `ebpf/programs/src/trafficgen` by `scripts/build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/objects/trafficgen.bpf.o");

/// Reads the object, with the read-only globals that `loader` overrides, and has the kernel verify one program of it.
pub(super) fn load(program: &'static str, loader: &mut EbpfLoader<'_>) -> Result<Ebpf> {
    let mut ebpf = loader.load(OBJECT).map_err(Box::new)?;
    xdp_mut(&mut ebpf, program)?
        .load()
        .map_err(|source| failed(format!("load {program}"), source))?;
    Ok(ebpf)
}

/// The XDP program of this name.
pub(super) fn xdp_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).ok_or(Error::Object(name))?;
    program
        .try_into()
        .map_err(|source| failed(format!("use {name}"), source))
}

/// The XDP program of this name.
pub(super) fn xdp<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Xdp> {
    let program = ebpf.program(name).ok_or(Error::Object(name))?;
    program
        .try_into()
        .map_err(|source| failed(format!("use {name}"), source))
}

/// Takes a per-CPU array of rows of words out of the object.
pub(super) fn take_map<const WORDS: usize>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<MapData, [u64; WORDS]>> {
    let map = ebpf.take_map(name).ok_or(Error::Object(name))?;
    PerCpuArray::try_from(map).map_err(|source| Error::Map {
        map: name,
        source: Box::new(source),
    })
}

/// Names what was tried with a program.
pub(super) fn failed(what: String, source: ProgramError) -> Error {
    Error::Program {
        what,
        source: Box::new(source),
    }
}
