//! Memory of the process, packet memory included: all of it is touched when the kernel pins it for a socket.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use super::{CURVE_ROUNDS, Case, Contestant, Reading, Unit, bounce};
use crate::bench::Bench;
use crate::site::{Shape, Site};
use crate::subject::bare::Bare;
use crate::subject::testpmd::Testpmd;
use crate::subject::xfwd::Xfwd;
use crate::subject::{Outcome, Subject};

/// What a process still does when it says that it has started is over by then.
const SETTLE: Duration = Duration::from_millis(200);

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        name: "memory-bounce".to_owned(),
        family: "memory",
        title: "Resident memory of a bouncer on one queue, UMEM included".to_owned(),
        unit: Unit::Mebibytes,
        point: None,
        rounds: CURVE_ROUNDS,
        contestants: vec![
            resident(Xfwd::new(bounce::CONFIG)),
            resident(Bare::Bounce),
            resident(Testpmd::Macswap),
        ],
    }]
}

fn resident(subject: impl Subject + 'static) -> Contestant {
    Contestant::new(subject.name(), move |bench| measure(bench, &subject))
}

fn measure(bench: &Bench, subject: &dyn Subject) -> Outcome<Reading> {
    let site = Site::new(Shape::default())?;
    let running = subject.start(bench, &site)?;
    std::thread::sleep(SETTLE);
    let process = running.pid().context("a subject with a process")?;
    let status =
        fs::read_to_string(format!("/proc/{process}/status")).context("the status of the subject")?;
    let mebibytes = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    let mut reading = Reading::new(mebibytes("VmRSS:").context("no VmRSS")?);
    if let Some(anonymous) = mebibytes("RssAnon:") {
        reading.extra.insert("anonymous_mib", anonymous);
    }
    if let Some(umem) = umem_mebibytes(&site) {
        reading.extra.insert("umem_mib", umem);
    }
    running.stop()?;
    Ok(reading)
}

/// Size of the UMEMs in the subject's namespace, as `ss` of iproute2 tells it.
fn umem_mebibytes(site: &Site) -> Option<f64> {
    let output = site.subject.output(std::process::Command::new("ss").args(["--xdp", "--extended"])).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Sockets that share a UMEM name the same number.
    let mut umems: Vec<(&str, f64)> = text
        .split("umem(")
        .skip(1)
        .filter_map(|umem| {
            let field = |name: &str| umem.split_once(name)?.1.split([',', ')']).next();
            Some((field("id:")?, field("size:")?.parse().ok()?))
        })
        .collect();
    umems.sort_by_key(|umem| umem.0);
    umems.dedup_by_key(|umem| umem.0);
    (!umems.is_empty()).then(|| umems.iter().map(|umem| umem.1).sum::<f64>() / f64::from(1 << 20))
}
