//! The compiled program means what the policies mean: the interpreter over the program against the
//! reference semantics, for 100,000 pairs of documents and connections.

use ephport_core::document::{decide, lets_out};
use ephport_core::strategies::{documents, flows, ports};
use ephport_core::{Document, Flow, HostFacts, Port, Resolved};
use ephport_nft::expr::Expr;
use ephport_nft::interpret;
use ephport_nft::{Ruleset, compile};
use proptest::collection::vec;
use proptest::prelude::*;

const DOCUMENTS: u32 = 2_000;
const FLOWS: usize = 50;

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

/// Why program and policies do not agree on a connection, if they do not.
fn disagreement(
    ruleset: &Ruleset,
    policies: &[Resolved],
    flow: &Flow,
    leaving: Port,
) -> Option<String> {
    let meaning = decide(policies, flow);
    let decision = meaning.winner.as_ref().map(|winner| &winner.decision);
    match interpret::effect(ruleset, flow) {
        Ok(effect) if effect.agrees_with(decision) => {}
        other => return Some(format!("{flow}: meant {decision:?}, program {other:?}")),
    }
    for port in [leaving, flow.source_port()] {
        let (meant, found) =
            (lets_out(policies, flow, port), interpret::lets_out(ruleset, flow, port));
        if found != Ok(meant) {
            return Some(format!("{flow} by {port}: let out {meant}, program {found:?}"));
        }
    }
    None
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

fn compiled(document: &Document) -> Option<(Ruleset, Vec<Resolved>)> {
    let policies = document.resolve(&HostFacts::default()).ok()?;
    Some((compile(&policies).expect("a program"), policies))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(DOCUMENTS))]

    #[test]
    fn the_program_means_what_the_policies_mean(document in documents(), connections in connections()) {
        let Some((ruleset, policies)) = compiled(&document) else { return Ok(()) };
        prop_assert_eq!(lookups(&ruleset), sets(&ruleset), "each anonymous set has its one rule");
        for (at, (flow, leaving)) in connections.iter().enumerate() {
            let flow = aimed(&policies, flow, at);
            if let Some(why) = disagreement(&ruleset, &policies, &flow, *leaving) {
                return Err(TestCaseError::fail(format!("{why}\n{}", ruleset.listing())));
            }
        }
    }
}
