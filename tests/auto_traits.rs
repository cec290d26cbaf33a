//! Which public types may be sent to or shared with other threads. A type that loses one of these loses users; this file then does not
//! compile.
#![allow(missing_docs)]

use xfwd::config::{ConfigError, InvalidSize, Plan, PoolTooSmall, Registry, StageFactory};
use xfwd::health::HealthError;
use xfwd::kernel::addresses::AddressError;
use xfwd::kernel::capabilities::MissingCapabilities;
use xfwd::kernel::deny::{DenyError, DenyList, ParseEntryError, StartDenyError};
use xfwd::kernel::features::Unsupported;
use xfwd::kernel::filter::PlanError;
use xfwd::kernel::link::LinkError;
use xfwd::kernel::next_hops::{NextHopError, Unresolved};
use xfwd::kernel::routes::RouteError;
use xfwd::kernel::xdp::{XdpError, XdpProgram};
use xfwd::packet::{
    Embedded, Ethernet, FiveTuple, Headers, Icmp, Ipv4, Ipv6, MacAddress, ParseMacError, Tcp, Truncated, Udp,
};
use xfwd::pipeline::{
    Batch, Counter, Decided, DropReason, EditError, NoRoom, Packet, Pipeline, Span, Stage, Undecided, Verdict,
};
use xfwd::port::memory::{MemoryFrame, MemoryPort};
use xfwd::port::xsk::{BindError, Opened, XskFrame, XskPort};
use xfwd::port::{FramePool, InFlight, PortCounters, PortError, Received};
use xfwd::runtime::{Event, NoSuchCore, ReloadError, RunError, Runner, Running, Snapshot, StartError};
use xfwd::stages::balance::ServiceError;
use xfwd::stages::balance::maglev::TableError;
use xfwd::stages::balance::nat::PoolError;
use xfwd::stages::balance::way::{EncapsulateError, MixedFamilies};
use xfwd::stages::filter::ParsePrefixError;
use xfwd::testing::{Faults, FaultyPort, Harness, Step};
use xfwd::worker::{
    Counters, FrameLeak, StageCounter, Worker, WorkerContext, WorkerCounters, WorkerEnd, WorkerSnapshot,
    WorkerThread,
};

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
    is_error::<ParseMacError>();
    is_error::<BindError>();
    is_error::<ConfigError>();
    is_error::<InvalidSize>();
    is_error::<PoolTooSmall>();
    is_error::<HealthError>();
    is_error::<AddressError>();
    is_error::<MissingCapabilities>();
    is_error::<DenyError>();
    is_error::<ParseEntryError>();
    is_error::<StartDenyError>();
    is_error::<Unsupported>();
    is_error::<PlanError>();
    is_error::<LinkError>();
    is_error::<NextHopError>();
    is_error::<Unresolved>();
    is_error::<RouteError>();
    is_error::<XdpError>();
    is_error::<StartError>();
    is_error::<RunError>();
    is_error::<ReloadError>();
    is_error::<NoSuchCore>();
    is_error::<ServiceError>();
    is_error::<TableError>();
    is_error::<PoolError>();
    is_error::<EncapsulateError>();
    is_error::<MixedFamilies>();
    is_error::<ParsePrefixError>();
}

/// What the system has said is below what a function of the library says, for whoever prints the whole chain.
#[test]
fn errors_lead_to_what_caused_them() {
    use std::error::Error;
    use std::io;

    let system = || io::Error::from_raw_os_error(12);
    let is_system = |error: &(dyn Error + 'static)| error.is::<io::Error>();
    let bind = BindError::Umem { bytes: 1 << 30, source: system() };
    assert!(bind.source().is_some_and(is_system));
    // Whose text is that of what is inside leads to where that one leads.
    assert!(StartError::Bind(bind).source().is_some_and(is_system));
    let end = || WorkerEnd::Thread { worker: 0, source: system() };
    assert!(end().source().is_some_and(is_system));
    assert!(RunError::Worker(end()).source().is_some_and(is_system));
    let interface = "eth0".to_owned();
    let port = PortError::System { interface, queue: 0, call: "poll", source: system() };
    let end = WorkerEnd::Port { worker: 0, source: port };
    assert!(end.source().is_some_and(|port| port.is::<PortError>() && port.source().is_some_and(is_system)));
}

#[test]
fn a_run_and_its_handles_are_shared_by_all_threads_of_an_embedder() {
    is_shared::<(Running, DenyList, Counters, WorkerContext)>();
    is_shared::<(Event, Snapshot, Plan, Registry, StageFactory)>();
    is_send::<(Runner, StageCounter, XdpProgram, Opened)>();
}

/// `spawn` of a runtime with several threads asks for it.
#[test]
fn waiting_for_an_event_moves_between_threads() {
    fn is_sent(_: impl Future + Send) {}
    let _ = |running: &'static Running| is_sent(running.next_event());
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
