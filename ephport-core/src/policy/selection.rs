//! Selection of a port: the flags of the kernel's NAT, and the distribution over several ranges.

use crate::net::port::Port;
use crate::net::port_set::PortSet;
use crate::policy::address::Address;

/// Flags of the kernel's NAT (`NF_NAT_RANGE_*`, linux/netfilter/nf_nat.h).
///
/// Without `random` and `fully_random`, a source port that is permitted already is kept while it is
/// free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// Distribution of connections over several ranges. Each range gets the share of them that it has of
/// the ports, so that no range is full long before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// One range after another (`numgen inc`); for ranges of equal size.
    RoundRobin,
    /// A random range, weighted by size (`numgen random`).
    Weighted,
    /// By a hash of source address and source port (`jhash`), which begins with
    /// [`HASH_SEED`](crate::decision::HASH_SEED).
    Hash,
}

/// Selection of one of several ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortSelection {
    /// The flags that the kernel gets.
    pub flags: NatFlags,
    /// The distribution over several ranges; `None` for a single range.
    pub distribution: Option<Distribution>,
}

impl PortSelection {
    /// The selection among `ports`: by hash if `per_source_stable`, else by the sizes of the ranges.
    pub(crate) fn among(ports: &PortSet, flags: NatFlags, per_source_stable: bool) -> Self {
        let distribution = match ports.ranges() {
            [] | [_] => None,
            _ if per_source_stable => Some(Distribution::Hash),
            [first, rest @ ..] if rest.iter().all(|range| range.count() == first.count()) => {
                Some(Distribution::RoundRobin)
            }
            _ => Some(Distribution::Weighted),
        };
        Self { flags, distribution }
    }
}

/// Translation of a connection: the ports that it can get, and its source address.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}
