//! Whether the parts of a policy fit together, and whether any connection can match it.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use ipnet::IpNet;

use crate::allocation::block_table::BlockTable;
use crate::flow::Flow;
use crate::net::address_range::AddressRange;
use crate::net::address_set::AddressSet;
use crate::net::family::{Families, Family};
use crate::net::interface::{InterfaceName, InterfacePattern};
use crate::net::network;
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, Protocols};
use crate::policy::address::Address;
use crate::policy::error::{GivenKey, PolicyError};
use crate::policy::keys::KEYS;
use crate::policy::scope::{Origin, OutInterfaces};
use crate::policy::selection::Distribution;
use crate::policy::spec::{PolicySpec, Target};

/// Networks whose addresses no packet of another host or of an uplink has as its source or, as a unicast
/// address, as its destination: RFC 1122 §3.2.1.3, RFC 5771, RFC 4291.
const NEVER_UNICAST: [&str; 7] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "ff00::/8",
];

impl PolicySpec {
    /// Whether the parts fit together.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        self.check_networks()?;
        self.check_interfaces()?;
        self.check_addresses()?;
        if let Target::Blocks(blocks) = &self.target {
            self.check_blocks(blocks)?;
        }
        self.check_ports()?;
        self.check_spread()?;
        match self.example_flow() {
            Some(_) => Ok(()),
            None => Err(self.conflict()),
        }
    }

    fn check_spread(&self) -> Result<(), PolicyError> {
        match self.spread {
            None | Some(Distribution::Hash) => Ok(()),
            Some(_) if self.per_source_stable => {
                let (first, second) = ("spread", "per-source-stable");
                let reason = "per-source-stable is the same as spread = hash";
                Err(PolicyError::Excludes { first, second, reason })
            }
            Some(Distribution::Remap) => self.check_remap(),
            Some(_) => Ok(()),
        }
    }

    /// Packets that come in are rewritten before conntrack knows their connection: what the scope depends on
    /// must be in them.
    fn check_remap(&self) -> Result<(), PolicyError> {
        let scope = &self.scope;
        let way_in = "remap cannot recognize it in packets that come in: remove one of them";
        let is_local = matches!(self.address, Address::Masquerade | Address::Fixed(_))
            || self.address == Address::Auto && matches!(self.target, Target::MapE(_));
        let conditions = [
            (!scope.sources.is_empty(), "sources", way_in),
            (scope.origin != Origin::Both, "origin", way_in),
            (!scope.in_interfaces.is_empty(), "in-interfaces", way_in),
            (scope.mark.is_some(), "mark", way_in),
            (!is_local, "address", "remap requires address = masquerade or a fixed address"),
        ];
        match conditions.into_iter().find(|(is_met, ..)| *is_met) {
            Some((_, second, reason)) => {
                Err(PolicyError::Excludes { first: "spread", second, reason })
            }
            None => Ok(()),
        }
    }

    fn check_ports(&self) -> Result<(), PolicyError> {
        let has_identifiers = self.protocols().iter().any(|protocol| !protocol.has_ports());
        if has_identifiers && self.scope.destination_ports != PortRange::ALL.into() {
            let (first, second) = ("protocols", "destination-ports");
            let reason = "ICMP has no ports: give it a policy of its own";
            return Err(PolicyError::Excludes { first, second, reason });
        }
        if self.translated().is_empty() {
            let (first, minus) = ("source-ports", "exempt-source-ports");
            return Err(PolicyError::NoPorts { what: "translate", first, minus });
        }
        if self.permitted_ports().is_some_and(|ports| ports.is_empty()) {
            let first = if matches!(self.target, Target::MapE(_)) { "map-e" } else { "to-ports" };
            return Err(PolicyError::NoPorts { what: "permit", first, minus: "except-ports" });
        }
        Ok(())
    }

    fn check_networks(&self) -> Result<(), PolicyError> {
        let scope = &self.scope;
        let lists = [
            ("sources", &scope.sources),
            ("destinations", &scope.destinations),
            ("except-destinations", &scope.except_destinations),
        ];
        for (key, networks) in lists {
            for network in networks {
                network::check(*network).map_err(|error| PolicyError::Network { key, error })?;
            }
        }
        Ok(())
    }

    fn check_interfaces(&self) -> Result<(), PolicyError> {
        let scope = &self.scope;
        let out = match &scope.out_interfaces {
            OutInterfaces::Matching(patterns) => patterns.as_slice(),
            OutInterfaces::Uplinks | OutInterfaces::Any => &[],
        };
        let is_loopback =
            |pattern: &_| matches!(pattern, InterfacePattern::Name(name) if name.is_loopback());
        for (key, patterns) in [("out-interfaces", out), ("in-interfaces", &scope.in_interfaces)] {
            if patterns.iter().any(is_loopback) {
                return Err(PolicyError::Loopback { key });
            }
        }
        let mut all = out.iter().chain(&scope.in_interfaces).chain(&scope.except_interfaces);
        match all.find(|pattern| pattern.is_reserved()) {
            Some(pattern) => Err(PolicyError::ReservedName { name: pattern.to_string().into() }),
            None => Ok(()),
        }
    }

    fn check_addresses(&self) -> Result<(), PolicyError> {
        let check = |key, range: AddressRange| match no_source(range) {
            Some((address, kind)) => Err(PolicyError::NotASource { key, address, kind }),
            None => Ok(()),
        };
        if let Address::Fixed(address) = self.address {
            check("address", address.into())?;
        }
        let Target::Blocks(table) = &self.target else { return Ok(()) };
        table.outside().into_iter().try_for_each(|range| check(table.key(), range))
    }

    fn check_blocks(&self, blocks: &BlockTable) -> Result<(), PolicyError> {
        let excludes =
            |second, reason| Err(PolicyError::Excludes { first: blocks.key(), second, reason });
        if !self.except_ports.is_empty() {
            return excludes("except-ports", "remove the ports from those of the blocks");
        }
        if self.per_source_stable {
            return excludes("per-source-stable", "each source has one block");
        }
        if self.spread.is_some() {
            return excludes("spread", "each source has one block");
        }
        if blocks.has_outside() && !matches!(self.address, Address::Auto | Address::Masquerade) {
            return excludes("address", "the blocks name the outside addresses");
        }
        Ok(())
    }

    /// The families in scope; a fixed address has only one, and MAP-E ports are those of IPv4 (RFC 7597).
    pub(crate) fn families(&self) -> Families {
        let only = match (self.address, &self.target) {
            (Address::Fixed(address), _) => Some(Family::of(address)),
            (_, Target::MapE(_)) => Some(Family::Ipv4),
            _ => None,
        };
        match only {
            Some(family) if self.scope.families.contains(family) => family.into(),
            _ => self.scope.families,
        }
    }

    /// Whether the policy translates no connection of a family, whatever its scope.
    pub(super) fn excludes(&self, family: Family) -> bool {
        let is_other = |address| Family::of(address) != family;
        matches!(self.address, Address::Fixed(address) if is_other(address))
            || matches!(self.target, Target::MapE(_)) && family != Family::Ipv4
            || !self.scope.families.contains(family)
    }

    /// The source addresses of a family that the policy translates.
    pub(super) fn source_set(&self, family: Family) -> AddressSet {
        if self.excludes(family) {
            return AddressSet::new(family, []);
        }
        let sources = AddressSet::within(family, &self.scope.sources).intersection(unicast(family));
        match &self.target {
            Target::Blocks(blocks) => {
                sources.intersection(&AddressSet::new(family, blocks.sources()))
            }
            Target::Ports(_) | Target::Local | Target::MapE(_) => sources,
        }
    }

    /// The destination addresses of a family that are in scope.
    pub(super) fn destination_set(&self, family: Family) -> AddressSet {
        AddressSet::within(family, &self.scope.destinations)
            .difference(&AddressSet::of(family, &self.scope.except_destinations))
            .intersection(unicast(family))
    }

    /// The protocols in scope: by default TCP and UDP, and with MAP-E and blocks the echo identifiers of ICMP
    /// (RFC 7597 §8.2) unless the scope has a condition on destination ports.
    #[must_use]
    pub fn protocols(&self) -> Protocols {
        let has_sets = matches!(self.target, Target::MapE(_) | Target::Blocks(_));
        let protocols = match self.scope.protocols {
            Some(protocols) => protocols,
            None if has_sets && self.scope.destination_ports == PortRange::ALL.into() => {
                Protocols::WITH_IDENTIFIERS
            }
            None => Protocols::DEFAULT,
        };
        let has_blocks = |family| match &self.target {
            Target::Blocks(blocks) => blocks.has_family(family),
            Target::Ports(_) | Target::Local | Target::MapE(_) => true,
        };
        let is_of = |family| self.families().contains(family) && has_blocks(family);
        let can_match = |protocol: &Protocol| protocol.family().is_none_or(is_of);
        protocols.iter().filter(can_match).collect()
    }

    /// The source ports that are translated.
    pub(crate) fn translated(&self) -> PortSet {
        self.source_ports.difference(&self.exempt)
    }

    /// The ports of the target less the excepted ones; `None` if they depend on the host or the
    /// source.
    pub(super) fn permitted_ports(&self) -> Option<PortSet> {
        let ports = match &self.target {
            Target::Ports(ports) => ports.clone(),
            Target::MapE(map_e) => map_e.ports(),
            Target::Local | Target::Blocks(_) => return None,
        };
        Some(ports.difference(&self.except_ports))
    }

    /// A connection that the policy translates; `None` if no connection can match.
    pub(super) fn example_flow(&self) -> Option<Flow> {
        let scope = &self.scope;
        let protocols = self.protocols();
        let source_port = self.translated().ports().next()?;
        let port = scope.destination_ports.ports().next()?;
        let out = self.example_out_interface()?;
        let came_in = match (scope.in_interfaces.first(), scope.origin) {
            (Some(_), Origin::Local) => return None,
            (Some(pattern), _) => Some(name_of(pattern, &[])?),
            (None, Origin::Forwarded) => Some("in0".parse().ok()?),
            (None, Origin::Both | Origin::Local) => None,
        };
        let end = |address: IpAddr, port: Port| SocketAddr::new(address, port.get());
        let flow = Family::ALL.into_iter().find_map(|family| {
            let protocol = protocols.iter().find(|protocol| protocol.is_of(family))?;
            let source = end(self.source_set(family).first()?, source_port);
            let destination = end(self.destination_set(family).first()?, port);
            Flow::new(protocol, source, destination, out.clone()).ok()
        })?;
        let flow = flow.with_mark(scope.mark.map_or(0, crate::Mark::value));
        Some(match came_in {
            Some(name) => flow.with_in_interface(name),
            None => flow,
        })
    }

    fn example_out_interface(&self) -> Option<InterfaceName> {
        let except = &self.scope.except_interfaces;
        match &self.scope.out_interfaces {
            OutInterfaces::Matching(patterns) => {
                patterns.iter().find_map(|pattern| name_of(pattern, except))
            }
            // The uplinks are known when the policy is resolved.
            OutInterfaces::Uplinks | OutInterfaces::Any => {
                let first = |c: char| format!("{c}*").parse().ok();
                ('a'..='z').filter_map(first).find_map(|pattern| name_of(&pattern, except))
            }
        }
    }

    /// A minimal set of keys that no connection meets together.
    fn conflict(&self) -> PolicyError {
        let mut spec = self.clone();
        let mut keys = Vec::new();
        for key in KEYS.iter().filter(|key| key.given(self).is_some()) {
            let mut without = spec.clone();
            key.reset(&mut without);
            if without.example_flow().is_none() {
                spec = without;
            } else {
                let value = key.given(self).map(|value| value.to_string()).unwrap_or_default();
                keys.push(GivenKey { key: key.name, value });
            }
        }
        PolicyError::NoConnection { keys }
    }
}

/// The addresses of a family that are the source or destination of a packet to one host.
fn unicast(family: Family) -> &'static AddressSet {
    fn of(family: Family) -> AddressSet {
        let never: Vec<IpNet> = NEVER_UNICAST.iter().filter_map(|text| text.parse().ok()).collect();
        AddressSet::all(family).difference(&AddressSet::of(family, &never))
    }
    static IPV4: LazyLock<AddressSet> = LazyLock::new(|| of(Family::Ipv4));
    static IPV6: LazyLock<AddressSet> = LazyLock::new(|| of(Family::Ipv6));
    match family {
        Family::Ipv4 => &IPV4,
        Family::Ipv6 => &IPV6,
    }
}

/// The first address of the range that no packet on a link to another network has as its source.
fn no_source(range: AddressRange) -> Option<(IpAddr, &'static str)> {
    const KINDS: [(&str, &str); 9] = [
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    ];
    let family = range.family();
    let set = AddressSet::new(family, [range]);
    KINDS.iter().find_map(|(network, kind)| {
        let network = AddressSet::of(family, &[network.parse().ok()?]);
        Some((set.intersection(&network).first()?, *kind))
    })
}

/// A name that only this pattern covers, other than loopback.
pub(super) fn name_of(
    pattern: &InterfacePattern,
    except: &[InterfacePattern],
) -> Option<InterfaceName> {
    let is_usable = |name: &InterfaceName| {
        !name.is_loopback() && !except.iter().any(|pattern| pattern.matches(name))
    };
    match pattern {
        InterfacePattern::Name(name) => Some(name.clone()).filter(is_usable),
        InterfacePattern::Prefix(prefix) => {
            let more = std::iter::once(None).chain(('0'..='9').chain('a'..='z').map(Some));
            let name = |c: Option<char>| {
                let end = c.map(String::from).unwrap_or_default();
                format!("{}{end}", prefix.as_str()).parse().ok()
            };
            more.filter_map(name).find(is_usable)
        }
    }
}
