//! The packet that a program runs on.

use std::net::IpAddr;

use ephport_core::{AddressType, Family, Flow, InterfaceName, Port, TcpOpening};

use crate::nftables::expr::{Ct, Fib, Meta, Payload};
use crate::uapi::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IP_CT_ESTABLISHED,
    IP_CT_NEW, NF_CT_STATE_INVALID_BIT, NFPROTO_IPV4, NFPROTO_IPV6, NFT_CT_DIRECTION,
    NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_CT_STATE, NFT_META_IIF, NFT_META_L4PROTO, NFT_META_NFPROTO,
    NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER,
    RTN_BROADCAST, RTN_MULTICAST, RTN_UNICAST,
};

/// TCP's SYN, and an acknowledgement in mid-stream (RFC 9293 §3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Where TCP's flags are in its header, and behind all that a program can load.
const TCP_FLAGS: usize = 13;
const PACKET_END: usize = 64;

/// What a program can ask of the packet that it runs on.
pub trait Facts {
    /// What `meta` loads.
    fn meta(&self, meta: &Meta) -> Fact;
    /// What `payload` loads.
    fn payload(&self, load: &Payload) -> Fact;
    /// What `fib` loads.
    fn fib(&self, fib: &Fib) -> Fact;
    /// What `ct` loads.
    fn ct(&self, ct: &Ct) -> Fact;
}

/// An answer to what a program asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The packet has no such thing, and the rule does not match.
    Absent,
    /// Nobody here can tell.
    Unknown,
}

impl Fact {
    fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// What conntrack takes a packet for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtState {
    /// The first of a connection.
    New,
    /// A later one, in the direction of the first.
    Established,
    /// An answer, in a connection that began at the destination.
    Reply,
    /// Nothing that it can place.
    Invalid,
}

/// The packet that opens a connection, before or after translation, or one that looks like it.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    flow: &'a Flow,
    source_port: Port,
    standing: CtState,
    protocol: u8,
    flags: u8,
}

impl<'a> Packet<'a> {
    /// Before translation.
    #[must_use]
    pub fn opening(flow: &'a Flow) -> Self {
        Self {
            flow,
            source_port: flow.source_port(),
            standing: CtState::New,
            protocol: flow.protocol().number(),
            flags: if flow.opening() == TcpOpening::Opening { SYN } else { ACK },
        }
    }

    /// After translation to this port; what its source address became, no program asks.
    #[must_use]
    pub fn leaving(flow: &'a Flow, source_port: Port) -> Self {
        Self { source_port, ..Self::opening(flow) }
    }

    /// The same packet, taken for something else by conntrack.
    #[must_use]
    pub fn with_standing(self, standing: CtState) -> Self {
        Self { standing, ..self }
    }

    /// The same bytes under the number of another protocol: an echo request's identifier may
    /// stand where a port would.
    #[must_use]
    pub fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// With this byte where TCP has its flags.
    #[must_use]
    pub fn with_flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// What conntrack takes it for.
    #[must_use]
    pub fn standing(&self) -> CtState {
        self.standing
    }

    /// The number of its protocol.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
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
            NFT_META_OIFNAME => Fact::Bytes(padded_name(out)),
            NFT_META_OIFTYPE => {
                let kind = if out.is_loopback() { ARPHRD_LOOPBACK } else { ARPHRD_ETHER };
                Fact::of(kind.to_ne_bytes())
            }
            // Any number but 0 would do for an interface.
            NFT_META_IIF => Fact::of(u32::from(self.flow.in_interface().is_some()).to_ne_bytes()),
            NFT_META_NFPROTO => Fact::of([match self.flow.family() {
                Family::Ipv4 => NFPROTO_IPV4,
                Family::Ipv6 => NFPROTO_IPV6,
            }]),
            NFT_META_L4PROTO => Fact::of([self.protocol]),
            _ => Fact::Unknown,
        }
    }

    fn payload(&self, load: &Payload) -> Fact {
        let bytes = match load.base {
            // What lies behind the header can be loaded all the same.
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

    /// Of a packet that it cannot place conntrack knows nothing but that (`nft_ct_get_eval`).
    fn ct(&self, ct: &Ct) -> Fact {
        let (state, direction, opened_by) = match self.standing {
            CtState::New => (state_bit(IP_CT_NEW), IP_CT_DIR_ORIGINAL, self.flow.source()),
            CtState::Established => {
                (state_bit(IP_CT_ESTABLISHED), IP_CT_DIR_ORIGINAL, self.flow.source())
            }
            CtState::Reply => {
                (state_bit(IP_CT_ESTABLISHED), IP_CT_DIR_REPLY, self.flow.destination())
            }
            CtState::Invalid => (NF_CT_STATE_INVALID_BIT, IP_CT_DIR_ORIGINAL, self.flow.source()),
        };
        match (ct.key, ct.direction, opened_by.ip()) {
            (NFT_CT_STATE, None, _) => Fact::of(state.to_ne_bytes()),
            (NFT_CT_DIRECTION, None, _)
            | (NFT_CT_SRC_IP | NFT_CT_SRC_IP6, Some(IP_CT_DIR_ORIGINAL), _)
                if self.standing == CtState::Invalid =>
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

/// `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h.
fn state_bit(ctinfo: u32) -> u32 {
    1 << (ctinfo + 1)
}

fn padded_name(name: &InterfaceName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
