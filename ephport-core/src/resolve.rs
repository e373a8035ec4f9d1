//! Policies bound to the facts of one host.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::allocation::block_table::BlockTable;
use crate::host::{DefaultRoute, HostFacts};
use crate::net::family::Families;
use crate::net::interface::{InterfacePattern, InterfacePatterns, Interfaces};
use crate::net::mark::Mark;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, Protocols};
use crate::policy::scope::{Ipsec, Origin, OutInterfaces, Scope};
use crate::policy::selection::{Distribution, NatFlags};
use crate::policy::timeouts::Timeouts;
use crate::policy::warning::overlaps;
use crate::policy::{
    Address, ExpectedConnections, OpenConnections, PickUp, Policy, PolicyName, PolicySpec, Target,
};
use crate::remap::{Avoid, Remap};

/// A policy bound to one host: its uplinks and local ports are known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedPolicy {
    /// The policy as it was written.
    pub policy: Policy,
    /// The name of the policy.
    pub name: PolicyName,
    /// The output interfaces.
    pub out_interfaces: Interfaces,
    /// The default routes that make the output interfaces uplinks; none if the policy names interfaces.
    pub default_routes: Vec<DefaultRoute>,
    /// Output interfaces that are out of scope.
    pub except_interfaces: Vec<InterfacePattern>,
    /// The input interfaces; none means every interface and this host.
    pub in_interfaces: Vec<InterfacePattern>,
    /// The address families.
    pub families: Families,
    /// The protocols; not empty.
    pub protocols: Protocols,
    /// The networks of the source address; none means all.
    pub sources: Vec<IpNet>,
    /// The networks of the destination address; none means all.
    pub destinations: Vec<IpNet>,
    /// Networks whose destinations are out of scope.
    pub except_destinations: Vec<IpNet>,
    /// The destination ports; not empty. [`PortRange::ALL`] is no condition.
    pub destination_ports: PortSet,
    /// The origin of the connection.
    pub origin: Origin,
    /// The mark of the packet; `None` means any.
    pub mark: Option<Mark>,
    /// What happens to packets that IPsec will protect.
    pub ipsec: Ipsec,
    /// The source ports that are translated; not empty. Identifiers all are.
    pub translated: PortSet,
    /// The ports to which they are translated.
    pub permitted: PermittedPorts,
    /// The host's own ports, if the policy translates to them.
    pub local_ports: Option<PortSet>,
    /// The source ports that connections in scope may be sent with when the policy is enforced: the
    /// permitted and the exempt ports, and the privileged ports that are not translated.
    pub permitted_source_ports: PortSet,
    /// The part of these that is not translated, and so permitted to every source: the exempt ports and
    /// the privileged ports that are not translated.
    pub untranslated: PortSet,
    /// The flags of the kernel's NAT.
    pub flags: NatFlags,
    /// The distribution over several ranges; `None` chooses it by their sizes.
    pub spread: Option<Distribution>,
    /// With [`Distribution::Remap`] and several ranges, the virtual range to which conntrack translates.
    pub remap: Option<Remap>,
    /// The source address after translation.
    pub address: Address,
    /// With [`Address::Auto`], the addresses of this host that stay although the output interface does
    /// not have them; sorted.
    pub kept_sources: Vec<IpAddr>,
    /// The packets of a TCP connection from which translation may start.
    pub pick_up: PickUp,
    /// The timeouts of the connections that are translated.
    pub timeouts: Timeouts,
    /// Whether packets with another source port are dropped.
    pub enforce: bool,
    /// What enforcement does to connections that were open when the policy was first applied.
    pub open_connections: OpenConnections,
    /// What enforcement does to connections that a conntrack helper expected.
    pub expected_connections: ExpectedConnections,
}

/// The ports to which connections are translated. A program must know each variant, so that a new one is a
/// breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermittedPorts {
    /// The same ports for all sources; not empty.
    Set(PortSet),
    /// A block for each source.
    Blocks(BlockTable),
}

impl PermittedPorts {
    /// The ports of all sources together.
    #[must_use]
    pub fn ports(&self) -> PortSet {
        match self {
            Self::Set(ports) => ports.clone(),
            Self::Blocks(blocks) => blocks.ports(),
        }
    }
}

impl Policy {
    /// The policy bound to a host with these facts.
    ///
    /// # Errors
    /// [`ResolveError`] when the policy applies to the uplinks or to the local ports and the host has none.
    pub fn resolve(&self, host: &HostFacts) -> Result<ResolvedPolicy, ResolveError> {
        self.resolve_beside(host, &PortSet::EMPTY)
    }

    /// The same beside policies that translate to the ports `others`.
    fn resolve_beside(
        &self,
        host: &HostFacts,
        others: &PortSet,
    ) -> Result<ResolvedPolicy, ResolveError> {
        let spec = self.spec();
        let permitted = permitted(spec, host)?;
        let translated = spec.translated();
        let privileged = PortSet::from(PortRange::PRIVILEGED).difference(&translated);
        let untranslated = privileged.union(&spec.exempt);
        let remap = remap(spec, &permitted, host, others);
        let address = match (spec.address, &spec.target) {
            // The border relay accepts no other source than the customer's address.
            (Address::Auto, Target::MapE(_)) => Address::Masquerade,
            (address, _) => address,
        };
        let is_local =
            spec.scope.origin != Origin::Forwarded && spec.scope.in_interfaces.is_empty();
        let kept_sources = match address {
            Address::Auto if is_local => host.kept_sources.clone(),
            _ => Vec::new(),
        };
        Ok(ResolvedPolicy {
            policy: self.clone(),
            name: spec.name.clone(),
            out_interfaces: out_interfaces(&spec.scope, host)?,
            default_routes: match spec.scope.out_interfaces {
                OutInterfaces::Uplinks => host.default_routes.clone(),
                OutInterfaces::Any | OutInterfaces::Matching(_) => Vec::new(),
            },
            except_interfaces: host.named(&spec.scope.except_interfaces),
            in_interfaces: host.named(&spec.scope.in_interfaces),
            families: self.families(),
            protocols: spec.protocols(),
            sources: spec.scope.sources.clone(),
            destinations: spec.scope.destinations.clone(),
            except_destinations: spec.scope.except_destinations.clone(),
            destination_ports: spec.scope.destination_ports.clone(),
            origin: spec.scope.origin,
            mark: spec.scope.mark,
            // Without IPsec in the kernel no packet is protected, and rules cannot ask for it.
            ipsec: if host.ipsec == Some(false) { Ipsec::Match } else { spec.scope.ipsec },
            permitted_source_ports: permitted.ports().union(&untranslated),
            untranslated,
            translated,
            permitted,
            local_ports: host.own_ports().filter(|_| spec.target == Target::Local),
            flags: spec.flags,
            spread: spec.per_source_stable.then_some(Distribution::Hash).or(spec.spread),
            remap,
            address,
            kept_sources,
            pick_up: spec.pick_up,
            timeouts: spec.timeouts_on(host),
            enforce: spec.enforce,
            open_connections: spec.open_connections,
            expected_connections: spec.expected_connections,
        })
    }
}

/// The policies bound to a host with these facts, in the same order. Virtual ranges are beside the ports of
/// other policies.
///
/// # Errors
/// The name of a policy, and why it cannot be bound.
pub fn resolve_all(
    policies: &[Policy],
    host: &HostFacts,
) -> Result<Vec<ResolvedPolicy>, (PolicyName, ResolveError)> {
    let named = |policy: &Policy, error| (policy.name().clone(), error);
    let resolve = |policy: &Policy| policy.resolve(host).map_err(|error| named(policy, error));
    let mut resolved = policies.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
    for (at, policy) in policies.iter().enumerate() {
        let Some(own) = resolved.get(at).filter(|own| own.remap.is_some()) else { continue };
        // Policies with the same ports have the same virtual range.
        let others = resolved.iter().filter(|other| other.permitted != own.permitted);
        let others = others.fold(PortSet::EMPTY, |all, other| {
            let range = other.remap.as_ref().map(Remap::virtual_range);
            all.union(&other.permitted.ports()).union(&range.into_iter().collect())
        });
        let beside = policy.resolve_beside(host, &others).map_err(|error| named(policy, error))?;
        if let Some(own) = resolved.get_mut(at) {
            *own = beside;
        }
    }
    for (own, policy) in resolved.iter().zip(policies) {
        let conflict = resolved.iter().find_map(|other| own.remap_conflict(other));
        conflict.map_or(Ok(()), |error| Err(named(policy, error)))?;
    }
    Ok(resolved)
}

impl ResolvedPolicy {
    /// Why the packets of connections of `other` would be rewritten by this policy, if so: those that come in
    /// do not show which policy translated their connection.
    fn remap_conflict(&self, other: &Self) -> Option<ResolveError> {
        let remap = self.remap.as_ref().filter(|remap| other.remap.as_ref() != Some(*remap))?;
        let common = |protocol| other.protocols.contains(protocol);
        let same_interface = match (&self.out_interfaces, &other.out_interfaces) {
            (Interfaces::Matching(own), Interfaces::Matching(other)) => {
                own.iter().any(|own| other.iter().any(|other| overlaps(own, other)))
            }
            _ => true,
        };
        let meets = self.families.iter().any(|family| other.families.contains(family))
            && self.protocols.iter().any(common)
            && same_interface;
        let range = other.remap.as_ref().map(Remap::virtual_range);
        let theirs = other.permitted.ports().union(&range.into_iter().collect());
        let ports = theirs.intersection(&remap.rewritten());
        let other = other.name.clone();
        (meets && !ports.is_empty()).then_some(ResolveError::RemapConflict { other, ports })
    }
}

/// The virtual range of a policy.
fn remap(
    spec: &PolicySpec,
    permitted: &PermittedPorts,
    host: &HostFacts,
    others: &PortSet,
) -> Option<Remap> {
    let PermittedPorts::Set(ports) = permitted else { return None };
    let untranslated = spec.translated().complement();
    let listeners = host.tcp_listeners.union(&host.udp_listeners);
    let services = listeners.union(&host.forwarded_ports);
    let taken = untranslated.union(&services).union(others);
    let own = host.local_ports.into_iter().collect();
    Remap::new(ports, &Avoid { taken, own }).filter(|_| spec.remaps())
}

fn permitted(spec: &PolicySpec, host: &HostFacts) -> Result<PermittedPorts, ResolveError> {
    let Some(ports) = spec.target_ports(host)? else {
        let Target::Blocks(blocks) = &spec.target else { return Err(ResolveError::NoLocalPorts) };
        return Ok(PermittedPorts::Blocks((**blocks).clone()));
    };
    let except = spec.except_ports.union(&spec.remap_excludes(host));
    let left = ports.difference(&except);
    if left.is_empty() {
        return Err(ResolveError::NothingLeft { ports, except });
    }
    Ok(PermittedPorts::Set(left))
}

impl PolicySpec {
    /// The ports of the target on a host; `None` if they depend on the source.
    fn target_ports(&self, host: &HostFacts) -> Result<Option<PortSet>, ResolveError> {
        Ok(Some(match &self.target {
            Target::Blocks(_) => return Ok(None),
            Target::Ports(ports) => ports.clone(),
            Target::MapE(map_e) => map_e.ports(),
            Target::Local => host.own_ports().ok_or(ResolveError::NoLocalPorts)?,
        }))
    }

    /// Whether ports are rewritten where the set has several ranges ([`Distribution::Remap`]).
    #[must_use]
    pub fn remaps(&self) -> bool {
        self.spread == Some(Distribution::Remap)
    }

    /// The timeouts on a host: without those of the default where the kernel has no timeouts of connections.
    fn timeouts_on(&self, host: &HostFacts) -> Timeouts {
        match (&self.timeouts, host.timeouts) {
            (None, Some(false)) => Timeouts::default(),
            _ => self.timeouts(),
        }
    }

    /// The ports that [`Distribution::Remap`] cannot use: connections have them that are not translated, or
    /// services of this host listen on them, or they are forwarded. UDP sockets on the host's own ports are
    /// clients rather.
    pub(crate) fn remap_excludes(&self, host: &HostFacts) -> PortSet {
        let ports = self.target_ports(host).ok().flatten().unwrap_or_default();
        let ports = ports.difference(&self.except_ports);
        if !self.remaps() || ports.ranges().len() < 2 {
            return PortSet::EMPTY;
        }
        let of = |protocol| {
            let is_remapped = self.protocols().contains(protocol);
            if is_remapped { host.service_ports(protocol) } else { PortSet::EMPTY }
        };
        let services = of(Protocol::Tcp).union(&of(Protocol::Udp)).union(&host.forwarded_ports);
        services.union(&self.translated().complement()).intersection(&ports)
    }
}

fn out_interfaces(scope: &Scope, host: &HostFacts) -> Result<Interfaces, ResolveError> {
    match &scope.out_interfaces {
        OutInterfaces::Any => Ok(Interfaces::Any),
        OutInterfaces::Matching(patterns) => {
            let named = InterfacePatterns::new(host.named(patterns.as_slice()));
            Ok(Interfaces::Matching(named.unwrap_or_else(|_| patterns.clone())))
        }
        OutInterfaces::Uplinks => {
            if let Some(name) = host.unnamed_uplinks.first() {
                return Err(ResolveError::UnnamedUplink { name: name.clone() });
            }
            let names = host.uplinks.iter().cloned().map(InterfacePattern::Name);
            let patterns = InterfacePatterns::new(names).map_err(|_| ResolveError::NoUplink)?;
            let is_excepted =
                |name| scope.except_interfaces.iter().any(|pattern| pattern.matches(name));
            if host.uplinks.iter().all(is_excepted) {
                return Err(ResolveError::UplinksExcepted { uplinks: patterns });
            }
            Ok(Interfaces::Matching(patterns))
        }
    }
}

/// Why a policy cannot be bound to a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No interface has a default route.
    #[error(
        "no uplink found: no interface has a default route; name the interfaces, or use `any` for \
         all of them"
    )]
    NoUplink,
    /// An interface with a default route has a name that nft cannot express.
    #[error(
        "uplink `{name}` has a name that nft cannot express: rename it, name the interfaces, or use \
         `any` for all of them"
    )]
    UnnamedUplink {
        /// The name, escaped.
        name: Box<str>,
    },
    /// Every uplink is excepted.
    #[error("except-interfaces excludes every uplink ({uplinks}): name other interfaces")]
    UplinksExcepted {
        /// The uplinks.
        uplinks: InterfacePatterns,
    },
    /// The sysctl cannot be read.
    #[error(
        "the host's own range, net.ipv4.ip_local_port_range, cannot be read: \
         name the ports instead, like 32768-60999"
    )]
    NoLocalPorts,
    /// Two policies of which one would rewrite the packets of the other.
    #[error(
        "ports {ports} are those of policy `{other}` too, whose packets spread = remap would rewrite: give \
         both policies the same ports and spread = remap, or ports of their own"
    )]
    RemapConflict {
        /// The other policy.
        other: PolicyName,
        /// The ports.
        ports: PortSet,
    },
    /// All of the host's own ports are excepted.
    #[error("no port of {ports} is left without {except}: permit others")]
    NothingLeft {
        /// The ports of the target.
        ports: PortSet,
        /// The excepted ports.
        except: PortSet,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::interface::InterfaceName;
    use expect_test::expect;

    fn policy() -> Policy {
        Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()))).unwrap()
    }

    fn host() -> HostFacts {
        let eth0: InterfaceName = "eth0".parse().unwrap();
        HostFacts {
            uplinks: vec![eth0.clone()],
            interfaces: vec![eth0],
            local_ports: Some("32768-60999".parse().unwrap()),
            reserved_ports: "32768-32770,61000".parse().unwrap(),
            ..HostFacts::default()
        }
    }

    #[test]
    fn uplinks_are_those_of_the_host() {
        let resolved = policy().resolve(&host()).unwrap();
        let eth0 = InterfacePattern::Name("eth0".parse().unwrap());
        let patterns = InterfacePatterns::new([eth0]).unwrap();
        assert_eq!(resolved.out_interfaces, Interfaces::Matching(patterns));
    }

    #[test]
    fn uplinks_that_cannot_be_used_are_errors() {
        let unnamed = HostFacts { unnamed_uplinks: vec!["a\\x22b".into()], ..host() };
        let refused = policy().resolve(&unnamed).unwrap_err();
        assert!(matches!(&refused, ResolveError::UnnamedUplink { name } if **name == *"a\\x22b"));
        let scope = Scope { except_interfaces: vec!["eth*".parse().unwrap()], ..Scope::default() };
        let spec = PolicySpec { scope, ..PolicySpec::to(Target::Local) };
        let refused = Policy::new(spec).unwrap().resolve(&host()).unwrap_err();
        assert!(matches!(refused, ResolveError::UplinksExcepted { .. }));
    }

    #[test]
    fn local_ports_exclude_reserved_and_excepted_ports() {
        let except_ports = "40000-40009".parse().unwrap();
        let spec = PolicySpec { except_ports, ..PolicySpec::to(Target::Local) };
        let resolved = Policy::new(spec).unwrap().resolve(&host()).unwrap();
        assert_eq!(resolved.permitted.ports().to_string(), "32771-39999,40010-60999");
    }

    #[test]
    fn privileged_and_exempt_ports_are_permitted_unless_translated() {
        let spec = PolicySpec {
            source_ports: "500-65535".parse().unwrap(),
            exempt: "4500".parse().unwrap(),
            ..policy().spec().clone()
        };
        let resolved = Policy::new(spec).unwrap().resolve(&host()).unwrap();
        assert_eq!(resolved.translated.to_string(), "500-4499,4501-65535");
        assert_eq!(resolved.permitted_source_ports.to_string(), "1-499,4500,49152-61000");
    }

    #[test]
    fn errors_name_the_next_step() {
        let local = |except: &str| {
            let except_ports = except.parse().unwrap();
            let scope =
                Scope { out_interfaces: OutInterfaces::Any, ..policy().spec().scope.clone() };
            let spec = PolicySpec { scope, except_ports, ..PolicySpec::to(Target::Local) };
            Policy::new(spec).unwrap()
        };
        let nothing = HostFacts::default();
        let results = [
            policy().resolve(&nothing),
            local("none").resolve(&nothing),
            local("1024-65535").resolve(&host()),
        ];
        let messages = results.map(|result| format!("{}\n", result.unwrap_err()));
        expect![[r#"
            no uplink found: no interface has a default route; name the interfaces, or use `any` for all of them
            the host's own range, net.ipv4.ip_local_port_range, cannot be read: name the ports instead, like 32768-60999
            no port of 32771-60999 is left without 1024-65535: permit others
        "#]].assert_eq(&messages.concat());
    }
}
