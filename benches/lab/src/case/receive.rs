//! Receive and drop in user space: what it costs to get packets out of the kernel.

use super::{Case, Contestant, HEADLINE_ROUNDS, Unit};
use crate::offer::{Counted, Traffic};
use crate::subject::bare::Bare;
use crate::subject::library::Library;
use crate::subject::testpmd::Testpmd;
use crate::subject::xfwd::Xfwd;

/// All but the host's packets leave the kernel, and the filter in the worker drops them: the second rule stands behind one that only a worker can
/// carry out.
const CONFIG: &str = r#"
[dataplane]
steer = "all"

[[filter]]
name = "for-the-worker"
src = "192.0.2.0/24"
action = "bounce"

[[filter]]
name = "all"
protocol = "udp"
action = "drop"
"#;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        name: "receive".to_owned(),
        family: "receive",
        title: "Receive and drop in user space, one queue".to_owned(),
        unit: Unit::PacketsPerSecond,
        point: None,
        rounds: HEADLINE_ROUNDS,
        contestants: contestants(&Traffic::default()),
    }]
}

/// xfwd and its peers, all of which drop unseen whatever is in the queue but for those that say otherwise, with this traffic.
pub fn contestants(traffic: &Traffic) -> Vec<Contestant> {
    let filter = Xfwd { name: Some("xfwd, filter in the worker".to_owned()), ..Xfwd::new(CONFIG) };
    vec![
        Contestant::throughput(Library, traffic, Counted::Delivered),
        Contestant::throughput(Bare::Receive, traffic, Counted::Delivered),
        Contestant::throughput(Bare::ReceiveAndRead, traffic, Counted::Delivered),
        Contestant::throughput(Testpmd::RxOnly, traffic, Counted::Delivered),
        Contestant::throughput(filter, traffic, Counted::Delivered),
    ]
}
