//! The mark of this process on the room that its XDP programs make in front of packets.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use xfwd_ebpf_types::RoomMark;

/// The mark that all XDP programs of this process write, and its ports look for
/// ([`XskPort::set_room_mark`](crate::port::xsk::XskPort::set_room_mark)). Another one in every process.
pub fn room_mark() -> RoomMark {
    static MARK: OnceLock<RoomMark> = OnceLock::new();
    // A hash under a key that std takes from the system's random numbers.
    *MARK.get_or_init(|| RoomMark::new(RandomState::new().hash_one("room mark")))
}
