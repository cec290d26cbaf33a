//! Packets as bytes: the one-pass parser, header views, checksums, five-tuple and flow hash.
//!
//! In goes what a port received, out comes what a stage decides by. Nothing here allocates, does a system
//! call or knows where a packet came from.
//!
//! * [`parse()`] finds offsets, ports and protocol of a packet once: [`Headers`].
//! * [`Ethernet`], [`Ipv4`], [`Ipv6`], [`Tcp`], [`Udp`] and [`Icmp`] are views: one length check, then
//!   accessors and setters that cannot fail.
//! * [`checksum`] computes checksums and, for rewritten headers, updates them.
//! * [`FiveTuple`] and [`flow_hash_of`] say which flow a packet belongs to, [`Embedded`] which one an ICMP error
//!   is about.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod protocol;

mod embedded;
mod ethernet;
mod flow;
mod icmp;
mod ipv4;
mod ipv6;
mod mac;
mod parse;
mod tcp;
mod udp;

pub use embedded::Embedded;
pub use ethernet::Ethernet;
pub use flow::{FiveTuple, flow_hash_of};
pub(crate) use flow::{FlowWords, HashKey, address_words};
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use mac::{MacAddress, ParseMacError};
pub use parse::parse;
pub(crate) use parse::parse_into;
pub use tcp::Tcp;
pub use udp::Udp;
pub use xfwd_ebpf_types::{Fragment, Headers, MAX_IPV6_EXTENSIONS, MAX_VLAN_TAGS, Outcome};

#[cfg(test)]
pub(crate) use crate::testing::packets;

/// A view was asked for over fewer bytes than its header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{have} bytes are too short for {header}, which needs {need}")]
#[non_exhaustive]
pub struct Truncated {
    /// Name of the header, such as `an IPv4 header`.
    pub header: &'static str,
    /// Bytes the header needs.
    pub need: usize,
    /// Bytes that are there.
    pub have: usize,
}

/// The one length check of every view.
#[inline]
fn check_length(header: &'static str, bytes: &[u8], need: usize) -> Result<(), Truncated> {
    if bytes.len() < need {
        return Err(Truncated { header, need, have: bytes.len() });
    }
    Ok(())
}

/// The bytes of a field whose position the caller's length check covers.
///
/// # Panics
///
/// Panics when the field is not within `bytes`.
#[inline]
fn array<const N: usize>(bytes: &[u8], field: core::ops::Range<usize>) -> [u8; N] {
    let mut copy = [0; N];
    copy.copy_from_slice(&bytes[field]);
    copy
}

/// A two-byte field in network byte order; panics like [`array`].
#[inline]
fn be_u16(bytes: &[u8], field: core::ops::Range<usize>) -> u16 {
    u16::from_be_bytes(array(bytes, field))
}
