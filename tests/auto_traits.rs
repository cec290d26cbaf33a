//! Which public types may be sent to or shared with other threads. A type that loses one of these loses users; this file then does not
//! compile.
#![allow(missing_docs)]

use xfwd::packet::{
    Embedded, Ethernet, FiveTuple, Headers, Icmp, Ipv4, Ipv6, MacAddress, Tcp, Truncated, Udp,
};
use xfwd::pipeline::{
    Batch, Counter, Decided, DropReason, EditError, NoRoom, Packet, Pipeline, Span, Stage, Undecided, Verdict,
};
use xfwd::port::memory::{MemoryFrame, MemoryPort};
use xfwd::port::xsk::{XskFrame, XskPort};
use xfwd::port::{FramePool, InFlight, PortCounters, PortError, Received};
use xfwd::testing::{Faults, FaultyPort, Harness, Step};
use xfwd::worker::{FrameLeak, Worker, WorkerCounters, WorkerEnd, WorkerSnapshot, WorkerThread};

fn is_send<T: Send>() {}
fn is_shared<T: Send + Sync>() {}
fn is_error<T: std::error::Error + Send + Sync + 'static>() {}

#[test]
fn plain_values_are_sent_and_shared() {
    is_shared::<(Headers, FiveTuple, Embedded, MacAddress)>();
    is_shared::<(Verdict, DropReason, Span, Undecided, Decided)>();
    is_shared::<(Ethernet<&[u8]>, Ipv4<&[u8]>, Ipv6<&[u8]>, Tcp<&[u8]>, Udp<&[u8]>, Icmp<&[u8]>)>();
    is_shared::<(InFlight, PortCounters, WorkerSnapshot, Step)>();
}

#[test]
fn counters_are_read_by_other_threads() {
    is_shared::<Counter>();
    is_shared::<WorkerCounters>();
}

#[test]
fn errors_can_be_boxed_and_sent() {
    is_error::<Truncated>();
    is_error::<NoRoom>();
    is_error::<EditError>();
    is_error::<PortError>();
    is_error::<FrameLeak>();
    is_error::<WorkerEnd>();
}

#[test]
fn a_worker_and_all_that_is_its_own_moves_to_its_thread() {
    is_send::<Box<dyn Stage>>();
    is_send::<Pipeline>();
    is_send::<(XskPort, MemoryPort, FaultyPort<MemoryPort>, Faults)>();
    is_send::<(FramePool<XskFrame>, FramePool<MemoryFrame>)>();
    is_send::<(Received<XskFrame>, Received<MemoryFrame>)>();
    is_send::<(Worker<XskPort, Pipeline>, Worker<MemoryPort, Pipeline>, Harness<Pipeline>)>();
    is_shared::<WorkerThread>();
}

#[test]
fn a_batch_is_no_more_bound_to_a_thread_than_its_bytes() {
    is_shared::<Packet<'_>>();
    is_shared::<Batch<'_>>();
}
