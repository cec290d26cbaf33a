//! Spreads packets over the queues of an interface, whichever core makes them.
//!
//! Frames that XDP redirects to a veth arrive at the other end on the queue with the number of the core. Packets of the host
//! stack arrive on the queue that they were sent on. So the generator gives its frames to the stack, as if `lo` had
//! received them, and this program, at the ingress of `lo`, chooses the queue and redirects them to the interface. It takes
//! only what begins with the MAC addresses of the template.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_redirect,
    macros::classifier,
    programs::TcContext,
};

use crate::{
    generate::{ADDRESS_AT, IFINDEX, PORT_AT, TEMPLATE},
    setting,
};

/// Number of queues.
#[unsafe(no_mangle)]
static QUEUES: u32 = 1;

#[classifier]
pub fn spread(ctx: TcContext) -> i32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + 12 > end {
        return TC_ACT_UNSPEC;
    }
    let template = (&raw const TEMPLATE).cast::<u32>();
    let mut index = 0;
    while index < 3 {
        // SAFETY: the first 12 bytes of the frame, by the check above, and of the static; both are aligned to four.
        let differ = unsafe { *((data + index * 4) as *const u32) != template.add(index).read_volatile() };
        if differ {
            return TC_ACT_UNSPEC;
        }
        index += 1;
    }
    let address = u16_at(data, end, setting!(ADDRESS_AT) as usize + 2);
    let port = u16_at(data, end, setting!(PORT_AT) as usize);
    let (Some(address), Some(port)) = (address, port) else {
        return TC_ACT_SHOT;
    };
    // Flows have addresses and ports in a row.
    let queue = (u32::from(address) + u32::from(port)).checked_rem(setting!(QUEUES)).unwrap_or(0);
    // 0 means none.
    // SAFETY: the context is the one this program was called with.
    unsafe { (*ctx.skb.skb).queue_mapping = queue + 1 };
    let interface = setting!(IFINDEX);
    // SAFETY: the helper takes any number and checks it.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// Two bytes of the frame in host order.
#[inline(always)]
fn u16_at(data: usize, end: usize, at: usize) -> Option<u16> {
    let place = data + at;
    if place + 2 > end {
        return None;
    }
    // SAFETY: inside the frame by the check above; fields of headers are at even offsets.
    Some(u16::from_be(unsafe { *(place as *const u16) }))
}
