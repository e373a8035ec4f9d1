//! Routes (linux/rtnetlink.h) and next hop objects (linux/nexthop.h).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{ip, list};
use crate::netlink::{CodecError, NetlinkError, Reader, Socket};
use crate::uapi::{
    NHA_GROUP, NHA_ID, NHA_OIF, RTA_DST, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTM_GETNEXTHOP,
    RTM_GETROUTE, RTM_NEWNEXTHOP, RTM_NEWROUTE, RTN_LOCAL, RTN_UNICAST,
};

/// Length of `struct rtmsg` and of `struct nhmsg`.
const RTMSG_LEN: usize = 12;
const NHMSG_LEN: usize = 8;

/// The routes of every table, as far as policies depend on them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// The interfaces with a default route, or with routes to both halves of all addresses.
    pub(super) uplinks: BTreeSet<u32>,
    /// The local addresses, each with its interface.
    pub(super) local: Vec<(IpAddr, u32)>,
}

/// A route.
struct Route {
    family: u8,
    len: u8,
    /// `RTN_*` (linux/rtnetlink.h).
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
                routes.push(Route::read(body)?);
            }
            Ok(())
        })?;
        let mut nexthops = BTreeMap::new();
        if routes.iter().any(|route| route.len <= 1 && route.nexthop.is_some()) {
            list(socket, 3, RTM_GETNEXTHOP, NHMSG_LEN, |message_type, body| {
                if message_type == RTM_NEWNEXTHOP {
                    nexthops.extend(nexthop(body)?);
                }
                Ok(())
            })?;
        }
        Ok(Self::of(&routes, &nexthops))
    }

    fn of(routes: &[Route], nexthops: &BTreeMap<u32, Nexthop>) -> Self {
        let mut all = Self::default();
        let mut halves: BTreeMap<(u8, u32), BTreeSet<IpAddr>> = BTreeMap::new();
        for route in routes {
            let ids = route.nexthop.iter().flat_map(|id| interfaces_of(*id, nexthops));
            let interfaces = route.interfaces.iter().copied().chain(ids);
            match (route.kind, route.len, route.destination) {
                (RTN_UNICAST, 0, _) => all.uplinks.extend(interfaces),
                (RTN_UNICAST, 1, half) => {
                    // The kernel lists no destination for the lower half of some families.
                    let lower = IpAddr::from([0, 0, 0, 0]);
                    for index in interfaces {
                        let half = half.filter(|half| !half.is_unspecified()).unwrap_or(lower);
                        halves.entry((route.family, index)).or_default().insert(half);
                    }
                }
                (RTN_LOCAL, 32 | 128, Some(address)) => {
                    all.local.extend(interfaces.map(|index| (address, index)));
                }
                _ => {}
            }
        }
        let both = halves.iter().filter(|(_, halves)| halves.len() == 2);
        all.uplinks.extend(both.map(|((_, index), _)| *index));
        all
    }
}

impl Route {
    /// Reads the body of an `RTM_NEWROUTE`.
    fn read(body: &[u8]) -> Result<Self, CodecError> {
        const WHAT: &str = "rtmsg";
        let mut reader = Reader::new(body);
        let [family, len, _src_len, _tos, _table, _protocol, _scope, kind] = reader.array(WHAT)?;
        let _flags = reader.u32_ne(WHAT)?;
        let (destination, interfaces, nexthop) = (None, Vec::new(), None);
        let mut route = Self { family, len, kind, destination, interfaces, nexthop };
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.attribute_type {
                RTA_DST => route.destination = ip(attr.value),
                RTA_OIF => route.interfaces.push(attr.u32_ne()?),
                RTA_MULTIPATH => route.interfaces.extend(next_hops(attr.value)?),
                RTA_NH_ID => route.nexthop = Some(attr.u32_ne()?),
                _ => {}
            }
        }
        Ok(route)
    }
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
