//! What a worker has done so far, readable by other threads while it runs.

use crossbeam::utils::CachePadded;
use serde::Serialize;

use crate::pipeline::{Counter, DropReason};
use crate::port::PortCounters;

/// The counters of one worker, on cache lines of their own.
#[derive(Default)]
pub struct WorkerCounters {
    inner: CachePadded<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub rx_packets: Counter,
    pub rx_bytes: Counter,
    pub originated: Counter,
    pub bounced: Counter,
    pub forwarded: Counter,
    pub dropped: [Counter; DropReason::ALL.len()],
    pub batches: Counter,
    pub sleeps: Counter,
    pub tx_frames: Counter,
    pub tx_completed: Counter,
    pub tx_kicks: Counter,
    pub tx_again: Counter,
    pub tx_dropped_busy: Counter,
    pub tx_no_memory: Counter,
    pub tx_link_down: Counter,
}

impl WorkerCounters {
    #[inline(always)]
    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Takes over what the ports of the worker have counted.
    pub(super) fn publish(&self, ports: impl Iterator<Item = PortCounters>) {
        let mut sum = PortCounters::default();
        for port in ports {
            sum.tx_frames += port.tx_frames;
            sum.tx_completed += port.tx_completed;
            sum.tx_kicks += port.tx_kicks;
            sum.tx_again += port.tx_again;
            sum.tx_dropped_busy += port.tx_dropped_busy;
            sum.tx_no_memory += port.tx_no_memory;
            sum.tx_link_down += port.tx_link_down;
            sum.rx_too_many_fragments += port.rx_too_many_fragments;
        }
        let inner = self.inner();
        inner.tx_frames.set(sum.tx_frames);
        inner.tx_completed.set(sum.tx_completed);
        inner.tx_kicks.set(sum.tx_kicks);
        inner.tx_again.set(sum.tx_again);
        inner.tx_dropped_busy.set(sum.tx_dropped_busy);
        inner.tx_no_memory.set(sum.tx_no_memory);
        inner.tx_link_down.set(sum.tx_link_down);
        inner.dropped[DropReason::TooManyFragments as usize].set(sum.rx_too_many_fragments);
    }

    /// The counters as they are now. Each is exact; two of them may be a moment apart.
    pub fn snapshot(&self) -> WorkerSnapshot {
        let inner = self.inner();
        let dropped = DropReason::ALL
            .iter()
            .map(|reason| (reason.name(), inner.dropped[*reason as usize].get()))
            .filter(|(_, count)| *count > 0)
            .collect();
        WorkerSnapshot {
            rx_packets: inner.rx_packets.get(),
            rx_bytes: inner.rx_bytes.get(),
            originated: inner.originated.get(),
            bounced: inner.bounced.get(),
            forwarded: inner.forwarded.get(),
            dropped,
            batches: inner.batches.get(),
            sleeps: inner.sleeps.get(),
            tx_frames: inner.tx_frames.get(),
            tx_completed: inner.tx_completed.get(),
            tx_kicks: inner.tx_kicks.get(),
            tx_again: inner.tx_again.get(),
            tx_dropped_busy: inner.tx_dropped_busy.get(),
            tx_no_memory: inner.tx_no_memory.get(),
            tx_link_down: inner.tx_link_down.get(),
        }
    }
}

/// The counters of one worker at one moment. Frames and packets are the same but for packets of several buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, without frame check sequence.
    pub rx_bytes: u64,
    /// Packets that stages have made. With those received they are what was bounced, forwarded or dropped.
    pub originated: u64,
    /// Packets sent back out of the port they came in by.
    pub bounced: u64,
    /// Packets sent out of another port.
    pub forwarded: u64,
    /// Packets dropped, by reason; reasons without a packet are left out.
    pub dropped: Vec<(&'static str, u64)>,
    /// Batches run through the pipeline.
    pub batches: u64,
    /// Times the worker slept for want of packets.
    pub sleeps: u64,
    /// Frames put on tx rings.
    pub tx_frames: u64,
    /// Frames that the kernel gave back as sent.
    pub tx_completed: u64,
    /// System calls made to send.
    pub tx_kicks: u64,
    /// Kicks that left something queued for the next.
    pub tx_again: u64,
    /// Packets that the kernel dropped since the driver would not take them.
    pub tx_dropped_busy: u64,
    /// Kicks that found no memory for a packet; it was tried again.
    pub tx_no_memory: u64,
    /// Kicks that found the link down; the packets waited.
    pub tx_link_down: u64,
}

impl WorkerSnapshot {
    /// Packets dropped, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|(_, count)| count).sum()
    }
}
