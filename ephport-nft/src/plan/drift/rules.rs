//! Which rule of a chain became which.

use super::statements::{Program, changes};
use super::{Change, Drift, Place};
use crate::nftables::Rule;
use crate::plan::diff::{Form, longest_common};
use crate::syntax::rule_words;
use crate::table::layout::policy_of;
use crate::table::{Fingerprint, Set, TableState};

/// A rule that did not stay where it was.
struct Placed<'a> {
    at: usize,
    /// How many of those that stayed stand before it: between the same two it may be the same.
    gap: usize,
    form: Form,
    program: Program,
    /// The essences of the sets of its table.
    sets: &'a [Set],
}

impl Placed<'_> {
    fn rule(&self) -> &Rule {
        &self.form.rule
    }

    fn place(&self) -> Place {
        Place::rule(self.rule(), self.at)
    }

    fn words(&self) -> String {
        rule_words(&self.program.rule, self.sets)
    }
}

/// Those that are not `kept`, the numbers of the others in ascending order.
fn left<'a>(forms: Vec<Form>, kept: &[usize], sets: &'a [Set], rules: &[&Rule]) -> Vec<Placed<'a>> {
    let placed = forms.into_iter().zip(rules).enumerate().filter_map(|(at, (form, rule))| {
        let gap = kept.binary_search(&at).err()?;
        Some(Placed { at, gap, form, program: Program::of(rule, sets), sets })
    });
    placed.collect()
}

/// The differences between the rules of one chain.
pub(super) fn rules(installed: &TableState, desired: &TableState, chain: &str) -> Vec<Drift> {
    let (old, new): (Vec<_>, Vec<_>) =
        (installed.rules_of(chain).collect(), desired.rules_of(chain).collect());
    if old.is_empty() && !new.is_empty() {
        let place = Place::Chain { chain: chain.into() };
        return vec![place.with(Change::Emptied { rules: new.len() })];
    }
    let forms = |rules: &[&Rule], of| rules.iter().map(|r| Form::of(r, of)).collect::<Vec<_>>();
    let (is, was) = (forms(&old, installed), forms(&new, desired));
    let (kept_old, kept_new): (Vec<_>, Vec<_>) = longest_common(&is, &was).into_iter().unzip();
    if kept_old.len() == old.len() && kept_new.len() == new.len() {
        return Vec::new();
    }
    let essences =
        |ruleset: &TableState| ruleset.sets.iter().map(Set::normalized).collect::<Vec<_>>();
    let (sets, desired_sets) = (essences(installed), essences(desired));
    let mut found = left(is, &kept_old, &sets, &old);
    let mut expected = left(was, &kept_new, &desired_sets, &new);
    let mut drifts = moved(&mut found, &mut expected);
    drifts.extend(changed(&mut found, &mut expected));
    let removed = expected.iter().map(|r| r.place().with(Change::RuleRemoved { rule: r.words() }));
    let added = found.iter().map(|r| r.place().with(Change::RuleAdded { rule: r.words() }));
    drifts.extend(removed.chain(added));
    drifts
}

/// Takes out those that are in both, elsewhere.
fn moved(found: &mut Vec<Placed<'_>>, expected: &mut Vec<Placed<'_>>) -> Vec<Drift> {
    let mut drifts = Vec::new();
    found.retain(|is| {
        let Some(at) = expected.iter().position(|was| was.form == is.form) else { return true };
        let was = expected.remove(at);
        drifts.push(is.place().with(Change::Moved { expected: was.at + 1 }));
        false
    });
    drifts
}

/// Takes out the pairs that are the same rule still, those with the fewest differences first.
fn changed(found: &mut Vec<Placed<'_>>, expected: &mut Vec<Placed<'_>>) -> Vec<Drift> {
    let mut pairs = Vec::new();
    for is in found.iter() {
        for was in expected.iter().filter(|was| was.gap == is.gap) {
            if is.program.resembles(&was.program) {
                pairs.push((is.at, was.at, differences(is, was)));
            }
        }
    }
    pairs.sort_by_key(|(_, _, differences)| differences.len());
    let mut drifts = Vec::new();
    for (is_at, was_at, differences) in pairs {
        let Some(is) = found.iter().position(|rule| rule.at == is_at) else { continue };
        let Some(was) = expected.iter().position(|rule| rule.at == was_at) else { continue };
        let (is, was) = (found.remove(is), expected.remove(was));
        let policy = policy_of(was.rule()).or(policy_of(is.rule()));
        let place = Place::Rule { chain: is.rule().chain.clone(), number: is.at + 1, policy };
        drifts.push((is.at, place, differences));
    }
    drifts.sort_by_key(|(at, ..)| *at);
    let each = |(_, place, changes): (_, Place, Vec<Change>)| {
        changes.into_iter().map(move |change| place.clone().with(change))
    };
    drifts.into_iter().flat_map(each).collect()
}

/// All in which two rules with different forms differ; at least one.
fn differences(is: &Placed<'_>, was: &Placed<'_>) -> Vec<Change> {
    let mut differences = changes(&is.program, &was.program);
    let (found, expected) = (is.rule(), was.rule());
    if found.userdata != expected.userdata {
        differences.push(comment(found, expected));
    }
    if found.other != expected.other {
        differences.push(Change::Unnamed);
    }
    if differences.is_empty() {
        let (found, expected) = (is.words(), was.words());
        differences.push(Change::ProgramChanged { found, expected });
    }
    differences
}

fn comment(found: &Rule, expected: &Rule) -> Change {
    let text = |rule: &Rule| rule.comment().map(|comment| comment.as_str().to_string());
    let (found, expected) = (text(found), text(expected));
    match expected.as_deref().and_then(Fingerprint::parse) {
        Some(expected) => {
            let found = found.as_deref().and_then(Fingerprint::parse);
            Change::FingerprintChanged { found, expected }
        }
        None => Change::CommentChanged { found, expected },
    }
}
