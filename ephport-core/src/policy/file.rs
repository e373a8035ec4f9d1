//! Several policies in order, and the file that they are written in.
//!
//! For each connection the first policy that speaks of it decides; [`evaluate`](crate::decision::evaluate) says which, and why
//! the ones before it did not. A document is written in TOML:
//!
//! ```
//! use ephport_core::{Document, Flow, HostFacts, evaluate};
//!
//! let document: Document = r#"
//!     [[policy]]
//!     name = "builds"
//!     sources = ["172.16.0.0/12"]
//!     out-interfaces = ["eth0", "wg*"]   # or "any"; the uplinks when left out
//!     to-ports = "49152-61000"           # or "local"
//!
//!     [[policy]]
//!     name = "rest"
//!     out-interfaces = "any"
//!     to-ports = "1024-65535"
//!     except-ports = "30000-32767"
//! "#.parse()?;
//! let policies = document.resolve(&HostFacts::default())?;
//! let flow: Flow = "tcp 10.0.0.7:40000 -> 203.0.113.9:443 oif eth0".parse()?;
//! let outcome = evaluate(&policies, &flow);
//! assert_eq!(outcome.matched.map(|matched| matched.policy.name.as_str()), Some("rest"));
//! assert_eq!(outcome.non_matches[0].reason.to_string(), "the source address is out of scope");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The keys of a policy, with their defaults:
//!
//! | key | value | when left out |
//! |---|---|---|
//! | `name` | an identifier | needed |
//! | `to-ports` | ports, or `"local"` for the host's own range | one of the three is needed |
//! | `map-e` | [`MapE`](crate::MapE) parameters | |
//! | `blocks` | a plan, or a list of blocks: [`BlockTable`](crate::BlockTable) | |
//! | `except-ports` | ports taken out of `to-ports` | none |
//! | `protocols` | list of `tcp`, `udp`, `udplite`, `sctp` | `tcp`, `udp` |
//! | `out-interfaces` | list of names and prefixes, or `"any"` | `"uplinks"` |
//! | `sources` | list of networks | all |
//! | `except-destinations` | list of networks | none |
//! | `origin` | `"local"`, `"forwarded"` or `"both"` | `"both"` |
//! | `families` | list of `ipv4`, `ipv6` | both |
//! | `source-ports` | ports | `"1024-65535"` |
//! | `exempt-source-ports` | ports | none |
//! | `random`, `fully-random`, `persistent`, `per-source-stable` | `true` or `false` | `false` |
//! | `address` | `"masquerade"`, `"keep"` or an address | `"masquerade"` |
//! | `pick-up` | `"opening"` or `"any"` | `"opening"` |
//! | `enforce` | `true` or `false` | `false` |

mod error;
mod print;
mod read;

use std::str::FromStr;

use thiserror::Error;

pub use self::error::{Expected, PolicyFileError, PolicyFileErrorKind, ValueError};
use crate::host::HostFacts;
use crate::policy::{Policy, PolicyName};
use crate::resolve::{ResolveError, ResolvedPolicy};

/// Policies in order, at least one, each with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document(Vec<Policy>);

impl Document {
    /// The document of these policies, in this order.
    pub fn new(policies: Vec<Policy>) -> Result<Self, DocumentError> {
        if policies.is_empty() {
            return Err(DocumentError::Empty);
        }
        for (second, policy) in policies.iter().enumerate() {
            let mut before = policies.iter().take(second);
            if let Some(first) = before.position(|other| other.name == policy.name) {
                return Err(DocumentError::Duplicate { name: policy.name.clone(), first, second });
            }
        }
        Ok(Self(policies))
    }

    /// The policies, in order; at least one.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.0
    }

    /// What the policies mean on a host with these facts, in the same order.
    pub fn resolve(&self, host: &HostFacts) -> Result<Vec<ResolvedPolicy>, ResolveDocumentError> {
        let resolve = |policy: &Policy| {
            let named = |error| ResolveDocumentError { policy: policy.name.clone(), error };
            policy.resolve(host).map_err(named)
        };
        self.0.iter().map(resolve).collect()
    }

    /// The TOML text: of each policy the name, the target and what differs from the defaults.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::print(&self.0)
    }
}

/// One policy is a document of its own.
impl From<Policy> for Document {
    fn from(policy: Policy) -> Self {
        Self(vec![policy])
    }
}

/// Reads the TOML text.
impl FromStr for Document {
    type Err = PolicyFileError;

    fn from_str(text: &str) -> Result<Self, PolicyFileError> {
        read::read(text)
    }
}

/// Why policies do not make a document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// No policy.
    #[error("there is no policy: expected at least one")]
    Empty,
    /// Two policies of one name.
    #[error(
        "policies {} and {} are both named `{name}`: expected a name of its own for each",
        first + 1,
        second + 1
    )]
    Duplicate {
        /// The name.
        name: PolicyName,
        /// The index of the first of them.
        first: usize,
        /// The index of the second.
        second: usize,
    },
}

/// Why a document means nothing on a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("policy `{policy}`: {error}")]
pub struct ResolveDocumentError {
    /// The policy.
    pub policy: PolicyName,
    /// Why it means nothing there.
    pub error: ResolveError,
}

#[cfg(test)]
mod tests;
