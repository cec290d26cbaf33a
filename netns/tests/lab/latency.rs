//! Time stamps, and the histograms that are made of them.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use nix::time::{ClockId, clock_gettime};

use super::*;

/// The clock of the stamps, in nanoseconds.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock that every kernel has");
    Duration::from(now).as_nanos() as u64
}

fn with_latency() -> CounterOptions {
    CounterOptions { latency: true, validate: true, ..CounterOptions::default() }
}

#[test]
fn packets_with_known_stamps_have_the_delays_that_they_say() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let options = CounterOptions { validate: false, ..with_latency() };
    let mut counter = pair.subject.run(|| Counter::attach(INTERFACE, &options))?;
    let wire = pair.generator.run(|| Capture::open(INTERFACE))?;
    for ipv6 in [false, true] {
        let stamped = Traffic { stamped: true, ..traffic(&pair, Protocol::Udp, ipv6)? };
        let frame = pair.generator.run(|| stamped.packets(INTERFACE, 1))?.remove(0);
        // Behind Ethernet, IP, UDP, the marker and the sequence number.
        let stamp_at = 14 + if ipv6 { 40 } else { 20 } + 8 + 8;
        for delay_ns in [0, 70_000, 1_000_000, 20_000_000, 5_000_000_000] {
            let mut frame = frame.clone();
            counter.clear_latency()?;
            let stamp = now_ns() - delay_ns;
            frame[stamp_at..stamp_at + 8].copy_from_slice(&stamp.to_be_bytes());
            assert!(wire.send(&frame)?);
            let deadline = Instant::now() + WAIT;
            while counter.latency()?.is_empty() {
                assert!(Instant::now() < deadline, "the packet did not arrive");
            }
            let (latency, most) = (counter.latency()?, now_ns() - stamp);
            assert_eq!(latency.len(), 1);
            // To the bucket's error of less than 1 in 100.
            let (least, most) = (delay_ns as f64 * 0.99, most as f64 * 1.01);
            let found = latency.max() as f64;
            assert!(least <= found && found <= most, "{found} ns, not from {least} to {most} ns");
        }
    }
    Ok(())
}

#[test]
fn every_answer_is_in_the_histogram_and_stamps_keep_checksums_right() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let reflect = CounterOptions { verdict: CounterVerdict::Reflect, ..CounterOptions::default() };
    let _there = pair.subject.run(|| Counter::attach(INTERFACE, &reflect))?;
    let mut here = pair.generator.run(|| Counter::attach(INTERFACE, &with_latency()))?;
    for (class, protocol, ipv6) in [
        (Class::Ipv4Udp, Protocol::Udp, false),
        (Class::Ipv4Icmp, Protocol::IcmpEcho, false),
        (Class::Ipv6Udp, Protocol::Udp, true),
        (Class::Ipv6Icmp, Protocol::IcmpEcho, true),
    ] {
        for rate_pps in [None, Some(100_000)] {
            here.clear_latency()?;
            let (before, begun) = (here.read()?.class(class), Instant::now());
            let traffic = Traffic {
                stamped: true,
                flows: 333,
                vlans: vec![7],
                frame_length: 101,
                rate_pps,
                ..traffic(&pair, protocol, ipv6)?
            };
            let sent = send(&pair, &traffic, Amount::Packets(10_000))?;
            let (after, latency) = (here.read()?.class(class), here.latency()?);
            assert_eq!((sent.packets, sent.refused), (10_000, Some(0)), "{class:?}");
            assert_eq!((after.ours - before.ours, after.bad_checksum), (10_000, 0), "{class:?}");
            assert_eq!(latency.len(), 10_000, "{class:?}");
            assert!(latency.min() > 0 && u128::from(latency.max()) < begun.elapsed().as_nanos());
        }
    }
    Ok(())
}

#[test]
fn a_delay_of_the_peer_is_in_the_latency_of_every_packet() -> TestResult {
    const DELAY: Duration = Duration::from_millis(20);
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let here = pair.generator.run(|| Counter::attach(INTERFACE, &with_latency()))?;
    let wire = pair.subject.run(|| Capture::open(INTERFACE))?;
    let traffic = Traffic { stamped: true, rate_pps: Some(1_000), ..traffic(&pair, Protocol::Udp, false)? };
    let (done, begun) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| -> TestResult {
        let peer = scope.spawn(|| -> xfwd_netns::Result<()> {
            let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
            while !done.load(Ordering::Relaxed) {
                if let Some(frame) = wire.next(Duration::from_micros(500))?
                    && is_test_packet(&frame.bytes, &traffic)
                {
                    let mut answer = frame.bytes;
                    answer[..12].rotate_left(6);
                    held.push_back((Instant::now() + DELAY, answer));
                }
                while held.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                    if let Some((_, answer)) = held.pop_front() {
                        wire.send(&answer)?;
                    }
                }
            }
            Ok(())
        });
        let sent = send(&pair, &traffic, Amount::Packets(200));
        let deadline = Instant::now() + WAIT;
        while here.latency()?.len() < 200 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        done.store(true, Ordering::Relaxed);
        peer.join().expect("the peer")?;
        assert_eq!(sent?.packets, 200);
        Ok(())
    })?;
    let latency = here.latency()?;
    assert_eq!(latency.len(), 200);
    assert!(latency.min() as f64 >= DELAY.as_nanos() as f64 * 0.99, "{} ns", latency.min());
    // Above it is what the scheduler makes of it, on a machine that has other things to do.
    assert!(u128::from(latency.max()) < begun.elapsed().as_nanos(), "{} ns", latency.max());
    Ok(())
}

/// The correction of coordinated omission: what is not sent in time counts from when it should have been.
#[test]
fn who_cannot_keep_the_rate_is_late_and_no_packet_is_let_off() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &with_latency()))?;
    let traffic =
        Traffic { stamped: true, rate_pps: Some(500_000_000), ..traffic(&pair, Protocol::Udp, false)? };
    let (sent, lateness) = pair.generator.run(|| -> xfwd_netns::Result<_> {
        let mut generator = Generator::new(INTERFACE, &traffic)?;
        Ok((generator.run(Amount::For(Duration::from_millis(200)))?, generator.lateness()?))
    })?;
    let latency = counter.latency()?;
    // On a busy machine the other end may be too late for some of this many.
    let arrived = sent.packets - sent.refused.unwrap();
    assert_eq!((lateness.len(), latency.len()), (sent.packets, arrived));
    // The last packet is late by all of the time, but for what the plan had for those before it.
    let planned = sent.packets as f64 / 500e6;
    let owed = (sent.elapsed.as_secs_f64() - planned) * 1e9;
    assert!(owed > 0.0 && lateness.max() as f64 > owed * 0.95, "{} of {owed} ns", lateness.max());
    assert!(latency.max() as f64 >= lateness.max() as f64 * 0.97);
    Ok(())
}
