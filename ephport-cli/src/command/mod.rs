//! The commands, one file each.

pub(crate) mod apply;
pub(crate) mod demo;
pub(crate) mod remove;
pub(crate) mod show;
pub(crate) mod status;

use std::io::{self, Write};

use ephport_core::{Exits, Policy, PolicyError, ResolveError, Resolved};
use ephport_nft::client::NetlinkError;
use ephport_nft::wire::WireError;
use ephport_nft::{Ruleset, compile, host};
use thiserror::Error;

use crate::demo::DemoError;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("cannot read the interfaces and routes: {0}")]
    Host(#[source] NetlinkError),
    #[error(transparent)]
    Kernel(#[from] ephport_nft::Error),
    #[error("the policy cannot be encoded: {0}")]
    Encode(#[from] WireError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl Failure {
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// What a policy means on this host.
pub(crate) struct Request {
    pub(crate) policy: Resolved,
    pub(crate) ruleset: Ruleset,
}

impl Request {
    /// Binds the policy to this host, and warns of interfaces that do not exist now.
    pub(crate) fn new(policy: &Policy, err: &mut dyn Write) -> Result<Self, Failure> {
        let facts = host::facts().map_err(Failure::Host)?;
        let policy = policy.resolve(&facts)?;
        if let Exits::Matching(patterns) = &policy.egress {
            for pattern in patterns.iter().filter(|pattern| !facts.knows(pattern)) {
                writeln!(
                    err,
                    "warning: no interface matches `{pattern}` now; \
                     the policy will hold for it as soon as there is one"
                )?;
            }
        }
        let ruleset = compile(std::slice::from_ref(&policy))?;
        Ok(Self { policy, ruleset })
    }
}
