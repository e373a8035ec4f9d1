//! Runs a ruleset's program on one connection, as the kernel's virtual machine would: a second
//! opinion on what the program means, for property tests and for explanations.
//!
//! What the kernel draws (`numgen`) or hashes is not known here, so a program can have several
//! paths: all that are possible.
//!
//! ```
//! use ephport_core::{Effect, Flow, HostFacts, Policy, PolicySpec, Protocol, Target};
//! use ephport_nft::interpret::effect;
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let host = HostFacts { uplinks: vec!["eth0".parse()?], ..HostFacts::default() };
//! let ruleset = ephport_nft::compile(&[policy.resolve(&host)?])?;
//! let (from, to) = ("172.17.0.2:40000".parse()?, "203.0.113.9:443".parse()?);
//! let flow = Flow::new(Protocol::Udp, from, to, "eth0".parse()?)?;
//! let Effect::Translated(found) = effect(&ruleset, &flow)? else { panic!("untouched") };
//! assert_eq!(found.ports.to_string(), "49152-61000");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod machine;
mod nat;
mod packet;
mod registers;
mod sets;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ephport_core::decision::HASH_SEED;
use ephport_core::{
    Address, Distribution, Effect, Flow, NatFlags, Port, PortRange, PortSelection, PortSet,
    Translation,
};
use thiserror::Error;

use crate::table::TableState;
use crate::table::layout::{ENFORCE, POSTROUTING};
use machine::{End, Ended, Machine};
pub use packet::{CtState, Fact, Facts, Packet};

/// How the program ends for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The arguments that NAT gets, if it gets any.
    pub target: Option<NatTarget>,
    /// Whether it is dropped instead.
    pub is_dropped: bool,
    /// The rules that sent it there, each by its chain and its place in it, from 0.
    pub trail: Vec<(String, usize)>,
    /// The number that sent it there rather than elsewhere, if one did.
    pub draw: Option<Draw>,
}

/// A number that the kernel draws for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// How it is drawn.
    pub by: By,
    /// How many of the numbers have the same outcome.
    pub numbers: u32,
    /// How many there are in all.
    pub below: u32,
}

/// How a number is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// One after another.
    RoundRobin,
    /// At random.
    Weighted,
    /// By a hash.
    Hash {
        /// Of these bytes.
        of: Vec<u8>,
        /// What it begins with.
        seed: u32,
    },
}

/// The arguments of a `masq` or `nat` expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatTarget {
    /// The range to select a port from; `None` is any port.
    pub ports: Option<PortRange>,
    /// The source address after translation.
    pub address: Address,
    /// The flags.
    pub flags: NatFlags,
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
    /// The paths differ in more than the port.
    #[error("the program does now this, now that with the connection")]
    Undecided,
    /// The ranges have not their shares, or are picked by something else than a policy's
    /// [`Distribution`].
    #[error(
        "the program does not spread connections over its ranges by their size, \
         in turn, at random or by their source"
    )]
    Uneven,
}

/// How the translating chain can end for a connection that opens with `flow`.
pub fn paths(ruleset: &TableState, flow: &Flow) -> Result<Vec<Path>, InterpretError> {
    run(ruleset, POSTROUTING, &Packet::opening(flow))
}

/// What the translating chain does with a connection that opens with `flow`.
pub fn effect(ruleset: &TableState, flow: &Flow) -> Result<Effect, InterpretError> {
    combine(&paths(ruleset, flow)?, flow.source())
}

/// Whether the enforcing chain, if there is one, lets a connection that opens with `flow` out by the
/// port `leaving`.
pub fn permits(ruleset: &TableState, flow: &Flow, leaving: Port) -> Result<bool, InterpretError> {
    permits_packet(ruleset, &Packet::leaving(flow, leaving))
}

/// Whether the enforcing chain, if there is one, lets this packet out.
pub fn permits_packet(ruleset: &TableState, packet: &Packet<'_>) -> Result<bool, InterpretError> {
    if !ruleset.chains.iter().any(|chain| chain.name == ENFORCE) {
        return Ok(true);
    }
    Ok(run(ruleset, ENFORCE, packet)?.iter().all(|outcome| !outcome.is_dropped))
}

/// How a base chain can end for a packet.
pub fn run(
    ruleset: &TableState,
    chain: &str,
    packet: &dyn Facts,
) -> Result<Vec<Path>, InterpretError> {
    let ends = Machine::new(ruleset, packet).run(chain)?;
    Ok(ends.into_iter().map(Path::from).collect())
}

impl From<Ended> for Path {
    fn from(Ended { end, trail, draw }: Ended) -> Self {
        let target = match end {
            End::Translated(target) => Some(target),
            End::Accepted | End::Dropped | End::Left => None,
        };
        Self { target, is_dropped: end == End::Dropped, trail, draw }
    }
}

/// The effect of these paths together, on a connection from `source`.
pub fn combine(paths: &[Path], source: SocketAddr) -> Result<Effect, InterpretError> {
    let targets: Vec<_> = paths.iter().filter_map(|path| path.target).collect();
    let Some(NatTarget { address, flags, .. }) = targets.first().copied() else {
        return match paths.iter().filter(|path| path.is_dropped).count() {
            0 => Ok(Effect::Untouched),
            all if all == paths.len() => Ok(Effect::Dropped),
            _ => Err(InterpretError::Undecided),
        };
    };
    let is_same = |other: &NatTarget| (other.address, other.flags) == (address, flags);
    if targets.len() < paths.len() || !targets.iter().all(is_same) {
        return Err(InterpretError::Undecided);
    }
    let port = Port::new(source.port()).unwrap_or(Port::MIN);
    let ports: PortSet =
        targets.iter().map(|target| target.ports.unwrap_or(any_like(port))).collect();
    let distribution = distribution(paths, source)?;
    let is_kept = flags.keep_permitted_ports() && distribution.is_none() && ports.contains(port);
    let selection = PortSelection { flags, distribution };
    Ok(Effect::Translated(Translation { ports, keep: is_kept.then_some(port), address, selection }))
}

/// Where the kernel looks for a port when it is told none (`nf_nat_l4proto_unique_tuple`).
fn any_like(port: Port) -> PortRange {
    let (first, last) = match port.get() {
        ..512 => (1, 511),
        512..1024 => (600, 1023),
        _ => return PortRange::EPHEMERAL,
    };
    let range = Port::new(first).and_then(|first| PortRange::new(first, Port::new(last)?));
    range.unwrap_or(PortRange::EPHEMERAL)
}

/// How paths that are translations are spread over their ranges.
fn distribution(
    paths: &[Path],
    source: SocketAddr,
) -> Result<Option<Distribution>, InterpretError> {
    if let [Path { draw: None, .. }] = paths {
        return Ok(None);
    }
    let Some(Path { draw: Some(Draw { by, below, .. }), .. }) = paths.first() else {
        return Err(InterpretError::Uneven);
    };
    let distribution = match by {
        By::RoundRobin => Distribution::RoundRobin,
        By::Weighted => Distribution::Weighted,
        By::Hash { of, seed: HASH_SEED } if *of == hashed(source) => Distribution::Hash,
        By::Hash { .. } => return Err(InterpretError::Uneven),
    };
    let mut numbers: BTreeMap<PortRange, u64> = BTreeMap::new();
    for Path { target, draw, .. } in paths {
        let draw = draw.as_ref().filter(|draw| (&draw.by, draw.below) == (by, *below));
        match (draw, target.and_then(|target| target.ports)) {
            (Some(draw), Some(range)) => {
                *numbers.entry(range).or_default() += u64::from(draw.numbers);
            }
            _ => return Err(InterpretError::Uneven),
        }
    }
    let all: u64 = numbers.keys().map(|range| u64::from(range.count())).sum();
    let is_fair = |(range, numbers): (&PortRange, &u64)| {
        numbers * all == u64::from(range.count()) * u64::from(*below)
    };
    if numbers.iter().all(is_fair) { Ok(Some(distribution)) } else { Err(InterpretError::Uneven) }
}

/// The bytes that tell sources apart: the address, and the port in a register of its own.
fn hashed(source: SocketAddr) -> Vec<u8> {
    let mut bytes = match source.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.extend(source.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::expr::{
        Data, Expr, Immediate, Lookup, Masq, Nat, Numgen, Opaque, Register, Verdict,
    };
    use crate::nftables::{Chain, Rule, Table};
    use crate::table::layout::{FAMILY, TABLE};
    use crate::table::{Set, SetName};
    use crate::uapi::{NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET};

    /// A table of these rules, each with its chain, and these sets.
    fn table(rules: &[(&str, Vec<Expr>)], sets: Vec<Set>) -> TableState {
        let mut chains: Vec<_> = rules.iter().map(|(chain, _)| *chain).collect();
        chains.dedup();
        TableState {
            chains: chains.iter().map(|name| Chain::regular(FAMILY, TABLE, name)).collect(),
            sets,
            rules: rules
                .iter()
                .map(|(chain, exprs)| Rule::new(FAMILY, TABLE, chain, exprs.clone()))
                .collect(),
            ..TableState::empty(Table::new(FAMILY, TABLE))
        }
    }

    fn goto(chain: &str) -> Verdict {
        Verdict::Goto(chain.into())
    }

    fn port(port: u16) -> Expr {
        Immediate { dreg: Register::R1, data: Data::value(&port.to_be_bytes()) }.into()
    }

    fn masquerade() -> Expr {
        let flags = Some(NF_NAT_RANGE_PROTO_SPECIFIED);
        Masq { flags, proto_min: Some(Register::R1), proto_max: None }.into()
    }

    /// Goes to one of two chains by a number. Each takes another port, and ends so.
    fn spread(number: Numgen, ends: [Expr; 2]) -> TableState {
        let map = Set::number_verdicts(SetName::Named("m"), &[goto("a"), goto("b")]);
        let lookup = Lookup::value(&map.spec.name, Register::VERDICT).into();
        let [a, b] = ends;
        let chains = [
            (POSTROUTING, vec![number.into(), lookup]),
            ("a", vec![port(1024), a]),
            ("b", vec![port(2048), b]),
        ];
        table(&chains, vec![map])
    }

    fn found(ruleset: &TableState) -> Result<Effect, InterpretError> {
        effect(ruleset, &"udp 192.0.2.1:40000 -> 198.51.100.1:53 oif eth0".parse().unwrap())
    }

    #[test]
    fn every_message_says_what_the_program_does() {
        let jump = Immediate::verdict(Verdict::Jump(POSTROUTING.into())).into();
        let opaque = Opaque::new("quota".into(), None).into();
        let keep = Nat { proto_min: Some(Register::R1), ..Nat::source(NFPROTO_INET) }.into();
        let cases = [
            (
                table(&[(POSTROUTING, vec![Immediate::verdict(goto("gone")).into()])], Vec::new()),
                "chain gone does not exist or never ends",
            ),
            (
                table(&[(POSTROUTING, vec![jump])], Vec::new()),
                "chain postrouting does not exist or never ends",
            ),
            (
                table(&[(POSTROUTING, vec![port(1), opaque])], Vec::new()),
                "rule 0 of chain postrouting has an expression that cannot be interpreted: \
                 [ quota ]",
            ),
            (
                spread(Numgen::incremental(2), [masquerade(), keep]),
                "the program does now this, now that with the connection",
            ),
            (
                spread(Numgen::incremental(3), [masquerade(), masquerade()]),
                "the program does now this, now that with the connection",
            ),
        ];
        for (ruleset, message) in cases {
            assert_eq!(found(&ruleset).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn each_range_has_its_share_of_the_numbers() {
        let even = spread(Numgen::incremental(2), [masquerade(), masquerade()]);
        let Effect::Translated(even_effect) = found(&even).unwrap() else { panic!("untouched") };
        assert_eq!(even_effect.selection.distribution, Some(Distribution::RoundRobin));
        let mut uneven = even.clone();
        // A third number for the first range.
        let more = Numgen::incremental(3).into();
        uneven.rules[0].exprs[0] = more;
        let first = uneven.sets[0].elements[0].data.clone();
        let third = crate::nftables::Element::new(2u32.to_ne_bytes().into(), first);
        uneven.sets[0].elements.push(third);
        assert_eq!(
            found(&uneven).unwrap_err().to_string(),
            "the program does not spread connections over its ranges by their size, \
             in turn, at random or by their source"
        );
    }

    #[test]
    fn what_the_kernel_refuses_or_ignores_is_no_program() {
        let unread = Masq { flags: None, proto_min: Some(Register::R1), proto_max: None }.into();
        let empty = table(&[(POSTROUTING, vec![masquerade()])], Vec::new());
        let ignored = table(&[(POSTROUTING, vec![port(1024), unread])], Vec::new());
        for ruleset in [empty, ignored] {
            assert!(matches!(found(&ruleset), Err(InterpretError::Expression { index: 0, .. })));
        }
    }
}
