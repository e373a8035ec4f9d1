//! The facts of a host on which a policy depends.

use std::net::IpAddr;

use crate::net::interface::{InterfaceName, InterfacePattern};
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;

/// Facts of one network namespace, read when a policy is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The interfaces with a default route, IPv4 or IPv6, in any routing table; sorted.
    pub uplinks: Vec<InterfaceName>,
    /// Interfaces with a default route whose names policies and nft cannot express, escaped.
    pub unnamed_uplinks: Vec<Box<str>>,
    /// Alternative names of interfaces, each with the name that packets are matched by; sorted.
    pub alternative_names: Vec<(InterfaceName, InterfaceName)>,
    /// The interfaces that exist; sorted.
    pub interfaces: Vec<InterfaceName>,
    /// The sysctl `net.ipv4.ip_local_port_range`, which applies to IPv6 sockets too; `None` if it
    /// cannot be read.
    pub local_ports: Option<PortRange>,
    /// The sysctl `net.ipv4.ip_local_reserved_ports`: ports of that range that the kernel gives to no
    /// socket that does not ask for them.
    pub reserved_ports: PortSet,
    /// Whether the kernel knows UDP-Lite (RFC 3828); `None` if that is unknown.
    pub udplite: Option<bool>,
    /// Whether the kernel has IPsec; `None` if that is unknown. Without it, no packet is protected.
    pub ipsec: Option<bool>,
    /// The addresses of this host that are valid outside whatever the output interface: those of loopback
    /// and dummy interfaces, and those of other interfaces without a default route that are not in
    /// [`PRIVATE_NETWORKS`](crate::decision::PRIVATE_NETWORKS); sorted.
    pub kept_sources: Vec<IpAddr>,
}

impl HostFacts {
    /// The patterns with the names that packets are matched by in the place of alternative names.
    #[must_use]
    pub fn named(&self, patterns: &[InterfacePattern]) -> Vec<InterfacePattern> {
        let named = |pattern: &InterfacePattern| {
            let is_alternative = |(other, _): &&(InterfaceName, InterfaceName)| {
                *pattern == InterfacePattern::Name(other.clone())
            };
            let found = self.alternative_names.iter().find(is_alternative);
            found.map_or_else(|| pattern.clone(), |(_, name)| InterfacePattern::Name(name.clone()))
        };
        patterns.iter().map(named).collect()
    }

    /// Whether `pattern` covers an interface that exists.
    #[must_use]
    pub fn knows(&self, pattern: &InterfacePattern) -> bool {
        self.interfaces.iter().any(|name| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_is_known_if_an_interface_matches() {
        let interfaces = vec!["eth0".parse().unwrap(), "wg1".parse().unwrap()];
        let host = HostFacts { interfaces, ..HostFacts::default() };
        for (pattern, is_known) in [("wg*", true), ("eth0", true), ("eth1", false), ("v*", false)] {
            assert_eq!(host.knows(&pattern.parse().unwrap()), is_known, "{pattern}");
        }
    }
}
