//! Packets: the facts that a program can load.

use std::net::IpAddr;

use ephport_core::{AddressType, Flow, Port, TcpOpening};

use crate::nftables::expr::{Ct, Fib, Meta, Payload};
use crate::nftables::value::{self, ct_state_bit};
use crate::uapi::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IP_CT_ESTABLISHED,
    IP_CT_NEW, NF_CT_STATE_INVALID_BIT, NFT_CT_DIRECTION, NFT_CT_SRC_IP, NFT_CT_SRC_IP6,
    NFT_CT_STATE, NFT_META_IIF, NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_META_OIFNAME,
    NFT_META_OIFTYPE, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER, RTN_BROADCAST,
    RTN_MULTICAST, RTN_UNICAST,
};

/// TCP's SYN, and an acknowledgement in mid-stream (RFC 9293 §3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The offset of the flags in the header of TCP, and the end of all that a program can load.
const TCP_FLAGS: usize = 13;
const PACKET_END: usize = 64;

/// The facts about a packet that expressions load.
pub trait Facts {
    /// The fact that `meta` loads.
    fn meta(&self, meta: &Meta) -> Fact;
    /// The bytes that `payload` loads.
    fn payload(&self, load: &Payload) -> Fact;
    /// The result that `fib` loads.
    fn fib(&self, fib: &Fib) -> Fact;
    /// The fact that `ct` loads.
    fn ct(&self, ct: &Ct) -> Fact;
}

/// A fact that an expression loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The bytes in the register.
    Bytes(Vec<u8>),
    /// The packet has no such fact, and the rule does not match.
    Absent,
    /// The interpreter does not know the fact.
    Unknown,
}

impl Fact {
    fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// The state of a packet in conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtState {
    /// The first packet of a connection.
    New,
    /// A later packet in the direction of the first.
    Established,
    /// A packet in the reply direction: the destination opened the connection.
    Reply,
    /// A packet of no connection.
    Invalid,
}

/// The packet that opens a connection, before or after translation, or a packet like it.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    flow: &'a Flow,
    source_port: Port,
    state: CtState,
    protocol: u8,
    flags: u8,
}

impl<'a> Packet<'a> {
    /// The opening packet before translation.
    #[must_use]
    pub fn opening(flow: &'a Flow) -> Self {
        Self {
            flow,
            source_port: flow.source_port(),
            state: CtState::New,
            protocol: flow.protocol().number(),
            flags: if flow.opening() == TcpOpening::Opening { SYN } else { ACK },
        }
    }

    /// The opening packet after translation to this port, with its original source address.
    #[must_use]
    pub fn leaving(flow: &'a Flow, source_port: Port) -> Self {
        Self { source_port, ..Self::opening(flow) }
    }

    /// The same packet in this state.
    #[must_use]
    pub fn with_state(self, state: CtState) -> Self {
        Self { state, ..self }
    }

    /// The same bytes with the number of another protocol: an ICMP echo identifier may be at the
    /// offset of a port.
    #[must_use]
    pub fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// The same packet with this byte at the offset of TCP's flags.
    #[must_use]
    pub fn with_flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// The state in conntrack.
    #[must_use]
    pub fn state(&self) -> CtState {
        self.state
    }

    /// The number of the transport protocol.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The network header (RFC 791 §3.1, RFC 8200 §3), with zeros for all but the addresses.
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

    /// The transport header: ports, the flags of TCP, and zeros.
    fn transport_header(&self) -> Vec<u8> {
        let ports = [self.source_port.get(), self.flow.destination().port()];
        let mut header: Vec<u8> = ports.into_iter().flat_map(u16::to_be_bytes).collect();
        header.resize(TCP_FLAGS, 0);
        header.push(self.flags);
        header.resize(PACKET_END, 0);
        header
    }
}

impl Facts for Packet<'_> {
    fn meta(&self, meta: &Meta) -> Fact {
        let out = self.flow.out_interface();
        match meta.key {
            NFT_META_OIFNAME => Fact::Bytes(value::interface_bytes(out.as_str())),
            NFT_META_OIFTYPE => {
                let kind = if out.is_loopback() { ARPHRD_LOOPBACK } else { ARPHRD_ETHER };
                Fact::of(kind.to_ne_bytes())
            }
            // Every interface has an index other than 0.
            NFT_META_IIF => Fact::of(u32::from(self.flow.in_interface().is_some()).to_ne_bytes()),
            NFT_META_NFPROTO => Fact::of([value::nfproto(self.flow.family())]),
            NFT_META_L4PROTO => Fact::of([self.protocol]),
            _ => Fact::Unknown,
        }
    }

    fn payload(&self, load: &Payload) -> Fact {
        let bytes = match load.base {
            // The bytes after the header can be loaded too.
            NFT_PAYLOAD_NETWORK_HEADER => [self.network_header(), self.transport_header()].concat(),
            NFT_PAYLOAD_TRANSPORT_HEADER => self.transport_header(),
            _ => return Fact::Unknown,
        };
        let number = |n| usize::try_from(n).unwrap_or(usize::MAX);
        let (from, len) = (number(load.offset), number(load.len));
        bytes.get(from..from.saturating_add(len)).map_or(Fact::Absent, Fact::of)
    }

    fn fib(&self, fib: &Fib) -> Fact {
        if *fib != (Fib { dreg: fib.dreg, ..Fib::DESTINATION_TYPE }) {
            return Fact::Unknown;
        }
        let kind = match self.flow.destination_type() {
            AddressType::Unicast => RTN_UNICAST,
            AddressType::Multicast => RTN_MULTICAST,
            AddressType::Broadcast => RTN_BROADCAST,
        };
        Fact::of(u32::from(kind).to_ne_bytes())
    }

    /// A packet in state INVALID has no other fact in conntrack (`nft_ct_get_eval`).
    fn ct(&self, ct: &Ct) -> Fact {
        let (bits, direction, opened_by) = match self.state {
            CtState::New => (ct_state_bit(IP_CT_NEW), IP_CT_DIR_ORIGINAL, self.flow.source()),
            CtState::Established => {
                (ct_state_bit(IP_CT_ESTABLISHED), IP_CT_DIR_ORIGINAL, self.flow.source())
            }
            CtState::Reply => {
                (ct_state_bit(IP_CT_ESTABLISHED), IP_CT_DIR_REPLY, self.flow.destination())
            }
            CtState::Invalid => (NF_CT_STATE_INVALID_BIT, IP_CT_DIR_ORIGINAL, self.flow.source()),
        };
        match (ct.key, ct.direction, opened_by.ip()) {
            (NFT_CT_STATE, None, _) => Fact::of(bits.to_ne_bytes()),
            (NFT_CT_DIRECTION, None, _)
            | (NFT_CT_SRC_IP | NFT_CT_SRC_IP6, Some(IP_CT_DIR_ORIGINAL), _)
                if self.state == CtState::Invalid =>
            {
                Fact::Absent
            }
            (NFT_CT_DIRECTION, None, _) => Fact::of([direction]),
            (NFT_CT_SRC_IP, Some(IP_CT_DIR_ORIGINAL), IpAddr::V4(v4)) => Fact::of(v4.octets()),
            (NFT_CT_SRC_IP6, Some(IP_CT_DIR_ORIGINAL), IpAddr::V6(v6)) => Fact::of(v6.octets()),
            (NFT_CT_SRC_IP | NFT_CT_SRC_IP6, Some(IP_CT_DIR_ORIGINAL), _) => Fact::Absent,
            _ => Fact::Unknown,
        }
    }
}
