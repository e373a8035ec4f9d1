//! From the ruleset that is installed to the one that is wanted, with as few changes as can be.
//!
//! Rules, chains, sets and elements that are in both stay as they are, with their counters. Only
//! where the kernel knows no way (a base chain at another priority, a set of another type) is the
//! table replaced; that is one transaction too.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PolicySpec, Target};
//! use ephport_nft::{compile};
//! use ephport_nft::plan::diff;
//!
//! let host = HostFacts { uplinks: vec!["eth0".parse()?], ..HostFacts::default() };
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let ruleset = compile(&[policy.resolve(&host)?])?;
//! assert_eq!(diff::changes(&ruleset, &ruleset), Some(Vec::new()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};

use super::operation::Operation;
use crate::nftables::expr::Expr;
use crate::nftables::{Chain, Element, Rule};
use crate::table::{Set, TableState};

/// What makes the kernel hold `desired` where it holds `installed`, read back with its handles; or
/// `None` when the table must be replaced.
#[must_use]
pub fn changes(installed: &TableState, desired: &TableState) -> Option<Vec<Operation>> {
    let (before, after) = (chains(installed), chains(desired));
    let is_kept = |(name, chain): (&&str, &&Chain)| {
        before.get(name).is_none_or(|old| old.normalized() == chain.normalized())
    };
    let same_table = installed.table.normalized() == desired.table.normalized();
    let same_table = same_table && installed.unknown == desired.unknown;
    if !same_table || !after.iter().all(is_kept) {
        return None;
    }
    let mut operations = Vec::new();
    let new = desired.chains.iter().filter(|chain| !before.contains_key(chain.name.as_str()));
    operations.extend(new.cloned().map(Operation::AddChain));
    let mut names = Names::new(installed);
    operations.extend(named_sets(installed, desired, &mut names)?);
    for chain in &desired.chains {
        operations.extend(rules(installed, desired, &chain.name, &mut names));
    }
    let is_gone = |chain: &&Chain| !after.contains_key(chain.name.as_str());
    let gone: Vec<_> = installed.chains.iter().filter(is_gone).collect();
    for chain in &gone {
        operations.extend(installed.rules_of(&chain.name).cloned().map(Operation::DeleteRule));
    }
    operations.extend(gone.into_iter().cloned().map(Operation::DeleteChain));
    let unused = named(installed).filter(|filled| desired.set(&filled.spec.name).is_none());
    operations.extend(unused.map(|filled| Operation::DeleteSet(filled.spec.clone())));
    Some(operations)
}

fn chains(ruleset: &TableState) -> BTreeMap<&str, &Chain> {
    ruleset.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect()
}

pub(crate) fn named(ruleset: &TableState) -> impl Iterator<Item = &Set> {
    ruleset.sets.iter().filter(|filled| !filled.spec.is_anonymous())
}

/// Names for new anonymous sets, and numbers for new sets in the transaction.
struct Names {
    taken: HashSet<String>,
    next: u32,
    id: u32,
}

impl Names {
    fn new(installed: &TableState) -> Self {
        let taken = installed.sets.iter().map(|filled| filled.spec.name.clone()).collect();
        Self { taken, next: 0, id: 0 }
    }

    fn id(&mut self) -> u32 {
        self.id += 1;
        self.id
    }

    fn anonymous(&mut self, prefix: &str) -> String {
        loop {
            let name = format!("{prefix}{}", self.next);
            self.next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// New named sets, and the elements that differ in those that stay.
fn named_sets(
    installed: &TableState,
    desired: &TableState,
    names: &mut Names,
) -> Option<Vec<Operation>> {
    let mut operations = Vec::new();
    for after in named(desired) {
        let Some(before) = installed.set(&after.spec.name) else {
            operations.extend(Operation::fill(after, names.id()));
            continue;
        };
        if before.spec.normalized() != after.spec.normalized() || after.spec.is_interval() {
            return None;
        }
        let (gone, new) = (missing(before, after), missing(after, before));
        let some = |filled: &Set, elements: Vec<Element>| {
            Set { spec: filled.spec.clone(), elements }.chunks()
        };
        operations.extend(some(before, gone).into_iter().map(Operation::DeleteElements));
        operations.extend(some(after, new).into_iter().map(Operation::AddElements));
    }
    Some(operations)
}

/// The elements of `of` that `from` has not, or has with another value.
fn missing(of: &Set, from: &Set) -> Vec<Element> {
    let held: HashMap<_, _> =
        from.elements.iter().map(|element| (element.key_bytes(), &element.data)).collect();
    let is_missing = |element: &&Element| {
        held.get(&element.key_bytes()).is_none_or(|data| **data != element.data)
    };
    of.elements.iter().filter(is_missing).cloned().collect()
}

/// A rule as it was asked for, with its anonymous sets in the place of their names.
#[derive(PartialEq)]
pub(crate) struct Form {
    pub(crate) rule: Rule,
    sets: Vec<Set>,
}

impl Form {
    pub(crate) fn of(rule: &Rule, ruleset: &TableState) -> Self {
        let mut form = Self { rule: rule.normalized(), sets: Vec::new() };
        for expr in &mut form.rule.exprs {
            let Expr::Lookup(lookup) = expr else { continue };
            let Some(filled) = ruleset.set(&lookup.set) else { continue };
            if filled.spec.is_anonymous() {
                let mut filled = filled.normalized();
                filled.spec.name.clear();
                form.sets.push(filled);
                lookup.set.clear();
            }
        }
        form
    }
}

/// Deletes and adds rules of one chain; those in both stay.
fn rules(
    installed: &TableState,
    desired: &TableState,
    chain: &str,
    names: &mut Names,
) -> Vec<Operation> {
    let (old, new): (Vec<_>, Vec<_>) =
        (installed.rules_of(chain).collect(), desired.rules_of(chain).collect());
    let forms = |rules: &[&Rule], ruleset| {
        rules.iter().map(|rule| Form::of(rule, ruleset)).collect::<Vec<_>>()
    };
    let kept = longest_common(&forms(&old, installed), &forms(&new, desired));
    let mut operations = Vec::new();
    let (mut next_old, mut next_new) = (0, 0);
    for (old_at, new_at) in kept.into_iter().map(Some).chain([None]).map(|pair| match pair {
        Some((i, j)) => (Some(i), j),
        None => (None, new.len()),
    }) {
        let end = old_at.unwrap_or(old.len());
        operations
            .extend(old[next_old..end].iter().map(|rule| Operation::DeleteRule((*rule).clone())));
        // Rules stand before the next one that stays, or at the end.
        let position = old_at.and_then(|at| old[at].handle);
        for rule in &new[next_new..new_at] {
            operations.extend(add_rule(rule, desired, position, names));
        }
        (next_old, next_new) = (end + 1, new_at + 1);
    }
    operations
}

/// Adds a rule with anonymous sets of its own.
fn add_rule(
    rule: &Rule,
    desired: &TableState,
    position: Option<u64>,
    names: &mut Names,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut rule = Rule { position, ..rule.clone() };
    for expr in &mut rule.exprs {
        let Expr::Lookup(lookup) = expr else { continue };
        let Some(filled) = desired.set(&lookup.set).filter(|filled| filled.spec.is_anonymous())
        else {
            continue;
        };
        let mut filled = filled.clone();
        filled.spec.name = names.anonymous(if filled.spec.is_map() { "__map" } else { "__set" });
        lookup.set.clone_from(&filled.spec.name);
        operations.extend(Operation::fill(&filled, names.id()));
    }
    operations.push(match position {
        Some(_) => Operation::InsertRule(rule),
        None => Operation::AppendRule(rule),
    });
    operations
}

/// The pairs of a longest common subsequence, ascending.
pub(crate) fn longest_common<T: PartialEq>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    let (rows, columns) = (old.len(), new.len());
    // lengths[i][j]: of what is common to old[i..] and new[j..].
    let mut lengths = vec![vec![0u32; columns + 1]; rows + 1];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            lengths[i][j] = if old[i] == new[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < rows && j < columns {
        if old[i] == new[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_common_stays_in_order() {
        let common = |old: &str, new: &str| {
            let (old, new): (Vec<_>, Vec<_>) = (old.chars().collect(), new.chars().collect());
            longest_common(&old, &new).iter().map(|(i, _)| old[*i]).collect::<String>()
        };
        assert_eq!(common("abcdef", "abcdef"), "abcdef");
        assert_eq!(common("abcdef", "xacxfe").len(), 3);
        assert_eq!(common("", "abc"), "");
        assert_eq!(common("abc", "cba").len(), 1);
    }
}
