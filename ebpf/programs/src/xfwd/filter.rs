//! The deny list and the filter: which packets are dropped, and by which rule. What the maps hold, and why, is told in
//! [`xfwd_ebpf_types::filter`].

use core::ffi::c_void;

use aya_ebpf::{helpers::bpf_loop, maps::lpm_trie::Key};
use xfwd_ebpf_types::{
    Headers,
    deny::{
        BLOCK_BITS, BUCKET_BLOCKS, BUCKETS, Bucket, DenySettings, NETWORK_WORDS, buckets_of, network_bit,
    },
    filter::{
        Class, EndpointKey, Entry, FilterSettings, FlowKey, MAX_ENTRIES, PacketFacts, RuleCounter, Verdict,
        WordKind,
    },
};

use crate::{
    maps::{
        DENY_FLOWS, DENY_HOSTS, DENY_V6, FILTER, FILTER_CLASSES, FILTER_DST_V6, FILTER_ENDPOINTS,
        FILTER_FLOWS, FILTER_LINES, FILTER_SRC_V6, FILTER_TABLE, RULE_COUNTERS,
    },
    packet::Packet,
    parse::{SCTP, TCP, UDP, forget_rest},
};

/// Which maps of the deny list have entries, as bits of [`DenySettings`]. Not a map of its own but a variable, which user
/// space sees as the map `.data.deny`: every packet asks, and reading it is one instruction.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.deny")]
static DENY: u32 = 0;

/// The multiplier of [`buckets_of`]; written by user space before the program is loaded.
#[unsafe(no_mangle)]
static DENY_MULTIPLIER: u64 = 0;

/// Which maps of the deny list have entries.
#[inline(always)]
pub fn denied_kinds() -> u32 {
    // SAFETY: a static is always readable. Without `volatile` the compiler would use the 0 above.
    unsafe { core::ptr::read_volatile(&raw const DENY) }
}

/// Whether an IPv4 source address is on the deny list, by itself or by a prefix; `used` is what [`denied_kinds`] said.
#[inline(always)]
pub fn is_denied_ipv4(used: u32, source: u32) -> bool {
    if used & DenySettings::BLOCKS_V4 != 0 {
        // SAFETY: as in `denied_kinds`.
        let multiplier = unsafe { core::ptr::read_volatile(&raw const DENY_MULTIPLIER) };
        let (first, second) = buckets_of(source >> BLOCK_BITS, multiplier);
        if is_in_bucket(first, source) || is_in_bucket(second, source) {
            return true;
        }
    }
    let (word, bit) = network_bit(source);
    if used & DenySettings::NETWORKS_V4 == 0 {
        return false;
    }
    // SAFETY: every number that `network_bit` gives is within the static. User space may write the word meanwhile, so it is read
    // as it is.
    let word = unsafe { (&raw const DENIED_NETWORKS).cast::<u64>().add(word as usize).read_volatile() };
    word >> bit & 1 != 0
}

#[inline(always)]
fn is_in_bucket(bucket: u32, source: u32) -> bool {
    // SAFETY: every number that `buckets_of` gives is within the static. User space may write the words meanwhile, so each is read
    // once, and whole.
    let block = |index: usize| unsafe {
        let bucket = (&raw const DENIED_BLOCKS).cast::<Bucket>().add(bucket as usize);
        (&raw const (*bucket).blocks).cast::<u64>().add(index).read_volatile()
    };
    let holds = |block: u64| {
        block >> 32 == u64::from(source >> BLOCK_BITS) && block >> (source & ((1 << BLOCK_BITS) - 1)) & 1 != 0
    };
    holds(block(0)) || holds(block(1)) || holds(block(2)) || holds(block(3))
}

/// The map `DENY_V4_NETWORKS`, which user space puts in the place of this variable before the program is loaded: an index into a
/// variable is an addition, a lookup in a map a dozen instructions.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.networks")]
static DENIED_NETWORKS: [u64; NETWORK_WORDS as usize] = [0; NETWORK_WORDS as usize];

/// The map `DENY_V4_BLOCKS`, in the same way.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.blocks")]
static DENIED_BLOCKS: [Bucket; BUCKETS as usize] = [Bucket { blocks: [0; BUCKET_BLOCKS] }; BUCKETS as usize];

/// Where IP starts in a packet without VLAN tags.
const UNTAGGED: usize = 14;

/// Whether the packet is on the deny list, for what [`is_denied_ipv4`] has not been asked about.
#[inline(always)]
pub fn is_denied(packet: &Packet, headers: &Headers) -> bool {
    let used = denied_kinds();
    if used == 0 {
        return false;
    }
    let Some((src, dst)) = addresses(packet, headers) else {
        return false;
    };
    if used & DenySettings::FLOWS != 0 && has_ports(headers) {
        let key = flow_key(headers, src, dst);
        // SAFETY: the key is the 40 bytes of a FlowKey; the value is not read.
        if unsafe { DENY_FLOWS.get(&*core::ptr::from_ref(&key).cast::<FlowKey>()) }.is_some() {
            return true;
        }
    }
    let network = usize::from(headers.network_offset);
    if headers.ip_version == 4 {
        return network != UNTAGGED
            && packet
                .bytes::<4>(network + 12)
                .is_some_and(|src| is_denied_ipv4(used, u32::from_be_bytes(*src)));
    }
    if used & DenySettings::HOSTS != 0 {
        let rest = u32::from_ne_bytes([0, 0, 0, headers.ip_version]);
        let key = NarrowKey { dst: src, rest, unused: 0 };
        // SAFETY: the key starts with the 20 bytes of an EndpointKey; the value is not read.
        if unsafe { DENY_HOSTS.get(&*core::ptr::from_ref(&key).cast::<EndpointKey>()) }.is_some() {
            return true;
        }
    }
    used & DenySettings::PREFIXES_V6 != 0
        && packet.bytes::<16>(network + 8).is_some_and(|src| DENY_V6.get(&Key::new(128, *src)).is_some())
}

/// What the filter says about the upper half of an IPv4 source address, for a packet that has not been parsed; [`UNKNOWN`] when
/// no rule drops by that alone. `verdicts` is what [`source_verdicts`] said.
///
/// Most of what a filter has to drop, and quickly, are floods from addresses on a list: those packets end here.
#[inline(always)]
pub fn look_at_source(verdicts: u32, source: u32) -> u32 {
    if verdicts == 0 {
        return UNKNOWN;
    }
    // SAFETY: 16 bits are within the static.
    unsafe { (&raw const FILTER_SOURCES).cast::<u32>().add((source >> 16) as usize).read_volatile() }
}

/// Whether a word is not the last one for its addresses.
#[inline(always)]
pub fn leads_on(word: u32) -> bool {
    word >= WordKind::DENSE && word != UNKNOWN
}

/// The first 4,096 lines for source addresses: as a variable, since an index into one is an addition, and a lookup in a map a
/// dozen instructions.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.sources")]
static FILTER_SOURCES: [u32; 1 << 16] = [0; 1 << 16];

/// The verdicts below this number drop or accept by nothing but an IPv4 source address (`src_rules` of [`FilterSettings`]); 0 when
/// there are no such rules. Written by user space before the program is loaded.
#[unsafe(no_mangle)]
static FILTER_SRC_VERDICTS: u32 = 0;

/// Below which number verdicts are by nothing but an IPv4 source address; 0 when there are none.
#[inline(always)]
pub fn source_verdicts() -> u32 {
    // SAFETY: a static is always readable. Without `volatile` the compiler would use the 0 above.
    unsafe { core::ptr::read_volatile(&raw const FILTER_SRC_VERDICTS) }
}

/// 1 when the list has a rule; written by user space before the program is loaded.
#[unsafe(no_mangle)]
static FILTER_HAS_RULES: u32 = 0;

/// Whether there is a rule at all. The verifier knows the number, so without rules it does not look at what they need: the one of
/// Linux 6.1 would give up on it.
#[inline(always)]
fn has_rules() -> bool {
    // SAFETY: a static is always readable. Without `volatile` the compiler would use the 0 above.
    unsafe { core::ptr::read_volatile(&raw const FILTER_HAS_RULES) != 0 }
}

/// Whether packets are looked at here at all: there are rules, or entries of the deny list.
#[inline(always)]
pub fn looks_at_packets() -> bool {
    has_rules() || denied_kinds() != 0
}

/// Not a word of any address: no line has this number.
pub const UNKNOWN: u32 = u32::MAX;

/// Whether what [`look_at_source`] found drops a packet, whatever else is in it.
#[inline(always)]
pub fn is_dropped_source(found: u32) -> bool {
    // Other kinds of words are above all verdicts.
    found & 1 != 0 && found < source_verdicts()
}

/// Counts the packet for each rule that acts on it; whether it is to be dropped.
#[inline(always)]
pub fn drops(packet: &Packet, headers: &Headers, source: u32) -> bool {
    if !has_rules() {
        return false;
    }
    let Some(settings) = FILTER.get(0) else {
        return false;
    };
    if settings.active == 0 {
        return false;
    }
    let headers = &forget_rest(packet, headers);
    let verdict = verdict(packet, headers, settings, source);
    if verdict == Verdict::NONE.0 {
        return false;
    }
    count(verdict, packet.length());
    Verdict(verdict).is_drop()
}

#[inline(always)]
fn verdict(packet: &Packet, headers: &Headers, settings: &FilterSettings, source: u32) -> u32 {
    let network = usize::from(headers.network_offset);
    let mut src = Class::NONE;
    let mut dst = Class::NONE;
    if headers.ip_version == 4 {
        if let Some([a, b, c, d, e, f, g, h]) = packet.bytes::<8>(network + 12) {
            if source != UNKNOWN {
                src = class(source);
            } else if settings.src_v4 != 0 {
                src = class(by_ipv4(settings.src_v4, u32::from_be_bytes([*a, *b, *c, *d])));
            }
            if settings.dst_v4 != 0 {
                dst = class(by_ipv4(settings.dst_v4, u32::from_be_bytes([*e, *f, *g, *h])));
            }
        }
    } else if headers.ip_version == 6 {
        if settings.src_v6 != 0
            && let Some(address) = packet.bytes::<16>(network + 8)
        {
            src = class(FILTER_SRC_V6.get(&Key::new(128, *address)).copied().unwrap_or(Verdict::NONE.0));
        }
        if settings.dst_v6 != 0
            && let Some(address) = packet.bytes::<16>(network + 24)
        {
            dst = class(FILTER_DST_V6.get(&Key::new(128, *address)).copied().unwrap_or(Verdict::NONE.0));
        }
    }
    let mut verdict = min(src.verdict, dst.verdict);
    let protocol = u32::from(headers.protocol);
    if settings.protocols != 0 && has_protocol(headers) {
        verdict = min(verdict, word(settings.protocols, protocol));
    }
    if headers.transport_offset != 0 {
        let ports = match headers.protocol {
            TCP => settings.tcp_ports,
            UDP => settings.udp_ports,
            SCTP => settings.sctp_ports,
            _ => 0,
        };
        if ports != 0 {
            verdict = min(verdict, word(ports, u32::from(headers.dst_port)));
        }
    }
    if settings.endpoints | settings.flows != 0 {
        verdict = by_key(packet, headers, settings, verdict);
    }
    if settings.entries != 0 {
        verdict = by_table(packet, headers, (src.sets, dst.sets), settings, verdict);
    }
    verdict
}

/// The word for an IPv4 address: a verdict or a class.
#[inline(always)]
fn by_ipv4(root: u32, address: u32) -> u32 {
    follow(word(root, address >> 16), address)
}

/// The word for an address to whose upper half `found` belongs.
#[inline(always)]
pub fn follow(mut found: u32, address: u32) -> u32 {
    if found & WordKind::KIND == WordKind::DENSE {
        found = word(found & WordKind::NUMBER, address >> 8 & 0xff);
        if found & WordKind::KIND == WordKind::DENSE {
            return word(found & WordKind::NUMBER, address & 0xff);
        }
    }
    if found & WordKind::KIND == WordKind::RANGES {
        let line = FILTER_LINES.get(found & WordKind::NUMBER);
        return line.map_or(Verdict::NONE.0, |line| line.range_of(address & 0xffff));
    }
    found
}

/// Word number `index` of the lines from `first` on.
#[inline(always)]
fn word(first: u32, index: u32) -> u32 {
    match FILTER_LINES.get(first + (index >> 4)) {
        Some(line) => line.words[(index & 15) as usize],
        None => Verdict::NONE.0,
    }
}

/// What a word says that is a verdict or names a class.
#[inline(always)]
fn class(word: u32) -> Class {
    if word & WordKind::KIND == WordKind::CLASS {
        FILTER_CLASSES.get(word & WordKind::NUMBER).copied().unwrap_or(Class::NONE)
    } else {
        Class { verdict: word, sets: 0 }
    }
}

/// A [`FlowKey`] or [`EndpointKey`] in words: written as bytes, it would be built byte by byte.
#[repr(C)]
struct WideKey {
    src: [u64; 2],
    dst: [u64; 2],
    ports: u32,
    protocol_and_version: u32,
}

#[repr(C)]
struct NarrowKey {
    dst: [u64; 2],
    rest: u32,
    /// Not part of the key: the compiler leaves no hole at the end.
    unused: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<WideKey>() == 40);
const _: () = assert!(size_of::<EndpointKey>() == 20 && size_of::<NarrowKey>() == 24);

#[inline(always)]
fn by_key(packet: &Packet, headers: &Headers, settings: &FilterSettings, mut verdict: u32) -> u32 {
    if !has_ports(headers) {
        return verdict;
    }
    let Some((src, dst)) = addresses(packet, headers) else {
        return verdict;
    };
    if settings.endpoints != 0 {
        let [port_0, port_1] = headers.dst_port.to_be_bytes();
        let rest = u32::from_ne_bytes([port_0, port_1, headers.protocol, headers.ip_version]);
        let key = NarrowKey { dst, rest, unused: 0 };
        // SAFETY: the key starts with the 20 bytes of an EndpointKey; entries are not changed while they are read.
        if let Some(found) =
            unsafe { FILTER_ENDPOINTS.get(&*core::ptr::from_ref(&key).cast::<EndpointKey>()) }
        {
            verdict = min(verdict, *found);
        }
    }
    if settings.flows != 0 {
        let key = flow_key(headers, src, dst);
        // SAFETY: the key is the 40 bytes of a FlowKey; entries are not changed while they are read.
        if let Some(found) = unsafe { FILTER_FLOWS.get(&*core::ptr::from_ref(&key).cast::<FlowKey>()) } {
            verdict = min(verdict, *found);
        }
    }
    verdict
}

#[inline(always)]
fn flow_key(headers: &Headers, src: [u64; 2], dst: [u64; 2]) -> WideKey {
    let [src_0, src_1] = headers.src_port.to_be_bytes();
    let [dst_0, dst_1] = headers.dst_port.to_be_bytes();
    WideKey {
        src,
        dst,
        ports: u32::from_ne_bytes([src_0, src_1, dst_0, dst_1]),
        protocol_and_version: u32::from_ne_bytes([headers.protocol, headers.ip_version, 0, 0]),
    }
}

/// Where a run over the table stands.
struct Scan {
    facts: PacketFacts,
    bytes: u64,
    entries: u32,
    index: u32,
    verdict: u32,
}

/// The entries that stand before the rule found so far.
///
/// `bpf_loop` (Linux 5.17), since the verifier looks at its body once, and not as often as it runs.
#[inline(always)]
fn by_table(
    packet: &Packet,
    headers: &Headers,
    sets: (u32, u32),
    settings: &FilterSettings,
    verdict: u32,
) -> u32 {
    let mut facts = PacketFacts::of(headers);
    (facts.src_sets, facts.dst_sets) = sets;
    if let Some((src, dst)) = addresses(packet, headers) {
        facts.src = src;
        facts.dst = dst;
    }
    let mut scan = Scan { facts, bytes: packet.length(), entries: settings.entries, index: 0, verdict };
    let step: unsafe extern "C" fn(u64, *mut Scan) -> i64 = look_at_entry;
    // SAFETY: the callback has the signature that the helper asks for, and the scan lives until it returns.
    unsafe {
        bpf_loop(MAX_ENTRIES, step as *mut c_void, (&raw mut scan).cast(), 0);
    }
    scan.verdict
}

const GO_ON: i64 = 0;
const STOP: i64 = 1;

unsafe extern "C" fn look_at_entry(_round: u64, scan: *mut Scan) -> i64 {
    // SAFETY: `by_table` passes its own scan, and nothing else uses it meanwhile.
    let scan = unsafe { &mut *scan };
    if scan.index >= scan.entries {
        return STOP;
    }
    let Some(entry) = FILTER_TABLE.get(scan.index) else {
        return STOP;
    };
    if Verdict(entry.verdict).rule() >= Verdict(scan.verdict).rule() {
        return STOP;
    }
    scan.index += 1;
    if entry.holds(&scan.facts) {
        if entry.effect == Entry::DECIDE {
            scan.verdict = entry.verdict;
            return STOP;
        }
        if entry.effect == Entry::COUNT {
            count(entry.verdict, scan.bytes);
        }
        scan.index = entry.next;
    }
    GO_ON
}

/// Source and destination address, as the facts and keys have them; zero without.
#[inline(always)]
fn addresses(packet: &Packet, headers: &Headers) -> Option<([u64; 2], [u64; 2])> {
    let network = usize::from(headers.network_offset);
    if headers.ip_version == 4 {
        let [a, b, c, d, e, f, g, h] = *packet.bytes::<8>(network + 12)?;
        // As `map_ipv4` writes them.
        Some((
            [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])],
            [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, e, f, g, h])],
        ))
    } else if headers.ip_version == 6 {
        let at = |offset| Some(u64::from_ne_bytes(*packet.bytes(network + offset)?));
        Some(([at(8)?, at(16)?], [at(24)?, at(32)?]))
    } else {
        None
    }
}

#[inline(always)]
fn has_ports(headers: &Headers) -> bool {
    headers.transport_offset != 0 && matches!(headers.protocol, TCP | UDP | SCTP)
}

#[inline(always)]
fn has_protocol(headers: &Headers) -> bool {
    use xfwd_ebpf_types::Outcome::{TooManyExtensions, TruncatedExtension};
    headers.end != 0
        && headers.outcome != TruncatedExtension as u8
        && headers.outcome != TooManyExtensions as u8
}

#[inline(always)]
fn min(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

/// Counts a packet for the rule of a verdict.
#[inline(always)]
pub fn count(verdict: u32, length: u64) {
    if let Some(counter) = RULE_COUNTERS.get_ptr_mut(Verdict(verdict).rule()) {
        // SAFETY: the element is this CPU's own, and XDP programs on one CPU do not interrupt each other.
        let RuleCounter { packets, bytes } = unsafe { &mut *counter };
        *packets += 1;
        *bytes += length;
    }
}
