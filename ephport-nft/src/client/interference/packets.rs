//! The addresses and the ports that all packets of a rule have, as far as the rule compares them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ephport_core::{HostFacts, Port};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::netlink::Attr;
use crate::uapi::{
    NFT_CMP_EQ, NFT_CMP_GTE, NFT_CMP_LTE, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER,
    NFTA_BITWISE_DREG, NFTA_BITWISE_MASK, NFTA_BITWISE_SREG, NFTA_CMP_DATA, NFTA_CMP_OP,
    NFTA_CMP_SREG, NFTA_DATA_VALUE, NFTA_LOOKUP_FLAGS, NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG,
    NFTA_MATCH_INFO, NFTA_MATCH_NAME, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_LEN,
    NFTA_PAYLOAD_OFFSET, XT_MULTIPORT_SOURCE, XT_TCP_INV_DSTPT,
};

/// What the rules of a foreign rule compare; `None` is any.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    source: Option<IpNet>,
    destination: Option<IpNet>,
    source_port: Option<u16>,
    destination_ports: Ports,
    /// The parts of the packet that registers contain.
    registers: BTreeMap<u32, Field>,
}

/// The destination ports that a rule compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ports {
    /// All, or which is not seen.
    #[default]
    Any,
    /// The first and the last of each range.
    Within(Vec<(u16, u16)>),
    /// The keys of a set.
    InSet(String),
}

/// A part of the packet.
#[derive(Clone, Debug)]
struct Field {
    base: u32,
    offset: u32,
    len: u32,
    mask: Option<Vec<u8>>,
}

impl Packets {
    /// Whether all packets are sent to this host, or by a socket of it that accepts connections or has no remote
    /// address.
    pub(super) fn are_of_servers(&self, host: &HostFacts) -> bool {
        let is_local = |net: Option<IpNet>| {
            net.is_some_and(|net| host.local_networks.iter().any(|local| local.contains(&net)))
        };
        let port = self.source_port.and_then(|port| Port::new(port).ok());
        let is_server = port.is_some_and(|port| {
            host.udp_listeners.contains(port) || host.tcp_listeners.contains(port)
        });
        is_local(self.destination) || is_local(self.source) && is_server
    }

    /// The ports of the packets for addresses of this host; `None` if there are no such packets.
    pub(crate) fn ports_here(&self, host: &HostFacts) -> Option<&Ports> {
        let is_here = self.destination.is_none_or(|net| {
            host.local_networks.iter().any(|local| local.contains(&net) || net.contains(local))
        });
        is_here.then_some(&self.destination_ports)
    }

    /// Follows one expression of a rule of this family; what it cannot follow is no condition.
    pub(crate) fn add(&mut self, family: &str, name: &str, data: Option<Attr<'_>>) {
        match (name, data) {
            ("payload", Some(data)) => self.load(data),
            ("bitwise", Some(data)) => self.mask(data),
            ("cmp", Some(data)) => self.compare(family, data),
            ("match", Some(data)) => self.match_ports(data),
            ("lookup", Some(data)) => self.look_up(data),
            ("counter" | "limit" | "log" | "target" | "notrack", _) => {}
            // It may write a register.
            _ => self.registers.clear(),
        }
    }

    fn load(&mut self, data: Attr<'_>) {
        let number = |attribute_type| number(data, attribute_type);
        let Some(register) = number(NFTA_PAYLOAD_DREG) else { return };
        let base = number(NFTA_PAYLOAD_BASE).unwrap_or_default();
        let offset = number(NFTA_PAYLOAD_OFFSET).unwrap_or_default();
        let len = number(NFTA_PAYLOAD_LEN).unwrap_or_default();
        self.registers.insert(register, Field { base, offset, len, mask: None });
    }

    fn mask(&mut self, data: Attr<'_>) {
        let source = number(data, NFTA_BITWISE_SREG).and_then(|sreg| self.registers.remove(&sreg));
        let register = number(data, NFTA_BITWISE_DREG);
        let mask = value(data, NFTA_BITWISE_MASK);
        match (source, register) {
            (Some(field), Some(register)) if mask.is_some() => {
                self.registers.insert(register, Field { mask, ..field });
            }
            _ => self.registers.clear(),
        }
    }

    fn compare(&mut self, family: &str, data: Attr<'_>) {
        let register = number(data, NFTA_CMP_SREG).and_then(|sreg| self.registers.get(&sreg));
        let (Some(field), Some(value)) = (register, value(data, NFTA_CMP_DATA)) else { return };
        let op = number(data, NFTA_CMP_OP);
        if let (true, &[high, low]) = (field.is_destination_port(), value.as_slice()) {
            let port = u16::from_be_bytes([high, low]);
            match op {
                Some(NFT_CMP_EQ) => self.destination_ports.restrict(port, port),
                Some(NFT_CMP_GTE) => self.destination_ports.restrict(port, u16::MAX),
                Some(NFT_CMP_LTE) => self.destination_ports.restrict(0, port),
                _ => {}
            }
        }
        if op != Some(NFT_CMP_EQ) {
            return;
        }
        match (field.base, field.offset, value.as_slice()) {
            (NFT_PAYLOAD_NETWORK_HEADER, offset, _) => {
                let network = field.network(&value);
                match (family, offset) {
                    ("ip" | "inet", 12) | ("ip6" | "inet", 8) => self.source = network,
                    ("ip" | "inet", 16) | ("ip6" | "inet", 24) => self.destination = network,
                    _ => {}
                }
            }
            (NFT_PAYLOAD_TRANSPORT_HEADER, 0, &[high, low]) if field.mask.is_none() => {
                self.source_port = Some(u16::from_be_bytes([high, low]));
            }
            _ => {}
        }
    }

    /// A set of ports; one of other values says nothing of ports.
    fn look_up(&mut self, data: Attr<'_>) {
        let register = number(data, NFTA_LOOKUP_SREG).and_then(|sreg| self.registers.get(&sreg));
        let is_port = register.is_some_and(Field::is_destination_port);
        let is_inverted = number(data, NFTA_LOOKUP_FLAGS).is_some_and(|flags| flags != 0);
        if let (true, false, Some(set)) = (is_port, is_inverted, child(data, NFTA_LOOKUP_SET)) {
            self.destination_ports = Ports::InSet(super::text(set.value));
        }
        self.registers.clear();
    }

    /// `struct xt_udp` and `struct xt_tcp` (linux/netfilter/xt_tcpudp.h): the first and the last source port, those of
    /// the destination, then flags.
    fn match_ports(&mut self, data: Attr<'_>) {
        let name = child(data, NFTA_MATCH_NAME).map(|attr| super::text(attr.value));
        let info = child(data, NFTA_MATCH_INFO).map(|attr| attr.value).unwrap_or_default();
        let inverted = match name.as_deref() {
            Some("udp") => info.get(8),
            Some("tcp") => info.get(11),
            Some("multiport") => return self.match_list(info),
            _ => None,
        };
        if let (Some(flags), Some(&[_, _, _, _, a, b, c, d])) = (inverted, info.first_chunk::<8>())
            && flags & XT_TCP_INV_DSTPT == 0
        {
            let ends = [[a, b], [c, d]].map(u16::from_ne_bytes);
            self.destination_ports.restrict(ends[0], ends[1]);
        }
        if let (Some(0), Some(&[a, b, c, d])) = (inverted, info.first_chunk::<4>())
            && [a, b] == [c, d]
        {
            self.source_port = Some(u16::from_ne_bytes([a, b]));
        }
    }
}

impl Packets {
    /// `struct xt_multiport_v1` (linux/netfilter/xt_multiport.h): which ports and how many, 15 ports, for each whether
    /// the next one is the last of a range, and whether the match is inverted.
    fn match_list(&mut self, info: &[u8]) {
        let (Some((&[side, count], ports)), Some(0)) =
            (info.split_first_chunk::<2>(), info.get(47))
        else {
            return;
        };
        let Some((ports, is_first)) = ports.split_at_checked(30) else { return };
        if side == XT_MULTIPORT_SOURCE {
            return;
        }
        let ports = ports.chunks_exact(2).zip(is_first).take(count.into());
        let mut ports = ports.filter_map(|(port, is_first)| {
            Some((u16::from_ne_bytes(port.try_into().ok()?), *is_first != 0))
        });
        let mut ranges = Vec::new();
        while let Some((first, has_last)) = ports.next() {
            let last = if has_last { ports.next().map(|(last, _)| last) } else { Some(first) };
            ranges.extend(last.map(|last| (first, last)));
        }
        self.destination_ports = Ports::Within(ranges);
    }
}

impl Ports {
    /// Only those from `first` to `last`.
    fn restrict(&mut self, first: u16, last: u16) {
        *self = match std::mem::take(self) {
            Self::Within(ranges) => {
                let both = |(from, to): (u16, u16)| (from.max(first), to.min(last));
                Self::Within(ranges.into_iter().map(both).collect())
            }
            Self::Any | Self::InSet(_) if (first, last) == (0, u16::MAX) => Self::Any,
            Self::Any | Self::InSet(_) => Self::Within(vec![(first, last)]),
        };
    }
}

impl Field {
    fn is_destination_port(&self) -> bool {
        (self.base, self.offset, self.len) == (NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
            && self.mask.is_none()
    }

    /// The network of the addresses whose leading bits have this value.
    fn network(&self, value: &[u8]) -> Option<IpNet> {
        let mask = match &self.mask {
            Some(mask) => mask.clone(),
            None => vec![0xff; value.len()],
        };
        let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        let leading: u32 = mask
            .iter()
            .scan(true, |is_leading, byte| {
                let count = if *is_leading { byte.leading_ones() } else { 0 };
                *is_leading &= *byte == 0xff;
                Some(count)
            })
            .sum();
        let len = u8::try_from(leading).ok().filter(|_| ones == leading)?;
        if usize::try_from(self.len).ok()? != value.len() {
            return None;
        }
        let is_ipv4 = matches!(self.offset, 12 | 16);
        let padded = |size: usize| {
            let mut bytes = value.to_vec();
            bytes.resize(size, 0);
            bytes
        };
        if is_ipv4 {
            let bytes: [u8; 4] = padded(4).try_into().ok()?;
            Ipv4Net::new(Ipv4Addr::from(bytes), len).ok().map(Into::into)
        } else {
            let bytes: [u8; 16] = padded(16).try_into().ok()?;
            Ipv6Net::new(Ipv6Addr::from(bytes), len).ok().map(Into::into)
        }
    }
}

/// The nested attribute of this type.
fn child(data: Attr<'_>, attribute_type: u16) -> Option<Attr<'_>> {
    data.nested().flatten().find(|attr| attr.attribute_type == attribute_type)
}

fn number(data: Attr<'_>, attribute_type: u16) -> Option<u32> {
    child(data, attribute_type)?.u32_be().ok()
}

/// The bytes of nested data.
fn value(data: Attr<'_>, attribute_type: u16) -> Option<Vec<u8>> {
    child(child(data, attribute_type)?, NFTA_DATA_VALUE).map(|attr| attr.value.to_vec())
}
