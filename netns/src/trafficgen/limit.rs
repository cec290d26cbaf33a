//! What the generator itself can do.

use std::time::Duration;

use super::{
    counter::{Counter, CounterOptions},
    generator::{Amount, Generator},
    traffic::Traffic,
};
use crate::{
    error::Result,
    lab::VethOptions,
    topology::{self, INTERFACE},
};

/// Before the measurement: caches and page pools fill.
const WARM_UP: Duration = Duration::from_millis(100);

/// The most that can be offered with some traffic on this machine: packets per second that arrive at the other end of a
/// veth pair of its own where a [`Counter`] drops them.
///
/// Nothing can be measured above it, so a result close to it says something about the generator and not about who was
/// measured. The pair has `queues` queues, and an MTU for the longest frame; a rate in `traffic` is ignored.
///
/// # Errors
///
/// If the network cannot be set up, or the traffic cannot be made.
pub fn calibrate(traffic: &Traffic, queues: u32, time: Duration) -> Result<f64> {
    // Frames below it have 14 bytes in front of the packet, or more with tags.
    let mtu = u32::try_from(traffic.longest_frame()).unwrap_or(u32::MAX).max(1_500);
    let pair = topology::pair_with(&VethOptions { queues, mtu, ..VethOptions::default() })?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let destination_mac = pair.subject.mac(INTERFACE)?;
    let traffic = Traffic { destination_mac, rate_pps: None, ..traffic.clone() };
    pair.generator.run(|| {
        let mut generator = Generator::new(INTERFACE, &traffic)?;
        generator.run(Amount::For(WARM_UP))?;
        let before = counter.read()?.total().packets;
        let sent = generator.run(Amount::For(time))?;
        let arrived = counter.read()?.total().packets - before;
        Ok(arrived as f64 / sent.elapsed.as_secs_f64())
    })
}
