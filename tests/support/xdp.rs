//! The smallest XDP programs (`return XDP_PASS`), attached in both ways that there are.
#![allow(dead_code, reason = "each user needs a part of it")]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// Where a program runs: `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`.
#[derive(Clone, Copy)]
pub enum Mode {
    Generic = 1 << 1,
    Native = 1 << 2,
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    program: i32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// `XDP_DROP`.
pub const DROP: u32 = 1;
/// `XDP_PASS`.
pub const PASS: u32 = 2;

/// Loads `return XDP_PASS` under the name `test_pass`.
pub fn load() -> OwnedFd {
    load_returning(PASS)
}

/// Loads a program that returns this action for every packet.
pub fn load_returning(action: u32) -> OwnedFd {
    // r0 = action; exit
    let instructions: [u64; 2] = [u64::from(action) << 32 | 0xb7, 0x95];
    let mut name = [0; 16];
    name[..9].copy_from_slice(b"test_pass");
    bpf(
        BPF_PROG_LOAD,
        &Load {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name,
        },
    )
    .expect("BPF_PROG_LOAD")
}

/// Attaches by a bpf_link, which ends when the answer is dropped.
pub fn attach_by_link(program: &OwnedFd, interface: u32, mode: Mode) -> OwnedFd {
    let link = Link { program: program.as_raw_fd(), interface, attach_type: BPF_XDP, flags: mode as u32 };
    bpf(BPF_LINK_CREATE, &link).expect("BPF_LINK_CREATE")
}

/// Attaches by netlink, as `ip link set dev IF xdp` does: stays until it is taken off or the interface goes.
pub fn attach_by_netlink(program: &OwnedFd, interface: u32, mode: Mode) {
    use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage, LinkXdp},
    };

    let mut link = LinkMessage::default();
    link.header.index = interface;
    link.attributes
        .push(LinkAttribute::Xdp(vec![LinkXdp::Fd(program.as_raw_fd()), LinkXdp::Flags(mode as u32)]));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    socket.send_to(&bytes, &netlink_sys::SocketAddr::new(0, 0), 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).unwrap();
    match answer.payload {
        NetlinkPayload::Error(error) => assert_eq!(error.code, None, "{}", error.to_io()),
        other => panic!("{other:?}"),
    }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: both commands only read their attributes, which are as long as said, and live through the call, as does
    // what they point at.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match i32::try_from(answer) {
        // SAFETY: a non-negative answer is a new descriptor that nobody else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
