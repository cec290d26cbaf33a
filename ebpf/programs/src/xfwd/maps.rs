//! The maps, by the names user space knows them.
//!
//! They are declared with BTF, so that `bpftool map dump` shows fields by name.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, XskMap},
    macros::btf_map,
};
use xfwd_ebpf_types::deny::{
    BUCKETS, Bucket, MAX_DENIED_FLOWS, MAX_DENIED_HOSTS, MAX_DENIED_PREFIXES, NETWORK_WORDS,
};
use xfwd_ebpf_types::filter::{
    Class, EndpointKey, Entry, FilterSettings, FlowKey, Line, MAX_ENDPOINTS, MAX_ENTRIES,
    MAX_FILTER_PREFIXES, MAX_FLOWS, RuleCounter,
};
use xfwd_ebpf_types::{
    Cause, Gate, Headers, MAX_HOST_ADDRESSES, MAX_NETWORKS, MAX_PORTS, MAX_QUEUES, MAX_SERVICES, PortKey,
    ServiceKey, Settings,
};

/// Kernel memory is taken for each entry when it is inserted: the tables are sized for the largest
/// configuration, which few have, and nothing is inserted while packets are handled.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The elements lie in pages of their own, so that a line of 64 bytes is one line of the CPU's caches.
const IN_PAGES: usize = BPF_F_MMAPABLE as usize;

/// AF_XDP socket of each receive queue.
#[btf_map]
pub static XSKS: XskMap<{ MAX_QUEUES as usize }> = XskMap::new();

/// Where the worker of each receive queue says that it takes no more for now. It writes there by `mmap`.
#[btf_map]
pub static GATES: Array<Gate, { MAX_QUEUES as usize }, IN_PAGES> = Array::new();

/// What is steered besides services.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Services of one address and port; the value is the room in front of the packet, see [`xfwd_ebpf_types::ServiceKey`].
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, u32, { MAX_SERVICES as usize }, NO_PREALLOC> = HashMap::new();

/// Numbers of the prefixes that have services.
#[btf_map]
pub static NETWORKS: LpmTrie<[u8; 16], u32, { MAX_NETWORKS as usize }> = LpmTrie::new();

/// Ports by the number of the network, with the room; see [`PortKey`].
#[btf_map]
pub static PORTS: LpmTrie<[u8; PORT_KEY_BYTES], u32, { MAX_PORTS as usize }> = LpmTrie::new();

/// A [`PortKey`] without its length.
pub const PORT_KEY_BYTES: usize = size_of::<PortKey>() - size_of::<u32>();

/// Addresses that stay with the host when everything else is steered; the value is not looked at.
#[btf_map]
pub static HOST_ADDRESSES: HashMap<[u8; 16], u8, { MAX_HOST_ADDRESSES as usize }, NO_PREALLOC> =
    HashMap::new();

/// Packets by cause, see [`Cause`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Cause::COUNTERS as usize }> = PerCpuArray::new();

/// Where the parts of the filter are.
#[btf_map]
pub static FILTER: Array<FilterSettings, 1> = Array::new();

/// Words of the filter. This and the next ones are made as large as the rules need.
#[btf_map]
pub static FILTER_LINES: Array<Line, 1, IN_PAGES> = Array::new();

/// Classes that words name.
#[btf_map]
pub static FILTER_CLASSES: Array<Class, 1> = Array::new();

/// Packets and bytes by rule.
#[btf_map]
pub static RULE_COUNTERS: PerCpuArray<RuleCounter, 1> = PerCpuArray::new();

/// The short list of what is not found at once.
#[btf_map]
pub static FILTER_TABLE: Array<Entry, { MAX_ENTRIES as usize }> = Array::new();

/// Words by IPv6 source prefix.
#[btf_map]
pub static FILTER_SRC_V6: LpmTrie<[u8; 16], u32, { MAX_FILTER_PREFIXES as usize }> = LpmTrie::new();

/// Words by IPv6 destination prefix.
#[btf_map]
pub static FILTER_DST_V6: LpmTrie<[u8; 16], u32, { MAX_FILTER_PREFIXES as usize }> = LpmTrie::new();

/// Verdicts by destination address, protocol and port.
#[btf_map]
pub static FILTER_ENDPOINTS: HashMap<EndpointKey, u32, { MAX_ENDPOINTS as usize }, NO_PREALLOC> =
    HashMap::new();

/// Verdicts by 5-tuple.
#[btf_map]
pub static FILTER_FLOWS: HashMap<FlowKey, u32, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();

/// IPv6 source addresses; the value is not looked at, here and in the other maps with keys.
#[btf_map]
pub static DENY_HOSTS: HashMap<EndpointKey, u32, { MAX_DENIED_HOSTS as usize }, NO_PREALLOC> = HashMap::new();

/// IPv4 source prefixes of 24 bits or less: a bit for each /24. User space writes here and in the next one by `mmap`, and puts
/// them in the place of variables (`filter.rs`), for which a table has to be one element.
#[btf_map]
pub static DENY_V4_NETWORKS: Array<[u64; NETWORK_WORDS as usize], 1, IN_PAGES> = Array::new();

/// IPv4 source addresses and longer prefixes.
#[btf_map]
pub static DENY_V4_BLOCKS: Array<[Bucket; BUCKETS as usize], 1, IN_PAGES> = Array::new();

/// IPv6 source prefixes.
#[btf_map]
pub static DENY_V6: LpmTrie<[u8; 16], u32, { MAX_DENIED_PREFIXES as usize }> = LpmTrie::new();

/// 5-tuples.
#[btf_map]
pub static DENY_FLOWS: HashMap<FlowKey, u32, { MAX_DENIED_FLOWS as usize }, NO_PREALLOC> = HashMap::new();

/// Where `xfwd_parse` writes.
#[btf_map]
pub static PARSED: Array<Headers, 1> = Array::new();
