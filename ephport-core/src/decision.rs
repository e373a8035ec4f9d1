//! The meaning of policies: what happens to a connection, and why.
//!
//! The compiled program must do the same. The first policy that matches a connection decides, for
//! translation and for enforcement alike.

mod enforcement;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::flow::{AddressType, Flow, SourceType, TcpOpening};
use crate::net::address_set::AddressSet;
use crate::net::family::Family;
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;
use crate::policy::scope::{Ipsec, Origin};
use crate::policy::selection::{Distribution, PortSelection, Translation};
use crate::policy::{Address, ConnectionTimeouts, PickUp};
use crate::remap::Remap;
use crate::resolve::{PermittedPorts, ResolvedPolicy};

pub use enforcement::{CtState, enforcing_policy, permits, permits_authenticated};

/// The smallest of several ranges in which a permitted source port is kept, in ports. A connection
/// that is kept in its range cannot get a port of another when its own is taken, and a small range
/// is soon full.
pub const MIN_KEPT_RANGE: u32 = 64;

/// The seed of the hash that distributes connections by source: the same on every host, after every
/// boot and in every version, so that a source keeps its range.
pub const HASH_SEED: u32 = 1;

/// The networks whose addresses are not valid outside: private use (RFC 1918), shared address space
/// (RFC 6598), link-local (RFC 3927, RFC 4291 §2.5.6) and unique local addresses (RFC 4193).
pub const PRIVATE_NETWORKS: [IpNet; 7] = [
    network_v4([10, 0, 0, 0], 8),
    network_v4([172, 16, 0, 0], 12),
    network_v4([192, 168, 0, 0], 16),
    network_v4([100, 64, 0, 0], 10),
    network_v4([169, 254, 0, 0], 16),
    network_v6(0xfc00, 7),
    network_v6(0xfe80, 10),
];

const fn network_v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), len)
}

const fn network_v6(first: u16, len: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), len)
}

/// The decision of one policy on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Decision {
    /// The connection is translated.
    Translated(Translation),
    /// The policy does not match the connection.
    Untouched(Reason),
}

/// The effect of all policies, or of a program, on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Effect {
    /// The connection is translated.
    Translated(Translation),
    /// The connection is not translated.
    Untouched,
    /// The connection is dropped.
    Dropped,
}

/// The first condition of a policy that a connection does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Reason {
    /// The destination is a multicast or broadcast address.
    NotUnicast,
    /// The packet is a bridged frame or of a transparent-proxy socket.
    Bridged,
    /// The output interface is out of scope.
    Interface,
    /// The output interface is excepted.
    ExceptedInterface,
    /// The input interface is out of scope, or the connection begins at this host.
    InInterface,
    /// The address family is out of scope.
    Family,
    /// The protocol is out of scope.
    Protocol,
    /// The origin is out of scope.
    Origin,
    /// The source address is outside of the networks.
    Source,
    /// The destination address is outside of the networks.
    Destination,
    /// The destination address is excepted.
    ExceptedDestination,
    /// The destination port is out of scope.
    DestinationPort,
    /// The mark is out of scope.
    Mark,
    /// IPsec will protect the packet.
    Ipsec,
    /// The connection was open before conntrack saw it.
    MidStream,
    /// A conntrack helper expected the connection: NAT binds it before any rule.
    Expected,
    /// The source port is not translated.
    SourcePort,
    /// The source has no block of ports.
    NoBlock,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUnicast => "the destination is multicast or broadcast",
            Self::Bridged => "the packet is bridged or of a transparent-proxy socket",
            Self::Interface => "the output interface is out of scope",
            Self::ExceptedInterface => "the output interface is excepted",
            Self::InInterface => "the input interface is out of scope",
            Self::Family => "the address family is out of scope",
            Self::Protocol => "the protocol is out of scope",
            Self::Origin => "the origin is out of scope",
            Self::Source => "the source address is out of scope",
            Self::Destination => "the destination address is out of scope",
            Self::ExceptedDestination => "the destination address is excepted",
            Self::DestinationPort => "the destination port is out of scope",
            Self::Mark => "the mark is out of scope",
            Self::Ipsec => "IPsec protects the packet",
            Self::MidStream => "the connection was open before the policy was applied",
            Self::Expected => "a conntrack helper expected the connection",
            Self::SourcePort => "the source port is not one that is translated",
            Self::NoBlock => "the source has no block of ports",
        })
    }
}

impl ResolvedPolicy {
    /// The decision of this policy on a connection that opens with `flow`.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Decision {
        let conditions = [
            (!flow.is_expected(), Reason::Expected),
            (self.picks_up(flow.opening()), Reason::MidStream),
            (self.translates(flow.protocol(), flow.source_port()), Reason::SourcePort),
        ];
        match self.out_of_scope(flow).or_else(|| first_unmet(&conditions)) {
            Some(reason) => Decision::Untouched(reason),
            None => self.translation(flow),
        }
    }

    /// The reason why `flow` is out of scope whatever its source port; `None` if it is in scope.
    #[must_use]
    pub fn out_of_scope(&self, flow: &Flow) -> Option<Reason> {
        let (source, destination) = (flow.source().ip(), flow.destination());
        self.path_out_of_scope(flow)
            .or_else(|| self.endpoints_out_of_scope(flow.protocol(), source, destination))
            .or_else(|| self.packet_out_of_scope(flow))
    }

    /// The same for a packet whose protocol and ports cannot be read, because they are after an
    /// authentication header.
    fn authenticated_out_of_scope(&self, flow: &Flow) -> Option<Reason> {
        let (source, destination) = (flow.source().ip(), flow.destination().ip());
        self.path_out_of_scope(flow)
            .or_else(|| self.unmet_endpoints(None, source, destination, true))
            .or_else(|| self.packet_out_of_scope(flow))
    }

    fn path_out_of_scope(&self, flow: &Flow) -> Option<Reason> {
        let out = flow.out_interface();
        let is_excepted = self.except_interfaces.iter().any(|pattern| pattern.matches(out));
        first_unmet(&[
            (flow.destination_type() == AddressType::Unicast, Reason::NotUnicast),
            (!flow.is_bridged(), Reason::Bridged),
            (self.out_interfaces.contains(out), Reason::Interface),
            (!is_excepted, Reason::ExceptedInterface),
            (self.has_in_interface(flow), Reason::InInterface),
            (self.has_origin(flow), Reason::Origin),
        ])
    }

    fn packet_out_of_scope(&self, flow: &Flow) -> Option<Reason> {
        first_unmet(&[
            (self.mark.is_none_or(|mark| mark.matches(flow.mark())), Reason::Mark),
            (self.ipsec == Ipsec::Match || !flow.is_ipsec(), Reason::Ipsec),
        ])
    }

    /// The reason why a connection between these addresses is out of scope whatever its interfaces,
    /// its origin and the marks of its packets; `None` if it can be in scope.
    #[must_use]
    pub fn endpoints_out_of_scope(
        &self,
        protocol: Protocol,
        source: IpAddr,
        destination: SocketAddr,
    ) -> Option<Reason> {
        let port = Port::new(destination.port());
        let has_port =
            !protocol.has_ports() || port.is_ok_and(|port| self.destination_ports.contains(port));
        self.unmet_endpoints(Some(protocol), source, destination.ip(), has_port)
    }

    /// A protocol that is not known meets each condition. `has_port`: the destination port is in scope.
    fn unmet_endpoints(
        &self,
        protocol: Option<Protocol>,
        source: IpAddr,
        destination: IpAddr,
        has_port: bool,
    ) -> Option<Reason> {
        let among = |nets: &[IpNet], address: IpAddr| nets.iter().any(|net| net.contains(&address));
        let within = |nets: &[IpNet], address: IpAddr| nets.is_empty() || among(nets, address);
        first_unmet(&[
            (self.families.contains(Family::of(source)), Reason::Family),
            (protocol.is_none_or(|known| self.protocols.contains(known)), Reason::Protocol),
            (within(&self.sources, source), Reason::Source),
            (within(&self.destinations, destination), Reason::Destination),
            (!among(&self.except_destinations, destination), Reason::ExceptedDestination),
            (has_port, Reason::DestinationPort),
        ])
    }

    /// Whether the policy translates the source port. An identifier is always translated: source ports keep
    /// the meaning that privileged ones have, and identifiers have none.
    #[must_use]
    pub fn translates(&self, protocol: Protocol, port: Port) -> bool {
        !protocol.has_ports() || self.translated.contains(port)
    }

    fn has_in_interface(&self, flow: &Flow) -> bool {
        let covers = |name| self.in_interfaces.iter().any(|pattern| pattern.matches(name));
        self.in_interfaces.is_empty() || flow.in_interface().is_some_and(covers)
    }

    fn has_origin(&self, flow: &Flow) -> bool {
        match self.origin {
            Origin::Both => true,
            Origin::Local => flow.in_interface().is_none(),
            Origin::Forwarded => flow.in_interface().is_some(),
        }
    }

    fn picks_up(&self, opening: TcpOpening) -> bool {
        opening == TcpOpening::Opening || self.pick_up == PickUp::Any
    }

    /// The source address after translation: [`Address::Auto`] is one of masquerade and keep for each
    /// connection.
    fn address_of(&self, flow: &Flow) -> Address {
        match self.address {
            Address::Auto if self.keeps_source(flow) => Address::Keep,
            Address::Auto => Address::Masquerade,
            address => address,
        }
    }

    /// The part of [`PRIVATE_NETWORKS`] in which sources of the policy can be, and whether every source is
    /// in it.
    #[must_use]
    pub fn private_sources(&self) -> (Vec<IpNet>, bool) {
        let (mut private, mut is_all) = (Vec::new(), true);
        for family in self.families.iter() {
            let mut sources = AddressSet::within(family, &self.sources);
            if let PermittedPorts::Blocks(blocks) = &self.permitted {
                sources = sources.intersection(&AddressSet::new(family, blocks.sources()));
            }
            let meets =
                |net: &&IpNet| !AddressSet::of(family, &[**net]).intersection(&sources).is_empty();
            private.extend(PRIVATE_NETWORKS.iter().filter(meets));
            is_all &= sources.is_subset(&AddressSet::of(family, &PRIVATE_NETWORKS));
        }
        (private, is_all)
    }

    /// Whether [`Address::Auto`] keeps the source address of `flow`: it is valid outside.
    fn keeps_source(&self, flow: &Flow) -> bool {
        let source = flow.source().ip();
        match flow.source_type() {
            SourceType::OutInterface => true,
            SourceType::OtherInterface => self.kept_sources.contains(&source),
            SourceType::NotLocal => !PRIVATE_NETWORKS.iter().any(|net| net.contains(&source)),
        }
    }

    /// The distribution of connections that no virtual range has, as of echo requests.
    #[must_use]
    pub fn spread_of_ranges(&self) -> Option<Distribution> {
        self.spread.filter(|spread| *spread != Distribution::Remap)
    }

    fn translation(&self, flow: &Flow) -> Decision {
        let keeps = self.flags.keep_permitted_ports();
        let port = flow.source_port();
        let (ports, keep, address) = match &self.permitted {
            PermittedPorts::Set(ports) => {
                if let Some(remap) = self.remap.as_ref().filter(|_| flow.protocol().has_ports()) {
                    return self.remapped(remap, flow);
                }
                let own = kept_range(ports, port).filter(|_| keeps);
                let (ports, keep) =
                    (own.map_or_else(|| ports.clone(), PortSet::from), own.map(|_| port));
                (ports, keep, self.address_of(flow))
            }
            PermittedPorts::Blocks(blocks) => match blocks.block_of(flow.source().ip()) {
                None => return Decision::Untouched(Reason::NoBlock),
                Some(block) => {
                    let ports = PortSet::from(block.ports);
                    let keep = Some(port).filter(|port| keeps && ports.contains(*port));
                    (
                        ports,
                        keep,
                        block.outside.map_or_else(|| self.address_of(flow), Address::Fixed),
                    )
                }
            },
        };
        let spread =
            if flow.protocol().has_ports() { self.spread } else { self.spread_of_ranges() };
        let distribution = Distribution::over(&ports, spread);
        let selection = PortSelection { flags: self.flags, distribution };
        let translation = Translation::new(ports, keep, address, selection);
        Decision::Translated(translation.with_timeouts(self.timeouts_of(flow)))
    }

    fn remapped(&self, remap: &Remap, flow: &Flow) -> Decision {
        let port = flow.source_port();
        let range = remap.range_for(port);
        let ports = if range == remap.virtual_range() {
            self.permitted.ports()
        } else {
            remap.real_ports(range)
        };
        let is_kept = self.flags.keep_permitted_ports() && range.contains(port);
        let is_rewritten = ports != range.into();
        let distribution = is_rewritten.then_some(Distribution::Remap);
        let keep = is_kept.then_some(port);
        let selection = PortSelection { flags: self.flags, distribution };
        let translation = Translation::new(ports, keep, self.address_of(flow), selection);
        Decision::Translated(translation.with_timeouts(self.timeouts_of(flow)))
    }

    /// The timeouts of a connection that the policy translates.
    fn timeouts_of(&self, flow: &Flow) -> ConnectionTimeouts {
        self.timeouts.of(flow.protocol(), Port::new(flow.destination().port()).ok())
    }
}

/// The range in which a connection with the permitted source port `port` is kept.
#[must_use]
pub fn kept_range(permitted: &PortSet, port: Port) -> Option<PortRange> {
    let is_only = permitted.ranges().len() == 1;
    permitted.range_of(port).filter(|range| is_only || range.count() >= MIN_KEPT_RANGE)
}

fn first_unmet(conditions: &[(bool, Reason)]) -> Option<Reason> {
    conditions.iter().find(|(is_met, _)| !is_met).map(|(_, reason)| *reason)
}

/// The evaluation of several policies, in order, for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evaluation<'a> {
    /// The first policy that translates the connection; `None` if no policy does.
    pub matched: Option<Match<'a>>,
    /// The policies before that one, each with its reason; without a match, all of them.
    pub non_matches: Vec<NonMatch<'a>>,
}

/// The policy that translates a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Match<'a> {
    /// The index of the policy, from 0.
    pub index: usize,
    /// The policy.
    pub policy: &'a ResolvedPolicy,
    /// The translation.
    pub translation: Translation,
}

/// A policy that does not match a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NonMatch<'a> {
    /// The index of the policy, from 0.
    pub index: usize,
    /// The policy.
    pub policy: &'a ResolvedPolicy,
    /// The condition that the connection does not meet.
    pub reason: Reason,
}

impl Evaluation<'_> {
    /// The effect of the policies on the connection.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match &self.matched {
            Some(matched) => Effect::Translated(matched.translation.clone()),
            None => Effect::Untouched,
        }
    }

    /// The opening packet as enforcement sees it, after translation, with its source before: `flow` unless
    /// another source address takes it out of IPsec.
    ///
    /// The kernel looks the IPsec policies (xfrm) up again for a packet whose source NAT changed, by the new one
    /// (`nf_xfrm_me_harder`). None is assumed to match an address that the packet did not have before.
    #[must_use]
    pub fn judged(&self, flow: &Flow) -> Flow {
        let keeps_address = self.matched.as_ref().is_none_or(|matched| {
            match matched.translation.address {
                Address::Keep => true,
                Address::Fixed(address) => address == flow.source().ip(),
                // The address of the output interface, which this source is.
                Address::Masquerade | Address::Auto => {
                    flow.source_type() == SourceType::OutInterface
                }
            }
        });
        if keeps_address { flow.clone() } else { flow.clone().without_ipsec() }
    }
}

/// Evaluate the policies for a connection that opens with `flow`: the first that translates it decides.
#[must_use]
pub fn evaluate<'a>(policies: &'a [ResolvedPolicy], flow: &Flow) -> Evaluation<'a> {
    let mut non_matches = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        match policy.decide(flow) {
            Decision::Untouched(reason) => non_matches.push(NonMatch { index, policy, reason }),
            Decision::Translated(translation) => {
                return Evaluation {
                    matched: Some(Match { index, policy, translation }),
                    non_matches,
                };
            }
        }
    }
    Evaluation { matched: None, non_matches }
}

#[cfg(test)]
mod tests;
