//! The example of the guide: over a capture, and against real sockets.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use xfwd::offline::{Capture, Frame, PcapWriter};
use xfwd_netns::lab_or_skip;
use xfwd_netns::topology::{self, INTERFACE, Pair, host_v4};

use super::first_stage::question;
use super::{Example, NO_ANSWER, ask, client, example::program};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/whoami.toml");
/// As long as the longest answer.
const LONG: &[u8; 48] = b"Who am I, and if so, how many? Say it, in UDP!!\n";

fn scratch(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn whoami(arguments: &[&str]) -> Output {
    Command::new(program("whoami")).args(arguments).output().unwrap()
}

// ANCHOR: replay
#[test]
fn a_replay_answers_what_is_long_enough() {
    let (questions, answers) = (scratch("questions.pcap"), scratch("answers.pcap"));
    let mut writer = PcapWriter::new(File::create(&questions).unwrap()).unwrap();
    for payload in [&LONG[..], b"who?"] {
        let packet = question(payload);
        writer.write(Duration::from_secs(1), &packet, packet.len() as u32).unwrap();
    }
    writer.finish().unwrap();

    let files = [&questions, &answers].map(|path| path.to_str().unwrap());
    let output = whoami(&["replay", CONFIG, files[0], "-w", files[1], "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["verdicts"]["bounce"], 1, "{summary}");
    assert_eq!(summary["dropped"]["not-answered"], 1, "{summary}");
    assert_eq!(summary["counters"]["answered"], 1, "{summary}");

    let mut capture = Capture::open(File::open(&answers).unwrap()).unwrap();
    let mut answer = Frame::default();
    assert!(capture.read(&mut answer).unwrap());
    assert!(answer.bytes().ends_with(b"198.18.0.1:40000\n"), "{answer:?}");
    assert!(!capture.read(&mut answer).unwrap());
}
// ANCHOR_END: replay

#[test]
fn what_is_wrong_with_its_section_is_told_with_the_line() {
    let config = scratch("whoami.toml");
    std::fs::write(&config, "[whoami]\naddress = \"198.18.0.2:0\"\n").unwrap();
    let output = whoami(&["check", config.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("nobody can send to port 0") && said.contains("whoami.toml:2:11"), "{said}");
}

// ANCHOR: lab
#[test]
fn whoami_tells_a_real_client_its_address_and_port() {
    lab_or_skip!();
    let pair = topology::pair(2).unwrap();
    let (here, there) = (host_v4(Pair::GENERATOR), host_v4(Pair::SUBJECT));
    let server = (there, 9_999).into();
    let config = scratch("whoami-lab.toml");
    std::fs::write(&config, format!("[whoami]\naddress = \"{server}\"\n")).unwrap();

    let arguments = ["--iface", INTERFACE, "--queues", "2", "--json", config.to_str().unwrap()];
    let xfwd = Example::start(&pair.subject, "whoami", &arguments, "\nleaves the kernel: ");
    for _ in 0..4 {
        let client = client(&pair.generator, here);
        let answer = format!("{}\n", client.local_addr().unwrap());
        assert_eq!(ask(&client, server, LONG), Some(answer.into_bytes()));
        client.set_read_timeout(Some(NO_ANSWER)).unwrap();
        assert_eq!(ask(&client, server, b"who?"), None);
    }
    let summary: Value = serde_json::from_str(&xfwd.stop()).unwrap();
    assert_eq!(summary["counters"]["answered"], 4, "{summary}");
    assert_eq!(summary["counters"]["too-short"], 4, "{summary}");
}
// ANCHOR_END: lab
