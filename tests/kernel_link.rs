//! Interfaces in namespaces of their own: what is found, what is refused and in which words, what is told of changes.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/netns.rs"]
mod netns;
#[path = "support/xdp.rs"]
mod xdp;

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use netns::{Namespace, veth_pair};
use xdp::Mode;
use xfwd::kernel::link::{AttachedMode, Link, LinkChange, LinkError, LinkEvent, LinkWatcher};
use xfwd_netns::lab_or_skip;

const FOUR_QUEUES: &str = "numrxqueues 4 numtxqueues 4";

/// Longer than any event takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn find(namespace: &Namespace, name: &str) -> Link {
    namespace.enter(|| Link::find(name)).unwrap()
}

#[test]
fn interface_is_found_with_its_queues_driver_and_state() {
    lab_or_skip!();
    let (here, _there) = veth_pair(FOUR_QUEUES);
    here.ip("link set va address 02:00:00:00:00:0a mtu 1400");
    let link = find(&here, "va");
    assert_eq!(link.driver.as_deref(), Some("veth"));
    assert_eq!((link.mtu, link.mac), (1400, [2, 0, 0, 0, 0, 0xa]));
    assert_eq!((link.rx_queues, link.max_queues), (4, Some(4)));
    assert!(link.up && link.carrier);
    assert_eq!(link.xdp, None);
    link.check_no_xdp().unwrap();

    here.ip("link set va down");
    let link = find(&here, "va");
    assert!(!link.up && !link.carrier);
    let names: Vec<_> = here.enter(Link::list).unwrap().into_iter().map(|link| link.name).collect();
    assert!(names.contains(&"lo".to_owned()) && names.contains(&"va".to_owned()), "{names:?}");
}

#[test]
fn alternative_names_find_the_interface_too() {
    lab_or_skip!();
    let namespace = Namespace::new();
    namespace.ip("link add eno1 type bridge");
    namespace.ip("link property add dev eno1 altname enp3s0f0");
    namespace.ip("link property add dev eno1 altname enx0123456789abcdef");
    assert_eq!(find(&namespace, "enp3s0f0").name, "eno1");
    assert_eq!(find(&namespace, "enx0123456789abcdef").name, "eno1");
}

#[test]
fn missing_interface_lists_the_nearest_names_first() {
    lab_or_skip!();
    let namespace = Namespace::new();
    for name in ["wan0", "ens1f0", "ens1f1"] {
        namespace.ip(&format!("link add {name} type bridge"));
    }
    assert_eq!(
        namespace.enter(|| Link::find("ens1f2")).unwrap_err().to_string(),
        "there is no interface `ens1f2` in this network namespace; did you mean `ens1f0`? It has: ens1f0, ens1f1, lo, \
         wan0"
    );
}

#[test]
fn queues_are_compared_with_what_veth_receives_on() {
    lab_or_skip!();
    let (here, _there) = veth_pair(FOUR_QUEUES);
    assert_eq!(find(&here, "va").check_queues(4).unwrap(), None);
    assert_eq!(
        find(&here, "va").check_queues(2).unwrap().unwrap().to_string(),
        "`va` receives on 4 queues, and 2 were asked for: packets that arrive on queues 2..3 go past xfwd to the host \
         stack. Ask for all 4 queues, or bring all packets onto queues 0..1 with\n\
         \n    ethtool -L va rx 2\n"
    );
    assert_eq!(
        find(&here, "va").check_queues(5).unwrap_err().to_string(),
        "`va` receives on 4 queues, and 5 were asked for. It cannot have more: ask for 4."
    );

    // The commands do what the messages say of them.
    ethtool(&here, "-L va rx 2");
    assert_eq!(find(&here, "va").check_queues(2).unwrap(), None);
    assert_eq!(
        find(&here, "va").check_queues(4).unwrap_err().to_string(),
        "`va` receives on 2 queues, and 4 were asked for. Give it 4 with\n\
         \n    ethtool -L va rx 4\n\
         \nor ask for 2."
    );
    ethtool(&here, "-L va rx 4");
    assert_eq!(find(&here, "va").check_queues(4).unwrap(), None);
}

#[test]
fn interface_without_channels_counts_its_netlink_queues() {
    lab_or_skip!();
    let namespace = Namespace::new();
    namespace.ip("link add d0 numrxqueues 3 type bridge");
    let link = find(&namespace, "d0");
    assert_eq!((link.rx_queues, link.max_queues, link.channels), (3, None, None));
}

#[test]
fn attached_program_is_named_with_the_command_that_removes_it() {
    lab_or_skip!();
    let (here, _there) = veth_pair("");
    let index = find(&here, "va").index;
    let program = xdp::load();
    for (attach, mode, off) in
        [(Mode::Native, AttachedMode::Native, "xdp"), (Mode::Generic, AttachedMode::Generic, "xdpgeneric")]
    {
        here.enter(|| xdp::attach_by_netlink(&program, index, attach));
        let link = find(&here, "va");
        let attached = link.xdp.clone().unwrap();
        assert_eq!((attached.name.as_deref(), attached.mode), (Some("test_pass"), mode));
        assert_eq!(attached.held_by_link, Some(false));
        assert_eq!(
            link.check_no_xdp().unwrap_err().to_string(),
            format!(
                "`va` already has an XDP program: test_pass (id {}, {mode} mode). Remove it with\n\
                 \n    ip link set dev va {off} off\n",
                attached.id
            )
        );
        // The command does what the message says of it.
        here.ip(&format!("link set dev va {off} off"));
        assert_eq!(find(&here, "va").xdp, None);
    }
}

#[test]
fn program_held_by_a_link_goes_with_its_owner() {
    lab_or_skip!();
    let (here, _there) = veth_pair("");
    let index = find(&here, "va").index;
    let program = xdp::load();
    let owner = here.enter(|| xdp::attach_by_link(&program, index, Mode::Native));
    let link = find(&here, "va");
    assert_eq!(link.xdp.as_ref().unwrap().held_by_link, Some(true));
    let refused = link.check_no_xdp().unwrap_err();
    assert!(matches!(refused, LinkError::XdpAttached { .. }));
    assert!(refused.to_string().contains("it goes when the process that owns the link ends"), "{refused}");
    drop(owner);
    assert_eq!(find(&here, "va").xdp, None);
}

#[test]
fn carrier_loss_rename_and_removal_are_told_in_order() {
    lab_or_skip!();
    let (here, there) = veth_pair("");
    let index = find(&here, "va").index;
    let (sender, events) = mpsc::channel();
    let watcher =
        here.enter(|| LinkWatcher::start(&[index], move |event| sender.send(event).unwrap()).unwrap());
    let next = || {
        let LinkEvent { index: of, change, .. } = events.recv_timeout(PATIENCE).unwrap();
        assert_eq!(of, index);
        change
    };

    there.ip("link set vb down");
    assert_eq!(next(), LinkChange::Carrier(false));
    there.ip("link set vb up");
    assert_eq!(next(), LinkChange::Carrier(true));
    here.ip("link set va down");
    assert_eq!((next(), next()), (LinkChange::Down, LinkChange::Carrier(false)));
    here.ip("link set va name lan0");
    assert_eq!(next(), LinkChange::Renamed { from: "va".to_owned(), to: "lan0".to_owned() });
    // A port that leaves its bridge is not gone.
    here.ip("link add br0 type bridge");
    here.ip("link set lan0 master br0");
    here.ip("link set lan0 nomaster");
    assert!(here.enter(|| Link::exists(index)).unwrap());
    here.ip("link del lan0");
    assert_eq!(next(), LinkChange::Removed);
    assert!(!here.enter(|| Link::exists(index)).unwrap());

    let start = Instant::now();
    drop(watcher);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    // The closure, and with it the sender, is gone: nothing more was told.
    assert_eq!(events.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn removal_lost_in_a_flood_is_told_after_all() {
    lab_or_skip!();
    let (here, there) = veth_pair("");
    let index = find(&here, "va").index;
    let (sender, events) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let _watcher = here.enter(|| {
        LinkWatcher::start(&[index], move |event| {
            sender.send(event.change).unwrap();
            // Until `release` is dropped.
            let _ = held.recv();
        })
        .unwrap()
    });
    there.ip("link set vb down");
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), LinkChange::Carrier(false));

    // While the closure is held, more notifications than the socket's buffer has room for.
    here.ip_batch((0..2000).map(|count| format!("link set va mtu {}", 1000 + count % 2)));
    here.ip("link del va");
    let sockets = here.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap());
    let drops =
        sockets.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u32>().ok());
    assert!(drops.sum::<u32>() > 0, "nothing was lost, so nothing is tested:\n{sockets}");
    drop(release);
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), LinkChange::Removed);
}

#[test]
fn interface_moved_to_another_namespace_is_removed() {
    lab_or_skip!();
    let (here, there) = veth_pair("");
    let index = find(&here, "va").index;
    let (sender, events) = mpsc::channel();
    let _watcher =
        here.enter(|| LinkWatcher::start(&[index], move |event| sender.send(event.change).unwrap()).unwrap());
    here.ip(&format!("link set va netns {}", there.name()));
    let told: Vec<_> = std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok())
        .take_while(|change| *change != LinkChange::Removed)
        .collect();
    assert!(told.len() < 3, "{told:?}");
    assert!(!here.enter(|| Link::exists(index)).unwrap());
}

#[test]
fn watching_an_interface_that_is_not_there_is_refused() {
    lab_or_skip!();
    let namespace = Namespace::new();
    let refused = namespace.enter(|| LinkWatcher::start(&[4242], |_| {}).err()).unwrap();
    assert_eq!(
        refused.to_string(),
        "there is no interface with index 4242 in this network namespace: it was removed or moved away"
    );
}

fn ethtool(namespace: &Namespace, words: &str) {
    let status =
        namespace.enter(|| std::process::Command::new("ethtool").args(words.split(' ')).status().unwrap());
    assert!(status.success(), "ethtool {words}");
}
