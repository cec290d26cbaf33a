//! Attaching to real interfaces: pairs of veth in a network namespace of the test.

use std::{net::UdpSocket, process::Command};
use xfwd_netns::lab_or_skip;

use nix::sched::{CloneFlags, unshare};
use xfwd::kernel::xdp::{SteeredService, Steering, XdpError, XdpMode, XdpProgram};
use xfwd_ebpf_types::Cause;
use xsk_rs::{
    Socket, Umem,
    config::{BindFlags, LibxdpFlags, SocketConfig, UmemConfig},
};

use crate::packets::{PORT, UDP, VIP4};

/// Puts the calling thread, and so one test, into a new network namespace with a pair of veth, and gives
/// their indexes. The namespace goes with the thread.
fn veth_pair(receive_queues: u32, transmit_queues: u32) -> [u32; 2] {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip(&format!(
        "link add va numrxqueues {receive_queues} type veth peer name vb numtxqueues {transmit_queues}"
    ));
    ["va", "vb"].map(|name| {
        ip(&format!("link set dev {name} up"));
        nix::net::if_::if_nametoindex(name).unwrap()
    })
}

/// Runs `ip`; its output.
fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

fn run(command: &str, arguments: &str) -> String {
    let output = Command::new(command).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{command} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn program() -> XdpProgram {
    XdpProgram::load(&Steering::default()).unwrap()
}

#[test]
fn native_and_generic_mode_are_what_was_asked_for() {
    lab_or_skip!();
    let [va, _] = veth_pair(1, 1);
    let mut program = program();
    for (mode, shown) in [(XdpMode::Native, "xdp "), (XdpMode::Generic, "xdpgeneric ")] {
        program.attach(va, "va", mode).unwrap();
        assert!(program.is_attached());
        let link = ip("link show dev va");
        assert!(link.contains(shown), "{link}");
        assert!(link.contains(&format!("id {}", program.id().unwrap())), "{link}");
        program.detach();
        assert!(!program.is_attached());
        assert!(!ip("link show dev va").contains("xdp"));
    }
}

#[test]
fn dropping_the_program_detaches_it() {
    lab_or_skip!();
    let [va, vb] = veth_pair(1, 1);
    let mut program = program();
    program.attach(va, "va", XdpMode::Native).unwrap();
    drop(program);
    assert!(!ip("link show dev va").contains("xdp"));
    // The same in another thread's hands: no descriptor is left behind.
    let mut program = self::program();
    program.attach(vb, "vb", XdpMode::Native).unwrap();
    std::thread::spawn(move || drop(program)).join().unwrap();
    assert!(!ip("link show dev vb").contains("xdp"));
}

#[test]
fn another_program_is_left_alone() {
    lab_or_skip!();
    let [va, _] = veth_pair(1, 1);
    let mut first = program();
    first.attach(va, "va", XdpMode::Native).unwrap();
    let mut second = program();
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let error = second.attach(va, "va", mode).unwrap_err();
        assert!(matches!(error, XdpError::Occupied { .. }), "{error}: {error:?}");
        assert!(!second.is_attached());
    }
    let id = first.id().unwrap();
    assert!(ip("link show dev va").contains(&format!("id {id} ")));
}

#[test]
fn interfaces_that_are_not_there() {
    lab_or_skip!();
    veth_pair(1, 1);
    let error = program().attach(9_999, "nothere", XdpMode::Native).unwrap_err();
    assert!(matches!(error, XdpError::NoInterface { ifindex: 9_999, .. }), "{error}: {error:?}");
}

#[test]
fn driver_without_native_mode_is_told_from_one_that_is_busy() {
    lab_or_skip!();
    veth_pair(1, 1);
    let lo = nix::net::if_::if_nametoindex("lo").unwrap();
    let mut program = program();
    let error = program.attach(lo, "lo", XdpMode::Native).unwrap_err();
    assert!(matches!(error, XdpError::NoNativeXdp { .. }), "{error}: {error:?}");
    program.attach(lo, "lo", XdpMode::Generic).unwrap();
}

#[test]
fn veth_with_too_few_receive_queues() {
    lab_or_skip!();
    let [va, _] = veth_pair(1, 4);
    // A veth starts with one queue of each kind in use, whatever it was made with.
    run("ethtool", "-L vb tx 4");
    let error = program().attach(va, "va", XdpMode::Native).unwrap_err();
    assert!(matches!(error, XdpError::TooFewQueues { .. }), "{error}: {error:?}");
}

#[test]
fn jumbo_frames_are_fine_since_the_program_takes_several_buffers() {
    lab_or_skip!();
    let [va, _] = veth_pair(1, 1);
    ip("link set dev va mtu 9000");
    ip("link set dev vb mtu 9000");
    program().attach(va, "va", XdpMode::Native).unwrap();
}

#[test]
fn without_privileges_the_message_says_what_is_missing() {
    lab_or_skip!();
    use caps::{CapSet::Effective, Capability};
    // Capabilities belong to a thread and go with it.
    let load_without = |missing: &'static [Capability]| {
        std::thread::spawn(move || {
            for &capability in missing {
                caps::drop(None, Effective, capability).unwrap();
            }
            XdpProgram::load(&Steering::default()).map(|_| ())
        })
        .join()
        .unwrap()
    };
    const ROOT: Capability = Capability::CAP_SYS_ADMIN;
    for missing in [
        &[ROOT, Capability::CAP_BPF][..],
        &[ROOT, Capability::CAP_PERFMON][..],
        &[ROOT, Capability::CAP_NET_ADMIN][..],
    ] {
        let error = load_without(missing).unwrap_err();
        assert!(matches!(error, XdpError::NotPermitted { .. }), "{missing:?}: {error:?}");
        assert!(error.to_string().contains("CAP_PERFMON"), "{error}");
    }
    load_without(&[ROOT]).unwrap();
}

#[test]
fn packet_from_the_wire_reaches_the_socket_of_its_queue() {
    lab_or_skip!();
    let [va, _] = veth_pair(1, 1);
    ip("address add 192.0.2.1/24 dev vb");
    ip(&format!("neighbour add {VIP4} lladdr 02:00:00:00:00:01 dev vb"));

    let (umem, mut frames) = Umem::new(UmemConfig::default(), 64.try_into().unwrap(), false).unwrap();
    let config = SocketConfig::builder()
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY)
        .build();
    // SAFETY: the only socket of this UMEM, interface and queue.
    let (_tx, mut rx, rings) = unsafe { Socket::new(config, &umem, &"va".parse().unwrap(), 0) }.unwrap();
    let (mut fill, _completion) = rings.unwrap();
    // SAFETY: the frames are of this UMEM, and are not touched before the rx ring gives them back.
    assert_eq!(unsafe { fill.produce(&frames) }, frames.len());

    let mut program = XdpProgram::load(&Steering {
        services: vec![SteeredService::single(VIP4.into(), UDP, PORT)],
        ..Steering::default()
    })
    .unwrap();
    program.insert_socket(0, rx.fd()).unwrap();
    program.attach(va, "va", XdpMode::Native).unwrap();

    let sender = UdpSocket::bind("192.0.2.1:0").unwrap();
    sender.send_to(b"to nobody", (VIP4, PORT + 1)).unwrap();
    sender.send_to(b"hello", (VIP4, PORT)).unwrap();
    // SAFETY: what comes from the rx ring belongs to this thread.
    let received = unsafe { rx.poll_and_consume(&mut frames, 2_000) }.unwrap();
    assert_eq!(received, 1);
    // SAFETY: the frame is of this UMEM, and was given back by the rx ring.
    let packet = unsafe { umem.data(&frames[0]) };
    assert!(packet.contents().ends_with(b"hello"));
    let counters = program.counters().unwrap();
    assert_eq!(counters.get(Cause::SteeredService), 1);
    assert_eq!(counters.get(Cause::PassedNoSocket), 0);
    assert!(counters.get(Cause::PassedNoService) >= 1);
}
