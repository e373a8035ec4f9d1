//! Whether a ruleset does what a policy means, also one that ephport did not write.
//!
//! The rules of a table are run on the opening packet of a connection, as the kernel would run them, and the
//! result is compared with the meaning of the policies. A table can be read from a kernel
//! ([`read`]), from the fake one ([`Kernel::table`](crate::Kernel::table)), or be a
//! plan's own.
//!
//! ```
//! use ephport_core::{Address, HostFacts, Policy, PortRange};
//! use ephport_nft::Plan;
//! use ephport_testkit::conformance::difference;
//!
//! let plan = |range: &str| {
//!     let range: PortRange = range.parse()?;
//!     let policy = Policy::to(range).out(["eth0"]).address(Address::Masquerade).build()?;
//!     Ok::<_, Box<dyn std::error::Error>>(Plan::new(&[policy], &HostFacts::default())?)
//! };
//! let (wanted, other) = (plan("49152-61000")?, plan("1024-2047")?);
//! let flow = "udp 10.0.0.7:20000 -> 203.0.113.9:53 oif eth0".parse()?;
//! assert_eq!(difference(&wanted.table, &wanted, &flow)?, None);
//! let found = difference(&other.table, &wanted, &flow)?.ok_or("the same")?;
//! assert!(found.to_string().contains("1024-2047"), "{found}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it expresses: base chains of the type `nat` and `filter` at the hook postrouting, verdicts, jumps, sets
//! and maps, comparisons of addresses, ports, protocols, interfaces and marks, connection tracking's state and
//! original tuple, `masquerade` and `snat`, `numgen` and `jhash`. Anything else is an error that names the rule.

use std::fmt;

use ephport_core::decision::{CtState, evaluate, permits};
use ephport_core::{Effect, Flow, Port, PortRange};
use ephport_nft::client::Transport;
use ephport_nft::interpret::{Packet, combine, remapped, run};
use ephport_nft::plan::InterpretError;
use ephport_nft::table::Chain;
use ephport_nft::uapi::NF_INET_POST_ROUTING;
use ephport_nft::{Client, Error, Plan, TableState};
use thiserror::Error as ThisError;

/// A connection with which the rules do something else than the policies mean.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The rules translate it otherwise.
    Translation {
        /// The connection.
        flow: Flow,
        /// What the policies mean.
        expected: Effect,
        /// What the rules do.
        found: Effect,
    },
    /// The rules drop a packet that may be sent, or send one that must be dropped.
    Enforcement {
        /// The connection.
        flow: Flow,
        /// The source port of the packet after translation.
        port: Port,
        /// Whether the policies permit it.
        is_permitted: bool,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Translation { flow, expected, found } => {
                write!(f, "{flow}: expected {}, found {}", Shown(expected), Shown(found))
            }
            Self::Enforcement { flow, port, is_permitted: true } => {
                write!(f, "{flow} by port {port}: dropped, expected to be sent")
            }
            Self::Enforcement { flow, port, is_permitted: false } => {
                write!(f, "{flow} by port {port}: sent, expected to be dropped")
            }
        }
    }
}

/// An effect in words.
struct Shown<'a>(&'a Effect);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Effect::Untouched => f.write_str("no translation"),
            Effect::Dropped => f.write_str("a drop"),
            Effect::Translated(to) => {
                write!(f, "ports {}, address {:?}, {:?}", to.ports, to.address, to.selection)
            }
        }
    }
}

/// The reason why a ruleset cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum ConformanceError {
    /// Several base chains translate: which one does, is not a matter of one table.
    #[error(
        "table {table} has {count} chains of the type nat at the hook postrouting; expected one at most"
    )]
    SeveralChains {
        /// The table.
        table: String,
        /// Their count.
        count: usize,
    },
    /// A rule with a meaning that is not expressed here.
    #[error("table {table}: {source}")]
    Rule {
        /// The table.
        table: String,
        /// The rule and its expression.
        source: InterpretError,
    },
}

/// What the rules of `table` do with the connection that opens with `flow`.
///
/// # Errors
/// [`ConformanceError`]
pub fn effect(table: &TableState, flow: &Flow) -> Result<Effect, ConformanceError> {
    let mut chains = base_chains(table, "nat");
    let Some(chain) = chains.next().filter(|_| !flow.is_expected()) else {
        return Ok(Effect::Untouched);
    };
    match chains.count() {
        0 => {}
        others => {
            let table = table.table.name.clone();
            return Err(ConformanceError::SeveralChains { table, count: others + 1 });
        }
    }
    run(table, &chain.name, &Packet::opening(flow))
        .and_then(|paths| combine(&paths, flow.source()))
        .and_then(|effect| remapped(table, flow, effect))
        .map_err(|source| error(table, source))
}

/// Whether the rules of `table` send the opening packet of a connection with the source port `port`, after
/// translation: no chain of the type `filter` drops it.
///
/// # Errors
/// [`ConformanceError::Rule`]
pub fn sends(table: &TableState, flow: &Flow, port: Port) -> Result<bool, ConformanceError> {
    for chain in base_chains(table, "filter") {
        let paths = run(table, &chain.name, &Packet::leaving(flow, port));
        let paths = paths.map_err(|source| error(table, source))?;
        if paths.iter().any(|path| path.is_dropped) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The difference between the rules of `table` and the policies of `plan` for one connection: its translation,
/// and which source ports are sent, at the ends of each range of either.
///
/// # Errors
/// [`ConformanceError`]
pub fn difference(
    table: &TableState,
    plan: &Plan,
    flow: &Flow,
) -> Result<Option<Difference>, ConformanceError> {
    let expected = evaluate(&plan.resolved, flow).effect();
    let found = effect(table, flow)?;
    let ends = |effect: &Effect| match effect {
        Effect::Translated(to) => to.ports.ranges().to_vec(),
        Effect::Untouched | Effect::Dropped => vec![PortRange::from(flow.source_port())],
    };
    let ranges = ends(&expected).into_iter().chain(ends(&found));
    let ports: Vec<_> = ranges.flat_map(|range| [range.first(), range.last()]).collect();
    if found != expected {
        return Ok(Some(Difference::Translation { flow: flow.clone(), expected, found }));
    }
    for port in ports {
        let is_permitted = permits(&plan.resolved, flow, CtState::first(flow), port);
        if sends(table, flow, port)? != is_permitted {
            return Ok(Some(Difference::Enforcement { flow: flow.clone(), port, is_permitted }));
        }
    }
    Ok(None)
}

/// The table of this family (an `NFPROTO_*`) and name, from a kernel.
///
/// # Errors
/// [`Error`] when the kernel cannot be read.
pub fn read(
    transport: impl Transport,
    family: u8,
    name: &str,
) -> Result<Option<TableState>, Error> {
    Ok(Client::with_transport(transport).read_table(family, name)?.0)
}

/// The base chains of this type at the hook postrouting.
fn base_chains<'a>(table: &'a TableState, kind: &'a str) -> impl Iterator<Item = &'a Chain> {
    table.chains.iter().filter(move |chain| {
        let hook = chain.hook.as_ref().map(|hook| hook.number);
        hook == Some(NF_INET_POST_ROUTING) && chain.chain_type.as_deref() == Some(kind)
    })
}

fn error(table: &TableState, source: InterpretError) -> ConformanceError {
    ConformanceError::Rule { table: table.table.name.clone(), source }
}

#[cfg(test)]
mod tests {
    use ephport_core::{HostFacts, Policy};
    use ephport_nft::nftables::expr::{Immediate, Verdict};

    use super::*;

    #[test]
    fn unexpressed_rulesets_are_errors_by_name() {
        let policy = Policy::to(PortRange::EPHEMERAL).out(["eth0"]).build().unwrap();
        let plan = Plan::new(&[policy], &HostFacts::default()).unwrap();
        let flow = "udp 10.0.0.7:20000 -> 203.0.113.9:53 oif eth0".parse().unwrap();
        let message = |change: fn(&mut TableState)| {
            let mut table = plan.table.clone();
            change(&mut table);
            difference(&table, &plan, &flow).unwrap_err().to_string()
        };
        let twice = message(|table| {
            let second = Chain { name: "second".into(), ..table.chains[0].clone() };
            table.chains.push(second);
        });
        let expected = "table ephport has 2 chains of the type nat at the hook postrouting; \
                        expected one at most";
        assert_eq!(twice, expected);
        let lost = message(|table| {
            let jump = Immediate::verdict(Verdict::Jump("nowhere".into()));
            table.rules[0].exprs = vec![jump.into()].into();
        });
        let expected = "table ephport: chain nowhere does not exist or is part of a loop";
        assert_eq!(lost, expected);
    }
}
