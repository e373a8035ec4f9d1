//! Plans: policies bound to one host, the table that implements them, and how to get there.
//!
//! [`Plan::new`] is pure: it needs no kernel and no privilege. [`Client`](crate::Client) applies a
//! plan and compares it with the kernel.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PolicySpec, Target};
//! use ephport_nft::Plan;
//!
//! let host = HostFacts::with_uplinks(["eth0".parse()?]);
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let plan = Plan::new(&[policy], &host)?;
//! assert!(plan.table.to_nft().to_string().contains("masquerade to :49152-61000"));
//! let explanation = plan.explain(&"tcp 10.0.0.7:20000 -> 203.0.113.9:443 oif eth0".parse()?)?;
//! assert!(explanation.agrees);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(not(feature = "internals"))]
pub(crate) mod diff;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod diff;
pub mod drift;
mod explain;
#[cfg(not(feature = "internals"))]
pub(crate) mod operation;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod operation;
mod sequence;
#[cfg(feature = "serde")]
mod serialized;
#[cfg(not(feature = "internals"))]
pub(crate) mod transaction;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod transaction;

use ephport_core::policy::{host_warnings, warning};
use ephport_core::{
    HostFacts, Policy, PolicyName, ResolveError, ResolvedPolicy, Warning, resolve_all,
};
use thiserror::Error;

pub use crate::interpret::InterpretError;
pub use explain::{Enforcement, Explanation, Step};
pub use operation::Operation;
pub use transaction::Batch;

use crate::compile::{CompileError, compile};
use crate::table::{TableId, TableState};

/// Policies bound to one host, and the table that implements them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The policies with the interfaces and port ranges of the host, in order of precedence.
    pub resolved: Vec<ResolvedPolicy>,
    /// The table that [`Client::apply`](crate::Client::apply) installs.
    pub table: TableState,
    /// The parts of the policies that have no effect, or none on this host now.
    pub warnings: Vec<Warning>,
    /// The host.
    pub facts: HostFacts,
}

impl Plan {
    /// Bind `policies`, in order of precedence, to the host that `facts` describes.
    ///
    /// # Errors
    /// [`PlanError::Resolve`] when a policy refers to something that the host does not have, and
    /// [`PlanError::Compile`] when two policies have the same name.
    pub fn new<'a>(
        policies: impl IntoIterator<Item = &'a Policy>,
        facts: &HostFacts,
    ) -> Result<Self, PlanError> {
        let policies: Vec<_> = policies.into_iter().cloned().collect();
        let resolved = resolve_all(&policies, facts)
            .map_err(|(policy, source)| PlanError::Resolve { policy, source })?;
        let table = compile(&resolved)?;
        let mut warnings = warning::warnings(&policies);
        warnings.extend(host_warnings::host_warnings(&policies, facts));
        Ok(Self { resolved, table, warnings, facts: facts.clone() })
    }

    /// The same plan in another table than the default one, with its own name, owner and priority: for
    /// [`Client::for_table`](crate::Client::for_table) with the same `id`.
    ///
    /// # Errors
    /// [`PlanError::Compile`] when a rule or set is too long for netlink.
    pub fn in_table(self, id: &TableId) -> Result<Self, PlanError> {
        let table = self.table.in_table(id).map_err(CompileError::from)?;
        Ok(Self { table, ..self })
    }
}

impl Plan {
    /// The operations that add the plan's table to a ruleset without it, for a batch of the caller's own. Those
    /// of [`Batch::replace`] also replace a table of this name.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        Batch::add(&self.table).into_operations()
    }
}

impl AsRef<TableState> for Plan {
    fn as_ref(&self) -> &TableState {
        &self.table
    }
}

/// The reason why policies make no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A policy refers to something that the host does not have.
    #[error("policy `{policy}`: {source}")]
    Resolve {
        /// The policy.
        policy: PolicyName,
        /// The missing part.
        source: ResolveError,
    },
    /// The policies have no program.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use ephport_core::PortRange;

    use super::*;

    fn policy(name: &str, interfaces: &str, protocols: &str) -> Policy {
        let range: PortRange = "49152-61000".parse().unwrap();
        let policy = Policy::to(range).named(name).with("out-interfaces", interfaces.split(','));
        policy.protocols([protocols]).build().unwrap()
    }

    fn host(udplite: Option<bool>) -> HostFacts {
        let mut host = HostFacts::default();
        (host.interfaces, host.udplite) = (vec!["eth0".parse().unwrap()], udplite);
        host
    }

    #[test]
    fn warnings_name_policy_and_missing_part() {
        let policies = [policy("a", "eth0,wg*", "tcp"), policy("b", "any", "udplite")];
        let plan = Plan::new(&policies, &host(Some(false))).unwrap();
        let warnings: Vec<_> = plan.warnings.iter().map(ToString::to_string).collect();
        let expected = [
            "policy a: no interface matches `wg*` now; \
             the policy applies to it as soon as one does",
            "policy b: this kernel has no UDP-Lite: NAT changes the address of such packets \
             but not their port; with `enforce` they are dropped",
        ];
        assert_eq!(warnings, expected);
        let kinds = plan.warnings.iter().map(|w| (w.name(), w.policy().as_str()));
        assert_eq!(kinds.collect::<Vec<_>>(), [("no-interface", "a"), ("no-udplite", "b")]);
    }

    #[test]
    fn unknown_udplite_support_is_no_warning() {
        let plan = Plan::new(&[policy("b", "any", "udplite")], &host(None)).unwrap();
        assert_eq!(plan.warnings, []);
    }

    #[test]
    fn errors_name_the_policy_once() {
        let unresolved = Plan::new(&[policy("a", "uplinks", "tcp")], &host(None)).unwrap_err();
        let source = unresolved.source().unwrap().to_string();
        assert_eq!(unresolved.to_string(), format!("policy `a`: {source}"));
        let twice = [policy("a", "any", "tcp"), policy("a", "any", "udp")];
        let error = Plan::new(&twice, &host(None)).unwrap_err();
        assert!(matches!(error, PlanError::Compile(CompileError::SameName { .. })), "{error}");
    }
}
