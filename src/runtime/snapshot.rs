//! Everything that can be counted, at one moment.

use std::collections::BTreeMap;

use serde::Serialize;

use super::balance_snapshot::BalanceSnapshot;
use crate::kernel::deny::DenyCounts;
use crate::port::xsk::QueueReport;
use crate::port::xsk::options::XdpStatistics;
use crate::stages::balance::BackendCounters;
use crate::stages::filter::RuleCounters;
use crate::worker::WorkerSnapshot;

/// The counters of a run. Each is exact; two of them may be a moment apart while packets flow.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Seconds since the program was attached.
    pub seconds: f64,
    /// Whether packet memory lies in huge pages.
    pub huge_pages: bool,
    /// Sums over all workers.
    pub totals: Totals,
    /// Each interface: what the XDP program did with its packets.
    pub interfaces: Vec<InterfaceSnapshot>,
    /// Each socket.
    pub queues: Vec<QueueSnapshot>,
    /// Each worker.
    pub workers: Vec<WorkerRow>,
    /// Each rule of the filter, wherever it ran.
    pub rules: Vec<RuleCounters>,
    /// The dynamic deny list.
    pub deny: DenyCounts,
    /// Each backend of each service.
    pub backends: Vec<BackendCounters>,
    /// What is counted of balancing besides backends, if anything is balanced.
    pub balance: Option<BalanceSnapshot>,
    /// What stages of the caller's own count, by name: see [`WorkerContext::counter`](crate::worker::WorkerContext::counter).
    pub counters: BTreeMap<String, u64>,
}

/// Sums over all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Packets received.
    pub packets: u64,
    /// Bytes received.
    pub bytes: u64,
    /// What became of them.
    pub verdicts: Verdicts,
    /// Frames that the kernel gave back as sent.
    pub sent: u64,
    /// Packets for a socket that were lost before it, since its rings were full or empty.
    pub lost: u64,
}

/// Packets by verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verdicts {
    /// Sent out of the port they came in by.
    pub bounce: u64,
    /// Sent out of another port.
    pub forward: u64,
    /// Dropped.
    pub drop: u64,
}

/// What the XDP program of one interface did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InterfaceSnapshot {
    /// Name of the interface.
    pub name: String,
    /// Its driver.
    pub driver: Option<String>,
    /// Packets redirected to sockets.
    pub steered: u64,
    /// Packets left to the host network stack.
    pub passed: u64,
    /// Packets dropped, by rules and by the deny list.
    pub dropped: u64,
    /// Packets dropped since the worker of their queue did not keep up.
    pub lost: u64,
    /// Packets with broken headers, left to the host network stack.
    pub malformed: u64,
    /// Packets by cause; causes without a packet are left out.
    pub causes: Vec<(&'static str, u64)>,
}

/// One socket.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueueSnapshot {
    /// How it was bound.
    #[serde(flatten)]
    pub report: QueueReport,
    /// Worker that owns it.
    pub worker: usize,
    /// Packets for this socket that the XDP program dropped, since the rx ring was full: shed before the socket sees them.
    pub shed: u64,
    /// What the kernel lost on its way.
    pub statistics: XdpStatistics,
}

impl QueueSnapshot {
    /// Packets for this socket that were lost before the worker, shed ones included.
    pub fn lost(&self) -> u64 {
        self.shed + self.statistics.rx_lost()
    }
}

/// One worker.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WorkerRow {
    /// Index of the worker.
    pub worker: usize,
    /// Core that it is pinned to.
    pub core: Option<usize>,
    /// Its counters.
    #[serde(flatten)]
    pub counters: WorkerSnapshot,
}

impl Totals {
    pub(super) fn of(workers: &[WorkerRow], queues: &[QueueSnapshot]) -> Self {
        let mut totals = Self { lost: queues.iter().map(QueueSnapshot::lost).sum(), ..Self::default() };
        for WorkerRow { counters, .. } in workers {
            totals.packets += counters.rx_packets;
            totals.bytes += counters.rx_bytes;
            totals.sent += counters.tx_completed;
            totals.verdicts.bounce += counters.bounced;
            totals.verdicts.forward += counters.forwarded;
            totals.verdicts.drop += counters.dropped_total();
        }
        totals
    }
}
