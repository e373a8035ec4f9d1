//! What a policy does with a connection, and why: the meaning that the kernel program must have.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::flow::{Cast, Flow, Segment};
use crate::policy::{Address, Choice, PickUp};
use crate::port::{Port, PortRange};
use crate::port_set::PortSet;
use crate::resolve::{Allowed, Resolved};
use crate::scope::Origin;

/// The smallest of several ranges in which a port that is allowed already is kept. A connection
/// that is kept in its range cannot get into another when its port is taken, and a small range is
/// soon full.
pub const MIN_KEPT_RANGE: u32 = 64;

/// What the hash begins with that spreads connections by source: the same on every host, after every
/// start and in every version, so that a source keeps its range.
pub const SPREAD_SEED: u32 = 1;

/// What a policy does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It leaves with one of `ports`.
    Moved {
        /// The ports that it can get.
        ports: PortSet,
        /// The port that it gets if that is free: its own, when it is allowed and the policy
        /// keeps such ports.
        kept: Option<Port>,
        /// What becomes of its source address.
        address: Address,
        /// How the kernel picks one of the ports.
        manner: Manner,
    },
    /// The policy does not speak of it.
    Untouched(Reason),
}

/// How the kernel picks one of several ports: the flags of [`Choice`], and the way to one of several
/// ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // They are flags.
pub struct Manner {
    /// [`Choice::random`].
    pub random: bool,
    /// [`Choice::fully_random`].
    pub fully_random: bool,
    /// [`Choice::persistent`].
    pub persistent: bool,
    /// How it comes to one of several ranges; `None` where there is one only.
    pub spread: Option<Spread>,
}

impl Manner {
    /// The flags of `choice`, for these ports.
    fn new(choice: Choice, ports: &PortSet) -> Self {
        let Choice { random, fully_random, persistent, per_source_stable } = choice;
        let spread = match ports.ranges() {
            [] | [_] => None,
            _ if per_source_stable => Some(Spread::BySource),
            [first, rest @ ..] if rest.iter().all(|range| range.count() == first.count()) => {
                Some(Spread::InTurn)
            }
            _ => Some(Spread::AtRandom),
        };
        Self { random, fully_random, persistent, spread }
    }
}

/// How connections are spread over several ranges. Each range has a share of them that is its share
/// of the ports, so that no range is full long before the others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// Ranges of equal size take turns: this uses them up most evenly.
    InTurn,
    /// Ranges of different sizes are drawn.
    AtRandom,
    /// A hash of source address and port, which begins with [`SPREAD_SEED`], names the range.
    BySource,
}

/// Why a policy does not speak of a connection: the first of its conditions that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The destination is a group or a whole network.
    NotUnicast,
    /// It leaves by another interface.
    Interface,
    /// It is of the other address family.
    Family,
    /// It is of another protocol.
    Protocol,
    /// It begins elsewhere.
    Origin,
    /// Its source is in none of the networks.
    Source,
    /// Its destination is excepted.
    Destination,
    /// It was open before conntrack saw it.
    MidStream,
    /// Its source port is not one of those that are moved.
    SourcePort,
    /// Its source has no block of ports.
    NoBlock,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUnicast => "the destination is multicast or broadcast",
            Self::Interface => "it leaves by an interface out of scope",
            Self::Family => "its address family is out of scope",
            Self::Protocol => "its protocol is out of scope",
            Self::Origin => "its origin is out of scope",
            Self::Source => "its source address is out of scope",
            Self::Destination => "its destination address is excepted",
            Self::MidStream => "it was open before the policy came",
            Self::SourcePort => "its source port is not one that is moved",
            Self::NoBlock => "its source has no block of ports",
        })
    }
}

impl Resolved {
    /// What the policy does with a connection that opens with `flow`.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Decision {
        let conditions = [
            (self.picks_up(flow.segment()), Reason::MidStream),
            (self.moved.contains(flow.source_port()), Reason::SourcePort),
        ];
        match self.out_of_scope(flow).or_else(|| first_miss(&conditions)) {
            Some(reason) => Decision::Untouched(reason),
            None => self.translation(flow),
        }
    }

    /// Why the policy does not speak of `flow` whatever its source port, if it does not.
    #[must_use]
    pub fn out_of_scope(&self, flow: &Flow) -> Option<Reason> {
        let among = |nets: &[IpNet], address: IpAddr| nets.iter().any(|net| net.contains(&address));
        let (source, destination) = (flow.source().ip(), flow.destination().ip());
        first_miss(&[
            (flow.cast() == Cast::Unicast, Reason::NotUnicast),
            (self.egress.contains(flow.out_interface()), Reason::Interface),
            (self.families.contains(flow.family()), Reason::Family),
            (self.protocols.contains(flow.protocol()), Reason::Protocol),
            (self.comes_from(flow), Reason::Origin),
            (self.sources.is_empty() || among(&self.sources, source), Reason::Source),
            (!among(&self.except_destinations, destination), Reason::Destination),
        ])
    }

    fn comes_from(&self, flow: &Flow) -> bool {
        match self.origin {
            Origin::Both => true,
            Origin::Local => flow.in_interface().is_none(),
            Origin::Forwarded => flow.in_interface().is_some(),
        }
    }

    fn picks_up(&self, segment: Segment) -> bool {
        segment == Segment::Opening || self.pick_up == PickUp::Any
    }

    fn translation(&self, flow: &Flow) -> Decision {
        let keeps = self.choice.keeps_allowed_ports();
        let port = flow.source_port();
        match &self.allowed {
            Allowed::Ports(ports) => {
                let own = kept_range(ports, port).filter(|_| keeps);
                let ports = own.map_or_else(|| ports.clone(), PortSet::from);
                let manner = Manner::new(self.choice, &ports);
                Decision::Moved { ports, kept: own.map(|_| port), address: self.address, manner }
            }
            Allowed::Blocks(blocks) => match blocks.block_of(flow.source().ip()) {
                None => Decision::Untouched(Reason::NoBlock),
                Some(block) => {
                    let ports = block.ports.into();
                    let manner = Manner::new(self.choice, &ports);
                    let kept = Some(port).filter(|port| keeps && ports.contains(*port));
                    let address = block.outside.map_or(self.address, Address::Fixed);
                    Decision::Moved { ports, kept, address, manner }
                }
            },
        }
    }
}

/// The range in which a connection stays whose port is allowed already.
#[must_use]
pub fn kept_range(allowed: &PortSet, port: Port) -> Option<PortRange> {
    let is_only = allowed.ranges().len() == 1;
    allowed.range_of(port).filter(|range| is_only || range.count() >= MIN_KEPT_RANGE)
}

fn first_miss(conditions: &[(bool, Reason)]) -> Option<Reason> {
    conditions.iter().find(|(holds, _)| !holds).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests;
