//! AF_XDP ports on a real interface: who has which frame when, when the kernel is asked to send, and what its answers
//! become.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use xfwd::{
    kernel::{
        link::Link,
        xdp::{SteeredService, Steering, XdpMode, XdpProgram, room_mark},
    },
    pipeline::{Batch, DropReason, Span, Stage, Verdict},
    port::{
        FramePool, Port, PortError, Received,
        xsk::{self, BoundMode, Mode, OpenRequest, Opened, QueueRequest, XskFrame, XskPort, options},
    },
    runtime::{self, Runner},
    worker::{Idle, Worker, WorkerCounters},
};
use xfwd_netns::{
    Capture, Namespace, VethOptions, lab_or_skip,
    topology::{self, INTERFACE, Pair, host_v4},
    trafficgen::{Amount, Class, Counter, CounterOptions, Generator, Traffic},
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Descriptors of the smallest ring used here.
const RING: usize = 64;
/// An address of no host.
const ELSEWHERE: Ipv4Addr = host_v4(99);

fn request(ring_size: u32, frames_per_queue: u32) -> OpenRequest {
    OpenRequest {
        queues: vec![QueueRequest { interface: INTERFACE.to_owned(), queue: 0, worker: 0 }],
        workers: 1,
        mode: Mode::Auto,
        frames_per_queue,
        ring_size,
        multi_buffer: false,
        huge_pages: false,
        busy_poll: false,
    }
}

fn open(namespace: &Namespace, request: &OpenRequest) -> Opened {
    namespace.run(|| xsk::open(request)).unwrap()
}

/// Sends from `eth0` of the generator to nobody, 64 flows by their ports, slowly enough for a worker to follow.
fn generator(pair: &Pair) -> Generator {
    let traffic = Traffic {
        destination_mac: pair.subject.mac(INTERFACE).unwrap(),
        flows: 64,
        source_addresses: 1,
        rate_pps: Some(20_000),
        ..Traffic::udp(host_v4(Pair::GENERATOR).into(), ELSEWHERE.into(), 9)
    };
    pair.generator.run(|| Generator::new(INTERFACE, &traffic)).unwrap()
}

/// Sends packets, none of which is refused.
fn send(pair: &Pair, generator: &mut Generator, packets: usize) {
    let sent = pair.generator.run(|| generator.run(Amount::Packets(packets as u64))).unwrap();
    assert_eq!((sent.packets, sent.refused), (packets as u64, Some(0)));
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
}

/// One port that everything for nobody is steered to.
struct Rig {
    port: XskPort,
    pool: FramePool<XskFrame>,
    backlog: VecDeque<XskFrame>,
    _program: XdpProgram,
    generator: Generator,
    pair: Pair,
}

impl Rig {
    fn new(ring_size: u32, frames: u32) -> Self {
        let steering = Steering { all: true, ..Steering::default() };
        Self::with(&request(ring_size, frames), &steering, &VethOptions::default())
    }

    /// With what is steered, and the cable.
    fn with(request: &OpenRequest, steering: &Steering, cable: &VethOptions) -> Self {
        let pair = topology::pair_with(cable).unwrap();
        // No packets but the generated ones.
        for host in [&pair.generator, &pair.subject] {
            host.sysctl("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
        }
        let mut opened = open(&pair.subject, request);
        let port = opened.ports.remove(0).remove(0);
        let pool = opened.pools.remove(0);
        let socket = port.socket();
        let program = pair.subject.run(|| {
            let mut program = XdpProgram::load(steering).unwrap();
            program.insert_socket(0, &socket).unwrap();
            let mode = if request.mode == Mode::Generic { XdpMode::Generic } else { XdpMode::Native };
            program.attach(Link::find(INTERFACE).unwrap().index, INTERFACE, mode).unwrap();
            program
        });
        Self { port, pool, backlog: VecDeque::new(), _program: program, generator: generator(&pair), pair }
    }

    /// Receives `packets` packets into the backlog.
    fn receive(&mut self, packets: usize) {
        let mut received = Received::default();
        while self.backlog.len() < packets {
            // No more at once than the smallest ring holds.
            let portion = (packets - self.backlog.len()).min(RING);
            let wanted = self.backlog.len() + portion;
            send(&self.pair, &mut self.generator, portion);
            wait_until(|| {
                self.port.receive(&mut received);
                received.drain(|_, frame, _| self.backlog.push_back(frame));
                self.port.refill(&mut self.pool);
                self.check_frames();
                self.backlog.len() == wanted
            });
        }
    }

    fn transmit(&mut self) -> Result<(), PortError> {
        let result = self.port.transmit(&mut self.backlog);
        self.check_frames();
        result
    }

    /// Waits until everything has been sent and has come back, with no packet received meanwhile.
    fn complete(&mut self) {
        wait_until(|| {
            self.port.complete(&mut self.pool);
            self.check_frames();
            self.port.in_flight().to_send == 0
        });
    }

    fn check_frames(&self) {
        let held = self.pool.len() + self.backlog.len() + self.port.in_flight().total() as usize;
        assert_eq!(held, self.pool.total(), "{:?}", self.port.in_flight());
    }
}

#[test]
fn the_fill_ring_is_primed_and_what_does_not_fit_stays_in_the_pool() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    // A fill ring of twice 64 descriptors.
    let mut opened = open(&pair.subject, &request(64, 1024));
    let (port, pool) = (&mut opened.ports[0][0], &mut opened.pools[0]);
    assert_eq!((port.in_flight().to_fill, pool.len()), (128, 1024 - 128));
    for _ in 0..1_000 {
        port.refill(pool);
    }
    assert_eq!((port.in_flight().to_fill, pool.len()), (128, 1024 - 128));
}

#[test]
fn a_pool_with_less_than_fits_fills_in_part() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let opened = open(&pair.subject, &request(64, 100));
    assert_eq!((opened.ports[0][0].in_flight().to_fill, opened.pools[0].len()), (100, 0));
}

#[test]
fn the_mode_is_what_the_kernel_did_and_options_are_read_back() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let opened = open(&pair.subject, &request(64, 256));
    // A veth has no zero-copy, which Mode::Auto asks for first.
    assert_eq!(opened.reports[0].mode, BoundMode::Copy);
    assert!(opened.zero_copy_refused.is_some_and(|why| why.starts_with("eth0 queue 0: ")));
    let socket = opened.ports[0][0].socket();
    assert!(!options::is_zero_copy(socket).unwrap());
    assert_eq!(options::statistics(socket).unwrap().rx_lost(), 0);
    // SAFETY: reads a flag of an open descriptor.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC, "a program that is started would keep the queue");
}

#[test]
fn the_first_packet_is_kicked_and_comes_back_while_nothing_is_received() {
    lab_or_skip!();
    let mut rig = Rig::new(64, 256);
    rig.transmit().unwrap();
    assert_eq!(rig.port.counters().tx_kicks, 0, "there is nothing to send");
    rig.receive(1);
    rig.transmit().unwrap();
    assert_eq!((rig.port.counters().tx_frames, rig.port.counters().tx_kicks), (1, 1));
    rig.complete();
    assert_eq!(rig.port.counters().tx_completed, 1);
}

#[test]
fn more_than_one_kick_sends_is_sent_with_as_many_kicks_as_it_takes() {
    lab_or_skip!();
    let mut rig = Rig::new(1024, 4096);
    // What a kernel has that does not let us choose.
    let can_choose = options::set_tx_budget(rig.port.socket(), 32).is_ok();
    rig.receive(500);
    rig.transmit().unwrap();
    let counters = rig.port.counters();
    assert_eq!((counters.tx_frames, rig.backlog.len()), (500, 0));
    // 32 a kick; the send buffer of the socket may be full before.
    assert!(counters.tx_kicks >= 16 || !can_choose, "{counters:?}");
    assert!(counters.tx_again >= counters.tx_kicks - 1, "{counters:?}");
    wait_until(|| {
        rig.transmit().unwrap();
        rig.port.complete(&mut rig.pool);
        rig.port.in_flight().to_send == 0
    });
    assert_eq!(rig.port.counters().tx_completed, 500);
}

#[test]
fn what_does_not_fit_on_the_tx_ring_waits_its_turn() {
    lab_or_skip!();
    let mut rig = Rig::new(64, 1024);
    // 500 frames, while a tx ring holds 64 and a completion ring 128.
    rig.receive(500);
    wait_until(|| {
        rig.transmit().unwrap();
        rig.port.complete(&mut rig.pool);
        rig.check_frames();
        rig.backlog.is_empty() && rig.port.in_flight().to_send == 0
    });
    assert_eq!(rig.port.counters().tx_completed, 500);
}

#[test]
fn packets_for_a_link_that_is_down_wait_until_it_is_up() {
    lab_or_skip!();
    let mut rig = Rig::new(64, 1024);
    rig.receive(100);
    let subject = rig.pair.subject.clone();
    subject.ip(["link", "set", "dev", INTERFACE, "down"]).unwrap();
    rig.transmit().unwrap();
    let counters = rig.port.counters();
    assert_eq!((counters.tx_kicks, counters.tx_link_down), (1, 1), "one kick, and no more in vain");
    assert_eq!((rig.port.in_flight().to_send, rig.backlog.len()), (64, 36));
    subject.up(INTERFACE).unwrap();
    wait_until(|| {
        rig.transmit().unwrap();
        rig.port.complete(&mut rig.pool);
        rig.backlog.is_empty() && rig.port.in_flight().to_send == 0
    });
    assert_eq!(rig.port.counters().tx_completed, 100);
}

#[test]
fn a_socket_whose_interface_is_gone_says_so() {
    lab_or_skip!();
    let mut rig = Rig::new(64, 256);
    rig.receive(1);
    rig.pair.subject.ip(["link", "del", "dev", INTERFACE]).unwrap();
    let error = rig.transmit().unwrap_err();
    assert!(matches!(error, PortError::Unbound { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "interface eth0 queue 0: the socket is no longer bound (was the interface removed?)"
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Room in front of packets, made by the XDP program.

/// Port of the service whose packets get room.
const SERVICE: u16 = 9;
const ROOM: u8 = 20;

fn with_room(port: u16) -> Steering {
    let service = SteeredService::single(ELSEWHERE.into(), 17, port);
    Steering { services: vec![SteeredService { room: ROOM, ..service }], ..Steering::default() }
}

fn outer_header() -> [u8; ROOM as usize] {
    let mut header = [7; ROOM as usize];
    // Somebody, and an ethertype for experiments (IEEE 802).
    header[..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xb5]);
    header
}

/// The next frame that comes back, other than those of hosts that talk to each other.
fn next_sent(capture: &Capture) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing came");
        if let Some(captured) = capture.next(Duration::from_millis(100)).unwrap() {
            return captured.bytes;
        }
    }
}

fn receive_one(rig: &mut Rig) -> Received<XskFrame> {
    let mut received = Received::default();
    send(&rig.pair, &mut rig.generator, 1);
    wait_until(|| {
        rig.port.receive(&mut received);
        received.len() == 1
    });
    received
}

#[test]
fn a_header_that_fills_the_room_is_sent_from_the_same_frame_without_a_copy() {
    lab_or_skip!();
    for mode in [Mode::Copy, Mode::Generic] {
        send_back_behind_a_header(mode);
    }
}

fn send_back_behind_a_header(mode: Mode) {
    let request = OpenRequest { mode, ..request(64, 256) };
    let mut rig = Rig::with(&request, &with_room(SERVICE), &VethOptions::default());
    rig.port.set_room_mark(room_mark());
    let capture = rig.pair.generator.run(|| Capture::open(INTERFACE)).unwrap();
    let mut received = receive_one(&mut rig);

    let (frame, bytes) = received.packets_mut().next().unwrap();
    assert_eq!(bytes, 60 + u32::from(ROOM));
    let address = frame.address();
    let (buffer, span) = rig.port.buffer(frame);
    assert_eq!(span, Span { start: ROOM.into(), end: 60 + usize::from(ROOM) });
    let mut batch = Batch::new(0);
    batch.push_at(buffer, span, 60);
    let packet = batch.packet_mut(0);
    packet.reparse();
    assert_eq!((packet.len(), packet.room(), packet.headers().dst_port), (60, ROOM.into(), SERVICE));
    let original = packet.bytes().to_vec();
    packet.push_front(ROOM.into()).unwrap();
    packet.bytes_mut()[..ROOM.into()].copy_from_slice(&outer_header());
    assert_eq!(batch.finish().moved().count(), 0, "nothing is to be moved");
    received.drain(|_, frame, _| rig.backlog.push_back(frame));
    assert_eq!(rig.backlog[0].address(), address);

    rig.transmit().unwrap();
    assert_eq!(next_sent(&capture), [&outer_header()[..], &original].concat());
    rig.complete();
}

#[test]
fn without_a_mark_room_is_taken_for_the_packet() {
    lab_or_skip!();
    let mut rig = Rig::with(&request(64, 256), &with_room(SERVICE), &VethOptions::default());
    let mut received = receive_one(&mut rig);
    let (frame, _) = received.packets_mut().next().unwrap();
    let (buffer, span) = rig.port.buffer(frame);
    assert_eq!(span, Span { start: 0, end: 60 + usize::from(ROOM) });
    let word = u64::from_le_bytes(buffer[..8].try_into().unwrap());
    assert_eq!(room_mark().room(word), Some(ROOM.into()));
}

/// Bounces packets: those from even UDP ports as they came, the others behind an outer header.
struct Wrap;

impl Stage for Wrap {
    fn name(&self) -> &str {
        "wrap"
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            if packet.headers().src_port % 2 != 0 {
                packet.push_front(ROOM.into()).unwrap();
                packet.bytes_mut()[..ROOM.into()].copy_from_slice(&outer_header());
            }
            Verdict::Bounce
        });
    }
}

impl Rig {
    /// The port with a worker, and what has to stay alive.
    fn into_worker<S: Stage>(
        self,
        stage: S,
    ) -> (Worker<XskPort, S>, Arc<WorkerCounters>, XdpProgram, Generator, Pair) {
        let Self { mut port, pool, _program, generator, pair, .. } = self;
        port.set_room_mark(room_mark());
        let counters = Arc::<WorkerCounters>::default();
        let worker = Worker::new(vec![port], pool, stage, Idle::Poll, Arc::clone(&counters));
        (worker, counters, _program, generator, pair)
    }
}

#[test]
fn packets_with_room_are_counted_and_sent_as_if_there_were_none() {
    const PACKETS: usize = 64;
    lab_or_skip!();
    let rig = Rig::with(&request(256, 1_024), &with_room(SERVICE), &VethOptions::default());
    let (mut worker, counters, _program, mut generator, pair) = rig.into_worker(Wrap);
    let capture = pair.generator.run(|| Capture::open(INTERFACE)).unwrap();
    send(&pair, &mut generator, PACKETS);
    wait_until(|| {
        worker.turn().unwrap();
        counters.snapshot().bounced == PACKETS as u64
    });
    let counts = counters.snapshot();
    assert_eq!((counts.rx_packets, counts.rx_bytes), (PACKETS as u64, 60 * PACKETS as u64));
    let destination = pair.subject.mac(INTERFACE).unwrap().0;
    let (mut wrapped, mut bare) = (0, 0);
    for _ in 0..PACKETS {
        let frame = next_sent(&capture);
        let inner = match frame.strip_prefix(&outer_header()) {
            Some(inner) => {
                wrapped += 1;
                inner
            }
            None => {
                bare += 1;
                &frame
            }
        };
        assert_eq!((inner.len(), &inner[..6]), (60, &destination[..]), "{frame:02x?}");
        let odd = inner[35] % 2 != 0;
        assert_eq!(odd, inner.len() != frame.len());
    }
    assert_eq!((wrapped, bare), (PACKETS / 2, PACKETS / 2));
    worker.check_frames().unwrap();
}

#[test]
fn a_jumbo_packet_has_its_room_in_the_first_buffer() {
    lab_or_skip!();
    let request = OpenRequest { multi_buffer: true, ..request(256, 1_024) };
    let cable = VethOptions { mtu: 9_000, ..VethOptions::default() };
    let rig = Rig::with(&request, &with_room(SERVICE), &cable);
    let (mut worker, counters, _program, _, pair) = rig.into_worker(Wrap);
    let mac = pair.subject.mac(INTERFACE).unwrap();
    pair.generator.neighbour(INTERFACE, ELSEWHERE.into(), mac).unwrap();
    let capture = pair.generator.run(|| Capture::open(INTERFACE)).unwrap();
    // Around the end of the first buffer, which the room brings nearer.
    let lengths = [8_900, 3_700, 3_775, 3_780, 3_790, 3_798, 3_800, 18, 7_600, 7_640];
    let mut expected_bytes = 0;
    for source in [40_000, 40_001] {
        let socket = pair.generator.run(|| UdpSocket::bind((host_v4(Pair::GENERATOR), source))).unwrap();
        for (number, length) in lengths.into_iter().enumerate() {
            let payload: Vec<u8> = (0..length).map(|at| (at ^ (at >> 8) ^ number) as u8).collect();
            socket.send_to(&payload, (ELSEWHERE, SERVICE)).unwrap();
            expected_bytes += length as u64 + 42;
            wait_until(|| {
                worker.turn().unwrap();
                counters.snapshot().rx_bytes >= expected_bytes
            });
            let frame = next_sent(&capture);
            let inner =
                if source % 2 == 0 { &frame[..] } else { frame.strip_prefix(&outer_header()).unwrap() };
            assert_eq!(inner.len(), length + 42);
            assert!(inner[42..] == payload, "{length} bytes from {source} differ");
        }
    }
    let counts = counters.snapshot();
    assert_eq!((counts.rx_bytes, counts.bounced), (expected_bytes, 2 * lengths.len() as u64));
    wait_until(|| {
        worker.turn().unwrap();
        worker.ports_mut()[0].in_flight().to_send == 0
    });
    worker.check_frames().unwrap();
}

/// Drops every packet and sends two of its own instead, which say how long it was.
struct Report;

impl Stage for Report {
    fn name(&self) -> &str {
        "report"
    }
    fn originates(&self) -> usize {
        8
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        for index in batch.undecided() {
            let length = batch.packet(index).len() as u16;
            for number in 0..2 {
                let report = batch.allocate(60 + number, Verdict::Bounce).unwrap();
                report.bytes_mut()[..14].copy_from_slice(&outer_header()[..14]);
                report.bytes_mut()[14..16].copy_from_slice(&length.to_be_bytes());
            }
            batch.decide(index, Verdict::Drop(DropReason::Rule));
        }
    }
}

#[test]
fn a_frame_that_said_that_more_follow_carries_a_new_packet_alone() {
    lab_or_skip!();
    let request = OpenRequest { multi_buffer: true, ..request(256, 1_024) };
    let cable = VethOptions { mtu: 9_000, ..VethOptions::default() };
    let mut rig = Rig::with(&request, &with_room(SERVICE), &cable);
    let mac = rig.pair.subject.mac(INTERFACE).unwrap();
    rig.pair.generator.neighbour(INTERFACE, ELSEWHERE.into(), mac).unwrap();
    let capture = rig.pair.generator.run(|| Capture::open(INTERFACE)).unwrap();
    let socket = rig.pair.generator.run(|| UdpSocket::bind((host_v4(Pair::GENERATOR), 40_000))).unwrap();
    socket.send_to(&[7; 8_900], (ELSEWHERE, SERVICE)).unwrap();
    let (mut received, mut frames) = (Received::default(), Vec::new());
    wait_until(|| {
        rig.port.receive(&mut received);
        received.len() == 1
    });
    received.drain(|_, frame, _| frames.push(frame));
    let mut first = frames.remove(0);
    assert!(!frames.is_empty());
    rig.port.buffer(&mut first).0[..60].fill(0);
    rig.port.buffer(&mut first).0[..14].copy_from_slice(&outer_header()[..14]);
    rig.port.place_new(&mut first, Span { start: 0, end: 60 });
    rig.backlog.push_back(first);
    frames.into_iter().for_each(|frame| rig.pool.put(frame));
    rig.transmit().unwrap();
    assert_eq!(next_sent(&capture), [&outer_header()[..14], &[0; 46]].concat());
    rig.complete();
}

#[test]
fn new_packets_are_sent_from_frames_of_dropped_ones() {
    lab_or_skip!();
    let request = OpenRequest { multi_buffer: true, ..request(256, 1_024) };
    let cable = VethOptions { mtu: 9_000, ..VethOptions::default() };
    let rig = Rig::with(&request, &with_room(SERVICE), &cable);
    let (mut worker, counters, _program, _, pair) = rig.into_worker(Report);
    let mac = pair.subject.mac(INTERFACE).unwrap();
    pair.generator.neighbour(INTERFACE, ELSEWHERE.into(), mac).unwrap();
    let capture = pair.generator.run(|| Capture::open(INTERFACE)).unwrap();
    let socket = pair.generator.run(|| UdpSocket::bind((host_v4(Pair::GENERATOR), 40_000))).unwrap();
    for (round, length) in (1..).zip([8_900, 18, 8_900, 7_600, 8_800, 100, 8_900, 8_700, 20, 8_000]) {
        socket.send_to(&vec![round as u8; length], (ELSEWHERE, SERVICE)).unwrap();
        wait_until(|| {
            worker.turn().unwrap();
            worker.check_frames().unwrap();
            counters.snapshot().bounced == 2 * round
        });
        for number in 0..2 {
            let frame = next_sent(&capture);
            assert_eq!(frame.len(), 60 + number);
            assert_eq!(frame[..14], outer_header()[..14]);
            assert_eq!(usize::from(u16::from_be_bytes([frame[14], frame[15]])), length + 42);
            assert!(frame[16..].iter().all(|byte| *byte == 0), "nothing of the packet that lay there");
        }
    }
    let counts = counters.snapshot();
    assert_eq!(
        (counts.rx_packets, counts.originated, counts.bounced, counts.dropped_total()),
        (10, 20, 20, 10)
    );
    wait_until(|| {
        worker.turn().unwrap();
        worker.ports_mut()[0].in_flight().to_send == 0
    });
    worker.check_frames().unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Two interfaces, one UMEM.

/// Packets that arrive at the first port go to the second; but for those from even UDP ports, when `only_odd` is set,
/// which go back.
struct Cross {
    only_odd: bool,
}

impl Stage for Cross {
    fn name(&self) -> &str {
        "cross"
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        let from = batch.port();
        batch.each_undecided(|packet| {
            let even = packet.headers().src_port % 2 == 0;
            if self.only_odd && even { Verdict::Bounce } else { Verdict::Forward(1 - from) }
        });
    }
}

/// Frames of one worker: 1,024 for each of its two ports.
const FRAMES: u64 = 2 * 1_024;

/// A subject between two hosts, each on a veth with two queues.
struct Between {
    pair: Pair,
    peer: Namespace,
}

impl Between {
    fn new() -> Self {
        let pair = topology::pair(2).unwrap();
        let peer = pair.lab.namespace("peer").unwrap();
        pair.lab
            .veth(
                &pair.subject,
                "eth1",
                &peer,
                INTERFACE,
                &VethOptions { queues: 2, ..VethOptions::default() },
            )
            .unwrap();
        Self { pair, peer }
    }

    fn start(&self, only_odd: bool) -> runtime::Running {
        let config = "[dataplane]\nsteer = \"all\"\nring_size = 256\nframes_per_queue = 1024\nhuge_pages = false\n[bounce]\n";
        let plan = xfwd::config::parse("cross", config).unwrap();
        let runner = Runner::new().dataplane(plan.dataplane).interfaces([INTERFACE, "eth1"]).queues(2);
        self.pair.subject.run(|| runner.stage(move |_| Cross { only_odd }).start()).unwrap()
    }
}

fn count(namespace: &Namespace) -> Counter {
    namespace.run(|| Counter::attach(INTERFACE, &CounterOptions::default())).unwrap()
}

fn generated(counter: &Counter) -> u64 {
    counter.read().unwrap().class(Class::Ipv4Udp).ours
}

/// Sends portions until `done`.
fn send_until(pair: &Pair, done: impl Fn() -> bool) {
    let (mut generator, deadline) = (generator(pair), Instant::now() + PATIENCE);
    while !done() {
        assert!(Instant::now() < deadline);
        pair.generator.run(|| generator.run(Amount::Packets(1_000))).unwrap();
    }
}

#[test]
fn frames_that_leave_by_another_interface_come_home() {
    lab_or_skip!();
    let between = Between::new();
    let running = between.start(false);
    let counter = count(&between.peer);
    // If they did not, there would be none left soon.
    send_until(&between.pair, || generated(&counter) > 4 * FRAMES);
    // Every worker says whether its frames add up.
    let (snapshot, errors) = running.stop();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(snapshot.totals.verdicts.forward > 4 * FRAMES);
    assert!(snapshot.workers.iter().all(|row| row.counters.tx_completed == row.counters.tx_frames));
}

#[test]
fn an_interface_that_is_down_does_not_stop_the_other() {
    lab_or_skip!();
    let between = Between::new();
    let running = between.start(true);
    between.pair.subject.ip(["link", "set", "dev", "eth1", "down"]).unwrap();
    let counter = count(&between.pair.generator);
    // More than there are frames, so that all of them would be stuck by now.
    let forwarded = || running.snapshot().totals.verdicts.forward + tx_full(&running);
    send_until(&between.pair, || forwarded() > 4 * FRAMES);
    let before = generated(&counter);
    send_until(&between.pair, || generated(&counter) > before + FRAMES);
    // Of each of the two workers a tx ring, and a quarter of a port's share.
    assert!(running.snapshot().totals.verdicts.forward <= FRAMES / 2);
    // Nothing is lost that was taken: it goes out when the link is up again.
    let waiting = running.snapshot().totals.verdicts.forward;
    let counter = count(&between.peer);
    between.pair.subject.up("eth1").unwrap();
    wait_until(|| generated(&counter) >= waiting);
    let (_, errors) = running.stop();
    assert!(errors.is_empty(), "{errors:?}");
}

fn tx_full(running: &runtime::Running) -> u64 {
    let snapshot = running.snapshot();
    let dropped = snapshot.workers.iter().flat_map(|row| &row.counters.dropped);
    dropped.filter(|(reason, _)| *reason == "tx-full").map(|(_, packets)| packets).sum()
}

/// Ports and frames of two calls of `open`, on one interface.
fn two_opened(pair: &Pair) -> [Opened; 2] {
    [0, 1].map(|queue| {
        let mut request = request(RING as u32, 512);
        request.queues[0].queue = queue;
        open(&pair.subject, &request)
    })
}

fn is_foreign(result: Result<(), PortError>) -> bool {
    matches!(result, Err(PortError::ForeignFrame { .. }))
}

#[test]
fn a_frame_of_another_umem_is_neither_shown_nor_put_on_a_ring() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let [mut one, mut other] = two_opened(&pair);
    let (port, own) = (&mut one.ports[0][0], &mut one.pools[0]);
    let foreign = &mut other.pools[0];

    let mut frame = foreign.take().unwrap();
    assert!(port.buffer(&mut frame).0.is_empty());
    // As if there were nothing to be done.
    port.place(&mut frame, Span { start: 10, end: 100 });
    port.place_new(&mut frame, Span { start: 0, end: 100 });
    let home = &other.ports[0][0];
    assert!(home.buffer(&mut frame).0.len() > 2_048, "it is what it was where it belongs");
    assert_eq!(home.buffer(&mut frame).1, Span { start: 0, end: 0 });

    // Behind one of its own, which is sent.
    let mut mine = own.take().unwrap();
    port.place_new(&mut mine, Span { start: 0, end: 60 });
    let mut backlog = VecDeque::from([mine, frame]);
    for _ in 0..2 {
        assert!(is_foreign(port.transmit(&mut backlog)));
        assert_eq!((backlog.len(), port.in_flight().to_send, port.counters().tx_frames), (1, 1, 1));
    }
    wait_until(|| port.complete(own) == 1);
}

#[test]
fn a_worker_of_a_port_and_a_pool_that_do_not_belong_together_ends_with_the_reason() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    // With so few frames the fill ring has room for more.
    let [mut one, mut other] = [0, 1].map(|queue| {
        let mut request = request(256, 128);
        request.queues[0].queue = queue;
        open(&pair.subject, &request)
    });
    let before = one.ports[0][0].in_flight();
    let extra: Vec<XskFrame> = {
        let mut request = request(64, 512);
        request.queues[0].queue = 1;
        drop(other.ports.remove(0));
        let mut third = open(&pair.subject, &request);
        std::iter::from_fn(|| third.pools[0].take()).collect()
    };
    let stage = xfwd::stages::bounce::Bounce::new(xfwd::stages::bounce::Layer::L2);
    let counters: Arc<WorkerCounters> = Arc::default();
    let mut worker = Worker::new(one.ports.remove(0), FramePool::new(extra), stage, Idle::Poll, counters);
    let error = worker.run(&std::sync::atomic::AtomicBool::new(false)).unwrap_err();
    assert_eq!(worker.ports_mut()[0].in_flight(), before, "the kernel was given none of them");
    assert_eq!(
        error.to_string(),
        "interface eth0 queue 0: it was given a frame of another UMEM; ports and frames of two calls of `open` cannot be in \
         one worker"
    );
}

#[test]
fn a_request_that_names_no_worker_or_one_with_too_many_sockets_is_refused() {
    let mut wrong = request(64, 128);
    wrong.queues[0].worker = 1;
    let said = |request: &OpenRequest| xsk::open(request).err().unwrap().to_string();
    assert_eq!(said(&wrong), "interface eth0 queue 0 is for worker 1 of 1, counted from 0");
    wrong.queues[0].worker = 0;
    wrong.queues = vec![wrong.queues.remove(0); xsk::MAX_PORTS + 1];
    assert_eq!(said(&wrong), "worker 0 has more than 16 sockets");
}

/// Takes all of every packet off and sends what is left.
struct Strip;

impl Stage for Strip {
    fn name(&self) -> &str {
        "strip"
    }
    fn process(&mut self, batch: &mut Batch<'_>) {
        batch.each_undecided(|packet| {
            packet.pull_front(packet.len()).map_or(Verdict::Continue, |()| Verdict::Bounce)
        });
    }
}

#[test]
fn what_has_nothing_left_is_dropped_and_its_frame_comes_back() {
    const PACKETS: usize = 300;
    lab_or_skip!();
    let Rig { port, pool, _program, mut generator, pair, .. } = Rig::new(RING as u32, 256);
    let counters: Arc<WorkerCounters> = Arc::default();
    let mut worker = Worker::new(vec![port], pool, Strip, Idle::Poll, Arc::clone(&counters));
    for sent in (1..=PACKETS / 30).map(|burst| burst * 30) {
        send(&pair, &mut generator, 30);
        wait_until(|| worker.turn().map(|_| counters.snapshot().rx_packets as usize).unwrap() == sent);
    }
    assert_eq!(counters.snapshot().dropped, [("too-short", PACKETS as u64)]);
    worker.check_frames().unwrap();
    let port = &worker.ports_mut()[0];
    assert_eq!(port.in_flight().to_send, 0);
    assert_eq!(options::statistics(port.socket()).unwrap().tx_invalid_descs, 0);
}
