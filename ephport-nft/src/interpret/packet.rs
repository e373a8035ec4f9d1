//! The packet that a program runs on.

use std::net::IpAddr;

use ephport_core::{Cast, Family, Flow, InterfaceName, Port, Protocol, Segment};

use crate::expr::{Ct, Fib, Meta, Payload};
use crate::uapi::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IP_CT_ESTABLISHED,
    IP_CT_NEW, NF_CT_STATE_INVALID_BIT, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFT_CT_DIRECTION,
    NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_CT_STATE, NFT_META_IIF, NFT_META_L4PROTO, NFT_META_NFPROTO,
    NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER,
    RTN_BROADCAST, RTN_MULTICAST, RTN_UNICAST,
};

/// TCP's SYN, and an acknowledgement in mid-stream (RFC 9293 §3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Behind all that a program can load: a packet has some data.
const PAYLOAD_END: usize = 64;

/// What conntrack takes a packet for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The first of a connection.
    New,
    /// An answer in a connection that began elsewhere.
    Reply,
    /// Nothing that it can place.
    Invalid,
}

/// The packet that opens a connection, before or after translation, or one that looks like it.
pub(super) struct Packet<'a> {
    flow: &'a Flow,
    source_port: Port,
    standing: Standing,
}

impl<'a> Packet<'a> {
    /// Before translation.
    pub(super) fn opening(flow: &'a Flow) -> Self {
        Self { flow, source_port: flow.source_port(), standing: Standing::New }
    }

    /// After translation to this port; what its source address became, no program asks.
    pub(super) fn leaving(flow: &'a Flow, source_port: Port, standing: Standing) -> Self {
        Self { flow, source_port, standing }
    }

    /// Whether it is of this family, an `NFPROTO_*`; `NFPROTO_INET` is both.
    pub(super) fn is_of(&self, family: u32) -> bool {
        [NFPROTO_INET, self.family()].map(u32::from).contains(&family)
    }

    fn family(&self) -> u8 {
        match self.flow.family() {
            Family::Ipv4 => NFPROTO_IPV4,
            Family::Ipv6 => NFPROTO_IPV6,
        }
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
            NFT_META_NFPROTO => Some(vec![self.family()]),
            NFT_META_L4PROTO => Some(vec![self.flow.protocol().number()]),
            _ => None,
        }
    }

    /// What `payload` loads.
    pub(super) fn payload(&self, load: &Payload) -> Option<Vec<u8>> {
        let header = match load.base {
            // What lies behind it can be loaded all the same.
            NFT_PAYLOAD_NETWORK_HEADER => [self.network_header(), self.transport_header()].concat(),
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

    /// What `ct` loads. Of a packet that it cannot place conntrack knows nothing else
    /// (`nft_ct_get_eval`); a reply's connection has its source where the packet goes to.
    pub(super) fn ct(&self, ct: &Ct) -> Option<Vec<u8>> {
        let state = match self.standing {
            Standing::New => state_bit(IP_CT_NEW),
            Standing::Reply => state_bit(IP_CT_ESTABLISHED),
            Standing::Invalid => NF_CT_STATE_INVALID_BIT,
        };
        let (source, direction) = match self.standing {
            Standing::New => (self.flow.source().ip(), IP_CT_DIR_ORIGINAL),
            Standing::Reply => (self.flow.destination().ip(), IP_CT_DIR_REPLY),
            Standing::Invalid => {
                let is_state = (ct.key, ct.direction) == (NFT_CT_STATE, None);
                return is_state.then(|| state.to_ne_bytes().into());
            }
        };
        match (ct.key, ct.direction, source) {
            (NFT_CT_STATE, None, _) => Some(state.to_ne_bytes().into()),
            (NFT_CT_DIRECTION, None, _) => Some(vec![direction]),
            (NFT_CT_SRC_IP, Some(IP_CT_DIR_ORIGINAL), IpAddr::V4(v4)) => Some(v4.octets().into()),
            (NFT_CT_SRC_IP6, Some(IP_CT_DIR_ORIGINAL), IpAddr::V6(v6)) => Some(v6.octets().into()),
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

    /// Ports, TCP's flags in their place, and data.
    fn transport_header(&self) -> Vec<u8> {
        let ports = [self.source_port.get(), self.flow.destination().port()];
        let mut header: Vec<u8> = ports.into_iter().flat_map(u16::to_be_bytes).collect();
        if self.flow.protocol() == Protocol::Tcp {
            let flags = if self.flow.segment() == Segment::Opening { SYN } else { ACK };
            header.extend([0; 9]);
            header.push(flags);
        }
        header.resize(PAYLOAD_END, 0);
        header
    }
}

/// `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h.
fn state_bit(ctinfo: u32) -> u32 {
    1 << (ctinfo + 1)
}

fn padded_name(name: &InterfaceName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
