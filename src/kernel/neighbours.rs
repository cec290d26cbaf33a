//! Link-layer addresses of backends, learned from the kernel's neighbour table and kept fresh.
//!
//! AF_XDP sends whole Ethernet frames, so somebody must know the MAC address of every next hop. The kernel does: it
//! speaks ARP and neighbour discovery, probes, and ages. But it refreshes only entries that its own stack uses, and
//! our packets go past it. So for each wanted neighbour the kernel is asked to *use* the entry (`NTF_USE`,
//! what `ip neigh add ADDRESS dev IF use` does) when it is missing, failed or stale, at once and again every
//! three seconds. Entries made that way are ordinary ones: the kernel ages and collects them when xfwd is gone.
//!
//! What a state of the kernel's entry means for the address that is told:
//!
//! | entry | address told | asked to resolve |
//! |---|---|---|
//! | REACHABLE, DELAY, PROBE | the entry's | no |
//! | STALE | the entry's | yes: the kernel probes it, and says REACHABLE or FAILED |
//! | PERMANENT, NOARP | the entry's | no |
//! | INCOMPLETE, no entry, or deleted | the last one | yes |
//! | FAILED | the last one for a second, then none | yes |
//!
//! So an entry that the garbage collector takes, or `ip neigh flush` (which passes through FAILED), does not interrupt
//! traffic; a backend that no longer answers is reported when the kernel has given it up, plus the grace.
//!
//! An `NTF_USE` request turns a PERMANENT entry into a dynamic one (seen on Linux 6.18). Hence a neighbour believed
//! missing is created with `NLM_F_EXCL`, which fails on any entry; and the kernel is asked only when all notifications
//! that wait have been read, so that an entry which has just been made PERMANENT is known to be.
//!
//! Source: `neigh_add` and `__neigh_update` in `net/core/neighbour.c`, arp(7).

#![forbid(unsafe_code)]

mod table;

use std::{collections::BTreeSet, io, net::IpAddr, time::Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage},
    route::RouteType,
};

pub(super) use self::table::Answer;
use self::table::{Ask, Table};
use super::netlink::Netlink;

/// A neighbour: an interface's index, and an address on its link.
pub(super) type Key = (u32, IpAddr);

/// The wanted neighbours, and the kernel's table of them. It is told the notifications of `RTNLGRP_NEIGH` and the
/// moment when all of them have been read; the thread is its owner's.
pub(super) struct Neighbours {
    table: Table,
    netlink: Netlink,
    /// What was believed of an entry was out of date.
    outdated: bool,
}

impl Neighbours {
    /// None wanted yet, in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { table: Table::default(), netlink: Netlink::open()?, outdated: false })
    }

    /// Follows these and no others; those that stay keep what is known of them.
    pub(super) fn set_wanted(&mut self, wanted: &BTreeSet<Key>, now: Instant) -> io::Result<()> {
        match self.table.set_wanted(wanted, now) {
            true => self.read(),
            false => Ok(()),
        }
    }

    /// Reads the kernel's whole table: after notifications were lost, and for what is newly wanted.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let answers = self.netlink.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
        self.outdated = false;
        self.table.forget_states();
        for answer in answers {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                self.table.observe(&message, Instant::now());
            }
        }
        Ok(())
    }

    /// Takes in that an entry is there or has changed, and says whether it is of a wanted neighbour.
    pub(super) fn observe(&mut self, message: &NeighbourMessage) -> bool {
        self.table.observe(message, Instant::now())
    }

    /// Takes in that an entry is gone, and says whether it was of a wanted neighbour.
    pub(super) fn observe_deleted(&mut self, message: &NeighbourMessage) -> bool {
        self.table.observe_deleted(message)
    }

    /// Gives up those that have failed for too long, and says whether there were any.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        self.table.give_up(now)
    }

    /// What is known of a neighbour; of one that is not wanted, nothing.
    pub(super) fn get(&self, key: Key, now: Instant) -> Answer {
        self.table.get(key, now)
    }

    /// Asks the kernel to resolve what is due. `true`: the table had to be read again, so something may have changed.
    pub(super) fn ask(&mut self, now: Instant) -> io::Result<bool> {
        for (key, ask) in self.table.take_due(now) {
            self.ask_one(key, ask);
        }
        match self.outdated {
            true => self.read().map(|()| true),
            false => Ok(false),
        }
    }

    fn ask_one(&mut self, (interface, address): Key, ask: Ask) {
        let mut request = NeighbourMessage::default();
        request.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        request.header.ifindex = interface;
        request.header.flags = NeighbourFlags::Use;
        request.header.kind = RouteType::Unicast;
        request.attributes.push(NeighbourAttribute::Destination(address.into()));
        let flags = match ask {
            Ask::Create => NLM_F_CREATE | NLM_F_EXCL,
            Ask::Use => 0,
        };
        match self.netlink.request(RouteNetlinkMessage::NewNeighbour(request), flags) {
            Ok(()) => {}
            // What we believed of the entry was out of date: look, and decide when all is read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOENT)) => {
                self.outdated = true;
            }
            // The interface is down or gone, or has no IPv6: told by others, and asked again all the same.
            Err(error) => {
                tracing::debug!("RTM_NEWNEIGH (use) for {address} on interface #{interface}: {error}")
            }
        }
    }
}
