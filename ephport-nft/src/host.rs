//! Facts of this thread's network namespace, over rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ephport_core::{HostFacts, InterfaceName, PortRange};

use crate::netlink::{CodecError, Header, Reader, Writer};
use crate::netlink::{NetlinkError, Socket, Transport, dump};
use crate::uapi::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_LOCAL, IFLA_IFNAME, NLM_F_DUMP, NLM_F_REQUEST, RTA_MULTIPATH,
    RTA_OIF, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
    RTN_UNICAST,
};

/// Length of `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtmsg` (linux/rtnetlink.h,
/// linux/if_addr.h).
const IFINFOMSG_LEN: usize = 16;
const IFADDRMSG_LEN: usize = 8;
const RTMSG_LEN: usize = 12;

/// Reads the facts that policies depend on.
pub fn facts() -> Result<HostFacts, NetlinkError> {
    let mut socket = Socket::route()?;
    let names = links(&mut socket)?;
    let mut uplinks = BTreeSet::new();
    list(&mut socket, 2, RTM_GETROUTE, RTMSG_LEN, |kind, body| {
        if kind == RTM_NEWROUTE {
            uplinks.extend(default_route_exits(body)?.iter().filter_map(|index| names.get(index)));
        }
        Ok(())
    })?;
    let uplinks = uplinks.into_iter().filter(|name| !name.is_loopback()).cloned().collect();
    let mut interfaces: Vec<_> = names.values().cloned().collect();
    interfaces.sort();
    Ok(HostFacts {
        uplinks,
        interfaces,
        local_ports: local_ports(),
        udplite: Some(knows_udplite()),
        ..HostFacts::default()
    })
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

/// The interfaces by number. One whose name is not UTF-8 cannot be named in a policy.
fn links(socket: &mut Socket) -> Result<BTreeMap<u32, InterfaceName>, NetlinkError> {
    let mut names = BTreeMap::new();
    list(socket, 1, RTM_GETLINK, IFINFOMSG_LEN, |kind, body| {
        if kind == RTM_NEWLINK {
            names.extend(link(body)?);
        }
        Ok(())
    })?;
    Ok(names)
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
    let names = links(&mut socket)?;
    let mut addresses = Vec::new();
    list(&mut socket, 2, RTM_GETADDR, IFADDRMSG_LEN, |kind, body| {
        if kind == RTM_NEWADDR {
            addresses.extend(address(body, &names)?);
        }
        Ok(())
    })?;
    Ok(addresses)
}

/// The address of an `RTM_NEWADDR`. On a point-to-point link `IFA_ADDRESS` is the remote one, and
/// `IFA_LOCAL` is ours; IPv6 has the former only.
fn address(
    body: &[u8],
    names: &BTreeMap<u32, InterfaceName>,
) -> Result<Option<LocalAddress>, CodecError> {
    let mut reader = Reader::new(body);
    let _family_and_flags = reader.u32_ne("ifaddrmsg")?;
    let interface = names.get(&reader.u32_ne("ifaddrmsg")?).cloned();
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

/// Number and name of the interface that an `RTM_NEWLINK` speaks of.
fn link(body: &[u8]) -> Result<Option<(u32, InterfaceName)>, CodecError> {
    let mut reader = Reader::new(body);
    let _family_and_type = reader.u32_ne("ifinfomsg")?;
    let index = reader.u32_ne("ifinfomsg")?;
    reader.slice("ifinfomsg", IFINFOMSG_LEN - 8)?;
    for attr in reader.attrs() {
        let attr = attr?;
        if attr.attribute_type == IFLA_IFNAME {
            let name = attr.string().ok().and_then(|name| name.parse().ok());
            return Ok(name.map(|name| (index, name)));
        }
    }
    Ok(None)
}

/// The numbers of the interfaces by which the route of an `RTM_NEWROUTE` leaves, if it is a default
/// route to somewhere.
fn default_route_exits(body: &[u8]) -> Result<Vec<u32>, CodecError> {
    let mut reader = Reader::new(body);
    let [_family, dst_len, _src_len, _tos, _table, _protocol, _scope, kind] =
        reader.array("rtmsg")?;
    let _flags = reader.u32_ne("rtmsg")?;
    let mut exits = Vec::new();
    if dst_len != 0 || kind != RTN_UNICAST {
        return Ok(exits);
    }
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            RTA_OIF => exits.push(attr.u32_ne()?),
            RTA_MULTIPATH => exits.extend(next_hops(attr.value)?),
            _ => {}
        }
    }
    Ok(exits)
}

/// The interfaces of a run of `struct rtnexthop`, each followed by attributes of its own.
fn next_hops(bytes: &[u8]) -> Result<Vec<u32>, CodecError> {
    const LEN: usize = 8;
    let mut reader = Reader::new(bytes);
    let mut exits = Vec::new();
    while !reader.rest().is_empty() {
        let len = usize::from(reader.u16_ne("rtnexthop")?);
        let _flags_and_weight = reader.u16_ne("rtnexthop")?;
        exits.push(reader.u32_ne("rtnexthop")?);
        let attributes = len.next_multiple_of(4).saturating_sub(LEN);
        reader.slice("rtnexthop", attributes)?;
    }
    Ok(exits)
}
