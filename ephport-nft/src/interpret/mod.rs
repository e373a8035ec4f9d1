//! Interpreter: runs the rules of a table on one packet, as the kernel's virtual machine does. Property
//! tests and explanations compare the result with what the policies mean.
//!
//! The results of `numgen` and `hash` are not known before the packet is sent, so a packet can have several
//! paths: all that are possible.
//!
//! ```
//! use ephport_core::{Flow, HostFacts, Policy, PolicySpec, Protocol, Target};
//! use ephport_nft::Plan;
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let host = HostFacts::with_uplinks(["eth0".parse()?]);
//! let plan = Plan::new(&[policy], &host)?;
//! let (from, to) = ("172.17.0.2:40000".parse()?, "203.0.113.9:443".parse()?);
//! let flow = Flow::new(Protocol::Udp, from, to, "eth0".parse()?)?;
//! assert!(plan.explain(&flow)?.agrees, "the program does what the policy means");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod effect;
mod machine;
mod packet;
mod path;
mod registers;
mod remap;
mod sets;

use ephport_core::{Effect, Flow, Port};

pub use effect::combine;
pub use packet::{CtState, Fact, Facts, OPEN_ID, Packet};
pub use path::{By, Draw, InterpretError, Path, Written};
pub use remap::{received_port, remapped, sent_port};

use crate::table::TableState;
use crate::table::layout::{ENFORCE, POSTROUTING};
use machine::Machine;

/// The paths of a connection that opens with `flow` through the chain that translates; none if NAT binds it
/// before any rule.
pub fn paths(table: &TableState, flow: &Flow) -> Result<Vec<Path>, InterpretError> {
    if flow.is_expected() {
        return Ok(Vec::new());
    }
    run(table, POSTROUTING, &Packet::opening(flow))
}

/// The effect of the chain that translates, on a connection that opens with `flow`.
pub fn effect(table: &TableState, flow: &Flow) -> Result<Effect, InterpretError> {
    remapped(table, flow, combine(&paths(table, flow)?, flow.source())?)
}

/// Whether a connection that opens with `flow` may be sent with the source port `sent`: the chain that
/// enforces, if there is one, does not drop it.
pub fn permits(table: &TableState, flow: &Flow, sent: Port) -> Result<bool, InterpretError> {
    permits_packet(table, &Packet::leaving(flow, sent))
}

/// Whether the chain that enforces, if there is one, does not drop this packet.
pub fn permits_packet(table: &TableState, packet: &Packet<'_>) -> Result<bool, InterpretError> {
    if !table.chains.iter().any(|chain| chain.name == ENFORCE) {
        return Ok(true);
    }
    Ok(run(table, ENFORCE, packet)?.iter().all(|path| !path.is_dropped))
}

/// The paths of a packet through a base chain.
pub fn run(
    table: &TableState,
    chain: &str,
    packet: &dyn Facts,
) -> Result<Vec<Path>, InterpretError> {
    Machine::new(table, packet).run(chain)
}

#[cfg(test)]
mod tests {
    use ephport_core::Distribution;

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

    /// Rules that go to one of two chains by a number. Each chain has another port, and ends so.
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
    fn errors_name_the_cause() {
        let jump = Immediate::verdict(Verdict::Jump(POSTROUTING.into())).into();
        let opaque = Opaque::new("quota".into(), None).into();
        let keep = Nat { proto_min: Some(Register::R1), ..Nat::source(NFPROTO_INET) }.into();
        let cases = [
            (
                table(&[(POSTROUTING, vec![Immediate::verdict(goto("gone")).into()])], Vec::new()),
                "chain gone does not exist or is part of a loop",
            ),
            (
                table(&[(POSTROUTING, vec![jump])], Vec::new()),
                "chain postrouting does not exist or is part of a loop",
            ),
            (
                table(&[(POSTROUTING, vec![port(1), opaque])], Vec::new()),
                "rule 0 of chain postrouting has an expression that cannot be interpreted: \
                 [ quota ]",
            ),
            (
                spread(Numgen::incremental(2), [masquerade(), keep]),
                "the rules do different things to the same connection, depending on a generated number",
            ),
            (
                spread(Numgen::incremental(3), [masquerade(), masquerade()]),
                "the rules do different things to the same connection, depending on a generated number",
            ),
        ];
        for (ruleset, message) in cases {
            assert_eq!(found(&ruleset).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn shares_of_ranges_must_fit_the_distribution() {
        let even = spread(Numgen::incremental(2), [masquerade(), masquerade()]);
        let Effect::Translated(even_effect) = found(&even).unwrap() else { panic!("untouched") };
        assert_eq!(even_effect.selection.distribution, Some(Distribution::RoundRobin));
        let mut uneven = even.clone();
        // A third number for the first range.
        let more = Numgen::incremental(3).into();
        uneven.rules[0].exprs[0] = more;
        let first = uneven.sets[0].elements.iter().next().unwrap().data();
        let third = crate::nftables::Element::new(2u32.to_ne_bytes().into(), first);
        uneven.sets[0].elements.edit(|elements| elements.push(third));
        assert_eq!(
            found(&uneven).unwrap_err().to_string(),
            "the rules do not distribute connections over the ranges round-robin, weighted by size or \
             by a hash of the source"
        );
    }

    #[test]
    fn refused_or_ignored_arguments_are_errors() {
        let unread = Masq { flags: None, proto_min: Some(Register::R1), proto_max: None }.into();
        let empty = table(&[(POSTROUTING, vec![masquerade()])], Vec::new());
        let ignored = table(&[(POSTROUTING, vec![port(1024), unread])], Vec::new());
        for ruleset in [empty, ignored] {
            assert!(matches!(found(&ruleset), Err(InterpretError::Expression { index: 0, .. })));
        }
    }
}
