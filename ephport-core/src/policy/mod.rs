//! A policy: the connections to which it applies, and the source ports that they may be sent with.
//!
//! ```
//! use ephport_core::{Policy, PortRange};
//!
//! // The range of the original one-liner, for TCP and UDP connections by eth0.
//! let range: PortRange = "49152-61000".parse()?;
//! let policy = Policy::to(range).named("builds").out(["eth0"]).enforce().build()?;
//! assert_eq!(policy.spec().source_ports.to_string(), "1024-65535");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The values of a policy are exhaustive enums: with a new one, each `match` that must decide on it does not
//! compile.

pub mod address;
mod check;
pub mod error;
pub mod file;
pub mod host_warnings;
pub mod key;
pub mod keys;
pub mod name;
#[cfg(feature = "serde")]
mod reports;
pub mod scope;
pub mod selection;
#[cfg(feature = "serde")]
mod serialized;
pub mod spec;
pub mod timeouts;
pub mod value;
pub mod warning;

use std::sync::Arc;

#[cfg(feature = "json")]
use serde_json::{Map, Value as Json};

use crate::allocation::block_table::BlockTable;
use crate::flow::Flow;
use crate::net::family::Families;
#[cfg(feature = "json")]
use crate::policy::keys::KEYS;
use crate::policy::value::{Input, InputError};

pub use address::Address;
pub use error::{GivenKey, PolicyError};
pub use name::PolicyName;
pub use spec::{ExpectedConnections, OpenConnections, PickUp, PolicySpec, Target};
pub use timeouts::{ConnectionTimeouts, TimeoutError, TimeoutState, Timeouts, Timer};

/// A policy whose parts fit together and that some connection matches. A clone shares the parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy(Arc<PolicySpec>);

impl Policy {
    /// The policy with these parts.
    ///
    /// # Errors
    /// [`PolicyError`] when the parts do not fit together, or when no connection can match.
    pub fn new(mut spec: PolicySpec) -> Result<Self, PolicyError> {
        spec.check()?;
        let named = spec.protocols();
        // The default is not written out.
        let named_by_scope = spec.scope.protocols.take();
        spec.scope.protocols = named_by_scope.filter(|_| spec.protocols() != named);
        Ok(Self(Arc::new(spec)))
    }

    /// A builder of a policy that translates to these ports, with the default for all else.
    pub fn to(target: impl Into<Target>) -> PolicyBuilder {
        PolicyBuilder { spec: PolicySpec::to(target), error: None }
    }

    /// The parts.
    #[must_use]
    pub fn spec(&self) -> &PolicySpec {
        &self.0
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &PolicyName {
        &self.0.name
    }

    /// The same policy with the blocks themselves in place of the file that they were read from.
    pub(crate) fn without_file(&self) -> Self {
        let mut own = self.clone();
        if let Target::Blocks(table) = &self.0.target
            && let BlockTable::Explicit(blocks) = &**table
            && blocks.file().is_some()
        {
            let blocks = blocks.clone().without_file();
            Arc::make_mut(&mut own.0).target = BlockTable::Explicit(blocks).into();
        }
        own
    }

    /// Gives the policy another name.
    pub fn rename(&mut self, name: PolicyName) {
        Arc::make_mut(&mut self.0).name = name;
    }

    /// The families in scope; a fixed address has only one, and MAP-E ports are those of IPv4.
    #[must_use]
    pub fn families(&self) -> Families {
        self.0.families()
    }

    /// A connection that the policy translates. The output interface is one of the pattern's names; for
    /// the uplinks it is any name.
    #[must_use]
    pub fn example_flow(&self) -> Option<Flow> {
        self.0.example_flow()
    }

    /// Every key of the policy for programs, with `_` for `-`; `null` for a key that it does not have.
    /// Ranges of ports and marks are numbers.
    #[cfg(feature = "json")]
    #[must_use]
    pub fn to_json(&self) -> Json {
        let value = |key: &key::Key| key.get(&self.0).map_or(Json::Null, |value| value.to_json());
        let keys = KEYS.iter().map(|key| (key.name.replace('-', "_"), value(key)));
        Json::Object(keys.collect::<Map<_, _>>())
    }
}

/// The parts of a policy as they are added; see [`Policy::to`]. Errors are kept for
/// [`build`](Self::build).
#[derive(Clone, Debug)]
#[must_use]
pub struct PolicyBuilder {
    spec: PolicySpec,
    error: Option<PolicyError>,
}

impl PolicyBuilder {
    /// Sets any key by its name in policy files, to one text or to the items of a list.
    ///
    /// ```
    /// use ephport_core::{Policy, PortRange};
    ///
    /// let policy = Policy::to(PortRange::EPHEMERAL)
    ///     .with("mark", ["0x1/0xff"])
    ///     .with("destination-ports", ["80", "443"])
    ///     .build()?;
    /// # Ok::<(), ephport_core::PolicyError>(())
    /// ```
    pub fn with<T: AsRef<str>>(mut self, key: &str, items: impl IntoIterator<Item = T>) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        let input = Input::list(items.iter().map(AsRef::as_ref).collect());
        let result = match keys::find(key) {
            None => Err(PolicyError::UnknownKey { key: key.into() }),
            Some(key) => key
                .set(&mut self.spec, &input)
                .map_err(|InputError { error, .. }| PolicyError::Value { key: key.name, error }),
        };
        self.error = self.error.or(result.err());
        self
    }

    /// Names the policy.
    pub fn named(self, name: &str) -> Self {
        self.with("name", [name])
    }

    /// Matches these output interfaces: names and prefixes like `wg*`.
    pub fn out<T: AsRef<str>>(self, interfaces: impl IntoIterator<Item = T>) -> Self {
        self.with("out-interfaces", interfaces)
    }

    /// Matches every output interface except loopback.
    pub fn out_any(self) -> Self {
        self.with("out-interfaces", ["any"])
    }

    /// Matches these networks of the source address.
    pub fn sources<T: AsRef<str>>(self, networks: impl IntoIterator<Item = T>) -> Self {
        self.with("sources", networks)
    }

    /// Matches these networks of the destination address.
    pub fn destinations<T: AsRef<str>>(self, networks: impl IntoIterator<Item = T>) -> Self {
        self.with("destinations", networks)
    }

    /// Matches these protocols, like `tcp` or `icmp`.
    pub fn protocols<T: AsRef<str>>(self, protocols: impl IntoIterator<Item = T>) -> Self {
        self.with("protocols", protocols)
    }

    /// Sets the source address after translation.
    pub fn address(mut self, address: Address) -> Self {
        self.spec.address = address;
        self
    }

    /// Drops packets in scope that would be sent with another source port.
    pub fn enforce(mut self) -> Self {
        self.spec.enforce = true;
        self
    }

    /// The policy.
    ///
    /// # Errors
    /// [`PolicyError`] for the first value that cannot be read, or when the parts do not fit together.
    pub fn build(self) -> Result<Policy, PolicyError> {
        match self.error {
            Some(error) => Err(error),
            None => Policy::new(self.spec),
        }
    }
}

#[cfg(test)]
mod tests;
