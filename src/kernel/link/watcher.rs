//! What happens to interfaces while xfwd runs: removed, renamed, set down, line lost.

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, io};

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Basics, LinkError, dump};
use crate::kernel::watch::{Notice, Subscription, Watch};

/// A change of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkEvent {
    /// The interface.
    pub index: u32,
    /// What changed.
    pub change: LinkChange,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkChange {
    /// It was removed, or moved to another network namespace. Sockets bound to it are dead, even if an interface with
    /// this index comes back; so this is the last event for it.
    Removed,
    /// It was set up.
    Up,
    /// It was set down.
    Down,
    /// The line was connected (`true`) or lost. Setting an interface down loses it too.
    Carrier(bool),
    /// It got another name; its index stays.
    Renamed {
        /// The name before.
        from: String,
        /// The name now.
        to: String,
    },
}

/// Tells the changes of some interfaces, on a thread of its own, until it is dropped.
pub struct LinkWatcher {
    _watch: Watch,
}

impl LinkWatcher {
    /// Starts to watch. Changes from this moment on are told, in the order in which they happened.
    ///
    /// `on_event` runs on the watcher's thread; dropping the watcher waits for it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Vanished`] for an index that does not exist, [`LinkError::Kernel`].
    pub fn start(
        indices: &[u32],
        on_event: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Self, LinkError> {
        let failed =
            |call| move |source: io::Error| LinkError::Kernel { call, interface: "*".to_owned(), source };
        let subscription =
            Subscription::new(&[libc::RTNLGRP_LINK]).map_err(failed("subscribing to RTNLGRP_LINK"))?;
        let mut known = Known { links: snapshot()?, on_event };
        known.links.retain(|index, _| indices.contains(index));
        if let Some(index) = indices.iter().find(|index| !known.links.contains_key(index)) {
            return Err(LinkError::Vanished { index: *index });
        }
        let watch = Watch::start("xfwd-links", subscription, move |notice: Notice| known.notice(notice))
            .map_err(failed("starting the thread xfwd-links"))?;
        Ok(Self { _watch: watch })
    }
}

struct Known<F> {
    links: BTreeMap<u32, Basics>,
    on_event: F,
}

impl<F: FnMut(LinkEvent)> Known<F> {
    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Message(RouteNetlinkMessage::NewLink(message)) => {
                // Of a bridge port, a second message comes with family AF_BRIDGE; it says nothing new here.
                if message.header.interface_family == AddressFamily::Unspec {
                    self.update(Basics::of(&message));
                }
            }
            Notice::Message(RouteNetlinkMessage::DelLink(message)) => {
                // With family AF_BRIDGE it means that the interface left its bridge.
                if message.header.interface_family == AddressFamily::Unspec {
                    self.remove(message.header.index);
                }
            }
            Notice::Lost => match snapshot() {
                Ok(now) => self.resync(now),
                Err(error) => tracing::error!("changes of interfaces were lost: {error}"),
            },
            Notice::Message(_) | Notice::Settled => {}
        }
    }

    fn resync(&mut self, mut now: BTreeMap<u32, Basics>) {
        for index in self.links.keys().copied().collect::<Vec<_>>() {
            match now.remove(&index) {
                Some(basics) => self.update(basics),
                None => self.remove(index),
            }
        }
    }

    fn update(&mut self, now: Basics) {
        let index = now.index;
        let Some(before) = self.links.get_mut(&index) else {
            return;
        };
        let before = std::mem::replace(before, now.clone());
        for change in changes(before, now) {
            (self.on_event)(LinkEvent { index, change });
        }
    }

    fn remove(&mut self, index: u32) {
        if self.links.remove(&index).is_some() {
            (self.on_event)(LinkEvent { index, change: LinkChange::Removed });
        }
    }
}

fn changes(before: Basics, now: Basics) -> Vec<LinkChange> {
    let mut changes = Vec::new();
    if before.up != now.up {
        changes.push(if now.up { LinkChange::Up } else { LinkChange::Down });
    }
    if before.carrier != now.carrier {
        changes.push(LinkChange::Carrier(now.carrier));
    }
    if before.name != now.name {
        changes.push(LinkChange::Renamed { from: before.name, to: now.name });
    }
    changes
}

fn snapshot() -> Result<BTreeMap<u32, Basics>, LinkError> {
    Ok(dump()?.iter().map(Basics::of).map(|basics| (basics.index, basics)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basics(index: u32, name: &str, up: bool, carrier: bool) -> Basics {
        Basics { index, name: name.to_owned(), up, carrier }
    }

    fn seen(links: &[Basics], play: impl FnOnce(&mut Known<&mut dyn FnMut(LinkEvent)>)) -> Vec<LinkChange> {
        let mut events = Vec::new();
        let mut collect = |event: LinkEvent| events.push(event.change);
        let links = links.iter().map(|link| (link.index, link.clone())).collect();
        play(&mut Known { links, on_event: &mut collect });
        events
    }

    #[test]
    fn only_what_changed_is_told() {
        let events = seen(&[basics(2, "va", true, true)], |known| {
            known.update(basics(2, "va", true, true));
            known.update(basics(2, "va", true, false));
            known.update(basics(2, "vb", false, false));
            known.update(basics(3, "other", true, true));
        });
        assert_eq!(
            events,
            [
                LinkChange::Carrier(false),
                LinkChange::Down,
                LinkChange::Renamed { from: "va".to_owned(), to: "vb".to_owned() }
            ]
        );
    }

    #[test]
    fn after_an_overrun_the_difference_is_told() {
        let events = seen(&[basics(2, "va", true, true), basics(3, "vb", true, true)], |known| {
            known.resync(BTreeMap::from([
                (3, basics(3, "vb", true, false)),
                (4, basics(4, "vc", true, true)),
            ]));
        });
        assert_eq!(events, [LinkChange::Removed, LinkChange::Carrier(false)]);
    }

    #[test]
    fn interface_leaving_a_bridge_is_not_removed() {
        let mut left = netlink_packet_route::link::LinkMessage::default();
        left.header.index = 2;
        left.header.interface_family = AddressFamily::Bridge;
        let events = seen(&[basics(2, "va", true, true)], |known| {
            known.notice(Notice::Message(RouteNetlinkMessage::DelLink(left.clone())));
            left.header.interface_family = AddressFamily::Unspec;
            known.notice(Notice::Message(RouteNetlinkMessage::DelLink(left)));
        });
        assert_eq!(events, [LinkChange::Removed]);
    }
}
