//! The `xfwd` command with a config.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xfwd_netns::Child;

use super::{Outcome, Own, PATIENCE, Running, Subject};
use crate::bench::Bench;
use crate::site::Site;

/// Beginning of the last line that xfwd says when it has started.
pub const READY: &str = "\nleaves the kernel: ";

/// `xfwd` with a config.
#[derive(Clone, Debug, Default)]
pub struct Xfwd {
    /// What the report calls it, if not `xfwd`.
    pub name: Option<String>,
    /// The config.
    pub config: String,
    /// Files that the config names, relative to it, with their content.
    pub files: Vec<(&'static str, String)>,
}

impl Xfwd {
    /// With this config.
    pub fn new(config: impl Into<String>) -> Self {
        Self { config: config.into(), ..Self::default() }
    }

    /// Writes the config and starts the command, which may not be ready when this returns.
    pub fn spawn(&self, bench: &Bench, site: &Site) -> Result<(Child, PathBuf)> {
        for (name, content) in &self.files {
            bench.write(name, content)?;
        }
        let config = bench.write("xfwd.toml", &self.config)?;
        let queues = site.shape.queues as usize;
        let cores: Vec<String> = (0..queues).map(|index| bench.cores.of_worker(index).to_string()).collect();
        let mut command =
            Command::new(xfwd_netns::tool("xfwd").context("build it by `cargo build --release`")?);
        for interface in site.interfaces() {
            command.args(["--iface", interface]);
        }
        command.args(["--queues", &queues.to_string(), "--cores", &cores.join(","), "--quiet", "--json"]);
        let child = site.subject.spawn(command.arg(&config))?;
        Ok((child, config))
    }
}

impl Subject for Xfwd {
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| "xfwd".to_owned())
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        let (child, _) = self.spawn(bench, site)?;
        child.wait_for(READY, PATIENCE)?;
        Ok(Box::new(Process { child }))
    }
}

struct Process {
    child: Child,
}

impl Running for Process {
    fn pid(&self) -> Option<u32> {
        Some(self.child.pid())
    }

    fn stop(mut self: Box<Self>) -> Result<Own> {
        let ended = self.child.stop(PATIENCE)?;
        ensure!(ended.status.success(), "xfwd ended with {}: {}", ended.status, ended.stderr);
        let summary: Value = serde_json::from_str(&ended.stdout).context("the summary of xfwd")?;
        let number = |pointer: &str| summary.pointer(pointer).and_then(Value::as_u64);
        // Packets that the XDP program has dropped have not reached a worker.
        let interfaces = summary["interfaces"].as_array().into_iter().flatten();
        let dropped: u64 = interfaces.filter_map(|interface| interface["dropped"].as_u64()).sum();
        let received = number("/totals/packets").map(|packets| packets + dropped);
        // What was sent is counted in frames, of which a long packet has several.
        let bounced = number("/totals/verdicts/bounce").zip(number("/totals/verdicts/forward"));
        let sent =
            number("/totals/sent").zip(bounced).map(|(sent, (bounce, forward))| sent.min(bounce + forward));
        Ok(Own { received, sent })
    }
}
