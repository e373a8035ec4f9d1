//! The opening packet of a connection, as postrouting sees it.

use std::fmt;
use std::net::SocketAddr;

use thiserror::Error;

use crate::interface::InterfaceName;
use crate::port::Port;
use crate::protocol::Protocol;
use crate::scope::Family;

/// The opening packet of a connection, as postrouting sees it before source NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
    out_interface: InterfaceName,
    in_interface: Option<InterfaceName>,
    segment: Segment,
    cast: Cast,
}

/// What conntrack takes a TCP packet for that it sees first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Segment {
    /// SYN without ACK, RST or FIN.
    #[default]
    Opening,
    /// A later segment of a connection that conntrack did not see from its start.
    MidStream,
}

/// To how many the destination address speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cast {
    /// One host.
    Unicast,
    /// A group (RFC 5771, RFC 4291 §2.7).
    Multicast,
    /// All of a network; IPv4 alone.
    Broadcast,
}

impl Flow {
    /// The opening packet of a connection that begins at a socket of this host.
    ///
    /// # Errors
    /// [`FlowError`] when the addresses are of two families or a port is 0.
    pub fn new(
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        out_interface: InterfaceName,
    ) -> Result<Self, FlowError> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FlowError::Families { from: source, to: destination });
        }
        for address in [source, destination] {
            if address.port() == 0 {
                return Err(FlowError::PortZero { address });
            }
        }
        let cast = match destination {
            SocketAddr::V4(v4) if v4.ip().is_broadcast() => Cast::Broadcast,
            _ if destination.ip().is_multicast() => Cast::Multicast,
            _ => Cast::Unicast,
        };
        let segment = Segment::Opening;
        let in_interface = None;
        Ok(Self { protocol, source, destination, out_interface, in_interface, segment, cast })
    }

    /// The same flow, forwarded: it came in by this interface.
    #[must_use]
    pub fn with_in_interface(self, name: InterfaceName) -> Self {
        Self { in_interface: Some(name), ..self }
    }

    /// The same flow, first seen at this kind of segment.
    #[must_use]
    pub fn with_segment(self, segment: Segment) -> Self {
        Self { segment, ..self }
    }

    /// The same flow to a directed broadcast address, which the address alone does not tell.
    #[must_use]
    pub fn with_broadcast(self) -> Self {
        Self { cast: Cast::Broadcast, ..self }
    }

    /// The transport protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Source address and port.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Destination address and port.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The source port.
    #[must_use]
    pub fn source_port(&self) -> Port {
        Port::new(self.source.port()).unwrap_or(Port::MIN)
    }

    /// The interface by which it leaves.
    #[must_use]
    pub fn out_interface(&self) -> &InterfaceName {
        &self.out_interface
    }

    /// The interface by which it came in; none for a connection that begins here.
    #[must_use]
    pub fn in_interface(&self) -> Option<&InterfaceName> {
        self.in_interface.as_ref()
    }

    /// What conntrack takes it for; for other protocols than TCP always the opening.
    #[must_use]
    pub fn segment(&self) -> Segment {
        if self.protocol == Protocol::Tcp { self.segment } else { Segment::Opening }
    }

    /// To how many it is sent.
    #[must_use]
    pub fn cast(&self) -> Cast {
        self.cast
    }

    /// The address family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.source.ip())
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, source, destination, out_interface, .. } = self;
        write!(f, "{protocol} {source} -> {destination} oif {out_interface}")?;
        if let Some(name) = &self.in_interface {
            write!(f, " iif {name}")?;
        }
        if self.segment() == Segment::MidStream {
            f.write_str(" mid-stream")?;
        }
        if self.cast == Cast::Broadcast {
            f.write_str(" broadcast")?;
        }
        Ok(())
    }
}

/// Why addresses do not make a flow.
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
    /// Port 0 means "no port".
    #[error("{address} has port 0: expected 1 to 65535")]
    PortZero {
        /// The end at fault.
        address: SocketAddr,
    },
}
