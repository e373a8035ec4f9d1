//! The compiled program means what the policies mean: the interpreter over the program against the
//! reference semantics, for 100,000 pairs of documents and connections.

mod common;

use common::{compiled, misjudged, mistranslated};
use ephport_core::strategies::{documents, flows, ports};
use ephport_core::{Flow, Port, Resolved};
use ephport_nft::Ruleset;
use ephport_nft::expr::Expr;
use ephport_nft::interpret::{Packet, Standing};
use proptest::collection::vec;
use proptest::prelude::*;

const DOCUMENTS: u32 = 2_000;
const FLOWS: usize = 50;

/// Without ports: its echoes have an identifier where a port would stand.
const IPPROTO_ICMP: u8 = 1;

/// Each connection with a port that it might leave by.
fn connections() -> impl Strategy<Value = Vec<(Flow, Port)>> {
    vec((flows(), ports()), FLOWS)
}

/// Draws the source port from the document's own ranges as often as from anywhere.
fn aimed(policies: &[Resolved], flow: &Flow, at: usize) -> Flow {
    let ends = policies.iter().flat_map(|policy| {
        let allowed = policy.allowed.ports();
        let ranges: Vec<_> =
            allowed.ranges().iter().chain(policy.moved.ranges()).copied().collect();
        ranges.into_iter().flat_map(|range| [range.first(), range.last()])
    });
    let ends: Vec<_> = ends.collect();
    if at.is_multiple_of(2) || ends.is_empty() {
        return flow.clone();
    }
    flow.clone().with_source_port(ends[at / 2 % ends.len()])
}

/// What conntrack may take a packet for; each connection has its turn of them.
const STANDINGS: [Standing; 4] =
    [Standing::New, Standing::Established, Standing::Reply, Standing::Invalid];

/// Why program and policies do not agree on a connection, if they do not.
fn disagreement(
    (ruleset, policies): (&Ruleset, &[Resolved]),
    flow: &Flow,
    leaving: Port,
    at: usize,
) -> Option<String> {
    let opening = Packet::opening(flow);
    let echo = opening.clone().with_protocol(IPPROTO_ICMP);
    let gate = |port, standing| {
        let packet = Packet::leaving(flow, port).with_standing(standing);
        misjudged(ruleset, policies, flow, port, &packet)
    };
    mistranslated(ruleset, policies, flow, &opening)
        .or_else(|| mistranslated(ruleset, policies, flow, &echo))
        .or_else(|| gate(leaving, STANDINGS[at % STANDINGS.len()]))
        .or_else(|| gate(flow.source_port(), Standing::New))
}

/// The anonymous sets that rules look up, each as often as it is.
fn lookups(ruleset: &Ruleset) -> Vec<String> {
    let exprs = ruleset.rules.iter().flat_map(|rule| &rule.exprs);
    let mut names: Vec<_> = exprs
        .filter_map(|expr| match expr {
            Expr::Lookup(lookup) if lookup.set.starts_with("__") => Some(lookup.set.clone()),
            _ => None,
        })
        .collect();
    names.sort();
    names
}

/// The anonymous sets that there are.
fn sets(ruleset: &Ruleset) -> Vec<String> {
    let anonymous = ruleset.sets.iter().filter(|filled| filled.set.is_anonymous());
    let mut names: Vec<_> = anonymous.map(|filled| filled.set.name.clone()).collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(DOCUMENTS))]

    #[test]
    fn the_program_means_what_the_policies_mean(document in documents(), connections in connections()) {
        let Some((ruleset, policies)) = compiled(&document) else { return Ok(()) };
        prop_assert_eq!(lookups(&ruleset), sets(&ruleset), "each anonymous set has its one rule");
        for (at, (flow, leaving)) in connections.iter().enumerate() {
            let flow = aimed(&policies, flow, at);
            if let Some(why) = disagreement((&ruleset, &policies), &flow, *leaving, at) {
                return Err(TestCaseError::fail(format!("{why}\n{}", ruleset.listing())));
            }
        }
    }
}
