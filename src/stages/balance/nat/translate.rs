//! Translation of TCP and UDP packets (RFC 3022, with the port translation of its section 2.2).
//!
//! Checksums follow by what has changed (RFC 1624), so a packet that was damaged on its way stays recognizably so. A UDP
//! datagram without checksum (0) stays without.

use super::rewrite::{Ends, Transport, set_addresses, set_ports, takes_addresses};
use super::session::Session;
use crate::packet::{Fragment, Outcome};
use crate::pipeline::Packet;

/// The packet is not one that the session can translate: of another protocol or IP version, broken, or its transport
/// header is not in the packet's first buffer. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not one of this session")]
pub struct NotOfSession;

/// Makes a packet of the client one of the pool for the backend: addresses, ports and checksums. Of a later fragment only
/// addresses, as it has no more.
///
/// Ports in [`Packet::headers`] are those before, until [`Packet::reparse`]. Hop limit and Ethernet header are the
/// caller's.
///
/// # Errors
///
/// [`NotOfSession`] when protocol or IP version differ. That addresses and ports are the session's is not looked at.
#[inline]
pub fn translate_to_backend(packet: &mut Packet<'_>, session: &Session) -> Result<(), NotOfSession> {
    translate(packet, session.protocol, &Ends { source: session.nat, destination: session.backend })
}

/// Makes a reply of the backend one of the service for the client. Otherwise like [`translate_to_backend`].
///
/// # Errors
///
/// [`NotOfSession`] as there.
#[inline]
pub fn translate_reply(packet: &mut Packet<'_>, session: &Session) -> Result<(), NotOfSession> {
    translate(packet, session.protocol, &Ends { source: session.service, destination: session.client })
}

#[inline]
fn translate(packet: &mut Packet<'_>, protocol: u8, ends: &Ends) -> Result<(), NotOfSession> {
    let (headers, bytes) = packet.headers_and_bytes();
    if headers.outcome != Outcome::Ip as u8 || headers.protocol != protocol {
        return Err(NotOfSession);
    }
    let network = bytes.get_mut(usize::from(headers.network_offset)..).ok_or(NotOfSession)?;
    if !takes_addresses(network, headers.ip_version, ends) {
        return Err(NotOfSession);
    }
    let has_transport = headers.fragment != Fragment::Later as u8;
    let transport = headers.transport_offset.saturating_sub(headers.network_offset);
    if has_transport {
        let header = network.get(usize::from(transport)..).ok_or(NotOfSession)?;
        if transport == 0 || Transport::of(header, protocol) != Transport::Whole {
            return Err(NotOfSession);
        }
    }
    let change = set_addresses(network, ends);
    if has_transport {
        // Nothing further out has a checksum over this.
        let _ = set_ports(&mut network[usize::from(transport)..], protocol, ends, change.addresses);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
