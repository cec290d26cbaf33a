//! The map of the queues' gates.

use std::os::fd::{AsFd, BorrowedFd};

use aya::{
    Ebpf,
    maps::{Array, Map},
};
use xfwd_ebpf_types::Gate;

use super::XdpError;

const NAME: &str = "GATES";

/// `GATES`, of which the ports write and this reads.
pub(super) struct Gates(Map);

impl Gates {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        object
            .take_map(NAME)
            .filter(|map| matches!(map, Map::Array(_)))
            .map(Self)
            .ok_or(XdpError::Object { name: NAME })
    }

    /// The map, to be mapped into memory.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Map::Array(data) => data.fd().as_fd(),
            _ => unreachable!("looked at when it was taken"),
        }
    }

    /// Packets that were dropped for a queue.
    pub(super) fn shed(&self, queue: u32) -> Result<u64, XdpError> {
        let failed = |source| XdpError::map(NAME, format!("queue {queue}"), source);
        let gates = Array::<_, Gate>::try_from(&self.0).map_err(failed)?;
        Ok(gates.get(&queue, 0).map_err(failed)?.shed)
    }
}
