//! Several policies in order, and the file in which they are written.
//!
//! For each connection the first policy that matches decides; [`evaluate`](crate::decision::evaluate)
//! names it, and the reasons why the ones before it do not match. A document is written in TOML:
//!
//! ```
//! use ephport_core::{Document, Flow, HostFacts, evaluate};
//!
//! let document: Document = r#"
//!     [[policy]]
//!     name = "builds"
//!     sources = ["172.16.0.0/12"]
//!     out-interfaces = ["eth0", "wg*"]   # or "any"; by default the uplinks
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
//! let evaluation = evaluate(&policies, &flow);
//! assert_eq!(evaluation.matched.map(|matched| matched.policy.name.as_str()), Some("rest"));
//! assert_eq!(evaluation.non_matches[0].reason.to_string(), "the source address is out of scope");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The keys of a policy are those of [`KEYS`](crate::policy::keys::KEYS).

mod document_error;
#[cfg(feature = "toml")]
mod error;
mod print;
#[cfg(feature = "toml")]
mod read;
#[cfg(feature = "toml")]
mod source;

use std::collections::HashMap;
#[cfg(feature = "toml")]
use std::str::FromStr;

pub use self::document_error::{DocumentError, ResolveDocumentError};
#[cfg(feature = "toml")]
pub use self::error::{Expected, PolicyFileError, PolicyFileErrorKind};
pub use super::value::{Files, ValueError};
use crate::host::HostFacts;
use crate::policy::warning::{self, Warning};
use crate::policy::{Policy, host_warnings};
use crate::resolve::{ResolvedPolicy, resolve_all};

/// Policies in order, at least one, each with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Document(Vec<Policy>);

impl Document {
    /// The document of these policies, in this order.
    pub fn new(policies: Vec<Policy>) -> Result<Self, DocumentError> {
        if policies.is_empty() {
            return Err(DocumentError::Empty);
        }
        let mut seen = HashMap::new();
        for (second, policy) in policies.iter().enumerate() {
            if let Some(first) = seen.insert(policy.name(), second) {
                let name = policy.name().clone();
                return Err(DocumentError::Duplicate { name, first, second });
            }
        }
        Ok(Self(policies))
    }

    /// Reads TOML text whose policies may name files.
    ///
    /// # Errors
    /// [`PolicyFileError`], with its place in the text.
    #[cfg(feature = "toml")]
    pub fn read(text: &str, files: &dyn Files) -> Result<Self, PolicyFileError> {
        Self::parse(text, Some(files))
    }

    #[cfg(feature = "toml")]
    fn parse(text: &str, files: Option<&dyn Files>) -> Result<Self, PolicyFileError> {
        let read = read::read(text, files)?;
        let policies = read.iter().map(|read| read.policy.clone()).collect();
        Self::new(policies).map_err(|error| read::locate(text, &read, error))
    }

    /// The policies, in order; at least one.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.0
    }

    /// Whether a policy rewrites ports (`spread = "remap"`): what other tables forward matters then.
    #[must_use]
    pub fn remaps(&self) -> bool {
        self.policies().iter().any(|policy| policy.spec().remaps())
    }

    /// The policies bound to a host with these facts, in the same order.
    pub fn resolve(&self, host: &HostFacts) -> Result<Vec<ResolvedPolicy>, ResolveDocumentError> {
        resolve_all(&self.0, host).map_err(|(policy, error)| ResolveDocumentError { policy, error })
    }

    /// What the policies do not do although they are correct: keys without effect, and policies that no
    /// connection reaches.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        warning::warnings(&self.0)
    }

    /// What the policies do not do on a host with these facts as it is now.
    #[must_use]
    pub fn host_warnings(&self, host: &HostFacts) -> Vec<Warning> {
        host_warnings::host_warnings(&self.0, host)
    }

    /// The TOML text: the name and the target of each policy, and what differs from the defaults.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::print(&self.0)
    }

    /// The same policies with the blocks themselves in place of the files that they were read from.
    #[must_use]
    pub fn without_files(&self) -> Self {
        Self(self.0.iter().map(Policy::without_file).collect())
    }

    /// The policies for programs; see [`Policy::to_json`].
    #[cfg(feature = "json")]
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.0.iter().map(Policy::to_json).collect()
    }
}

/// A document of one policy.
impl From<Policy> for Document {
    fn from(policy: Policy) -> Self {
        Self(vec![policy])
    }
}

/// Reads the TOML text of policies that name no files.
#[cfg(feature = "toml")]
impl FromStr for Document {
    type Err = PolicyFileError;

    fn from_str(text: &str) -> Result<Self, PolicyFileError> {
        Self::parse(text, None)
    }
}

#[cfg(all(test, feature = "toml", feature = "json"))]
mod tests;
