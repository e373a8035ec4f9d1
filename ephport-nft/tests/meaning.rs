//! The compiled program means what the policies mean: the interpreter over the program against the
//! reference semantics, for 100,000 pairs of documents and connections.

use ephport_core::strategies::{ports, wide_documents, wide_flows, wide_policies};
use ephport_core::{Document, Effect, Flow, Port};
use ephport_nft::TableState;
use ephport_nft::fuzz::{compiled, disagreement};
use ephport_nft::interpret::effect;
use ephport_nft::nftables::expr::Expr;
use ephport_nft::table::layout::POSTROUTING;
use proptest::collection::vec;
use proptest::prelude::*;

const FLOWS: usize = 50;

/// 2,048 documents, unless `PROPTEST_CASES` is set.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: 8 * config.cases, ..config }
}

/// Each connection with a port that it might be sent with.
fn connections() -> impl Strategy<Value = Vec<(Flow, Port)>> {
    vec((wide_flows(), ports()), FLOWS)
}

/// The anonymous sets that rules look up, each as often as it is.
fn lookups(ruleset: &TableState) -> Vec<String> {
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
fn sets(ruleset: &TableState) -> Vec<String> {
    let anonymous = ruleset.sets.iter().filter(|filled| filled.spec.is_anonymous());
    let mut names: Vec<_> = anonymous.map(|filled| filled.spec.name.clone()).collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn program_and_policies_agree(document in wide_documents(), connections in connections()) {
        let Some((ruleset, policies)) = compiled(&document) else { return Ok(()) };
        prop_assert_eq!(lookups(&ruleset), sets(&ruleset), "each anonymous set has its one rule");
        let disagreement = disagreement(&ruleset, &policies, &connections);
        prop_assert!(disagreement.is_none(), "{}", disagreement.unwrap_or_default());
    }

    #[test]
    fn accepted_policies_translate_their_example(policy in wide_policies()) {
        let flow = policy.example_flow().expect("accepted policies have one");
        let (table, _) = compiled(&Document::from(policy)).expect("no uplinks");
        // Two rules return multicast and broadcast destinations.
        let rules = table.rules.iter().filter(|rule| rule.chain == POSTROUTING);
        prop_assert!(rules.count() > 2);
        let effect = effect(&table, &flow).expect("a program that can be interpreted");
        prop_assert!(matches!(effect, Effect::Translated(_)), "{flow}: {effect:?}");
    }
}
