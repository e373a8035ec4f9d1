//! Which connections a policy speaks of.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::net::interface::{InterfaceError, InterfacePattern};
use crate::net::protocol::Protocols;
use crate::word::words;

/// Which connections a policy speaks of; each part must hold.
///
/// Multicast and broadcast destinations and the loopback interface are never in scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The interfaces by which the connection leaves.
    pub out_interfaces: OutInterfaces,
    /// The address families.
    pub families: Families,
    /// The transport protocols; not empty.
    pub protocols: Protocols,
    /// The networks that the source address is in, as it was before NAT; none means all.
    pub sources: Vec<IpNet>,
    /// The networks whose destinations are left alone.
    pub except_destinations: Vec<IpNet>,
    /// Where the connection begins.
    pub origin: Origin,
}

impl Default for Scope {
    /// TCP and UDP, both families, from anywhere, by the uplinks.
    fn default() -> Self {
        Self {
            out_interfaces: OutInterfaces::Uplinks,
            families: Families::Both,
            protocols: Protocols::DEFAULT,
            sources: Vec::new(),
            except_destinations: Vec::new(),
            origin: Origin::Both,
        }
    }
}

/// By which interfaces a connection leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutInterfaces {
    /// The interfaces that hold a default route when the policy is applied.
    Uplinks,
    /// Every interface but loopback.
    Any,
    /// The interfaces that one of these patterns covers; not empty, without doubles.
    Interfaces(Vec<InterfacePattern>),
}

/// Names and prefixes joined by commas: `eth0,wg*`; one of them `any` is every interface.
impl FromStr for OutInterfaces {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let mut patterns: Vec<InterfacePattern> = Vec::new();
        for pattern in text.split(',') {
            let pattern = pattern.trim().parse()?;
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        let has_any = patterns.iter().any(|pattern| pattern.to_string() == "any");
        Ok(if has_any { Self::Any } else { Self::Interfaces(patterns) })
    }
}

impl fmt::Display for OutInterfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uplinks => f.write_str("uplinks"),
            Self::Any => f.write_str("any"),
            Self::Interfaces(patterns) => {
                let names: Vec<_> = patterns.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// One of the two address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 (RFC 791).
    Ipv4,
    /// IPv6 (RFC 8200).
    Ipv6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// Which address families a policy speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

impl Families {
    /// Whether `family` is one of them.
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => family == Family::Ipv4,
            Self::Ipv6 => family == Family::Ipv6,
        }
    }
}

impl From<Family> for Families {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }
}

/// Where a connection begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Here or elsewhere.
    #[default]
    Both,
    /// At a socket of this network namespace.
    Local,
    /// Elsewhere: it came in by an interface, from a container, a pod or a network behind this host.
    Forwarded,
}

words!(Origin, "local, forwarded or both", Both = "both", Local = "local", Forwarded = "forwarded");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn egress_prints_and_parses() {
        for text in ["any", "eth0", "eth0,wg*"] {
            assert_eq!(text.parse::<OutInterfaces>().unwrap().to_string(), text);
        }
        assert_eq!("eth0, eth0".parse::<OutInterfaces>().unwrap().to_string(), "eth0");
        for any in [" any", "any,any", "eth0,any"] {
            assert_eq!(any.parse(), Ok(OutInterfaces::Any), "{any}");
        }
        assert!("eth0,".parse::<OutInterfaces>().is_err());
    }
}
