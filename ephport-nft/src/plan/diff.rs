//! The operations that change the installed table into the desired one.
//!
//! Rules, chains, sets and elements that are in both stay, with their counters. Where the kernel cannot
//! change an object (the priority of a base chain, the type of a set), the table is replaced in one
//! transaction instead.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PolicySpec, Target};
//! use ephport_nft::Plan;
//! use ephport_nft::plan::diff;
//!
//! let host = HostFacts::with_uplinks(["eth0".parse()?]);
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let table = Plan::new(&[policy], &host)?.table;
//! assert_eq!(diff::changes(&table, &table), Some(Vec::new()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::operation::Operation;
use super::sequence::longest_common;
use crate::nftables::expr::Expr;
use crate::nftables::{Chain, ElementRef, Rule};
use crate::table::{
    Checksum, FactChecksums, Normalized, NormalizedSet, Set, TableState, fingerprint_of,
};

/// The operations that change `installed`, read back with its handles, into `desired`; `None` if the table
/// must be replaced.
#[must_use]
pub fn changes(installed: &TableState, desired: &TableState) -> Option<Vec<Operation>> {
    let (before, after) = (installed.normalized(), desired.normalized());
    let is_kept = |chain: &Chain| {
        before.chain(&chain.name).is_none_or(|old| old.normalized() == chain.normalized())
    };
    let same_table = installed.table.normalized() == desired.table.normalized();
    let same_table = same_table && before.unknown == after.unknown;
    if !same_table || !desired.chains.iter().all(is_kept) {
        return None;
    }
    let mut operations = Vec::new();
    let new = desired.chains.iter().filter(|chain| before.chain(&chain.name).is_none());
    operations.extend(new.map(Chain::unnumbered).map(Operation::AddChain));
    let mut names = Names::new(installed);
    operations.extend(named_sets(&before, &after, &mut names)?);
    for object in &after.timeouts {
        match before.timeout(&object.name) {
            None => operations.push(Operation::AddTimeout(object.clone())),
            Some(old) if old == object => {}
            Some(_) => return None,
        }
    }
    for chain in &desired.chains {
        operations.extend(rules(&before, &after, &chain.name, &mut names));
    }
    let is_gone = |chain: &&Chain| after.chain(&chain.name).is_none();
    let gone: Vec<_> = installed.chains.iter().filter(is_gone).collect();
    for chain in &gone {
        let rules = before.rules_of(&chain.name).iter();
        operations.extend(rules.map(|rule| Operation::DeleteRule((*rule).clone())));
    }
    operations.extend(gone.into_iter().cloned().map(Operation::DeleteChain));
    let unused = before.named_sets().into_iter().filter(|set| after.set(&set.spec.name).is_none());
    operations.extend(unused.map(|set| Operation::DeleteSet(set.spec.clone())));
    let unused = before.timeouts.iter().filter(|old| after.timeout(&old.name).is_none());
    operations.extend(unused.cloned().map(Operation::DeleteTimeout));
    Some(operations)
}

/// Names for new anonymous sets, and numbers for new sets in the transaction.
struct Names<'a> {
    taken: HashSet<&'a str>,
    next: u32,
    id: u32,
}

impl<'a> Names<'a> {
    fn new(installed: &'a TableState) -> Self {
        let taken = installed.sets.iter().map(|set| set.spec.name.as_str()).collect();
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
            if !self.taken.contains(name.as_str()) {
                return name;
            }
        }
    }
}

/// New named sets, and the elements that differ in those that stay.
fn named_sets(
    installed: &Normalized<'_>,
    desired: &Normalized<'_>,
    names: &mut Names<'_>,
) -> Option<Vec<Operation>> {
    let mut operations = Vec::new();
    for after in desired.named_sets() {
        let Some(before) = installed.set(&after.spec.name) else {
            operations.extend(Operation::fill(&after.to_set(), names.id()));
            continue;
        };
        let has_room = before.spec.size().is_none_or(|size| {
            u32::try_from(after.elements.len()).is_ok_and(|count| count <= size)
        });
        let is_same = before.spec.normalized() == after.spec.normalized();
        if !is_same || !has_room || after.spec.is_interval() {
            return None;
        }
        let (gone, new) = differing(before, after);
        let chunks = |set: &NormalizedSet<'_>, elements: Vec<ElementRef<'_>>| {
            Set { spec: set.spec.clone(), elements: elements.into_iter().collect() }.chunks()
        };
        operations.extend(chunks(before, gone).into_iter().map(Operation::DeleteElements));
        operations.extend(chunks(after, new).into_iter().map(Operation::AddElements));
    }
    Some(operations)
}

/// The elements that only one of the sets has, or that have another value in the other.
fn differing<'a>(
    before: &'a NormalizedSet<'_>,
    after: &'a NormalizedSet<'_>,
) -> (Vec<ElementRef<'a>>, Vec<ElementRef<'a>>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    if before.elements == after.elements {
        return (gone, new);
    }
    let mut old = before.elements().peekable();
    for element in after.elements() {
        gone.extend(std::iter::from_fn(|| {
            old.next_if(|old| old.key_bytes() < element.key_bytes())
        }));
        match old.peek().map(|old| old.key_bytes().cmp(&element.key_bytes())) {
            Some(Ordering::Equal) => {
                let old = old.next().filter(|old| old.data() != element.data());
                new.extend(old.map(|_| element));
                gone.extend(old);
            }
            _ => new.push(element),
        }
    }
    gone.extend(old);
    (gone, new)
}

/// The most rules that the kernel may pass over to change a chain: it walks the chain for each rule that
/// is deleted, or inserted before another (50 ns a rule). Above it, all rules of the chain are replaced.
const MAX_STEPS: usize = 10_000_000;

/// A digest of a rule that is compared in place of the rule: 128 bits, with a key of this process.
fn digest(rule: &Rule, table: &Normalized<'_>) -> (u64, u64) {
    let bytes = table.rule_bytes(rule);
    let fingerprint = fingerprint_key(rule);
    let hash = |seed: u64| {
        let mut hasher = DefaultHasher::new();
        (seed, &bytes, fingerprint).hash(&mut hasher);
        hasher.finish()
    };
    (hash(0), hash(1))
}

/// A rule with another fingerprint is another rule to the kernel.
fn fingerprint_key(rule: &Rule) -> Option<(Checksum, FactChecksums)> {
    fingerprint_of(rule).map(|fingerprint| (fingerprint.checksum, fingerprint.facts))
}

/// The pairs of indexes of the rules that stay, ascending.
fn in_both(
    installed: &Normalized<'_>,
    old: &[&Rule],
    desired: &Normalized<'_>,
    new: &[&Rule],
) -> Vec<(usize, usize)> {
    let is_same = |(old, new): (&&Rule, &&Rule)| {
        installed.is_same_rule(old, desired, new)
            && (old.userdata == new.userdata || fingerprint_key(old) == fingerprint_key(new))
    };
    let head = old.iter().zip(new).take_while(|(a, b)| is_same((a, b))).count();
    let (old_rest, new_rest) =
        (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let tails = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = tails.take_while(|(a, b)| is_same((a, b))).count();
    let digests = |rules: &[&Rule], table: &Normalized<'_>| {
        let rules = rules.iter().take(rules.len() - tail);
        rules.map(|rule| digest(rule, table)).collect::<Vec<_>>()
    };
    let between = longest_common(&digests(old_rest, installed), &digests(new_rest, desired));
    let between = between.into_iter().map(|(old, new)| (head + old, head + new));
    let first_of_tail = (old.len() - tail, new.len() - tail);
    let tail = (0..tail).map(|at| (first_of_tail.0 + at, first_of_tail.1 + at));
    (0..head).map(|at| (at, at)).chain(between).chain(tail).collect()
}

/// Delete and add rules of one chain; those in both stay.
fn rules(
    installed: &Normalized<'_>,
    desired: &Normalized<'_>,
    chain: &str,
    names: &mut Names<'_>,
) -> Vec<Operation> {
    let (old, new) = (installed.rules_of(chain), desired.rules_of(chain));
    let kept = in_both(installed, old, desired, new);
    let mut operations = Vec::new();
    let changed = old.len() + new.len() - 2 * kept.len();
    if changed.saturating_mul(old.len()) > MAX_STEPS {
        operations.extend(installed.chain(chain).cloned().map(Operation::FlushChain));
        operations.extend(new.iter().flat_map(|rule| add_rule(rule, desired, None, names)));
        return operations;
    }
    let (mut old_rules, mut new_rules) = (old.iter().enumerate(), new.iter().enumerate());
    for (old_at, new_at) in kept.into_iter().chain([(old.len(), new.len())]) {
        let gone = old_rules.by_ref().take_while(|(at, _)| *at < old_at);
        operations.extend(gone.map(|(_, rule)| Operation::DeleteRule((*rule).clone())));
        // New rules are before the next one that stays, or at the end.
        let position = old.get(old_at).and_then(|rule| rule.handle);
        let added = new_rules.by_ref().take_while(|(at, _)| *at < new_at);
        operations.extend(added.flat_map(|(_, rule)| add_rule(rule, desired, position, names)));
    }
    operations
}

/// Add a rule with anonymous sets of its own.
fn add_rule(
    rule: &Rule,
    desired: &Normalized<'_>,
    position: Option<u64>,
    names: &mut Names<'_>,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut rule = Rule { handle: None, position, ..rule.clone() };
    for expr in &mut rule.exprs {
        let Expr::Lookup(lookup) = expr else { continue };
        let Some(set) = desired.set(&lookup.set).filter(|set| set.spec.is_anonymous()) else {
            continue;
        };
        let mut set = set.to_set();
        set.spec.name = names.anonymous(if set.spec.is_map() { "__map" } else { "__set" });
        lookup.set.clone_from(&set.spec.name);
        operations.extend(Operation::fill(&set, names.id()));
    }
    operations.push(match position {
        Some(_) => Operation::InsertRule(rule),
        None => Operation::AppendRule(rule),
    });
    operations
}
