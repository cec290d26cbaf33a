//! Health checks of backends, away from the data path, on two threads of their own.
//!
//! In goes a list of [`Target`]s, out come [`Change`]s: a backend is up, or down. Whoever starts [`Health`] decides what that means for
//! traffic. One thread runs all checks (tokio's scheduler on a single thread, so thousands wait at the same time); another one calls the
//! closure that is told of changes, so that a slow closure delays no check.
//!
//! * **First result.** A backend is [`Condition::Unknown`] until its first check has ended, and gets traffic until then. The first
//!   result decides at once; afterwards `rise` good checks in a row bring it up, `fall` failed ones take it down (`history.rs`).
//! * **Rhythm.** Checks are spread over the interval by the target's id, and keep a grid (`rhythm.rs`). The first check is
//!   made within two seconds, or an interval if that is shorter.
//! * **Connections.** Every check opens a connection of its own, since that is what is to be checked, and ends it with RST
//!   (`SO_LINGER` of zero): 5,000 checks a second would otherwise leave 300,000 sockets in TIME_WAIT here, and the backend's side
//!   closes without waiting too. A `tls` check first says
//!   goodbye, for up to 0.1 s. Servers may log an aborted connection all the same.
//! * **Addresses only.** No name is ever looked up.
//! * **Descriptors.** Checks that are under way at the same time are bounded by `RLIMIT_NOFILE`, whose soft limit is
//!   raised if there are many targets. Beyond that bound a check starts late; its timeout counts from its start.
//!
//! ```no_run
//! use xfwd::health::{Health, HealthCheck, HealthKind, Target};
//!
//! let check = HealthCheck { kind: HealthKind::Http, path: "/healthz".into(), ..HealthCheck::default() };
//! let backend = Target {
//!     id: 1,
//!     service: "web".into(),
//!     address: [198, 18, 20, 1].into(),
//!     port: 80,
//!     check,
//!     path: None,
//! };
//! let health = Health::start(vec![backend], |changes| {
//!     for change in changes {
//!         println!("{}: {} ({})", change.id, change.to, change.reason);
//!     }
//! })?;
//! # drop(health);
//! # Ok::<_, xfwd::health::HealthError>(())
//! ```
//!
//! Without the cargo feature `health` the types are the same, and [`Health::start`] refuses any target.
#![forbid(unsafe_code)]

mod check;

#[cfg(feature = "health")]
mod history;
#[cfg(feature = "health")]
mod probe;
#[cfg(feature = "health")]
mod rhythm;
#[cfg(feature = "health")]
mod running;

#[cfg(not(feature = "health"))]
mod off;

pub use check::{
    Change, Condition, Delivery, HealthCheck, HealthError, HealthKind, ServicePath, Status, Target, Through,
};
#[cfg(not(feature = "health"))]
pub use off::Health;
#[cfg(feature = "health")]
pub use running::Health;
