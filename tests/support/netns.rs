//! Network namespaces for the tests of `xfwd::kernel`, removed when the guard is dropped.
#![allow(dead_code)] // Each test file uses a part of it.

use std::{
    io::Write,
    ops::Deref,
    process::{Command, Stdio},
};

use xfwd_netns::Lab;

/// A network namespace of this test alone.
pub struct Namespace {
    inner: xfwd_netns::Namespace,
    _lab: Lab,
}

impl Deref for Namespace {
    type Target = xfwd_netns::Namespace;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl Namespace {
    pub fn new() -> Self {
        let lab = Lab::new("kernel").expect("a lab");
        let inner = lab.namespace("host").expect("a namespace");
        Self { inner, _lab: lab }
    }

    /// Runs `ip -n NAMESPACE WORDS`.
    pub fn ip(&self, words: &str) {
        self.inner.ip(words.split(' ')).expect(words);
    }

    /// The same for what this kernel may not have.
    pub fn try_ip(&self, words: &str) -> xfwd_netns::Result<()> {
        self.inner.ip(words.split(' ')).map(drop)
    }

    /// Runs many `ip` commands in one process.
    pub fn ip_batch(&self, commands: impl Iterator<Item = String>) {
        let mut child = Command::new("ip")
            .args(["-n", self.name(), "-batch", "-"])
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

    /// Runs a closure on a thread inside the namespace. Threads that it starts stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        self.run(inside)
    }
}

/// `va` in the first namespace, `vb` in the second, both up; `options` are given to `va` (`numrxqueues 4 …`).
pub fn veth_pair(options: &str) -> (Namespace, Namespace) {
    let (here, there) = (Namespace::new(), Namespace::new());
    let words = format!("link add va {options} type veth peer name vb {options} netns {}", there.name());
    here.ip(&words.split_whitespace().collect::<Vec<_>>().join(" "));
    here.ip("link set va up");
    there.ip("link set vb up");
    (here, there)
}
