//! The sets and maps that policies need.
//!
//! ```
//! use ephport_nft::table::{Set, SetName};
//!
//! let ports = Set::ports(SetName::Anonymous(0), &"1024-2000,3000-65535".parse()?);
//! assert_eq!(ports.spec.name, "__set0");
//! assert_eq!(ports.elements.len(), 4); // before 1024; from 1024; before 2001; from 3000
//! # Ok::<(), ephport_core::PortError>(())
//! ```

use std::net::IpAddr;

use ephport_core::{Family, Port, PortRange, PortSet};
use ipnet::IpNet;

use super::layout::{FAMILY, TABLE};
use super::set::{Set, above};
use crate::nftables::datatype::{
    IFNAME, INET_SERVICE, INTEGER, IPV4_ADDR, IPV6_ADDR, concatenation,
};
use crate::nftables::expr::{Data, Verdict};
use crate::nftables::value::{address_bytes, is_zero, port_bytes};
use crate::nftables::{Element, ElementList, SetSpec};
use crate::uapi::{
    NFT_CT_ID, NFT_DATA_VERDICT, NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP,
};

/// What a set is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetName<'a> {
    /// A name of its own.
    Named(&'a str),
    /// A number, unique in the table; the set belongs to the one rule that looks it up. It is
    /// called `__set0` or `__map0`, as the kernel would call it.
    Anonymous(u32),
}

/// The bytes of a key or value: nft's type and how many there are.
#[derive(Clone, Copy)]
struct Kind {
    datatype: u32,
    len: u32,
    /// What nft must know to print it.
    order: Order,
}

/// `enum byteorder` of nft.
#[derive(Clone, Copy)]
enum Order {
    Host = 1,
    Network = 2,
}

/// Types of nft's user data of a set (libnftnl/udata.h).
const NFTNL_UDATA_SET_KEYBYTEORDER: u8 = 0;
const NFTNL_UDATA_SET_DATABYTEORDER: u8 = 1;
const NFTNL_UDATA_SET_KEY_TYPEOF: u8 = 3;
const NFTNL_UDATA_SET_DATA_INTERVAL: u8 = 6;

impl Kind {
    const PORT: Self = Self { datatype: INET_SERVICE, len: 2, order: Order::Network };
    const HOST_NUMBER: Self = Self { datatype: INTEGER, len: 4, order: Order::Host };
    const NUMBER: Self = Self { datatype: INTEGER, len: 4, order: Order::Network };
    /// nft reads the number of a connection in network order.
    const CONNECTION: Self = Self { datatype: INTEGER, len: 4, order: Order::Network };

    const INTERFACE: Self = Self { datatype: IFNAME, len: 16, order: Order::Host };

    fn address(family: Family) -> Self {
        let (datatype, len) = match family {
            Family::Ipv4 => (IPV4_ADDR, 4),
            Family::Ipv6 => (IPV6_ADDR, 16),
        };
        Self { datatype, len, order: Order::Network }
    }
}

/// User data with these numbers, each under its type.
fn userdata(notes: &[(u8, u32)]) -> Vec<u8> {
    let note = |(kind, value): &(u8, u32)| [&[*kind, 4][..], &value.to_ne_bytes()].concat();
    notes.iter().flat_map(note).collect()
}

/// How nft notes the type of `ct id`: the expression (`EXPR_CT`), and as its data the key and no direction
/// (`ct_expr_build_udata`).
fn typeof_ct_id() -> Vec<u8> {
    const EXPRESSION: u8 = 0;
    const DATA: u8 = 1;
    const EXPR_CT: u32 = 12;
    let data = userdata(&[(0, NFT_CT_ID), (1, u32::MAX)]);
    [&userdata(&[(EXPRESSION, EXPR_CT)]), &[DATA, 12][..], &data].concat()
}

/// A set of `key` without elements.
fn empty(name: SetName<'_>, key: Kind, flags: u32) -> SetSpec {
    let prefix = if flags & NFT_SET_MAP == 0 { "__set" } else { "__map" };
    let (name, flags) = match name {
        SetName::Named(name) => (name.to_string(), flags),
        SetName::Anonymous(number) => {
            (format!("{prefix}{number}"), flags | NFT_SET_ANONYMOUS | NFT_SET_CONSTANT)
        }
    };
    SetSpec {
        flags: Some(flags),
        key_type: Some(key.datatype),
        key_len: Some(key.len),
        userdata: Some(userdata(&[(NFTNL_UDATA_SET_KEYBYTEORDER, key.order as u32)])),
        ..SetSpec::new(FAMILY, TABLE, &name)
    }
}

fn empty_map(
    name: SetName<'_>,
    key: Kind,
    flags: u32,
    data_type: u32,
    data_len: Option<u32>,
) -> SetSpec {
    let notes =
        [(NFTNL_UDATA_SET_KEYBYTEORDER, key.order as u32), (NFTNL_UDATA_SET_DATABYTEORDER, 0)];
    SetSpec {
        data_type: Some(data_type),
        data_len,
        userdata: Some(userdata(&notes)),
        ..empty(name, key, flags | NFT_SET_MAP)
    }
}

fn verdict_map(name: SetName<'_>, key: Kind, flags: u32) -> SetSpec {
    empty_map(name, key, flags, NFT_DATA_VERDICT, None)
}

/// A range of keys, both ends included, with its value.
type Range = (Vec<u8>, Vec<u8>, Option<Data>);

/// An interval set of ascending ranges that do not overlap, as nft encodes it: what lies below the
/// first range is closed, and an anonymous set has no end where the next range begins at once.
fn interval(set: SetSpec, ranges: Vec<Range>) -> Set {
    let mut elements = Vec::with_capacity(2 * ranges.len() + 1);
    let mut ranges = ranges.into_iter().peekable();
    if let Some((first, ..)) = ranges.peek().filter(|(first, ..)| !is_zero(first)) {
        elements.push(Element::end(vec![0; first.len()]));
    }
    while let Some((first, last, data)) = ranges.next() {
        elements.push(Element::new(first, data));
        let end = above(&last);
        let is_adjacent = ranges.peek().is_some_and(|(next, ..)| Some(next) == end.as_ref());
        elements.extend(end.filter(|_| !(is_adjacent && set.is_anonymous())).map(Element::end));
    }
    Set { spec: set, elements: elements.into() }
}

/// The same, but what nft makes of `{ ... }` where no range is more than one key: no interval set.
fn listed(set: SetSpec, ranges: Vec<Range>) -> Set {
    if !set.is_anonymous() || ranges.iter().any(|(first, last, _)| first != last) {
        return interval(set, ranges);
    }
    let flags = set.flags.map(|flags| flags & !NFT_SET_INTERVAL);
    let elements = ranges.into_iter().map(|(key, _, data)| Element::new(key, data));
    hashed(SetSpec { flags, ..set }, elements.collect())
}

/// The least size of a named set: below it, other elements never require another set.
const MIN_SIZE: usize = 64;

/// A hash set or map, which declares its size: the kernel then makes its table once. A named one has room for
/// others, see [`MIN_SIZE`].
fn hashed(set: SetSpec, elements: ElementList) -> Set {
    let least = if set.is_anonymous() { 1 } else { MIN_SIZE };
    let size = u32::try_from(elements.len().next_power_of_two().max(least)).ok();
    Set { spec: set.with_size(size), elements }
}

fn port_keys(range: PortRange) -> (Vec<u8>, Vec<u8>) {
    (port_bytes(range.first()).to_vec(), port_bytes(range.last()).to_vec())
}

/// A port in a register of its own.
fn port_slot(port: ephport_core::Port) -> [u8; 4] {
    let [high, low] = port_bytes(port);
    [high, low, 0, 0]
}

/// The addresses of those networks that are of `family`, as ascending ranges, first and last
/// address, that neither overlap nor touch.
fn merged_networks(family: Family, networks: &[IpNet]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let of_family = networks.iter().filter(|net| Family::of(net.addr()) == family);
    let mut ranges: Vec<_> = of_family
        .map(|net| (address_bytes(net.network()), address_bytes(net.broadcast())))
        .collect();
    ranges.sort();
    let mut merged: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if above(end).is_none_or(|above| first <= above) => {
                *end = last.max(std::mem::take(end));
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

impl Set {
    /// A set of ports, for a 2-byte port in a register.
    #[must_use]
    pub fn ports(name: SetName<'_>, ports: &PortSet) -> Self {
        let ranges = ports.ranges().iter().map(|range| {
            let (first, last) = port_keys(*range);
            (first, last, None)
        });
        listed(empty(name, Kind::PORT, NFT_SET_INTERVAL), ranges.collect())
    }

    /// A hash set of these ports, as bytes in network order.
    #[must_use]
    pub fn port_keys(name: SetName<'_>, ports: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let elements = ports.into_iter().map(|port| Element::new(port, None)).collect();
        hashed(empty(name, Kind::PORT, 0), elements)
    }

    /// A hash set of the names of interfaces, each with closing NULs up to `IFNAMSIZ`.
    #[must_use]
    pub fn interfaces(name: SetName<'_>, names: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let elements = names.into_iter().map(|name| Element::new(name, None)).collect();
        hashed(empty(name, Kind::INTERFACE, 0), elements)
    }

    /// The same set for identifiers of echo requests in place of ports: nft's type of them is a number.
    #[must_use]
    pub fn of_identifiers(mut self) -> Self {
        self.spec.key_type = Some(INTEGER);
        self
    }

    /// A set of connections by their numbers, without elements: what `ct id`
    /// loads. `nft` prints the type as `typeof ct id`.
    #[must_use]
    pub fn connections(name: &str) -> Self {
        let spec = empty(SetName::Named(name), Kind::CONNECTION, NFT_SET_CONSTANT);
        let type_of = [&[NFTNL_UDATA_SET_KEY_TYPEOF, 20][..], &typeof_ct_id()].concat();
        let userdata = spec.userdata.clone().map(|notes| [notes, type_of].concat());
        Self { spec: SetSpec { userdata, ..spec }, elements: ElementList::default() }
    }

    /// A verdict for each of some ranges of ports that do not overlap, for a 2-byte port in a
    /// register.
    #[must_use]
    pub fn port_verdicts(name: SetName<'_>, verdicts: &[(PortRange, Verdict)]) -> Self {
        let mut verdicts: Vec<_> = verdicts.iter().collect();
        verdicts.sort_by_key(|(range, _)| *range);
        let ranges = verdicts.into_iter().map(|(range, verdict)| {
            let (first, last) = port_keys(*range);
            (first, last, Some(Data::verdict(verdict.clone())))
        });
        listed(verdict_map(name, Kind::PORT, NFT_SET_INTERVAL), ranges.collect())
    }

    /// A port for each of some ports, as bytes of a packet.
    #[must_use]
    pub fn port_map(name: SetName<'_>, pairs: impl IntoIterator<Item = (Port, Port)>) -> Self {
        let element = |(key, value)| {
            let value = Data::value(&port_bytes(value));
            Element::new(port_bytes(key).to_vec(), Some(value))
        };
        let notes = [
            (NFTNL_UDATA_SET_KEYBYTEORDER, Order::Network as u32),
            (NFTNL_UDATA_SET_DATABYTEORDER, Order::Network as u32),
        ];
        let map = empty_map(name, Kind::PORT, 0, INET_SERVICE, Some(Kind::PORT.len));
        let map = SetSpec { userdata: Some(userdata(&notes)), ..map };
        hashed(map, pairs.into_iter().map(element).collect())
    }

    /// A hash map of a verdict for each of these ports, or of their leading bits, in network order.
    #[must_use]
    pub fn port_key_verdicts(
        name: SetName<'_>,
        verdicts: impl IntoIterator<Item = (u16, Verdict)>,
    ) -> Self {
        let elements = verdicts.into_iter().map(|(port, verdict)| {
            Element::new(port.to_be_bytes().to_vec(), Some(Data::verdict(verdict)))
        });
        hashed(verdict_map(name, Kind::PORT, 0), elements.collect())
    }

    /// The first verdict for 0, the second for 1 and so on, for a number in the order of the
    /// machine, as `numgen` and `hash` make it.
    #[must_use]
    pub fn number_verdicts(name: SetName<'_>, verdicts: &[Verdict]) -> Self {
        let elements = (0u32..).zip(verdicts).map(|(number, verdict)| {
            Element::new(number.to_ne_bytes().to_vec(), Some(Data::verdict(verdict.clone())))
        });
        hashed(verdict_map(name, Kind::HOST_NUMBER, 0), elements.collect())
    }

    /// Each verdict for as many numbers as its weight, from 0 on, for a number in network order
    /// (`byteorder`). The modulus is the sum of
    /// the weights.
    #[must_use]
    pub fn weighted_verdicts(name: SetName<'_>, verdicts: &[(u32, Verdict)]) -> Self {
        let mut next = 0u32;
        let weighty = verdicts.iter().filter(|(weight, _)| *weight > 0);
        let ranges = weighty.map(|(weight, verdict)| {
            let first = next;
            next = next.saturating_add(*weight);
            let last = next - 1;
            let data = Some(Data::verdict(verdict.clone()));
            (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec(), data)
        });
        let ranges = ranges.collect();
        interval(verdict_map(name, Kind::NUMBER, NFT_SET_INTERVAL), ranges)
    }

    /// The addresses of those networks that are of `family`, merged.
    #[must_use]
    pub fn networks(name: SetName<'_>, family: Family, networks: &[IpNet]) -> Self {
        let ranges = merged_networks(family, networks).into_iter();
        let ranges = ranges.map(|(first, last)| (first, last, None)).collect();
        listed(empty(name, Kind::address(family), NFT_SET_INTERVAL), ranges)
    }

    /// These addresses of `family`, as bytes in network order.
    #[must_use]
    pub fn addresses(
        name: SetName<'_>,
        family: Family,
        addresses: impl IntoIterator<Item = Vec<u8>>,
    ) -> Self {
        let elements = addresses.into_iter().map(|address| Element::new(address, None)).collect();
        hashed(empty(name, Kind::address(family), 0), elements)
    }

    /// A verdict for each source of `family`.
    #[must_use]
    pub fn source_verdicts(
        name: SetName<'_>,
        family: Family,
        verdicts: impl IntoIterator<Item = (IpAddr, Verdict)>,
    ) -> Self {
        let of_family = verdicts.into_iter().filter(|(source, _)| Family::of(*source) == family);
        let elements = of_family.map(|(source, verdict)| {
            Element::new(address_bytes(source), Some(Data::verdict(verdict)))
        });
        hashed(verdict_map(name, Kind::address(family), 0), elements.collect())
    }

    /// The outside address of each source of `family`.
    #[must_use]
    pub fn source_addresses(
        name: SetName<'_>,
        family: Family,
        addresses: impl IntoIterator<Item = (IpAddr, IpAddr)>,
    ) -> Self {
        let elements = addresses.into_iter().map(|(source, outside)| {
            Element::new(address_bytes(source), Some(Data::value(&address_bytes(outside))))
        });
        let key = Kind::address(family);
        let map = empty_map(name, key, 0, key.datatype, Some(key.len));
        hashed(map, elements.collect())
    }

    /// The range of ports of each source of `family`: two registers, the lowest port and the
    /// highest. Loaded into register 1, they are in registers 1 and 9. nft does not print how masq
    /// uses them.
    #[must_use]
    pub fn source_ports(
        name: SetName<'_>,
        family: Family,
        blocks: impl IntoIterator<Item = (IpAddr, PortRange)>,
    ) -> Self {
        let of_family = blocks.into_iter().filter(|(source, _)| Family::of(*source) == family);
        let elements = of_family.map(|(source, ports)| {
            let data = [port_slot(ports.first()), port_slot(ports.last())].concat();
            Element::new(address_bytes(source), Some(Data::value(&data)))
        });
        let ports = concatenation(INET_SERVICE, INET_SERVICE);
        hashed(empty_map(name, Kind::address(family), 0, ports, Some(8)), elements.collect())
    }

    /// The outside address and range of ports of each source of `family`, as `nat` reads them:
    /// the address, the lowest port, the address again, the highest port. Loaded into register 1,
    /// they are where `Nat::source_block` looks for them.
    #[must_use]
    pub fn source_blocks(
        name: SetName<'_>,
        family: Family,
        blocks: impl IntoIterator<Item = (IpAddr, IpAddr, PortRange)>,
    ) -> Self {
        let of_family = blocks.into_iter().filter(|(source, outside, _)| {
            Family::of(*source) == family && Family::of(*outside) == family
        });
        let elements = of_family.map(|(source, outside, ports)| {
            let outside = address_bytes(outside);
            let (min, max) = (port_slot(ports.first()), port_slot(ports.last()));
            let data = [&outside[..], &min, &outside, &max].concat();
            Element::new(address_bytes(source), Some(Data::value(&data)))
        });
        let key = Kind::address(family);
        let block = concatenation(key.datatype, INET_SERVICE);
        let notes = [
            (NFTNL_UDATA_SET_KEYBYTEORDER, key.order as u32),
            (NFTNL_UDATA_SET_DATABYTEORDER, 0),
            (NFTNL_UDATA_SET_DATA_INTERVAL, 1),
        ];
        let map = empty_map(name, key, 0, block, Some(2 * (key.len + 4)));
        hashed(SetSpec { userdata: Some(userdata(&notes)), ..map }, elements.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_keys_make_no_interval_set() {
        let single = Set::ports(SetName::Anonymous(0), &"500,4500".parse().unwrap());
        assert!(!single.spec.is_interval());
        assert_eq!(single.elements.len(), 2);
        let ranges = Set::ports(SetName::Anonymous(0), &"500-501,4500".parse().unwrap());
        assert!(ranges.spec.is_interval());
        // The declaration of a named set marks it as one.
        let named = Set::ports(SetName::Named("n"), &"500,4500".parse().unwrap());
        assert!(named.spec.is_interval());
    }
}
