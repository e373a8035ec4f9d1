//! What can be wrong in a policy file, and where.

use std::fmt;

use thiserror::Error;

use super::DocumentError;
use super::read::KEYS;
use crate::allocation::blocks::BlockError;
use crate::allocation::map_e::MapEError;
use crate::net::interface::InterfaceError;
use crate::net::mark::MarkError;
use crate::net::port::PortError;
use crate::net::protocol::ProtocolError;
use crate::policy::{PolicyError, PolicyName};
use crate::word::WordError;

/// Why a text is not a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct PolicyFileError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Box<PolicyFileErrorKind>,
}

/// What is wrong in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyFileErrorKind {
    /// Not TOML.
    #[error("`{found}`: not TOML: {message}")]
    Syntax {
        /// What stands there.
        found: Box<str>,
        /// What the TOML reader says.
        message: Box<str>,
    },
    /// A key outside of the policies.
    #[error("unknown key `{key}`: expected [[policy]]")]
    UnknownTopKey {
        /// The key.
        key: Box<str>,
    },
    /// A key that says nothing of a policy.
    #[error("unknown key `{key}`: expected {}", KEYS.join(", "))]
    UnknownKey {
        /// The key.
        key: Box<str>,
    },
    /// A value of another type.
    #[error("{key} {found}: expected {expected}")]
    Type {
        /// The key.
        key: &'static str,
        /// What stands there.
        found: Box<str>,
        /// What should.
        expected: Expected,
    },
    /// A list without items, which could be read as "none" or as "all".
    #[error("{key} {found}: an empty list says nothing: leave the key out, or name something")]
    EmptyList {
        /// The key.
        key: &'static str,
        /// What stands there.
        found: Box<str>,
    },
    /// A value that cannot be read.
    #[error("{key} {found}: {error}")]
    Value {
        /// The key.
        key: &'static str,
        /// What stands there.
        found: Box<str>,
        /// Why it cannot be read.
        error: ValueError,
    },
    /// A policy without a name.
    #[error("{found}: the policy has no name: expected for example name = \"builds\"")]
    NoName {
        /// Where the policy begins.
        found: Box<str>,
    },
    /// A policy without a target.
    #[error("policy `{policy}` does not say where to: expected one of to-ports, map-e and blocks")]
    NoTarget {
        /// The policy.
        policy: PolicyName,
    },
    /// A policy with two targets.
    #[error("{second} {found}: the policy has {first} already: expected one of them")]
    TwoTargets {
        /// The key of the one.
        first: &'static str,
        /// The key of the other.
        second: &'static str,
        /// The value of the other.
        found: Box<str>,
    },
    /// The parts of a policy do not fit together.
    #[error("{found}: policy `{policy}`: {error}")]
    Policy {
        /// The part that is at fault.
        found: Box<str>,
        /// The policy.
        policy: PolicyName,
        /// Why it does not fit.
        error: PolicyError,
    },
    /// The policies do not make a document.
    #[error("{found}: {error}")]
    Document {
        /// The policy that is at fault.
        found: Box<str>,
        /// Why they do not.
        error: DocumentError,
    },
    /// No policy at all.
    #[error("there is no policy: expected at least one [[policy]]")]
    NoPolicy,
}

/// The type that a value should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// A string, like this one.
    String(&'static str),
    /// A list of strings, like this one.
    List(&'static str),
    /// `any` or a list of strings, like this one.
    AnyOrList(&'static str),
    /// A string or a list of strings, like this one.
    StringOrList(&'static str),
    /// True or false.
    Flag,
    /// An array of tables.
    Policies,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(example) => write!(f, "a string, like \"{example}\""),
            Self::List(example) => write!(f, "a list of strings, like [\"{example}\"]"),
            Self::AnyOrList(example) => {
                write!(f, "\"any\" or a list of strings, like [\"{example}\"]")
            }
            Self::StringOrList(example) => {
                write!(f, "a string or a list of strings, like \"{example}\"")
            }
            Self::Flag => f.write_str("true or false"),
            Self::Policies => f.write_str("[[policy]] above each policy"),
        }
    }
}

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not a name for a policy.
    #[error(transparent)]
    Name(#[from] PolicyError),
    /// Not ports.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// Not a protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Not an interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Not a mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Not MAP-E parameters.
    #[error(transparent)]
    MapE(#[from] MapEError),
    /// Not blocks of ports.
    #[error(transparent)]
    Blocks(#[from] BlockError),
    /// Not a network.
    #[error("expected a network like 10.0.0.0/8 or an address")]
    Network,
    /// None of a few words.
    #[error(transparent)]
    Word(#[from] WordError),
    /// A word for many interfaces, among names of some.
    #[error("expected the name of an interface: `any` and `uplinks` stand alone, not in a list")]
    WordInList,
}
