//! What a run was made on, for the report.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::Result;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::bench::Cores;

/// A machine, and the software on it that takes part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the CPU.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Which of them generates.
    pub generator_core: usize,
    /// Which the subject's workers have.
    pub subject_cores: Vec<usize>,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether this is a virtual machine, by the CPU's word.
    pub virtual_machine: bool,
    /// Driver of the interfaces.
    pub driver: String,
    /// Mode of AF_XDP sockets on them.
    pub mode: String,
    /// How the CPU's frequency is chosen, if it can be seen.
    pub governor: Option<String>,
    /// Commit of the sources, with a `+` behind it if they have been changed; `None`: no repository.
    pub commit: Option<String>,
    /// Versions of what takes part, by name; what is not installed is missing here.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// Looks.
    pub fn look(cores: &Cores) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib: Option<u64> = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
        let flags = field("flags").unwrap_or_default();
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Self {
            cpu: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: allowed_cores().map_or(0, |cores| cores.len()),
            generator_core: cores.generator,
            subject_cores: cores.subject.clone(),
            memory_mib: memory_kib.unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            virtual_machine: flags.split(' ').any(|flag| flag == "hypervisor"),
            driver: "veth".to_owned(),
            mode: "copy".to_owned(),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            commit: commit(),
            versions: versions(),
        }
    }
}

/// The cores that this process may use, ascending.
pub fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// The cores that share a physical core with this one, itself included.
pub fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    let text = fs::read_to_string(path).unwrap_or_default();
    let parts = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    });
    parts.flatten().collect()
}

/// First line of what a command says, if it can be had.
fn first_line(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    // Some tell their version on standard error.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}

fn commit() -> Option<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let git = |arguments: &[&str]| {
        // Sources that belong to the user who called sudo are none of root's, to git.
        let output =
            Command::new("git").args(["-c", "safe.directory=*", "-C", root]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}+") })
}

fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::from([("xfwd".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    let package = |name: &str| {
        let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let others = [
        ("rustc", first_line("rustc", &["--version"])),
        ("iproute2", first_line("ip", &["-V"])),
        ("nftables", first_line("nft", &["--version"])),
        ("dpdk", package("dpdk-dev")),
        ("xdp-tools", package("xdp-tools")),
    ];
    versions.extend(others.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version?))));
    versions
}
