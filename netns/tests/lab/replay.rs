//! Frames that are sent as they are, and the command that does it.

use super::*;
use xfwd_netns::{
    TimedFrame, read_pcap,
    trafficgen::{Pace, Replay},
    write_pcap,
};

/// Frames of many lengths that no host takes for its own.
fn frames(count: u8) -> Vec<TimedFrame> {
    let frame = |number: u8| {
        let mut bytes = vec![number; 60 + usize::from(number) * 17];
        bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xb5]);
        TimedFrame { bytes, at: Duration::from_secs(1_000) + Duration::from_millis(3) * number.into() }
    };
    (0..count).map(frame).collect()
}

/// The next frames with the EtherType of [`frames`].
fn next(capture: &Capture, count: usize) -> TestResultOf<Vec<Vec<u8>>> {
    let mut captured = Vec::new();
    while captured.len() < count {
        let frame = capture.next(WAIT)?.ok_or("a frame is missing")?;
        if frame.bytes[12..14] == [0x88, 0xb5] {
            captured.push(frame.bytes);
        }
    }
    Ok(captured)
}

#[test]
fn a_capture_is_replayed_byte_for_byte_round_after_round() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(2)?;
    let frames = frames(80);
    let capture = pair.subject.run(|| Capture::open(INTERFACE))?;
    let sent = pair.generator.run(|| {
        Replay::new(INTERFACE, frames.clone())?.from_core(0).run(Pace::Unlimited, Amount::Packets(200))
    })?;
    assert_eq!((sent.packets, sent.refused), (200, Some(0)));
    let expected = frames.iter().cycle().take(200).map(|frame| &frame.bytes);
    for (number, (captured, expected)) in next(&capture, 200)?.iter().zip(expected).enumerate() {
        assert_eq!(captured, expected, "frame {number}");
    }
    Ok(())
}

#[test]
fn a_replay_keeps_the_times_of_the_capture_or_the_rate_that_is_asked_for() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    for (pace, least) in [
        // 40 frames at 3 ms.
        (Pace::Recorded(1.0), 117),
        (Pace::Recorded(2.0), 58),
        (Pace::Rate(400), 97),
        (Pace::Unlimited, 0),
    ] {
        let before = counter.read()?.class(Class::Control).packets;
        let sent =
            pair.generator.run(|| Replay::new(INTERFACE, frames(40))?.run(pace, Amount::Packets(40)))?;
        assert_eq!(sent.packets, 40);
        assert!(sent.elapsed >= Duration::from_millis(least) && sent.elapsed < WAIT, "{pace:?}: {sent:?}");
        assert!(counter.read()?.class(Class::Control).packets >= before + 40, "{pace:?}");
    }
    Ok(())
}

#[test]
fn frames_of_nine_thousand_bytes_are_sent_with_right_checksums() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair_with(&VethOptions { mtu: 9_000, ..VethOptions::default() })?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let options = Traffic { frame_length: 9_014, flows: 50, ..traffic(&pair, Protocol::Udp, false)? };
    let replay = |options: &Traffic, count| {
        pair.generator
            .run(|| Replay::of_traffic(INTERFACE, options)?.run(Pace::Rate(100_000), Amount::Packets(count)))
    };
    let sent = replay(&options, 1_000)?;
    assert_eq!((sent.packets, sent.refused), (1_000, Some(0)));
    let counted = counter.read()?.class(Class::Ipv4Udp);
    assert_eq!((counted.ours, counted.bytes), (1_000, 9_014_000));
    drop(counter);

    let capture = pair.subject.run(|| Capture::open(INTERFACE))?;
    let options = Traffic { frame_length: 9_014, flows: 50, ..traffic(&pair, Protocol::Udp, true)? };
    replay(&options, 50)?;
    let mut flows = BTreeSet::new();
    while flows.len() < 50 {
        let frame = capture.next(WAIT)?.ok_or("a frame is missing")?;
        if is_test_packet(&frame.bytes, &options) {
            assert_eq!(frame.bytes.len(), 9_014);
            flows.insert(verify(&parse(&frame.bytes), &options));
        }
    }
    let too_long = Traffic { frame_length: 9_015, ..options.clone() };
    let error = replay(&too_long, 1).unwrap_err();
    assert!(error.to_string().contains("9015 bytes"), "{error}");
    Ok(())
}

fn trafficgen(pair: &Pair, arguments: &[&str]) -> TestResultOf<serde_json::Value> {
    let mut command = Command::new(xfwd_netns::tool("xfwd-trafficgen")?);
    command.args(["--interface", INTERFACE, "--json"]).args(arguments);
    let output = pair.generator.output(&mut command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn the_command_replays_a_file() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let path = std::env::temp_dir().join(format!("xfwd-replay-{}.pcap", std::process::id()));
    let captured = |frame: TimedFrame| Captured { bytes: frame.bytes, partial_checksum: false };
    write_pcap(&path, &frames(30).into_iter().map(captured).collect::<Vec<_>>())?;
    assert_eq!(read_pcap(&path)?.len(), 30);
    let capture = pair.subject.run(|| Capture::open(INTERFACE))?;
    let file = path.to_str().expect("a path in UTF-8");
    let report = trafficgen(&pair, &["--replay", file, "--rate", "5k", "--count", "60"])?;
    assert_eq!(report["sent"]["packets"], 60, "{report}");
    let expected = frames(30);
    for (captured, expected) in next(&capture, 60)?.iter().zip(expected.iter().cycle()) {
        assert_eq!(*captured, expected.bytes);
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

#[test]
fn the_command_mixes_lengths_and_tells_latencies_and_its_limit() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let reflect = CounterOptions { verdict: CounterVerdict::Reflect, ..CounterOptions::default() };
    let _reflector = pair.subject.run(|| Counter::attach(INTERFACE, &reflect))?;
    let to = ["--to", "198.18.0.2:4000", "--core", "0", "--count", "1200"];
    let report = trafficgen(
        &pair,
        &[&to[..], &["--mix", "imix", "--latency", "--calibrate", "--rate", "50k", "--validate"]].concat(),
    )?;
    let udp = &report["received"]["classes"]["ipv4-udp"];
    assert_eq!((&udp["ours"], &udp["bad_checksum"]), (&1_200.into(), &0.into()), "{report}");
    assert_eq!(udp["bytes"], 100 * (7 * 60 + 4 * 590 + 1_514), "{report}");
    assert_eq!(report["latency_ns"]["packets"], 1_200, "{report}");
    assert_eq!(report["late_ns"]["packets"], 1_200, "{report}");
    assert!(report["latency_ns"]["p50"].as_u64() > Some(0), "{report}");
    assert!(report["limit_pps"].as_f64() > Some(50_000.0), "{report}");
    Ok(())
}
