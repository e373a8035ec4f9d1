//! One rule: what it matches, what it does, and the policy that it becomes.

use ipnet::IpNet;

use super::chain::hash;
use super::grammar::Module;
use super::options;
use super::reason::{Invalid, SkipReason, Unsupported};
use super::values::{NamedProtocol, ToSource};
use crate::net::family::{Families, Family};
use crate::net::interface::InterfacePattern;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, Protocols};
use crate::policy::scope::{Ipsec, OutInterfaces, Scope};
use crate::policy::selection::NatFlags;
use crate::policy::{Address, PickUp, Policy, PolicyError, PolicyName, PolicySpec};

/// The chain whose rules become policies.
pub(super) const CHAIN: &str = "POSTROUTING";

/// The options of a rule, as far as a policy has keys for them.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) family: Family,
    /// The protocol of `-p`, and whether a `!` precedes it.
    pub(super) protocol: NamedProtocol,
    pub(super) is_protocol_negated: bool,
    /// All else that restricts which packets it matches; the families and protocols come last.
    pub(super) scope: Scope,
    pub(super) source_ports: PortSet,
    /// A hash for each network of `-s` and `-d`: iptables makes a rule of each pair.
    pub(super) source_keys: Vec<u64>,
    pub(super) destination_keys: Vec<u64>,
    pub(super) pick_up: PickUp,
    pub(super) comment: Option<PolicyName>,
    pub(super) target: Option<Box<str>>,
    /// Whether it names ports to translate to, readable or not.
    pub(super) names_ports: bool,
    pub(super) to_ports: Option<PortRange>,
    pub(super) to_source: Option<ToSource>,
    pub(super) flags: NatFlags,
    /// A hash of everything else that makes two rules the same to `-D` and `-C`.
    pub(super) identity: u64,
    /// The first reason for which iptables refuses the rule, or it cannot be read.
    pub(super) invalid: Option<Invalid>,
    /// The first thing for which a policy has no key.
    pub(super) unsupported: Option<Unsupported>,
}

/// What a rule is for the chain.
#[derive(Debug)]
pub(super) enum Outcome {
    /// No rule.
    Refused(SkipReason),
    /// A rule without effect on source ports.
    Passing,
    /// A rule that is no policy; packets that it matches may not get to the rules after it.
    Skipped(Unsupported),
    /// A policy, and whether its comment names it.
    Policy(Policy, bool),
}

impl Rule {
    pub(super) fn new(family: Family) -> Self {
        let out_interfaces = OutInterfaces::Any;
        Self {
            family,
            protocol: NamedProtocol::All,
            is_protocol_negated: false,
            scope: Scope { out_interfaces, ipsec: Ipsec::Match, ..Scope::default() },
            source_ports: PortRange::ALL.into(),
            source_keys: Vec::new(),
            destination_keys: Vec::new(),
            pick_up: PickUp::Any,
            comment: None,
            target: None,
            names_ports: false,
            to_ports: None,
            to_source: None,
            flags: NatFlags::default(),
            identity: 0,
            invalid: None,
            unsupported: None,
        }
    }

    /// Whether it translates the source.
    pub(super) fn is_translation(&self) -> bool {
        matches!(self.target.as_deref(), Some("MASQUERADE" | "SNAT"))
    }

    /// The number of rules that iptables makes of it, at least 1.
    pub(super) fn count(&self) -> usize {
        self.source_keys.len().max(1).saturating_mul(self.destination_keys.len().max(1))
    }

    /// A hash for each rule that iptables makes of it: for each source, one for each destination.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        let or_any = |keys: &'_ [u64]| if keys.is_empty() { vec![0] } else { keys.to_vec() };
        let (identity, destinations) = (self.identity, or_any(&self.destination_keys));
        or_any(&self.source_keys).into_iter().flat_map(move |source| {
            destinations.clone().into_iter().map(move |to| hash((identity, source, to)))
        })
    }

    /// What it is in the chain POSTROUTING.
    pub(super) fn outcome(&mut self) -> Outcome {
        if let Some(invalid) = self.invalid.take() {
            return Outcome::Refused(invalid.into());
        }
        if self.is_translation() {
            return self.translation();
        }
        match self.target.take() {
            Some(target) if options::is_forbidden(&target) => {
                Outcome::Refused(Invalid::Hook { name: target }.into())
            }
            Some(target) if options::is_terminal(&target) => {
                Outcome::Skipped(Unsupported::Target { target })
            }
            _ => Outcome::Passing,
        }
    }

    fn translation(&mut self) -> Outcome {
        let (ports, address) = match self.to_source.take() {
            Some(ToSource { address, ports }) => (ports, address),
            None => (self.to_ports, Some(Address::Masquerade)),
        };
        let unsupported = self.unsupported.take();
        let Some(ports) = ports else {
            // Ports that no policy can have are ports all the same.
            let reason = unsupported.filter(|_| self.names_ports);
            return Outcome::Skipped(reason.unwrap_or(Unsupported::NoPorts));
        };
        if let Some(unsupported) = unsupported {
            return Outcome::Skipped(unsupported);
        }
        let Some(address) = address else {
            return Outcome::Skipped(Unsupported::AddressRange);
        };
        let is_named = self.comment.is_some();
        match self.policy(ports, address) {
            Ok(policy) => Outcome::Policy(policy, is_named),
            Err(error) => Outcome::Skipped(error.into()),
        }
    }

    fn policy(&mut self, ports: PortRange, address: Address) -> Result<Policy, PolicyError> {
        let protocol = self.protocol.number().and_then(Protocol::from_number);
        let scope = Scope {
            families: Families::from(self.family),
            protocols: Some(protocol.into_iter().collect()),
            ..self.scope.clone()
        };
        Policy::new(PolicySpec {
            name: self.comment.take().unwrap_or_default(),
            scope,
            source_ports: self.source_ports.clone(),
            flags: self.flags,
            address,
            pick_up: self.pick_up,
            ..PolicySpec::to(ports)
        })
    }

    /// What iptables and the kernel refuse when they have all of the rule.
    pub(super) fn check(&mut self, mut modules: impl Iterator<Item = (&'static Module, bool)>) {
        // iptables-nft compares the options of these two itself, and does not see the `!`.
        let is_native =
            |number| number == Protocol::Tcp.number() || number == Protocol::Udp.number();
        let wrong = modules.find(|(module, has_options)| {
            module.protocol.is_some_and(|number| {
                self.protocol != NamedProtocol::Number(number)
                    || (self.is_protocol_negated && !(is_native(number) && *has_options))
            })
        });
        if let Some((module, _)) = wrong {
            self.refuse(Invalid::WrongMatch { name: module.name.into() });
        }
    }

    pub(super) fn refuse(&mut self, invalid: Invalid) {
        self.invalid.get_or_insert(invalid);
    }

    pub(super) fn unsupport(&mut self, unsupported: Unsupported) {
        self.unsupported.get_or_insert(unsupported);
    }
}

/// The packets that a rule may match, as far as a policy has keys for it.
#[derive(Debug)]
pub(super) struct Matched {
    scope: Scope,
    protocols: Protocols,
    source_ports: PortSet,
}

impl From<Rule> for Matched {
    fn from(rule: Rule) -> Self {
        let is_any = rule.is_protocol_negated || rule.protocol == NamedProtocol::All;
        let named = rule.protocol.number().and_then(Protocol::from_number);
        let is_loopback = rule.unsupported == Some(Unsupported::Loopback);
        let protocols: Vec<_> = match named {
            _ if is_loopback => Vec::new(),
            _ if is_any => Protocol::ALL.to_vec(),
            named => named.into_iter().collect(),
        };
        let protocols = protocols.into_iter().collect();
        Self { scope: rule.scope, protocols, source_ports: rule.source_ports }
    }
}

impl Matched {
    /// Whether some packet may match the rule and the policy.
    pub(super) fn meets(&self, policy: &PolicySpec) -> bool {
        let (own, other, protocols) = (&self.scope, &policy.scope, policy.protocols());
        let networks_meet = |a: &[IpNet], b: &[IpNet]| {
            let meets = |a: &IpNet| b.iter().any(|b| a.contains(b) || b.contains(a));
            a.is_empty() || b.is_empty() || a.iter().any(meets)
        };
        self.protocols.iter().any(|protocol| protocols.contains(protocol))
            && networks_meet(&own.sources, &other.sources)
            && networks_meet(&own.destinations, &other.destinations)
            && interfaces_meet(&own.out_interfaces, &other.out_interfaces)
            && ports_meet(&self.source_ports, &policy.source_ports)
            && ports_meet(&own.destination_ports, &other.destination_ports)
    }
}

fn ports_meet(a: &PortSet, b: &PortSet) -> bool {
    !a.intersection(b).is_empty()
}

fn interfaces_meet(a: &OutInterfaces, b: &OutInterfaces) -> bool {
    let (OutInterfaces::Matching(a), OutInterfaces::Matching(b)) = (a, b) else { return true };
    a.iter().any(|a| b.iter().any(|b| patterns_meet(a, b)))
}

fn patterns_meet(a: &InterfacePattern, b: &InterfacePattern) -> bool {
    match (a, b) {
        (InterfacePattern::Prefix(a), InterfacePattern::Prefix(b)) => {
            a.as_str().starts_with(b.as_str()) || b.as_str().starts_with(a.as_str())
        }
        (InterfacePattern::Name(name), pattern) | (pattern, InterfacePattern::Name(name)) => {
            pattern.matches(name)
        }
    }
}
