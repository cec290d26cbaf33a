//! `xfwd features` and what it asks, on a real kernel and a veth pair.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output};

use serde_json::Value;
use xfwd::kernel::features::{Evidence, Feature};
use xfwd::kernel::link::Link;
use xfwd::kernel::netdev::driver_features;
use xfwd_netns::{Namespace, lab_or_skip, topology};

/// Runs `xfwd features` with these arguments in a namespace.
fn xfwd_features(namespace: &Namespace, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xfwd"));
    namespace.output(command.arg("features").args(arguments)).unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn options_of_sockets_are_asked_for_and_not_guessed() {
    lab_or_skip!();
    for feature in [Feature::Sockets, Feature::PreferBusyPoll, Feature::TxBudget, Feature::DriverFeatures] {
        let probe = feature.probe();
        assert_eq!(probe.evidence, Evidence::Asked, "{feature}");
        // Older kernels may have it from their distribution.
        let is_new = xfwd::kernel::features::kernel_release() >= feature.since();
        assert!(probe.result.is_ok() || !is_new, "{feature}");
    }
}

#[test]
fn veth_tells_what_it_can_do() {
    lab_or_skip!();
    if let Err(unsupported) = Feature::DriverFeatures.check() {
        eprintln!("SKIPPED veth_tells_what_it_can_do: {unsupported}");
        return;
    }
    let pair = topology::pair(2).unwrap();
    let features = pair.subject.run(|| {
        let link = Link::find(topology::INTERFACE).unwrap();
        driver_features(link.index).unwrap().unwrap()
    });
    assert!(features.native && features.redirect, "{features:?}");
    assert!(!features.zero_copy && !features.offload, "veth has no zero-copy: {features:?}");
    let error = driver_features(0x7fff_fff0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
}

#[test]
fn json_and_table_tell_the_same() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let report = json(&xfwd_features(&pair.subject, &["--iface", topology::INTERFACE, "--json"]));
    let interface = &report["interface"];
    assert_eq!(
        (&interface["name"], &interface["driver"], &interface["queues"]),
        (&"eth0".into(), &"veth".into(), &2.into())
    );
    assert_eq!(interface["xdp"]["zero_copy"], false);
    assert_eq!(interface["xdp_attached"], Value::Null);
    assert_eq!(report["kernel"]["features"].as_array().unwrap().len(), Feature::ALL.len());

    let output = xfwd_features(&pair.subject, &["--iface", topology::INTERFACE]);
    let table = String::from_utf8(output.stdout).unwrap();
    for feature in report["kernel"]["features"].as_array().unwrap() {
        let line = table.lines().find(|line| line.contains(feature["name"].as_str().unwrap())).unwrap();
        let here = if feature["supported"] == true { " yes" } else { " no: needs Linux" };
        assert!(line.contains(here), "{line}");
    }
    let zero_copy = table.lines().find(|line| line.contains("`mode = \"zero-copy\"`")).unwrap();
    assert!(zero_copy.contains(" no "), "{zero_copy}");
}

#[test]
fn without_an_interface_it_is_about_the_kernel_only() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    assert_eq!(json(&xfwd_features(&pair.subject, &["--json"]))["interface"], Value::Null);
}

#[test]
fn interface_that_does_not_exist_is_told_with_those_that_do() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let output = xfwd_features(&pair.subject, &["--iface", "eth1"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("there is no interface `eth1`") && error.contains("eth0"), "{error}");
}
