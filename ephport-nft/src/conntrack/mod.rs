//! The connection tracking table over ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
//!
//! [`Connections`] is an iterator over the kernel's dump. It keeps one datagram, about a hundred
//! entries, whatever the size of the table. [`Statistics`] are the kernel's own counts.
//!
//! ```no_run
//! use ephport_nft::conntrack::{Connections, Filter};
//!
//! let filter = Filter { source_nat: true, ..Filter::default() };
//! for connection in Connections::open(filter)? {
//!     let reply = connection?.reply;
//!     println!("{} is sent from {:?} of {}", reply.source, reply.destination_port(), reply.destination);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The kernel locks nothing over a dump: a connection that begins or ends during the dump may be
//! absent, and one may occur twice when an entry beside it ends.

mod adopt;
mod destinations;
mod entry;
mod renumber;
mod scope;
mod statistics;
mod usage;

pub use adopt::{adopt, tracked_ids};
pub use entry::{Connection, Layer4, Status, TcpState, Tuple};
pub use renumber::{Renumbered, renumber};
pub use scope::{Placement, Scopes, Sent};
pub use statistics::Statistics;
pub use usage::{DestinationUsage, PolicyUsage, PortBitmap, Usage};

use std::collections::VecDeque;

use ephport_core::Family;
use thiserror::Error;

use crate::netlink::{
    Ack, CodecError, Errno, Header, Messages, NetlinkError, NfGenMsg, Reader, Socket, Transport,
    Writer,
};
use crate::uapi::{
    CTA_STATUS, CTA_STATUS_MASK, CTA_ZONE, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_NEW, IPS_SRC_NAT,
    NFNL_SUBSYS_CTNETLINK, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
};

/// The connections that a dump returns; the default is all of them.
///
/// The kernel applies what it supports: the family always, the status since Linux 5.15, the zone
/// since Linux 6.8. [`Connections`] applies all of it again to the kernel's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this address family.
    pub family: Option<Family>,
    /// Only connections whose source address or port is translated (`IPS_SRC_NAT`).
    pub source_nat: bool,
    /// Only connections whose replies are tracked in this zone; 0 is the default zone.
    pub zone: Option<u16>,
}

impl Filter {
    /// Whether the dump returns `connection`.
    #[must_use]
    pub fn matches(&self, connection: &Connection) -> bool {
        let reply = &connection.reply;
        self.family.is_none_or(|family| family == Family::of(reply.source))
            && (!self.source_nat || connection.status.is_source_nat())
            && self.zone.is_none_or(|zone| zone == reply.zone)
    }

    /// The request for the dump.
    fn write(self, w: &mut Writer, seq: u32) {
        let family = match self.family {
            None => NFPROTO_UNSPEC,
            Some(Family::Ipv4) => NFPROTO_IPV4,
            Some(Family::Ipv6) => NFPROTO_IPV6,
        };
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        w.message(header(IPCTNL_MSG_CT_GET, flags, seq), |w| {
            w.raw(&NfGenMsg::new(family).to_bytes());
            if self.source_nat {
                w.u32_be(CTA_STATUS, IPS_SRC_NAT);
                w.u32_be(CTA_STATUS_MASK, IPS_SRC_NAT);
            }
            if let Some(zone) = self.zone {
                w.bytes(CTA_ZONE, &zone.to_be_bytes());
            }
        });
    }
}

/// The header of a ctnetlink message with this `IPCTNL_MSG_CT_*`.
fn header(message: u16, flags: u16, seq: u32) -> Header {
    Header { message_type: NFNL_SUBSYS_CTNETLINK << 8 | message, flags, seq }
}

/// Why connection tracking cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConntrackError {
    /// The conversation with the kernel failed.
    #[error("cannot read the connection tracking table: {0}")]
    Netlink(NetlinkError),
    /// The process lacks a capability in the user namespace that owns this network namespace.
    #[error("permission denied: reading the connection tracking table requires CAP_NET_ADMIN")]
    NotPermitted,
    /// The kernel has no ctnetlink.
    #[error("the kernel has no ctnetlink (CONFIG_NF_CT_NETLINK)")]
    NoCtnetlink,
    /// The kernel refused a new entry.
    #[error("cannot add a connection to the connection tracking table ({errno})")]
    Add {
        /// The error of the answer.
        errno: Errno,
    },
}

impl From<NetlinkError> for ConntrackError {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Rejected { errno: Errno::EPERM } => Self::NotPermitted,
            // nfnetlink answers so for a subsystem that is not registered.
            NetlinkError::Rejected { errno: Errno::EINVAL | Errno::EOPNOTSUPP } => {
                Self::NoCtnetlink
            }
            error => Self::Netlink(error),
        }
    }
}

impl From<CodecError> for ConntrackError {
    fn from(error: CodecError) -> Self {
        Self::Netlink(error.into())
    }
}

/// An iterator over the connection tracking table. It ends after the first error.
#[derive(Debug)]
pub struct Connections<T = Socket> {
    /// `None` at the end of the dump.
    transport: Option<T>,
    filter: Filter,
    /// The rest of the last datagram.
    queue: VecDeque<Connection>,
}

/// The number of the only request that is sent over the iterator's socket.
const SEQ: u32 = 1;

impl Connections<Socket> {
    /// Begins a dump of the table of this thread's network namespace.
    pub fn open(filter: Filter) -> Result<Self, ConntrackError> {
        Self::with_transport(Socket::netfilter()?, filter)
    }
}

impl<T: Transport> Connections<T> {
    /// Begins a dump over `transport`, which is dropped at its end.
    pub fn with_transport(mut transport: T, filter: Filter) -> Result<Self, ConntrackError> {
        let mut w = Writer::new();
        filter.write(&mut w, SEQ);
        transport.send(&w.finish()?)?;
        Ok(Self { transport: Some(transport), filter, queue: VecDeque::new() })
    }

    /// Decodes the next datagram; `false` at the end of the dump.
    fn receive(&mut self) -> Result<bool, ConntrackError> {
        let Some(transport) = &mut self.transport else { return Ok(false) };
        let datagram = transport.receive()?;
        for message in Messages::new(&datagram) {
            let message = message?;
            if message.header.seq != SEQ {
                continue;
            }
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                return Err(NetlinkError::Interrupted.into());
            }
            match message.header.message_type {
                NLMSG_DONE => return end_of_dump(message.body).map(|()| false),
                NLMSG_ERROR => match Ack::decode(message)?.errno {
                    Some(errno) => return Err(NetlinkError::Rejected { errno }.into()),
                    None => return Ok(false),
                },
                kind if kind == header(IPCTNL_MSG_CT_NEW, 0, 0).message_type => {
                    let connection = Connection::read(message.body)?;
                    self.queue.extend(self.filter.matches(&connection).then_some(connection));
                }
                _ => {}
            }
        }
        Ok(true)
    }
}

/// Reads the result of a dump, which the kernel adds to `NLMSG_DONE`: 0 or a negative errno.
fn end_of_dump(body: &[u8]) -> Result<(), ConntrackError> {
    let Ok(code) = Reader::new(body).array("result of the dump") else { return Ok(()) };
    match i32::from_ne_bytes(code) {
        code if code < 0 => {
            Err(NetlinkError::Rejected { errno: Errno::from_raw(code.saturating_neg()) }.into())
        }
        _ => Ok(()),
    }
}

impl<T: Transport> Iterator for Connections<T> {
    type Item = Result<Connection, ConntrackError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(connection) = self.queue.pop_front() {
                return Some(Ok(connection));
            }
            self.transport.as_ref()?;
            match self.receive() {
                Ok(true) => {}
                Ok(false) => self.transport = None,
                Err(error) => {
                    self.transport = None;
                    self.queue.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
