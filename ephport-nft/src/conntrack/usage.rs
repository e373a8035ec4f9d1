//! The ports that connections use, by policy and destination.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use ephport_core::{PermittedPorts, Port, PortRange, PortSet, Protocol, ResolvedPolicy};

use super::destinations::{Destinations, MAX_DESTINATIONS, Pool};
use super::scope::NoScope;
use super::{Connection, Placement, Scopes, Sent};
use crate::host::LocalAddress;

/// The ports that connections use, counted in memory that does not grow with their number.
#[derive(Debug)]
pub struct Usage<'a> {
    scopes: Scopes<'a>,
    policies: Vec<PolicyUsage<'a>>,
    destinations: Destinations,
    unknown: u64,
}

/// The connections of one policy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PolicyUsage<'a> {
    /// The policy.
    pub policy: &'a ResolvedPolicy,
    /// The ports to which the policy translates; with blocks, those of all sources.
    pub ports: PortSet,
    /// The permitted ports that at least one connection uses, to any destination.
    pub used: PortBitmap,
    /// The connections whose source port is one of them.
    pub connections: u64,
    /// The connections with an exempt port, or a privileged one that is not translated.
    pub exempt: u64,
    /// The connections with any other source port.
    pub outside: u64,
}

/// The ports that connections to one destination use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestinationUsage {
    /// The protocol.
    pub protocol: Protocol,
    /// The destination after NAT.
    pub destination: SocketAddr,
    /// The source address whose ports these are: after NAT, or, with blocks, before NAT.
    pub source: IpAddr,
    /// The zone of conntrack; 0 is the default zone.
    pub zone: u16,
    /// The ports in use.
    pub ports: u32,
    /// How many more it may be; 0 unless there were very many destinations.
    pub error: u32,
    /// The ports that there are.
    pub capacity: u32,
}

/// A set of ports as 65,536 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBitmap(Box<[u64]>);

impl<'a> Usage<'a> {
    /// No connection of these policies yet, on a host with these addresses.
    #[must_use]
    pub fn new(policies: &'a [ResolvedPolicy], addresses: &[LocalAddress]) -> Self {
        Self {
            scopes: Scopes::new(policies, addresses),
            policies: policies.iter().map(PolicyUsage::new).collect(),
            destinations: Destinations::new(MAX_DESTINATIONS),
            unknown: 0,
        }
    }

    /// Counts `connection`, if it is outgoing and in scope of a policy; returns that policy, the
    /// connection's outgoing side and the place of its source port.
    pub fn add(
        &mut self,
        connection: &Connection,
    ) -> Option<(&'a ResolvedPolicy, Sent, Placement)> {
        let (index, sent, placement) = match self.scopes.find(connection) {
            Ok(found) => found,
            Err(reason) => {
                self.unknown += u64::from(reason == NoScope::Unknown);
                return None;
            }
        };
        let usage = self.policies.get_mut(index)?;
        match placement {
            Placement::Exempt => usage.exempt += 1,
            Placement::Outside => usage.outside += 1,
            Placement::Permitted => {
                usage.connections += 1;
                if let Ok(port) = Port::new(sent.outside.port()) {
                    usage.used.insert(port);
                }
                self.destinations.add(Pool {
                    policy: u16::try_from(index).unwrap_or(u16::MAX),
                    zone: connection.reply.zone,
                    protocol: sent.protocol,
                    destination: sent.destination.into(),
                    owner: match &usage.policy.permitted {
                        PermittedPorts::Set(_) => sent.outside.ip(),
                        PermittedPorts::Blocks(_) => sent.source.ip(),
                    },
                });
            }
        }
        Some((usage.policy, sent, placement))
    }

    /// The usage of each policy, in their order.
    #[must_use]
    pub fn policies(&self) -> &[PolicyUsage<'a>] {
        &self.policies
    }

    /// The connections that are forwarded without source NAT: conntrack does not record in which
    /// direction, and no policy with `sources` applies to them.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The `most` fullest destinations of a policy, the fullest first.
    #[must_use]
    pub fn fullest(&self, policy: usize, most: usize) -> Vec<DestinationUsage> {
        let Some(usage) = self.policies.get(policy) else { return Vec::new() };
        let capacity = usage.ports.count();
        let error = self.destinations.error();
        let of_policy = |pool: &Pool| usize::from(pool.policy) == policy;
        let mut fullest: Vec<DestinationUsage> = Vec::with_capacity(most + 1);
        for (pool, ports) in self.destinations.iter().filter(|(pool, _)| of_policy(pool)) {
            let capacity = match &usage.policy.permitted {
                PermittedPorts::Set(_) => capacity,
                PermittedPorts::Blocks(blocks) => {
                    blocks.block_of(pool.owner).map_or(capacity, |block| block.ports.count())
                }
            };
            let destination = DestinationUsage {
                protocol: pool.protocol,
                destination: SocketAddr::new(pool.destination.address, pool.destination.port),
                source: pool.owner,
                zone: pool.zone,
                ports,
                error,
                capacity,
            };
            let at = fullest.partition_point(|other| other.order() <= destination.order());
            fullest.insert(at, destination);
            fullest.truncate(most);
        }
        fullest
    }
}

impl<'a> PolicyUsage<'a> {
    fn new(policy: &'a ResolvedPolicy) -> Self {
        let ports = policy.permitted.ports();
        let used = PortBitmap::default();
        Self { policy, ports, used, connections: 0, exempt: 0, outside: 0 }
    }
}

impl DestinationUsage {
    /// The share of the ports in use, 0 to 1; more if the table changed while it was read.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        f64::from(self.ports) / f64::from(self.capacity.max(1))
    }

    /// The fullest first; the rest only makes the order total.
    fn order(&self) -> impl Ord {
        let share = u64::from(self.ports) * 1_000_000 / u64::from(self.capacity.max(1));
        (Reverse((share, self.ports)), self.protocol, self.destination, self.source, self.zone)
    }
}

/// No port.
impl Default for PortBitmap {
    fn default() -> Self {
        Self(vec![0; 1024].into())
    }
}

impl PortBitmap {
    /// Adds a port.
    pub fn insert(&mut self, port: Port) {
        if let Some(word) = self.0.get_mut(usize::from(port.get() / 64)) {
            *word |= 1 << (port.get() % 64);
        }
    }

    /// Whether `port` is in the set.
    #[must_use]
    pub fn contains(&self, port: Port) -> bool {
        let word = self.0.get(usize::from(port.get() / 64));
        word.is_some_and(|word| word >> (port.get() % 64) & 1 == 1)
    }

    /// How many ports are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// How many ports of `range` are in the set.
    #[must_use]
    pub fn count_in(&self, range: PortRange) -> u32 {
        range.ports().map(|port| u32::from(self.contains(port))).sum()
    }

    /// The ports as ranges.
    #[must_use]
    pub fn to_set(&self) -> PortSet {
        PortRange::ALL.ports().filter(|port| self.contains(*port)).map(PortRange::from).collect()
    }
}

#[cfg(test)]
mod tests;
