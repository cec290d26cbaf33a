//! What services have to do with each other: none may take what is another's, and a VIP is no backend.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::{Draft, Forward, endpoint};
use crate::config::addresses::{family, show};
use crate::config::nat::Nat;
use crate::config::reader::Reader;
use crate::stages::filter::Prefix;

pub(super) fn report(drafts: &[Draft], nat: Option<&Nat>, reader: &mut Reader<'_>) {
    overlaps(drafts, reader);
    let vips = Vips::of(drafts);
    backends_in_vips(drafts, &vips, reader);
    check_nat(drafts, nat, &vips, reader);
}

/// Services of the same prefix and protocol whose ports overlap. Of different prefixes the longest decides.
fn overlaps(drafts: &[Draft], reader: &mut Reader<'_>) {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let (Some(vip), Some(protocol), Some(ports)) = (draft.vip, draft.protocol, &draft.ports) {
            groups.entry((vip, protocol)).or_default().push((*ports.start(), *ports.end(), index));
        }
    }
    for ((vip, protocol), mut group) in groups {
        group.sort_unstable();
        // The one so far that reaches furthest.
        let mut furthest: Option<(u16, usize)> = None;
        for (start, end, index) in group {
            if let Some((last, other)) = furthest.filter(|(last, _)| *last >= start) {
                let (first, second) = (other.min(index), other.max(index));
                let line = reader.line(&drafts[first].place);
                let shared = start..=end.min(last);
                reader
                    .error(
                        drafts[second].place.clone(),
                        format!(
                            "services {} and {} both take {}",
                            drafts[first].title,
                            drafts[second].title,
                            endpoint(vip, protocol, &shared)
                        ),
                    )
                    .label(format!("the first is in line {line}"));
            }
            if furthest.is_none_or(|(last, _)| end > last) {
                furthest = Some((end, index));
            }
        }
    }
}

/// All VIPs, to be asked by address: one look-up for each prefix length in use.
struct Vips<'d> {
    services: HashMap<Prefix, &'d Draft>,
    /// Lengths in use, with whether they are of IPv4.
    lengths: BTreeSet<(bool, u8)>,
}

impl<'d> Vips<'d> {
    fn of(drafts: &'d [Draft]) -> Self {
        let mut vips = Self { services: HashMap::new(), lengths: BTreeSet::new() };
        for draft in drafts {
            let Some(vip) = draft.vip else { continue };
            vips.services.entry(vip).or_insert(draft);
            vips.lengths.insert((vip.ip_version() == 4, vip.length()));
        }
        vips
    }

    /// A service, and its VIP, that has `address`.
    fn with(&self, address: IpAddr) -> Option<(Prefix, &'d Draft)> {
        // The longest first.
        self.lengths.iter().rev().filter(|(is_ipv4, _)| *is_ipv4 == address.is_ipv4()).find_map(
            |(_, length)| {
                let prefix = Prefix::new(address, *length);
                self.services.get(&prefix).map(|draft| (prefix, *draft))
            },
        )
    }
}

fn backends_in_vips(drafts: &[Draft], vips: &Vips<'_>, reader: &mut Reader<'_>) {
    for draft in drafts {
        for backend in &draft.backends {
            let address = *backend.get_ref();
            let Some((vip, other)) = vips.with(address) else { continue };
            reader
                .error(backend.span(), format!("backend {address} of service {} is also a VIP", draft.title))
                .label(format!("service {} has {}", other.title, show(vip)))
                .help("give the server's own address: packets for a VIP come back to the balancer");
        }
    }
}

fn check_nat(drafts: &[Draft], nat: Option<&Nat>, vips: &Vips<'_>, reader: &mut Reader<'_>) {
    for draft in drafts {
        let Some(forward) = draft.forward.as_ref().filter(|forward| *forward.get_ref() == Forward::Nat)
        else {
            continue;
        };
        let Some(nat) = nat else {
            reader
                .error(forward.span(), format!("service {} needs `[nat]`", draft.title))
                .label("from which address shall its packets go to the backends?")
                .help("add `[nat]` with for example `addresses = [\"198.18.0.2\"]`");
            continue;
        };
        let Some(vip) = draft.vip.map(Prefix::address) else { continue };
        if !nat.addresses.is_empty()
            && nat.addresses.iter().all(|own| own.get_ref().is_ipv4() != vip.is_ipv4())
        {
            reader
                .error(
                    forward.span(),
                    format!("`[nat]` has no {} address for service {}", family(vip), draft.title),
                )
                .label("its packets need one to go to the backends from");
        }
    }
    let Some(nat) = nat else { return };
    let backends: HashMap<IpAddr, &Draft> = drafts
        .iter()
        .flat_map(|draft| draft.backends.iter().map(move |backend| (*backend.get_ref(), draft)))
        .collect();
    for address in &nat.addresses {
        let own = *address.get_ref();
        if let Some((vip, draft)) = vips.with(own) {
            reader
                .error(address.span(), format!("the address {own} of `[nat]` is also a VIP"))
                .label(format!("service {} has {}", draft.title, show(vip)))
                .help("replies of backends could not be told from packets of clients");
        }
        if let Some(draft) = backends.get(&own) {
            reader
                .error(address.span(), format!("the address {own} of `[nat]` is also a backend"))
                .label(format!("of service {}", draft.title));
        }
    }
}
