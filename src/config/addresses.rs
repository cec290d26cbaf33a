//! Which addresses a key may hold.

use std::net::IpAddr;

use toml::Spanned;

use super::reader::Reader;
use crate::stages::filter::Prefix;

/// `IPv4` or `IPv6`.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The address, if one host can have it and others can reach it there.
pub(super) fn unicast(
    reader: &mut Reader<'_>,
    key: &str,
    address: Spanned<IpAddr>,
) -> Option<Spanned<IpAddr>> {
    let kind = match *address.get_ref() {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        _ => return Some(address),
    };
    reader.error(address.span(), format!("`{key}` is {kind}")).label("expected a unicast address");
    None
}

/// Prefixes whose addresses no client can send to, and how they are called.
const SPECIAL: [(&str, &str); 7] = [
    ("0.0.0.0/32", "the unspecified address"),
    ("127.0.0.0/8", "loopback addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("255.255.255.255/32", "the broadcast address"),
    ("::/128", "the unspecified address"),
    ("::1/128", "loopback addresses"),
    ("ff00::/8", "multicast addresses"),
];

/// The prefix, if hosts can have all its addresses.
pub(super) fn unicast_prefix(
    reader: &mut Reader<'_>,
    key: &str,
    prefix: Spanned<Prefix>,
) -> Option<Spanned<Prefix>> {
    if is_address(*prefix.get_ref()) {
        let address = Spanned::new(prefix.span(), prefix.get_ref().address());
        return unicast(reader, key, address).map(|_| prefix);
    }
    let meets = |text: &str| {
        let special: Prefix = text.parse().unwrap_or(*prefix.get_ref());
        special.covers(*prefix.get_ref()) || prefix.get_ref().covers(special)
    };
    let Some((_, kind)) = SPECIAL.into_iter().find(|(text, _)| meets(text)) else { return Some(prefix) };
    reader.error(prefix.span(), format!("`{key}` holds {kind}")).label("expected unicast addresses");
    None
}

/// Whether it is one address.
pub(crate) fn is_address(prefix: Prefix) -> bool {
    prefix.length() == if prefix.ip_version() == 4 { 32 } else { 128 }
}

/// The prefix as one writes it: without length when it is one address.
pub(crate) fn show(prefix: Prefix) -> String {
    if is_address(prefix) { prefix.address().to_string() } else { prefix.to_string() }
}
