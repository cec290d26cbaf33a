//! The XDP program and its maps.
