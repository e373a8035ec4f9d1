//! Paths of a packet through the rules, and errors of the interpreter.

use ephport_core::ConnectionTimeouts;
use thiserror::Error;

use crate::syntax::NatTarget;

/// A path of a packet through a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The translation; `None` if the packet is not translated.
    pub target: Option<NatTarget>,
    /// Whether the packet is dropped.
    pub is_dropped: bool,
    /// The bytes that are written to the packet, if some are.
    pub written: Option<Written>,
    /// The rules that decide, each by its chain and its index in that chain, from 0.
    pub trail: Vec<(String, usize)>,
    /// The number on which the path depends, if it depends on one.
    pub draw: Option<Draw>,
    /// The timeouts that are assigned to the connection.
    pub timeouts: ConnectionTimeouts,
}

/// Two bytes that are written to a packet: a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The header that the offset begins at, an `NFT_PAYLOAD_*`.
    pub base: u32,
    /// The offset in bytes.
    pub offset: u32,
    /// The bytes.
    pub value: [u8; 2],
}

/// A number that the kernel generates for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The generator.
    pub by: By,
    /// The count of numbers with this path.
    pub numbers: u32,
    /// The count of all numbers: each is below it.
    pub below: u32,
}

/// A generator of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A sequence (`numgen inc`).
    RoundRobin,
    /// A random number (`numgen random`).
    Weighted,
    /// A hash (`jhash`).
    Hash {
        /// The bytes.
        of: Vec<u8>,
        /// The seed.
        seed: u32,
    },
}

/// Error of the interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InterpretError {
    /// An expression that the interpreter cannot run.
    #[error("rule {index} of chain {chain} has an expression that cannot be interpreted: {what}")]
    Expression {
        /// The chain.
        chain: String,
        /// The index of the rule in the chain, from 0.
        index: usize,
        /// The expression, as bytecode.
        what: String,
    },
    /// A chain that does not exist, or a loop of chains.
    #[error("chain {chain} does not exist or is part of a loop")]
    Chain {
        /// The name.
        chain: String,
    },
    /// Paths that differ in more than the ports, or timeouts of a connection that is not translated.
    #[error(
        "the rules do different things to the same connection, depending on a generated number"
    )]
    Undecided,
    /// Ranges whose shares are not those of the distribution, or a distribution that is not one of
    /// [`Distribution`](ephport_core::Distribution).
    #[error(
        "the rules do not distribute connections over the ranges round-robin, weighted by size or by a \
         hash of the source"
    )]
    Uneven,
}
