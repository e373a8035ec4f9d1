//! From a policy as it is written to what it means on one host.

use ipnet::IpNet;
use thiserror::Error;

use crate::allocation::block_table::BlockTable;
use crate::host::HostFacts;
use crate::net::family::Families;
use crate::net::interface::{InterfacePattern, InterfacePatterns, Interfaces};
use crate::net::mark::Mark;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocols;
use crate::policy::scope::{Ipsec, Origin, OutInterfaces};
use crate::policy::selection::NatFlags;
use crate::policy::{Address, OpenConnections, PickUp, Policy, PolicyName, Target};

/// A policy bound to one host: its uplinks and local ports are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPolicy {
    /// The name of the policy.
    pub name: PolicyName,
    /// The output interfaces.
    pub out_interfaces: Interfaces,
    /// Output interfaces that are out of scope.
    pub except_interfaces: Vec<InterfacePattern>,
    /// The input interfaces; none means every interface and this host.
    pub in_interfaces: Vec<InterfacePattern>,
    /// The address families.
    pub families: Families,
    /// The transport protocols; not empty.
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
    /// The source ports that are translated; not empty.
    pub translated: PortSet,
    /// The ports to which they are translated.
    pub permitted: PermittedPorts,
    /// The source ports that connections in scope may be sent with when the policy is enforced: the
    /// permitted and the exempt ports, and the privileged ports that are not translated.
    pub permitted_source_ports: PortSet,
    /// The flags of the kernel's NAT.
    pub flags: NatFlags,
    /// Whether one socket gets one range for all destinations.
    pub per_source_stable: bool,
    /// The source address after translation.
    pub address: Address,
    /// The packets of a TCP connection from which translation may start.
    pub pick_up: PickUp,
    /// Whether packets with another source port are dropped.
    pub enforce: bool,
    /// What enforcement does to connections that were open when the policy was first applied.
    pub open_connections: OpenConnections,
}

/// The ports that connections are moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermittedPorts {
    /// The same for all; not empty.
    Set(PortSet),
    /// To each source its own.
    Blocks(BlockTable),
}

impl PermittedPorts {
    /// Those of all sources together.
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
        let permitted = self.permitted(host)?;
        let translated = self.source_ports.difference(&self.exempt);
        let untranslated = PortSet::from(PortRange::PRIVILEGED).difference(&translated);
        Ok(ResolvedPolicy {
            name: self.name.clone(),
            out_interfaces: out_interfaces(&self.scope.out_interfaces, host)?,
            except_interfaces: self.scope.except_interfaces.clone(),
            in_interfaces: self.scope.in_interfaces.clone(),
            families: self.families(),
            protocols: self.scope.protocols,
            sources: self.scope.sources.clone(),
            destinations: self.scope.destinations.clone(),
            except_destinations: self.scope.except_destinations.clone(),
            destination_ports: self.scope.destination_ports.clone(),
            origin: self.scope.origin,
            mark: self.scope.mark,
            ipsec: self.scope.ipsec,
            permitted_source_ports: permitted.ports().union(&self.exempt).union(&untranslated),
            translated,
            permitted,
            flags: self.flags,
            per_source_stable: self.per_source_stable,
            address: self.address,
            pick_up: self.pick_up,
            enforce: self.enforce,
            open_connections: self.open_connections,
        })
    }

    fn permitted(&self, host: &HostFacts) -> Result<PermittedPorts, ResolveError> {
        let ports = match &self.target {
            Target::Blocks(blocks) => return Ok(PermittedPorts::Blocks(blocks.clone())),
            Target::Ports(ports) => ports.clone(),
            Target::Local => {
                let range = host.local_ports.ok_or(ResolveError::NoLocalPorts)?;
                PortSet::from(range).difference(&host.reserved_ports)
            }
        };
        let left = ports.difference(&self.except_ports);
        if left.is_empty() {
            return Err(ResolveError::NothingLeft { ports, except: self.except_ports.clone() });
        }
        Ok(PermittedPorts::Set(left))
    }
}

fn out_interfaces(
    out_interfaces: &OutInterfaces,
    host: &HostFacts,
) -> Result<Interfaces, ResolveError> {
    match out_interfaces {
        OutInterfaces::Any => Ok(Interfaces::Any),
        OutInterfaces::Matching(patterns) => Ok(Interfaces::Matching(patterns.clone())),
        OutInterfaces::Uplinks => {
            let names = host.uplinks.iter().cloned().map(InterfacePattern::Name);
            let patterns = InterfacePatterns::new(names).map_err(|_| ResolveError::NoUplink)?;
            Ok(Interfaces::Matching(patterns))
        }
    }
}

/// Why a policy means nothing on a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No interface holds a default route.
    #[error(
        "no uplink found: no interface holds a default route; \
         name the interfaces with `-o eth0`, or take all of them with `-o any`"
    )]
    NoUplink,
    /// The sysctl cannot be read.
    #[error(
        "the host's own range, net.ipv4.ip_local_port_range, cannot be read: \
         name the ports instead, like 32768-60999"
    )]
    NoLocalPorts,
    /// All of the host's own ports are excepted.
    #[error("no port of {ports} is left when {except} is taken out: allow others")]
    NothingLeft {
        /// The ports that the target names.
        ports: PortSet,
        /// The ports taken out.
        except: PortSet,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::interface::InterfaceName;
    use crate::policy::PolicySpec;
    use crate::policy::scope::Scope;

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
            udplite: None,
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
    fn local_ports_exclude_reserved_and_excepted_ports() {
        let except_ports = "40000-40009".parse().unwrap();
        let spec = PolicySpec { except_ports, ..PolicySpec::to(Target::Local) };
        let resolved = Policy::new(spec).unwrap().resolve(&host()).unwrap();
        assert_eq!(resolved.permitted.ports().to_string(), "32771-39999,40010-60999");
    }

    #[test]
    fn privileged_and_exempt_ports_may_leave_unless_they_are_moved() {
        let spec = PolicySpec {
            source_ports: "500-65535".parse().unwrap(),
            exempt: "4500".parse().unwrap(),
            ..(*policy()).clone()
        };
        let resolved = Policy::new(spec).unwrap().resolve(&host()).unwrap();
        assert_eq!(resolved.translated.to_string(), "500-4499,4501-65535");
        assert_eq!(resolved.permitted_source_ports.to_string(), "1-499,4500,49152-61000");
    }

    #[test]
    fn every_message_says_what_to_do() {
        let local = |except: &str| {
            let except_ports = except.parse().unwrap();
            let scope = Scope { out_interfaces: OutInterfaces::Any, ..policy().scope.clone() };
            let spec = PolicySpec { scope, except_ports, ..PolicySpec::to(Target::Local) };
            Policy::new(spec).unwrap()
        };
        let nothing = HostFacts::default();
        let cases = [
            (
                policy().resolve(&nothing),
                "no uplink found: no interface holds a default route; \
                 name the interfaces with `-o eth0`, or take all of them with `-o any`",
            ),
            (
                local("none").resolve(&nothing),
                "the host's own range, net.ipv4.ip_local_port_range, cannot be read: \
                 name the ports instead, like 32768-60999",
            ),
            (
                local("1024-65535").resolve(&host()),
                "no port of 32771-60999 is left when 1024-65535 is taken out: allow others",
            ),
        ];
        for (result, message) in cases {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
    }
}
