//! From one chain of rules to another: what is changed makes the one of the other, and is no more
//! than it must be.

use ephport_nft::Ruleset;
use ephport_nft::client::Operation;
use ephport_nft::diff::changes;
use ephport_nft::object::{Chain, Hook, Rule, Table};
use ephport_nft::ruleset::{FAMILY, TABLE};
use proptest::collection::vec;
use proptest::prelude::*;

/// A table of one chain, with a rule for each letter.
fn ruleset(letters: &[u8]) -> Ruleset {
    let rule = |(letter, handle): (&u8, u64)| Rule {
        userdata: Some(vec![*letter]),
        handle: Some(handle),
        ..Rule::new(FAMILY, TABLE, "c", Vec::new())
    };
    Ruleset {
        table: Table::new(FAMILY, TABLE),
        chains: vec![Chain::regular(FAMILY, TABLE, "c")],
        sets: Vec::new(),
        rules: letters.iter().zip(1..).map(rule).collect(),
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

proptest! {
    #[test]
    fn rules_that_stay_are_left_alone(old in vec(0..4u8, 0..8), new in vec(0..4u8, 0..8)) {
        let (installed, desired) = (ruleset(&old), ruleset(&new));
        let operations = changes(&installed, &desired).expect("a way");
        prop_assert_eq!(operations.len(), old.len() + new.len() - 2 * common(&old, &new));
        let letters = |rules: Vec<Rule>| rules.into_iter().map(|rule| rule.userdata);
        prop_assert!(letters(applied(installed.rules, &operations)).eq(letters(desired.rules)));
    }
}

#[test]
fn another_table_or_base_chain_is_another_table() {
    let here = ruleset(b"a");
    let mut other = here.clone();
    other.table.userdata = Some(vec![1]);
    assert_eq!(changes(&here, &other), None);
    let mut other = here.clone();
    other.chains[0].hook = Some(Hook { number: 4, priority: 90 });
    assert_eq!(changes(&here, &other), None);
    assert_eq!(changes(&here, &here), Some(Vec::new()));
}
