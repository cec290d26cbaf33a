//! What a stage decides about a packet.

/// Index of a port in its worker, in the order in which the interfaces were given.
pub type PortIndex = u8;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// No decision: the next stage looks at it. Behind the last stage it means
    /// [`Drop`](Verdict::Drop) for [`DropReason::Undecided`], since a packet that left the kernel cannot be given back.
    #[default]
    Continue,
    /// Gone, counted by reason.
    Drop(DropReason),
    /// Sent out of the port it came in by.
    Bounce,
    /// Sent out of another port of the same worker.
    Forward(PortIndex),
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident, $name:literal;)*) => {
        /// Why a packet was dropped in user space. Every reason has a counter of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// Short name, as counters show it.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// No stage decided.
    Undecided, "undecided";
    /// A rule said so.
    Rule, "rule";
    /// The stage cannot work with what the packet's headers say.
    Malformed, "malformed";
    /// The service's backend has no known link-layer address.
    NoNeighbour, "no-neighbour";
    /// The verdict named a port that the worker does not have.
    NoPort, "no-port";
    /// Too many packets wait for the port that it was to leave by, which is down or slower than the others.
    TxFull, "tx-full";
    /// More fragments (buffers) than one packet may have.
    TooManyFragments, "too-many-fragments";
    /// A reply that must not be sent: to a group, or to an error.
    NotAnswered, "not-answered";
    /// No backend of the service takes flows.
    NoBackend, "no-backend";
    /// Longer than the way to the backend takes.
    TooBig, "too-big";
    /// Routed with no hop left (TTL or hop limit).
    Expired, "expired";
    /// The packet's buffer has no room for the headers to be put in front.
    NoRoom, "no-room";
    /// A later fragment of a datagram whose first one has not been seen.
    UnknownFragment, "unknown-fragment";
    /// To an address of NAT but of no session, or of a flow for which no port is free.
    NoSession, "no-session";
    /// To be sent, but shorter than an Ethernet header: stages have taken the rest off, or made it so. No link carries such a frame, and
    /// the kernel takes an empty one for an invalid descriptor.
    TooShort, "too-short";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stands_at_its_own_index() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn a_verdict_fits_two_bytes() {
        assert_eq!(size_of::<Verdict>(), 2);
    }
}
