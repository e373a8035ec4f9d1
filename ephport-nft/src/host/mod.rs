//! Facts of this thread's network namespace, over rtnetlink.

mod link;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ephport_core::decision::PRIVATE_NETWORKS;
use ephport_core::{HostFacts, InterfaceName, PortRange, PortSet};

use crate::netlink::{CodecError, Header, Reader, Writer};
use crate::netlink::{NetlinkError, Socket, Transport, dump};
use crate::uapi::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_LOCAL, NLM_F_DUMP, NLM_F_REQUEST, RTM_GETADDR, RTM_NEWADDR,
};

use link::{Link, links};
use route::Routes;

/// Length of `struct ifaddrmsg` (linux/if_addr.h).
const IFADDRMSG_LEN: usize = 8;

/// Reads the facts that policies depend on.
pub fn facts() -> Result<HostFacts, NetlinkError> {
    let mut socket = Socket::route()?;
    let links = links(&mut socket)?;
    let routes = Routes::read(&mut socket)?;
    let named = |index: &u32| links.get(index).filter(|link| !link.is_loopback);
    let uplinks: Vec<_> = routes.uplinks.iter().filter_map(named).collect();
    let by_name = links.values().filter_map(|link| Some((link.name.clone().ok()?, link)));
    let by_name: BTreeMap<_, _> = by_name.collect();
    let alternative_names = by_name.iter().flat_map(|(name, link)| {
        link.alternative_names.iter().map(|other| (other.clone(), name.clone()))
    });
    let unnamed = uplinks.iter().filter_map(|link| link.name.clone().err());
    let written: BTreeSet<_> = uplinks.iter().filter_map(|link| link.name.clone().ok()).collect();
    Ok(HostFacts {
        uplinks: written.into_iter().collect(),
        unnamed_uplinks: unnamed.collect(),
        interfaces: by_name.keys().cloned().collect(),
        alternative_names: alternative_names.collect(),
        local_ports: local_ports(),
        reserved_ports: reserved_ports(),
        kept_sources: kept_sources(&links, &routes),
        udplite: Some(knows_udplite()),
        ipsec: Some(knows_ipsec()),
    })
}

/// The local addresses that are valid outside whatever the output interface.
fn kept_sources(links: &BTreeMap<u32, Link>, routes: &Routes) -> Vec<IpAddr> {
    let is_kept = |(address, index): &&(IpAddr, u32)| {
        let Some(link) = links.get(index) else { return false };
        let is_private = PRIVATE_NETWORKS.iter().any(|net| net.contains(address));
        let is_own = link.is_loopback || link.is_dummy;
        !address.is_loopback() && (is_own || !is_private && !routes.uplinks.contains(index))
    };
    let kept: BTreeSet<_> =
        routes.local.iter().filter(is_kept).map(|(address, _)| *address).collect();
    kept.into_iter().collect()
}

/// Whether the kernel has IPsec (CONFIG_XFRM): without it no packet is protected, and `rt ipsec` is unknown.
fn knows_ipsec() -> bool {
    Path::new("/proc/sys/net/core/xfrm_larval_drop").exists()
}

/// Whether the kernel knows UDP-Lite (RFC 3828). Linux 7.2 and later do not: NAT changes the address of
/// such packets but not their port.
fn knows_udplite() -> bool {
    Path::new("/proc/thread-self/net/udplite").exists()
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
