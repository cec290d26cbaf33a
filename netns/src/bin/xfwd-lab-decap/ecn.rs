//! Congestion marks at the end of a tunnel.

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The ECN field that the inner packet leaves a tunnel with; `None`: it must be dropped, since a router saw congestion that
/// a receiver without ECN could not be told of (RFC 6040, figure 4).
pub fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (CE, _) | (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_marks_leaves_as_rfc_6040_says() {
        // Rows: inner; columns: outer, in the order of the RFC.
        let columns = [NOT_ECT, ECT_0, ECT_1, CE];
        for (inner, row) in [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ] {
            assert_eq!(columns.map(|outer| decapsulated(inner, outer)), row, "inner {inner:02b}");
        }
    }
}
