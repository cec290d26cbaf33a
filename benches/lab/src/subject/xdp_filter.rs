//! `xdp-filter` of xdp-tools, which drops what is on its lists.

use std::process::{Command, Output};

use anyhow::Result;
use xfwd_netns::Namespace;
use xfwd_netns::topology::INTERFACE;

use super::{Failure, Outcome, Own, Running, Subject, command};
use crate::bench::Bench;
use crate::offer::driver_count;
use crate::site::Site;

/// `xdp-filter` that drops UDP to a port.
#[derive(Clone, Copy, Debug)]
pub struct XdpFilter {
    /// The port.
    pub port: u16,
}

impl Subject for XdpFilter {
    fn name(&self) -> String {
        "xdp-filter".to_owned()
    }

    fn shares_core(&self) -> bool {
        true
    }

    fn start(&self, _: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        command("xdp-filter", "xdp-tools")?;
        // It pins its maps in bpffs, which `ip netns exec` would hide.
        run(&site.subject, &["load", INTERFACE, "-m", "native", "-f", "udp", "-p", "allow"])?;
        let attached = Attached { namespace: site.subject.clone(), loaded: true };
        run(&site.subject, &["port", &self.port.to_string(), "-m", "dst", "-p", "udp"])?;
        Ok(Box::new(attached))
    }
}

/// Its maps lie in bpffs, not in the namespace: they have to be unloaded.
struct Attached {
    namespace: Namespace,
    loaded: bool,
}

impl Running for Attached {
    fn stop(mut self: Box<Self>) -> Result<Own> {
        let dropped = driver_count(&self.namespace, INTERFACE, "xdp_drops")?;
        self.unload();
        Ok(Own { received: Some(dropped), sent: None })
    }
}

impl Attached {
    fn unload(&mut self) {
        if std::mem::take(&mut self.loaded) {
            let _ = run(&self.namespace, &["unload", INTERFACE]);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.unload();
    }
}

fn run(namespace: &Namespace, arguments: &[&str]) -> Outcome<Output> {
    let mut command: Command = command("xdp-filter", "xdp-tools")?;
    let output = namespace.output(command.args(arguments))?;
    if output.status.success() {
        return Ok(output);
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let line = said.last().copied().unwrap_or_default();
    Err(Failure::Missing(format!("xdp-filter {}: {line}", arguments.join(" "))))
}
