//! A bouncer: sends every packet back to where it came from. The smallest program that `xfwd` makes, and the one to measure with.
//!
//! Usage, as root: `bounce INTERFACE [LAYER [QUEUES]]`, such as `bounce eth0 l2 4`; then send to the other end of the wire, with
//! `xfwd-trafficgen` for example. LAYER says how much of a packet is turned around: `l2` its MAC addresses, `l3` its IP addresses as
//! well, `l4` its ports too. It ends by Ctrl-C and says what it did.
//!
//! Everything leaves the kernel but ARP, neighbour discovery and what is addressed to the host, so the machine stays reachable by
//! this interface. The stage ships with the library; the `xfwd` command runs the same one by `examples/bounce.toml`.
//!
//! Beside it stands `bare_xsk_bounce.rs`, the same on nothing but `xsk-rs`, and as short. What the library has in addition is what that
//! one leaves out: several queues, each with a pinned thread; a packet that finds the tx ring full waits while others are received; the
//! socket sleeps when there is nothing to do; what is the host's stays with the host; the program is off the interface however the
//! process ends; and all that happens is counted. `cargo bench --bench bounce` says what that costs: it runs both in turn.

use std::error::Error;

use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use xfwd::prelude::*;
use xfwd::stages::bounce::{Bounce, Layer};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, options @ ..] = &arguments[..] else {
        return Err("usage: bounce INTERFACE [l2|l3|l4 [QUEUES]]".into());
    };
    let layer = match options.first().map_or("l2", String::as_str) {
        "l2" => Layer::L2,
        "l3" => Layer::L3,
        "l4" => Layer::L4,
        other => return Err(format!("{other} is no layer: l2, l3 or l4").into()),
    };
    let queues = options.get(1).map_or(Ok(1), |queues| queues.parse())?;
    // Before anything is set up, so that no signal is missed.
    let mut signals = Signals::new(TERM_SIGNALS)?;

    // One `Bounce` for each worker. The worker's loop is compiled for this type: no dynamic call is on a packet's way.
    let runner = Runner::new().interface(interface).queues(queues).steer_all();
    let running = runner.stage(move |_| Bounce::new(layer)).start()?;
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    eprintln!("bouncing on {interface}");

    signals.forever().next();
    let (snapshot, errors) = running.stop();
    let totals = &snapshot.totals;
    // What is lost is lost before the socket: its rings were full, since more came than the worker can take.
    println!("{} received, {} bounced, {} lost", totals.packets, totals.verdicts.bounce, totals.lost);
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
