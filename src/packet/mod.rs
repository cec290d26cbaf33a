//! Packets: the one-pass parser, header views, checksums, five-tuple and flow hash.
pub use xfwd_ebpf_types::Headers;
/// placeholder
pub fn parse(_l: &[u8], _n: usize) -> Headers { Headers::default() }
