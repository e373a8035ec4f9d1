//! The compiled program means what the policies mean: the interpreter over the program against the
//! reference semantics, for 100,000 pairs of documents and connections.

use ephport_core::strategies::{ports, wide_documents, wide_flows, wide_policies};
use std::net::{IpAddr, SocketAddr};

use ephport_core::{Address, BlockTable, Document, Effect, Flow, Policy, Port, Protocol};
use ephport_nft::TableState;
use ephport_nft::compile::compile_split;
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

/// The connections of some sources, the first and the last included, and of the addresses beside them.
fn connections_of(table: &BlockTable) -> Vec<(Flow, Port)> {
    let (count, step) = (table.count(), 1 + table.count() / 61);
    let mut sources = Vec::new();
    for range in table.sources().into_iter().step_by(usize::try_from(step).unwrap()) {
        sources.extend([range.first(), range.last()]);
        sources
            .extend((0..count).step_by(usize::try_from(step).unwrap()).map_while(|i| range.nth(i)));
    }
    let beside = sources.iter().filter_map(|source| match source {
        IpAddr::V4(own) => Some(IpAddr::V4(own.to_bits().checked_add(1)?.into())),
        IpAddr::V6(own) => Some(IpAddr::V6(own.to_bits().checked_sub(1)?.into())),
    });
    let flow = |source: IpAddr| {
        let to = if source.is_ipv4() { "203.0.113.9" } else { "2001:db8::9" }.parse().unwrap();
        let ends = (SocketAddr::new(source, 20_000), SocketAddr::new(to, 53));
        let flow = Flow::new(Protocol::Udp, ends.0, ends.1, "eth0".parse().unwrap()).unwrap();
        let block = table.block_of(source);
        (flow, block.map_or_else(|| "5000".parse().unwrap(), |block| block.ports.first()))
    };
    sources.iter().copied().chain(beside).map(flow).collect()
}

/// Each table in the form that its program must have: the names of its sets and how many there are.
#[test]
fn large_tables_are_split_and_mean_the_same() {
    let explicit = |count: u32, spread: u32, outside: &str| {
        let line = |i: u32| {
            let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 + i * spread);
            format!("{source}={outside}{}-{}\n", 1024 + 3 * i, 1026 + 3 * i)
        };
        (0..count).map(line).collect::<String>()
    };
    let cases = [
        (
            "10.0.0.0/17=63@192.0.2.0/27:1024-65535".to_string(),
            vec![("p/addresses4", 32), ("p/blocks4", 1024)],
        ),
        (
            "2001:db8:1::/113=126@[2001:db8:2::/122]:1024-65535".into(),
            vec![("p/addresses6", 64), ("p/blocks6", 512)],
        ),
        // Sources that do not begin at a multiple, and blocks that are no power of two.
        (
            "10.0.0.1-10.0.128.0=63@192.0.2.0/26:1024-65535".into(),
            vec![("p/blocks4/masquerade", 9)],
        ),
        ("10.0.0.0/17=65@192.0.2.0/26:1024-65535".into(), vec![("p/blocks4/masquerade", 8)]),
        (explicit(20_000, 1, ""), vec![("p/blocks4/keep", 5)]),
        (explicit(20_000, 64, "192.0.2.1:"), vec![("p/blocks4/masquerade", 5)]),
        (explicit(2_000, 1, ""), vec![("p/blocks4", 2000)]),
    ];
    for (blocks, expected) in cases {
        let table: BlockTable = blocks.parse().unwrap();
        for enforce in [false, true] {
            let mut policy = Policy::to(table.clone()).named("p").protocols(["udp"]).out(["eth0"]);
            if !table.has_outside() {
                policy = policy.address(Address::Keep);
            }
            if enforce {
                policy = policy.enforce();
            }
            let document = Document::from(policy.build().unwrap());
            let (ruleset, policies) = compiled(&document).unwrap();
            for (name, count) in &expected {
                let set = ruleset.set(name).unwrap_or_else(|| panic!("{name} of {table:.40}"));
                assert_eq!(set.elements.len(), *count, "{name}");
            }
            let found = disagreement(&ruleset, &policies, &connections_of(&table));
            assert_eq!(found, None);
        }
    }
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

proptest! {
    #[test]
    fn every_form_of_blocks_and_chains_agrees(
        document in wide_documents(),
        connections in connections(),
        max_flat in 1..12_usize,
        min_part in 1..12_usize,
    ) {
        let Some((_, policies)) = compiled(&document) else { return Ok(()) };
        let Ok(ruleset) = compile_split(&policies, max_flat, min_part) else { return Ok(()) };
        let disagreement = disagreement(&ruleset, &policies, &connections);
        prop_assert!(disagreement.is_none(), "{}", disagreement.unwrap_or_default());
    }
}
