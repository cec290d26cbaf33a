//! Workers: bounce on several queues, and with each way to idle.

use super::{CURVE_ROUNDS, Case, Contestant, Point, Unit, bounce};
use crate::offer::{Counted, Traffic};
use crate::site::Shape;
use crate::subject::testpmd::Testpmd;
use crate::subject::xfwd::Xfwd;

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let queues: &[u32] = if quick { &[1, 2] } else { &[1, 2, 4] };
    let mut cases: Vec<Case> = queues.iter().map(|queues| on_queues(*queues)).collect();
    cases.push(idle());
    cases
}

fn on_queues(queues: u32) -> Case {
    // One queue has the way of several, so that they differ in nothing else.
    let shape = Shape { queues, ..Shape::default() };
    let traffic = Traffic { shape, through_stack: true, ..Traffic::default() };
    Case {
        name: format!("bounce-queues-{queues}"),
        family: "bounce-queues",
        title: format!("Bounce, {queues} queues, a worker each, as far as there are cores"),
        unit: Unit::PacketsPerSecond,
        point: Some(Point { axis: "queues", at: queues.into() }),
        rounds: CURVE_ROUNDS,
        contestants: vec![
            Contestant::throughput(Xfwd::new(bounce::CONFIG), &traffic, Counted::Returned),
            Contestant::throughput(Testpmd::Macswap, &traffic, Counted::Returned),
        ],
    }
}

fn idle() -> Case {
    let ways = ["adaptive", "busy", "poll"];
    let contestant = |way: &&str| {
        let config =
            format!("[dataplane]\nsteer = \"everything\"\nidle = \"{way}\"\n[bounce]\nlayer = \"l2\"\n");
        let xfwd = Xfwd { name: Some(format!("xfwd {way}")), ..Xfwd::new(config) };
        Contestant::throughput(xfwd, &Traffic::default(), Counted::Returned)
    };
    Case {
        name: "bounce-idle".to_owned(),
        family: "bounce-idle",
        title: "Bounce under full load with each way to idle".to_owned(),
        unit: Unit::PacketsPerSecond,
        point: None,
        rounds: CURVE_ROUNDS,
        contestants: ways.iter().map(contestant).collect(),
    }
}
