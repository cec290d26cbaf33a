//! `xfwd features [--iface IF]`: what this kernel and this driver can do, and what that means for the user.
//!
//! Nothing is set up and nothing is changed: the kernel and the driver are asked. What a bind comes to is known only
//! when it is tried, so a driver that says it has zero-copy may still refuse it on this device; `xfwd --iface` says
//! which mode each queue got.

use std::process::ExitCode;

use serde::Serialize;

use super::output::{count, print, say, say_error};
use super::summary::table;
use crate::kernel::features::{self, Evidence, Feature, HugePages, Probe, Unsupported};
use crate::kernel::link::Link;
use crate::kernel::netdev::{DriverFeatures, driver_features};

pub(super) fn features(interface: Option<&str>, json: bool) -> ExitCode {
    let report = match Report::new(interface) {
        Ok(report) => report,
        Err(error) => {
            say_error(error.as_ref());
            return ExitCode::FAILURE;
        }
    };
    if !json {
        return print(report.tables().join("\n"));
    }
    match serde_json::to_string_pretty(&report) {
        Ok(json) => print(json),
        Err(error) => {
            say(format!("error: the answer could not be written as JSON: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    feature: String,
    /// `yes`, `no`, a value, or what is needed to know or to have it.
    here: String,
    /// What it means for the user.
    meaning: String,
}

#[derive(Debug, Serialize)]
struct Report {
    kernel: KernelReport,
    interface: Option<InterfaceReport>,
}

#[derive(Debug, Serialize)]
struct KernelReport {
    release: String,
    features: Vec<KernelFeature>,
    huge_pages: HugePages,
    #[serde(skip)]
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct KernelFeature {
    name: &'static str,
    supported: bool,
    /// `needs Linux 6.17: XDP_MAX_TX_SKB_BUDGET`, where it is missing.
    needs: Option<String>,
    since: String,
    known_by: Evidence,
    meaning: &'static str,
}

#[derive(Debug, Serialize)]
struct InterfaceReport {
    name: String,
    driver: Option<String>,
    mtu: u32,
    queues: u32,
    max_queues: Option<u32>,
    /// Name and place of the XDP program that is attached now.
    xdp_attached: Option<String>,
    /// What the driver says; nothing where the kernel cannot be asked.
    xdp: Option<DriverFeatures>,
    /// Why nothing is known of the driver: `needs Linux 6.3: NETDEV_CMD_DEV_GET`.
    unknown: Option<String>,
    #[serde(skip)]
    rows: Vec<Row>,
}

impl Report {
    fn new(interface: Option<&str>) -> Result<Self, Box<dyn std::error::Error>> {
        let interface = match interface {
            None => None,
            Some(name) => {
                let link = Link::find(name)?;
                let driver = match driver_features(link.index)? {
                    Some(features) => Ok(features),
                    None => Err(Unsupported {
                        feature: Feature::DriverFeatures,
                        running: features::kernel_release(),
                    }),
                };
                Some(InterfaceReport::new(&link, driver))
            }
        };
        Ok(Self {
            kernel: KernelReport::new(Feature::ALL.map(Feature::probe), features::huge_pages()?),
            interface,
        })
    }

    fn tables(&self) -> Vec<String> {
        let kernel = &self.kernel;
        let mut tables = vec![format!("Linux {}\n{}", kernel.release, rows_as_table(&kernel.rows))];
        if let Some(interface) = &self.interface {
            let driver = interface.driver.as_deref().unwrap_or("unknown driver");
            tables.push(format!("\n{} ({driver})\n{}", interface.name, rows_as_table(&interface.rows)));
        }
        tables
    }
}

fn rows_as_table(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&["feature", "here", "what it means"]);
    for Row { feature, here, meaning } in rows {
        table.add_row([feature, here, meaning]);
    }
    table
}

impl KernelReport {
    fn new(probes: impl IntoIterator<Item = Probe>, huge_pages: HugePages) -> Self {
        let features: Vec<KernelFeature> = probes.into_iter().map(KernelFeature::new).collect();
        let mut rows: Vec<Row> = features.iter().map(KernelFeature::row).collect();
        rows.push(huge_pages_row(huge_pages));
        Self { release: features::kernel_release_text(), features, huge_pages, rows }
    }
}

impl KernelFeature {
    fn new(probe: Probe) -> Self {
        let (major, minor) = probe.feature.since();
        Self {
            name: probe.feature.kernel_name(),
            supported: probe.result.is_ok(),
            needs: probe.result.err().map(|unsupported| unsupported.brief()),
            since: format!("{major}.{minor}"),
            known_by: probe.evidence,
            meaning: meaning_of(probe.feature, probe.result.is_ok()),
        }
    }

    fn row(&self) -> Row {
        let here = match (&self.needs, self.known_by) {
            (Some(needs), _) => format!("no: {needs}"),
            (None, Evidence::Asked) => "yes".to_owned(),
            (None, Evidence::Release) => format!("yes, since Linux {}", self.since),
        };
        Row { feature: self.name.to_owned(), here, meaning: self.meaning.to_owned() }
    }
}

fn meaning_of(feature: Feature, supported: bool) -> &'static str {
    match (feature, supported) {
        (Feature::Sockets, true) => "xfwd can take packets past the network stack",
        (Feature::Sockets, false) => "xfwd cannot run here",
        (Feature::NeedWakeup, true) => "system calls only when the kernel asks for one",
        (Feature::NeedWakeup, false) => {
            "xfwd cannot run here: it counts on the kernel telling when it needs a call"
        }
        (Feature::Link, true) => "however xfwd ends, the interface goes back to the host",
        (Feature::Link, false) => "xfwd cannot run here: a program that outlives it would cut the host off",
        (Feature::PreferBusyPoll, true) => "`busy_poll = true` lets the worker run the driver's receive loop",
        (Feature::PreferBusyPoll, false) => "`busy_poll = true` has no effect",
        (Feature::DriverFeatures, true) => "`xfwd features --iface` can tell what a driver does",
        (Feature::DriverFeatures, false) => "what a driver does is found out by starting xfwd",
        (Feature::MultiBuffer, true) => "jumbo frames, where the driver has it too",
        (Feature::MultiBuffer, false) => "the MTU must let a packet fit into one buffer of 4,096 bytes",
        (Feature::TxBudget, true) => "copy mode sends up to 1,024 packets a system call",
        (Feature::TxBudget, false) => {
            "copy mode sends 32 packets a system call: more calls at high rates; zero-copy does not care"
        }
    }
}

fn huge_pages_row(pages: HugePages) -> Row {
    let HugePages { total, free, size_kib } = pages;
    let (here, meaning) = match (total, free) {
        (0, _) => (
            "none".to_owned(),
            "packet memory lies in ordinary pages; `sysctl vm.nr_hugepages=N` sets some aside, 16 of 2 MiB a queue",
        ),
        (_, 0) => (format!("0 of {} free", count(total)), "packet memory lies in ordinary pages"),
        _ => (
            format!("{} of {} free, {size_kib} KiB each", count(free), count(total)),
            "packet memory lies in huge pages if it fits: fewer misses in the TLB",
        ),
    };
    Row { feature: "huge pages".to_owned(), here, meaning: meaning.to_owned() }
}

impl InterfaceReport {
    fn new(link: &Link, driver: Result<DriverFeatures, Unsupported>) -> Self {
        let attached = link.xdp.as_ref().map(|xdp| {
            let name = xdp.name.as_deref().unwrap_or("a program without a name");
            format!("{name} ({}, id {})", xdp.mode, xdp.id)
        });
        let mut rows = vec![queues_row(link)];
        match &driver {
            Ok(features) => rows.extend(driver_rows(features, link.driver.as_deref())),
            Err(unsupported) => rows.extend(unknown_rows(*unsupported)),
        }
        rows.push(Row {
            feature: "XDP program now".to_owned(),
            here: attached.clone().unwrap_or_else(|| "none".to_owned()),
            meaning: match &attached {
                None => "the interface is free",
                Some(_) => "there can be one only: xfwd refuses to start while it is there",
            }
            .to_owned(),
        });
        Self {
            name: link.name.clone(),
            driver: link.driver.clone(),
            mtu: link.mtu,
            queues: link.rx_queues,
            max_queues: link.max_queues,
            xdp_attached: attached,
            unknown: driver.as_ref().err().map(|unsupported| unsupported.brief()),
            xdp: driver.ok(),
            rows,
        }
    }
}

fn queues_row(link: &Link) -> Row {
    let here = match link.max_queues {
        Some(max) => format!("{} of at most {max}", link.rx_queues),
        None => link.rx_queues.to_string(),
    };
    let meaning = format!(
        "one worker a queue: `--queues {}` takes all; `ethtool -L {} combined N` changes the number where the driver can",
        link.rx_queues, link.name
    );
    Row { feature: "queues".to_owned(), here, meaning }
}

/// What can be said of a driver that cannot be asked.
fn unknown_rows(unsupported: Unsupported) -> Vec<Row> {
    let needs = format!("unknown, {}", unsupported.brief());
    ["native XDP", "zero-copy", "multi-buffer", "XDP metadata"]
        .map(|feature| Row {
            feature: feature.to_owned(),
            here: needs.clone(),
            meaning: match feature {
                "zero-copy" => "`mode = \"auto\"` tries it and tells which mode each queue got",
                "native XDP" => "xfwd tries it; `mode = \"generic\"` works with every driver",
                _ => "found out by starting xfwd",
            }
            .to_owned(),
        })
        .to_vec()
}

fn driver_rows(features: &DriverFeatures, driver: Option<&str>) -> Vec<Row> {
    let row = |feature: &str, here: String, meaning: &str| Row {
        feature: feature.to_owned(),
        here,
        meaning: meaning.to_owned(),
    };
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let native = match (features.native && features.redirect, driver) {
        (true, _) => "the XDP program runs in the driver",
        // A veth says what its other end can do only once that has a program or GRO.
        (false, Some("veth")) => {
            "the XDP program may still run in the driver: turn on GRO on the other end, or use `mode = \"generic\"`"
        }
        (false, _) => "only `mode = \"generic\"` works, slowly",
    };
    let zero_copy = if features.zero_copy {
        "`mode = \"auto\"` asks for it; the device may still refuse, and xfwd tells which mode each queue got"
    } else {
        "`mode = \"auto\"` takes copy mode, one copy a packet; `mode = \"zero-copy\"` refuses to start"
    };
    let (multi_buffer, means) = match (features.multi_buffer, features.zero_copy, features.zero_copy_buffers)
    {
        (true, true, Some(buffers)) if buffers > 1 => {
            (format!("yes, zero-copy up to {buffers} buffers"), "jumbo frames, in zero-copy too")
        }
        (true, true, _) => {
            ("copy mode only".to_owned(), "jumbo frames in copy mode; in zero-copy a packet is one buffer")
        }
        (true, false, _) => ("yes".to_owned(), "jumbo frames"),
        (false, ..) => ("no".to_owned(), "the MTU must let a packet fit into one buffer"),
    };
    let metadata = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    vec![
        row("native XDP", yes_no(features.native && features.redirect), native),
        row("zero-copy", yes_no(features.zero_copy), zero_copy),
        row("multi-buffer", multi_buffer, means),
        row(
            "XDP metadata, received",
            metadata(&features.rx_metadata),
            "what a program can read about a packet; xfwd does not use it yet",
        ),
        row(
            "XDP metadata, sent",
            metadata(&features.tx_metadata),
            "what a socket can ask the NIC for; xfwd does not use it yet",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(driver: &str) -> Link {
        let mut link = Link::find("lo").unwrap();
        link.driver = Some(driver.to_owned());
        link
    }

    fn here<'a>(rows: &'a [Row], feature: &str) -> &'a str {
        &rows.iter().find(|row| row.feature == feature).unwrap().here
    }

    #[test]
    fn old_kernel_says_what_is_unknown_and_since_when_it_would_be_known() {
        let unsupported = Unsupported { feature: Feature::DriverFeatures, running: (6, 1) };
        let report = InterfaceReport::new(&link("igb"), Err(unsupported));
        assert_eq!(here(&report.rows, "zero-copy"), "unknown, needs Linux 6.3: NETDEV_CMD_DEV_GET");
        assert_eq!(here(&report.rows, "native XDP"), "unknown, needs Linux 6.3: NETDEV_CMD_DEV_GET");
        assert_eq!(report.unknown.as_deref(), Some("needs Linux 6.3: NETDEV_CMD_DEV_GET"));
        assert_eq!(report.xdp, None);
    }

    #[test]
    fn driver_with_zero_copy_but_one_buffer_a_packet() {
        let mut features = DriverFeatures::default();
        (features.native, features.redirect, features.zero_copy, features.multi_buffer) =
            (true, true, true, true);
        let report = InterfaceReport::new(&link("igb"), Ok(features.clone()));
        assert_eq!(here(&report.rows, "zero-copy"), "yes");
        assert_eq!(here(&report.rows, "multi-buffer"), "copy mode only");
        features.zero_copy_buffers = Some(8);
        let report = InterfaceReport::new(&link("ice"), Ok(features));
        assert_eq!(here(&report.rows, "multi-buffer"), "yes, zero-copy up to 8 buffers");
    }

    #[test]
    fn missing_feature_of_the_kernel_is_named_with_its_release() {
        let unsupported = Unsupported { feature: Feature::TxBudget, running: (6, 12) };
        let probe = Probe { feature: Feature::TxBudget, result: Err(unsupported), evidence: Evidence::Asked };
        let report = KernelReport::new([probe], HugePages::default());
        assert_eq!(
            here(&report.rows, "XDP_MAX_TX_SKB_BUDGET"),
            "no: needs Linux 6.17: XDP_MAX_TX_SKB_BUDGET"
        );
        assert_eq!(here(&report.rows, "huge pages"), "none");
    }
}
