//! What a reader should know before relying on the ports.

use std::fmt;

use super::Entry;
use crate::net::address_range::AddressRange;
use crate::net::protocol::Protocol;
use crate::text::{Quoted, excerpt};

/// The most remote addresses that a note lists.
const MAX_REMOTES: usize = 8;

/// What a reader should know before relying on the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The document is one page of several (`NextToken`).
    MorePages,
    /// There are several network ACLs, and the ports are those that all let in.
    Several {
        /// Their ids.
        acls: Vec<Box<str>>,
    },
    /// An entry for some of the remote addresses: some connections could use more ports.
    SomeRemotes {
        /// The id of the ACL.
        acl: Box<str>,
        /// The entry.
        entry: Entry,
    },
    /// An entry with a protocol that is not known, which was skipped.
    UnknownProtocol {
        /// The id of the ACL.
        acl: Box<str>,
        /// The entry.
        entry: Entry,
    },
    /// Remote addresses whose replies get through to no port from 1024 up: the ports disregard them.
    Unreachable {
        /// The id of the ACL.
        acl: Box<str>,
        /// The protocol.
        protocol: Protocol,
        /// The addresses, ascending.
        remotes: Vec<AddressRange>,
    },
    /// No port is good.
    NoReplies {
        /// The id of the ACL.
        acl: Box<str>,
        /// The protocol.
        protocol: Protocol,
    },
    /// No outbound entry allows anything.
    NothingOutbound {
        /// The id of the ACL.
        acl: Box<str>,
    },
}

impl Note {
    /// The stable name of this kind of note.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MorePages => "more-pages",
            Self::Several { .. } => "several-acls",
            Self::SomeRemotes { .. } => "some-remotes",
            Self::UnknownProtocol { .. } => "unknown-protocol",
            Self::Unreachable { .. } => "unreachable",
            Self::NoReplies { .. } => "no-replies",
            Self::NothingOutbound { .. } => "nothing-outbound",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MorePages => f.write_str(
                "NextToken: the document is one page of several; other network ACLs are missing",
            ),
            Self::Several { acls } => {
                let ids: Vec<_> =
                    acls.iter().take(MAX_REMOTES).map(|id| shown(id).to_string()).collect();
                write!(
                    f,
                    "{} network ACLs: only ports that all of them let in are good: ",
                    acls.len()
                )?;
                write_list(f, &ids, acls.len())
            }
            Self::SomeRemotes { acl, entry } => {
                write!(
                    f,
                    "{}: {entry}, which is some of the remote addresses and not all",
                    shown(acl)
                )
            }
            Self::UnknownProtocol { acl, entry } => {
                write!(f, "{}: {entry}: the protocol is not known, the rule is skipped", shown(acl))
            }
            Self::Unreachable { acl, protocol, remotes } => {
                let ranges = remotes.iter().take(MAX_REMOTES).map(ToString::to_string);
                let ranges: Vec<_> = ranges.collect();
                write!(f, "{}: no {protocol} replies get through from ", shown(acl))?;
                write_list(f, &ranges, remotes.len())?;
                f.write_str(" to any port from 1024 up: the ports disregard these addresses")
            }
            Self::NoReplies { acl, protocol } => write!(
                f,
                "{}: there is no port to which {protocol} replies get through from all",
                shown(acl)
            ),
            Self::NothingOutbound { acl } => write!(
                f,
                "{}: no outbound rule allows anything: connections are not sent whatever their port",
                shown(acl)
            ),
        }
    }
}

/// An id of the document.
fn shown(id: &str) -> Quoted<'_> {
    excerpt(id)
}

fn write_list(f: &mut fmt::Formatter<'_>, list: &[String], len: usize) -> fmt::Result {
    f.write_str(&list.join(", "))?;
    match len - list.len() {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}
