//! The chain POSTROUTING of both families, after the lines so far, and its policies.

use std::borrow::Cow;

use super::chain::{Chain, Entry};
use super::command::Command;
use super::grammar::Meaning;
use super::reason::{Invalid, NotInstalled, SkipReason, Unsupported};
use super::report::{Note, Shadows, Skipped};
use super::rule::{Matched, Outcome, Rule};
use crate::net::family::Family;
use crate::policy::Policy;

/// The most rules of a chain that one line may make.
const MAX_RULES: usize = 1 << 16;

/// A line of the text.
#[derive(Clone, Default)]
pub(super) struct Location<'a> {
    pub(super) line: usize,
    pub(super) text: Cow<'a, str>,
}

/// A line that is a rule of the chain, or several: one for each pair of source and destination.
pub(super) struct Record<'a> {
    pub(super) location: Location<'a>,
    pub(super) kind: Kind,
    /// How many destinations it has for each source.
    pub(super) destinations: usize,
    /// How many rules it was.
    pub(super) total: usize,
    /// How many of them are still in the chain.
    count: usize,
}

/// What a line of the chain is, by its index among its like.
pub(super) enum Kind {
    /// A rule without effect on source ports.
    Passing,
    /// A rule that is no policy, with the packets that it may keep from the rules after it; boxed
    /// because most records are policies.
    Skipped(Box<(usize, Matched)>),
    Policy(usize),
}

/// The chains, and what happened to each line.
#[derive(Default)]
pub(super) struct Tables<'a> {
    at: Location<'a>,
    is_named: bool,
    pub(super) ipv4: Chain,
    pub(super) ipv6: Chain,
    pub(super) records: Vec<Record<'a>>,
    pub(super) policies: Vec<Policy>,
    /// Which of them have their name from a comment.
    pub(super) are_named: Vec<bool>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) notes: Vec<Note>,
}

/// The name of the timeouts that a rule assigns (`-j CT --timeout NAME`).
fn timeouts(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace().skip_while(|word| !matches!(*word, "-j" | "--jump"));
    let is_ct = words.nth(1) == Some("CT");
    words.find(|word| is_ct && *word == "--timeout").and_then(|_| words.next())
}

impl<'a> Tables<'a> {
    /// The lines from here on are this one.
    pub(super) fn begin(&mut self, location: Location<'a>) {
        self.at = location;
        self.is_named = false;
    }

    /// Whether the line is a policy, or was named with a reason.
    pub(super) fn is_named(&self) -> bool {
        self.is_named
    }

    /// Names the line.
    pub(super) fn skip(&mut self, reason: SkipReason) {
        let location = self.at.clone();
        self.skip_at(&location, reason);
        self.is_named = true;
    }

    pub(super) fn skip_at(&mut self, location: &Location<'_>, reason: SkipReason) {
        let (line, rule) = (location.line, location.text.trim().into());
        self.skipped.push(Skipped { line, rule, reason, shadows: Shadows::default() });
    }

    /// Notes that the line runs elsewhere, by the words before the program.
    pub(super) fn elsewhere(&mut self, words: &[Cow<'_, str>]) {
        let by = words.join(" ").into();
        self.notes.push(Note::Elsewhere { line: self.at.line, by });
    }

    /// Notes that a rule of any table assigns timeouts, by the line of the first one.
    pub(super) fn timeouts(&mut self, line: usize, text: &str) {
        let has_one = |note: &Note| matches!(note, Note::Timeouts { .. });
        if let Some(name) = timeouts(text)
            && !self.notes.iter().any(has_one)
        {
            self.notes.push(Note::Timeouts { line, name: name.into() });
        }
    }

    fn chain(&mut self, family: Family) -> &mut Chain {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }

    /// Whether `-C` finds the rule.
    pub(super) fn contains(&mut self, command: &Command) -> bool {
        let chain = self.chain(command.rule.family);
        command.rule.keys().all(|key| chain.contains(key))
    }

    /// Applies a command to POSTROUTING; whether it succeeds.
    pub(super) fn apply(
        &mut self,
        command: Command,
        operation: Meaning,
        option: &'static str,
    ) -> bool {
        if let Some(invalid) = &command.rule.invalid {
            self.skip(invalid.clone().into());
            return false;
        }
        let (family, number) = (command.rule.family, command.number);
        let index = number.unwrap_or(1).saturating_sub(1);
        let len = self.chain(family).len();
        match operation {
            Meaning::Append => self.add(command.rule, len, 1),
            Meaning::Insert => {
                if index > len {
                    self.notes.push(Note::PastEnd { line: self.at.line, number: index + 1, len });
                }
                self.add(command.rule, index.min(len), 0)
            }
            Meaning::Replace if command.rule.count() > 1 => {
                self.skip(Invalid::SeveralRules { option }.into());
                false
            }
            Meaning::Replace => {
                let removed = self.chain(family).remove(index);
                self.forget(removed.into_iter().collect(), option).is_some()
                    && self.add(command.rule, index, 1)
            }
            Meaning::Delete => {
                let keys =
                    if number.is_none() { command.rule.keys().collect() } else { Vec::new() };
                let chain = self.chain(family);
                let at = number.and_then(|_| chain.remove(index));
                let by_key = keys.into_iter().filter_map(|key| chain.remove_key(key));
                let removed = by_key.chain(at).collect();
                let line = self.forget(removed, option);
                self.name_removal(option, line);
                line.is_some()
            }
            _ => {
                let removed = self.chain(family).clear();
                if !removed.is_empty() {
                    let line = self.forget(removed, option);
                    self.name_removal(option, line);
                }
                true
            }
        }
    }

    /// Applies a command to another chain of the table nat; whether it succeeds.
    pub(super) fn apply_elsewhere(&mut self, mut command: Command, operation: Meaning) -> bool {
        let adds = matches!(operation, Meaning::Append | Meaning::Insert | Meaning::Replace);
        if !adds || !command.rule.is_translation() {
            return true;
        }
        let chain = command.chain.unwrap_or_default();
        let reason: SkipReason = match command.rule.outcome() {
            Outcome::Refused(reason) => reason,
            Outcome::Skipped(reason @ Unsupported::NoPorts) => reason.into(),
            _ => Unsupported::Chain { chain }.into(),
        };
        self.skip(reason);
        true
    }

    /// Adds the rules of a line, the first at `index` and each other one `step` after it; whether
    /// iptables accepts the line.
    fn add(&mut self, mut rule: Rule, index: usize, step: usize) -> bool {
        let (family, destinations) = (rule.family, rule.destination_keys.len().max(1));
        let is_many = rule.count() > MAX_RULES;
        let keys = if is_many { vec![rule.identity] } else { rule.keys().collect() };
        let outcome = match rule.outcome() {
            Outcome::Policy(..) if is_many => {
                Outcome::Skipped(Unsupported::TooManyRules { max: MAX_RULES })
            }
            outcome => outcome,
        };
        let kind = match outcome {
            Outcome::Refused(reason) => {
                self.skip(reason);
                return false;
            }
            Outcome::Passing => Kind::Passing,
            Outcome::Skipped(reason) => {
                self.skip(reason.into());
                Kind::Skipped(Box::new((self.skipped.len() - 1, Matched::from(rule))))
            }
            Outcome::Policy(policy, is_named) => {
                self.is_named = true;
                self.are_named.push(is_named);
                self.policies.push(policy);
                Kind::Policy(self.policies.len() - 1)
            }
        };
        let rule = self.records.len();
        let (location, total) = (self.at.clone(), keys.len());
        self.records.push(Record { location, kind, destinations, total, count: total });
        let chain = self.chain(family);
        for (part, key) in keys.into_iter().enumerate() {
            chain.insert(index + part * step, Entry { rule, part, key });
        }
        true
    }

    /// Names the policies that are gone with these rules; the line of the first rule, if there is
    /// one.
    fn forget(&mut self, removed: Vec<Entry>, option: &'static str) -> Option<usize> {
        let mut first = None;
        for entry in removed {
            let Some(record) = self.records.get_mut(entry.rule) else { continue };
            record.count -= 1;
            first = first.or(Some(record.location.line));
            if record.count == 0 && matches!(record.kind, Kind::Policy(_)) {
                let location = record.location.clone();
                self.skip_at(&location, NotInstalled::Removed { by: self.at.line }.into());
            }
        }
        if first.is_none() {
            self.skip(NotInstalled::NothingToRemove { option }.into());
        }
        first
    }

    /// Names a line that removes a translation.
    fn name_removal(&mut self, option: &'static str, line: Option<usize>) {
        let text = &self.at.text;
        let is_translation = text.contains("MASQUERADE") || text.contains("SNAT");
        if let Some(line) = line.filter(|_| is_translation) {
            self.skip(NotInstalled::Removes { option, line }.into());
        }
    }
}
