//! Two balancers.

use std::process::Command;

use serde_json::Value;
use xfwd_netns::{
    VethOptions, lab_or_skip,
    topology::{self, Bridged, INTERFACE, VIP_V4, host_v4},
};

use crate::{
    ask,
    running::{ConfigFile, PATIENCE},
    site::{ECHO, Family, Line, QUEUES, Site, Way, name, start, up},
};

const FLOWS: u16 = 60;
/// Of which `xfwd which` is asked, too.
const ASKED: usize = 12;

#[test]
fn two_balancers_choose_the_same_backends_whatever_the_order_of_their_configs() {
    lab_or_skip!();
    let network = topology::dsr(QUEUES, 4).unwrap();
    let second = network.lab.namespace("second").unwrap();
    let cable = VethOptions { queues: QUEUES, ..VethOptions::default() };
    network.lab.veth(&second, INTERFACE, &network.switch, "second", &cable).unwrap();
    network.switch.ip(["link", "set", "second", "master", "br0"]).unwrap();
    network.switch.up("second").unwrap();
    second.address(INTERFACE, &format!("{}/15", host_v4(Bridged::BALANCER + 1))).unwrap();
    let macs = [network.balancer.mac(INTERFACE).unwrap(), second.mac(INTERFACE).unwrap()];
    let site = Site::bridged(Way::Dsr, Family::V4, network);

    let lines = [up(0), Line { weight: 3, ..up(1) }, up(2), up(3)];
    let backwards: Vec<Line> = lines.iter().rev().copied().collect();
    let configs = [site.config(&lines, ""), site.config(&backwards, "")];
    let running = [start(&site.balancer, &configs[0]), start(&second, &configs[1])];
    let ports: Vec<u16> = (0..FLOWS).map(|_| ask::fresh_port()).collect();
    let chosen = macs.map(|mac| {
        site.client.neighbour(INTERFACE, VIP_V4.into(), mac).unwrap();
        let ask = |port: &u16| ask::tcp_from(&site.client, *port, site.at(ECHO), PATIENCE).unwrap();
        ports.iter().map(ask).collect::<Vec<_>>()
    });
    assert_eq!(chosen[0], chosen[1]);
    for xfwd in running {
        let connections: u64 =
            xfwd.stop().summary().backends("tcp7", "connections").iter().map(|row| row.1).sum();
        assert_eq!(connections, u64::from(FLOWS), "each balanced all");
    }
    for config in configs {
        let file = ConfigFile::new(&config);
        for (port, chosen) in ports.iter().zip(&chosen[0]).take(ASKED) {
            assert_eq!(which(&site, &file, *port), *chosen);
        }
    }
}

/// The name of the backend that the command says.
fn which(site: &Site, config: &ConfigFile, port: u16) -> String {
    let source = format!("{}:{port}", host_v4(Bridged::CLIENT));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xfwd"));
    command.args([
        "which",
        "--json",
        "--proto",
        "tcp",
        "--src",
        &source,
        "--dst",
        &site.at(ECHO).to_string(),
    ]);
    let output = command.arg(config.path()).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let address = answer["backend"]["address"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let index = site.addresses.iter().position(|own| own.to_string() == address).unwrap();
    name(index)
}
