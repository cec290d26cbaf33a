//! nftables: dropping at ingress, and balancing by destination NAT.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use xfwd_netns::Namespace;
use xfwd_netns::topology::INTERFACE;

use super::linux::steer_to_subject;
use super::{Outcome, Own, Running, Subject, command};
use crate::bench::Bench;
use crate::site::Site;

/// Counts a packet for [`Own`], and drops it.
pub const DROP: &str = "counter name own drop";

/// A ruleset of nftables. A counter of the name `own` in it is what it is said to have counted itself.
#[derive(Clone, Debug, Default)]
pub struct Nftables {
    /// The ruleset.
    pub ruleset: String,
    /// Whether packets are sent on, by the host's routing: on the subject's core, then.
    pub routes: bool,
}

impl Nftables {
    /// Drops at ingress: `sets` by name, type and elements, which `rules` may use; each ends with a verdict, and [`DROP`] is one
    /// that is counted.
    pub fn at_ingress(sets: &[Set], rules: &[String]) -> Self {
        let mut text = String::from("table netdev lab {\n");
        for Set { name, kind, elements } in sets {
            text += &format!(" set {name} {{ {kind}; elements = {{ {} }} }}\n", elements.join(", "));
        }
        text += " counter own { }\n";
        text += &format!(
            " chain in {{ type filter hook ingress device {INTERFACE} priority -500; policy accept;\n"
        );
        for rule in rules {
            text += &format!("  {rule}\n");
        }
        text += " }\n}\n";
        Self { ruleset: text, routes: false }
    }
}

/// A set of a ruleset.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// Its type, and flags if it has any.
    pub kind: &'static str,
    /// What is in it, at least one.
    pub elements: Vec<String>,
}

impl Subject for Nftables {
    fn name(&self) -> String {
        "nftables".to_owned()
    }

    fn shares_core(&self) -> bool {
        !self.routes
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        let mut command = command("nft", "nftables")?;
        let file = bench.write("rules.nft", &self.ruleset)?;
        if self.routes {
            site.subject.sysctl("net.ipv4.ip_forward", "1")?;
            site.subject.sysctl(&format!("net.ipv4.conf.{INTERFACE}.send_redirects"), "0")?;
            steer_to_subject(bench, site)?;
        }
        let output = site.subject.output(command.arg("-f").arg(&file))?;
        ensure_success("nft -f", &output)?;
        Ok(Box::new(Loaded { namespace: site.subject.clone() }))
    }
}

struct Loaded {
    namespace: Namespace,
}

impl Running for Loaded {
    fn stop(self: Box<Self>) -> Result<Own> {
        // `-t`: without the elements of sets.
        let output = self.namespace.output(Command::new("nft").args(["-t", "list", "ruleset"]))?;
        ensure_success("nft list ruleset", &output)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.contains("comment \"own\""));
        let received =
            line.and_then(|line| line.split_once("counter packets ")?.1.split(' ').next()?.parse().ok());
        Ok(Own { received, sent: None })
    }
}

/// An error with what the command said, if it failed.
fn ensure_success(what: &str, output: &std::process::Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}", said.lines().next().context(output.status)?);
    Ok(())
}
