//! Forwarding: in by one port, out of another.

use xfwd_netns::topology::{BACKEND_INTERFACE, INTERFACE, VIP_V4};

use super::{Case, Contestant, HEADLINE_ROUNDS, Unit, balance};
use crate::bench::Bench;
use crate::offer::{Counted, Traffic};
use crate::site::{SINK, Shape, Site};
use crate::subject::linux::Linux;
use crate::subject::testpmd::Testpmd;
use crate::subject::xfwd::Xfwd;
use crate::subject::{Outcome, Running, Subject};

const PORT: u16 = 80;

pub(super) fn cases() -> Vec<Case> {
    let shape = Shape { two_ports: true, ..Shape::default() };
    let traffic = Traffic { destination: VIP_V4, port: PORT, shape, ..Traffic::default() };
    vec![Case {
        name: "forward".to_owned(),
        family: "forward",
        title: "Forward from one port to another: xfwd balances to a backend there".to_owned(),
        unit: Unit::PacketsPerSecond,
        point: None,
        rounds: HEADLINE_ROUNDS,
        contestants: vec![
            Contestant::throughput(Forwarder, &traffic, Counted::AtSink),
            Contestant::throughput(Testpmd::Io, &traffic, Counted::AtSink),
            Contestant::throughput(Linux::Bridge, &traffic, Counted::AtSink),
            Contestant::throughput(Linux::Routing, &traffic, Counted::AtSink),
        ],
    }]
}

/// xfwd with a service whose only backend is the sink.
struct Forwarder;

impl Subject for Forwarder {
    fn name(&self) -> String {
        "xfwd".to_owned()
    }

    fn start(&self, bench: &Bench, site: &Site) -> Outcome<Box<dyn Running>> {
        if let Some(sink) = &site.sink {
            site.subject.neighbour(BACKEND_INTERFACE, SINK.into(), sink.mac(INTERFACE)?)?;
        }
        Xfwd::new(balance::service("web", VIP_V4, PORT, "dsr", [SINK].into_iter())).start(bench, site)
    }
}
