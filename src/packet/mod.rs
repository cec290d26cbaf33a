//! Packets: the one-pass parser, header views, checksums, five-tuple and flow hash.
