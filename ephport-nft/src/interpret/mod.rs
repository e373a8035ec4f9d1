//! Runs a ruleset's program on one connection, as the kernel's virtual machine would: a second
//! opinion on what the program means, for property tests and for explanations.
//!
//! What the kernel draws (`numgen`) or hashes is not known here, so a program can have several
//! outcomes: all that are possible.
//!
//! ```
//! use ephport_core::{Flow, HostFacts, Policy, PolicySpec, Protocol, Target};
//! use ephport_nft::interpret::{Effect, effect};
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let host = HostFacts { uplinks: vec!["eth0".parse()?], ..HostFacts::default() };
//! let ruleset = ephport_nft::compile(&[policy.resolve(&host)?])?;
//! let (from, to) = ("172.17.0.2:40000".parse()?, "203.0.113.9:443".parse()?);
//! let flow = Flow::new(Protocol::Udp, from, to, "eth0".parse()?)?;
//! let Effect::Moved { ports, .. } = effect(&ruleset, &flow)? else { panic!("not moved") };
//! assert_eq!(ports.to_string(), "49152-61000");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod machine;
mod packet;
mod registers;
mod sets;

use ephport_core::{Address, Decision, Flow, Port, PortRange, PortSet};
use thiserror::Error;

use crate::compile::{ENFORCE, POSTROUTING};
use crate::ruleset::Ruleset;
use machine::{End, Machine};
use packet::Packet;

/// How the program ends for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What NAT was told, if it was.
    pub translation: Option<Translation>,
    /// The rules that sent it there, each by its chain and its place in it, from 0.
    pub trail: Vec<(String, usize)>,
}

/// What NAT was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The range to pick a port from; none is any port.
    pub ports: Option<PortRange>,
    /// What becomes of the source address.
    pub address: Address,
    /// Whether a port that fits is given up nevertheless.
    pub shuffles: bool,
}

/// What a program does with a connection, all outcomes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It leaves with one of `ports`.
    Moved {
        /// The ports that it can get.
        ports: PortSet,
        /// Its own port, where it surely gets that if it is free.
        kept: Option<Port>,
        /// What becomes of its source address.
        address: Address,
    },
    /// NAT is told nothing.
    Untouched,
}

impl Effect {
    /// Whether this is what the policies mean: `decision` is that of the first that moves the
    /// connection.
    #[must_use]
    pub fn agrees_with(&self, decision: Option<&Decision>) -> bool {
        match (self, decision) {
            (Self::Untouched, None | Some(Decision::Untouched(_))) => true,
            (
                Self::Moved { ports, kept, address },
                Some(Decision::Moved { ports: meant, kept: meant_kept, address: meant_address }),
            ) => (ports, kept, address) == (meant, meant_kept, meant_address),
            _ => false,
        }
    }
}

/// Why a program has no meaning here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InterpretError {
    /// An expression that we cannot run.
    #[error("rule {index} of chain {chain} has an expression that cannot be interpreted: {what}")]
    Expression {
        /// The chain.
        chain: String,
        /// The rule's place in it, from 0.
        index: usize,
        /// The expression, in nft's bytecode.
        what: String,
    },
    /// A chain that does not exist, or one that is entered again and again.
    #[error("chain {chain} does not exist or never ends")]
    Chain {
        /// Its name.
        chain: String,
    },
    /// The outcomes differ in more than the port.
    #[error("the program does now this, now that with the connection")]
    Undecided,
}

/// How the translating chain can end for a connection that opens with `flow`.
pub fn outcomes(ruleset: &Ruleset, flow: &Flow) -> Result<Vec<Outcome>, InterpretError> {
    let machine = Machine::new(ruleset, Packet::opening(flow));
    let ends = machine.run(POSTROUTING)?;
    let outcome = |(end, trail)| match end {
        End::Translated(translation) => Outcome { translation: Some(translation), trail },
        End::Accepted | End::Dropped | End::Left => Outcome { translation: None, trail },
    };
    Ok(ends.into_iter().map(outcome).collect())
}

/// What the translating chain does with a connection that opens with `flow`.
pub fn effect(ruleset: &Ruleset, flow: &Flow) -> Result<Effect, InterpretError> {
    let outcomes = outcomes(ruleset, flow)?;
    let translations: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.translation).collect();
    let Some(first) = translations.first().copied() else { return Ok(Effect::Untouched) };
    let is_same = |other: &Translation| other.address == first.address;
    if translations.len() < outcomes.len() || !translations.iter().all(is_same) {
        return Err(InterpretError::Undecided);
    }
    let range = |translation: &Translation| translation.ports.unwrap_or(PortRange::EPHEMERAL);
    let port = flow.source_port();
    let keeps =
        |translation: &Translation| !translation.shuffles && range(translation).contains(port);
    let kept = (translations.len() == 1 && keeps(&first)).then_some(port);
    let ports = translations.iter().map(range).collect();
    Ok(Effect::Moved { ports, kept, address: first.address })
}

/// Whether the enforcing chain, if there is one, lets a connection that opens with `flow` out by the
/// port `leaving`.
pub fn lets_out(ruleset: &Ruleset, flow: &Flow, leaving: Port) -> Result<bool, InterpretError> {
    if !ruleset.chains.iter().any(|chain| chain.name == ENFORCE) {
        return Ok(true);
    }
    let machine = Machine::new(ruleset, Packet::leaving(flow, leaving));
    Ok(machine.run(ENFORCE)?.iter().all(|(end, _)| *end != End::Dropped))
}
