//! A UDP echo server (RFC 862) that answers in place: what a datagram brings goes back in the frame that it came in.
//!
//! Usage, as root: `udp_echo INTERFACE ADDRESS:PORT [QUEUES]`, such as `udp_echo eth0 198.18.0.2:7 4`, where the address is one
//! of the host's. Then, from another machine, `nc -u 198.18.0.2 7`. It ends by Ctrl-C and says what it did.
//!
//! What leaves the kernel are the datagrams to this address and port, and nothing else of weight: SSH, ARP and pings stay with the
//! host, which is what makes it possible to try this on a machine that is reached by the same interface. Fragments of
//! UDP to the address come along, whatever their port, since only the first one has it: here they are dropped.
//!
//! To turn a datagram around source and destination are exchanged at each layer. None of this changes a checksum: it is a
//! sum, and a sum does not care for the order of what is added. So a datagram that came with a right checksum goes back with a right
//! one, and one that was broken on its way arrives broken, for its sender to find. The hop limit is different: an answer begins
//! a way of its own, so it is set anew, and in IPv4, whose header has a checksum of its own, that one is computed again.

use std::error::Error;
use std::net::SocketAddr;

use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use xfwd::packet::{Ethernet, Fragment, Ipv4, Ipv6, Outcome, Truncated, Udp, protocol};
use xfwd::prelude::*;

/// Hops that an answer may take (the default of RFC 1700).
const HOPS: u8 = 64;

/// The stage. Each worker has its own, so its counters are plain numbers to it.
struct Echo {
    port: u16,
    answered: StageCounter,
    refused: StageCounter,
}

impl Stage for Echo {
    fn name(&self) -> &str {
        "udp-echo"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            if self.is_for_us(packet) && turn_around(packet) == Ok(true) {
                self.answered.add(1);
                Verdict::Bounce
            } else {
                self.refused.add(1);
                Verdict::Drop(DropReason::NotAnswered)
            }
        });
    }
}

impl Echo {
    /// The parser has looked at the headers before: they are whole where it says so, and offsets are where they begin.
    fn is_for_us(&self, packet: &Packet<'_>) -> bool {
        let headers = packet.headers();
        headers.outcome() == Outcome::Ip
            && headers.fragment() == Fragment::No
            && headers.protocol == protocol::UDP
            && headers.dst_port == self.port
            // Two echo servers would keep each other busy for ever with what somebody sent in the other's name.
            && headers.src_port > 1_023
    }
}

/// Exchanges source and destination of Ethernet, IP and UDP. `false` when the IPv4 header was damaged on its way.
fn turn_around(packet: &mut Packet<'_>) -> Result<bool, Truncated> {
    let (headers, bytes) = packet.headers_and_bytes();
    Ethernet::new_checked(&mut *bytes)?.swap_addresses();
    let network = &mut bytes[headers.network_offset.into()..];
    if headers.ip_version == 4 {
        let mut ip = Ipv4::new_checked(network)?;
        if !ip.has_valid_checksum() {
            return Ok(false);
        }
        ip.swap_addresses();
        ip.set_ttl(HOPS);
        ip.fill_checksum();
    } else {
        let mut ip = Ipv6::new_checked(network)?;
        ip.swap_addresses();
        ip.set_hop_limit(HOPS);
    }
    Udp::new_checked(&mut bytes[headers.transport_offset.into()..])?.swap_ports();
    Ok(true)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, address, queues @ ..] = &arguments[..] else {
        return Err("usage: udp_echo INTERFACE ADDRESS:PORT [QUEUES]".into());
    };
    let address: SocketAddr = address.parse()?;
    let queues = queues.first().map_or(Ok(1), |queues| queues.parse())?;
    // Before anything is set up, so that no signal is missed.
    let mut signals = Signals::new(TERM_SIGNALS)?;

    let running = Runner::new()
        .interface(interface)
        .queues(queues)
        .steer(SteeredService::udp(address))
        .stage(move |worker| Echo {
            port: address.port(),
            answered: worker.counter("answered"),
            refused: worker.counter("refused"),
        })
        .start()?;
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    eprintln!("echoing on {address}");

    signals.forever().next();
    let (snapshot, errors) = running.stop();
    println!("{} answered, {} refused", snapshot.counters["answered"], snapshot.counters["refused"]);
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
