//! Errors of reading and changing the kernel's ruleset.

use std::fmt;

use thiserror::Error;

use super::location::RequestLocation;
use super::module::Module;
use super::open::OpenError;
use super::request::Request;
use crate::netlink::{CodecError, Errno, NamespaceError, NetlinkError};

/// The reason why the kernel's ruleset could not be read or changed.
///
/// After every error but [`Error::Unconfirmed`] the kernel's ruleset is as before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The exchange with the kernel failed.
    #[error(transparent)]
    Netlink(NetlinkError),
    /// The network namespace of the client cannot be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The deadline passed before the call sent a transaction.
    #[error("the deadline passed before a transaction was sent: the ruleset is as before")]
    DeadlineExceeded,
    /// The interrupt of the client was raised before the call sent a transaction.
    #[error("the call was interrupted before a transaction was sent: the ruleset is as before")]
    Cancelled,
    /// The process lacks CAP_NET_ADMIN in the user namespace of this network namespace.
    #[error("permission denied: {task} the ruleset requires CAP_NET_ADMIN")]
    NotPermitted {
        /// `reading`, `changing` or `watching`.
        task: &'static str,
    },
    /// The kernel has no nf_tables.
    #[error("the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)")]
    NoNfTables,
    /// The kernel lacks a module of nf_tables and could not load it.
    #[error("the kernel refused to {request}: {module}")]
    NoModule {
        /// The rejected request.
        request: Request,
        /// The missing module.
        module: Module,
    },
    /// The kernel rejected one operation, and with it the whole transaction.
    #[error("{0}")]
    Rejected(Box<Rejection>),
    /// The kernel acknowledged a transaction or did not answer it, and did not commit it.
    #[error("the kernel did not commit the transaction and gave no reason")]
    Dropped,
    /// The kernel's answer to a transaction was lost, and its ruleset does not show whether it was
    /// committed.
    #[error("the kernel did not confirm the transaction: it may be committed or not")]
    Unconfirmed,
    /// Another process changed the ruleset during every attempt.
    #[error("another process changed the ruleset during each of {tries} attempts")]
    Busy {
        /// The count of attempts.
        tries: u32,
    },
    /// A table with the client's table name and another owner, or none.
    #[error("table inet {table} exists and has another owner")]
    Foreign {
        /// The table's name.
        table: String,
    },
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
    /// A state of the client's table with another owner than the client's.
    #[error(
        "cannot apply a state of table inet {table} with {}: the owner of this client is \"{expected}\"",
        owner_text(owner.as_deref())
    )]
    OtherOwner {
        /// The name of the table.
        table: String,
        /// The owner that the state names.
        owner: Option<String>,
        /// The client's.
        expected: String,
    },
    /// Another netlink socket owns the table (flag `owner`): only that one may change it.
    #[error("table inet {table} is owned by {}: only its owner may change it", owner_name(*port_id))]
    Owned {
        /// The table's name.
        table: String,
        /// The port id of the socket: usually, and not always, the number of its process. `None` if the
        /// owner ended meanwhile.
        port_id: Option<u32>,
    },
    /// The connections that are open, and that an enforced policy must not drop, cannot be read.
    #[error("cannot find the connections that are open: {0}")]
    OpenConnections(OpenError),
    /// The ruleset does not fit in netlink's messages.
    #[error("the ruleset cannot be encoded: {0}")]
    Encoding(CodecError),
}

fn owner_text(owner: Option<&str>) -> String {
    owner.map_or_else(|| "no owner".into(), |owner| format!("the owner \"{owner}\""))
}

fn owner_name(port_id: Option<u32>) -> String {
    port_id.map_or_else(|| "another process".into(), |id| format!("netlink port id {id}"))
}

impl Error {
    /// Whether the kernel's ruleset may not be as before the call: it has the whole transaction or nothing of it.
    /// Read it, or apply again.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        *self == Self::Unconfirmed
    }
}

impl From<NetlinkError> for Error {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::DeadlineExceeded => Self::DeadlineExceeded,
            NetlinkError::Cancelled => Self::Cancelled,
            error => Self::Netlink(error),
        }
    }
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        Self::Encoding(error)
    }
}

/// A rejected request: its location and likely cause, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The rejected request.
    pub request: Request,
    /// The error of the answer.
    pub errno: Errno,
    /// The kernel's text, if it sent one.
    pub message: Option<String>,
    /// The offset of the fault, in bytes from the start of the request.
    pub offset: Option<u32>,
    /// The attribute at the offset.
    pub location: Option<RequestLocation>,
    /// The likely cause.
    pub cause: Option<Cause>,
}

/// The likely cause of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A missing module; the kernel does not report which expression needs it.
    SomeModule,
    /// A kernel that is older than ephport requires, or was built without a part of nf_tables.
    Unsupported,
    /// An object with this name and another type.
    Exists,
    /// Another object that uses it.
    InUse,
    /// Lack of memory in the kernel or in the memory control group of this process.
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

impl fmt::Display for Rejection {
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
                "this kernel does not support it; expected Linux 5.10 or later with all of \
                 CONFIG_NFT_*"
            }
            Self::Exists => "an object with this name and another type exists",
            Self::InUse => "another object uses it",
            Self::NoMemory => {
                "the kernel or the memory control group of this process has no memory left"
            }
        })
    }
}
