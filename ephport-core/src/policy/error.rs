//! Why a policy is refused.

use std::fmt::Write as _;
use std::net::IpAddr;

use thiserror::Error;

use crate::net::network::NetworkError;
use crate::policy::value::ValueError;
use crate::text::{excerpt, quoted};

/// A key of a policy with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GivenKey {
    /// The key, as in policy files.
    pub key: &'static str,
    /// The value.
    pub value: String,
}

/// Why the parts of a policy do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.with_names(String::from))]
#[non_exhaustive]
pub enum PolicyError {
    /// A value cannot be read.
    Value {
        /// The key.
        key: &'static str,
        /// The reason.
        error: ValueError,
    },
    /// A key that no policy has.
    UnknownKey {
        /// The key.
        key: Box<str>,
    },
    /// A network with bits after its prefix.
    Network {
        /// The key.
        key: &'static str,
        /// The reason.
        error: NetworkError,
    },
    /// An interface called `any` or `uplinks`, which a policy file could not name.
    ReservedName {
        /// The name.
        name: Box<str>,
    },
    /// The loopback interface, which no policy touches.
    Loopback {
        /// The key.
        key: &'static str,
    },
    /// An address that cannot be the source of a packet on a link to another network.
    NotASource {
        /// The key.
        key: &'static str,
        /// The address.
        address: IpAddr,
        /// Its kind, like `multicast`.
        kind: &'static str,
    },
    /// Two keys of which one makes the other meaningless.
    Excludes {
        /// The one key.
        first: &'static str,
        /// The other key.
        second: &'static str,
        /// The reason, or the way out.
        reason: &'static str,
    },
    /// No source port is translated, or no port is permitted.
    NoPorts {
        /// `translate` or `permit`.
        what: &'static str,
        /// The key with the ports.
        first: &'static str,
        /// The key whose ports are removed.
        minus: &'static str,
    },
    /// Keys that no connection meets together.
    NoConnection {
        /// The keys; without one of them, a connection could match. One key is enough where it meets
        /// a default.
        keys: Vec<GivenKey>,
    },
}

impl PolicyError {
    /// The keys at fault.
    #[must_use]
    pub fn keys(&self) -> Vec<&'static str> {
        match self {
            Self::Value { key, .. }
            | Self::Network { key, .. }
            | Self::Loopback { key }
            | Self::NotASource { key, .. } => vec![key],
            Self::UnknownKey { .. } | Self::ReservedName { .. } => Vec::new(),
            Self::Excludes { first, second, .. } | Self::NoPorts { first, minus: second, .. } => {
                vec![first, second]
            }
            Self::NoConnection { keys } => keys.iter().map(|given| given.key).collect(),
        }
    }

    /// The message with other names for the keys, like those of flags.
    #[must_use]
    pub fn with_names(&self, name: impl Fn(&'static str) -> String) -> String {
        match self {
            Self::Value { key, error } => format!("{}: {error}", name(key)),
            Self::UnknownKey { key } => format!("unknown key {}", quoted(key)),
            Self::ReservedName { name } => format!(
                "interface {} cannot be named: the word has another meaning; rename the interface",
                quoted(name)
            ),
            Self::Network { key, error } => format!("{}: {error}", name(key)),
            Self::Loopback { key } => {
                format!(
                    "{}: no policy applies to the loopback interface: name another one",
                    name(key)
                )
            }
            Self::NotASource { key, address, kind } => format!(
                "{} {address}: no connection can have a source address that is {kind}: expected an \
                 address of this host or network",
                name(key)
            ),
            Self::Excludes { first, second, reason } => {
                format!("{} and {} exclude each other: {reason}", name(first), name(second))
            }
            Self::NoPorts { what, first, minus } => {
                let kind = if *what == "translate" { "source ports" } else { "ports" };
                let (first, minus) = (name(first), name(minus));
                format!("no {kind} left to {what}: {first} minus {minus} is empty")
            }
            Self::NoConnection { keys } => no_connection(keys, name),
        }
    }
}

fn no_connection(keys: &[GivenKey], name: impl Fn(&'static str) -> String) -> String {
    let mut text = String::new();
    for (i, given) in keys.iter().enumerate() {
        let join = match i {
            0 => "",
            i if i + 1 == keys.len() => " and ",
            _ => ", ",
        };
        // Writing to a `String` cannot fail.
        let value = if given.value.is_empty() { "none" } else { &given.value };
        let _ = write!(text, "{join}{} {}", name(given.key), excerpt(value));
    }
    match keys.len() {
        0 => "no connection can match the policy".into(),
        1 => format!("no connection can match {text}"),
        2 => format!("{text} exclude each other: no connection can match both"),
        _ => format!("{text} exclude each other: no connection can match all of them"),
    }
}
