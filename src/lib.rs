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
#[doc(hidden)]
pub mod cli;
