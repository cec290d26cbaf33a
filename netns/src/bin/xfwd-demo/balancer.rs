//! xfwd itself, as a user would run it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use xfwd_netns::topology::INTERFACE;
use xfwd_netns::{Child, tool};

use crate::site::Site;

const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A running xfwd, and its config in a file.
pub struct Balancer {
    process: Child,
    config: ConfigFile,
    /// Bytes of what it said that were printed.
    shown: usize,
}

/// Removed when dropped.
struct ConfigFile(PathBuf);

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl ConfigFile {
    fn write(&self, site: &Site) -> Result<()> {
        std::fs::write(&self.0, site.config()).with_context(|| format!("cannot write {}", self.0.display()))
    }
}

/// What xfwd says at its end, as far as it is shown.
#[derive(Deserialize)]
struct Summary {
    backends: Vec<BackendRow>,
}

#[derive(Deserialize)]
struct BackendRow {
    address: String,
    state: String,
}

impl Balancer {
    /// Starts it; packets are processed when it returns.
    pub fn start(site: &Site, queues: u32) -> Result<Self> {
        let name = format!("xfwd-demo-{}.toml", std::process::id());
        let config = ConfigFile(std::env::temp_dir().join(name));
        config.write(site)?;
        println!("$ xfwd --iface {INTERFACE} --queues {queues} lb.toml");
        let mut command = Command::new(tool("xfwd")?);
        command.args(["--iface", INTERFACE, "--queues", &queues.to_string(), "--quiet", "--json"]);
        let process = site.balancer.spawn(command.arg(&config.0))?;
        let mut balancer = Self { process, config, shown: 0 };
        let started = balancer.process.wait_for("goes to the host's network stack\n", START_PATIENCE);
        balancer.show();
        started.context("xfwd did not start")?;
        Ok(balancer)
    }

    /// Prints what it has said since the last time.
    pub fn show(&mut self) {
        let said = self.process.stderr();
        let new = said.get(self.shown..).unwrap_or_default();
        // Only whole lines.
        let Some(end) = new.rfind('\n') else { return };
        for line in new[..end].lines() {
            println!("          │ {}", line.replace(&self.config.0.display().to_string(), "lb.toml"));
        }
        self.shown += end + 1;
    }

    /// Has it read what the config is now.
    pub fn reload(&mut self, site: &Site) -> Result<()> {
        self.config.write(site)?;
        let before = self.process.stderr().len();
        self.process.signal(Signal::SIGHUP)?;
        let start = Instant::now();
        while !self.said(before).lines().any(|line| line.starts_with("reloaded ")) {
            crate::check_interrupted()?;
            ensure!(start.elapsed() < START_PATIENCE, "xfwd did not reload:\n{}", self.said(before));
            std::thread::sleep(Duration::from_millis(2));
        }
        self.show();
        Ok(())
    }

    /// Whether it has said that a backend of a service gets no flows.
    pub fn has_found(&self, service: &str, backend: IpAddr) -> bool {
        self.said(0).contains(&format!("service {service}: backend {backend} is not healthy"))
    }

    /// What it has said from this byte on.
    fn said(&self, from: usize) -> String {
        self.process.stderr().get(from..).unwrap_or_default().to_owned()
    }

    /// Ends it by SIGINT. Returns what state each backend was in.
    pub fn stop(mut self) -> Result<BTreeMap<String, String>> {
        self.process.signal(Signal::SIGINT)?;
        let end = self.process.wait(STOP_PATIENCE)?;
        self.show();
        ensure!(end.status.success(), "xfwd ended with {}", end.status);
        let summary: Summary = serde_json::from_str(&end.stdout).context("xfwd's summary")?;
        Ok(summary.backends.into_iter().map(|row| (row.address, row.state)).collect())
    }
}
