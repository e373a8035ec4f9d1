//! The scope of a policy: the connections to which it applies.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use crate::net::family::Families;
use crate::net::interface::{InterfaceError, InterfacePattern, InterfacePatterns};
use crate::net::mark::Mark;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocols;
use crate::word::words;

/// The connections to which a policy applies: those that meet every condition.
///
/// Multicast and broadcast destinations and the loopback interface are never in scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Scope {
    /// The output interfaces.
    pub out_interfaces: OutInterfaces,
    /// Output interfaces that are out of scope.
    pub except_interfaces: Vec<InterfacePattern>,
    /// The input interfaces. If there is one, only forwarded connections are in scope; if there is
    /// none, connections from every interface and from this host are.
    pub in_interfaces: Vec<InterfacePattern>,
    /// The address families.
    pub families: Families,
    /// The protocols; not empty. `None` means TCP and UDP, and with MAP-E and blocks the echo identifiers of ICMP
    /// too ([`PolicySpec::protocols`](super::PolicySpec::protocols)).
    pub protocols: Option<Protocols>,
    /// The networks of the source address before NAT; none means all.
    pub sources: Vec<IpNet>,
    /// The networks of the destination address; none means all.
    pub destinations: Vec<IpNet>,
    /// Networks whose destinations are out of scope.
    pub except_destinations: Vec<IpNet>,
    /// The destination ports; not empty. [`PortRange::ALL`] is no condition.
    pub destination_ports: PortSet,
    /// The origin of the connection.
    pub origin: Origin,
    /// The mark of the packet (`meta mark`); `None` means any.
    pub mark: Option<Mark>,
    /// What happens to packets that IPsec will protect.
    pub ipsec: Ipsec,
}

impl Default for Scope {
    /// The default protocols, both families, every origin, by the uplinks.
    fn default() -> Self {
        Self {
            out_interfaces: OutInterfaces::Uplinks,
            except_interfaces: Vec::new(),
            in_interfaces: Vec::new(),
            families: Families::Both,
            protocols: None,
            sources: Vec::new(),
            destinations: Vec::new(),
            except_destinations: Vec::new(),
            destination_ports: PortRange::ALL.into(),
            origin: Origin::Both,
            mark: None,
            ipsec: Ipsec::Skip,
        }
    }
}

/// The output interfaces of a scope, before the uplinks are known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutInterfaces {
    /// The interfaces with a default route when the policy is applied.
    Uplinks,
    /// Every interface except loopback.
    Any,
    /// The interfaces that one of these patterns covers, except loopback.
    Matching(InterfacePatterns),
}

/// `uplinks`, `any`, or names and prefixes joined by commas: `eth0,wg*`.
impl FromStr for OutInterfaces {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "uplinks" => Ok(Self::Uplinks),
            "any" => Ok(Self::Any),
            _ => text.parse().map(Self::Matching),
        }
    }
}

impl fmt::Display for OutInterfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uplinks => f.write_str("uplinks"),
            Self::Any => f.write_str("any"),
            Self::Matching(patterns) => patterns.fmt(f),
        }
    }
}

/// The origin of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This host or another one.
    #[default]
    Both,
    /// At a socket of this network namespace.
    Local,
    /// Another host, received on an input interface: a container, a pod or a network that this host
    /// routes.
    Forwarded,
}

words!(Origin, "local, forwarded or both", Both = "both", Local = "local", Forwarded = "forwarded");

/// What happens to packets that an IPsec policy of the kernel (xfrm) will transform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ipsec {
    /// They are out of scope (`rt ipsec missing`): after NAT, their IPsec policy might not match them
    /// and they would be sent unprotected.
    #[default]
    Skip,
    /// They are in scope like all others, as in iptables without `-m policy`.
    Match,
}

words!(Ipsec, "skip or match", Skip = "skip", Match = "match");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_interfaces_print_and_parse() {
        for text in ["uplinks", "any", "eth0", "eth0,wg*"] {
            assert_eq!(text.parse::<OutInterfaces>().unwrap().to_string(), text);
        }
        assert_eq!("eth0, eth0".parse::<OutInterfaces>().unwrap().to_string(), "eth0");
        assert_eq!(" Any".parse(), Ok(OutInterfaces::Any));
        for wrong in ["eth0,", "any,any", "eth0,any"] {
            assert!(wrong.parse::<OutInterfaces>().is_err(), "{wrong}");
        }
    }
}
