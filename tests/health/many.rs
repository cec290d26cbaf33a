//! A thousand targets.

use std::{
    env,
    net::TcpListener,
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, setrlimit};
use xfwd::health::{Condition, HealthKind};

use crate::{PATIENCE, server, start, target, wait};

#[test]
fn checks_of_a_thousand_targets_are_spread_over_the_interval() {
    const TARGETS: usize = 1000;
    const INTERVAL: Duration = Duration::from_secs(1);
    let (sender, accepted) = mpsc::channel();
    let to = server("127.0.0.1", move |_| {
        let _ = sender.send(Instant::now());
    });
    let targets = (0..TARGETS).map(|id| {
        let mut target = target(HealthKind::Tcp, to);
        target.id = id as u64;
        target.check.interval = INTERVAL;
        target
    });
    let (health, changes) = start(targets.collect());
    // Two rounds: every target is checked once in each.
    let times: Vec<Instant> = (0..2 * TARGETS).map(|_| accepted.recv_timeout(PATIENCE).unwrap()).collect();
    let took = times[2 * TARGETS - 1] - times[0];
    assert!((INTERVAL * 3 / 2..INTERVAL * 4).contains(&took), "{took:?}");
    // Not at once: no tenth of the interval sees more than three tenths of the checks.
    let burst = TARGETS * 3 / 10;
    assert!(times.windows(burst).all(|burst| burst[burst.len() - 1] - burst[0] > INTERVAL / 10));

    let told: Vec<Condition> = changes.iter().take(TARGETS).map(|change| change.to).collect();
    assert_eq!(told, [Condition::Up; TARGETS]);
    wait("two rounds", || health.status().iter().all(|status| status.checks >= 2));
    assert!(health.status().iter().all(|status| status.failed == 0 && status.last_good == Some(true)));
}

#[test]
fn silent_targets_do_not_hold_up_the_others() {
    let (sender, accepted) = mpsc::channel();
    let to = server("127.0.0.1", move |_| {
        let _ = sender.send(());
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let targets = (0..300).map(|id| {
        let mut target =
            if id % 2 == 0 { target(HealthKind::Tcp, to) } else { target(HealthKind::Http, silent) };
        target.id = id;
        target.check.interval = Duration::from_millis(500);
        target.check.timeout = Duration::from_secs(60);
        target
    });
    let (health, _changes) = start(targets.collect());
    for _ in 0..3 * 150 {
        accepted.recv_timeout(PATIENCE).unwrap();
    }
    let unknown = health.status().iter().filter(|status| status.condition == Condition::Unknown).count();
    assert_eq!(unknown, 150);
}

/// The limit is the process's, so this part runs in one of its own.
const LIMITED: &str = "XFWD_TEST_FEW_DESCRIPTORS";

#[test]
fn few_descriptors_delay_checks_and_do_not_fail_them() {
    if env::var_os(LIMITED).is_none() {
        let name = "many::few_descriptors_delay_checks_and_do_not_fail_them";
        let mut again = Command::new(env::current_exe().unwrap());
        let output = again.args([name, "--exact", "--nocapture"]).env(LIMITED, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, 400, 400).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let targets = (0..1000).map(|id| {
        let mut target = target(HealthKind::Http, silent);
        target.id = id;
        target.check.timeout = Duration::from_millis(300);
        target
    });
    let (_health, changes) = start(targets.collect());
    for _ in 0..1000 {
        let change = changes.recv_timeout(PATIENCE).unwrap();
        assert!(change.reason.starts_with("timeout: "), "{}", change.reason);
    }
}
