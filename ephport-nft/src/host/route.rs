//! Routes (linux/rtnetlink.h) and next hop objects (linux/nexthop.h).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ephport_core::Family;
use ephport_core::decision::PRIVATE_NETWORKS;
use ipnet::IpNet;

use super::{ip, list};
use crate::netlink::{CodecError, NetlinkError, Reader, Socket};
use crate::uapi::{
    AF_INET, AF_INET6, NHA_GROUP, NHA_ID, NHA_OIF, RTA_DST, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF,
    RTA_TABLE, RTM_GETNEXTHOP, RTM_GETROUTE, RTM_NEWNEXTHOP, RTM_NEWROUTE, RTN_LOCAL, RTN_UNICAST,
    RTPROT_DHCP, RTPROT_KERNEL, RTPROT_RA,
};

/// Length of `struct rtmsg` and of `struct nhmsg`.
const RTMSG_LEN: usize = 12;
const NHMSG_LEN: usize = 8;

/// The routes of every table, as far as policies depend on them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// The default routes, and the routes to both halves of all addresses.
    pub(super) defaults: BTreeSet<DefaultRoute>,
    /// The networks of private addresses with a route of their own, each with its interface.
    pub(super) networks: BTreeSet<(IpNet, u32)>,
    /// The local addresses, each with its interface.
    pub(super) local: Vec<(IpNet, u32)>,
}

/// A default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DefaultRoute {
    pub(super) interface: u32,
    pub(super) table: u32,
    pub(super) family: Family,
    /// Whether it is two routes to half of all addresses each.
    pub(super) halves: bool,
}

/// A route.
struct Route {
    family: Family,
    len: u8,
    table: u32,
    /// `RTPROT_*` and `RTN_*` (linux/rtnetlink.h).
    protocol: u8,
    kind: u8,
    destination: Option<IpAddr>,
    interfaces: Vec<u32>,
    nexthop: Option<u32>,
}

impl Routes {
    /// Reads the routes of this thread's network namespace.
    pub(super) fn read(socket: &mut Socket) -> Result<Self, NetlinkError> {
        let mut routes = Vec::new();
        list(socket, 2, RTM_GETROUTE, RTMSG_LEN, |message_type, body| {
            if message_type == RTM_NEWROUTE {
                routes.extend(Route::read(body)?);
            }
            Ok(())
        })?;
        let has_nexthops = routes.iter().any(|route| route.nexthop.is_some());
        let nexthops = if has_nexthops { nexthops(socket)? } else { BTreeMap::new() };
        Ok(Self::of(&routes, &nexthops))
    }

    /// The interfaces with a default route.
    pub(super) fn uplinks(&self) -> BTreeSet<u32> {
        self.defaults.iter().map(|route| route.interface).collect()
    }

    fn of(routes: &[Route], nexthops: &BTreeMap<u32, Nexthop>) -> Self {
        let mut all = Self::default();
        let mut halves: BTreeMap<DefaultRoute, BTreeSet<IpAddr>> = BTreeMap::new();
        for route in routes {
            for interface in route.all_interfaces(nexthops) {
                let Route { table, family, .. } = *route;
                let default = DefaultRoute { interface, table, family, halves: route.len == 1 };
                match (route.kind, route.len) {
                    (RTN_UNICAST, 0) => drop(all.defaults.insert(default)),
                    (RTN_UNICAST, 1) => {
                        halves
                            .entry(default)
                            .or_default()
                            .extend(route.network().map(|net| net.addr()));
                    }
                    (RTN_UNICAST, _) if route.is_private() => {
                        all.networks.extend(route.network().map(|network| (network, interface)));
                    }
                    (RTN_LOCAL, _) => {
                        all.local.extend(route.network().map(|network| (network, interface)));
                    }
                    _ => {}
                }
            }
        }
        let both = halves.into_iter().filter(|(_, halves)| halves.len() == 2);
        all.defaults.extend(both.map(|(route, _)| route));
        all
    }
}

impl Route {
    /// Reads the body of an `RTM_NEWROUTE`; none of a family without source ports.
    fn read(body: &[u8]) -> Result<Option<Self>, CodecError> {
        const WHAT: &str = "rtmsg";
        let mut reader = Reader::new(body);
        let [family, len, _src_len, _tos, table, protocol, _scope, kind] = reader.array(WHAT)?;
        let _flags = reader.u32_ne(WHAT)?;
        let family = match family {
            AF_INET => Family::Ipv4,
            AF_INET6 => Family::Ipv6,
            _ => return Ok(None),
        };
        let (table, destination, interfaces, nexthop) = (table.into(), None, Vec::new(), None);
        let mut route =
            Self { family, len, table, protocol, kind, destination, interfaces, nexthop };
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.attribute_type {
                RTA_DST => route.destination = ip(attr.value),
                RTA_OIF => route.interfaces.push(attr.u32_ne()?),
                RTA_TABLE => route.table = attr.u32_ne()?,
                RTA_MULTIPATH => route.interfaces.extend(next_hops(attr.value)?),
                RTA_NH_ID => route.nexthop = Some(attr.u32_ne()?),
                _ => {}
            }
        }
        Ok(Some(route))
    }

    /// Its interfaces, those of its next hop object included.
    fn all_interfaces(&self, nexthops: &BTreeMap<u32, Nexthop>) -> Vec<u32> {
        let ids = self.nexthop.iter().flat_map(|id| interfaces_of(*id, nexthops));
        self.interfaces.iter().copied().chain(ids).collect()
    }

    /// The destination. The kernel lists none for the lower half of all addresses.
    fn network(&self) -> Option<IpNet> {
        let all = match self.family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        IpNet::new(self.destination.unwrap_or(all), self.len).ok()
    }

    /// Whether it is to private addresses, and not the network of the interface or of its configuration.
    fn is_private(&self) -> bool {
        let is_automatic = [RTPROT_KERNEL, RTPROT_RA, RTPROT_DHCP].contains(&self.protocol);
        let is_link_local = |network: &IpNet| match network {
            IpNet::V4(network) => network.addr().is_link_local(),
            IpNet::V6(network) => network.addr().is_unicast_link_local(),
        };
        let network = self.network().filter(|network| !is_link_local(network));
        !is_automatic
            && network.is_some_and(|net| PRIVATE_NETWORKS.iter().any(|all| all.contains(&net)))
    }
}

/// The interface of the longest route to an address, in any table.
pub(super) fn interface_to(
    socket: &mut Socket,
    address: IpAddr,
) -> Result<Option<u32>, NetlinkError> {
    let mut best: Option<Route> = None;
    list(socket, 4, RTM_GETROUTE, RTMSG_LEN, |message_type, body| {
        if message_type != RTM_NEWROUTE {
            return Ok(());
        }
        let covers = |route: &Route| {
            let is_longer = best.as_ref().is_none_or(|best| best.len < route.len);
            let network = route.network().filter(|_| route.kind == RTN_UNICAST && is_longer);
            network.is_some_and(|network| network.contains(&address))
        };
        if let Some(route) = Route::read(body)?.filter(covers) {
            best = Some(route);
        }
        Ok(())
    })?;
    let Some(best) = best else { return Ok(None) };
    let nexthops = if best.nexthop.is_some() { nexthops(socket)? } else { BTreeMap::new() };
    Ok(best.all_interfaces(&nexthops).first().copied())
}

/// The next hop objects by their number.
fn nexthops(socket: &mut Socket) -> Result<BTreeMap<u32, Nexthop>, NetlinkError> {
    let mut nexthops = BTreeMap::new();
    list(socket, 3, RTM_GETNEXTHOP, NHMSG_LEN, |message_type, body| {
        if message_type == RTM_NEWNEXTHOP {
            nexthops.extend(nexthop(body)?);
        }
        Ok(())
    })?;
    Ok(nexthops)
}

/// A next hop object.
#[derive(Debug)]
struct Nexthop {
    interface: Option<u32>,
    /// The members of a group.
    group: Vec<u32>,
}

/// The interfaces of a next hop object; a group has no groups in it.
fn interfaces_of(id: u32, nexthops: &BTreeMap<u32, Nexthop>) -> Vec<u32> {
    let Some(nexthop) = nexthops.get(&id) else { return Vec::new() };
    let members = nexthop.group.iter().filter_map(|member| nexthops.get(member)?.interface);
    nexthop.interface.into_iter().chain(members).collect()
}

/// The number and the next hop object of an `RTM_NEWNEXTHOP`.
fn nexthop(body: &[u8]) -> Result<Option<(u32, Nexthop)>, CodecError> {
    const WHAT: &str = "nhmsg";
    let mut reader = Reader::new(body);
    reader.slice(WHAT, NHMSG_LEN)?;
    let (mut id, mut interface, mut group) = (None, None, Vec::new());
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            NHA_ID => id = Some(attr.u32_ne()?),
            NHA_OIF => interface = Some(attr.u32_ne()?),
            NHA_GROUP => {
                let mut members = Reader::new(attr.value);
                while !members.rest().is_empty() {
                    group.push(members.u32_ne("nexthop_grp")?);
                    let _weight = members.u32_ne("nexthop_grp")?;
                }
            }
            _ => {}
        }
    }
    Ok(id.map(|id| (id, Nexthop { interface, group })))
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
