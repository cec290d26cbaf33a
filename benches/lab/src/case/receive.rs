//! Receive and drop in user space: what it costs to get packets out of the kernel.

use super::{Case, Contestant, HEADLINE_ROUNDS, Unit};
use crate::offer::{Counted, Traffic};
use crate::subject::bare::Bare;
use crate::subject::testpmd::Testpmd;
use crate::subject::xfwd::Xfwd;

/// Everything leaves the kernel, and a filter in the worker drops it.
pub const CONFIG: &str = r#"
[dataplane]
steer = "all"
"#;

pub(super) fn cases() -> Vec<Case> {
    let traffic = Traffic::default();
    vec![Case {
        name: "receive".to_owned(),
        family: "receive",
        title: "Receive and drop in user space, one queue".to_owned(),
        unit: Unit::PacketsPerSecond,
        point: None,
        rounds: HEADLINE_ROUNDS,
        contestants: contestants(&traffic),
    }]
}

/// xfwd and its peers with this traffic.
pub fn contestants(traffic: &Traffic) -> Vec<Contestant> {
    vec![
        Contestant::throughput(Xfwd::new(CONFIG), traffic, Counted::Delivered),
        Contestant::throughput(Bare::Receive, traffic, Counted::Delivered),
        Contestant::throughput(Testpmd::RxOnly, traffic, Counted::Delivered),
    ]
}
