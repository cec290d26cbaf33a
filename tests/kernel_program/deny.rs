//! The dynamic deny list, down to what the XDP program does.

use std::time::{Duration, Instant};
use xfwd_netns::lab_or_skip;

use xfwd::kernel::deny::{DenyEntry, DenyList, DenyThread, StartDenyError};
use xfwd::kernel::xdp::{Steering, XdpAction, XdpProgram};
use xfwd_ebpf_types::Cause;

use crate::packets::*;

/// What the lab's machines keep even when they are busy; 10 ms are meant.
const GENEROUS: Duration = Duration::from_millis(250);

fn start(path: Option<&std::path::Path>) -> (XdpProgram, Result<DenyThread, StartDenyError>) {
    let mut program = XdpProgram::load(&Steering::default()).unwrap();
    let maps = program.take_deny_maps().unwrap();
    let thread = DenyThread::start(vec![Box::new(maps)], path);
    (program, thread)
}

fn is_dropped(program: &XdpProgram, frame: &[u8]) -> bool {
    program.test_run(frame).unwrap() == XdpAction::Drop
}

/// How long it takes until it is so.
fn until(what: &str, limit: Duration, is_so: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

/// Packets of the tests are from 198.51.100.7 and 2001:db8:1::7, port 40,000.
fn frames() -> [Vec<u8>; 2] {
    [frame4(&ipv4(VIP4, TCP, &tcp(PORT, 0, b"x"))), frame6(&ipv6(VIP6, UDP, &udp(PORT, b"x")))]
}

fn entry(text: &str) -> DenyEntry {
    text.parse().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn every_kind_of_entry_drops_what_it_says_and_only_that() {
    lab_or_skip!();
    let (program, thread) = start(None);
    let thread = thread.unwrap();
    let [v4, v6] = frames();
    for (text, drops_v4, drops_v6) in [
        ("198.51.100.7", true, false),
        ("198.51.100.8", false, false),
        ("198.51.0.0/16", true, false),
        ("0.0.0.0/0", true, false),
        ("2001:db8:1::7", false, true),
        ("2001:db8:1::/48", false, true),
        ("2001:db8:2::/48", false, false),
        ("::/0", false, true),
        ("tcp 198.51.100.7:40000 192.0.2.10:443", true, false),
        ("udp 198.51.100.7:40000 192.0.2.10:443", false, false),
        ("tcp 198.51.100.7:40001 192.0.2.10:443", false, false),
        ("udp [2001:db8:1::7]:40000 [2001:db8::10]:443", false, true),
    ] {
        thread.list().add(entry(text), MINUTE).unwrap();
        assert_eq!((is_dropped(&program, &v4), is_dropped(&program, &v6)), (drops_v4, drops_v6), "{text}");
        assert!(thread.list().remove(&entry(text)).unwrap());
        assert!(!is_dropped(&program, &v4) && !is_dropped(&program, &v6), "{text}");
    }
    assert_eq!(program.counters().unwrap().get(Cause::DroppedDenied), 8);
    // Whatever is denied, the machine can be found.
    thread.list().add(entry("::/0"), MINUTE).unwrap();
    assert!(!is_dropped(&program, &frame6(&ipv6(HOST6, ICMPV6, &icmp(135, 0, &[0; 16])))));
}

/// One entry inside another, taken out in this order; packets that are tagged, broken or neither.
#[test]
fn an_ipv4_source_is_denied_while_an_entry_of_any_length_holds_it() {
    lab_or_skip!();
    let (program, thread) = start(None);
    let thread = thread.unwrap();
    let list = |length: u32| entry(&format!("198.51.100.{}/{length}", 7 & u32::MAX << (32 - length)));
    let whole = ipv4(VIP4, TCP, &tcp(PORT, 0, b"x"));
    let mut broken = whole.clone();
    // A header length below 20 bytes.
    broken[0] = 0x44;
    let frames = [
        frame4(&whole),
        frame4(&broken),
        frame4(&whole[..20]),
        ethernet(&[(VLAN, 7)], 0x0800, &whole),
        ethernet(&[(SERVICE_VLAN, 7), (VLAN, 8)], 0x0800, &whole),
    ];
    let dropped = || frames.iter().filter(|frame| is_dropped(&program, frame)).count();
    let mut beside = whole.clone();
    beside[15] = 8;
    let lengths = [32, 24, 30, 29, 25, 32, 26, 27, 28];
    for pair in lengths.windows(2) {
        // The later one holds what the earlier one held, when that is gone.
        thread.list().add(list(pair[0]), MINUTE).unwrap();
        thread.list().add(list(pair[1]), MINUTE).unwrap();
        assert_eq!(dropped(), frames.len(), "{pair:?}");
        assert!(thread.list().remove(&list(pair[0])).unwrap());
        assert_eq!(dropped(), frames.len(), "{pair:?}");
        assert_eq!(is_dropped(&program, &frame4(&beside)), pair[1] < 29, "{pair:?}");
        assert!(thread.list().remove(&list(pair[1])).unwrap());
        assert_eq!(dropped(), 0, "{pair:?}");
    }
}

#[test]
fn as_many_addresses_as_there_can_be_are_denied_and_no_other() {
    lab_or_skip!();
    let (program, thread) = start(None);
    let thread = thread.unwrap();
    let address = |index: u32| std::net::Ipv4Addr::from_bits(index.wrapping_mul(0x9e37_79b1));
    let denied = |index: u32| entry(&address(index).to_string());
    for index in 0..xfwd_ebpf_types::deny::MAX_DENIED_HOSTS {
        thread.list().add(denied(index), MINUTE).unwrap();
    }
    assert!(thread.list().add(entry("198.51.100.7"), MINUTE).is_err());
    let mut packet = ipv4(VIP4, TCP, &tcp(PORT, 0, b"x"));
    for index in (0..2 * xfwd_ebpf_types::deny::MAX_DENIED_HOSTS).step_by(131) {
        packet[12..16].copy_from_slice(&address(index).octets());
        let expected = index < xfwd_ebpf_types::deny::MAX_DENIED_HOSTS;
        assert_eq!(is_dropped(&program, &frame4(&packet)), expected, "{index}");
    }
    assert_eq!(thread.list().counts().map_full, 1);
}

#[test]
fn what_a_stage_denies_is_in_the_kernel_within_milliseconds_and_ends_in_time() {
    lab_or_skip!();
    let (program, thread) = start(None);
    let thread = thread.unwrap();
    let [v4, _] = frames();
    // A stage has a clone, on a thread of its own.
    let list: DenyList = thread.list().clone();
    let mut took = Vec::new();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(list.deny("198.51.100.7".parse().unwrap(), MINUTE))).join()
        })
        .unwrap();
        took.push(until("denied", GENEROUS, || is_dropped(&program, &v4)));
        assert!(list.remove(&entry("198.51.100.7")).unwrap());
    }
    took.sort_unstable();
    println!("in the kernel after {:?} (median of 20), at most {:?}", took[10], took[19]);

    let (ttl, start) = (Duration::from_secs(1), Instant::now());
    assert!(list.deny("198.51.100.7".parse().unwrap(), ttl));
    until("denied", GENEROUS, || is_dropped(&program, &v4));
    until("over", ttl + Duration::from_secs(1), || !is_dropped(&program, &v4));
    assert!(start.elapsed() >= ttl, "{:?}", start.elapsed());
    assert_eq!(list.counts().expired, 1);
}

#[test]
fn a_queue_that_is_full_is_counted_and_nobody_waits() {
    lab_or_skip!();
    let (_program, thread) = start(None);
    let thread = thread.unwrap();
    let list = thread.list();
    let denied = (0..300_000_u32)
        .filter(|low| list.deny(std::net::Ipv4Addr::from_bits(0x0b00_0000 | low).into(), MINUTE));
    let taken = denied.count() as u64;
    assert_eq!(list.counts().queue_full, 300_000 - taken);
    until("all that was taken is denied or refused", Duration::from_secs(20), || {
        let counts = list.counts();
        counts.added + counts.map_full == taken
    });
    let counts = list.counts();
    assert_eq!((counts.entries, counts.failed), (counts.added, 0));
    println!("{taken} of 300,000 taken by the queue, {} refused by the full map", counts.map_full);
}

#[test]
fn a_file_is_followed() {
    lab_or_skip!();
    let folder = std::env::temp_dir().join(format!("xfwd-deny-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("deny.txt");
    let missing = start(Some(&path)).1.err().unwrap().to_string();
    assert!(missing.contains("cannot read") && missing.contains("deny.txt"), "{missing}");
    std::fs::write(&path, "10.0.0.1/8\n").unwrap();
    let wrong = start(Some(&path)).1.err().unwrap().to_string();
    assert!(wrong.contains("line 1") && wrong.contains("write `10.0.0.0/8`"), "{wrong}");

    std::fs::write(&path, "198.51.100.7\n").unwrap();
    let (program, thread) = start(Some(&path));
    let thread = thread.unwrap();
    let [v4, v6] = frames();
    assert!(is_dropped(&program, &v4) && !is_dropped(&program, &v6));
    // Written in place, and replaced by another.
    std::fs::write(&path, "2001:db8:1::/48 1h\n").unwrap();
    until("written", GENEROUS, || !is_dropped(&program, &v4) && is_dropped(&program, &v6));
    let other = folder.join("new.txt");
    std::fs::write(&other, "198.51.100.0/24\n").unwrap();
    std::fs::rename(&other, &path).unwrap();
    until("replaced", GENEROUS, || is_dropped(&program, &v4) && !is_dropped(&program, &v6));
    // A wrong one changes nothing.
    std::fs::write(&path, "198.51.100.0/240\n").unwrap();
    until("read", GENEROUS, || thread.list().counts().bad_files > 0);
    assert!(is_dropped(&program, &v4));
    std::fs::write(&path, "# nothing\n").unwrap();
    until("emptied", GENEROUS, || !is_dropped(&program, &v4));
    drop(thread);
    std::fs::remove_dir_all(&folder).unwrap();
}
