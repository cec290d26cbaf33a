//! A control and the stages of its workers, which packets are passed through one by one, at a time of the test's own.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use xfwd::packet::{FiveTuple, MacAddress};
use xfwd::pipeline::{Batch, DropReason, PortIndex, Span, Stage, Verdict};
use xfwd::stages::balance::nat::NatPool;
use xfwd::stages::balance::way::LinkHeader;
use xfwd::stages::balance::{
    BackendCounters, Balance, BalanceControl, BalanceOptions, BalancedService, Egress, Forward, choose,
};

use crate::packets::{FAMILIES, Family, PORTS};

/// A prime with which tables are quickly made.
pub const TABLE_SIZE: u32 = 997;
/// Backends that have a next hop.
const BACKENDS: usize = 30;

pub struct Rig {
    pub control: BalanceControl,
    pub stages: Vec<Balance>,
    pub now: Instant,
}

/// What has become of a packet.
#[derive(Clone, Debug)]
pub struct Out {
    pub verdict: Verdict,
    pub bytes: Vec<u8>,
}

impl Out {
    /// The backend that it was sent to.
    pub fn backend(&self) -> usize {
        assert!(matches!(self.verdict, Verdict::Bounce | Verdict::Forward(_)), "{:?}", self.verdict);
        assert_eq!(self.bytes[..5], [2, 0, 0, 0, 1], "not sent to a backend");
        self.bytes[5].into()
    }

    pub fn assert_dropped(&self, reason: DropReason) {
        assert_eq!(self.verdict, Verdict::Drop(reason));
    }

    /// It went back to where it came from, as an answer.
    pub fn assert_answered(&self) {
        assert_eq!((self.verdict, &self.bytes[6..12]), (Verdict::Bounce, &PORTS[0][..]));
        assert_eq!(self.bytes[..6], crate::packets::CLIENT_MAC);
    }
}

pub fn mac(backend: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, backend as u8]
}

/// Every second backend is behind the second port; the third is in a VLAN.
pub fn egress(family: Family, backend: usize) -> Egress {
    let port = backend % 2;
    Egress {
        port: port as PortIndex,
        link: LinkHeader {
            source: MacAddress(PORTS[port]),
            destination: MacAddress(mac(backend)),
            vlan: (backend == 2).then_some(9),
        },
        mtu: 1_500,
        is_direct: true,
        source: Some(family.ours()),
    }
}

pub fn service(vip: IpAddr, protocol: u8, port: u16, forward: Forward) -> BalancedService {
    let name = format!("{vip}/{protocol}/{port}");
    BalancedService { table_size: TABLE_SIZE, ..BalancedService::new(name, vip, protocol, port, forward) }
}

/// With these backends of a family, each of weight 1.
pub fn with(
    service: BalancedService,
    family: Family,
    backends: impl IntoIterator<Item = usize>,
) -> BalancedService {
    backends.into_iter().fold(service, |service, index| service.with(family.backend(index), 1))
}

/// TCP port 80 with three backends.
pub fn web(family: Family, forward: Forward) -> BalancedService {
    with(service(family.vip(), 6, 80, forward), family, 0..3)
}

pub fn options(workers: usize) -> BalanceOptions {
    BalanceOptions { connections: 4_096, ..BalanceOptions::new(workers, PORTS.map(MacAddress).into()) }
}

pub fn nat_options(workers: usize) -> BalanceOptions {
    let pool = NatPool::new(&FAMILIES.map(Family::ours), 32_768..=33_791, workers).unwrap();
    BalanceOptions { nat: Some(pool), ..options(workers) }
}

/// Which backend the table says for a new flow, by index.
pub fn chosen(service: &BalancedService, family: Family, tuple: &FiveTuple) -> usize {
    let backends = service.backends.iter().map(|backend| (backend.address, backend.weight));
    let table = choose::table(backends, service.table_size).unwrap();
    let index = table.lookup(choose::hash(tuple, service.affinity));
    let address = service.backends[usize::from(index)].address;
    (0..BACKENDS).find(|index| family.backend(*index) == address).unwrap()
}

impl Rig {
    pub fn new(services: impl IntoIterator<Item = BalancedService>) -> Self {
        Self::with(nat_options(1), services)
    }

    pub fn with(options: BalanceOptions, services: impl IntoIterator<Item = BalancedService>) -> Self {
        let workers = options.workers;
        let control = BalanceControl::new(options, services.into_iter().collect()).unwrap();
        control.set_egress(FAMILIES.into_iter().flat_map(|family| {
            (0..BACKENDS).map(move |index| (family.backend(index), Some(egress(family, index))))
        }));
        let stages = (0..workers).map(|worker| control.stage(worker)).collect();
        Self { control, stages, now: Instant::now() }
    }

    /// Lets time pass; the control side hears of it.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.control.tick(self.now);
    }

    /// A packet at the first port of the first worker.
    pub fn pass(&mut self, packet: &[u8]) -> Out {
        self.pass_at(0, 0, 0, packet)
    }

    /// A packet with so much room in front.
    pub fn pass_at(&mut self, worker: usize, port: PortIndex, room: usize, packet: &[u8]) -> Out {
        let mut buffer = vec![0xaa; 10_000];
        let span = Span { start: room, end: room + packet.len() };
        buffer[span.start..span.end].copy_from_slice(packet);
        self.pass_buffer(worker, port, &mut buffer, span, packet.len())
    }

    /// A packet that is `len` bytes long with those in other buffers.
    pub fn pass_buffer(
        &mut self,
        worker: usize,
        port: PortIndex,
        buffer: &mut [u8],
        span: Span,
        len: usize,
    ) -> Out {
        let stage = &mut self.stages[worker];
        stage.housekeeping();
        let mut batch = Batch::new(port);
        batch.set_now(self.now);
        batch.push_at(buffer, span, len as u32);
        batch.parse();
        stage.process(&mut batch);
        let bytes = batch.packet(0).bytes().to_vec();
        Out { verdict: batch.finish()[0], bytes }
    }

    /// Packets at the first port of the first worker, as one batch.
    pub fn pass_batch(&mut self, packets: &[Vec<u8>]) -> Vec<Out> {
        let mut buffers = packets.to_vec();
        let stage = &mut self.stages[0];
        stage.housekeeping();
        let mut batch = Batch::new(0);
        batch.set_now(self.now);
        for (buffer, packet) in buffers.iter_mut().zip(packets) {
            batch.push(buffer, packet.len() as u32);
        }
        batch.parse();
        stage.process(&mut batch);
        let bytes: Vec<Vec<u8>> =
            (0..packets.len()).map(|index| batch.packet(index).bytes().to_vec()).collect();
        let verdicts = batch.finish();
        let out = bytes.into_iter().zip(verdicts.iter());
        out.map(|(bytes, verdict)| Out { verdict: *verdict, bytes }).collect()
    }

    pub fn counters(&self, service: &BalancedService, address: IpAddr) -> BackendCounters {
        let rows = self.control.counters();
        rows.into_iter().find(|row| row.service == service.name && row.address == address).unwrap()
    }
}
