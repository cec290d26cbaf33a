//! Lengths that take turns, and flows that are spread over queues.

use super::*;
use xfwd_netns::trafficgen::{Mix, SpecError, calibrate};

#[test]
fn an_imix_is_sent_in_its_row_byte_for_byte_with_right_checksums() -> TestResult {
    const COUNT: usize = 120;
    lab_or_skip!();
    let pair = topology::pair(1)?;
    for protocol in [Protocol::Udp, Protocol::TcpSyn, Protocol::IcmpEcho] {
        for ipv6 in [false, true] {
            // 7 and 12 have no common divisor, so every flow gets every length.
            let traffic = Traffic { mix: Some(Mix::imix()), flows: 7, ..traffic(&pair, protocol, ipv6)? };
            let captured = sample(&pair, &traffic, COUNT)?;
            let expected = pair.generator.run(|| traffic.packets(INTERFACE, COUNT))?;
            assert_eq!(captured.len(), COUNT, "{protocol:?} ipv6={ipv6}");
            for (number, (captured, expected)) in captured.iter().zip(&expected).enumerate() {
                assert_eq!(captured.bytes, *expected, "{protocol:?} ipv6={ipv6} packet {number}");
                verify(&parse(&captured.bytes), &traffic);
            }
        }
    }
    Ok(())
}

#[test]
fn a_mix_has_the_counts_that_it_says_and_goes_on_where_it_was() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let options = CounterOptions { validate: true, ..CounterOptions::default() };
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &options))?;
    let traffic = Traffic { mix: Some(Mix::imix()), flows: 1_000, ..traffic(&pair, Protocol::Udp, false)? };
    pair.generator.run(|| {
        let mut generator = Generator::new(INTERFACE, &traffic)?;
        // Not a multiple of 12 each, but both together.
        generator.run(Amount::Packets(50_001))?;
        generator.run(Amount::Packets(69_999))
    })?;
    let counted = counter.read()?.class(Class::Ipv4Udp);
    assert_eq!((counted.ours, counted.bad_checksum), (120_000, 0));
    assert_eq!(counted.bytes, 10_000 * (7 * 60 + 4 * 590 + 1_514));
    Ok(())
}

#[test]
fn one_core_fills_four_queues_flow_by_flow() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(4)?;
    let counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let spread = Traffic {
        flows: 1_000,
        spread: Some(4),
        cores: vec![0],
        rate_pps: Some(100_000),
        ..traffic(&pair, Protocol::Udp, false)?
    };
    let queues = || -> TestResultOf<Vec<u64>> {
        let statistics = pair.subject.statistics(INTERFACE)?;
        Ok((0..4).map(|queue| statistics[&format!("rx_queue_{queue}_xdp_packets")]).collect())
    };
    let before = queues()?;
    let sent = send(&pair, &spread, Amount::Packets(20_000))?;
    assert_eq!((sent.packets, sent.refused), (20_000, Some(0)));
    assert_eq!(counter.read()?.class(Class::Ipv4Udp).ours, 20_000);
    for (queue, (after, before)) in queues()?.iter().zip(&before).enumerate() {
        // The hosts on the link say a word now and then as well.
        assert!((5_000..5_020).contains(&(after - before)), "queue {queue}: {before} to {after}");
    }

    // A flow stays on its queue.
    let before = queues()?;
    send(&pair, &Traffic { flows: 1, ..spread.clone() }, Amount::Packets(1_000))?;
    let one_flow: Vec<u64> = queues()?.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert_eq!(one_flow.iter().filter(|packets| **packets >= 1_000).count(), 1, "{one_flow:?}");
    assert!(one_flow.iter().sum::<u64>() < 1_020, "{one_flow:?}");

    let refused = send(&pair, &Traffic { spread: Some(5), ..spread }, Amount::Packets(1)).unwrap_err();
    assert!(matches!(refused, xfwd_netns::Error::Traffic(SpecError::Queues(5, 4))), "{refused}");
    Ok(())
}

#[test]
fn the_generator_knows_its_limit() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let traffic = traffic(&pair, Protocol::Udp, false)?;
    let limit = pair.generator.run(|| calibrate(&traffic, 1, Duration::from_millis(100)))?;
    // A paced run far below it is not bound by it, and all of it arrives.
    assert!(limit > 50_000.0, "{limit}");
    Ok(())
}

#[test]
fn a_timed_run_ends_with_its_time() -> TestResult {
    lab_or_skip!();
    let pair = topology::pair(1)?;
    let _counter = pair.subject.run(|| Counter::attach(INTERFACE, &CounterOptions::default()))?;
    let traffic = traffic(&pair, Protocol::Udp, false)?;
    for rate_pps in [None, Some(10_000)] {
        let begun = std::time::Instant::now();
        let sent =
            send(&pair, &Traffic { rate_pps, ..traffic.clone() }, Amount::For(Duration::from_millis(300)))?;
        assert!(sent.elapsed <= begun.elapsed() && begun.elapsed() < WAIT, "{sent:?}");
        assert!(sent.packets > 100 && sent.elapsed > Duration::from_millis(50), "{sent:?}");
        assert!(rate_pps.is_none() || sent.packets <= 3_000, "{sent:?}");
    }
    Ok(())
}
