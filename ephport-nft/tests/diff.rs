//! From one chain of rules to another: what is changed makes the one of the other, and is no more
//! than it must be.

use ephport_core::Family;
use ephport_nft::TableState;
use ephport_nft::nftables::{Chain, Hook, Rule, Table};
use ephport_nft::plan::diff::changes;
use ephport_nft::plan::operation::Operation;
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::table::{Set, SetName};
use proptest::collection::vec;
use proptest::prelude::*;

/// A table of one chain, with a rule for each letter.
fn ruleset(letters: &[u8]) -> TableState {
    let rule = |(letter, handle): (&u8, u64)| Rule {
        userdata: Some(vec![*letter]),
        handle: Some(handle),
        ..Rule::new(FAMILY, TABLE, "c", Vec::new())
    };
    TableState {
        chains: vec![Chain::regular(FAMILY, TABLE, "c")],
        rules: letters.iter().zip(1..).map(rule).collect(),
        ..TableState::empty(Table::new(FAMILY, TABLE))
    }
}

/// What the kernel makes of the rules.
fn applied(mut rules: Vec<Rule>, operations: &[Operation]) -> Vec<Rule> {
    let at = |rules: &[Rule], handle: Option<u64>| {
        rules.iter().position(|rule| rule.handle == handle).expect("a rule of this handle")
    };
    for operation in operations {
        match operation {
            Operation::AppendRule(rule) => rules.push(Rule { handle: None, ..rule.clone() }),
            Operation::InsertRule(rule) => {
                let before = at(&rules, rule.position);
                rules.insert(before, Rule { handle: None, ..rule.clone() });
            }
            Operation::FlushChain(_) => rules.clear(),
            Operation::DeleteRule(rule) => {
                let gone = at(&rules, rule.handle);
                rules.remove(gone);
            }
            other => panic!("{other:?}"),
        }
    }
    rules
}

/// The length of the longest common subsequence, as it is defined.
fn common(old: &[u8], new: &[u8]) -> usize {
    match (old, new) {
        ([a, old @ ..], [b, new @ ..]) if a == b => 1 + common(old, new),
        ([_, rest_old @ ..], [_, rest_new @ ..]) => {
            common(rest_old, new).max(common(old, rest_new))
        }
        _ => 0,
    }
}

fn assert_rules_that_stay_are_left_alone(old: &[u8], new: &[u8]) {
    let (installed, desired) = (ruleset(old), ruleset(new));
    let operations = changes(&installed, &desired).expect("a way");
    assert_eq!(operations.len(), old.len() + new.len() - 2 * common(old, new));
    let letters = |rules: Vec<Rule>| rules.into_iter().map(|rule| rule.userdata);
    assert!(letters(applied(installed.rules, &operations)).eq(letters(desired.rules)));
}

proptest! {
    #[test]
    fn unchanged_rules_are_not_sent(old in vec(0..4u8, 0..8), new in vec(0..4u8, 0..8)) {
        assert_rules_that_stay_are_left_alone(&old, &new);
    }
}

#[test]
fn of_few_rules_each_change_is_the_least() {
    let lists: Vec<_> = (0..=4)
        .flat_map(|len| {
            (0..3u8.pow(len)).map(move |n| (0..len).map(|i| n / 3u8.pow(i) % 3).collect::<Vec<_>>())
        })
        .collect();
    for (old, new) in lists.iter().flat_map(|old| lists.iter().map(move |new| (old, new))) {
        assert_rules_that_stay_are_left_alone(old, new);
    }
}

#[test]
fn long_chains_are_flushed_if_most_rules_change() {
    const LEN: u32 = 5_000;
    let table = |first: u32| {
        let rule = |number: u32| Rule {
            userdata: Some((first + number).to_be_bytes().into()),
            handle: Some(u64::from(number) + 1),
            ..Rule::new(FAMILY, TABLE, "c", Vec::new())
        };
        TableState { rules: (0..LEN).map(rule).collect(), ..ruleset(b"") }
    };
    let (old, new) = (table(0), table(LEN));
    let operations = changes(&old, &new).unwrap();
    assert!(matches!(operations.first(), Some(Operation::FlushChain(_))));
    assert_eq!(operations.len(), 5_001);
    assert_eq!(contents(&applied(old.rules.clone(), &operations)), contents(&new.rules));
    // The kernel walks the chain only a few times.
    let few = table(10);
    assert_eq!(changes(&old, &few).unwrap().len(), 20);
}

/// The user data of rules.
fn contents(rules: &[Rule]) -> Vec<Option<Vec<u8>>> {
    rules.iter().map(|rule| rule.userdata.clone()).collect()
}

#[test]
fn only_changed_elements_are_replaced() {
    let with = |blocks: [(&str, &str); 3]| {
        let blocks =
            blocks.map(|(source, ports)| (source.parse().unwrap(), ports.parse().unwrap()));
        let map = Set::source_ports(SetName::Named("m"), Family::Ipv4, blocks);
        TableState { sets: vec![map], ..ruleset(b"a") }
    };
    let (stays, one) = (("10.0.0.1", "1024-2047"), ("10.0.0.2", "2048-3071"));
    let (other, changed) = (("10.0.0.3", "3072-4095"), ("10.0.0.2", "4096-5119"));
    let operations = changes(&with([stays, one, other]), &with([stays, changed, other])).unwrap();
    let [Operation::DeleteElements(gone), Operation::AddElements(new)] = &operations[..] else {
        panic!("{operations:?}");
    };
    let second = |table: TableState| table.sets[0].elements.to_vec()[1..2].to_vec().into();
    assert_eq!(gone.elements, second(with([stays, one, other])));
    assert_eq!(new.elements, second(with([stays, changed, other])));
}

#[test]
fn another_table_or_base_chain_is_another_table() {
    let here = ruleset(b"a");
    let mut other = here.clone();
    other.table.userdata = Some(vec![1]);
    assert_eq!(changes(&here, &other), None);
    let mut other = here.clone();
    other.chains[0].hook = Some(Hook::new(4, 90));
    assert_eq!(changes(&here, &other), None);
    assert_eq!(changes(&here, &here), Some(Vec::new()));
}
