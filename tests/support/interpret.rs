//! The XDP program's filter in plain Rust: looks a packet up in a plan as the program does in the maps.

use xfwd::kernel::filter::{KernelPlan, Prefixes};
use xfwd::packet::Headers;
use xfwd::stages::filter::Facts;
use xfwd_ebpf_types::filter::{
    BOUND_WORDS, Class, EndpointKey, Entry, FlowKey, Has, PacketFacts, RANGE_BOUNDS, Verdict, WordKind,
};

use super::reference::{Judgement, is_exempt};

pub fn judge(plan: &KernelPlan, headers: &Headers, facts: &Facts) -> Judgement {
    let mut judgement = Judgement::default();
    if is_exempt(headers) || !plan.is_active() {
        return judgement;
    }
    let verdict = verdict(plan, headers, facts, &mut judgement.acted);
    if verdict != Verdict::NONE {
        judgement.acted.push(verdict.rule() as usize);
        judgement.dropped = verdict.is_drop();
    }
    judgement
}

fn verdict(plan: &KernelPlan, headers: &Headers, facts: &Facts, counted: &mut Vec<usize>) -> Verdict {
    let settings = &plan.settings;
    let src = address(plan, settings.src_v4, &plan.src_v6, facts.ip_version, facts.src);
    let dst = address(plan, settings.dst_v4, &plan.dst_v6, facts.ip_version, facts.dst);
    let mut found = src.verdict.min(dst.verdict);
    let mut packet = PacketFacts::of(headers);
    if settings.protocols != 0 && packet.has & Has::PROTOCOL != 0 {
        found = found.min(word(plan, settings.protocols, packet.protocol));
    }
    if packet.has & Has::PORTS != 0 {
        let ports = match headers.protocol {
            6 => settings.tcp_ports,
            17 => settings.udp_ports,
            _ => settings.sctp_ports,
        };
        if ports != 0 {
            found = found.min(word(plan, ports, packet.dst_port));
        }
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
        let keyed = [plan.endpoints.get(&endpoint), plan.flows.get(&flow)];
        found = keyed.into_iter().flatten().fold(found, |found, verdict| found.min(verdict.0));
    }
    packet.src = words(facts.src);
    packet.dst = words(facts.dst);
    packet.src_sets = src.sets;
    packet.dst_sets = dst.sets;
    let mut index = 0;
    while let Some(entry) = plan.entries.get(index)
        && Verdict(entry.verdict).rule() < Verdict(found).rule()
    {
        index += 1;
        if entry.holds(&packet) {
            match entry.effect {
                Entry::DECIDE => return Verdict(entry.verdict),
                Entry::COUNT => counted.push(Verdict(entry.verdict).rule() as usize),
                _ => {}
            }
            assert!(entry.next as usize >= index, "the table never goes back");
            index = entry.next as usize;
        }
    }
    Verdict(found)
}

fn address(plan: &KernelPlan, root: u32, v6: &Prefixes, ip_version: u8, address: [u8; 16]) -> Class {
    let found = match ip_version {
        4 if root != 0 => by_ipv4(plan, root, u32::from_be_bytes(*address.last_chunk().unwrap())),
        6 => {
            let address = u128::from_be_bytes(address);
            let covers = |(prefix, length, _): &&([u8; 16], u8, u32)| {
                (u128::from_be_bytes(*prefix) ^ address).leading_zeros() >= u32::from(*length)
            };
            let longest = v6.iter().filter(covers).max_by_key(|(_, length, _)| *length);
            longest.map_or(Verdict::NONE.0, |(_, _, word)| *word)
        }
        _ => Verdict::NONE.0,
    };
    if found & WordKind::KIND == WordKind::CLASS {
        plan.classes[(found & WordKind::NUMBER) as usize]
    } else {
        assert_eq!(found & WordKind::KIND, WordKind::VERDICT);
        Class { verdict: found, sets: 0 }
    }
}

fn by_ipv4(plan: &KernelPlan, root: u32, address: u32) -> u32 {
    let mut found = word(plan, root, address >> 16);
    for index in [address >> 8 & 0xff, address & 0xff] {
        if found & WordKind::KIND == WordKind::DENSE {
            found = word(plan, found & WordKind::NUMBER, index);
        }
    }
    if found & WordKind::KIND == WordKind::RANGES {
        let line = &plan.lines[(found & WordKind::NUMBER) as usize];
        let bounds = line.words[..BOUND_WORDS].iter().flat_map(|pair| [pair & 0xffff, pair >> 16]);
        let place = bounds.filter(|bound| address & 0xffff >= *bound).count();
        assert!(place <= RANGE_BOUNDS);
        return line.words[BOUND_WORDS + place];
    }
    found
}

fn word(plan: &KernelPlan, first: u32, index: u32) -> u32 {
    plan.lines[(first + index / 16) as usize].words[(index % 16) as usize]
}

fn words(address: [u8; 16]) -> [u64; 2] {
    let halves = address.as_chunks::<8>().0;
    [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])]
}
