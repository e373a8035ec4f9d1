//! From a policy as it is written to what it means on one host.

use thiserror::Error;

use crate::host::HostFacts;
use crate::interface::{InterfaceName, InterfacePattern};
use crate::policy::{Choice, PickUp, Policy, PolicyName, Target};
use crate::port::PortRange;
use crate::port_set::PortSet;
use crate::protocol::Protocols;
use crate::scope::{Egress, Families};

/// A policy in which nothing depends on the host any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the policy is called.
    pub name: PolicyName,
    /// The interfaces by which a connection in its scope leaves.
    pub egress: Exits,
    /// The address families.
    pub families: Families,
    /// The transport protocols; not empty.
    pub protocols: Protocols,
    /// The source ports that are moved; not empty.
    pub moved: PortSet,
    /// The ports they are moved to.
    pub allowed: PortRange,
    /// How the kernel picks among them.
    pub choice: Choice,
    /// From which packets of a TCP connection the policy may start.
    pub pick_up: PickUp,
}

/// The interfaces by which a connection leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exits {
    /// Every interface but loopback.
    Any,
    /// Those that one of these patterns covers; not empty.
    Matching(Vec<InterfacePattern>),
}

impl Exits {
    /// Whether a connection that leaves by `name` is in scope.
    #[must_use]
    pub fn contains(&self, name: &InterfaceName) -> bool {
        match self {
            Self::Any => !name.is_loopback(),
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }
}

impl Policy {
    /// What the policy means on a host with these facts.
    ///
    /// # Errors
    /// [`ResolveError::NoUplink`] when it speaks of the uplinks and the host has none.
    pub fn resolve(&self, host: &HostFacts) -> Result<Resolved, ResolveError> {
        let Target::Range(allowed) = self.target;
        Ok(Resolved {
            name: self.name.clone(),
            egress: exits(&self.scope.egress, host)?,
            families: self.scope.families,
            protocols: self.scope.protocols,
            moved: self.source_ports.clone(),
            allowed,
            choice: self.choice,
            pick_up: self.pick_up,
        })
    }
}

fn exits(egress: &Egress, host: &HostFacts) -> Result<Exits, ResolveError> {
    match egress {
        Egress::Any => Ok(Exits::Any),
        Egress::Interfaces(patterns) => Ok(Exits::Matching(patterns.clone())),
        Egress::Uplinks if host.uplinks.is_empty() => Err(ResolveError::NoUplink),
        Egress::Uplinks => {
            Ok(Exits::Matching(host.uplinks.iter().cloned().map(InterfacePattern::Name).collect()))
        }
    }
}

/// Why a policy means nothing on a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No interface holds a default route.
    #[error(
        "no uplink found: no interface holds a default route; \
         name the interfaces with `-o eth0`, or take all of them with `-o any`"
    )]
    NoUplink,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicySpec;

    fn policy() -> Policy {
        Policy::new(PolicySpec::to(Target::Range("49152-61000".parse().unwrap()))).unwrap()
    }

    #[test]
    fn uplinks_are_those_of_the_host() {
        let eth0: InterfaceName = "eth0".parse().unwrap();
        let host = HostFacts { uplinks: vec![eth0.clone()], interfaces: vec![eth0.clone()] };
        let resolved = policy().resolve(&host).unwrap();
        assert_eq!(resolved.egress, Exits::Matching(vec![InterfacePattern::Name(eth0)]));
    }

    #[test]
    fn no_uplink_says_what_to_do() {
        let error = policy().resolve(&HostFacts::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no uplink found: no interface holds a default route; \
             name the interfaces with `-o eth0`, or take all of them with `-o any`"
        );
    }
}
