//! Frame sizes. Those of RFC 2544, section 9.1, that tell most, with FCS as there, the longest that the generator can make, and
//! jumbo frames.

use xfwd_netns::trafficgen::MAX_FRAME_LENGTH;

use super::{CURVE_ROUNDS, Case, Contestant, Point, Unit, bounce, grouped, receive};
use crate::offer::{FCS_BYTES, Traffic};
use crate::site::Shape;

const ETHERNET_HEADER: usize = 14;
const USUAL_MTU: usize = 1_500;
/// What a switch with jumbo frames carries. The generator's frames have to fit a page, so a packet socket sends these, far fewer.
const JUMBO: usize = 9_000;

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let longest = MAX_FRAME_LENGTH + FCS_BYTES;
    let sizes: &[usize] = if quick { &[64, 1_500] } else { &[64, 512, 1_500, longest, JUMBO] };
    let of = |family: &'static str, what: &str, contestants: fn(&Traffic) -> Vec<Contestant>| {
        let what = what.to_owned();
        sizes.iter().map(move |size| case(family, &what, *size, contestants)).collect::<Vec<_>>()
    };
    let mut cases = of("receive-size", "Receive and drop", receive::contestants);
    cases.extend(of("bounce-size", "Bounce", bounce::contestants));
    cases
}

fn case(
    family: &'static str,
    what: &str,
    size: usize,
    contestants: impl Fn(&Traffic) -> Vec<Contestant>,
) -> Case {
    let frame_length = size - FCS_BYTES;
    let mtu = (frame_length - ETHERNET_HEADER).max(USUAL_MTU);
    let shape = Shape { mtu: u32::try_from(mtu).unwrap_or(u32::MAX), ..Shape::default() };
    let bytes = grouped(size as u64);
    let how = match size {
        JUMBO => ", in several buffers, sent by a packet socket",
        _ if mtu > USUAL_MTU => ", the longest that the generator can make",
        _ => "",
    };
    Case {
        name: format!("{family}-{size}"),
        family,
        title: format!("{what}, frames of {bytes} bytes with FCS{how}"),
        unit: Unit::PacketsPerSecond,
        point: Some(Point { axis: "frame bytes", at: size as f64 }),
        rounds: CURVE_ROUNDS,
        contestants: contestants(&Traffic { frame_length, shape, ..Traffic::default() }),
    }
}
