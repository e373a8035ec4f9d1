//! Facts of this thread's network namespace, over rtnetlink.

mod changes;
mod link;
mod route;
mod wireguard;
mod xfrm;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ephport_core::decision::PRIVATE_NETWORKS;
use ephport_core::{
    DefaultRoute, Flow, HostFacts, InterfaceName, Port, PortRange, PortSet, Protocol, SourceType,
};
use ipnet::IpNet;

use crate::netlink::{CodecError, Header, Reader, Writer};
use crate::netlink::{NetlinkError, Socket, Transport, dump};
use crate::sock_diag::{self, SocketState};
use crate::uapi::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_LOCAL, NLM_F_DUMP, NLM_F_REQUEST, RTM_GETADDR, RTM_NEWADDR,
};

pub use changes::Changes;
use link::{Kind, Link, links};
use route::Routes;
pub use xfrm::ipsec_policies;

/// Length of `struct ifaddrmsg` (linux/if_addr.h).
const IFADDRMSG_LEN: usize = 8;

/// Reads the facts that policies depend on.
pub fn facts() -> Result<HostFacts, NetlinkError> {
    let mut socket = Socket::route()?;
    let links = links(&mut socket)?;
    let routes = Routes::read(&mut socket)?;
    let named = |index: &u32| links.get(index).filter(|link| !link.is_loopback);
    let uplinks = routes.uplinks();
    let uplinks: Vec<_> = uplinks.iter().filter_map(named).collect();
    let by_name = links.values().filter_map(|link| Some((link.name.clone().ok()?, link)));
    let by_name: BTreeMap<_, _> = by_name.collect();
    let alternative_names = by_name.iter().flat_map(|(name, link)| {
        link.alternative_names.iter().map(|other| (other.clone(), name.clone()))
    });
    let unnamed = uplinks.iter().filter_map(|link| link.name.clone().err());
    let written: BTreeSet<_> = uplinks.iter().filter_map(|link| link.name.clone().ok()).collect();
    let of_kind = |is_kind: &dyn Fn(Kind) -> bool| {
        let of_kind = by_name.iter().filter(|(_, link)| is_kind(link.kind));
        of_kind.map(|(name, _)| name.clone()).collect()
    };
    let is_filtering = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
        .iter()
        .any(|name| is_set(&format!("net/bridge/{name}")) == Some(true));
    let local: BTreeSet<_> = routes.local.iter().map(|(network, _)| *network).collect();
    let networks = routes.networks.iter();
    let networks =
        networks.filter_map(|(network, index)| Some((*network, named(index)?.name.clone().ok()?)));
    let wireguards = by_name.iter().filter(|(_, link)| link.kind == Kind::WireGuard);
    let wireguards: Vec<_> = wireguards.map(|(name, _)| name.as_str()).collect();
    let mut facts = HostFacts::with_uplinks(written);
    facts.unnamed_uplinks = unnamed.collect();
    facts.interfaces = by_name.keys().cloned().collect();
    facts.alternative_names = alternative_names.collect();
    facts.local_ports = local_ports();
    facts.reserved_ports = reserved_ports();
    facts.kept_sources = kept_sources(&links, &routes);
    facts.udplite = knows_udplite();
    facts.ipsec = knows_ipsec();
    facts.default_routes = default_routes(&links, &routes);
    facts.routed_networks = networks.collect();
    facts.local_networks = IpNet::aggregate(&local.into_iter().collect());
    facts.port_devices = port_devices(&links);
    facts.vrfs = of_kind(&|kind| matches!(kind, Kind::Vrf(_)));
    facts.filtered_bridges = of_kind(
        &|kind| matches!(kind, Kind::Bridge { is_filtered } if is_filtered || is_filtering),
    );
    facts.forwarding = forwarding();
    facts.tcp_listeners = listeners(Protocol::Tcp);
    facts.udp_listeners = listeners(Protocol::Udp);
    facts.wireguard_ports = wireguard_ports(wireguards);
    Ok(facts)
}

/// The ports of devices but VRFs, through whose interfaces the host sends by itself.
fn port_devices(links: &BTreeMap<u32, Link>) -> Vec<(InterfaceName, InterfaceName)> {
    let device = |link: &Link| {
        let device = links.get(&link.master?)?;
        let is_vrf = matches!(device.kind, Kind::Vrf(_));
        let names = (link.name.clone().ok()?, device.name.clone().ok()?);
        (!is_vrf).then_some(names)
    };
    let devices: BTreeSet<_> = links.values().filter_map(device).collect();
    devices.into_iter().collect()
}

/// The default routes of interfaces other than loopback whose names policies can express.
fn default_routes(links: &BTreeMap<u32, Link>, routes: &Routes) -> Vec<DefaultRoute> {
    let vrf_of = |table: u32| {
        let vrf = links.values().find(|link| link.kind == Kind::Vrf(Some(table)));
        vrf.and_then(|vrf| vrf.name.clone().ok())
    };
    let named = routes.defaults.iter().filter_map(|route| {
        let link = links.get(&route.interface).filter(|link| !link.is_loopback)?;
        let &route::DefaultRoute { table, family, halves, .. } = route;
        let interface = link.name.clone().ok()?;
        Some(DefaultRoute::new(interface, table, family, vrf_of(table), halves))
    });
    let named: BTreeSet<_> = named.collect();
    named.into_iter().collect()
}

/// The local addresses that are valid outside whatever the output interface. Those of an interface that is down
/// are none: Kubernetes has the addresses of services on such dummy interfaces (`kube-ipvs0`, `nodelocaldns`).
fn kept_sources(links: &BTreeMap<u32, Link>, routes: &Routes) -> Vec<IpAddr> {
    let uplinks = routes.uplinks();
    let is_kept = |(network, index): &&(IpNet, u32)| {
        let address = network.addr();
        let Some(link) = links.get(index) else { return false };
        let is_private = PRIVATE_NETWORKS.iter().any(|net| net.contains(&address));
        let is_own = link.is_loopback || link.kind == Kind::Dummy;
        network.prefix_len() == network.max_prefix_len()
            && link.is_up
            && !address.is_loopback()
            && !is_link_local(address)
            && (is_own || !is_private && !uplinks.contains(index))
    };
    let kept: BTreeSet<_> =
        routes.local.iter().filter(is_kept).map(|(network, _)| network.addr()).collect();
    kept.into_iter().collect()
}

/// 169.254/16 and fe80::/10, which are valid on one link only.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether the sysctl is other than 0, in this thread's network namespace; `None` if it cannot be read.
fn is_set(name: &str) -> Option<bool> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim() != "0")
}

/// Whether the host forwards packets of either family.
fn forwarding() -> Option<bool> {
    let all = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"].map(is_set);
    let known: Vec<bool> = all.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.contains(&true))
}

/// The ports that these WireGuard devices listen on; none where the kernel does not give them.
fn wireguard_ports(devices: Vec<&str>) -> PortSet {
    if devices.is_empty() {
        return PortSet::EMPTY;
    }
    let ports = Socket::generic().and_then(|mut socket| wireguard::ports(&mut socket, devices));
    ports.unwrap_or(PortSet::EMPTY)
}

/// The ports of the sockets that anyone can send to: of TCP those that listen, on other addresses than those of
/// loopback, of UDP those without a remote address. None where the kernel does not list sockets.
fn listeners(protocol: Protocol) -> PortSet {
    let is_tcp = protocol == Protocol::Tcp;
    let state = if is_tcp { SocketState::LISTEN } else { SocketState::CLOSE };
    let mut ports = Vec::new();
    if let Ok(mut socket) = Socket::sock_diag() {
        let listed = sock_diag::visit_in(&mut socket, protocol, state, |socket| {
            if !is_tcp || !socket.local.ip().is_loopback() {
                ports.extend(Port::new(socket.local.port()).map(PortRange::from));
            }
        });
        drop(listed);
    }
    ports.into_iter().collect()
}

/// Whether the kernel has IPsec (CONFIG_XFRM): without it no packet is protected, and `rt ipsec` is unknown.
///
/// The sysctl is only in network namespaces of the initial user namespace, the file only with
/// CONFIG_XFRM_STATISTICS, and the socket only with CONFIG_XFRM_USER. `None` where all of them may be hidden:
/// without /proc, and in a user namespace.
fn knows_ipsec() -> Option<bool> {
    let files = ["/proc/sys/net/core/xfrm_larval_drop", "/proc/thread-self/net/xfrm_stat"];
    let is_there = files.iter().any(|file| Path::new(file).exists()) || Socket::xfrm().is_ok();
    // All identifiers are mapped to themselves in the initial user namespace only.
    let map = std::fs::read_to_string("/proc/thread-self/uid_map").unwrap_or_default();
    let is_initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
    (is_there || is_initial).then_some(is_there)
}

/// Whether the kernel knows UDP-Lite (RFC 3828). Linux 7.2 and later do not: NAT changes the address of
/// such packets but not their port. `None` without /proc.
fn knows_udplite() -> Option<bool> {
    let directory = Path::new("/proc/thread-self/net");
    directory.exists().then(|| directory.join("udplite").exists())
}

/// The sysctl `net.ipv4.ip_local_port_range` of this thread's network namespace.
fn local_ports() -> Option<PortRange> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = text.split_whitespace().map(|port| port.parse().ok());
    PortRange::new(ends.next()??, ends.next()??).ok()
}

/// The sysctl `net.ipv4.ip_local_reserved_ports` of this thread's network namespace.
fn reserved_ports() -> PortSet {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(PortSet::EMPTY)
}

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalAddress {
    /// The interface that has the address; absent if its name cannot be in a policy.
    pub interface: Option<InterfaceName>,
    /// The address.
    pub address: IpAddr,
    /// The broadcast address of its network; IPv4 only.
    pub broadcast: Option<IpAddr>,
}

/// Reads the addresses of this thread's network namespace, in the kernel's order.
pub fn addresses() -> Result<Vec<LocalAddress>, NetlinkError> {
    let mut socket = Socket::route()?;
    let links = links(&mut socket)?;
    let mut addresses = Vec::new();
    list(&mut socket, 2, RTM_GETADDR, IFADDRMSG_LEN, |kind, body| {
        if kind == RTM_NEWADDR {
            addresses.extend(address(body, &links)?);
        }
        Ok(())
    })?;
    Ok(addresses)
}

/// The flow as postrouting of this thread's network namespace sees it, where the flow does not name whose
/// source address it has: an address of another interface than the output interface, or one of another host,
/// whose packets come in by the interface of the route to it. A flow by an interface that does not exist, or
/// from an address without a route, is not changed.
pub fn placed(flow: Flow) -> Result<Flow, NetlinkError> {
    let is_open = flow.in_interface().is_none() && flow.source_type() == SourceType::OutInterface;
    let mut socket = Socket::route()?;
    let links = links(&mut socket)?;
    let name = |index: &u32| links.get(index).and_then(|link| link.name.clone().ok());
    if !is_open || !links.keys().any(|index| name(index).as_ref() == Some(flow.out_interface())) {
        return Ok(flow);
    }
    let source = flow.source().ip();
    let own: Vec<_> = addresses()?.into_iter().filter(|own| own.address == source).collect();
    if own.iter().any(|own| own.interface.as_ref() == Some(flow.out_interface())) {
        return Ok(flow);
    }
    if !own.is_empty() {
        return Ok(flow.with_source_type(SourceType::OtherInterface));
    }
    let comes_in = route::interface_to(&mut socket, source)?.and_then(|index| name(&index));
    Ok(match comes_in {
        Some(interface) => flow.with_in_interface(interface),
        None => flow,
    })
}

/// The address of an `RTM_NEWADDR`. On a point-to-point link `IFA_ADDRESS` is the remote one, and
/// `IFA_LOCAL` is ours; IPv6 has the former only.
fn address(body: &[u8], links: &BTreeMap<u32, Link>) -> Result<Option<LocalAddress>, CodecError> {
    let mut reader = Reader::new(body);
    let _family_and_flags = reader.u32_ne("ifaddrmsg")?;
    let link = links.get(&reader.u32_ne("ifaddrmsg")?);
    let interface = link.and_then(|link| link.name.clone().ok());
    let (mut own, mut remote, mut broadcast) = (None, None, None);
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            IFA_LOCAL => own = ip(attr.value),
            IFA_ADDRESS => remote = ip(attr.value),
            IFA_BROADCAST => broadcast = ip(attr.value),
            _ => {}
        }
    }
    Ok(own.or(remote).map(|address| LocalAddress { interface, address, broadcast }))
}

/// An address in network order, if it is one of IPv4 or IPv6.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok().or_else(v4)
}

fn list(
    socket: &mut impl Transport,
    seq: u32,
    kind: u16,
    fixed_len: usize,
    visit: impl FnMut(u16, &[u8]) -> Result<(), CodecError>,
) -> Result<(), NetlinkError> {
    let mut w = Writer::new();
    w.message(Header { message_type: kind, flags: NLM_F_REQUEST | NLM_F_DUMP, seq }, |w| {
        w.raw(&vec![0; fixed_len]); // any address family
    });
    dump(socket, &w.finish()?, seq, visit)
}
