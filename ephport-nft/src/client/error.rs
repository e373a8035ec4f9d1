//! Why the kernel's ruleset could not be read or changed.

use std::fmt;

use nix::errno::Errno;
use thiserror::Error;

use super::location::RequestLocation;
use super::module::Module;
use super::request::Request;
use crate::netlink::CodecError;
use crate::netlink::NetlinkError;
use crate::table::layout::TABLE;

/// Why the kernel's ruleset could not be read or changed. Whatever it says, the kernel holds what
/// it held before; of [`Error::Unconfirmed`] alone that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The conversation with the kernel failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The process may not use nf_tables in this network namespace.
    #[error(
        "the kernel asks for CAP_NET_ADMIN to {task}: run as root, \
         or in a user and network namespace of your own"
    )]
    NotPermitted {
        /// What was tried.
        task: &'static str,
    },
    /// The kernel has no nf_tables.
    #[error(
        "the kernel has no nf_tables: load it with `modprobe nf_tables`, \
         or use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
    )]
    NoNfTables,
    /// The kernel has nf_tables, but not all of its modules, and could not load what it lacks.
    #[error("the kernel refused to {request}: {module}")]
    NoModule {
        /// What was asked.
        request: Request,
        /// What it lacks.
        module: Module,
    },
    /// The kernel refused one operation, and with it the whole transaction.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The kernel answered nothing to a transaction, or acknowledged it and did not carry it out; it
    /// holds what it held before.
    #[error("the kernel carried out nothing of the transaction and did not say why: try again")]
    Dropped,
    /// The kernel's answer to a transaction was lost, and its ruleset does not tell what became of it.
    #[error(
        "the kernel did not confirm the transaction: run `ephport-nft status` to see its state"
    )]
    Unconfirmed,
    /// Somebody else changed the ruleset each time we tried.
    #[error("the ruleset was changed by somebody else {tries} times in a row: try again")]
    Busy {
        /// How often we tried.
        tries: u32,
    },
    /// A table of our name that is not ours.
    #[error(
        "table inet {TABLE} exists but ephport did not make it: \
         look at it with `nft list table inet {TABLE}`, and rename or delete it"
    )]
    Foreign,
    /// A state of another table than that of the client.
    #[error(
        "cannot apply a state of table inet {table}: this client changes table inet {expected}"
    )]
    OtherTable {
        /// The name of the state's table.
        table: String,
        /// The name of the client's table.
        expected: String,
    },
    /// The table is for the process alone that made it, while that one lives.
    #[error(
        "table inet {TABLE} belongs to a running process, and the kernel lets nobody else change \
         it (`nft list tables` shows its flag owner): end that process first"
    )]
    Owned,
    /// The ruleset does not fit netlink.
    #[error("the ruleset cannot be encoded: {0}")]
    Wire(#[from] CodecError),
}

/// What the kernel refused, where, and why as far as that can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked.
    pub request: Request,
    /// What the kernel said.
    pub errno: Errno,
    /// The kernel's words, if it had any.
    pub message: Option<String>,
    /// Where in the message the fault is, in bytes from its header.
    pub offset: Option<u32>,
    /// The attribute at the offset.
    pub location: Option<RequestLocation>,
    /// The likely cause.
    pub cause: Option<Cause>,
}

/// Why a kernel is likely to refuse an operation of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A module is missing, of which the kernel does not say what needs it.
    SomeModule,
    /// The kernel is older than ephport asks for, or was built without a part of nf_tables.
    Unsupported,
    /// Something of this name stands there, and is different.
    Exists,
    /// Something else still uses it.
    InUse,
    /// The kernel, or the memory control group of this process, has no memory left for it.
    NoMemory,
}

impl Cause {
    pub(super) fn of(
        request: &Request,
        errno: Errno,
        location: Option<&RequestLocation>,
    ) -> Option<Self> {
        Some(match (errno, request) {
            (Errno::ENOENT, Request::Add(_)) if location.is_none() => Self::SomeModule,
            (Errno::EOPNOTSUPP, _) => Self::Unsupported,
            (Errno::EEXIST, _) => Self::Exists,
            (Errno::EBUSY, _) => Self::InUse,
            (Errno::ENOMEM | Errno::ENOBUFS, _) => Self::NoMemory,
            _ => return None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, errno, message, offset, location, cause } = self;
        write!(f, "the kernel refused to {request} ({errno})")?;
        match (location, offset) {
            (Some(location), _) => write!(f, ", at {location}")?,
            (None, Some(offset)) => write!(f, ", at byte {offset} of the message")?,
            (None, None) => {}
        }
        if let Some(message) = message {
            write!(f, ": {message}")?;
        }
        cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SomeModule => {
                "a kernel module may be missing; expected nft_chain_nat, nft_masq, nft_ct, \
                 nft_fib_inet"
            }
            Self::Unsupported => {
                "this kernel does not support it; \
                 use Linux 5.10 or later with all of CONFIG_NFT_*"
            }
            Self::Exists => "another of this name is there already; look with `nft list ruleset`",
            Self::InUse => "something still uses it; look with `nft list ruleset`",
            Self::NoMemory => "there is no memory for it; free some, or raise the group's limit",
        })
    }
}
