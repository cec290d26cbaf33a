//! The programs of `examples/`, built if they are not, and started in a lab.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use xfwd_netns::{Child, ExitReport, Namespace};

/// How long anything may take that should take no time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program of this example. `cargo test --workspace` has built it before, `cargo test --test NAME` has not. Cargo is asked
/// once in a process.
pub fn program(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // After a build that failed the others are tried all the same.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name.to_owned()).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Of the workspace, or dependencies would have other features than in the tests of all of it, and be built once more.
        .args(["build", "--quiet", "--offline", "--message-format=json", "--workspace", "--example", name])
        .arg("--target-dir")
        .arg(target)
        .stderr(Stdio::inherit());
    if std::env::current_exe().unwrap().starts_with(target.join("release")) {
        cargo.arg("--release");
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "the example {name} cannot be built");
    let messages = String::from_utf8(output.stdout).unwrap();
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == name && message["target"]["kind"][0] == "example";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    executable.unwrap_or_else(|| panic!("cargo names no executable of the example {name}"))
}

/// A running example; killed when dropped.
pub struct Example(Child);

impl Example {
    /// Starts it in `namespace` and waits until it has said `ready`. Panics, with all that it said, when it ends before.
    pub fn start(namespace: &Namespace, name: &str, arguments: &[&str], ready: &str) -> Self {
        let mut child = namespace.spawn(Command::new(program(name)).args(arguments)).unwrap();
        if let Err(error) = child.wait_for(ready, PATIENCE) {
            let _ = child.wait(Duration::from_secs(1));
            panic!("{name} did not start: {error}\n{}", child.stderr());
        }
        Self(child)
    }

    /// What it has written to standard error so far.
    pub fn said(&self) -> String {
        self.0.stderr()
    }

    /// Waits until it has said `text`.
    pub fn wait_for(&self, text: &str) {
        self.0.wait_for(text, PATIENCE).unwrap();
    }

    /// Waits until it ends by itself; how it did, and what it has written.
    pub fn wait(&mut self) -> ExitReport {
        self.0.wait(PATIENCE).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal).unwrap();
    }

    /// Stops it by SIGINT; what it has written to standard output. Panics when it does not end well.
    pub fn stop(mut self) -> String {
        self.0.signal(Signal::SIGINT).unwrap();
        let report = self.wait();
        assert!(report.status.success(), "{}\n{}\n{}", report.status, report.stderr, report.stdout);
        assert!(!report.stderr.contains("panicked"), "{}", report.stderr);
        report.stdout
    }
}
