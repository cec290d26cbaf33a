//! What `custom_stage` makes of a config that has changed.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use xfwd_netns::lab_or_skip;
use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4};

use crate::example::{Example, PATIENCE};
use crate::{NO_ANSWER, ask, client};

#[test]
fn custom_stage_takes_over_services_but_not_its_section_and_goes_on_as_before() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let elsewhere = (host_v4(99), 9).into();
    pair.generator.neighbour(INTERFACE, host_v4(99).into(), pair.subject.mac(INTERFACE).unwrap()).unwrap();
    let config = include_str!("../../examples/custom_stage.toml");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{}.toml", std::process::id()));
    fs::write(&path, config).unwrap();
    let arguments = ["--iface", INTERFACE, "--json", path.to_str().unwrap()];
    let xfwd = Example::start(&pair.subject, "custom_stage", &arguments, "\nleaves the kernel: ");
    let reload = |text: &str| {
        fs::write(&path, text).unwrap();
        xfwd.signal(Signal::SIGHUP);
    };
    let client = client(&pair.generator, host_v4(Pair::GENERATOR));
    client.set_read_timeout(Some(NO_ANSWER)).unwrap();
    client.set_ttl(254).unwrap();

    reload(&config.replace("hops = 0", "hops = 9"));
    xfwd.wait_for("`[ttl_guard]` differs from what runs: only `[[service]]` can change while running");
    assert_eq!(ask(&client, elsewhere, b"from far away"), None, "the section that ran goes on");

    reload(&format!("# The same, elsewhere in the file.\n{config}"));
    xfwd.wait_for("reloaded ");
    assert_eq!(ask(&client, elsewhere, b"from far away"), None);
    client.set_ttl(255).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask(&client, elsewhere, b"from next door").as_deref(), Some(&b"from next door"[..]));
    xfwd.stop();
    let _ = fs::remove_file(&path);
}
