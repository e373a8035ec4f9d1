//! Why policies are no document, or none for a host.

use thiserror::Error;

use crate::policy::name::PolicyName;
use crate::resolve::ResolveError;

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

/// Why a document cannot be bound to a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("policy `{policy}`: {error}")]
#[non_exhaustive]
pub struct ResolveDocumentError {
    /// The policy.
    pub policy: PolicyName,
    /// The reason.
    pub error: ResolveError,
}
