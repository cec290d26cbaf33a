//! A flood that the filter drops in the kernel, and a real client that goes through the same interface meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helper functions too")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use xfwd::kernel::filter::compile;
use xfwd::kernel::xdp::{Steering, XdpMode, XdpProgram};
use xfwd::stages::filter::{Action, Prefix, PrefixSet, Rule};
use xfwd_ebpf_types::Cause;
use xfwd_netns::lab_or_skip;
use xfwd_netns::topology::{self, INTERFACE};
use xfwd_netns::trafficgen::{Amount, Generator, Traffic};

const FLOOD: u32 = 0x0a00_0000;
const ADDRESSES: u32 = 100_000;
const FLOOD_TIME: Duration = Duration::from_secs(3);
/// No answer for so long is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers every connection with what it sends, until the other side is done.
fn serve(listener: &TcpListener, stop: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if stop.load(Relaxed) {
            return;
        }
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).is_ok() {
            let _ = stream.write_all(&bytes);
        }
    }
}

/// One connection with an exchange of some packets.
fn exchange(server: SocketAddr, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(content)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_client_sees_no_failure_while_a_flood_is_dropped() {
    lab_or_skip!();
    let pair = topology::pair(1).unwrap();
    let listed =
        (0..ADDRESSES).map(|index| Prefix::new(Ipv4Addr::from_bits(FLOOD + index).into(), 32)).collect();
    let mut deny = Rule::new("deny", Action::Drop);
    deny.matches.src_set = Some(Arc::new(PrefixSet::new("deny.txt", listed)));
    let mut program = XdpProgram::load_with(&Steering::default(), &compile(&[deny]).unwrap()).unwrap();
    pair.subject.run(|| {
        let index = nix::net::if_::if_nametoindex(INTERFACE).unwrap();
        program.attach(index, INTERFACE, XdpMode::Native).unwrap();
    });

    let server = SocketAddr::from((topology::host_v4(2), 80));
    let listener = pair.subject.run(|| TcpListener::bind(server)).unwrap();
    let mut traffic = Traffic::udp(Ipv4Addr::from_bits(FLOOD).into(), topology::host_v4(2).into(), 9);
    traffic.destination_mac = pair.subject.mac(INTERFACE).unwrap();
    traffic.flows = ADDRESSES;
    traffic.source_addresses = ADDRESSES;
    let stop = AtomicBool::new(false);
    let content: Vec<u8> = (0..20_000_u32).map(|index| index as u8).collect();
    let (sent, exchanges) = std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &stop));
        let flood = scope.spawn(|| {
            pair.generator.run(|| Generator::new(INTERFACE, &traffic)?.run(Amount::For(FLOOD_TIME)))
        });
        let exchanges = pair.generator.run(|| {
            let mut exchanges = 0;
            while !flood.is_finished() {
                let answer = exchange(server, &content)
                    .unwrap_or_else(|error| panic!("connection {exchanges} failed: {error}"));
                assert!(answer == content);
                exchanges += 1;
            }
            stop.store(true, Relaxed);
            // Wakes the server.
            drop(TcpStream::connect(server));
            exchanges
        });
        (flood.join().unwrap().unwrap(), exchanges)
    });

    let counters = program.counters().unwrap();
    let rule = program.rule_counts().unwrap()[0];
    println!("{exchanges} connections beside {} packets of the flood", sent.packets);
    assert!(exchanges > 0);
    assert_eq!(
        rule.packets,
        sent.packets - sent.refused.unwrap_or(0),
        "every packet of the flood, and nothing else"
    );
    assert_eq!(rule.bytes, rule.packets * 60);
    assert_eq!(counters.get(Cause::DroppedRule), rule.packets);
}
