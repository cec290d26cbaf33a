//! AF_XDP packet processing: a framework, and the functions that ship with it.

pub mod config;
pub mod health;
mod hints;
pub mod kernel;
#[cfg(feature = "offline")]
pub mod offline;
pub mod packet;
pub mod pipeline;
pub mod port;
pub mod runtime;
pub mod stages;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod words;
pub mod worker;

#[cfg(feature = "cli")]
pub mod cli;

pub use crate::config::{Dataplane, Plan, Registry, Steer};
pub use crate::kernel::deny::DenyList;
pub use crate::kernel::xdp::SteeredService;
pub use crate::packet::{Headers, MacAddress};
pub use crate::pipeline::{Batch, DropReason, Packet, Pipeline, PortIndex, Stage, Verdict};
pub use crate::port::xsk::Mode;
pub use crate::runtime::{Event, RunError, Runner, Running, Snapshot, StartError};
pub use crate::stages::filter::Rule;
pub use crate::worker::{Idle, StageCounter, WorkerContext};

/// What a program that has a stage of its own uses: `use xfwd::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Batch, DropReason, Idle, MacAddress, Mode, Packet, Runner, Running, Stage, StageCounter,
        SteeredService, Verdict, WorkerContext,
    };
}
