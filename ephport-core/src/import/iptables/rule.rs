//! One rule: what it says, and what becomes of it.

use ipnet::IpNet;

use super::Refusal;
use super::options::Options;
use super::values::ToSource;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;
use crate::policy::scope::{Families, Family, Origin, OutInterfaces, Scope};
use crate::policy::selection::NatFlags;
use crate::policy::{Address, PickUp, Policy, PolicyName, PolicySpec, Target};

/// Where in its chain a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind the others.
    Last,
    /// At this index.
    At(usize),
}

/// What a rule says.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) table: Box<str>,
    pub(super) family: Family,
    /// The chain that it is added to, if it is.
    pub(super) chain: Option<Box<str>>,
    pub(super) place: Place,
    /// Whether there is a `-p` that is not for all protocols.
    pub(super) names_protocol: bool,
    /// The protocol, if a policy can govern it.
    pub(super) protocol: Option<Protocol>,
    pub(super) source_ports: PortSet,
    pub(super) out_interfaces: OutInterfaces,
    pub(super) sources: Vec<IpNet>,
    pub(super) except_destinations: Vec<IpNet>,
    pub(super) comment: Option<Box<str>>,
    pub(super) target: Option<Box<str>>,
    pub(super) to_ports: Option<PortRange>,
    pub(super) to_source: Option<ToSource>,
    pub(super) flags: NatFlags,
    /// The names after `-m`.
    pub(super) matches: Vec<Box<str>>,
    /// The first thing for which iptables refuses the rule, or that nobody can read.
    pub(super) wrong: Option<Refusal>,
    /// The first thing that a policy cannot say.
    pub(super) unsaid: Option<Refusal>,
}

/// What becomes of a rule.
#[derive(Debug)]
pub(super) enum Effect {
    /// It has nothing to do with source ports.
    Nothing,
    /// There is no such rule in the chain.
    Refused(Refusal),
    /// It is in the chain, but no policy.
    LeftOut(Refusal),
    /// It is this policy; the name is its comment.
    Policy(Box<PolicySpec>, Option<PolicyName>),
}

impl Rule {
    pub(super) fn new(table: &str, family: Family) -> Self {
        Self {
            table: table.into(),
            family,
            chain: None,
            place: Place::Last,
            names_protocol: false,
            protocol: None,
            source_ports: PortRange::ALL.into(),
            out_interfaces: OutInterfaces::Any,
            sources: Vec::new(),
            except_destinations: Vec::new(),
            comment: None,
            target: None,
            to_ports: None,
            to_source: None,
            flags: NatFlags::default(),
            matches: Vec::new(),
            wrong: None,
            unsaid: None,
        }
    }

    /// Reads a command, or a line of a dump of the table and family `dump`.
    pub(super) fn read(words: Vec<String>, dump: (Option<&str>, Family)) -> Result<Self, Refusal> {
        let (table, family) = (dump.0.unwrap_or("nat"), dump.1);
        if words.first().is_none_or(|word| word.starts_with(['-', '['])) {
            return Ok(Options::read(words, Self::new(table, family), true));
        }
        let is_wrapped = |word: &String| matches!(word.as_str(), "$" | "sudo" | "doas");
        let program = words.iter().position(|word| family_of(word).is_some());
        let before = program.and_then(|at| words.get(..at)).unwrap_or_default();
        let family = program.and_then(|at| words.get(at)).and_then(|word| family_of(word));
        let Some(family) = family.filter(|_| before.first().is_none_or(is_wrapped)) else {
            return Err(Refusal::NotARule);
        };
        let options = words.iter().skip(before.len() + 1).cloned().collect();
        Ok(Options::read(options, Self::new("filter", family), false))
    }

    /// What becomes of it.
    pub(super) fn effect(mut self) -> Effect {
        if &*self.table != "nat" {
            return Effect::Nothing;
        }
        match (self.chain.take(), self.target.as_deref()) {
            (Some(chain), Some("MASQUERADE" | "SNAT")) => self.translation(chain),
            (Some(chain), Some(target)) if &*chain == "POSTROUTING" => {
                Effect::LeftOut(Refusal::Target { target: target.into() })
            }
            (Some(_), Some(_)) => Effect::Nothing,
            (_, None) | (None, _) => self.wrong.map_or(Effect::Nothing, Effect::Refused),
        }
    }

    fn translation(mut self, chain: Box<str>) -> Effect {
        if let Some(wrong) = self.wrong.take().or_else(|| self.inconsistency()) {
            return Effect::Refused(wrong);
        }
        let (ports, address) = match self.to_source.take() {
            Some(ToSource { address, ports }) => (ports, address),
            None => (self.to_ports, Some(Address::Masquerade)),
        };
        let is_elsewhere = &*chain != "POSTROUTING";
        let Some(ports) = ports else {
            // A rule of another chain takes no place in POSTROUTING.
            let effect = if is_elsewhere { Effect::Refused } else { Effect::LeftOut };
            return effect(Refusal::NoPorts);
        };
        if is_elsewhere {
            return Effect::Refused(Refusal::Chain { chain });
        }
        let range = || address.is_none().then_some(Refusal::AddressRange);
        if let Some(unsaid) = self.unsaid.take().or_else(range) {
            return Effect::LeftOut(unsaid);
        }
        let comment = self.comment.take().and_then(|comment| comment.parse().ok());
        match self.spec(ports, address.unwrap_or_default()) {
            Ok(spec) => Effect::Policy(Box::new(spec), comment),
            Err(refusal) => Effect::LeftOut(refusal),
        }
    }

    /// What iptables refuses when it has read all of the rule.
    fn inconsistency(&self) -> Option<Refusal> {
        if self.target.as_deref() == Some("SNAT") && self.to_source.is_none() {
            return Some(Refusal::NoSource);
        }
        let has_ports = self.to_ports.is_some()
            || self.to_source.as_ref().is_some_and(|to_source| to_source.ports.is_some());
        let has_protocol = self.names_protocol && self.protocol != Some(Protocol::UdpLite);
        if has_ports && !has_protocol {
            return Some(Refusal::NoProtocol);
        }
        let protocol = self.protocol?;
        let is_of_another =
            |name: &str| name.parse::<Protocol>().is_ok_and(|named| named != protocol);
        let name = self.matches.iter().find(|name| is_of_another(name))?.clone();
        Some(Refusal::WrongMatch { name })
    }

    fn spec(self, ports: PortRange, address: Address) -> Result<PolicySpec, Refusal> {
        let families = Families::from(self.family);
        let spec = PolicySpec {
            scope: Scope {
                out_interfaces: self.out_interfaces,
                families,
                protocols: self.protocol.into_iter().collect(),
                sources: self.sources,
                except_destinations: self.except_destinations,
                origin: Origin::Both,
                ..Scope::default()
            },
            source_ports: self.source_ports,
            flags: self.flags,
            address,
            pick_up: PickUp::Any,
            ..PolicySpec::to(Target::Ports(ports.into()))
        };
        Policy::new(spec).map(|policy| policy.spec().clone()).map_err(Refusal::from)
    }
}

/// The family of a program, by its name without the path; `-nft` and `-legacy` may follow.
fn family_of(word: &str) -> Option<Family> {
    let name = word.rsplit('/').next().unwrap_or(word);
    let name = name.strip_suffix("-nft").or_else(|| name.strip_suffix("-legacy")).unwrap_or(name);
    match name {
        "iptables" => Some(Family::Ipv4),
        "ip6tables" => Some(Family::Ipv6),
        _ => None,
    }
}
