//! Clients in the background, and what is right about their answers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use xfwd_netns::{
    Namespace,
    clients::{
        hold::{self, Held, Holding},
        requests::{self, Requests},
    },
};

use crate::{
    running::PATIENCE,
    site::{ECHO, HTTP, Site, name},
};

/// Answers by the name of the server.
#[derive(Debug)]
pub struct Answered(pub BTreeMap<String, u64>);

impl Answered {
    pub fn of(&self, index: usize) -> u64 {
        self.0.get(&name(index)).copied().unwrap_or(0)
    }

    /// The share of each of these backends is within 5 standard deviations of its weight, and no other answered.
    pub fn assert_shares(&self, weights: &[(usize, u32)], what: &str) {
        let all = self.0.values().sum::<u64>() as f64;
        let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
        for (index, weight) in weights {
            let share = f64::from(*weight) / f64::from(total);
            let (expected, deviation) = (all * share, (all * share * (1.0 - share)).sqrt());
            let seen = self.of(*index) as f64;
            assert!((seen - expected).abs() <= 5.0 * deviation, "{what}: {weights:?}, {self:?}");
        }
        let known: Vec<String> = weights.iter().map(|(index, _)| name(*index)).collect();
        assert!(self.0.keys().all(|name| known.contains(name)), "{what}: {weights:?}, {self:?}");
    }
}

/// Connections that exchange something 20 times a second.
pub fn hold(client: &Namespace, to: SocketAddr, connections: u16) -> Holding {
    let interval = Duration::from_millis(50);
    let options = hold::Options { connections, interval, ..hold::Options::default() };
    hold::start(client, to, &options).unwrap()
}

/// Ends connections of which none may have broken.
pub fn assert_unbroken(holding: Holding, what: &str) -> Held {
    let held = holding.stop().unwrap();
    assert!(held.broken.is_empty() && held.established == held.connections, "{what}: {held:?}");
    held
}

/// New connections and new UDP flows, a hundred a second, until it is stopped.
pub struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Background {
    pub fn start(site: &Site) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, web, echo) = (site.client.clone(), site.at(HTTP), site.at(ECHO));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let some = Requests { count: 20, rate: Some(50), timeout: PATIENCE, ..Requests::default() };
            let mut succeeded = 0;
            while !flag.load(Ordering::Relaxed) {
                let udp = thread::spawn({
                    let client = client.clone();
                    move || requests::udp(&client, echo, &some).unwrap()
                });
                for answers in [requests::http(&client, web, &some).unwrap(), udp.join().unwrap()] {
                    assert_eq!(answers.failed, 0, "{answers:?}");
                    succeeded += answers.succeeded;
                }
            }
            succeeded
        });
        Self { stop, thread }
    }

    /// Panics if any request has failed.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
