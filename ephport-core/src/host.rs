//! The facts of a host on which a policy depends.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::family::Family;
use crate::net::interface::{InterfaceName, InterfacePattern};
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;

/// Facts of one network namespace, read when a policy is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default) // So that facts of an earlier version can be read.
)]
#[non_exhaustive]
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
    /// Whether the kernel can assign timeouts to connections (`ct timeout` of nft,
    /// CONFIG_NF_CONNTRACK_TIMEOUT); `None` if that is unknown.
    pub timeouts: Option<bool>,
    /// The addresses of this host that are valid outside whatever the output interface: those of loopback
    /// and dummy interfaces, and those of other interfaces without a default route that are not in
    /// [`PRIVATE_NETWORKS`](crate::decision::PRIVATE_NETWORKS); sorted.
    pub kept_sources: Vec<IpAddr>,
    /// The default routes that make interfaces uplinks; sorted.
    pub default_routes: Vec<DefaultRoute>,
    /// Networks of private addresses with a route of their own by an interface other than loopback; sorted.
    /// Networks of the interfaces themselves and routes of DHCP and router advertisements are none.
    pub routed_networks: Vec<(IpNet, InterfaceName)>,
    /// The addresses of this host, as local routes have them; sorted.
    pub local_networks: Vec<IpNet>,
    /// The VRF devices; sorted.
    pub vrfs: Vec<InterfaceName>,
    /// The ports of bridges, bonds and other devices but VRFs, each with its device; sorted. The host's packets
    /// have the device as their interface, never the port.
    pub port_devices: Vec<(InterfaceName, InterfaceName)>,
    /// The bridges whose frames pass netfilter (`bridge-nf-call-iptables`, `bridge-nf-call-ip6tables`);
    /// sorted.
    pub filtered_bridges: Vec<InterfaceName>,
    /// Whether the host forwards packets, IPv4 or IPv6; `None` if that is unknown.
    pub forwarding: Option<bool>,
    /// The ports on which TCP sockets listen, other than those on loopback addresses.
    pub tcp_listeners: PortSet,
    /// The ports of the UDP sockets without a remote address.
    pub udp_listeners: PortSet,
    /// The ports of `udp_listeners` that WireGuard devices listen on.
    pub wireguard_ports: PortSet,
    /// The ports of this host that NAT rules of other tables send on, to other hosts or ports.
    pub forwarded_ports: PortSet,
    /// The tables with such rules whose ports are not seen, as messages name them; sorted.
    pub unseen_forwards: Vec<Box<str>>,
}

/// A default route, or two routes to both halves of all addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DefaultRoute {
    /// The output interface.
    pub interface: InterfaceName,
    /// The routing table (`RT_TABLE_*` of linux/rtnetlink.h).
    pub table: u32,
    /// The address family.
    pub family: Family,
    /// The VRF device of the table.
    pub vrf: Option<InterfaceName>,
    /// Whether it is two routes, 0.0.0.0/1 and 128.0.0.0/1 or their like of IPv6.
    pub halves: bool,
}

impl DefaultRoute {
    /// The default route of `family` in `table` by this interface.
    #[must_use]
    pub fn new(
        interface: InterfaceName,
        table: u32,
        family: Family,
        vrf: Option<InterfaceName>,
        halves: bool,
    ) -> Self {
        Self { interface, table, family, vrf, halves }
    }

    /// The table in which routes are unless they name another (`RT_TABLE_MAIN`).
    pub const MAIN_TABLE: u32 = 254;
}

/// What differs from one default route of the main table; empty for that.
impl fmt::Display for DefaultRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match &self.vrf {
            Some(vrf) => Some(format!("VRF {vrf}")),
            None if self.table == Self::MAIN_TABLE => None,
            None => Some(format!("table {}", self.table)),
        };
        let halves = self.halves.then(|| "two half routes".to_string());
        let parts: Vec<_> = table.into_iter().chain(halves).collect();
        f.write_str(&parts.join(", "))
    }
}

impl HostFacts {
    /// A host of which only the uplinks are known. The other fields can be set after that.
    ///
    /// ```
    /// use ephport_core::HostFacts;
    ///
    /// let mut host = HostFacts::with_uplinks(["eth0".parse()?]);
    /// host.interfaces = vec!["eth0".parse()?, "docker0".parse()?];
    /// # Ok::<(), ephport_core::InterfaceError>(())
    /// ```
    pub fn with_uplinks(uplinks: impl IntoIterator<Item = InterfaceName>) -> Self {
        Self { uplinks: uplinks.into_iter().collect(), ..Self::default() }
    }

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

    /// The ports on which services of this host get packets of `protocol`, TCP or UDP. UDP sockets on the host's
    /// own ports are clients rather.
    #[must_use]
    pub fn service_ports(&self, protocol: Protocol) -> PortSet {
        match protocol {
            Protocol::Tcp => self.tcp_listeners.clone(),
            Protocol::Udp => self.udp_listeners.difference(&self.local_ports.into_iter().collect()),
            _ => PortSet::EMPTY,
        }
    }

    /// The ports of the host's own sockets: `local_ports` less `reserved_ports`.
    #[must_use]
    pub fn own_ports(&self) -> Option<PortSet> {
        Some(PortSet::from(self.local_ports?).difference(&self.reserved_ports))
    }

    /// Whether this host has the address.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.local_networks.iter().any(|network| network.contains(&address))
    }

    /// The device that `name` is a port of.
    #[must_use]
    pub fn device_of(&self, name: &InterfaceName) -> Option<&InterfaceName> {
        let found = self.port_devices.iter().find(|(port, _)| port == name);
        found.map(|(_, device)| device)
    }

    /// The interface that may be meant by a pattern that covers none: a name in other letters, or one with what
    /// `ip link` prints after it (`eth0@if5`).
    #[must_use]
    pub fn near(&self, pattern: &InterfacePattern) -> Option<InterfaceName> {
        let InterfacePattern::Name(written) = pattern else { return None };
        let name = written.as_str().split('@').next().unwrap_or_default();
        self.interfaces.iter().find(|known| known.as_str().eq_ignore_ascii_case(name)).cloned()
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
