//! Translation of ICMP errors about translated packets (RFC 5508, section 4, for IPv4; the same for IPv6).
//!
//! An error quotes the packet it is about, as its sender saw it. Who gets the error knows the packet as it was before
//! translation, so the quote is translated back: addresses, ports, the quoted IPv4 header checksum and, if the quote
//! is long enough, the quoted transport checksum, so that a receiver that verifies them finds them right.
//!
//! | error from | comes to | quotes | becomes | quoting |
//! |---|---|---|---|---|
//! | the backend's side | the pool | pool → backend | service → client | client → service |
//! | the client's side | the service | service → client | its sender → backend | backend → pool |
//!
//! Who sent it may be the host itself or any router on the way. The first is sent on from the service's address: clients
//! see nothing of what is behind it, and a client's firewall knows the address. The second keeps its source: a
//! traceroute from the backend shows the real way.
//!
//! Errors neither prolong nor end a session, since anybody can send one.

use super::rewrite::{Ends, set_addresses, set_ports, takes_addresses};
use super::session::{Endpoint, Session};
use super::translate::NotOfSession;
use crate::packet::protocol::ICMPV6;
use crate::packet::{Embedded, FiveTuple, Headers, Icmp};
use crate::pipeline::Packet;

/// Makes an error about a packet to the backend one of the service for the client.
///
/// # Errors
///
/// [`NotOfSession`] when this is no error that quotes the session's protocol with its ports. It is as it was then.
pub fn translate_error_reply(packet: &mut Packet<'_>, session: &Session) -> Result<(), NotOfSession> {
    let quoted = Ends { source: session.client, destination: session.service };
    translate(packet, session, Some(session.service), session.client, &quoted)
}

/// Makes an error about a reply to the client one for the backend; its source stays.
///
/// # Errors
///
/// [`NotOfSession`] as for [`translate_error_reply`].
pub fn translate_error_to_backend(packet: &mut Packet<'_>, session: &Session) -> Result<(), NotOfSession> {
    let quoted = Ends { source: session.backend, destination: session.nat };
    translate(packet, session, None, session.backend, &quoted)
}

fn translate(
    packet: &mut Packet<'_>,
    session: &Session,
    source: Option<Endpoint>,
    destination: Endpoint,
    quoted: &Ends,
) -> Result<(), NotOfSession> {
    let (headers, bytes) = packet.headers_and_bytes();
    let found = Embedded::of(bytes, headers).ok_or(NotOfSession)?;
    if found.tuple.protocol != session.protocol || found.transport_offset == 0 {
        return Err(NotOfSession);
    }
    // An address of the packet stays by being replaced by itself.
    let source = source.unwrap_or(Endpoint { address: source_address(bytes, headers)?, port: 0 });
    let ends = Ends { source, destination };
    let network = usize::from(headers.network_offset);
    let (version, icmp) = (headers.ip_version, usize::from(headers.transport_offset));
    let quote = usize::from(found.network_offset)..usize::from(found.end);
    let fits = takes_addresses(bytes.get(network..).ok_or(NotOfSession)?, version, &ends)
        && takes_addresses(bytes.get(quote.clone()).ok_or(NotOfSession)?, version, quoted);
    if !fits || Icmp::new_checked(bytes.get(icmp..).ok_or(NotOfSession)?).is_err() {
        return Err(NotOfSession);
    }

    let inner = set_addresses(&mut bytes[quote.clone()], quoted);
    let transport = usize::from(found.transport_offset)..quote.end;
    let ports = set_ports(&mut bytes[transport], session.protocol, quoted, inner.addresses);
    let outer = set_addresses(&mut bytes[network..], &ends);
    let mut change = inner.header.and(ports);
    if headers.protocol == ICMPV6 {
        change = change.and(outer.addresses);
    }
    if let Ok(mut message) = Icmp::new_checked(&mut bytes[icmp..]) {
        message.set_checksum(change.apply(message.checksum()));
    }
    Ok(())
}

fn source_address(bytes: &[u8], headers: &Headers) -> Result<[u8; 16], NotOfSession> {
    FiveTuple::of(bytes, headers).map(|tuple| tuple.src).ok_or(NotOfSession)
}

#[cfg(test)]
mod tests;
