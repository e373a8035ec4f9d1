//! Several policies in order, and the file that they are written in.
//!
//! For each connection the first policy that speaks of it decides; [`decide`] says which, and why
//! the ones before it did not. A document is written in TOML:
//!
//! ```
//! use ephport_core::{Document, Flow, HostFacts, decide};
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
//! let outcome = decide(&policies, &flow);
//! assert_eq!(outcome.winner.map(|winner| winner.policy.name.as_str()), Some("rest"));
//! assert_eq!(outcome.passed_over[0].reason.to_string(), "its source address is out of scope");
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

use ipnet::IpNet;
use thiserror::Error;

pub use self::error::{Expected, TomlError, TomlProblem, ValueError};
use crate::decision::{Decision, Reason};
use crate::flow::{Cast, Flow};
use crate::host::HostFacts;
use crate::policy::{Policy, PolicyName};
use crate::port::Port;
use crate::resolve::{ResolveError, Resolved};
use crate::scope::Family;

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
    pub fn resolve(&self, host: &HostFacts) -> Result<Vec<Resolved>, ResolveDocumentError> {
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
    type Err = TomlError;

    fn from_str(text: &str) -> Result<Self, TomlError> {
        read::read(text)
    }
}

/// What a document does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The first policy that moves it; none leaves it untouched.
    pub winner: Option<Winner<'a>>,
    /// The policies before that one (all of them, without a winner), each with its reason.
    pub passed_over: Vec<PassedOver<'a>>,
}

/// The policy that decides on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Winner<'a> {
    /// Its index in the document.
    pub index: usize,
    /// The policy.
    pub policy: &'a Resolved,
    /// What it does; never [`Decision::Untouched`].
    pub decision: Decision,
}

/// A policy that does not speak of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassedOver<'a> {
    /// Its index in the document.
    pub index: usize,
    /// The policy.
    pub policy: &'a Resolved,
    /// Why it does not.
    pub reason: Reason,
}

/// What these policies do with a connection that opens with `flow`: the first that moves it wins.
#[must_use]
pub fn decide<'a>(policies: &'a [Resolved], flow: &Flow) -> Outcome<'a> {
    let mut passed_over = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        match policy.decide(flow) {
            Decision::Untouched(reason) => passed_over.push(PassedOver { index, policy, reason }),
            decision @ Decision::Moved { .. } => {
                return Outcome { winner: Some(Winner { index, policy, decision }), passed_over };
            }
        }
    }
    Outcome { winner: None, passed_over }
}

/// The policy whose enforcement decides on a connection that opens with `flow`: the first with the
/// connection in its scope, whatever its source port, if that one is enforced.
#[must_use]
pub fn enforcer<'a>(policies: &'a [Resolved], flow: &Flow) -> Option<&'a Resolved> {
    let owner = policies.iter().find(|policy| policy.out_of_scope(flow).is_none());
    owner.filter(|policy| policy.enforce)
}

/// Whether a connection that opens with `flow` may leave with the source port `leaving`: by a port
/// of [`Resolved::leaves`] if there is an [`enforcer`], else by any.
#[must_use]
pub fn lets_out(policies: &[Resolved], flow: &Flow, leaving: Port) -> bool {
    enforcer(policies, flow).is_none_or(|policy| policy.leaves.contains(leaving))
}

/// Whether a packet like `flow` may leave that conntrack cannot place. NAT passes over it, so no port
/// of it is right: it is dropped by the first policy that can tell it for its own, if that one is
/// enforced. An enforced policy takes it for its own by interface, family and protocol alone,
/// since conntrack does not know where such a packet comes from; a policy that is not enforced only
/// where the rest of its scope holds as well and does not ask for the source.
#[must_use]
pub fn lets_unplaced_out(policies: &[Resolved], flow: &Flow) -> bool {
    let of_family = |net: &&IpNet| Family::of(net.addr()) == flow.family();
    let hold_all = |nets: &Vec<IpNet>| {
        IpNet::aggregate(nets).iter().filter(of_family).any(|net| net.prefix_len() == 0)
    };
    let owner = policies.iter().find(|policy| {
        let Resolved { sources, except_destinations, .. } = policy;
        if !policy.enforce {
            let is_sourceless = sources.is_empty() || hold_all(sources);
            return is_sourceless && policy.out_of_scope(flow).is_none();
        }
        flow.cast() == Cast::Unicast
            && policy.egress.contains(flow.out_interface())
            && policy.families.contains(flow.family())
            && policy.protocols.contains(flow.protocol())
            && (sources.is_empty() || sources.iter().any(|net| of_family(&net)))
            && !hold_all(except_destinations)
    });
    owner.is_none_or(|policy| !policy.enforce)
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
