//! The maps, by the names user space knows them.
//!
//! They are declared with BTF, so that `bpftool map dump` shows fields by name.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, PerCpuArray, XskMap},
    macros::btf_map,
};
use xfwd_ebpf_types::{Cause, Headers, MAX_HOST_ADDRESSES, MAX_QUEUES, MAX_SERVICES, ServiceKey, Settings};

/// Kernel memory is taken for each entry when it is inserted: the tables are sized for the largest
/// configuration, which few have, and nothing is inserted while packets are handled.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// AF_XDP socket of each receive queue.
#[btf_map]
pub static XSKS: XskMap<{ MAX_QUEUES as usize }> = XskMap::new();

/// What is steered besides services.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Virtual addresses with protocol and port; the value is not looked at.
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, u32, { MAX_SERVICES as usize }, NO_PREALLOC> = HashMap::new();

/// Addresses that stay with the host when everything else is steered; the value is not looked at.
#[btf_map]
pub static HOST_ADDRESSES: HashMap<[u8; 16], u8, { MAX_HOST_ADDRESSES as usize }, NO_PREALLOC> =
    HashMap::new();

/// Packets by cause, see [`Cause`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Cause::COUNTERS as usize }> = PerCpuArray::new();

/// Where `xfwd_parse` writes.
#[btf_map]
pub static PARSED: Array<Headers, 1> = Array::new();
