//! The next hop of every backend, from the kernel's routes, interfaces and neighbours, kept in step with them.
//!
//! AF_XDP sends whole Ethernet frames past the host's stack, so what the stack would find out for each packet is found
//! out here for each backend: the route, the port and VLAN tag that it leaves by, the gateway's or the backend's own MAC
//! address, the source address and the MTU. Routing daemons, administrators and DHCP clients go on to talk to the kernel,
//! and are followed.
//!
//! ```text
//! backend ─ RTM_GETROUTE ─▶ interface, gateway ─ links ─▶ port, tag, source, MTU
//!                                 └──────────── neighbours ─▶ destination            ─▶ on_change(&[Change])
//! ```
//!
//! One thread follows all of it: routes, rules, next hop objects, addresses, interfaces and neighbours. What comes in a
//! burst is answered once: routes are looked up 50 ms after the first of the notifications that concern a backend,
//! and the thread spends no more than a fifth of its time on that, however busy a routing daemon is. What no
//! notification tells (a path MTU that the host has learned, and forgets) is looked at every 30 s.
//!
//! The kernel's choice among the paths of a multipath route is by destination, so all packets for a backend take one.

#![forbid(unsafe_code)]

mod answer;
mod backends;
mod follower;
mod links;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use self::answer::{Answer, Change, NextHop, Unresolved};
use self::follower::Follower;
use super::watch::{Subscription, Watch};

/// What is followed.
const GROUPS: [libc::c_uint; 9] = [
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_NEXTHOP,
];

/// Why next hops cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
#[non_exhaustive]
pub struct NextHopError {
    /// The netlink request.
    pub call: &'static str,
    /// What the kernel answered.
    pub source: io::Error,
}

impl NextHopError {
    fn of(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { call, source }
    }
}

/// Follows the next hops of some backends, on a thread of its own, until it is dropped. Nothing is left behind in the
/// kernel but neighbour entries that age by themselves.
pub struct NextHops {
    shared: Arc<Shared>,
    watch: Watch,
}

impl NextHops {
    /// Starts to follow the next hops of the backends `wanted` by the `ports`, each the index of a link, in the network
    /// namespace of the calling thread.
    ///
    /// `on_change` is called with what is known before this returns, and from then on, on a thread of its own, whenever
    /// the answer for a backend becomes known or changes; many changes at once are one call. That a neighbour does not
    /// answer is known a second after it was first asked. `on_change` must not wait for this value's
    /// [`wait_resolved`](Self::wait_resolved); dropping this waits for `on_change`.
    ///
    /// # Errors
    ///
    /// [`NextHopError`]. That a backend has no next hop is not an error: it is an answer.
    pub fn start(
        ports: Vec<u32>,
        wanted: Vec<IpAddr>,
        on_change: impl FnMut(&[Change]) + Send + 'static,
    ) -> Result<Self, NextHopError> {
        // Before anything is read, so that no change is missed.
        let subscription = Subscription::new(&GROUPS)
            .map_err(NextHopError::of("subscribing to RTNLGRP_IPV4_ROUTE and others"))?;
        let shared = Arc::new(Shared::default());
        let follower = Follower::start(ports, wanted, Arc::clone(&shared), on_change)?;
        let watch = Watch::start("xfwd-next-hops", subscription, follower)
            .map_err(NextHopError::of("starting the thread xfwd-next-hops"))?;
        Ok(Self { shared, watch })
    }

    /// From now on follows the backends `wanted` and no others. What is known of those that stay is kept, and not told
    /// again; what is left out is not told of any more. Returns at once.
    pub fn set_wanted(&self, wanted: Vec<IpAddr>) {
        self.shared.lock().request = Some(wanted);
        self.watch.wake();
    }

    /// Waits until no neighbour is missing that has been asked, for at most `timeout`, and returns all backends without
    /// a next hop; those to which time brings none, having no route for instance, are not waited for. With a zero timeout:
    /// those that have none now. After [`set_wanted`](Self::set_wanted) the new set is meant.
    ///
    /// When it returns, `on_change` has been called for all that it says.
    #[must_use]
    pub fn wait_resolved(&self, timeout: Duration) -> Vec<(IpAddr, Unresolved)> {
        self.wait_resolved_of(timeout, |_| true)
    }

    /// The same, where only neighbours of the backends that are `awaited` are waited for: nobody has to wait for one of which it is
    /// known that it does not answer.
    #[must_use]
    pub fn wait_resolved_of(
        &self,
        timeout: Duration,
        awaited: impl Fn(&IpAddr) -> bool,
    ) -> Vec<(IpAddr, Unresolved)> {
        let guard = self.shared.lock();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(guard, timeout, |state| state.is_awaiting(&awaited))
            .unwrap_or_else(PoisonError::into_inner);
        let unresolved = state.answers.iter().filter_map(|(backend, answer)| {
            let unresolved = answer.as_ref().err()?;
            Some((*backend, unresolved.clone()))
        });
        unresolved.collect()
    }

    /// The answer for each backend, as it was told last. For one of which nothing was told yet: that its neighbour does not
    /// answer.
    #[must_use]
    pub fn current(&self) -> BTreeMap<IpAddr, Answer> {
        self.shared.lock().answers.clone()
    }
}

/// What the following thread shares with the others.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Another set of backends, that the thread has not looked at.
    request: Option<Vec<IpAddr>>,
    /// It has looked, and not answered.
    busy: bool,
    answers: BTreeMap<IpAddr, Answer>,
}

impl State {
    fn is_awaiting(&self, awaited: &impl Fn(&IpAddr) -> bool) -> bool {
        let is_missing = |answer: &Answer| matches!(answer, Err(Unresolved::NoNeighbour { .. }));
        self.request.is_some()
            || self.busy
            || self.answers.iter().any(|(backend, answer)| is_missing(answer) && awaited(backend))
    }
}

impl Shared {
    // Entries are replaced one by one, each as a whole, so a panic elsewhere leaves none half-written.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
