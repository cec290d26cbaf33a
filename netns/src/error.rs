//! What can go wrong while a lab is set up or used.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// Result of a lab call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a lab call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A command could not be started.
    #[error("cannot run `{command}`")]
    Spawn {
        /// The command line.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A command ended with an error.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// A command printed something else than what it prints when all is well.
    #[error("cannot read the report of `{command}`: {why}\nstdout: {stdout}\nstderr: {stderr}")]
    Report {
        /// The command line.
        command: String,
        /// What is wrong with it.
        why: String,
        /// Its standard output.
        stdout: String,
        /// Its standard error.
        stderr: String,
    },
    /// A process of the lab did not do in time what was waited for.
    #[error("`{command}` did not {what} within {timeout:?}\nstdout: {stdout}\nstderr: {stderr}")]
    Timeout {
        /// The command line.
        command: String,
        /// What was waited for.
        what: String,
        /// How long.
        timeout: Duration,
        /// Its standard output so far.
        stdout: String,
        /// Its standard error so far.
        stderr: String,
    },
    /// A virtual machine did not do what was waited for.
    #[error("the machine did not {what}\nwritten so far: {so_far}\nconsole: {console}\nQEMU: {qemu}")]
    Machine {
        /// What was waited for.
        what: String,
        /// What the machine has written to its second serial line.
        so_far: String,
        /// What its kernel has written to its console.
        console: String,
        /// What QEMU has written to standard error.
        qemu: String,
    },
    /// A system call on behalf of a namespace or interface failed.
    #[error("{call} failed for {subject}")]
    System {
        /// The system call or ioctl.
        call: &'static str,
        /// The namespace, interface or file.
        subject: String,
        /// Why.
        source: io::Error,
    },
    /// A command of this crate has not been built.
    #[error("{name} not found in {}: build it with `cargo build -p xfwd-netns`", directory.display())]
    ToolNotBuilt {
        /// Name of the command.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// An interface has no such property.
    #[error("interface {interface} has no {what}")]
    Missing {
        /// Name of the interface.
        interface: String,
        /// What it lacks.
        what: &'static str,
    },
    /// The traffic asked for cannot be made.
    #[error("{0}")]
    Traffic(#[from] crate::trafficgen::SpecError),
    /// The XDP programs of the traffic generator could not be loaded.
    #[error("cannot load the XDP programs of the traffic generator")]
    Load(#[from] Box<aya::EbpfError>),
    /// An XDP program could not be verified, attached or run.
    #[error("cannot {what}")]
    Program {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Box<aya::programs::ProgramError>,
    },
    /// A BPF map could not be read or written.
    #[error("cannot access the BPF map {map}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// The object file lacks a program or map it should have.
    #[error("the object with the traffic generator's XDP programs has no {0}: rebuild it")]
    Object(&'static str),
    /// The generator's XDP program takes no frame.
    #[error("the traffic generator's XDP program refuses every frame")]
    Stalled,
    /// The kernel would only attach in a way that outlives the process.
    #[error("cannot attach to {interface} by a bpf_link (Linux 5.9 or later is needed)")]
    NoLink {
        /// Name of the interface.
        interface: String,
    },
}

impl Error {
    /// Wraps the error that the last system call left behind.
    pub(crate) fn last_os(call: &'static str, subject: impl Into<String>) -> Self {
        Error::System { call, subject: subject.into(), source: io::Error::last_os_error() }
    }
}
