//! The load balancer stage.

pub mod maglev;
