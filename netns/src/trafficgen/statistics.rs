//! What an interface says about the packets that were given to it.

use std::fs;

use crate::{
    error::{Error, Result},
    ethtool,
};

/// How packets get to the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As frames of XDP.
    Xdp,
    /// As packets of the host stack.
    Stack,
}

/// Packets that the driver of the interface has passed on, of all queues since it exists; `None` if it does not say.
pub(super) fn accepted(interface: &str, way: Way) -> Option<u64> {
    match way {
        Way::Xdp => accepted_xdp(interface),
        Way::Stack => transmitted(interface),
    }
}

fn accepted_xdp(interface: &str) -> Option<u64> {
    let statistics = ethtool::statistics(interface).ok()?;
    let mut queues = statistics
        .into_iter()
        .filter(|(name, _)| name.starts_with("tx_queue_") && name.ends_with("_xdp_xmit"))
        .map(|(_, value)| value)
        .peekable();
    queues.peek()?;
    Some(queues.sum())
}

/// Packets sent, by the tenth column of proc(5)'s `net/dev`.
fn transmitted(interface: &str) -> Option<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, columns) = { lines }.find(|(name, _)| name.trim() == interface)?;
    columns.split_whitespace().nth(9)?.parse().ok()
}

/// Number of transmit queues of an interface of the calling thread's namespace.
pub(super) fn transmit_queues(interface: &str) -> Result<u32> {
    // /sys shows the namespace that mounted it; ethtool asks the right one.
    let names = ethtool::statistics(interface)?;
    let queues =
        names.keys().filter(|name| name.starts_with("tx_queue_") && name.ends_with("_xdp_xmit")).count();
    match u32::try_from(queues) {
        Ok(queues) if queues > 0 => Ok(queues),
        _ => {
            Err(Error::Missing { interface: interface.to_owned(), what: "statistics of its transmit queues" })
        }
    }
}
