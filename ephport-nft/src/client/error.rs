//! Why the kernel's ruleset could not be read or changed.

use nix::errno::Errno;
use thiserror::Error;

use super::transport::NetlinkError;
use crate::ruleset::TABLE;
use crate::wire::WireError;

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
    #[error(
        "the kernel refused to {operation}: it lacks the module {module}; \
         load it with `modprobe {module}`"
    )]
    NoModule {
        /// What was asked, in words.
        operation: String,
        /// Its name.
        module: &'static str,
    },
    /// The kernel refused one operation, and with it the whole transaction.
    #[error("the kernel refused to {operation} ({errno}){}{}", detail(message.as_deref(), *offset), hint(*errno))]
    Refused {
        /// What was asked, in words.
        operation: String,
        /// What the kernel said.
        errno: Errno,
        /// The kernel's words, if it had any.
        message: Option<String>,
        /// Where in the message the fault is, in bytes from its header.
        offset: Option<u32>,
    },
    /// The kernel answered nothing to a transaction, and holds what it held before.
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
    /// The ruleset does not fit netlink.
    #[error("the ruleset cannot be encoded: {0}")]
    Wire(#[from] WireError),
}

fn detail(message: Option<&str>, offset: Option<u32>) -> String {
    match (message, offset) {
        (Some(message), _) => format!(": {message}"),
        (None, Some(offset)) => format!(", at byte {offset} of the message"),
        (None, None) => String::new(),
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => {
            ": a kernel module may be missing; expected nft_chain_nat, nft_masq, nft_ct, \
             nft_fib_inet"
        }
        Errno::EOPNOTSUPP => ": the kernel does not support it",
        _ => "",
    }
}
