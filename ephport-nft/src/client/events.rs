//! What changes in nf_tables, as it is committed, by whomever.
//!
//! The kernel tells each subscriber the objects that a transaction made and deleted, in the order
//! of its operations, then the new generation and who committed it. It does not wait for a
//! subscriber: what does not fit the socket's buffer is lost, and [`Event::Lost`] says so.
//!
//! ```
//! use std::time::Duration;
//!
//! use ephport_nft::client::{Event, Events};
//! use ephport_nft::netlink::{NetlinkError, Transport};
//! use ephport_nft::nftables::Table;
//! use ephport_nft::uapi::NFT_MSG_NEWTABLE;
//! use ephport_nft::netlink::{Header, Writer};
//!
//! /// Datagrams that were recorded; the kernel's own come by `Events::open()`.
//! struct Recorded(Vec<Vec<u8>>);
//!
//! impl Transport for Recorded {
//!     fn send(&mut self, _datagram: &[u8]) -> Result<(), NetlinkError> {
//!         Ok(())
//!     }
//!     fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
//!         Ok(self.0.pop())
//!     }
//!     fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
//!         self.0.pop().ok_or(NetlinkError::Silent { seconds: 0 })
//!     }
//! }
//!
//! let table = Table::new(1, "ephport");
//! let mut w = Writer::new();
//! w.message(Header::nf_tables(NFT_MSG_NEWTABLE, 0, 0), |w| table.encode(w));
//! let mut events = Events::with_transport(Recorded(vec![w.finish()?]));
//! assert_eq!(events.next_within(Duration::from_secs(1)), Some(Ok(Event::NewTable(table))));
//! assert_eq!(events.next_within(Duration::from_secs(1)), None);
//! # Ok::<(), ephport_nft::netlink::CodecError>(())
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use nix::errno::Errno;

use super::error::Error;
use crate::netlink::{CodecError, Message, Messages};
use crate::netlink::{NetlinkError, Socket, Transport};
use crate::nftables::{Chain, Commit, Elements, Rule, SetSpec, Table};
use crate::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
};

/// What the kernel tells of a transaction, or of events that it could not tell.
///
/// Of what is deleted the kernel says no more than what tells it from others; of a rule its table,
/// chain and handle.
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
    /// A rule was added or took another's place; its position is the handle of the rule before it.
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
    /// The transaction of all events since the last of this kind was committed.
    Generation(Commit),
    /// Events were lost: read the ruleset again. It comes before those that were still queued.
    Lost,
    /// A message of a kind that we have no name for, or with a body that we cannot read, whole.
    Opaque {
        /// `nlmsg_type`: the subsystem in the upper byte.
        kind: u16,
        /// All after the header.
        body: Vec<u8>,
    },
}

impl Event {
    /// Decodes a message about it.
    #[must_use]
    pub fn decode(message: Message<'_>) -> Self {
        Self::known(message).unwrap_or_else(|_| Self::opaque(message))
    }

    fn known(message: Message<'_>) -> Result<Self, CodecError> {
        let body = message.body;
        Ok(match message.header.nf_tables_message() {
            Some(NFT_MSG_NEWTABLE) => Self::NewTable(Table::decode(body)?),
            Some(NFT_MSG_DELTABLE) => Self::DeletedTable(Table::decode(body)?),
            Some(NFT_MSG_NEWCHAIN) => Self::NewChain(Chain::decode(body)?),
            Some(NFT_MSG_DELCHAIN) => Self::DeletedChain(Chain::decode(body)?),
            Some(NFT_MSG_NEWRULE) => Self::NewRule(Rule::decode(body)?),
            Some(NFT_MSG_DELRULE) => Self::DeletedRule(Rule::decode(body)?),
            Some(NFT_MSG_NEWSET) => Self::NewSet(SetSpec::decode(body)?),
            Some(NFT_MSG_DELSET) => Self::DeletedSet(SetSpec::decode(body)?),
            Some(NFT_MSG_NEWSETELEM) => Self::NewElements(Elements::decode(body)?),
            Some(NFT_MSG_DELSETELEM) => Self::DeletedElements(Elements::decode(body)?),
            Some(NFT_MSG_NEWGEN) => Self::Generation(Commit::decode(message)?),
            _ => Self::opaque(message),
        })
    }

    fn opaque(message: Message<'_>) -> Self {
        Self::Opaque { kind: message.header.message_type, body: message.body.to_vec() }
    }
}

/// The events of one network namespace, without an end.
///
/// An error is no end either: what cannot be read is skipped, and the next datagram is tried.
///
/// ```no_run
/// use ephport_nft::client::{Event, Events};
///
/// for event in Events::open()? {
///     match event? {
///         Event::Generation(commit) => println!("{commit:?}"),
///         Event::Lost => println!("read the ruleset again"),
///         event => println!("{event:?}"),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Events<T = Socket> {
    transport: T,
    queued: VecDeque<Result<Event, NetlinkError>>,
}

impl Events<Socket> {
    /// The events of this thread's network namespace from now on.
    pub fn open() -> Result<Self, Error> {
        match Socket::nf_tables_events() {
            Ok(socket) => Ok(Self::with_transport(socket)),
            Err(NetlinkError::Open { errno: Errno::EPERM }) => {
                Err(Error::NotPermitted { task: "watch the ruleset" })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl<T: Transport> Events<T> {
    /// The events that come over `transport`.
    pub fn with_transport(transport: T) -> Self {
        Self { transport, queued: VecDeque::new() }
    }

    /// The next event, for which it waits so long; `None` when none comes.
    pub fn next_within(&mut self, time: Duration) -> Option<Result<Event, NetlinkError>> {
        if self.queued.is_empty() {
            match self.transport.receive_within(time) {
                Ok(None) => return None,
                Ok(Some(datagram)) => {
                    let events = Messages::new(&datagram)
                        .map(|message| message.map(Event::decode).map_err(NetlinkError::from));
                    self.queued.extend(events);
                }
                // The kernel counts what it drops at the socket, and says so once; and a datagram
                // that the buffer cuts is read no further.
                Err(NetlinkError::Receive { errno: Errno::ENOBUFS } | NetlinkError::Cut { .. }) => {
                    return Some(Ok(Event::Lost));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.queued.pop_front()
    }
}

impl<T: Transport> Iterator for Events<T> {
    type Item = Result<Event, NetlinkError>;

    /// Waits for as long as it takes.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let event = self.next_within(Duration::MAX);
            if event.is_some() {
                return event;
            }
        }
    }
}
