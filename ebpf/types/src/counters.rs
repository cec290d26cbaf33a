//! Why the XDP program did what it did: one per-CPU counter a cause.

use crate::Outcome;

/// What became of a packet, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CauseClass {
    /// Redirected to an AF_XDP socket.
    Steered,
    /// Left to the host network stack.
    Passed,
    /// Dropped.
    Dropped,
    /// To be redirected, but the queue's worker does not keep up: dropped.
    Lost,
    /// Broken headers; left to the host network stack.
    Malformed,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $class:ident, $name:literal;)*) => {
        /// Index into the per-CPU array `COUNTERS`. Malformed packets are counted behind the last of these,
        /// by [`Cause::malformed_index`].
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause { $($(#[$doc])* $variant = $number,)* }

        impl Cause {
            /// Every cause, by number.
            pub const ALL: &[Cause] = &[$(Cause::$variant,)*];

            /// Short name, as counters show it.
            pub const fn name(self) -> &'static str {
                match self { $(Cause::$variant => $name,)* }
            }

            /// What becomes of a packet with this cause.
            pub const fn class(self) -> CauseClass {
                match self { $(Cause::$variant => CauseClass::$class,)* }
            }
        }
    };
}

causes! {
    /// For a service: redirected to the queue's socket.
    SteeredService = 0, Steered, "steered-service";
    /// By `steer = "all"` or `"everything"`: redirected to the queue's socket.
    SteeredAll = 1, Steered, "steered-all";
    /// To be steered, but the queue has no socket: passed.
    PassedNoSocket = 2, Passed, "passed-no-socket";
    /// No service matches (only with `steer = "services"`).
    PassedNoService = 3, Passed, "passed-no-service";
    /// ARP.
    PassedArp = 4, Passed, "passed-arp";
    /// Neighbour discovery: ICMPv6 types 133 to 137 (RFC 4861).
    PassedNeighbourDiscovery = 5, Passed, "passed-neighbour-discovery";
    /// Addressed to the host itself (only with `steer = "all"`).
    PassedHost = 6, Passed, "passed-host";
    /// A fragment of a TCP or UDP packet to an address that has no service of its protocol (only with
    /// `steer = "services"`).
    PassedFragment = 7, Passed, "passed-fragment";
    /// Neither IPv4, IPv6 nor ARP (only with `steer = "services"`).
    PassedNotIp = 8, Passed, "passed-not-ip";
    /// By a rule of the filter, which has a counter of its own.
    DroppedRule = 9, Dropped, "dropped-rule";
    /// On the dynamic deny list.
    DroppedDenied = 10, Dropped, "dropped-denied";
    /// A fragment of a TCP or UDP packet, the first or a later one, to an address that has a service of its protocol:
    /// redirected to the queue's socket. Only the first carries a port, and all fragments of a datagram go one way.
    SteeredFragment = 11, Steered, "steered-fragment";
    /// ICMP for a service: an echo request to its address, or an error about a packet from its address and port.
    SteeredIcmp = 12, Steered, "steered-icmp";
    /// To be steered, but the worker has closed the gate of a queue whose rx ring was full ([`Gate`](crate::Gate)): dropped.
    LostQueueFull = 13, Lost, "lost-queue-full";
}

impl Cause {
    /// Number of elements of `COUNTERS`.
    pub const COUNTERS: u32 = Self::ALL.len() as u32 + Outcome::ALL.len() as u32;

    /// Index of the counter for packets whose headers are broken in this way.
    #[inline(always)]
    pub const fn malformed_index(outcome: Outcome) -> u32 {
        Self::ALL.len() as u32 + outcome as u32
    }
}
