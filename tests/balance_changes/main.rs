//! What changes while traffic flows, with real clients and servers: backends that come, go, die and come back, configs that are
//! reloaded, and the packets that are not everyday ones.
#![cfg(feature = "health")]
#![allow(missing_docs, clippy::unwrap_used)]

mod ask;
mod backends;
mod fragments;
mod health;
mod nobody;
mod paths;
mod prefixes;
mod refused;
mod scale;
mod site;
mod traffic;
mod twins;

#[path = "../support/xfwd.rs"]
mod running;
