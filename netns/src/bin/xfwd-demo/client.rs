//! The client: fetches pages, each on a new connection, and tries again where one fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use xfwd_netns::Namespace;

/// Pages at a time.
const THREADS: usize = 8;
/// How long a page may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A page is given up after so many tries. A try is a connection of its own, with a port of its own.
pub const MOST_TRIES: usize = 10;

/// One connection.
#[derive(Clone, Debug)]
pub struct Try {
    /// Number of the page.
    pub page: u64,
    pub begun: Instant,
    pub ended: Instant,
    /// The server's name, or what went wrong.
    pub answer: Result<String, String>,
}

struct Shared {
    url: String,
    rate: u64,
    start: Instant,
    stop: AtomicBool,
    next: AtomicU64,
    tries: Mutex<Vec<Try>>,
}

/// A client at work, until it is dropped.
pub struct Client {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Client {
    /// Fetches `rate` pages a second from now on.
    pub fn start(host: &Namespace, url: &str, rate: u64) -> Self {
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            rate,
            start: Instant::now(),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            tries: Mutex::default(),
        });
        // Threads are in the namespace of the one that starts them.
        let threads = host.run(|| {
            let spawn = |_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.fetch())
            };
            (0..THREADS).map(spawn).collect()
        });
        Self { shared, threads }
    }

    /// The tries that have ended so far.
    pub fn tries(&self) -> MutexGuard<'_, Vec<Try>> {
        self.shared.tries()
    }

    /// Ends with the pages that were begun, and returns all tries.
    pub fn stop(mut self) -> Vec<Try> {
        self.end();
        std::mem::take(&mut *self.shared.tries())
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn tries(&self) -> MutexGuard<'_, Vec<Try>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self) {
        while !self.stop.load(Relaxed) {
            let page = self.next.fetch_add(1, Relaxed);
            let due = self.start + Duration::from_secs_f64(page as f64 / self.rate as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            for _ in 0..MOST_TRIES {
                let begun = Instant::now();
                let answer = get(&self.url);
                let is_done = answer.is_ok();
                self.tries().push(Try { page, begun, ended: Instant::now(), answer });
                if is_done {
                    break;
                }
            }
        }
    }
}

/// One page on a new connection: its first line, or a short reason.
fn get(url: &str) -> Result<String, String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .max_idle_connections(0)
        .proxy(None)
        .build();
    let reason = |error: ureq::Error| match error {
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::Timeout(_) => "timed out".to_owned(),
        other => other.to_string(),
    };
    let mut response =
        ureq::Agent::new_with_config(config).get(url).header("connection", "close").call().map_err(reason)?;
    let body = response.body_mut().read_to_string().map_err(reason)?;
    Ok(body.lines().next().unwrap_or_default().to_owned())
}
