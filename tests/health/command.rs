//! Commands that end well, badly, or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use xfwd::health::{HealthKind, Target};

use crate::{MS, down, first, next, start, target, up, wait};

fn shell(script: &str) -> Target {
    let mut target = target(HealthKind::Command, "127.0.0.9:8080".parse().unwrap());
    target.check.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    target.check.timeout = Duration::from_secs(10);
    target
}

/// A file of this test alone, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("xfwd-health-{}-{counter}", process::id())))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Processes of a group that still run.
fn alive(group: i32) -> usize {
    let stat = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        // `pid (name) state parent group …`; a name may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let mut words = rest.split_whitespace();
        let (state, _, group) = (words.next()?, words.next()?, words.next()?);
        Some((state.to_owned(), group.parse::<i32>().ok()?))
    };
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| stat(entry.ok()?));
    processes.filter(|(state, of)| *of == group && state != "Z").count()
}

#[test]
fn exit_status_decides_and_the_first_line_is_the_reason() {
    assert_eq!(first(shell("exit 0")), up("exit status 0"));
    assert_eq!(first(shell("echo; echo 12 sessions; echo more")), up("exit status 0: 12 sessions"));
    assert_eq!(first(shell("echo disk full >&2; exit 2")), down("exit status 2: disk full"));
    assert_eq!(first(shell("kill -TERM $$")), down("signal 15 (SIGTERM)"));
}

#[test]
fn command_that_is_not_there_is_down() {
    let mut missing = shell("");
    missing.check.command = vec!["/nonexistent/check".to_owned()];
    assert_eq!(first(missing), down("cannot run `/nonexistent/check`: no such file or directory"));
}

#[test]
fn command_knows_its_backend_and_has_no_input() {
    let mut asking = shell("read line && exit 1; echo $XFWD_SERVICE $XFWD_BACKEND $XFWD_PORT");
    assert_eq!(first(asking.clone()), up("exit status 0: web 127.0.0.9 8080"));
    asking.check.port = Some(9090);
    assert_eq!(first(asking), up("exit status 0: web 127.0.0.9 9090"));
}

#[test]
fn arguments_meet_no_shell() {
    let mut plain = shell("");
    plain.check.command = ["/bin/echo", "$HOME;", "*"].map(str::to_owned).to_vec();
    assert_eq!(first(plain), up("exit status 0: $HOME; *"));
}

#[test]
fn much_output_does_not_hold_a_command_up() {
    assert_eq!(first(shell("echo first; head -c 1000000 /dev/zero")), up("exit status 0: first"));
}

#[test]
fn child_that_keeps_the_output_open_is_not_waited_for() {
    let mut leaving = shell("echo good; sleep 30 &");
    leaving.check.interval = Duration::from_secs(60);
    let started = Instant::now();
    assert_eq!(first(leaving), up("exit status 0: good"));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn hanging_command_is_killed_with_all_its_children() {
    let group = Scratch::new();
    let script = format!("echo $$ > {}; echo waiting; sleep 1000 & sleep 1000", group.path().display());
    let mut hanging = shell(&script);
    hanging.check.interval = Duration::from_secs(60);
    hanging.check.timeout = 500 * MS;
    let (_health, changes) = start(vec![hanging]);
    wait("the command to start", || fs::read_to_string(group.path()).is_ok_and(|pid| pid.ends_with('\n')));
    let group: i32 = fs::read_to_string(group.path()).unwrap().trim().parse().unwrap();
    wait("both children", || alive(group) == 3);
    assert_eq!(next(&changes), down("timeout: killed: waiting"));
    wait("the group to go", || alive(group) == 0);
}

#[test]
fn dropping_stops_commands_and_connections_at_once() {
    let group = Scratch::new();
    let mut hanging = shell(&format!("echo $$ > {}; sleep 1000 & sleep 1000", group.path().display()));
    hanging.check.timeout = Duration::from_secs(1000);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut silent = target(HealthKind::Http, silent.local_addr().unwrap());
    silent.id = 2;
    silent.check.timeout = Duration::from_secs(1000);
    let (health, changes) = start(vec![hanging, silent]);
    wait("the command to start", || fs::read_to_string(group.path()).is_ok_and(|pid| pid.ends_with('\n')));
    let group: i32 = fs::read_to_string(group.path()).unwrap().trim().parse().unwrap();
    wait("both children", || alive(group) == 3);
    let stopping = Instant::now();
    drop(health);
    assert!(stopping.elapsed() < Duration::from_secs(3), "{:?}", stopping.elapsed());
    assert_eq!(alive(group), 0);
    // What was cut off is no result.
    assert!(changes.recv().is_err());
}
