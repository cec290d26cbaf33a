//! Network namespaces for the tests of `xfwd::kernel`, removed when the guard is dropped.
#![allow(dead_code)] // Each test file uses a part of it.

use std::{
    fs::File,
    io::Write,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// A network namespace of this test alone.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "xfwd-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip -n NAMESPACE WORDS`.
    pub fn ip(&self, words: &str) {
        let arguments: Vec<_> = ["-n", &self.name].into_iter().chain(words.split(' ')).collect();
        run("ip", &arguments);
    }

    /// Runs many `ip` commands in one process.
    pub fn ip_batch(&self, commands: impl Iterator<Item = String>) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip");
        let mut input = child.stdin.take().expect("a pipe");
        for command in commands {
            writeln!(input, "{command}").expect("ip -batch");
        }
        drop(input);
        assert!(child.wait().expect("ip").success(), "ip -batch");
    }

    /// Writes a setting below `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.enter(|| std::fs::write(format!("/proc/sys/net/{path}"), value).expect(path));
    }

    /// Runs a closure on a thread inside the namespace. Threads that it starts stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                    inside()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
    }
}

/// `va` in the first namespace, `vb` in the second, both up; `options` are given to `va` (`numrxqueues 4 …`).
pub fn veth_pair(options: &str) -> (Namespace, Namespace) {
    let (here, there) = (Namespace::new(), Namespace::new());
    let words = format!(
        "link add va {options} type veth peer name vb {options} netns {}",
        there.name
    );
    here.ip(&words.split_whitespace().collect::<Vec<_>>().join(" "));
    here.ip("link set va up");
    there.ip("link set vb up");
    (here, there)
}

/// Whether the test can run; if not, says so.
#[must_use]
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect(program);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {error}",
        arguments.join(" ")
    );
}
