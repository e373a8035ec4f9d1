//! Selection of a port: the flags of the kernel's NAT, and the distribution over several ranges.

use crate::net::port::Port;
use crate::net::port_set::PortSet;
use crate::policy::address::Address;
use crate::policy::timeouts::ConnectionTimeouts;
use crate::word::words;

/// Flags of the kernel's NAT (`NF_NAT_RANGE_*`, linux/netfilter/nf_nat.h).
///
/// Without `random` and `fully_random`, a source port that is permitted already is kept while it is
/// free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NatFlags {
    /// `NF_NAT_RANGE_PROTO_RANDOM`: a random port, also for a connection that could keep its own.
    pub random: bool,
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: the same, and never by a hash of the addresses.
    pub fully_random: bool,
    /// `NF_NAT_RANGE_PERSISTENT`: the same address for all connections of a client.
    pub persistent: bool,
}

impl NatFlags {
    /// Whether a port that is permitted already is kept while it is free.
    #[must_use]
    pub fn keep_permitted_ports(self) -> bool {
        !self.random && !self.fully_random
    }
}

/// Distribution of connections over several ranges. By default each range gets the share of them that it
/// has of the ports, so that no range is full long before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// One range after another (`numgen inc`), whatever their sizes; the default for ranges of equal size.
    RoundRobin,
    /// A random range, weighted by size (`numgen random`); the default for ranges of different sizes.
    Weighted,
    /// By a hash of source address and source port (`jhash`), weighted by size, which begins with
    /// [`HASH_SEED`](crate::decision::HASH_SEED).
    Hash,
    /// Not over ranges: conntrack translates to a contiguous virtual range, whose ports are rewritten to those
    /// of the set, see [`remap`](crate::remap).
    Remap,
}

words!(
    Distribution,
    "round-robin, weighted, hash or remap",
    RoundRobin = "round-robin",
    Weighted = "weighted",
    Hash = "hash",
    Remap = "remap"
);

impl Distribution {
    /// The distribution over the ranges of `ports`: the `chosen` one, else by the sizes of the ranges;
    /// `None` for a single range.
    #[must_use]
    pub fn over(ports: &PortSet, chosen: Option<Self>) -> Option<Self> {
        match ports.ranges() {
            [] | [_] => None,
            [first, rest @ ..] => Some(chosen.unwrap_or_else(|| {
                let are_equal = rest.iter().all(|range| range.count() == first.count());
                if are_equal { Self::RoundRobin } else { Self::Weighted }
            })),
        }
    }
}

/// Selection of one of several ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PortSelection {
    /// The flags that the kernel gets.
    pub flags: NatFlags,
    /// The distribution over several ranges; `None` for a single range.
    pub distribution: Option<Distribution>,
}

impl PortSelection {
    /// The selection with these flags, and a distribution over several ranges.
    #[must_use]
    pub const fn new(flags: NatFlags, distribution: Option<Distribution>) -> Self {
        Self { flags, distribution }
    }
}

/// Translation of a connection: the ports that it can get, and its source address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Translation {
    /// The ports that the connection can get.
    pub ports: PortSet,
    /// The port that it gets if that port is free: its own, when it is permitted and the policy keeps
    /// such ports.
    pub keep: Option<Port>,
    /// The source address after translation.
    pub address: Address,
    /// Selection of one of the ports.
    pub selection: PortSelection,
    /// The timeouts that are not those of the host.
    pub timeouts: ConnectionTimeouts,
}

impl Translation {
    /// The translation to one of these ports; `keep` is its own port, if it may stay. The timeouts are those
    /// of the host.
    #[must_use]
    pub fn new(
        ports: PortSet,
        keep: Option<Port>,
        address: Address,
        selection: PortSelection,
    ) -> Self {
        let timeouts = ConnectionTimeouts::default();
        Self { ports, keep, address, selection, timeouts }
    }

    /// The same translation with these timeouts.
    #[must_use]
    pub fn with_timeouts(self, timeouts: ConnectionTimeouts) -> Self {
        Self { timeouts, ..self }
    }
}
