//! Addresses of the host, which must stay reachable: they are never steered away from the host stack by mistake.

#![forbid(unsafe_code)]

use std::{collections::BTreeSet, io, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};

use super::{
    netlink::Netlink,
    watch::{Notice, Subscription, Watch},
};

/// Why addresses could not be read or watched.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct AddressError {
    /// The netlink request.
    pub call: &'static str,
    /// What the kernel answered.
    pub source: io::Error,
}

/// All addresses of all interfaces in the network namespace of the calling thread, IPv4 and IPv6, sorted, each once.
///
/// Of a point-to-point interface it is the local address. Addresses that IPv6 still checks for duplicates are
/// included; the rest of 127.0.0.0/8, which is local too, is not an address of an interface and is not.
///
/// # Errors
///
/// [`AddressError`].
pub fn host_addresses() -> Result<Vec<IpAddr>, AddressError> {
    read().map(|addresses| addresses.into_iter().collect())
}

/// The host got or lost addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressChange {
    /// New addresses.
    pub added: Vec<IpAddr>,
    /// Addresses that no interface has any more.
    pub removed: Vec<IpAddr>,
    /// All addresses now, as [`host_addresses`] tells them.
    pub all: Vec<IpAddr>,
}

/// Tells changes of [`host_addresses`], on a thread of its own, until it is dropped.
pub struct AddressWatcher {
    _watch: Watch,
}

impl AddressWatcher {
    /// Starts to watch, and returns the addresses that changes start from.
    ///
    /// Several changes at once may be told as one, and an address that comes and goes in an instant may not be told.
    /// `on_change` runs on the watcher's thread; dropping the watcher waits for it.
    ///
    /// # Errors
    ///
    /// [`AddressError`].
    pub fn start(
        mut on_change: impl FnMut(AddressChange) + Send + 'static,
    ) -> Result<(Self, Vec<IpAddr>), AddressError> {
        let subscription = Subscription::new(&[libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR])
            .map_err(|source| AddressError { call: "subscribing to RTNLGRP_IPV4_IFADDR", source })?;
        let mut known = read()?;
        let initial = known.iter().copied().collect();
        let mut outdated = false;
        let on_notice = move |notice: Notice| {
            // An address may be on several interfaces, so that one message does not tell whether the host lost it;
            // the table is short and changes seldom, so it is read anew, once a burst.
            if !matches!(notice, Notice::Settled) {
                outdated = true;
            } else if std::mem::take(&mut outdated) {
                match read() {
                    Ok(now) => {
                        if let Some(change) = difference(&known, &now) {
                            known = now;
                            on_change(change);
                        }
                    }
                    Err(error) => tracing::error!("a change of the host's addresses was lost: {error}"),
                }
            }
        };
        let watch = Watch::start("xfwd-addresses", subscription, on_notice)
            .map_err(|source| AddressError { call: "starting the thread xfwd-addresses", source })?;
        Ok((Self { _watch: watch }, initial))
    }
}

fn read() -> Result<BTreeSet<IpAddr>, AddressError> {
    let answers = Netlink::open()
        .and_then(|mut netlink| netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())))
        .map_err(|source| AddressError { call: "RTM_GETADDR dump", source })?;
    Ok(answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => local_address(message),
            _ => None,
        })
        .collect())
}

/// `IFA_LOCAL` if there is one: `IFA_ADDRESS` is then the other end of a point-to-point interface.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut plain = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => plain = Some(*address),
            _ => {}
        }
    }
    plain
}

fn difference(before: &BTreeSet<IpAddr>, now: &BTreeSet<IpAddr>) -> Option<AddressChange> {
    (before != now).then(|| AddressChange {
        added: now.difference(before).copied().collect(),
        removed: before.difference(now).copied().collect(),
        all: now.iter().copied().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn local_end_of_a_point_to_point_interface_is_ours() {
        let mut message = AddressMessage::default();
        message.attributes.push(AddressAttribute::Address(ip("10.0.0.2")));
        assert_eq!(local_address(&message), Some(ip("10.0.0.2")));
        message.attributes.push(AddressAttribute::Local(ip("10.0.0.1")));
        assert_eq!(local_address(&message), Some(ip("10.0.0.1")));
    }

    #[test]
    fn difference_tells_both_directions_or_nothing() {
        let before = BTreeSet::from([ip("10.0.0.1"), ip("10.0.0.2")]);
        let now = BTreeSet::from([ip("10.0.0.2"), ip("fd00::1")]);
        assert_eq!(difference(&now, &now), None);
        assert_eq!(
            difference(&before, &now),
            Some(AddressChange {
                added: vec![ip("fd00::1")],
                removed: vec![ip("10.0.0.1")],
                all: vec![ip("10.0.0.2"), ip("fd00::1")],
            })
        );
    }
}
