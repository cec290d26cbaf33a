//! The `xfwd` command in a lab: started with a config, stopped by a signal, its summary read.
//!
//! ```no_run
//! let xfwd = Xfwd::start(&pair.subject, &["--iface", "eth0"], "[bounce]\n[dataplane]\nsteer = \"all\"\n");
//! let ended = xfwd.stop();
//! assert_eq!(ended.summary().packets(), 1_000);
//! ```
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and fails by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use xfwd_netns::{Child, ExitReport, Namespace};

/// How long anything may take that should take no time. Long, since it is only waited for when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Beginning of the last line that xfwd says when it has started.
const RUNNING: &str = "\nleaves the kernel: ";

/// A config in a file of its own, removed when dropped.
pub struct ConfigFile(PathBuf);

impl ConfigFile {
    /// Writes `text` to a new file.
    pub fn new(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xfwd-{}-{number}.toml", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A running `xfwd`; killed when dropped.
pub struct Xfwd {
    child: Child,
    config: ConfigFile,
}

impl Xfwd {
    /// Starts `xfwd --json` with these arguments and `config` in `namespace`, and waits until packets are processed.
    ///
    /// Panics, with all that it said, when it ends before.
    pub fn start(namespace: &Namespace, arguments: &[&str], config: &str) -> Self {
        Self::start_where(namespace, arguments, config, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_where(
        namespace: &Namespace,
        arguments: &[&str],
        config: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut xfwd = Self::spawn_where(namespace, arguments, config, environment);
        if let Err(error) = xfwd.child.wait_for(RUNNING, PATIENCE) {
            let _ = xfwd.child.wait(Duration::from_secs(1));
            panic!("xfwd did not start: {error}\n{}", xfwd.said());
        }
        xfwd
    }

    /// Starts it without waiting for anything.
    pub fn spawn(namespace: &Namespace, arguments: &[&str], config: &str) -> Self {
        Self::spawn_where(namespace, arguments, config, &[])
    }

    fn spawn_where(
        namespace: &Namespace,
        arguments: &[&str],
        config: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let file = ConfigFile::new(config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xfwd"));
        command.args(arguments).arg("--json").arg(file.path()).envs(environment.iter().copied());
        Self { child: namespace.spawn(&mut command).unwrap(), config: file }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What it has written to standard error so far.
    pub fn said(&self) -> String {
        self.child.stderr()
    }

    /// Waits until it has written `text`.
    pub fn wait_for(&self, text: &str) {
        self.child.wait_for(text, PATIENCE).unwrap();
    }

    /// Writes another config over the one that it was started with, and tells it to read it (SIGHUP).
    pub fn reload(&self, config: &str) {
        fs::write(self.config.path(), config).unwrap();
        self.signal(Signal::SIGHUP);
    }

    /// Where its config is.
    pub fn config(&self) -> &Path {
        self.config.path()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal).unwrap();
    }

    /// Stops it by SIGINT. Panics when it does not end well: an exit status other than 0, or books that do not close.
    pub fn stop(self) -> Ended {
        let ended = self.interrupt();
        ended.assert_success();
        ended
    }

    /// Stops it by SIGINT, however it ends.
    pub fn interrupt(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.wait()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Ended {
        Ended { report: self.child.wait(PATIENCE).unwrap() }
    }

    /// Ends it by SIGKILL, so that it cannot clean up, and waits until it is gone.
    pub fn kill9(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait(PATIENCE).unwrap();
    }
}

/// An `xfwd` that has ended.
pub struct Ended {
    /// Exit status, standard output and standard error.
    pub report: ExitReport,
}

impl Ended {
    /// Panics, with all that it said, when it did not end well.
    pub fn assert_success(&self) {
        let ExitReport { status, stdout, stderr } = &self.report;
        assert!(status.success(), "{status}\n{stderr}\n{stdout}");
        assert!(!stderr.contains("not conserved") && !stderr.contains("panicked"), "{stderr}");
    }

    /// What it counted.
    pub fn summary(&self) -> Summary {
        let text = &self.report.stdout;
        Summary(serde_json::from_str(text).unwrap_or_else(|error| {
            panic!("the summary is no JSON: {error}\n{text}\n{}", self.report.stderr)
        }))
    }
}

/// The summary of a run, as `--json` prints it.
pub struct Summary(pub Value);

impl Summary {
    /// The number at a JSON pointer, such as `/totals/verdicts/bounce`.
    pub fn number(&self, pointer: &str) -> u64 {
        self.0
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no {pointer} in {}", self.0))
    }

    /// Packets that the workers received.
    pub fn packets(&self) -> u64 {
        self.number("/totals/packets")
    }

    /// `steered`, `passed`, `lost` or `malformed`, summed over all interfaces.
    pub fn kernel(&self, what: &str) -> u64 {
        self.sum("interfaces", what)
    }

    /// What the XDP programs counted for a cause such as `passed-no-socket`, summed over all interfaces.
    pub fn cause(&self, name: &str) -> u64 {
        self.rows("interfaces").iter().map(|interface| pair_of(&interface["causes"], name)).sum()
    }

    /// A field of `XDP_STATISTICS`, summed over all queues.
    pub fn statistic(&self, name: &str) -> u64 {
        let queues = self.rows("queues").iter();
        queues.map(|queue| queue["statistics"][name].as_u64().unwrap()).sum()
    }

    /// A counter of the queues, such as `shed`, summed over all of them.
    pub fn queues(&self, name: &str) -> u64 {
        self.sum("queues", name)
    }

    /// A counter of the workers, such as `bounced` or `tx_completed`, summed over all of them.
    pub fn workers(&self, name: &str) -> u64 {
        self.sum("workers", name)
    }

    /// A counter of each worker, in their order.
    pub fn each_worker(&self, name: &str) -> Vec<u64> {
        self.rows("workers").iter().map(|worker| number(worker, name)).collect()
    }

    /// Packets that the workers dropped for a reason such as `no-neighbour`.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.rows("workers").iter().map(|worker| pair_of(&worker["dropped"], reason)).sum()
    }

    /// Counter `name` (`packets`, `bytes`, `connections`) of each backend of `service`, by address.
    pub fn backends(&self, service: &str, name: &str) -> Vec<(String, u64)> {
        let of_service = self.rows("backends").iter().filter(|backend| backend["service"] == service);
        of_service
            .map(|backend| (backend["address"].as_str().unwrap().to_owned(), number(backend, name)))
            .collect()
    }

    /// A list of the summary: `interfaces`, `queues`, `workers` or `backends`.
    pub fn rows(&self, list: &str) -> &[Value] {
        self.0[list].as_array().unwrap_or_else(|| panic!("no list {list} in {}", self.0))
    }

    fn sum(&self, list: &str, name: &str) -> u64 {
        self.rows(list).iter().map(|row| number(row, name)).sum()
    }
}

fn number(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {row}"))
}

/// Counters by cause are pairs of name and number; those at 0 are left out.
fn pair_of(pairs: &Value, name: &str) -> u64 {
    let pairs = pairs.as_array().unwrap();
    pairs.iter().find(|pair| pair[0] == name).map_or(0, |pair| pair[1].as_u64().unwrap())
}
