//! From chains to policies: their order, their names, and the rules that win over them.

use std::collections::HashSet;

use ipnet::IpNet;

use super::chain::Entry;
use super::reason::Unsupported;
use super::report::{Imported, Note};
use super::rule::Matched;
use super::tables::{Kind, Tables};
use crate::policy::{Policy, PolicyError, PolicyName, PolicySpec};

/// The most policies that are named for one rule that wins over them.
const MAX_SHADOWS: usize = 8;

/// How many times a rule and a policy are compared at most, so that the cost is bounded.
const MAX_COMPARISONS: usize = 10_000_000;

/// A rule that is no policy and that ends the chain for packets that it matches.
struct Match {
    /// Its index among what was skipped, and the packets.
    skipped: Box<(usize, Matched)>,
    /// The policies of its family after it.
    policies: std::ops::Range<usize>,
}

impl Tables<'_> {
    /// The policies in the order of the chains, first those for IPv4, and all that was named.
    pub(super) fn finish(mut self) -> Imported {
        let (mut order, mut winners) = (Vec::new(), Vec::new());
        for chain in [std::mem::take(&mut self.ipv4), std::mem::take(&mut self.ipv6)] {
            let first = winners.len();
            self.walk(chain.iter(), &mut order, &mut winners);
            for winner in winners.iter_mut().skip(first) {
                winner.policies.end = order.len();
            }
        }
        // The largest part of what is not needed any more.
        self.records = Vec::new();
        self.sort(order);
        self.name();
        self.find_shadows(winners);
        self.skipped.sort_by_key(|skipped| skipped.line);
        Imported { policies: self.policies, skipped: self.skipped, notes: self.notes }
    }

    /// The indices of the policies of a chain in order. Rules of one line that are next to each
    /// other are one policy.
    fn walk(
        &mut self,
        entries: impl Iterator<Item = Entry>,
        order: &mut Vec<usize>,
        winners: &mut Vec<Match>,
    ) {
        let mut entries = entries.peekable();
        while let Some(entry) = entries.next() {
            let mut parts = vec![entry.part];
            while let Some(next) = entries.next_if(|next| next.rule == entry.rule) {
                parts.push(next.part);
            }
            let Some(record) = self.records.get_mut(entry.rule) else { continue };
            match std::mem::replace(&mut record.kind, Kind::Passing) {
                Kind::Passing => {}
                Kind::Skipped(skipped) => {
                    winners.push(Match { skipped, policies: order.len()..order.len() });
                }
                Kind::Policy(index) if parts.len() == record.total => order.push(index),
                Kind::Policy(index) => {
                    record.kind = Kind::Policy(index);
                    let (location, destinations) = (record.location.clone(), record.destinations);
                    for part in parts {
                        let Some(policy) = self.policies.get(index) else { continue };
                        match policy_of_part(policy.spec(), part, destinations) {
                            Ok(policy) => {
                                order.push(self.policies.len());
                                self.policies.push(policy);
                                let is_named = self.are_named.get(index).copied();
                                self.are_named.push(is_named.unwrap_or_default());
                            }
                            Err(error) => {
                                self.skip_at(&location, Unsupported::from(error).into());
                            }
                        }
                    }
                }
            }
        }
    }

    /// Puts the policies in this order, without a copy, and drops the others.
    fn sort(&mut self, order: Vec<usize>) {
        let len = order.len();
        let mut targets = vec![usize::MAX; self.policies.len()];
        for (target, index) in order.into_iter().enumerate() {
            if let Some(slot) = targets.get_mut(index) {
                *slot = target;
            }
        }
        let rest = targets.iter_mut().filter(|target| **target == usize::MAX);
        rest.zip(len..).for_each(|(slot, target)| *slot = target);
        for at in 0..targets.len() {
            while let Some(target) = targets.get(at).copied().filter(|target| *target != at) {
                self.policies.swap(at, target);
                self.are_named.swap(at, target);
                targets.swap(at, target);
            }
        }
        self.policies.truncate(len);
    }

    /// Gives each policy the name of its comment, if none before has the same, else the next free
    /// number.
    fn name(&mut self) {
        let mut taken = HashSet::new();
        for (policy, is_named) in self.policies.iter().zip(self.are_named.iter_mut()) {
            *is_named = *is_named && taken.insert(policy.name().clone());
        }
        let numbered = |number: usize| format!("imported-{number}").parse::<PolicyName>().ok();
        let mut free = (1..).filter_map(numbered).filter(|name| !taken.contains(name));
        let unnamed = self.policies.iter_mut().zip(&self.are_named).filter(|(_, named)| !**named);
        for ((policy, _), name) in unnamed.zip(free.by_ref()) {
            policy.rename(name);
        }
    }

    /// Names, with each rule that is no policy, the policies after it whose packets it may match.
    fn find_shadows(&mut self, winners: Vec<Match>) {
        let mut budget = MAX_COMPARISONS;
        for winner in winners {
            let (index, matched) = *winner.skipped;
            let Some(skipped) = self.skipped.get_mut(index) else { continue };
            let after = self.policies.get(winner.policies).unwrap_or_default();
            let mut compared = 0;
            let meets = |policy: &&Policy| {
                compared += 1;
                matched.meets(policy.spec())
            };
            let mut met = after.iter().take(budget).filter(meets);
            let shadows = &mut skipped.shadows;
            shadows.policies =
                met.by_ref().take(MAX_SHADOWS).map(|policy| policy.name().clone()).collect();
            shadows.has_more = met.next().is_some();
            if compared == budget && budget < after.len() {
                return self.notes.push(Note::NotCompared { line: skipped.line });
            }
            budget -= compared;
        }
    }
}

/// The policy of one of the rules of a line: that of its source and destination.
fn policy_of_part(
    spec: &PolicySpec,
    part: usize,
    destinations: usize,
) -> Result<Policy, PolicyError> {
    let mut spec = spec.clone();
    let keep = |networks: &mut Vec<IpNet>, at: usize| {
        if let Some(network) = networks.get(at).copied() {
            *networks = vec![network];
        }
    };
    keep(&mut spec.scope.sources, part / destinations);
    keep(&mut spec.scope.destinations, part % destinations);
    Policy::new(spec)
}
