//! An authoritative DNS server for one small zone (RFC 1034, RFC 1035), which answers in the frame that the question came in.
//!
//! Usage, as root: `dns_responder INTERFACE ADDRESS:PORT ZONEFILE [QUEUES]`, such as `dns_responder eth0 198.18.0.2:53
//! examples/dns_responder/example.zone 4`, where the address is one of the host's. Then, from another machine,
//! `dig @198.18.0.2 www.example`. It ends by Ctrl-C and says what it did.
//!
//! The zone is known before the first question comes, and so is every answer: what stands behind the question is written at
//! start, for each name and type (`dns_responder/zone.rs`). To answer is then to look a name up and to copy: header and question as
//! they were asked, down to upper and lower case, which resolvers compare, and the prepared records. Nothing is allocated. What is
//! no question is dropped, above all what is an answer itself: two servers would keep each other busy for ever.
//!
//! What a real server does in addition: delegations, wildcards and DNSSEC, a zone that changes while it runs, transfers to
//! secondary servers, and a limit of answers to one address: a question is short and its answer long, so whoever forges the
//! source of questions has an amplifier. And it listens on TCP, where a client comes back to when an answer was too
//! long and so was truncated. Only UDP leaves the kernel here: TCP finds the host's own stack, and whatever listens there.

#[path = "dns_responder/zone.rs"]
mod zone;

use std::error::Error;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;

use domain::base::header::HeaderSection;
use domain::base::iana::{Opcode, OptRcode};
use domain::base::{Message, Name, ToName};
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;
use xfwd::prelude::*;
use zone::Zone;

/// Longest answer to who does not speak EDNS (RFC 1035, section 4.2.1).
const PLAIN_BYTES: u16 = 512;
/// Longest answer at all: what fits the smallest MTU of IPv6, 1,280 bytes, so that no path has to fragment it (RFC 9715).
const EDNS_BYTES: u16 = 1_232;
/// Length of an OPT record without options.
const OPT_BYTES: usize = 11;

/// The stage. All workers read one zone, each writes answers into a buffer of its own.
struct Responder {
    zone: Arc<Zone>,
    answer: Vec<u8>,
    answered: StageCounter,
    no_such_name: StageCounter,
    refused: StageCounter,
    truncated: StageCounter,
    dropped: StageCounter,
}

impl Stage for Responder {
    fn name(&self) -> &str {
        "dns-responder"
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            let outcome =
                packet.payload().and_then(|question| respond(&self.zone, question, &mut self.answer));
            // It sees to it that this was a whole datagram: fragments and ICMP errors come along with what is steered.
            let Some((rcode, truncated)) = outcome.filter(|_| packet.reply_udp(&self.answer).is_ok()) else {
                self.dropped.add(1);
                return Verdict::Drop(DropReason::NotAnswered);
            };
            match rcode {
                OptRcode::NOERROR => self.answered.add(1),
                OptRcode::NXDOMAIN => self.no_such_name.add(1),
                _ => self.refused.add(1),
            }
            self.truncated.add(truncated.into());
            Verdict::Bounce
        });
    }
}

/// Writes the answer to a question; what it says, and whether it was too long. `None` when this is no question.
fn respond(zone: &Zone, question: &[u8], answer: &mut Vec<u8>) -> Option<(OptRcode, bool)> {
    let message = Message::from_slice(question).ok()?;
    let (header, asked, opt) = (message.header(), message.first_question()?, message.opt());
    let name = Name::from_slice(asked.qname().as_flat_slice()?).ok()?;
    if header.qr() {
        return None;
    }
    let edns_version = opt.as_ref().map_or(0, |opt| opt.version());
    let (rcode, found) = match (header.opcode(), message.header_counts().qdcount(), edns_version) {
        (Opcode::QUERY, 1, 0) => {
            let found = zone.find(name, asked.qtype(), asked.qclass());
            (found.rcode, Some(found))
        }
        (Opcode::QUERY, 1, _) => (OptRcode::BADVERS, None),
        (Opcode::QUERY, _, _) => (OptRcode::FORMERR, None),
        _ => (OptRcode::NOTIMP, None),
    };

    // Behind the header are the name, its type and its class.
    let question_bytes = 12 + name.len() + 4;
    let opt_bytes = if opt.is_some() { OPT_BYTES } else { 0 };
    let most = opt.as_ref().map_or(PLAIN_BYTES, |opt| opt.udp_payload_size().clamp(PLAIN_BYTES, EDNS_BYTES));
    let room = usize::from(most) - question_bytes - opt_bytes;
    let truncated = found.is_some_and(|found| found.records.len() > room);
    let found = found.filter(|_| !truncated);

    answer.clear();
    answer.extend_from_slice(&question[..question_bytes]);
    answer.extend_from_slice(found.map_or(&[], |found| &found.records));
    answer.extend_from_slice(&opt_record(rcode)[..opt_bytes]);
    let section = HeaderSection::for_message_slice_mut(answer);
    let header = section.header_mut();
    header.set_qr(true);
    header.set_aa(matches!(rcode, OptRcode::NOERROR | OptRcode::NXDOMAIN));
    header.set_tc(truncated);
    header.set_ad(false);
    header.set_rcode(rcode.rcode());
    let counts = section.counts_mut();
    counts.set_qdcount(1);
    counts.set_ancount(found.map_or(0, |found| found.answers));
    counts.set_nscount(found.map_or(0, |found| found.authorities));
    counts.set_arcount(opt.is_some().into());
    Some((rcode, truncated))
}

/// The OPT record of an answer (RFC 6891, section 6.1.2): how much is received here, and the upper bits of the rcode.
fn opt_record(rcode: OptRcode) -> [u8; OPT_BYTES] {
    let [high, low] = EDNS_BYTES.to_be_bytes();
    [0, 0, 41, high, low, rcode.ext(), 0, 0, 0, 0, 0]
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, address, zone_file, queues @ ..] = &arguments[..] else {
        return Err("usage: dns_responder INTERFACE ADDRESS:PORT ZONEFILE [QUEUES]".into());
    };
    let address: SocketAddr = address.parse()?;
    let queues = queues.first().map_or(Ok(1), |queues| queues.parse())?;
    let zone = File::open(zone_file).map_err(Into::into).and_then(|mut file| Zone::load(&mut file));
    let zone = Arc::new(zone.map_err(|error| format!("{zone_file}: {error}"))?);
    // Before anything is set up, so that no signal is missed.
    let mut signals = Signals::new(TERM_SIGNALS)?;

    let running = Runner::new()
        .interface(interface)
        .queues(queues)
        .steer(SteeredService::udp(address))
        .stage(move |worker| Responder {
            zone: Arc::clone(&zone),
            answer: Vec::with_capacity(EDNS_BYTES.into()),
            answered: worker.counter("answered"),
            no_such_name: worker.counter("no such name"),
            refused: worker.counter("refused"),
            truncated: worker.counter("truncated"),
            dropped: worker.counter("dropped"),
        })
        .start()?;
    running.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    eprintln!("answering on {address}");

    signals.forever().next();
    let (snapshot, errors) = running.stop();
    for (name, count) in &snapshot.counters {
        println!("{name}: {count}");
    }
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
