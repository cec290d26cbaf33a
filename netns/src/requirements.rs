//! What a lab needs from the machine, and tests that skip visibly where it is missing.

use std::{env, fs, io::Write as _, sync::OnceLock};

use crate::{
    iproute::ip,
    lab::{Lab, VethOptions},
    trafficgen,
};

/// Something a lab needs that this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Requirement {
    /// Not root, or without the capabilities to make networks.
    #[error("needs CAP_NET_ADMIN and CAP_SYS_ADMIN (run as root)")]
    Capabilities,
    /// The command `ip` is missing.
    #[error("needs iproute2: {0}")]
    Iproute(String),
    /// Namespaces or veth pairs cannot be made.
    #[error("needs network namespaces and veth: {0}")]
    Veth(String),
    /// XDP programs cannot be loaded.
    #[error("needs XDP with live frames (Linux 5.18 or later): {0}")]
    Xdp(String),
    /// The kernel was built without something, or is too old for it.
    #[error("needs a kernel with {0}")]
    Kernel(String),
    /// A command that a test needs is not installed.
    #[error("needs the command {0}: scripts/install-deps")]
    Command(&'static str),
}

/// Checks, once a process and by trying, that labs work here.
///
/// # Errors
///
/// The first thing that is missing.
pub fn requirements() -> Result<(), Requirement> {
    static CHECKED: OnceLock<Result<(), Requirement>> = OnceLock::new();
    CHECKED.get_or_init(check).clone()
}

fn check() -> Result<(), Requirement> {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let needed = CAP_NET_ADMIN | CAP_SYS_ADMIN;
    if effective_capabilities() & needed != needed {
        return Err(Requirement::Capabilities);
    }
    ip(["-V"]).map_err(|error| Requirement::Iproute(with_source(&error)))?;
    let pair = || {
        let lab = Lab::new("check")?;
        let (left, right) = (lab.namespace("left")?, lab.namespace("right")?);
        lab.veth(&left, "eth0", &right, "eth0", &VethOptions { queues: 2, ..VethOptions::default() })
    };
    pair().map_err(|error| Requirement::Veth(with_source(&error)))?;
    trafficgen::probe().map_err(|error| Requirement::Xdp(with_source(&error)))
}

/// The effective capabilities of this thread, 0 if they cannot be read.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default()
}

/// An error and what caused it, on one line.
fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text.replace('\n', " ")
}

/// Checks that a command is installed, by the search path.
///
/// # Errors
///
/// [`Requirement::Command`] if it is not.
pub fn command(name: &'static str) -> Result<(), Requirement> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if found { Ok(()) } else { Err(Requirement::Command(name)) }
}

/// Says that a test is skipped: one line `SKIPPED <test>: <reason>` on standard error and, if the environment variable
/// `XFWD_SKIP_LOG` names a file, the same line at its end.
///
/// # Panics
///
/// If `XFWD_REQUIRE_LAB` is `1`, or the file cannot be written.
pub fn skip(test: &str, reason: &dyn std::fmt::Display) {
    if env::var_os("XFWD_REQUIRE_LAB").is_some_and(|value| value == "1") {
        panic!("{test} must not be skipped (XFWD_REQUIRE_LAB=1), but: {reason}");
    }
    let line = format!("SKIPPED {test}: {reason}\n");
    // Not `eprint!`: the test harness would capture that.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("XFWD_SKIP_LOG") {
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            panic!("cannot write XFWD_SKIP_LOG {}: {error}", path.display());
        }
    }
}

/// What a skipped test returns; implemented for what tests return.
pub trait Skipped {
    /// The value.
    fn skipped() -> Self;
}

impl Skipped for () {
    fn skipped() -> Self {}
}

impl<E> Skipped for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

/// At the start of a test: returns from it, saying so by [`skip`], if the machine lacks a [`Requirement`]; otherwise
/// evaluates to a new [`Lab`] of the given name, or to nothing without a name.
///
/// ```no_run
/// # fn test() -> Result<(), Box<dyn std::error::Error>> {
/// let lab = xfwd_netns::lab_or_skip!("web");
/// let client = lab.namespace("client")?;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// If the lab cannot be made.
#[macro_export]
macro_rules! lab_or_skip {
    () => {{
        if let Err(missing) = $crate::requirements() {
            fn here() {}
            let test = ::std::any::type_name_of_val(&here).trim_end_matches("::here");
            $crate::skip(test, &missing);
            return $crate::Skipped::skipped();
        }
    }};
    ($name:expr) => {{
        $crate::lab_or_skip!();
        $crate::Lab::new($name).expect("a lab")
    }};
}

/// At the start of a test: returns from it, saying so by [`skip`], if one of these commands is not installed.
///
/// ```no_run
/// # fn test() -> Result<(), Box<dyn std::error::Error>> {
/// xfwd_netns::commands_or_skip!("tshark", "curl");
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! commands_or_skip {
    ($($name:expr),+ $(,)?) => {
        for name in [$($name),+] {
            if let Err(missing) = $crate::command(name) {
                fn here() {}
                let test = ::std::any::type_name_of_val(&here).trim_end_matches("::here");
                $crate::skip(test, &missing);
                return $crate::Skipped::skipped();
            }
        }
    };
}
