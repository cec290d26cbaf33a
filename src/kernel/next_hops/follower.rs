//! Brings [`Backends`], [`Links`], [`Neighbours`] and the kernel together: when to read, to look up, to ask and to tell.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use netlink_packet_route::RouteNetlinkMessage;

use super::{
    Change, NextHopError, Shared,
    backends::{Backends, Update},
    links::Links,
};
use crate::kernel::{
    neighbours::{Key, Neighbours},
    netlink::Netlink,
    routes::{RouteError, Routes},
    watch::{Listener, Notice},
};

/// How long a burst of changes of routes is collected, from the first of them on.
const SETTLE: Duration = Duration::from_millis(50);

/// After a round of lookups there is a pause of this many times as long as it took.
const PAUSE_PER_LOOKUP: u32 = 4;

/// How long answers of neighbours are collected, from the first of them on.
const COLLECT: Duration = Duration::from_millis(20);

/// How often due questions to the kernel, and neighbours that have failed, are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often all routes are looked up though nothing was told.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// Wait after the kernel has refused to answer; that is not expected, so it must not become a busy loop.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Follower<F> {
    backends: Backends,
    links: Links,
    neighbours: Neighbours,
    /// The neighbours that are followed now.
    followed: BTreeSet<Key>,
    routes: Routes,
    netlink: Netlink,
    shared: Arc<Shared>,
    on_change: F,
    /// Notifications were lost: what is known of links and neighbours may be wrong.
    lost: bool,
    /// Some answers are not told since a neighbour was asked just now.
    pending: bool,
    /// When to look up routes, if some may have changed.
    look_up_at: Option<Instant>,
    /// Not before.
    rested_at: Instant,
    /// When to tell, if something may have changed.
    tell_at: Option<Instant>,
    look_at: Instant,
    refresh_at: Instant,
}

impl<F: FnMut(&[Change]) + Send + 'static> Follower<F> {
    /// Reads everything for the first time, tells what is known, and asks for the rest.
    pub(super) fn start(
        ports: Vec<u32>,
        wanted: Vec<IpAddr>,
        shared: Arc<Shared>,
        on_change: F,
    ) -> Result<Self, NextHopError> {
        let open = || Ok((Netlink::open()?, Routes::open()?, Neighbours::open()?));
        let (netlink, routes, neighbours) = open().map_err(NextHopError::of("socket(NETLINK_ROUTE)"))?;
        let now = Instant::now();
        let mut follower = Self {
            backends: Backends::default(),
            links: Links::new(ports),
            neighbours,
            followed: BTreeSet::new(),
            routes,
            netlink,
            shared,
            on_change,
            lost: true,
            pending: false,
            look_up_at: None,
            rested_at: now,
            tell_at: None,
            look_at: now + LOOK_EVERY,
            refresh_at: now + REFRESH_EVERY,
        };
        follower.backends.set_wanted(wanted);
        follower.look_up()?;
        follower.tell(Instant::now());
        follower.ask(Instant::now());
        Ok(follower)
    }

    /// Takes in one notification; what follows from it is done when all have been read.
    fn observe(&mut self, message: RouteNetlinkMessage) {
        use RouteNetlinkMessage::*;
        let neighbour = match &message {
            NewNeighbour(entry) => self.neighbours.observe(entry),
            DelNeighbour(entry) => self.neighbours.observe_deleted(entry),
            _ => false,
        };
        let route = match &message {
            NewRoute(route) | DelRoute(route) => self.backends.stale_under(route),
            _ => false,
        };
        let all = match &message {
            NewLink(link) => self.links.observe(link),
            DelLink(link) => self.links.observe_deleted(link),
            NewAddress(_) | DelAddress(_) | NewRule(_) | DelRule(_) => true,
            _ => false,
        };
        if neighbour {
            self.tell_soon();
        }
        if route {
            self.look_up_soon();
        }
        if all {
            self.all_changed();
        }
    }

    fn all_changed(&mut self) {
        self.backends.all_stale();
        self.look_up_soon();
    }

    fn look_up_soon(&mut self) {
        self.look_up_at.get_or_insert(self.rested_at.max(Instant::now() + SETTLE));
    }

    fn tell_soon(&mut self) {
        self.tell_at.get_or_insert(Instant::now() + COLLECT);
    }

    /// All notifications that waited have been read: does what is due.
    fn settled(&mut self) {
        let now = Instant::now();
        if let Some(wanted) = self.take_request() {
            self.backends.set_wanted(wanted);
            self.look_up_at = Some(now);
        }
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH_EVERY;
            self.all_changed();
        }
        let mut ask = false;
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            ask = true;
            if self.neighbours.give_up(now) || self.pending {
                self.tell_at = Some(now);
            }
        }
        if self.look_up_at.is_some_and(|at| now >= at) {
            self.look_up_at = None;
            if let Err(error) = self.look_up() {
                tracing::error!("the next hops of the backends may be out of date: {error}");
                self.look_up_at = Some(now + TRY_AGAIN_AFTER);
            }
            self.rested_at = Instant::now() + PAUSE_PER_LOOKUP * now.elapsed();
            self.tell_at = Some(now);
        }
        if self.tell_at.is_some_and(|at| now >= at) {
            self.tell_at = None;
            ask = true;
            // Looking up takes its time.
            self.tell(Instant::now());
        }
        if ask {
            self.ask(Instant::now());
        }
    }

    fn take_request(&self) -> Option<Vec<IpAddr>> {
        let mut state = self.shared.lock();
        let request = state.request.take();
        state.busy |= request.is_some();
        request
    }

    /// Reads what was lost, looks up the routes that may have changed, and follows the neighbours that they lead to.
    fn look_up(&mut self) -> Result<(), NextHopError> {
        if self.lost {
            self.links.read(&mut self.netlink).map_err(NextHopError::of("RTM_GETLINK dump"))?;
            self.neighbours.read().map_err(NextHopError::of("RTM_GETNEIGH dump"))?;
            self.lost = false;
        }
        let mut failed = None;
        for backend in self.backends.take_stale() {
            match self.routes.route_to(backend) {
                Ok(route) => self.backends.found(backend, Ok(route)),
                Err(RouteError::Unroutable { reason, .. }) => self.backends.found(backend, Err(reason)),
                Err(RouteError::Kernel { source, .. }) => {
                    self.backends.not_found_out(backend, source.to_string());
                    failed = Some(source);
                }
            }
        }
        if let Some(source) = failed {
            tracing::warn!("some routes could not be looked up (RTM_GETROUTE): {source}");
            self.look_up_at = Some(Instant::now() + TRY_AGAIN_AFTER);
        }
        let neighbours = self.backends.neighbours(&self.links);
        if neighbours != self.followed {
            let set = self.neighbours.set_wanted(&neighbours, Instant::now());
            set.map_err(NextHopError::of("RTM_GETNEIGH dump"))?;
            self.followed = neighbours;
        }
        Ok(())
    }

    fn tell(&mut self, now: Instant) {
        let Update { changes, awaited, pending } =
            self.backends.update(&self.links, |neighbour| self.neighbours.get(neighbour, now));
        self.pending = pending;
        if !changes.is_empty() {
            (self.on_change)(&changes);
        }
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.busy) {
            state.answers.retain(|backend, _| self.backends.contains(backend));
        }
        state.answers.extend(changes.into_iter().chain(awaited).map(|one| (one.backend, one.next_hop)));
        self.shared.changed.notify_all();
    }

    fn ask(&mut self, now: Instant) {
        // What is believed of the entries may be wrong; a question would turn one that is permanent into a dynamic one.
        if self.lost {
            return;
        }
        match self.neighbours.ask(now) {
            Ok(false) => {}
            Ok(true) => self.tell_soon(),
            Err(error) => {
                tracing::error!("the neighbour table could not be read again (RTM_GETNEIGH dump): {error}");
            }
        }
    }
}

impl<F: FnMut(&[Change]) + Send + 'static> Listener for Follower<F> {
    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Message(message) => self.observe(message),
            Notice::Lost => {
                self.lost = true;
                self.all_changed();
            }
            Notice::Settled => self.settled(),
        }
    }

    fn due(&self) -> Option<Instant> {
        let timers = [self.look_up_at, self.tell_at, Some(self.look_at), Some(self.refresh_at)];
        timers.into_iter().flatten().min()
    }
}
