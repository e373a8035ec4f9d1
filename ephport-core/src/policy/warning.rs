//! What correct policies do not do: keys without effect, and policies that no connection reaches. What they
//! do not do on one host is in [`host_warnings`](crate::policy::host_warnings).

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::net::address_set::AddressSet;
use crate::net::family::Family;
use crate::net::interface::{InterfaceName, InterfacePattern};
use crate::net::port::Port;
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;
use crate::policy::Policy;
use crate::policy::address::Address;
use crate::policy::name::PolicyName;
use crate::policy::scope::{Ipsec, Origin, OutInterfaces, Scope};
use crate::policy::selection::Distribution;
use crate::policy::spec::{ExpectedConnections, OpenConnections, PickUp, PolicySpec};
use crate::policy::timeouts::{Timeouts, Timer};

/// Something that a correct policy does not do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Warning {
    /// A key without effect.
    #[error("policy {policy}: {key} has no effect: {reason}")]
    NoEffect {
        /// The policy.
        policy: PolicyName,
        /// The key.
        key: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// A policy that no connection reaches.
    #[error(
        "policy {policy} has no effect: policy {before} before it matches every connection that it \
         matches"
    )]
    Unreachable {
        /// The policy.
        policy: PolicyName,
        /// The policy before it.
        before: PolicyName,
    },
    /// A pattern that covers no interface of the host now.
    #[error(
        "policy {policy}: no interface matches `{pattern}` now; the policy applies to it as soon as one \
         does{}{}",
        near.as_ref().map(|name| format!(". `{name}` exists")).unwrap_or_default(),
        if pattern.to_string().contains(',') { ". The comma is a part of its name: write each interface as an item of its own" } else { "" }
    )]
    NoInterface {
        /// The policy.
        policy: PolicyName,
        /// The pattern.
        pattern: InterfacePattern,
        /// An interface that exists and may be meant.
        near: Option<InterfaceName>,
    },
    /// A port of a bridge, bond or similar device as interface.
    #[error(
        "policy {policy}: `{pattern}` is a port of {device}, by which the host sends and receives: name {device}"
    )]
    PortDevice {
        /// The policy.
        policy: PolicyName,
        /// The pattern.
        pattern: InterfacePattern,
        /// The device that the port belongs to.
        device: InterfaceName,
    },
    /// UDP-Lite, which the kernel does not know.
    #[error(
        "policy {policy}: this kernel has no UDP-Lite: NAT changes the address of such packets but not \
         their port; with `enforce` they are dropped"
    )]
    NoUdpLite {
        /// The policy.
        policy: PolicyName,
    },
    /// Networks that the host routes by an uplink beside its default route, as those of other nodes.
    #[error(
        "policy {policy}: connections from other hosts to {} (own route by {interface}) get an address of \
         this host: except-destinations excludes networks that know the way back",
        listed(networks)
    )]
    RoutedNetworks {
        /// The policy.
        policy: PolicyName,
        /// The networks.
        networks: Vec<IpNet>,
        /// The output interface.
        interface: InterfaceName,
    },
    /// Private sources of other hosts that no NAT translates.
    #[error(
        "policy {policy}: address = \"keep\" applies to private sources of other hosts too, and replies \
         to these do not arrive from outside: use auto or masquerade, or origin = \"local\""
    )]
    PrivateSources {
        /// The policy.
        policy: PolicyName,
    },
    /// A bridge whose frames are enforced where another tool's NAT translates them.
    #[error(
        "policy {policy}: the frames of bridge {bridge} pass netfilter (bridge-nf-call-iptables): a frame \
         that another tool's NAT translates to a port that is not permitted is dropped"
    )]
    FilteredBridge {
        /// The policy.
        policy: PolicyName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// A VRF device as output interface.
    #[error(
        "policy {policy}: `{pattern}` is a VRF device, which sends nothing itself: name the interfaces in \
         the VRF"
    )]
    VrfDevice {
        /// The policy.
        policy: PolicyName,
        /// The pattern.
        pattern: InterfacePattern,
    },
    /// An address that this host does not have.
    #[error(
        "policy {policy}: no interface of this host has the address {address}: replies arrive only if \
         other hosts route it to this one"
    )]
    NoAddress {
        /// The policy.
        policy: PolicyName,
        /// The address.
        address: IpAddr,
    },
    /// Ports that a remapped set does not contain.
    #[error(
        "policy {policy}: spread = remap excludes ports {ports}: packets to services on them would be \
         rewritten"
    )]
    RemapExcludes {
        /// The policy.
        policy: PolicyName,
        /// The ports.
        ports: PortSet,
    },
    /// Ports of a remapped set may be forwarded by others.
    #[error(
        "policy {policy}: spread = remap: {tables} forwards packets, to ports that are not seen: name those \
         of the set in except-ports, or nothing arrives on them"
    )]
    UnseenForwards {
        /// The policy.
        policy: PolicyName,
        /// The tables, separated by commas.
        tables: String,
    },
    /// A timeout that no connection gets.
    #[error(
        "policy {policy}: the timeout {timer} has no effect: the policy matches no connection of its protocol \
         and destination port"
    )]
    UnusedTimeout {
        /// The policy.
        policy: PolicyName,
        /// The timer.
        timer: Timer,
    },
    /// A kernel without timeouts of connections, and a policy whose default has some.
    #[error(
        "policy {policy}: this kernel cannot assign timeouts (CONFIG_NF_CONNTRACK_TIMEOUT): connections have \
         those of the host, and DNS queries can fill a small set"
    )]
    NoTimeouts {
        /// The policy.
        policy: PolicyName,
    },
    /// A server of this host that opens connections from its own port.
    #[error(
        "policy {policy}: {service} of this host uses UDP port {port}, which is translated when this host \
         sends first: exempt-source-ports = \"{port}\" keeps it"
    )]
    ServerPort {
        /// The policy.
        policy: PolicyName,
        /// The name of the protocol.
        service: &'static str,
        /// The port.
        port: Port,
    },
}

/// The most networks in a message.
const MAX_LISTED: usize = 8;

fn listed(networks: &[IpNet]) -> String {
    let some = networks.iter().take(MAX_LISTED).map(ToString::to_string);
    let more = networks.len().saturating_sub(MAX_LISTED);
    let more = (more > 0).then(|| format!("{more} more"));
    some.chain(more).collect::<Vec<_>>().join(", ")
}

impl Warning {
    /// The stable name of this kind of warning, for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoEffect { .. } => "no-effect",
            Self::Unreachable { .. } => "unreachable",
            Self::NoInterface { .. } => "no-interface",
            Self::NoUdpLite { .. } => "no-udplite",
            Self::RoutedNetworks { .. } => "routed-networks",
            Self::PrivateSources { .. } => "private-sources",
            Self::FilteredBridge { .. } => "filtered-bridge",
            Self::VrfDevice { .. } => "vrf-device",
            Self::PortDevice { .. } => "port-device",
            Self::NoAddress { .. } => "no-address",
            Self::RemapExcludes { .. } => "remap-excludes",
            Self::UnseenForwards { .. } => "unseen-forwards",
            Self::UnusedTimeout { .. } => "unused-timeout",
            Self::NoTimeouts { .. } => "no-timeouts",
            Self::ServerPort { .. } => "server-port",
        }
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> &PolicyName {
        match self {
            Self::NoEffect { policy, .. }
            | Self::Unreachable { policy, .. }
            | Self::NoInterface { policy, .. }
            | Self::NoUdpLite { policy }
            | Self::RoutedNetworks { policy, .. }
            | Self::PrivateSources { policy }
            | Self::FilteredBridge { policy, .. }
            | Self::VrfDevice { policy, .. }
            | Self::PortDevice { policy, .. }
            | Self::NoAddress { policy, .. }
            | Self::RemapExcludes { policy, .. }
            | Self::UnseenForwards { policy, .. }
            | Self::UnusedTimeout { policy, .. }
            | Self::NoTimeouts { policy }
            | Self::ServerPort { policy, .. } => policy,
        }
    }
}

/// The warnings about policies, in order of precedence, that do not depend on the host.
#[must_use]
pub fn warnings(policies: &[Policy]) -> Vec<Warning> {
    let (mut warnings, mut earlier) = (Vec::new(), Earlier::default());
    for (index, policy) in policies.iter().enumerate() {
        warnings.extend(no_effects(policy));
        warnings.extend(unused_timeouts(policy));
        let candidates = earlier.candidates(policy.spec()).into_iter();
        let mut before = candidates.filter_map(|index| policies.get(index));
        if let Some(before) = before.find(|before| covers(before.spec(), policy.spec())) {
            let (policy, before) = (policy.name().clone(), before.name().clone());
            warnings.push(Warning::Unreachable { policy, before });
        }
        earlier.add(index, policy.spec());
    }
    warnings
}

/// The indexes of earlier policies by their sources.
#[derive(Default)]
struct Earlier {
    /// The policies for any source.
    any: Vec<usize>,
    networks: HashMap<IpNet, Vec<usize>>,
}

impl Earlier {
    fn add(&mut self, index: usize, policy: &PolicySpec) {
        match policy.scope.sources.as_slice() {
            [] => self.any.push(index),
            sources => sources
                .iter()
                .for_each(|net| self.networks.entry(net.trunc()).or_default().push(index)),
        }
    }

    /// The earlier policies that may cover this one, ascending: one of its addresses is a source of
    /// each.
    fn candidates(&self, policy: &PolicySpec) -> Vec<usize> {
        let mut candidates = self.any.clone();
        let first = Family::ALL.into_iter().find_map(|family| policy.source_set(family).first());
        if let Some(address) = first.filter(|_| !self.networks.is_empty()) {
            let networks = (0..=128).map_while(|len| IpNet::new(address, len).ok());
            let found = networks.filter_map(|net| self.networks.get(&net.trunc()));
            candidates.extend(found.flatten());
            candidates.sort_unstable();
        }
        candidates
    }
}

fn no_effects(policy: &Policy) -> Vec<Warning> {
    let spec = policy.spec();
    let (flags, scope) = (spec.flags, &spec.scope);
    let is_random = !flags.keep_permitted_ports();
    let has_one_range = spec.permitted_ports().is_some_and(|ports| ports.ranges().len() == 1);
    let protocols = spec.protocols();
    let has_tcp = protocols.contains(Protocol::Tcp);
    let is_stable = spec.per_source_stable || spec.spread == Some(Distribution::Hash);
    let distribution = if spec.spread.is_some() { "spread" } else { "per-source-stable" };
    let checks = [
        (
            flags.random && flags.fully_random,
            "random",
            "fully-random chooses a random port already",
        ),
        (is_stable && is_random, distribution, "a random port differs for each destination"),
        (
            (spec.per_source_stable || spec.spread.is_some()) && has_one_range,
            distribution,
            "there is only one range",
        ),
        (
            spec.per_source_stable && spec.spread == Some(Distribution::Hash),
            "per-source-stable",
            "spread = hash is the same",
        ),
        (
            flags.persistent && matches!(spec.address, Address::Keep | Address::Fixed(_)),
            "persistent",
            "the address is the same for all connections already",
        ),
        (spec.pick_up == PickUp::Any && !has_tcp, "pick-up", "the policy does not match tcp"),
        (
            spec.open_connections == OpenConnections::Drop && !spec.enforce,
            "open-connections",
            "the policy is not enforced",
        ),
        (
            spec.expected_connections == ExpectedConnections::Drop && !spec.enforce,
            "expected-connections",
            "the policy is not enforced",
        ),
        (
            !spec.enforce
                && !spec.exempt.is_empty()
                && spec.exempt.intersection(&spec.source_ports).is_empty(),
            "exempt-source-ports",
            "none of them is in source-ports",
        ),
        (has_foreign_exceptions(spec), "except-ports", "none of them is permitted by the target"),
        (
            has_unreached_destinations(spec),
            "except-destinations",
            "none of them is in destinations",
        ),
        (
            has_unreached_interfaces(scope),
            "except-interfaces",
            "none of them is an output interface of the policy",
        ),
    ];
    let wrong = checks.into_iter().filter(|(is_wrong, ..)| *is_wrong);
    wrong
        .map(|(_, key, reason)| Warning::NoEffect { policy: policy.name().clone(), key, reason })
        .collect()
}

/// The timeouts that no connection of the policy gets.
fn unused_timeouts(policy: &Policy) -> Vec<Warning> {
    let spec = policy.spec();
    let is_used = |timer: &Timer| {
        let mut protocols = spec.protocols().iter();
        protocols.any(|protocol| timer.applies_to(protocol, &spec.scope.destination_ports))
    };
    let timers = spec.timeouts.iter().flat_map(Timeouts::iter).map(|(timer, _)| timer);
    let unused = timers.filter(|timer| !is_used(timer));
    unused.map(|timer| Warning::UnusedTimeout { policy: policy.name().clone(), timer }).collect()
}

fn has_foreign_exceptions(spec: &PolicySpec) -> bool {
    let all = PolicySpec { except_ports: PortSet::EMPTY, ..spec.clone() };
    let is_foreign = |ports: PortSet| ports.intersection(&spec.except_ports).is_empty();
    !spec.except_ports.is_empty() && all.permitted_ports().is_some_and(is_foreign)
}

fn has_unreached_destinations(spec: &PolicySpec) -> bool {
    let scope = &spec.scope;
    let is_unreached = |family: Family| {
        let excepted = AddressSet::of(family, &scope.except_destinations);
        AddressSet::within(family, &scope.destinations).intersection(&excepted).is_empty()
    };
    !scope.except_destinations.is_empty() && spec.families().iter().all(is_unreached)
}

/// Whether no excepted interface can be an output interface.
fn has_unreached_interfaces(scope: &Scope) -> bool {
    let is_loopback = |pattern: &InterfacePattern| matches!(pattern, InterfacePattern::Name(name) if name.is_loopback());
    let is_unreached = |except: &InterfacePattern| match &scope.out_interfaces {
        OutInterfaces::Matching(patterns) => {
            is_loopback(except) || !patterns.iter().any(|pattern| overlaps(pattern, except))
        }
        OutInterfaces::Uplinks | OutInterfaces::Any => is_loopback(except),
    };
    !scope.except_interfaces.is_empty() && scope.except_interfaces.iter().all(is_unreached)
}

/// Whether both match a name.
pub(crate) fn overlaps(a: &InterfacePattern, b: &InterfacePattern) -> bool {
    let matches = |pattern: &InterfacePattern, name: &InterfaceName| pattern.matches(name);
    match (a, b) {
        (InterfacePattern::Name(name), other) | (other, InterfacePattern::Name(name)) => {
            matches(other, name)
        }
        (InterfacePattern::Prefix(a), InterfacePattern::Prefix(b)) => {
            a.as_str().starts_with(b.as_str()) || b.as_str().starts_with(a.as_str())
        }
    }
}

/// Whether the policy matches every connection that `other` matches. It may be true of policies for
/// which this is false, but never the reverse.
fn covers(policy: &PolicySpec, other: &PolicySpec) -> bool {
    let has_tcp = other.protocols().contains(Protocol::Tcp);
    let picks_up = policy.pick_up == PickUp::Any || other.pick_up == PickUp::Opening || !has_tcp;
    let protocols = policy.protocols();
    picks_up
        && other.protocols().iter().all(|protocol| protocols.contains(protocol))
        && covers_packets(&policy.scope, &other.scope)
        && covers_interfaces(&policy.scope, &other.scope)
        && other.translated().is_subset(&policy.translated())
        && Family::ALL.into_iter().all(|family| {
            other.source_set(family).is_subset(&policy.source_set(family))
                && (other.source_set(family).is_empty()
                    || other.destination_set(family).is_subset(&policy.destination_set(family)))
        })
}

fn covers_interfaces(scope: &Scope, other: &Scope) -> bool {
    let within = |inner: &[InterfacePattern], outer: &[InterfacePattern]| {
        inner.iter().all(|inner| outer.iter().any(|outer| is_within(inner, outer)))
    };
    let out = match (&scope.out_interfaces, &other.out_interfaces) {
        (OutInterfaces::Any, _) | (OutInterfaces::Uplinks, OutInterfaces::Uplinks) => true,
        (OutInterfaces::Matching(outer), OutInterfaces::Matching(inner)) => {
            within(inner.as_slice(), outer.as_slice())
        }
        _ => false,
    };
    let comes_in = scope.in_interfaces.is_empty()
        || !other.in_interfaces.is_empty() && within(&other.in_interfaces, &scope.in_interfaces);
    out && comes_in && within(&scope.except_interfaces, &other.except_interfaces)
}

fn is_within(inner: &InterfacePattern, outer: &InterfacePattern) -> bool {
    match (inner, outer) {
        (InterfacePattern::Name(name), outer) => outer.matches(name),
        (InterfacePattern::Prefix(inner), InterfacePattern::Prefix(outer)) => {
            inner.as_str().starts_with(outer.as_str())
        }
        (InterfacePattern::Prefix(_), InterfacePattern::Name(_)) => false,
    }
}

fn covers_packets(scope: &Scope, other: &Scope) -> bool {
    let origin = scope.origin == Origin::Both
        || scope.origin == other.origin
        || scope.origin == Origin::Forwarded && !other.in_interfaces.is_empty();
    let mark = scope.mark.is_none_or(|mark| {
        other.mark.is_some_and(|other| {
            other.mask() & mark.mask() == mark.mask() && mark.matches(other.value())
        })
    });
    origin
        && mark
        && (scope.ipsec == Ipsec::Match || scope.ipsec == other.ipsec)
        && other.destination_ports.is_subset(&scope.destination_ports)
}
