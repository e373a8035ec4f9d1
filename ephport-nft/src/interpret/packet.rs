//! The packet that a program runs on.

use std::net::IpAddr;

use ephport_core::{Cast, Family, Flow, InterfaceName, Port, Protocol, Segment};

use crate::expr::{Ct, Fib, Meta, Payload};
use crate::uapi::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, IP_CT_DIR_ORIGINAL, IP_CT_NEW, NFPROTO_IPV4, NFPROTO_IPV6,
    NFT_CT_DIRECTION, NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_CT_STATE, NFT_META_IIF, NFT_META_L4PROTO,
    NFT_META_NFPROTO, NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER, RTN_BROADCAST, RTN_MULTICAST, RTN_UNICAST,
};

/// TCP's SYN, and an acknowledgement in mid-stream (RFC 9293 §3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The packet that opens a connection, before or after translation.
pub(super) struct Packet<'a> {
    flow: &'a Flow,
    source_port: Port,
}

impl<'a> Packet<'a> {
    /// Before translation.
    pub(super) fn opening(flow: &'a Flow) -> Self {
        Self { flow, source_port: flow.source_port() }
    }

    /// After translation to this port; what its source address became, no program asks.
    pub(super) fn leaving(flow: &'a Flow, source_port: Port) -> Self {
        Self { flow, source_port }
    }

    /// What `meta` loads.
    pub(super) fn meta(&self, meta: &Meta) -> Option<Vec<u8>> {
        let out = self.flow.out_interface();
        match meta.key {
            NFT_META_OIFNAME => Some(padded_name(out)),
            NFT_META_OIFTYPE => {
                let kind = if out.is_loopback() { ARPHRD_LOOPBACK } else { ARPHRD_ETHER };
                Some(kind.to_ne_bytes().into())
            }
            // Any number but 0 would do for an interface.
            NFT_META_IIF => {
                Some(u32::from(self.flow.in_interface().is_some()).to_ne_bytes().into())
            }
            NFT_META_NFPROTO => Some(vec![match self.flow.family() {
                Family::Ipv4 => NFPROTO_IPV4,
                Family::Ipv6 => NFPROTO_IPV6,
            }]),
            NFT_META_L4PROTO => Some(vec![self.flow.protocol().number()]),
            _ => None,
        }
    }

    /// What `payload` loads.
    pub(super) fn payload(&self, load: &Payload) -> Option<Vec<u8>> {
        let header = match load.base {
            NFT_PAYLOAD_NETWORK_HEADER => self.network_header(),
            NFT_PAYLOAD_TRANSPORT_HEADER => self.transport_header(),
            _ => return None,
        };
        let offset = usize::try_from(load.offset).ok()?;
        let end = offset.checked_add(usize::try_from(load.len).ok()?)?;
        header.get(offset..end).map(Into::into)
    }

    /// What `fib` loads.
    pub(super) fn fib(&self, fib: &Fib) -> Option<Vec<u8>> {
        if *fib != (Fib { dreg: fib.dreg, ..Fib::DESTINATION_TYPE }) {
            return None;
        }
        let kind = match self.flow.cast() {
            Cast::Unicast => RTN_UNICAST,
            Cast::Multicast => RTN_MULTICAST,
            Cast::Broadcast => RTN_BROADCAST,
        };
        Some(u32::from(kind).to_ne_bytes().into())
    }

    /// What `ct` loads of a connection that conntrack has just placed.
    pub(super) fn ct(&self, ct: &Ct) -> Option<Vec<u8>> {
        match (ct.key, self.flow.source().ip()) {
            (NFT_CT_STATE, _) => Some((1u32 << (IP_CT_NEW + 1)).to_ne_bytes().into()),
            (NFT_CT_DIRECTION, _) => Some(vec![IP_CT_DIR_ORIGINAL]),
            (NFT_CT_SRC_IP, IpAddr::V4(source)) => Some(source.octets().into()),
            (NFT_CT_SRC_IP6, IpAddr::V6(source)) => Some(source.octets().into()),
            _ => None,
        }
    }

    /// RFC 791 §3.1, RFC 8200 §3: only the addresses matter.
    fn network_header(&self) -> Vec<u8> {
        match (self.flow.source().ip(), self.flow.destination().ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                [&[0; 12][..], &from.octets(), &to.octets()].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                [&[0; 8][..], &from.octets(), &to.octets()].concat()
            }
            _ => Vec::new(), // a flow has one family
        }
    }

    /// Ports, and TCP's flags in their place.
    fn transport_header(&self) -> Vec<u8> {
        let ports = [self.source_port.get(), self.flow.destination().port()];
        let mut header: Vec<u8> = ports.into_iter().flat_map(u16::to_be_bytes).collect();
        if self.flow.protocol() == Protocol::Tcp {
            let flags = if self.flow.segment() == Segment::Opening { SYN } else { ACK };
            header.extend([0; 9]);
            header.push(flags);
            header.extend([0; 6]);
        } else {
            header.extend([0; 4]);
        }
        header
    }
}

fn padded_name(name: &InterfaceName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
