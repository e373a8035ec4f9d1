//! What can be wrong in a policy file, and where.

use std::fmt;

use thiserror::Error;

use super::document_error::DocumentError;
use crate::policy::error::PolicyError;
use crate::policy::keys::KEYS;
use crate::policy::name::PolicyName;
use crate::policy::value::ValueError;
use crate::text::quoted;

/// Why a text is not a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
#[non_exhaustive]
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
    #[error("{}: not TOML: {message}", quoted(found))]
    Syntax {
        /// The text there.
        found: Box<str>,
        /// The message of the TOML reader.
        message: Box<str>,
    },
    /// A value without quotes.
    #[error("{}: a value needs quotes: write {suggestion}", quoted(found))]
    Unquoted {
        /// The value.
        found: Box<str>,
        /// The line with quotes.
        suggestion: Box<str>,
    },
    /// A key outside of the policies.
    #[error("unknown key {}: expected [[policy]]", quoted(key))]
    UnknownTopKey {
        /// The key.
        key: Box<str>,
    },
    /// A key of a policy above the first policy.
    #[error("{key} is outside of a policy: write [[policy]] above it")]
    OutsidePolicy {
        /// The key.
        key: &'static str,
    },
    /// A policy as a table with a name, `[policy.builds]`, or as the only one, `[policy]`.
    #[error("expected [[policy]] above each policy{}", name_line(name.as_deref()))]
    Table {
        /// The name in the header.
        name: Option<Box<str>>,
    },
    /// A key that no policy has.
    #[error("unknown key {}: {}", quoted(key), near_key(*near))]
    UnknownKey {
        /// The key.
        key: Box<str>,
        /// The key that may be meant.
        near: Option<&'static str>,
    },
    /// A value of another type.
    #[error("{key} {found}: expected {expected}")]
    Type {
        /// The key.
        key: &'static str,
        /// The text there.
        found: Box<str>,
        /// The type that is accepted.
        expected: Expected,
    },
    /// A list without items, which could mean "none" or "all".
    #[error("{key} {found}: an empty list has no meaning: omit the key, or name something")]
    EmptyList {
        /// The key.
        key: &'static str,
        /// The text there.
        found: Box<str>,
    },
    /// A value that cannot be read.
    #[error("{key} {found}: {error}")]
    Value {
        /// The key.
        key: &'static str,
        /// The text there.
        found: Box<str>,
        /// The reason.
        error: ValueError,
    },
    /// A policy without a name.
    #[error("{found}: the policy has no name: expected for example name = \"builds\"")]
    NoName {
        /// The start of the policy.
        found: Box<str>,
    },
    /// A policy without a target.
    #[error(
        "policy `{policy}` has no target: expected one of to-ports, map-e, blocks and blocks-file"
    )]
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
    #[error("policy `{policy}`: {error}")]
    Policy {
        /// The policy.
        policy: PolicyName,
        /// The reason.
        error: PolicyError,
    },
    /// The policies do not make a document.
    #[error("{found}: {error}")]
    Document {
        /// The policy at fault.
        found: Box<str>,
        /// The reason.
        error: DocumentError,
    },
    /// No policy at all.
    #[error("there is no policy: expected at least one [[policy]]")]
    NoPolicy,
}

fn name_line(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(", with name = \"{name}\" below it"))
}

fn near_key(near: Option<&str>) -> String {
    if let Some(near) = near {
        return format!("expected {near}");
    }
    let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    format!("expected one of {}", names.join(", "))
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// A string, like this one in TOML.
    String(&'static str),
    /// A string or a list of strings, like this one in TOML.
    List(&'static str),
    /// True or false.
    Flag,
    /// A table of names with numbers, like this one in TOML.
    Table(&'static str),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(example) => write!(f, "a string, like {example}"),
            Self::List(example) => write!(f, "a string or a list of strings, like {example}"),
            Self::Flag => f.write_str("true or false"),
            Self::Table(example) => write!(f, "a table, like {example}"),
        }
    }
}
