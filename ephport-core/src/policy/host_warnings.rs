//! What correct policies do not do on one host, or do there without being asked: interfaces and addresses that
//! do not exist, networks and servers that NAT disturbs.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::decision::{PRIVATE_NETWORKS, kept_range};
use crate::host::HostFacts;
use crate::net::address_range::AddressRange;
use crate::net::address_set::AddressSet;
use crate::net::family::Family;
use crate::net::interface::{InterfaceName, InterfacePattern};
use crate::net::port::Port;
use crate::net::protocol::Protocol;
use crate::policy::Policy;
use crate::policy::address::Address;
use crate::policy::scope::{Origin, OutInterfaces, Scope};
use crate::policy::spec::{PolicySpec, Target};
use crate::policy::warning::Warning;

/// Servers that open connections from the port that they listen on: IKE and its NAT traversal (RFC 7296),
/// WireGuard's and Tailscale's usual ports.
const SERVERS: [(u16, &str); 4] =
    [(500, "IKE"), (4500, "IPsec NAT traversal"), (41641, "Tailscale"), (51820, "WireGuard")];

/// The warnings about a host with these facts as it is now.
#[must_use]
pub fn host_warnings(policies: &[Policy], host: &HostFacts) -> Vec<Warning> {
    let of_policy = |policy| Subject { policy, spec: Policy::spec(policy), host }.warnings();
    policies.iter().flat_map(of_policy).collect()
}

/// A policy on a host.
struct Subject<'a> {
    policy: &'a Policy,
    spec: &'a PolicySpec,
    host: &'a HostFacts,
}

impl Subject<'_> {
    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.interfaces();
        warnings.extend(self.udplite());
        warnings.extend(self.routed_networks());
        warnings.extend(self.private_sources());
        warnings.extend(self.filtered_bridges());
        warnings.extend(self.addresses());
        warnings.extend(self.server_ports());
        warnings.extend(self.remap());
        warnings.extend(self.timeouts());
        warnings
    }

    fn scope(&self) -> &Scope {
        &self.spec.scope
    }

    fn interfaces(&self) -> Vec<Warning> {
        let out = match &self.scope().out_interfaces {
            OutInterfaces::Matching(patterns) => patterns.as_slice(),
            OutInterfaces::Uplinks | OutInterfaces::Any => &[],
        };
        let policy = self.policy.name();
        let warning = |pattern: &InterfacePattern, is_out: bool| {
            let known = self.host.interfaces.iter().filter(|name| pattern.matches(name));
            let known: Vec<_> = known.collect();
            let (policy, pattern) = (policy.clone(), pattern.clone());
            let Some(first) = known.first() else {
                let near = self.host.near(&pattern);
                return Some(Warning::NoInterface { policy, pattern, near });
            };
            if let Some(device) = self.host.device_of(first)
                && known.iter().all(|name| self.host.device_of(name).is_some())
            {
                return Some(Warning::PortDevice { policy, pattern, device: device.clone() });
            }
            let is_vrf = known.iter().all(|name| self.host.vrfs.contains(name));
            (is_out && is_vrf).then_some(Warning::VrfDevice { policy, pattern })
        };
        let is_port = |pattern: &&InterfacePattern| match pattern {
            InterfacePattern::Name(name) => self.host.device_of(name).is_some(),
            InterfacePattern::Prefix(_) => false,
        };
        // An alternative name is as good as the name.
        let out = self.host.named(out);
        let comes_in = self.host.named(&self.scope().in_interfaces);
        let out = out.iter().filter_map(|pattern| warning(pattern, true));
        let comes_in = comes_in.iter().filter_map(|pattern| warning(pattern, false));
        // Others need not exist.
        let except = self.host.named(&self.scope().except_interfaces);
        let except = except.iter().filter(is_port).filter_map(|pattern| warning(pattern, false));
        out.chain(comes_in).chain(except).collect()
    }

    fn udplite(&self) -> Option<Warning> {
        let needs_udplite = self.spec.protocols().contains(Protocol::UdpLite);
        (self.host.udplite == Some(false) && needs_udplite)
            .then(|| Warning::NoUdpLite { policy: self.policy.name().clone() })
    }

    /// Timeouts of the default that this kernel cannot assign; those of the policy are an error.
    fn timeouts(&self) -> Option<Warning> {
        let has_udp = self.spec.protocols().contains(Protocol::Udp);
        let is_default =
            self.spec.timeouts.is_none() && !self.spec.timeouts().is_empty() && has_udp;
        (self.host.timeouts == Some(false) && is_default)
            .then(|| Warning::NoTimeouts { policy: self.policy.name().clone() })
    }

    /// Whether the policy applies to connections that this host forwards.
    fn forwards(&self) -> bool {
        self.scope().origin != Origin::Local && self.host.forwarding != Some(false)
    }

    /// Whether the policy applies to connections of this host's sockets.
    fn sends(&self) -> bool {
        self.scope().origin != Origin::Forwarded && self.scope().in_interfaces.is_empty()
    }

    /// Whether `name` is an output interface of the policy.
    fn goes_out(&self, name: &InterfaceName) -> bool {
        let matches = |patterns: &[InterfacePattern]| {
            self.host.named(patterns).iter().any(|pattern| pattern.matches(name))
        };
        let is_out = match &self.scope().out_interfaces {
            OutInterfaces::Any => !name.is_loopback(),
            OutInterfaces::Uplinks => self.host.uplinks.contains(name),
            OutInterfaces::Matching(patterns) => matches(patterns.as_slice()),
        };
        is_out && !matches(&self.scope().except_interfaces)
    }

    fn routed_networks(&self) -> Vec<Warning> {
        if !self.forwards() || self.spec.address == Address::Keep {
            return Vec::new();
        }
        let mut by_interface: BTreeMap<&InterfaceName, Vec<IpNet>> = BTreeMap::new();
        for family in Family::ALL.into_iter().filter(|family| self.changes_address(*family)) {
            let destinations = self.spec.destination_set(family);
            for (network, interface) in &self.host.routed_networks {
                let is_uplink = self.host.uplinks.contains(interface);
                let network_set = AddressSet::of(family, &[*network]);
                let is_destination = !destinations.intersection(&network_set).is_empty();
                if is_uplink && is_destination && self.goes_out(interface) {
                    by_interface.entry(interface).or_default().push(*network);
                }
            }
        }
        let warning = |(interface, networks): (&InterfaceName, Vec<IpNet>)| {
            let (policy, interface) = (self.policy.name().clone(), interface.clone());
            Warning::RoutedNetworks { policy, networks, interface }
        };
        by_interface.into_iter().map(warning).collect()
    }

    /// Whether a forwarded connection can get another source address.
    fn changes_address(&self, family: Family) -> bool {
        let sources = self.spec.source_set(family);
        let private = || sources.intersection(&AddressSet::of(family, &PRIVATE_NETWORKS));
        if self.spec.address == Address::Auto { !private().is_empty() } else { !sources.is_empty() }
    }

    fn private_sources(&self) -> Option<Warning> {
        let is_private_outside = |family| {
            let private = AddressSet::of(family, &PRIVATE_NETWORKS);
            let outside = self.spec.destination_set(family).difference(&private);
            !outside.is_empty() && !self.spec.source_set(family).intersection(&private).is_empty()
        };
        let has_private = Family::ALL.into_iter().any(is_private_outside);
        (self.forwards() && self.spec.address == Address::Keep && has_private)
            .then(|| Warning::PrivateSources { policy: self.policy.name().clone() })
    }

    fn filtered_bridges(&self) -> Vec<Warning> {
        let bridges = self.host.filtered_bridges.iter();
        let enforced = bridges.filter(|bridge| self.spec.enforce && self.goes_out(bridge));
        let policy = self.policy.name();
        enforced
            .map(|bridge| Warning::FilteredBridge {
                policy: policy.clone(),
                bridge: bridge.clone(),
            })
            .collect()
    }

    /// The first address after translation that this host does not have.
    fn addresses(&self) -> Option<Warning> {
        if self.host.local_networks.is_empty() {
            return None;
        }
        let absent = |family| {
            let new = AddressSet::new(family, self.new_addresses());
            new.difference(&AddressSet::of(family, &self.host.local_networks)).first()
        };
        let address = Family::ALL.into_iter().find_map(absent)?;
        Some(Warning::NoAddress { policy: self.policy.name().clone(), address })
    }

    /// The addresses after translation that the policy names.
    fn new_addresses(&self) -> Vec<AddressRange> {
        match (&self.spec.target, self.spec.address) {
            (_, Address::Fixed(address)) => vec![address.into()],
            (Target::Blocks(blocks), _) => blocks.outside(),
            _ => Vec::new(),
        }
    }

    fn remap(&self) -> Vec<Warning> {
        let ports = self.spec.remap_excludes(self.host);
        let policy = || self.policy.name().clone();
        let excluded =
            (!ports.is_empty()).then(|| Warning::RemapExcludes { policy: policy(), ports });
        let tables = &self.host.unseen_forwards;
        let unseen = (self.spec.remaps() && !tables.is_empty())
            .then(|| Warning::UnseenForwards { policy: policy(), tables: tables.join(", ") });
        excluded.into_iter().chain(unseen).collect()
    }

    fn server_ports(&self) -> Vec<Warning> {
        if !self.sends() || !self.spec.protocols().contains(Protocol::Udp) {
            return Vec::new();
        }
        let wireguard = self.host.wireguard_ports.ports().map(|port| (port.get(), "WireGuard"));
        let mut servers: BTreeMap<u16, &str> = SERVERS.into_iter().collect();
        servers.extend(wireguard);
        let servers = servers.into_iter().filter_map(|(port, service)| {
            let port = Port::new(port).ok()?;
            let is_open = self.host.udp_listeners.contains(port);
            (is_open && self.translates(port)).then_some((port, service))
        });
        let policy = self.policy.name();
        servers
            .map(|(port, service)| Warning::ServerPort { policy: policy.clone(), service, port })
            .collect()
    }

    /// Whether a connection from the port can get another one although its own is free.
    fn translates(&self, port: Port) -> bool {
        let permitted = match &self.spec.target {
            Target::Local => self.host.own_ports(),
            _ => self.spec.permitted_ports(),
        };
        let keeps = self.spec.flags.keep_permitted_ports();
        let keeps = keeps && !self.spec.remaps();
        let is_kept = permitted.is_some_and(|ports| keeps && kept_range(&ports, port).is_some());
        self.spec.translated().contains(port) && !is_kept
    }
}
