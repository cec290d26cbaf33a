//! Bounce: every packet goes back where it came from.

use super::{Case, Contestant, HEADLINE_ROUNDS, Unit};
use crate::offer::{Counted, Traffic};
use crate::subject::bare::Bare;
use crate::subject::testpmd::Testpmd;
use crate::subject::two_lines::TwoLines;
use crate::subject::xfwd::Xfwd;

/// Every frame leaves the kernel, as with the peers, and goes back, with MAC addresses exchanged.
pub const CONFIG: &str = r#"
[dataplane]
steer = "everything"

[bounce]
layer = "l2"
"#;

pub(super) fn cases() -> Vec<Case> {
    let traffic = Traffic::default();
    let mut contestants = contestants(&traffic);
    contestants.push(Contestant::throughput(TwoLines::Tx, &traffic, Counted::Returned));
    vec![Case {
        name: "bounce".to_owned(),
        family: "bounce",
        title: "Bounce, one queue".to_owned(),
        unit: Unit::PacketsPerSecond,
        point: None,
        rounds: HEADLINE_ROUNDS,
        contestants,
    }]
}

/// xfwd and its user-space peers with this traffic.
pub fn contestants(traffic: &Traffic) -> Vec<Contestant> {
    vec![
        Contestant::throughput(Xfwd::new(CONFIG), traffic, Counted::Returned),
        Contestant::throughput(Bare::Bounce, traffic, Counted::Returned),
        Contestant::throughput(Testpmd::Macswap, traffic, Counted::Returned),
    ]
}
