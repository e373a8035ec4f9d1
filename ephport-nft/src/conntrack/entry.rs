//! One entry of the connection tracking table: a connection with its two directions.

use std::net::IpAddr;

use crate::netlink::{Attr, CodecError, NfGenMsg, Reader, Writer};
use crate::uapi::{
    CTA_ID, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_MARK,
    CTA_PROTO_DST_PORT, CTA_PROTO_ICMP_CODE, CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE,
    CTA_PROTO_ICMPV6_CODE, CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT, CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, CTA_STATUS,
    CTA_TIMEOUT, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_TUPLE_ZONE,
    CTA_ZONE, IPS_ASSURED, IPS_DST_NAT, IPS_SEEN_REPLY, IPS_SRC_NAT, TCP_CONNTRACK_CLOSE,
    TCP_CONNTRACK_CLOSE_WAIT, TCP_CONNTRACK_ESTABLISHED, TCP_CONNTRACK_FIN_WAIT,
    TCP_CONNTRACK_LAST_ACK, TCP_CONNTRACK_NONE, TCP_CONNTRACK_SYN_RECV, TCP_CONNTRACK_SYN_SENT,
    TCP_CONNTRACK_SYN_SENT2, TCP_CONNTRACK_TIME_WAIT,
};

const CONNECTION: &str = "connection";
const TUPLE: &str = "tuple";

/// A tracked connection (`struct nf_conn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The direction of the packet that opened the connection, before translation.
    pub original: Tuple,
    /// The direction of the replies, as they arrive: its destination is the translated source.
    pub reply: Tuple,
    /// The status bits.
    pub status: Status,
    /// The state of a TCP connection.
    pub tcp_state: Option<TcpState>,
    /// The seconds until the entry expires; absent while a flow table forwards the connection.
    pub timeout: Option<u32>,
    /// The connection mark; 0 is none.
    pub mark: u32,
    /// The number that distinguishes the entry from a later one with the same tuples.
    pub id: Option<u32>,
}

/// One direction of a connection (`struct nf_conntrack_tuple`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The source address.
    pub source: IpAddr,
    /// The destination address, of the same family.
    pub destination: IpAddr,
    /// The IANA protocol number.
    pub protocol: u8,
    /// The part of the protocol's header that identifies the connection.
    pub layer4: Layer4,
    /// The zone in which this direction is tracked; 0 is the default zone.
    pub zone: u16,
}

/// The part of a transport header that identifies a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer4 {
    /// TCP, UDP, SCTP, UDP-Lite, and DCCP up to Linux 6.15.
    Ports {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// The identifier of an echo request; the same in both directions unless translated.
        id: u16,
        /// The type of the message in this direction.
        icmp_type: u8,
        /// The code.
        code: u8,
    },
    /// A protocol of which conntrack reports no more than the number.
    Other,
}

/// The status bits of a connection (`enum ip_conntrack_status`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u32);

/// Conntrack's state of a TCP connection (`enum tcp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The kernel's names.
#[non_exhaustive]
pub enum TcpState {
    None,
    SynSent,
    SynRecv,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    SynSent2,
    /// A number without a name here.
    Unknown(u8),
}

impl TcpState {
    /// Whether a side has ended the connection: it sent FIN or RST.
    #[must_use]
    pub fn is_closing(self) -> bool {
        matches!(
            self,
            Self::FinWait | Self::CloseWait | Self::LastAck | Self::TimeWait | Self::Close
        )
    }
}

impl Connection {
    /// Reads the body of an `IPCTNL_MSG_CT_NEW` message. Attributes without a field here are skipped.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        NfGenMsg::decode(&mut reader)?;
        let (mut original, mut reply, mut zone) = (None, None, None);
        let (mut status, mut tcp_state, mut timeout) = (Status::default(), None, None);
        let (mut mark, mut id) = (0, None);
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.attribute_type {
                CTA_TUPLE_ORIG => original = Some(Tuple::read(attr)?),
                CTA_TUPLE_REPLY => reply = Some(Tuple::read(attr)?),
                CTA_STATUS => status = Status(attr.u32_be()?),
                CTA_PROTOINFO => tcp_state = read_tcp_state(attr)?,
                CTA_TIMEOUT => timeout = Some(attr.u32_be()?),
                CTA_MARK => mark = attr.u32_be()?,
                CTA_ID => id = Some(attr.u32_be()?),
                CTA_ZONE => zone = Some(attr.u16_be()?),
                _ => {}
            }
        }
        let missing = |attribute| CodecError::Missing { object: CONNECTION, attribute };
        let mut original = original.ok_or(missing(CTA_TUPLE_ORIG))?;
        let mut reply = reply.ok_or(missing(CTA_TUPLE_REPLY))?;
        if let Some(zone) = zone {
            (original.zone, reply.zone) = (zone, zone);
        }
        Ok(Self { original, reply, status, tcp_state, timeout, mark, id })
    }
}

/// The state in a `CTA_PROTOINFO`, if it is of TCP.
fn read_tcp_state(attr: Attr<'_>) -> Result<Option<TcpState>, CodecError> {
    for protocol in attr.nested() {
        let protocol = protocol?;
        if protocol.attribute_type != CTA_PROTOINFO_TCP {
            continue;
        }
        for attr in protocol.nested() {
            let attr = attr?;
            if attr.attribute_type == CTA_PROTOINFO_TCP_STATE {
                return attr.u8().map(|number| Some(TcpState::from_number(number)));
            }
        }
    }
    Ok(None)
}

impl Tuple {
    /// The source port; absent for protocols without ports.
    #[must_use]
    pub fn source_port(&self) -> Option<u16> {
        match self.layer4 {
            Layer4::Ports { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The destination port; absent for protocols without ports.
    #[must_use]
    pub fn destination_port(&self) -> Option<u16> {
        match self.layer4 {
            Layer4::Ports { destination, .. } => Some(destination),
            _ => None,
        }
    }

    fn read(attr: Attr<'_>) -> Result<Self, CodecError> {
        let (mut addresses, mut layer4, mut zone) = (None, None, 0);
        for attr in attr.nested() {
            let attr = attr?;
            match attr.attribute_type {
                CTA_TUPLE_IP => addresses = Some(read_addresses(attr)?),
                CTA_TUPLE_PROTO => layer4 = Some(read_layer4(attr)?),
                CTA_TUPLE_ZONE => zone = attr.u16_be()?,
                _ => {}
            }
        }
        let missing = |attribute| CodecError::Missing { object: TUPLE, attribute };
        let (source, destination) = addresses.ok_or(missing(CTA_TUPLE_IP))?;
        let (protocol, layer4) = layer4.ok_or(missing(CTA_TUPLE_PROTO))?;
        Ok(Self { source, destination, protocol, layer4, zone })
    }
}

/// The source and the destination in a `CTA_TUPLE_IP`.
fn read_addresses(attr: Attr<'_>) -> Result<(IpAddr, IpAddr), CodecError> {
    let (mut source, mut destination) = (None, None);
    for attr in attr.nested() {
        let attr = attr?;
        let ipv4 = || attr.array("IPv4 address").map(|bytes: [u8; 4]| Some(bytes.into()));
        let ipv6 = || attr.array("IPv6 address").map(|bytes: [u8; 16]| Some(bytes.into()));
        match attr.attribute_type {
            CTA_IP_V4_SRC => source = ipv4()?,
            CTA_IP_V4_DST => destination = ipv4()?,
            CTA_IP_V6_SRC => source = ipv6()?,
            CTA_IP_V6_DST => destination = ipv6()?,
            _ => {}
        }
    }
    let missing = |attribute| CodecError::Missing { object: TUPLE, attribute };
    Ok((source.ok_or(missing(CTA_IP_V4_SRC))?, destination.ok_or(missing(CTA_IP_V4_DST))?))
}

/// The protocol's number and header fields in a `CTA_TUPLE_PROTO`.
fn read_layer4(attr: Attr<'_>) -> Result<(u8, Layer4), CodecError> {
    let (mut protocol, mut source, mut destination) = (None, None, None);
    let (mut id, mut icmp_type, mut code) = (None, 0, 0);
    for attr in attr.nested() {
        let attr = attr?;
        match attr.attribute_type {
            CTA_PROTO_NUM => protocol = Some(attr.u8()?),
            CTA_PROTO_SRC_PORT => source = Some(attr.u16_be()?),
            CTA_PROTO_DST_PORT => destination = Some(attr.u16_be()?),
            CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => id = Some(attr.u16_be()?),
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp_type = attr.u8()?,
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => code = attr.u8()?,
            _ => {}
        }
    }
    let protocol =
        protocol.ok_or(CodecError::Missing { object: TUPLE, attribute: CTA_PROTO_NUM })?;
    let layer4 = match (source, destination, id) {
        (Some(source), Some(destination), _) => Layer4::Ports { source, destination },
        (_, _, Some(id)) => Layer4::Icmp { id, icmp_type, code },
        _ => Layer4::Other,
    };
    Ok((protocol, layer4))
}

impl Status {
    fn contains(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Whether the source address or port is translated. A connection that NAT bound to the source
    /// that it had is not.
    #[must_use]
    pub fn is_source_nat(self) -> bool {
        self.contains(IPS_SRC_NAT)
    }

    /// Whether the destination address or port is translated.
    #[must_use]
    pub fn is_destination_nat(self) -> bool {
        self.contains(IPS_DST_NAT)
    }

    /// Whether packets were seen in both directions.
    #[must_use]
    pub fn has_reply(self) -> bool {
        self.contains(IPS_SEEN_REPLY)
    }

    /// Whether the entry is kept when the table is full.
    #[must_use]
    pub fn is_assured(self) -> bool {
        self.contains(IPS_ASSURED)
    }
}

/// The states and their numbers.
const TCP_STATES: [(TcpState, u8); 10] = [
    (TcpState::None, TCP_CONNTRACK_NONE),
    (TcpState::SynSent, TCP_CONNTRACK_SYN_SENT),
    (TcpState::SynRecv, TCP_CONNTRACK_SYN_RECV),
    (TcpState::Established, TCP_CONNTRACK_ESTABLISHED),
    (TcpState::FinWait, TCP_CONNTRACK_FIN_WAIT),
    (TcpState::CloseWait, TCP_CONNTRACK_CLOSE_WAIT),
    (TcpState::LastAck, TCP_CONNTRACK_LAST_ACK),
    (TcpState::TimeWait, TCP_CONNTRACK_TIME_WAIT),
    (TcpState::Close, TCP_CONNTRACK_CLOSE),
    (TcpState::SynSent2, TCP_CONNTRACK_SYN_SENT2),
];

impl TcpState {
    /// The state with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        let known = TCP_STATES.into_iter().find(|(_, known)| *known == number);
        known.map_or(Self::Unknown(number), |(state, _)| state)
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Unknown(number) => number,
            state => {
                let known = TCP_STATES.into_iter().find(|(known, _)| *known == state);
                known.map_or(TCP_CONNTRACK_NONE, |(_, number)| number)
            }
        }
    }
}

impl Tuple {
    /// Writes the attributes of a tuple.
    #[doc(hidden)]
    pub fn write(&self, w: &mut Writer, with_zone: bool) {
        w.nested(CTA_TUPLE_IP, |w| {
            write_address(w, [CTA_IP_V4_SRC, CTA_IP_V6_SRC], self.source);
            write_address(w, [CTA_IP_V4_DST, CTA_IP_V6_DST], self.destination);
        });
        w.nested(CTA_TUPLE_PROTO, |w| {
            w.u8(CTA_PROTO_NUM, self.protocol);
            match self.layer4 {
                Layer4::Ports { source, destination } => {
                    w.bytes(CTA_PROTO_SRC_PORT, &source.to_be_bytes());
                    w.bytes(CTA_PROTO_DST_PORT, &destination.to_be_bytes());
                }
                Layer4::Icmp { id, icmp_type, code } => {
                    let [id_kind, type_kind, code_kind] = if self.source.is_ipv4() {
                        [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE]
                    } else {
                        [CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE]
                    };
                    w.bytes(id_kind, &id.to_be_bytes());
                    w.u8(type_kind, icmp_type);
                    w.u8(code_kind, code);
                }
                Layer4::Other => {}
            }
        });
        if with_zone && self.zone != 0 {
            w.bytes(CTA_TUPLE_ZONE, &self.zone.to_be_bytes());
        }
    }
}

fn write_address(w: &mut Writer, [v4, v6]: [u16; 2], address: IpAddr) {
    match address {
        IpAddr::V4(address) => w.bytes(v4, &address.octets()),
        IpAddr::V6(address) => w.bytes(v6, &address.octets()),
    }
}

/// What the kernel sends, for the tests that read it.
#[cfg(any(test, feature = "fuzz"))]
mod encode {
    #[allow(clippy::wildcard_imports, reason = "the same names as for decoding")]
    use super::*;
    use crate::uapi::{AF_INET, AF_INET6};

    impl Connection {
        /// Writes the body of an `IPCTNL_MSG_CT_NEW` message.
        pub fn write(&self, w: &mut Writer) {
            let family = if self.original.source.is_ipv4() { AF_INET } else { AF_INET6 };
            w.raw(&NfGenMsg::new(family).to_bytes());
            let zone = (self.original.zone == self.reply.zone).then_some(self.reply.zone);
            w.nested(CTA_TUPLE_ORIG, |w| self.original.write(w, zone.is_none()));
            w.nested(CTA_TUPLE_REPLY, |w| self.reply.write(w, zone.is_none()));
            w.u32_be(CTA_STATUS, self.status.0);
            if let Some(timeout) = self.timeout {
                w.u32_be(CTA_TIMEOUT, timeout);
            }
            if let Some(state) = self.tcp_state {
                w.nested(CTA_PROTOINFO, |w| {
                    w.nested(CTA_PROTOINFO_TCP, |w| w.u8(CTA_PROTOINFO_TCP_STATE, state.number()));
                });
            }
            w.u32_be(CTA_MARK, self.mark);
            if let Some(id) = self.id {
                w.u32_be(CTA_ID, id);
            }
            if let Some(zone) = zone.filter(|zone| *zone != 0) {
                w.bytes(CTA_ZONE, &zone.to_be_bytes());
            }
        }
    }
}
