//! Nothing is allocated on the way of a packet: the whole pipeline (filter with a policer for each source, balance, bounce) on
//! memory, every way to a backend and back while the state changes, and the tables of connections, fragments and NAT sessions, with an allocator that counts. Nor do these tables fault in pages after they
//! were made. Needs neither root nor a lab.
#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use nix::sys::resource::{UsageWho, getrusage};
use xfwd::config;
use xfwd::packet::{FiveTuple, MacAddress};
use xfwd::pipeline::{BATCH_SIZE, Batch, MAX_ORIGINATED, Span, Stage, Verdict};
use xfwd::port::memory::MemoryPort;
use xfwd::stages::balance::answer::{self, IcmpError};
use xfwd::stages::balance::connections::{ConnectionTable, Event, Insertion, Tick, Timeouts};
use xfwd::stages::balance::fragments::FragmentTable;
use xfwd::stages::balance::mss::clamp_mss;
use xfwd::stages::balance::nat::{Endpoint, NatPool, translate_reply, translate_to_backend};
use xfwd::stages::balance::way::{
    Fit, Hop, Identification, LinkHeader, Tunnel, TunnelKind, fit, pass_hop, write_link,
};
use xfwd::stages::balance::{
    Balance, BalanceControl, BalanceOptions, BalancedService, Egress, Forward, NoBackend,
};
use xfwd::stages::bounce::{Bounce, Layer};
use xfwd::stages::filter::FilterControl;
use xfwd::testing::packets;
use xfwd::worker::{Idle, Worker, WorkerCounters};

thread_local! {
    /// Allocations of this thread.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// What this thread has freed.
    static FREED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes everything on to the system's allocator; a thread-local number of its own makes no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        FREED.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RULES: &str = r#"
[[filter]]
name = "limit"
rate = "100 pps"
per = "src"
action = "drop"
[[filter]]
name = "nets"
src = ["203.0.113.0/24", "2001:db8:bad::/48"]
action = "drop"
[[filter]]
name = "seen"
action = "count"
[dataplane]
steer = "all"
[bounce]
layer = "l4"
"#;

fn balance() -> BalanceControl {
    let address = "198.18.0.11".parse().unwrap();
    let services = [(6u8, 80u16), (17, 53)].map(|(protocol, port)| {
        let vip = packets::IPV4[0].into();
        BalancedService::new(format!("{protocol}/{port}"), vip, protocol, port, Forward::Dsr).with(address, 1)
    });
    let options = BalanceOptions { connections: 1_024, ..BalanceOptions::new(1, vec![MacAddress([2; 6])]) };
    let control = BalanceControl::new(options, services.into()).unwrap();
    let link = LinkHeader { source: MacAddress([2; 6]), destination: MacAddress([4; 6]), vlan: None };
    control
        .set_egress([(address, Some(Egress { port: 0, link, mtu: 1_500, is_direct: true, source: None }))]);
    control
}

#[test]
fn the_way_of_a_packet_allocates_nothing() {
    let plan = config::parse("rules", RULES).unwrap();
    let balance = balance();
    let stages = (FilterControl::new(plan.filter).stage(), balance.stage(0), Bounce::new(Layer::L4));
    let counters = Arc::<WorkerCounters>::default();
    let pool = MemoryPort::frames(8 * BATCH_SIZE, 2_048);
    let mut worker =
        Worker::new(vec![MemoryPort::new(4 * BATCH_SIZE)], pool, stages, Idle::Busy, Arc::clone(&counters));
    worker.turn().unwrap();

    let (mut allocated, mut seed) = (0, 0);
    for _ in 0..200 {
        for _ in 0..BATCH_SIZE {
            seed += 1;
            worker.ports_mut()[0].inject(&packets::well_formed(seed));
        }
        let before = COUNT.with(Cell::get);
        worker.turn().unwrap();
        allocated += COUNT.with(Cell::get) - before;
        // The other side of memory allocates what it shows; the next turn takes the frames back.
        worker.ports_mut()[0].drain_tx(usize::MAX);
        worker.ports_mut()[0].take_sent();
    }
    worker.check_frames().unwrap();
    let counts = counters.snapshot();
    assert_eq!(counts.rx_packets, 200 * BATCH_SIZE as u64);
    assert!(counts.bounced > 1_000 && counts.dropped_total() > 1_000, "all ways are taken: {counts:?}");
    assert_eq!(allocated, 0);
}

/// Answers datagrams, tags other packets, and reports each on a packet of its own.
struct Editing;

impl Stage for Editing {
    fn name(&self) -> &str {
        "editing"
    }
    fn originates(&self) -> usize {
        MAX_ORIGINATED
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        for index in batch.undecided() {
            let packet = batch.packet_mut(index);
            packet.set_mark(1);
            let edited = packet.set_source([192, 0, 2, 1].into()).is_ok() | packet.set_source_port(7).is_ok();
            let verdict = if packet.reply_udp(b"answer").is_ok() || packet.push_vlan(7).is_ok() || edited {
                Verdict::Bounce
            } else {
                Verdict::Continue
            };
            batch.decide(index, verdict);
            if let Some(report) = batch.allocate(60, Verdict::Bounce) {
                report.bytes_mut()[0] = index as u8;
            }
        }
    }
}

#[test]
fn answers_edits_and_packets_of_a_stage_s_own_allocate_nothing() {
    let counters = Arc::<WorkerCounters>::default();
    let pool = MemoryPort::frames(12 * BATCH_SIZE, 2_048);
    let ports = vec![MemoryPort::new(4 * BATCH_SIZE)];
    let mut worker = Worker::new(ports, pool, Editing, Idle::Busy, Arc::clone(&counters));
    worker.turn().unwrap();
    let mut allocated = 0;
    for round in 0..200 {
        for seed in 0..MAX_ORIGINATED as u64 {
            worker.ports_mut()[0].inject(&packets::well_formed(round * 100 + seed));
        }
        let before = COUNT.with(Cell::get);
        worker.turn().unwrap();
        allocated += COUNT.with(Cell::get) - before;
        worker.ports_mut()[0].drain_tx(usize::MAX);
        worker.ports_mut()[0].take_sent();
    }
    worker.check_frames().unwrap();
    assert_eq!(counters.snapshot().originated, 200 * MAX_ORIGINATED as u64);
    assert_eq!(allocated, 0);
}

/// Filled with flows until it refuses some, with moves to make room, then flooded, then swept.
#[test]
fn the_tables_of_connections_and_fragments_allocate_nothing_after_they_were_made() {
    let mut connections = ConnectionTable::new(1 << 12, Timeouts::default());
    let mut fragments = FragmentTable::new(1 << 8);
    let mut random = packets::Random::new(1);
    let before = COUNT.with(Cell::get);
    let mut stored = 0;
    for number in 0..10_000 {
        let (key, now) = (random.u64(), Tick::from_number(number / 10));
        connections.prefetch(key);
        if connections.find(key, now, Event::Syn).is_none() {
            stored += u32::from(connections.insert(key, number, now, Event::Syn) != Insertion::Refused);
            connections.find(key, now, Event::Data);
        }
        connections.insert(random.u64(), number, now, Event::Syn);
        connections.sweep(now, 8, |_| ());
        fragments.insert(key, number, now);
        fragments.find(key, now);
    }
    connections.sweep(Tick::from_number(1 << 24), usize::MAX, |_| ());
    let allocated = COUNT.with(Cell::get) - before;
    let counters = connections.counters();
    assert!(stored > 3_000 && counters.moved.get() > 0 && counters.refused.get() > 0, "{counters:?}");
    assert!(counters.expired.get() > 3_000 && connections.is_empty(), "{counters:?}");
    assert_eq!(allocated, 0);
}

#[test]
fn the_pages_of_a_connection_table_are_there_before_its_first_flow() {
    let mut table = ConnectionTable::new(1 << 20, Timeouts::default());
    let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
    let mut random = packets::Random::new(1);
    let before = faults();
    for number in 0..100_000 {
        table.insert(random.u64(), number, Tick::from_number(0), Event::Syn);
    }
    // 100,000 flows meet all of its 4,096 pages. A few faults may be the stack's.
    let faults = faults() - before;
    assert!(faults < 10, "{faults}");
    assert_eq!(table.len(), 100_000);
}
#[test]
fn ways_and_answers_allocate_nothing() {
    let tunnels = [("198.18.0.2", "198.18.0.11"), ("2001:db8::2", "2001:db8::11")].map(|(from, to)| {
        [TunnelKind::Ipip, TunnelKind::Gue { port: 6080 }]
            .map(|kind| Tunnel::new(kind, from.parse().unwrap(), to.parse().unwrap()).unwrap())
    });
    let link = LinkHeader { source: MacAddress([2; 6]), destination: MacAddress([4; 6]), vlan: Some(7) };
    let (mut ids, mut buffer) = (Identification::new(0, 2), vec![0; 4_096]);
    let (mut sent, mut answered, mut allocated) = (0, 0, 0);
    for seed in 0..20_000 {
        let bytes = packets::well_formed(seed);
        // With room in front for the headers of some tunnels, for others not.
        let span = Span { start: 24, end: 24 + bytes.len() };
        for way in 0..10 {
            buffer[span.start..span.end].copy_from_slice(&bytes);
            let before = COUNT.with(Cell::get);
            let mut batch = Batch::new(0);
            batch.push_at(&mut buffer, span, bytes.len() as u32);
            batch.parse();
            let packet = batch.packet_mut(0);
            match way {
                0..4 => {
                    let tunnel = &tunnels[way / 2][way % 2];
                    clamp_mss(packet, 536);
                    let passes =
                        fit(packet, tunnel.overhead(), 1_500) == Fit::Fits && pass_hop(packet) == Hop::Taken;
                    sent += u32::from(passes && tunnel.encapsulate(packet, &link, seed, &mut ids).is_ok());
                }
                4 => sent += u32::from(write_link(packet, &link).is_ok()),
                5 => {
                    answered +=
                        u32::from(answer::icmp_error(packet, IcmpError::TooBig { mtu: 1_400 }).is_ok())
                }
                6 => answered += u32::from(answer::icmp_error(packet, IcmpError::TimeExceeded).is_ok()),
                7 => answered += u32::from(answer::refuse(packet).is_ok()),
                8 => answered += u32::from(answer::reset(packet).is_ok()),
                _ => answered += u32::from(answer::echo_reply(packet).is_ok()),
            }
            drop(batch);
            allocated += COUNT.with(Cell::get) - before;
        }
    }
    assert!(sent > 40_000 && answered > 10_000, "{sent} sent, {answered} answered");
    assert_eq!(allocated, 0);
}

/// Sessions are opened, used from both sides, and swept.
#[test]
fn nat_allocates_nothing_after_its_pool_was_made() {
    let pool = NatPool::new(&[IpAddr::from([198, 18, 0, 2])], 1_024..=2_047, 1).unwrap();
    let mut nat = pool.workers(Timeouts::default()).remove(0);
    let backend = Endpoint::from("198.18.0.11:8080".parse::<std::net::SocketAddr>().unwrap());
    let frames: Vec<_> = (0..4_000).map(packets::well_formed).collect();
    let (mut allocated, mut translated) = (0, 0);
    for (number, frame) in (0..).zip(&frames) {
        let mut frame = frame.clone();
        let len = frame.len() as u32;
        let before = COUNT.with(Cell::get);
        let now = Tick::from_number(number * 8);
        let mut batch = Batch::new(0);
        batch.push(&mut frame, len);
        batch.parse();
        batch.each_undecided(|packet| {
            let tuple = FiveTuple::of(packet.bytes(), packet.headers());
            let Some(tuple) = tuple.map(|tuple| FiveTuple { src_port: number as u16, ..tuple }) else {
                return Verdict::Continue;
            };
            let known = nat.find_flow(&tuple).map(|session| session.id);
            let Some(id) = known.or_else(|| nat.open(now, &tuple, backend, 0)) else {
                return Verdict::Continue;
            };
            let session = nat.flow(id, &tuple).unwrap();
            nat.seen_from_client(&session, now, packet.headers().tcp_flags);
            let reply = nat.find_reply(&session.reply()).unwrap();
            nat.seen_from_backend(&reply, now, 0);
            translated += u32::from(translate_to_backend(packet, &session).is_ok());
            translated += u32::from(translate_reply(packet, &reply).is_ok());
            Verdict::Continue
        });
        nat.sweep(now, 1);
        allocated += COUNT.with(Cell::get) - before;
    }
    let before = COUNT.with(Cell::get);
    nat.sweep(Tick::from_number(1 << 24), usize::MAX);
    allocated += COUNT.with(Cell::get) - before;
    let counts = nat.counters().snapshot();
    assert!(translated > 500 && counts.opened > 500 && counts.open == 0, "{translated} {counts:?}");
    assert_eq!(allocated, 0);
}

/// Services of every way on the addresses and ports that random packets are sent to; two of them share an address, one is of a prefix,
/// and one has no backend left.
fn every_way() -> Vec<BalancedService> {
    let [first, second, ..] = packets::IPV4.map(IpAddr::from);
    let of = |vip: IpAddr, protocol, port, forward, backend: &str| {
        let name = format!("{vip}/{protocol}/{port}");
        let service =
            BalancedService::new(name, vip, protocol, port, forward).with(backend.parse().unwrap(), 1);
        BalancedService { table_size: 251, mss: Some(600), no_backend: NoBackend::Reject, ..service }
    };
    let sixth = IpAddr::from(packets::IPV6[0]);
    let net = BalancedService {
        network: "198.18.10.0/24".parse().unwrap(),
        ports: 1..=65_535,
        ..of(second, 17, 1, Forward::Dsr, "198.18.0.21")
    };
    let mut refused = of(second, 6, 443, Forward::Dsr, "198.18.0.21");
    refused.backends[0].weight = 0;
    vec![
        of(first, 6, 80, Forward::Dsr, "198.18.0.21"),
        of(first, 6, 443, Forward::Ipip, "198.18.0.21"),
        of(first, 17, 53, Forward::Nat, "198.18.0.21"),
        of(first, 17, 443, Forward::Gue, "2001:db8::21"),
        of(second, 6, 80, Forward::Nat, "198.18.0.21"),
        of(sixth, 6, 80, Forward::Ipip, "2001:db8::21"),
        of(sixth, 6, 443, Forward::Gue, "198.18.0.21"),
        of(sixth, 17, 53, Forward::Nat, "2001:db8::21"),
        refused,
        net,
    ]
}

/// What the packets have become, of so many: sent on, answered or dropped.
fn pass(stage: &mut Balance, buffers: &mut [Vec<u8>], spans: &[Span], seen: &mut [u64; 3]) -> u64 {
    let before = COUNT.with(Cell::get) + FREED.with(Cell::get);
    stage.housekeeping();
    let mut batch = Batch::new(0);
    for (buffer, span) in buffers.iter_mut().zip(spans) {
        batch.push_at(buffer, *span, (span.end - span.start) as u32);
    }
    batch.parse();
    stage.process(&mut batch);
    let count = batch.len();
    for verdict in &batch.finish()[..count] {
        match verdict {
            Verdict::Bounce => seen[0] += 1,
            Verdict::Drop(_) => seen[1] += 1,
            _ => seen[2] += 1,
        }
    }
    COUNT.with(Cell::get) + FREED.with(Cell::get) - before
}

/// Random packets by every way, the replies to those that were translated, errors that quote what was sent, and a new state with every
/// batch, which the stage takes: the old one is freed by the control side.
#[test]
fn every_way_there_and_back_allocates_and_frees_nothing_while_the_state_changes() {
    let ours = ["198.18.0.2", "2001:db8::2"].map(|text| text.parse::<IpAddr>().unwrap());
    let options = BalanceOptions {
        connections: 1_024,
        answers_per_second: 1_000_000,
        nat: Some(NatPool::new(&ours, 32_768..=33_791, 1).unwrap()),
        ..BalanceOptions::new(1, vec![MacAddress([2; 6])])
    };
    let control = BalanceControl::new(options, every_way()).unwrap();
    let link = LinkHeader { source: MacAddress([2; 6]), destination: MacAddress([4; 6]), vlan: Some(7) };
    let hop = |address: &str, vlan| {
        let address: IpAddr = address.parse().unwrap();
        let source = ours.into_iter().find(|source| source.is_ipv4() == address.is_ipv4());
        (
            address,
            Some(Egress { port: 0, link: LinkHeader { vlan, ..link }, mtu: 1_400, is_direct: true, source }),
        )
    };
    control.set_egress([hop("198.18.0.21", None), hop("2001:db8::21", None)]);
    let mut stage = control.stage(0);
    let (mut seed, mut touched, mut seen, mut replies, mut errors_sent) = (0, 0, [0; 3], 0, 0);
    for round in 0..400u16 {
        let mut buffers = vec![vec![0; 4_096]; BATCH_SIZE];
        let mut spans = Vec::new();
        for buffer in &mut buffers {
            seed += 1;
            let bytes = packets::well_formed(seed);
            // With room in front for some, for others not.
            let start = if seed % 2 == 0 { 64 } else { 0 };
            buffer[start..start + bytes.len()].copy_from_slice(&bytes);
            spans.push(Span { start, end: start + bytes.len() });
        }
        touched += pass(&mut stage, &mut buffers, &spans, &mut seen);

        // The way back: addresses and ports of what was sent are exchanged. What is no reply is dropped or left alone.
        let (mut back, mut errors, mut error_spans) = (Vec::new(), Vec::new(), Vec::new());
        for (buffer, span) in buffers.iter().zip(&spans) {
            let mut bytes = buffer.clone();
            let quoted = error_about(&bytes[span.start..]);
            turn_around(&mut bytes[span.start..]);
            // About what was sent on, and about what a backend may have answered.
            if let Some(error) = [quoted, error_about(&bytes[span.start..])][usize::from(round % 2)].clone() {
                error_spans.push(Span { start: 0, end: error.len() });
                errors.push([error, vec![0; 100]].concat());
            }
            back.push(bytes);
        }
        let mut of_errors = [0; 3];
        touched += pass(&mut stage, &mut errors, &error_spans, &mut of_errors);
        errors_sent += of_errors[0];
        let before = control.stage_counters().next().unwrap().replies.get();
        touched += pass(&mut stage, &mut back, &spans, &mut seen);
        replies += control.stage_counters().next().unwrap().replies.get() - before;

        // Each round one of all kinds of change.
        match round % 4 {
            0 => control.set_egress([hop("198.18.0.21", Some(round))]),
            1 => control.set_health([("198.18.10.1/6/443", "198.18.0.21".parse().unwrap(), round % 8 == 1)]),
            2 => control.set_services(every_way()).unwrap(),
            // Several at once, of which the stage sees the last.
            _ => (0..20).for_each(|vlan| control.set_egress([hop("2001:db8::21", Some(vlan + round))])),
        }
    }
    let counters = control.stage_counters().next().unwrap();
    let answers = &counters.answers;
    let sent: u64 = control.counters().iter().map(|row| row.packets).sum();
    assert!(sent > 1_500 && replies > 40, "{sent} sent, {replies} replies");
    assert!(errors_sent > 100, "{errors_sent} errors sent on");
    assert!(answers.refused.get() > 20 && answers.time_exceeded.get() > 20, "{answers:?}");
    assert!(answers.echo_replies.get() > 0, "{answers:?}");
    assert!(counters.fragments.get().unwrap().inserted.get() > 20);
    assert_eq!(touched, 0, "{seen:?}");
}

/// An error that quotes the beginning of a packet, if that is IPv4.
fn error_about(bytes: &[u8]) -> Option<Vec<u8>> {
    let headers = xfwd::packet::parse(bytes, bytes.len());
    if headers.outcome() != xfwd::packet::Outcome::Ip || headers.ip_version != 4 {
        return None;
    }
    let quoted = &bytes[headers.network_offset.into()..headers.end as usize];
    let quoted = &quoted[..quoted.len().min(200)];
    let to = quoted[12..16].try_into().ok()?;
    let mut error = Vec::new();
    let step = etherparse::PacketBuilder::ethernet2([4; 6], [2; 6]).ipv4([192, 0, 2, 9], to, 60);
    step.icmpv4_raw(3, 4, 1_300u32.to_be_bytes()).write(&mut error, quoted).unwrap();
    Some(error)
}

/// Exchanges the ends of a packet that begins here, as it is if it is none with addresses and ports. Checksums do not matter.
fn turn_around(bytes: &mut [u8]) {
    let headers = xfwd::packet::parse(bytes, bytes.len());
    let (network, transport) = (usize::from(headers.network_offset), usize::from(headers.transport_offset));
    let (at, size) = if headers.ip_version == 4 { (network + 12, 4) } else { (network + 8, 16) };
    if headers.outcome() != xfwd::packet::Outcome::Ip {
        return;
    }
    let (source, destination) = bytes[at..at + 2 * size].split_at_mut(size);
    source.swap_with_slice(destination);
    if transport > 0 && matches!(headers.protocol, 6 | 17) {
        let (source, destination) = bytes[transport..transport + 4].split_at_mut(2);
        source.swap_with_slice(destination);
    }
}
