//! nftables: dropping at ingress, and balancing by destination NAT.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use xfwd_netns::Namespace;
use xfwd_netns::topology::INTERFACE;

use super::{Outcome, Own, Running, Subject, command};
use crate::bench::Bench;
use crate::site::Site;

/// A ruleset of nftables. A `counter` with the comment `"own"` in it is what it is said to have counted itself.
#[derive(Clone, Debug, Default)]
pub struct Nftables {
    /// The ruleset.
    pub ruleset: String,
    /// Whether the host routes, for rulesets that send packets on.
    pub routes: bool,
}

impl Nftables {
    /// Drops at ingress what `condition`, which may use a set of the name `list`, holds for.
    ///
    /// `kind` are the set's type and flags, `elements` what is in it.
    pub fn drop_at_ingress(condition: &str, set: Option<(&str, &[String])>) -> Self {
        let set = set.map_or(String::new(), |(kind, elements)| {
            format!(" set list {{ {kind}; elements = {{ {} }} }}\n", elements.join(", "))
        });
        let hook = format!("type filter hook ingress device {INTERFACE} priority -500; policy accept;");
        let ruleset = format!(
            "table netdev lab {{\n{set} chain in {{ {hook}\n {condition} counter drop comment \"own\"\n }}\n}}\n"
        );
        Self { ruleset, routes: false }
    }
}

impl Subject for Nftables {
    fn name(&self) -> String {
        "nftables".to_owned()
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        let mut command = command("nft", "nftables")?;
        let file = bench.write("rules.nft", &self.ruleset)?;
        if self.routes {
            site.subject.sysctl("net.ipv4.ip_forward", "1")?;
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
