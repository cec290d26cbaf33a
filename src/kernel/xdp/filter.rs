//! The filter's maps.

use std::os::fd::AsFd;

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
    sys::SyscallError,
};
use xfwd_ebpf_types::filter::{LINE_WORDS, Line, RuleCounter, Verdict};

use super::{XdpError, batch, take_map};
use crate::kernel::filter::{KernelPlan, Place};

const LINES: &str = "FILTER_LINES";
/// The variable of the program that holds the first lines for source addresses.
const SOURCES: &str = ".bss.sources";
/// Lines of a word for each value of the upper half of an address.
const SOURCE_LINES: usize = (1 << 16) / LINE_WORDS;
const CLASSES: &str = "FILTER_CLASSES";
const COUNTERS: &str = "RULE_COUNTERS";

/// Packets and bytes that a rule acted on in the XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleCount {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, without frame check sequence.
    pub bytes: u64,
}

/// Makes the maps as large as a plan needs: they are created with the object.
pub(super) fn size(loader: &mut EbpfLoader<'_>, plan: &KernelPlan) {
    let at_least_1 = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).max(1);
    loader
        .map_max_entries(LINES, at_least_1(plan.lines.len()))
        .map_max_entries(CLASSES, at_least_1(plan.classes.len()))
        .map_max_entries(COUNTERS, at_least_1(plan.places.len()));
}

/// Below which number verdicts are by IPv4 source address alone; 0 without such rules.
pub(super) fn source_verdicts(plan: &KernelPlan) -> u32 {
    if plan.settings.src_v4 == 0 { 0 } else { Verdict::new(plan.settings.src_rules, false).0 }
}

/// What is read while the program runs; the maps that are only filled stay with the object.
pub(super) struct FilterMaps {
    counters: PerCpuArray<MapData, RuleCounter>,
    /// Number of rules, and which of them run in the kernel: the others have no counts.
    in_kernel: Vec<bool>,
    /// Which rules drop in the kernel.
    drops: Vec<bool>,
}

impl FilterMaps {
    /// Fills the maps.
    pub fn new(object: &mut Ebpf, plan: &KernelPlan) -> Result<Self, XdpError> {
        fill_array(object, LINES, &plan.lines)?;
        fill_array(object, CLASSES, &plan.classes)?;
        fill_array(object, "FILTER_TABLE", &plan.entries)?;
        if source_verdicts(plan) != 0 {
            let lines = plan.lines.get(plan.settings.src_v4 as usize..).and_then(<[Line]>::first_chunk);
            let lines: &[Line; SOURCE_LINES] = lines.ok_or(XdpError::Object { name: SOURCES })?;
            fill_array(object, SOURCES, std::slice::from_ref(lines))?;
        }
        fill_trie(object, "FILTER_SRC_V6", &plan.src_v6)?;
        fill_trie(object, "FILTER_DST_V6", &plan.dst_v6)?;
        fill_hash(object, "FILTER_ENDPOINTS", &plan.endpoints)?;
        fill_hash(object, "FILTER_FLOWS", &plan.flows)?;
        // The last: from here on the program looks at the others.
        fill_array(object, "FILTER", &[plan.settings])?;
        let in_kernel = plan.places.iter().map(|place| *place == Place::Kernel).collect();
        Ok(Self { counters: take_map(object, COUNTERS)?, in_kernel, drops: plan.drops.clone() })
    }

    /// Packets that rules dropped, over all CPUs.
    pub fn dropped(&self) -> Result<u64, XdpError> {
        let counts = self.counts()?;
        Ok(counts.iter().zip(&self.drops).filter(|(_, drops)| **drops).map(|(count, _)| count.packets).sum())
    }

    /// The counts of every rule, in the order of the list, over all CPUs.
    pub fn counts(&self) -> Result<Vec<RuleCount>, XdpError> {
        let count = |(index, in_kernel): (usize, &bool)| {
            let mut sum = RuleCount::default();
            if *in_kernel {
                let index = index as u32;
                let by_cpu = self
                    .counters
                    .get(&index, 0)
                    .map_err(|source| XdpError::map(COUNTERS, format!("rule {index}"), source))?;
                for RuleCounter { packets, bytes } in by_cpu.iter() {
                    sum.packets += packets;
                    sum.bytes += bytes;
                }
            }
            Ok(sum)
        };
        self.in_kernel.iter().enumerate().map(count).collect()
    }
}

fn fill_array<T: Pod>(object: &mut Ebpf, name: &'static str, elements: &[T]) -> Result<(), XdpError> {
    let keys: Vec<u32> = (0..elements.len() as u32).collect();
    fill(object, name, &keys, elements, |key| format!("element {key}"))
}

fn fill_trie(
    object: &mut Ebpf,
    name: &'static str,
    prefixes: &[([u8; 16], u8, u32)],
) -> Result<(), XdpError> {
    let keys: Vec<Key<[u8; 16]>> =
        prefixes.iter().map(|(address, length, _)| Key::new(u32::from(*length), *address)).collect();
    let words: Vec<u32> = prefixes.iter().map(|(_, _, word)| *word).collect();
    let describe =
        |key: &Key<[u8; 16]>| format!("{}/{}", std::net::Ipv6Addr::from(key.data()), key.prefix_len());
    fill(object, name, &keys, &words, describe)
}

fn fill_hash<K: Pod + std::fmt::Debug>(
    object: &mut Ebpf,
    name: &'static str,
    entries: &std::collections::BTreeMap<K, Verdict>,
) -> Result<(), XdpError> {
    let keys: Vec<K> = entries.keys().copied().collect();
    let verdicts: Vec<u32> = entries.values().map(|verdict| verdict.0).collect();
    fill(object, name, &keys, &verdicts, |key| format!("{key:?}"))
}

/// The map must have keys and values of these types, as those that the plan is made of have.
fn fill<K: Pod, V: Pod>(
    object: &Ebpf,
    name: &'static str,
    keys: &[K],
    values: &[V],
    describe: impl Fn(&K) -> String,
) -> Result<(), XdpError> {
    let Some(Map::Array(map) | Map::LpmTrie(map) | Map::HashMap(map)) = object.map(name) else {
        return Err(XdpError::Object { name });
    };
    // The kernel copies as many bytes as the map says.
    let info = map.info().map_err(|source| XdpError::map(name, "its sizes".to_owned(), source))?;
    if (info.key_size() as usize, info.value_size() as usize) != (size_of::<K>(), size_of::<V>()) {
        return Err(XdpError::Object { name });
    }
    batch::update(map.fd().as_fd(), keys, values).map_err(|(index, source)| {
        let source = MapError::SyscallError(SyscallError { call: "BPF_MAP_UPDATE_BATCH", io_error: source });
        XdpError::map(name, keys.get(index).map_or_else(String::new, describe), source)
    })
}
