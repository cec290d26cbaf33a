//! The filter's maps.

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{
        Array, HashMap, MapData, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
};
use xfwd_ebpf_types::filter::RuleCounter;

use super::{XdpError, take_map};
use crate::kernel::filter::{KernelPlan, Place};

const LINES: &str = "FILTER_LINES";
const CLASSES: &str = "FILTER_CLASSES";
const COUNTERS: &str = "RULE_COUNTERS";

/// Packets and bytes that a rule acted on in the XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What is read while the program runs; the maps that are only filled stay with the object.
pub(super) struct FilterMaps {
    counters: PerCpuArray<MapData, RuleCounter>,
    /// Number of rules, and which of them run in the kernel: the others have no counts.
    in_kernel: Vec<bool>,
}

impl FilterMaps {
    /// Fills the maps.
    pub fn new(object: &mut Ebpf, plan: &KernelPlan) -> Result<Self, XdpError> {
        fill_array(object, LINES, &plan.lines)?;
        fill_array(object, CLASSES, &plan.classes)?;
        fill_array(object, "FILTER_TABLE", &plan.entries)?;
        fill_trie(object, "FILTER_SRC_V6", &plan.src_v6)?;
        fill_trie(object, "FILTER_DST_V6", &plan.dst_v6)?;
        let endpoints = plan.endpoints.iter().map(|(key, verdict)| (key, verdict.0));
        fill_hash(object, "FILTER_ENDPOINTS", endpoints)?;
        let flows = plan.flows.iter().map(|(key, verdict)| (key, verdict.0));
        fill_hash(object, "FILTER_FLOWS", flows)?;
        // The last: from here on the program looks at the others.
        fill_array(object, "FILTER", &[plan.settings])?;
        let in_kernel = plan.places.iter().map(|place| *place == Place::Kernel).collect();
        Ok(Self { counters: take_map(object, COUNTERS)?, in_kernel })
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
    let map = object.map_mut(name).ok_or(XdpError::Object { name })?;
    let mut array: Array<_, T> = map.try_into().map_err(|_| XdpError::Object { name })?;
    for (index, element) in elements.iter().enumerate() {
        array
            .set(index as u32, element, 0)
            .map_err(|source| XdpError::map(name, format!("element {index}"), source))?;
    }
    Ok(())
}

fn fill_trie(
    object: &mut Ebpf,
    name: &'static str,
    prefixes: &[([u8; 16], u8, u32)],
) -> Result<(), XdpError> {
    let map = object.map_mut(name).ok_or(XdpError::Object { name })?;
    let mut trie: LpmTrie<_, [u8; 16], u32> = map.try_into().map_err(|_| XdpError::Object { name })?;
    for (address, length, word) in prefixes {
        trie.insert(&Key::new(u32::from(*length), *address), word, 0).map_err(|source| {
            XdpError::map(name, format!("{}/{length}", std::net::Ipv6Addr::from(*address)), source)
        })?;
    }
    Ok(())
}

fn fill_hash<'k, K: Pod + std::fmt::Debug>(
    object: &mut Ebpf,
    name: &'static str,
    entries: impl Iterator<Item = (&'k K, u32)>,
) -> Result<(), XdpError> {
    let map = object.map_mut(name).ok_or(XdpError::Object { name })?;
    let mut hash: HashMap<_, K, u32> = map.try_into().map_err(|_| XdpError::Object { name })?;
    for (key, verdict) in entries {
        hash.insert(key, verdict, 0).map_err(|source| XdpError::map(name, format!("{key:?}"), source))?;
    }
    Ok(())
}
