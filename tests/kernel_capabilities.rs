//! Processes with some privileges taken away: each is this test program again, started by setpriv(1).
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use xfwd::kernel::{
    capabilities::{check, raise_memlock},
    xdp::{Steering, XdpProgram},
};
use xfwd_netns::lab_or_skip;

const CHILD: &str = "XFWD_TEST_CAPABILITIES_CHILD";

/// What [`child_tells_what_it_has`] prints with these capabilities and a limit of 8 MiB of locked memory.
fn with(capabilities: &str) -> String {
    let output = Command::new("prlimit")
        .args(["--memlock=8388608:8388608", "setpriv", "--inh-caps=-all"])
        .arg(format!("--bounding-set=-all,{capabilities}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_tells_what_it_has", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn child_tells_what_it_has() {
    if std::env::var_os(CHILD).is_some() {
        match check() {
            Ok(()) => println!("enough"),
            Err(missing) => println!("{missing}"),
        }
        println!("{}", raise_memlock());
        match XdpProgram::load(&Steering::default()) {
            Ok(_) => println!("program loads"),
            Err(error) => println!("{error}"),
        }
    }
}

#[test]
fn each_missing_capability_is_named() {
    lab_or_skip!();
    let lines = [
        "\n    CAP_NET_ADMIN  to",
        "\n    CAP_NET_RAW    to",
        "\n    CAP_BPF        to",
        "\n    CAP_PERFMON    to",
    ];
    for (held, missing) in [
        ("+net_admin,+net_raw,+bpf,+perfmon", [false; 4]),
        ("+net_admin,+net_raw,+sys_admin", [false; 4]),
        ("+net_raw,+bpf,+perfmon", [true, false, false, false]),
        ("+net_admin,+bpf,+perfmon", [false, true, false, false]),
        ("+net_admin,+net_raw,+perfmon", [false, false, true, false]),
        ("+net_admin,+net_raw,+bpf", [false, false, false, true]),
        ("+chown", [true; 4]),
    ] {
        let told = with(held);
        assert_eq!(lines.map(|line| told.contains(line)), missing, "{held}: {told}");
        assert_eq!(told.contains("enough"), !missing.contains(&true), "{held}: {told}");
    }
}

#[test]
fn memory_limit_is_told_only_where_it_matters() {
    lab_or_skip!();
    let told = with("+net_admin,+net_raw,+bpf");
    assert!(told.contains("locked memory is limited to 8388608 bytes"), "{told}");
    let told = with("+net_admin,+net_raw,+bpf,+ipc_lock");
    assert!(told.contains("does not apply (CAP_IPC_LOCK)"), "{told}");
    if !caps::has_cap(None, caps::CapSet::Bounding, caps::Capability::CAP_SYS_RESOURCE).unwrap() {
        eprintln!(
            "SKIPPED the last part of memory_limit_is_told_only_where_it_matters: needs CAP_SYS_RESOURCE"
        );
        return;
    }
    let told = with("+sys_resource");
    assert!(told.contains("locked memory is not limited"), "{told}");
}
