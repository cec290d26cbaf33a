//! Running a case under callgrind.

use std::process::Command;

/// What callgrind counts in: functions of these names, and all that they call.
const COUNTED: [&str; 3] =
    ["*instructions::bed::run_stage*", "*instructions::bed::run_turn*", "*instructions::cases::run*"];

/// Whether valgrind can be run.
pub fn is_there() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Instructions of a case.
pub fn count(case: &str) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    command.args(COUNTED.map(|function| format!("--toggle-collect={function}")));
    // The same choices of string functions everywhere, as far as glibc lets them be made.
    command.env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2_Usable,-AVX2");
    let output = command.arg(std::env::current_exe().unwrap()).args(["--case", case]).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case} failed under valgrind:\n{messages}");
    let collected = messages.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.filter(|count| *count > 0).unwrap_or_else(|| panic!("nothing was counted in {case}:\n{messages}"))
}
