//! Packets: the facts that a program can load.

use std::net::IpAddr;

pub use ephport_core::CtState;
use ephport_core::{AddressType, Flow, InterfaceName, Port, Protocol, SourceType, TcpOpening};

use crate::nftables::expr::{Ct, Fib, Meta, Payload, Rt};
use crate::nftables::value::{self, ct_state_bit};
use crate::uapi::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IP_CT_ESTABLISHED,
    IP_CT_NEW, IP_CT_RELATED, IPS_CONFIRMED, IPS_EXPECTED, IPS_SRC_NAT, NF_CT_STATE_INVALID_BIT,
    NF_CT_STATE_UNTRACKED_BIT, NFT_CT_DIRECTION, NFT_CT_ID, NFT_CT_PROTO_SRC, NFT_CT_SRC_IP,
    NFT_CT_SRC_IP6, NFT_CT_STATE, NFT_CT_STATUS, NFT_META_IIF, NFT_META_IIFNAME, NFT_META_IIFTYPE,
    NFT_META_L4PROTO, NFT_META_MARK, NFT_META_NFPROTO, NFT_META_OIFKIND, NFT_META_OIFNAME,
    NFT_META_OIFTYPE, NFT_META_SECPATH, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER,
    NFT_RT_XFRM, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST,
};

/// TCP's SYN, and an acknowledgement in mid-stream (RFC 9293 §3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The number of the connection of a packet in [`CtState::Open`]: a set of open connections that contains
/// it contains that connection, and no other.
pub const OPEN_ID: u32 = 1;

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
    /// What `rt` loads.
    fn rt(&self, rt: &Rt) -> Fact;
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

/// The packet that opens a connection, before or after translation, or a packet like it.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    flow: &'a Flow,
    source_port: Port,
    state: CtState,
    protocol: u8,
    flags: u8,
    /// Whether NAT changed the source.
    is_translated: bool,
    /// Whether the packet comes in for an address of this host.
    is_arriving: bool,
    icmp_type: u8,
}

impl<'a> Packet<'a> {
    /// The opening packet before translation.
    #[must_use]
    pub fn opening(flow: &'a Flow) -> Self {
        Self {
            flow,
            source_port: flow.source_port(),
            state: CtState::first(flow),
            protocol: flow.protocol().number(),
            flags: if flow.opening() == TcpOpening::Opening { SYN } else { ACK },
            is_translated: false,
            is_arriving: false,
            icmp_type: value::echo_request(flow.family()),
        }
    }

    /// The opening packet after translation to this port, with its original source address.
    #[must_use]
    pub fn leaving(flow: &'a Flow, source_port: Port) -> Self {
        Self { source_port, ..Self::opening(flow) }
    }

    /// A packet that comes in for an address of this host, before conntrack.
    #[must_use]
    pub fn arriving(flow: &'a Flow) -> Self {
        Self { is_arriving: true, state: CtState::Untracked, ..Self::opening(flow) }
    }

    /// The same packet of a connection whose source NAT changed (`IPS_SRC_NAT`).
    #[must_use]
    pub fn translated(self) -> Self {
        Self { is_translated: true, ..self }
    }

    /// The same packet in this state.
    #[must_use]
    pub fn with_state(self, state: CtState) -> Self {
        Self { state, ..self }
    }

    /// The same bytes with the number of another protocol, which has something else at the offset of a port.
    #[must_use]
    pub fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// The same packet with this byte at the offset of TCP's flags.
    #[must_use]
    pub fn with_flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    /// The same packet as another message of ICMP.
    #[must_use]
    pub fn with_icmp_type(self, icmp_type: u8) -> Self {
        Self { icmp_type, ..self }
    }

    /// Whether it is of a protocol with ports, or an echo request.
    #[must_use]
    pub fn has_source_port(&self) -> bool {
        let family = self.flow.family();
        Protocol::from_number(self.protocol).is_some_and(|protocol| {
            let is_echo = self.icmp_type == value::echo_request(family);
            protocol.is_of(family) && (protocol.has_ports() || is_echo)
        })
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

    /// The transport header: ports, the flags of TCP, and zeros; of ICMP, an echo request.
    fn transport_header(&self) -> Vec<u8> {
        let source_port = self.source_port.get().to_be_bytes();
        let mut header = match self.flow.protocol().family() {
            Some(_) => vec![self.icmp_type, 0, 0, 0],
            None => Vec::new(),
        };
        header.extend(source_port);
        if self.flow.protocol().has_ports() {
            header.extend(self.flow.destination().port().to_be_bytes());
        }
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
            NFT_META_IIFNAME => Fact::Bytes(match self.flow.in_interface() {
                Some(name) => value::interface_bytes(name.as_str()),
                None => value::interface_bytes(""),
            }),
            NFT_META_IIFTYPE => {
                let loopback = self.flow.in_interface().is_some_and(InterfaceName::is_loopback);
                let kind = if loopback { ARPHRD_LOOPBACK } else { ARPHRD_ETHER };
                Fact::of(kind.to_ne_bytes())
            }
            NFT_META_SECPATH => Fact::of([u8::from(self.flow.is_ipsec())]),
            NFT_META_MARK => Fact::of(self.flow.mark().to_ne_bytes()),
            // An Ethernet device has no kind.
            NFT_META_OIFKIND => Fact::Absent,
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
        let is = |known: &Fib| *fib == (Fib { dreg: fib.dreg, ..known.clone() });
        let is_local = |is_local| if is_local { RTN_LOCAL } else { RTN_UNICAST };
        let source = self.flow.source_type();
        let address_type = if is(&Fib::DESTINATION_TYPE) || is(&Fib::DESTINATION_TYPE_OUT) {
            match self.flow.destination_type() {
                AddressType::Unicast if self.is_arriving => RTN_LOCAL,
                AddressType::Unicast => RTN_UNICAST,
                AddressType::Multicast => RTN_MULTICAST,
                AddressType::Broadcast => RTN_BROADCAST,
            }
        } else if is(&Fib::SOURCE_TYPE) {
            is_local(source != SourceType::NotLocal)
        } else if is(&Fib::SOURCE_TYPE_OUT) {
            is_local(source == SourceType::OutInterface)
        } else {
            return Fact::Unknown;
        };
        Fact::of(u32::from(address_type).to_ne_bytes())
    }

    /// Of a packet without a connection conntrack knows its state only (`nft_ct_get_eval`).
    fn ct(&self, ct: &Ct) -> Fact {
        let state = match self.state {
            CtState::New => ct_state_bit(IP_CT_NEW),
            CtState::Established | CtState::Reply | CtState::Open => {
                ct_state_bit(IP_CT_ESTABLISHED)
            }
            CtState::Expected => ct_state_bit(IP_CT_RELATED),
            CtState::Invalid => NF_CT_STATE_INVALID_BIT,
            CtState::Untracked => NF_CT_STATE_UNTRACKED_BIT,
        };
        let is_reply = self.state == CtState::Reply;
        let opened_by = if is_reply { self.flow.destination() } else { self.flow.source() };
        let original = Some(IP_CT_DIR_ORIGINAL);
        match (ct.key, ct.direction, opened_by.ip()) {
            (NFT_CT_STATE, None, _) => Fact::of(state.to_ne_bytes()),
            (NFT_CT_DIRECTION | NFT_CT_STATUS | NFT_CT_ID, None, _)
            | (NFT_CT_SRC_IP | NFT_CT_SRC_IP6 | NFT_CT_PROTO_SRC, Some(IP_CT_DIR_ORIGINAL), _)
                if !self.state.has_connection() =>
            {
                Fact::Absent
            }
            (NFT_CT_DIRECTION, None, _) => {
                Fact::of([if is_reply { IP_CT_DIR_REPLY } else { IP_CT_DIR_ORIGINAL }])
            }
            (NFT_CT_STATUS, None, _) => {
                let status = match self.state {
                    CtState::Expected => IPS_EXPECTED,
                    // The first packet is confirmed after all chains.
                    CtState::New => 0,
                    _ => IPS_CONFIRMED,
                };
                let translated = if self.is_translated { IPS_SRC_NAT } else { 0 };
                Fact::of((status | translated).to_ne_bytes())
            }
            (NFT_CT_ID, None, _) => {
                let id = if self.state == CtState::Open { OPEN_ID } else { !OPEN_ID };
                Fact::of(id.to_be_bytes())
            }
            (NFT_CT_PROTO_SRC, direction, _) if direction == original => {
                Fact::of(opened_by.port().to_be_bytes())
            }
            (NFT_CT_SRC_IP, direction, IpAddr::V4(v4)) if direction == original => {
                Fact::of(v4.octets())
            }
            (NFT_CT_SRC_IP6, direction, IpAddr::V6(v6)) if direction == original => {
                Fact::of(v6.octets())
            }
            (NFT_CT_SRC_IP | NFT_CT_SRC_IP6, Some(IP_CT_DIR_ORIGINAL), _) => Fact::Absent,
            _ => Fact::Unknown,
        }
    }

    fn rt(&self, rt: &Rt) -> Fact {
        match rt.key {
            NFT_RT_XFRM => Fact::of([u8::from(self.flow.is_ipsec())]),
            _ => Fact::Unknown,
        }
    }
}
