//! Samples as datagrams of sFlow version 5 (sflow.org/sflow_version_5.txt, section 5).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use super::Sample;

/// Samples of one datagram, so that it fits an MTU of 1,500.
const PER_DATAGRAM: u32 = 6;
/// Formats of samples and records: enterprise 0, which is sflow.org.
const FLOW_SAMPLE: u32 = 1;
const RAW_PACKET_HEADER: u32 = 1;
/// Protocol of a raw packet header.
const ETHERNET: u32 = 1;
/// Bytes that count as a part of the packet, and were taken off by the interface.
const FRAME_CHECK_SEQUENCE: u32 = 4;

/// What sends them: an agent with one data source, the interface, however many workers it has.
pub struct Agent {
    socket: UdpSocket,
    interface: u32,
    rate: u32,
    started: Instant,
    /// By worker, as of its last sample.
    seen: Vec<u64>,
    lost: Vec<u64>,
    /// Samples, in sFlow's encoding, for the next datagram.
    body: Vec<u8>,
    in_body: u32,
    samples: u32,
    datagrams: u32,
}

/// XDR (RFC 4506): everything is made of words in network byte order.
fn put(to: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| to.extend(word.to_be_bytes()));
}

impl Agent {
    /// Sends to `collector` about the interface of this index, of whose packets one in `rate` is sampled.
    pub fn new(collector: SocketAddr, interface: u32, rate: u32, workers: usize) -> io::Result<Self> {
        let any: IpAddr = if collector.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(collector)?;
        let (started, by_worker, body) = (Instant::now(), vec![0; workers], Vec::new());
        let (seen, lost) = (by_worker.clone(), by_worker);
        Ok(Self { socket, interface, rate, started, seen, lost, body, in_body: 0, samples: 0, datagrams: 0 })
    }

    /// Encodes a sample, and sends when a datagram is full.
    pub fn add(&mut self, sample: &Sample) -> io::Result<()> {
        (self.seen[sample.worker], self.lost[sample.worker]) = (sample.seen, sample.lost);
        self.samples += 1;
        // Numbers wrap at 32 bits.
        let (pool, drops) = (self.seen.iter().sum::<u64>() as u32, self.lost.iter().sum::<u64>() as u32);
        let padded = sample.captured.next_multiple_of(4);
        let record = 4 * 4 + padded as u32;
        put(&mut self.body, &[FLOW_SAMPLE, 8 * 4 + 2 * 4 + record, self.samples, self.interface, self.rate]);
        // Came in by the interface; by which one it leaves is not known here. One record follows.
        put(&mut self.body, &[pool, drops, self.interface, 0, 1]);
        let length = sample.length as u32 + FRAME_CHECK_SEQUENCE;
        put(&mut self.body, &[RAW_PACKET_HEADER, record, ETHERNET, length, FRAME_CHECK_SEQUENCE]);
        put(&mut self.body, &[sample.captured as u32]);
        self.body.extend(&sample.bytes[..padded]);
        self.in_body += 1;
        if self.in_body == PER_DATAGRAM { self.send() } else { Ok(()) }
    }

    /// Sends what there is.
    pub fn send(&mut self) -> io::Result<()> {
        if self.in_body == 0 {
            return Ok(());
        }
        self.datagrams += 1;
        let mut datagram = Vec::new();
        put(&mut datagram, &[5]);
        match self.socket.local_addr()?.ip() {
            IpAddr::V4(address) => put(&mut datagram, &[1, address.to_bits()]),
            IpAddr::V6(address) => {
                put(&mut datagram, &[2]);
                datagram.extend(address.octets());
            }
        }
        let uptime = self.started.elapsed().as_millis() as u32;
        put(&mut datagram, &[0, self.datagrams, uptime, self.in_body]);
        datagram.append(&mut self.body);
        self.in_body = 0;
        // A collector that is not there now may be later: nothing is sent again.
        let _ = self.socket.send(&datagram);
        Ok(())
    }
}
