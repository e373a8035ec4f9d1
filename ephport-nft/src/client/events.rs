//! Changes of the ruleset as they are committed.
//!
//! The kernel sends each subscriber the objects that a transaction made and deleted, in the order
//! of its operations, then the new generation and its author. It does not wait for a
//! subscriber: events that do not fit in the socket's buffer are lost, which is [`Event::Lost`].
//!
//! ```no_run
//! use ephport_nft::client::{Event, Events};
//!
//! for event in Events::open()? {
//!     match event? {
//!         Event::Generation(commit) => println!("{commit:?}"),
//!         Event::Lost => println!("read the ruleset again"),
//!         event => println!("{event:?}"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::error::Error;
use super::options::Options;
use crate::netlink::{
    CodecError, Errno, Interrupt, Message, Messages, Namespace, NetlinkError, Socket, Transport,
};
use crate::nftables::{Chain, Commit, Elements, Origin, Rule, SetSpec, Table};
use crate::table::layout::{FAMILY, TableId};
use crate::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
};

/// A change of the ruleset, or the loss of events.
///
/// Of a deleted object the kernel sends only what identifies it: of a rule its table, chain and handle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A table was made, or its flags were changed.
    NewTable(Table),
    /// A table was deleted.
    DeletedTable(Table),
    /// A chain was made or changed.
    NewChain(Chain),
    /// A chain was deleted.
    DeletedChain(Chain),
    /// A rule was added or replaced another; its position is the handle of the rule before it.
    NewRule(Rule),
    /// A rule was deleted.
    DeletedRule(Rule),
    /// A set or map was made.
    NewSet(SetSpec),
    /// A set or map was deleted.
    DeletedSet(SetSpec),
    /// Elements were added to a set or map.
    NewElements(Elements),
    /// Elements of a set or map were deleted.
    DeletedElements(Elements),
    /// The transaction of all events since the previous commit.
    Generation(Commit),
    /// An object of another table was made, changed or deleted. It is not decoded.
    OtherTable {
        /// The kind of message, an `NFT_MSG_*`.
        message: u16,
        /// The family of its table, an `NFPROTO_*`.
        family: u8,
        /// The name of its table: bytes, since the kernel accepts names that are not UTF-8.
        table: Vec<u8>,
    },
    /// Events were lost: read the ruleset again. It precedes those that are still queued.
    Lost,
    /// A message of an unknown kind or with a body that cannot be decoded, whole.
    Opaque {
        /// `nlmsg_type`: the subsystem in the upper byte.
        message_type: u16,
        /// The bytes after the header.
        body: Vec<u8>,
    },
}

impl Event {
    /// Decodes a message. An object of another table than the one of this family and name is
    /// [`Event::OtherTable`].
    #[must_use]
    pub fn decode(message: Message<'_>, family: u8, table: &str) -> Self {
        Self::known(message, family, table).unwrap_or_else(|_| Self::opaque(message))
    }

    fn known(message: Message<'_>, family: u8, table: &str) -> Result<Self, CodecError> {
        let body = message.body;
        let Some(kind) = message.header.nf_tables_message() else {
            return Ok(Self::opaque(message));
        };
        if kind == NFT_MSG_NEWGEN {
            return Commit::decode(message).map(Self::Generation);
        }
        let origin = Origin::peek(body)?;
        if !origin.is(family, table) {
            let (family, table) = (origin.family, origin.table.to_vec());
            return Ok(Self::OtherTable { message: kind, family, table });
        }
        Ok(match kind {
            NFT_MSG_NEWTABLE => Self::NewTable(Table::decode(body)?),
            NFT_MSG_DELTABLE => Self::DeletedTable(Table::decode(body)?),
            NFT_MSG_NEWCHAIN => Self::NewChain(Chain::decode(body)?),
            NFT_MSG_DELCHAIN => Self::DeletedChain(Chain::decode(body)?),
            NFT_MSG_NEWRULE => Self::NewRule(Rule::decode(body)?),
            NFT_MSG_DELRULE => Self::DeletedRule(Rule::decode(body)?),
            NFT_MSG_NEWSET => Self::NewSet(SetSpec::decode(body)?),
            NFT_MSG_DELSET => Self::DeletedSet(SetSpec::decode(body)?),
            NFT_MSG_NEWSETELEM => Self::NewElements(Elements::decode(body)?),
            NFT_MSG_DELSETELEM => Self::DeletedElements(Elements::decode(body)?),
            _ => Self::opaque(message),
        })
    }

    /// The family (`NFPROTO_*`) and the name of the table that was changed; `None` for a commit, a loss and an
    /// opaque message.
    #[must_use]
    pub fn table(&self) -> Option<(u8, &[u8])> {
        let (family, name) = match self {
            Self::NewTable(table) | Self::DeletedTable(table) => (table.family, &table.name),
            Self::NewChain(chain) | Self::DeletedChain(chain) => (chain.family, &chain.table),
            Self::NewRule(rule) | Self::DeletedRule(rule) => (rule.family, &rule.table),
            Self::NewSet(set) | Self::DeletedSet(set) => (set.family, &set.table),
            Self::NewElements(some) | Self::DeletedElements(some) => (some.family, &some.table),
            Self::OtherTable { family, table, .. } => return Some((*family, table)),
            Self::Generation(_) | Self::Lost | Self::Opaque { .. } => return None,
        };
        Some((family, name.as_bytes()))
    }

    /// Whether an object of this table, or the table itself, was changed; also true for a loss, after which nobody
    /// knows, and for an opaque message.
    #[must_use]
    pub fn may_change(&self, table: &TableId) -> bool {
        match self {
            Self::Generation(_) => false,
            event => event.table().is_none_or(|found| found == (FAMILY, table.name().as_bytes())),
        }
    }

    fn opaque(message: Message<'_>) -> Self {
        let message_type = message.header.message_type;
        Self::Opaque { message_type, body: message.body.to_vec() }
    }
}

/// The events of one network namespace, without an end unless they are interrupted.
///
/// An error is not the end either: a datagram that cannot be decoded is skipped.
#[derive(Debug)]
pub struct Events<T = Socket> {
    transport: T,
    table: TableId,
    queued: VecDeque<Result<Event, NetlinkError>>,
    interrupt: Option<Interrupt>,
}

impl Events<Socket> {
    /// The events of this thread's network namespace from now on, with the objects of the default table
    /// decoded.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::Netlink`].
    pub fn open() -> Result<Self, Error> {
        Options::new().events()
    }

    /// The events of another network namespace. [`Namespace::run`] names what that needs.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::Netlink`], [`Error::Namespace`].
    pub fn in_namespace(namespace: &Namespace) -> Result<Self, Error> {
        Options::new().in_namespace(namespace).events()
    }
}

/// The events of a socket of NETLINK_NETFILTER that was opened before, perhaps by another process. It joins the
/// group of nf_tables, which needs CAP_NET_ADMIN.
impl TryFrom<OwnedFd> for Events<Socket> {
    type Error = Error;

    fn try_from(fd: OwnedFd) -> Result<Self, Error> {
        Socket::try_from(fd)?.with_nf_tables_events().map(Self::with_transport).map_err(watching)
    }
}

/// The error of a socket that cannot join the group of nf_tables.
pub(super) fn watching(error: NetlinkError) -> Error {
    match error {
        NetlinkError::Bind { errno: Errno::EPERM } => Error::NotPermitted { task: "watching" },
        error => error.into(),
    }
}

impl<T: Transport> Events<T> {
    /// The events that `transport` receives.
    pub fn with_transport(transport: T) -> Self {
        let (table, queued) = (TableId::default(), VecDeque::new());
        Self { transport, table, queued, interrupt: None }
    }

    /// The same events, with the objects of this table decoded.
    #[must_use]
    pub fn of_table(self, table: TableId) -> Self {
        Self { table, ..self }
    }

    /// The next event; `None` when there is none within `time`, and while the interrupt of the
    /// [options](Options::interrupted_by) is raised.
    pub fn next_within(&mut self, time: Duration) -> Option<Result<Event, NetlinkError>> {
        if self.is_interrupted() { None } else { self.read_within(time) }
    }

    /// The next event, without a wait; `None` when there is none now.
    ///
    /// Where the events are polled (`epoll`, tokio's `AsyncFd`), read until there is none: a datagram may have several
    /// events.
    pub fn try_next(&mut self) -> Option<Result<Event, NetlinkError>> {
        self.read_within(Duration::ZERO)
    }

    pub(super) fn interrupted_by(self, interrupt: Option<Interrupt>) -> Self {
        Self { interrupt, ..self }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(Interrupt::is_raised)
    }

    fn read_within(&mut self, time: Duration) -> Option<Result<Event, NetlinkError>> {
        if self.queued.is_empty() {
            match self.transport.receive_within(time) {
                Ok(None) => return None,
                Ok(Some(datagram)) => {
                    let decode = |message| Event::decode(message, FAMILY, self.table.name());
                    let events = Messages::new(&datagram)
                        .map(|message| message.map(decode).map_err(NetlinkError::from));
                    self.queued.extend(events);
                }
                // The kernel reports dropped datagrams once; a datagram that the buffer cuts is lost.
                Err(NetlinkError::Receive { errno: Errno::ENOBUFS } | NetlinkError::Cut { .. }) => {
                    return Some(Ok(Event::Lost));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.queued.pop_front()
    }
}

/// Readable when there is an event, for poll(2). Read until [`Events::try_next`] returns `None`: a datagram may have
/// several events.
impl AsFd for Events<Socket> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

/// The same descriptor, for tokio's `AsyncFd`.
impl AsRawFd for Events<Socket> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T: Transport> Iterator for Events<T> {
    type Item = Result<Event, NetlinkError>;

    /// Waits without a limit; ends while the interrupt of the [options](Options::interrupted_by) is raised.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let event = self.next_within(Duration::MAX);
            if event.is_some() || self.is_interrupted() {
                return event;
            }
        }
    }
}
