//! The opening packet of a connection, as postrouting sees it.
//!
//! ```
//! use ephport_core::Flow;
//!
//! let flow: Flow = "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0 iif docker0".parse()?;
//! assert_eq!(flow.source_port().get(), 40_000);
//! # Ok::<(), ephport_core::FlowError>(())
//! ```

mod text;

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::net::family::Family;
use crate::net::interface::{InterfaceError, InterfaceName};
use crate::net::mark::MarkError;
use crate::net::port::Port;
use crate::net::protocol::{Protocol, ProtocolError};
use crate::text::quoted;

/// The opening packet of a connection, as postrouting sees it before source NAT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
    out_interface: InterfaceName,
    in_interface: Option<InterfaceName>,
    opening: TcpOpening,
    destination_type: AddressType,
    mark: u32,
    is_ipsec: bool,
    is_expected: bool,
    source_type: SourceType,
}

/// The first packet of a TCP connection that conntrack sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum TcpOpening {
    /// SYN without ACK, RST or FIN.
    #[default]
    Opening,
    /// A later segment of a connection that conntrack did not see from its start.
    MidStream,
}

/// The type of the destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum AddressType {
    /// One host.
    Unicast,
    /// A group (RFC 5771, RFC 4291 §2.7).
    Multicast,
    /// Every host of a network; only IPv4.
    Broadcast,
}

/// The relation of the source address to this host (`fib saddr type`, `fib saddr . oif type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum SourceType {
    /// An address of the output interface.
    OutInterface,
    /// An address of another interface of this host.
    OtherInterface,
    /// An address of another host: the packet is forwarded or bridged, or a transparent-proxy socket
    /// sends it.
    NotLocal,
}

impl Flow {
    /// The opening packet of a connection that begins at a socket of this host. The source port of ICMP is the
    /// identifier of an echo request; the destination port is not read.
    ///
    /// # Errors
    /// [`FlowError`] when the addresses are of two families or not of the protocol's, or a port is 0.
    pub fn new(
        protocol: Protocol,
        source: SocketAddr,
        mut destination: SocketAddr,
        out_interface: InterfaceName,
    ) -> Result<Self, FlowError> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FlowError::Families { from: source, to: destination });
        }
        if !protocol.is_of(Family::of(source.ip())) {
            return Err(FlowError::ProtocolFamily { protocol, address: source.ip() });
        }
        if !protocol.has_ports() {
            destination.set_port(0);
        }
        for address in [Some(source), Some(destination).filter(|_| protocol.has_ports())] {
            if let Some(address) = address.filter(|address| address.port() == 0) {
                return Err(FlowError::PortZero { address });
            }
        }
        let destination_type = match destination {
            SocketAddr::V4(v4) if v4.ip().is_broadcast() => AddressType::Broadcast,
            _ if destination.ip().is_multicast() => AddressType::Multicast,
            _ => AddressType::Unicast,
        };
        let opening = TcpOpening::Opening;
        let in_interface = None;
        Ok(Self {
            protocol,
            source,
            destination,
            out_interface,
            in_interface,
            opening,
            destination_type,
            mark: 0,
            is_ipsec: false,
            is_expected: false,
            source_type: SourceType::OutInterface,
        })
    }

    /// The same flow, forwarded: it came in by this interface.
    #[must_use]
    pub fn with_in_interface(self, name: InterfaceName) -> Self {
        Self { in_interface: Some(name), source_type: SourceType::NotLocal, ..self }
    }

    /// The same flow, first seen at this kind of segment; for other protocols than TCP it is always
    /// the opening.
    #[must_use]
    pub fn with_opening(self, opening: TcpOpening) -> Self {
        let opening = if self.protocol == Protocol::Tcp { opening } else { TcpOpening::Opening };
        Self { opening, ..self }
    }

    /// The same flow to a directed broadcast address, which the address does not show. IPv6
    /// has none, and its flows are unchanged.
    #[must_use]
    pub fn with_broadcast(self) -> Self {
        let destination_type =
            if self.source.is_ipv4() { AddressType::Broadcast } else { self.destination_type };
        Self { destination_type, ..self }
    }

    /// The same flow with this packet mark (`meta mark`); 0 is no mark.
    #[must_use]
    pub fn with_mark(self, mark: u32) -> Self {
        Self { mark, ..self }
    }

    /// The same flow, which an IPsec policy of the kernel (xfrm) will transform.
    #[must_use]
    pub fn with_ipsec(self) -> Self {
        Self { is_ipsec: true, ..self }
    }

    /// The same flow, which no IPsec policy of the kernel (xfrm) transforms.
    #[must_use]
    pub fn without_ipsec(self) -> Self {
        Self { is_ipsec: false, ..self }
    }

    /// The same flow, which a conntrack helper expected (`ct status expected`): NAT binds it before any rule.
    #[must_use]
    pub fn with_expectation(self) -> Self {
        Self { is_expected: true, ..self }
    }

    /// The same flow with a source address of this type. A packet without an input interface whose
    /// source is not local is a bridged frame, or is of a transparent-proxy socket. A forwarded flow
    /// is never local.
    #[must_use]
    pub fn with_source_type(self, source_type: SourceType) -> Self {
        let source_type =
            if self.in_interface.is_some() { SourceType::NotLocal } else { source_type };
        Self { source_type, ..self }
    }

    /// The relation of the source address to this host.
    #[must_use]
    pub fn source_type(&self) -> SourceType {
        self.source_type
    }

    /// Whether the packet is a bridged frame or of a transparent-proxy socket: no input interface,
    /// and a source address of another host.
    #[must_use]
    pub fn is_bridged(&self) -> bool {
        self.in_interface.is_none() && self.source_type == SourceType::NotLocal
    }

    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Source address and port.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Destination address and port; the port of ICMP is 0.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The source port; of ICMP, the identifier.
    #[must_use]
    pub fn source_port(&self) -> Port {
        Port::new(self.source.port()).unwrap_or(Port::MIN)
    }

    /// The packet mark (`meta mark`); 0 is no mark.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Whether an IPsec policy of the kernel (xfrm) will transform the packet.
    #[must_use]
    pub fn is_ipsec(&self) -> bool {
        self.is_ipsec
    }

    /// Whether a conntrack helper expected the connection.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.is_expected
    }

    /// The output interface.
    #[must_use]
    pub fn out_interface(&self) -> &InterfaceName {
        &self.out_interface
    }

    /// The same flow from another port of its source.
    #[must_use]
    pub fn with_source_port(mut self, port: Port) -> Self {
        self.source.set_port(port.get());
        self
    }

    /// The interface by which it came in; none for a connection that begins here.
    #[must_use]
    pub fn in_interface(&self) -> Option<&InterfaceName> {
        self.in_interface.as_ref()
    }

    /// The first packet that conntrack sees; always the opening for other protocols than TCP.
    #[must_use]
    pub fn opening(&self) -> TcpOpening {
        self.opening
    }

    /// To how many it is sent.
    #[must_use]
    pub fn destination_type(&self) -> AddressType {
        self.destination_type
    }

    /// The address family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.source.ip())
    }
}

/// Why addresses or a text do not make a flow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FlowError {
    /// One end is IPv4, the other IPv6.
    #[error("{from} and {to} are of two address families: expected both ends of one")]
    Families {
        /// The source.
        from: SocketAddr,
        /// The destination.
        to: SocketAddr,
    },
    /// ICMP of one family between addresses of the other.
    #[error("{address} is not an address of {protocol}: expected icmp for IPv4, icmpv6 for IPv6")]
    ProtocolFamily {
        /// The protocol.
        protocol: Protocol,
        /// The source.
        address: IpAddr,
    },
    /// Port 0 means "no port".
    #[error("{address} has port 0: expected 1 to 65535")]
    PortZero {
        /// The end at fault.
        address: SocketAddr,
    },
    /// Not written as a flow.
    #[error(
        "{} is not a flow: expected one like \
         tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0 iif docker0",
        quoted(text)
    )]
    Shape {
        /// What was written.
        text: Box<str>,
    },
    /// No output interface after the destination.
    #[error(
        "{} has no output interface: write `oif NAME` after the destination, as `ip route get` prints it",
        quoted(text)
    )]
    OutInterface {
        /// What was written.
        text: Box<str>,
    },
    /// An end of the flow is not an address with a port.
    #[error(
        "{} is not an address with a port: \
         expected one like 172.17.0.2:40000 or [2001:db8::1]:40000",
        quoted(text)
    )]
    Endpoint {
        /// What was written.
        text: Box<str>,
    },
    /// The destination of an echo request is not an address.
    #[error(
        "{} is not an address: expected one like 203.0.113.9 as the destination of an echo request",
        quoted(text)
    )]
    Address {
        /// What was written.
        text: Box<str>,
    },
    /// Not a protocol that a policy can govern.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Not an interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// `iif` ends the text.
    #[error("no interface after `iif`: expected a name, like iif docker0")]
    NoInterface,
    /// Not a mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// `mark` ends the text.
    #[error("no number after `mark`: expected one like mark 0x1")]
    NoMark,
    /// An unknown word after the interface.
    #[error(
        "unknown word {} in a flow: expected iif NAME, bridged, other-source, mark NUMBER, ipsec, \
         expected, mid-stream or broadcast",
        quoted(word)
    )]
    UnknownWord {
        /// The word.
        word: Box<str>,
    },
    /// A word that is given twice.
    #[error("{} is given twice: expected once", quoted(word))]
    Repeated {
        /// The word.
        word: Box<str>,
    },
    /// Two words that exclude each other.
    #[error(
        "`{first}` and `{second}` exclude each other: expected one of iif, bridged and other-source"
    )]
    TwoSources {
        /// The first of them.
        first: Box<str>,
        /// The second.
        second: Box<str>,
    },
    /// Every packet of this protocol is an opening.
    #[error("a {protocol} flow has no mid-stream: only tcp has segments that open nothing")]
    MidStream {
        /// The protocol.
        protocol: Protocol,
    },
    /// IPv6 has no broadcast.
    #[error("{to} is no broadcast address: only IPv4 has them")]
    Broadcast {
        /// The destination.
        to: SocketAddr,
    },
}
