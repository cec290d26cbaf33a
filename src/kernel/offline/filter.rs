//! The filter's maps, looked up as the program does ([`xfwd_ebpf_types::filter`] says what they hold).

use xfwd_ebpf_types::filter::{
    Class, EndpointKey, Entry, FilterSettings, FlowKey, Has, PacketFacts, Verdict, WordKind,
};

use super::lpm::Lpm;
use crate::kernel::filter::{KernelPlan, Prefixes};
use crate::packet::Headers;
use crate::packet::protocol::{TCP, UDP};
use crate::stages::filter::Facts;

/// Words of a line.
const LINE_WORDS: u32 = xfwd_ebpf_types::filter::LINE_WORDS as u32;

/// What a plan puts into the maps.
pub(super) struct Tables {
    plan: KernelPlan,
    src_v6: Lpm<u32>,
    dst_v6: Lpm<u32>,
}

impl Tables {
    pub fn new(plan: &KernelPlan) -> Self {
        Self { src_v6: tries(&plan.src_v6), dst_v6: tries(&plan.dst_v6), plan: plan.clone() }
    }

    pub fn is_active(&self) -> bool {
        self.plan.is_active()
    }

    fn settings(&self) -> &FilterSettings {
        &self.plan.settings
    }

    /// The rule that drops a packet for its IPv4 source address alone, before it is parsed.
    pub fn drops_by_source(&self, linear: &[u8]) -> Option<u32> {
        let root = self.settings().src_v4;
        if root == 0 {
            return None;
        }
        let header = linear.get(14..34)?;
        if linear[12..14] != [0x08, 0x00] || header[0] >> 4 != 4 {
            return None;
        }
        let source = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
        let found = self.by_ipv4(root, source);
        let verdict = Verdict(found);
        let is_final = found & WordKind::KIND == WordKind::VERDICT
            && verdict.is_drop()
            && verdict.rule() < self.settings().src_rules;
        is_final.then_some(verdict.rule())
    }

    /// The rule that decides. Rules that count are added to `counted`.
    pub fn judge(&self, headers: &Headers, facts: &Facts, counted: &mut Vec<u32>) -> Verdict {
        if !self.is_active() {
            return Verdict::NONE;
        }
        let settings = self.settings();
        let src = self.address(settings.src_v4, &self.src_v6, facts.ip_version, facts.src);
        let dst = self.address(settings.dst_v4, &self.dst_v6, facts.ip_version, facts.dst);
        let mut found = src.verdict.min(dst.verdict);
        let mut packet = PacketFacts::of(headers);
        if settings.protocols != 0 && packet.has & Has::PROTOCOL != 0 {
            found = found.min(self.word(settings.protocols, packet.protocol));
        }
        if packet.has & Has::PORTS != 0 {
            let ports = match headers.protocol {
                TCP => settings.tcp_ports,
                UDP => settings.udp_ports,
                _ => settings.sctp_ports,
            };
            if ports != 0 {
                found = found.min(self.word(ports, packet.dst_port));
            }
            found = found.min(self.by_key(headers, facts));
        }
        if settings.entries == 0 {
            return Verdict(found);
        }
        (packet.src, packet.dst) = (words(facts.src), words(facts.dst));
        (packet.src_sets, packet.dst_sets) = (src.sets, dst.sets);
        self.by_table(&packet, Verdict(found), counted)
    }

    fn by_key(&self, headers: &Headers, facts: &Facts) -> u32 {
        let (src_port, dst_port) = (headers.src_port.to_be_bytes(), headers.dst_port.to_be_bytes());
        let (protocol, ip_version) = (headers.protocol, headers.ip_version);
        let endpoint = EndpointKey { address: facts.dst, port: dst_port, protocol, ip_version };
        let flow = FlowKey {
            src: facts.src,
            dst: facts.dst,
            src_port,
            dst_port,
            protocol,
            ip_version,
            zero: [0; 2],
        };
        let keyed = [self.plan.endpoints.get(&endpoint), self.plan.flows.get(&flow)];
        keyed.into_iter().flatten().map(|verdict| verdict.0).min().unwrap_or(Verdict::NONE.0)
    }

    /// The entries that stand before the rule found so far.
    fn by_table(&self, packet: &PacketFacts, found: Verdict, counted: &mut Vec<u32>) -> Verdict {
        let mut index = 0;
        while let Some(entry) = self.plan.entries.get(index) {
            let verdict = Verdict(entry.verdict);
            if verdict.rule() >= found.rule() {
                break;
            }
            index += 1;
            if entry.holds(packet) {
                match entry.effect {
                    Entry::DECIDE => return verdict,
                    Entry::COUNT => counted.push(verdict.rule()),
                    _ => {}
                }
                // The table never goes back, so this ends.
                index = index.max(entry.next as usize);
            }
        }
        found
    }

    fn address(&self, root: u32, v6: &Lpm<u32>, ip_version: u8, address: [u8; 16]) -> Class {
        let address = u128::from_be_bytes(address);
        let found = match ip_version {
            4 if root != 0 => self.by_ipv4(root, address as u32),
            6 => v6.get(address).copied().unwrap_or(Verdict::NONE.0),
            _ => Verdict::NONE.0,
        };
        match found & WordKind::KIND {
            WordKind::CLASS => {
                let class = self.plan.classes.get((found & WordKind::NUMBER) as usize);
                class.copied().unwrap_or(Class::NONE)
            }
            _ => Class { verdict: found, sets: 0 },
        }
    }

    fn by_ipv4(&self, root: u32, address: u32) -> u32 {
        let mut found = self.word(root, address >> 16);
        for index in [address >> 8 & 0xff, address & 0xff] {
            if found & WordKind::KIND == WordKind::DENSE {
                found = self.word(found & WordKind::NUMBER, index);
            }
        }
        if found & WordKind::KIND == WordKind::RANGES {
            let line = self.plan.lines.get((found & WordKind::NUMBER) as usize);
            return line.map_or(Verdict::NONE.0, |line| line.range_of(address & 0xffff));
        }
        found
    }

    /// Word number `index` of the lines from `first` on.
    fn word(&self, first: u32, index: u32) -> u32 {
        let line = self.plan.lines.get((first + index / LINE_WORDS) as usize);
        line.map_or(Verdict::NONE.0, |line| line.words[(index % LINE_WORDS) as usize])
    }
}

fn tries(prefixes: &Prefixes) -> Lpm<u32> {
    Lpm::new(prefixes.iter().map(|(address, length, word)| (u128::from_be_bytes(*address), *length, *word)))
}

fn words(address: [u8; 16]) -> [u64; 2] {
    let (halves, _) = address.as_chunks::<8>();
    [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])]
}
