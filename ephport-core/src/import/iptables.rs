//! Policies from the `MASQUERADE` and `SNAT` rules of iptables that name ports.
//!
//! One command, a list of commands (one a line, as in a script), or what iptables-save prints. A
//! policy means what its rule means: it picks connections up at any packet, moves every source port
//! that the rule matches, and is of the command's address family. What a policy cannot say is left
//! out, with the reason.
//!
//! ```
//! use ephport_core::Imported;
//!
//! let imported = Imported::of_text(
//!     "sudo iptables -t nat -I POSTROUTING -p tcp -m tcp --sport 32768:61000 \
//!      -j MASQUERADE --to-ports 49152-61000
//!      sudo iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
//! );
//! assert_eq!(imported.policies[0].spec().source_ports.to_string(), "32768-61000");
//! assert_eq!(imported.left_out[0].to_string(), "line 2: no ports: nothing for ephport to say: \
//!     `sudo iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE`");
//! ```
//!
//! Three things differ from the rule: multicast, broadcast and loopback are never touched; source
//! port 0, which is no port, is not moved; and the policies come before all rules of iptables.
//!
//! What iptables takes and refuses is that of version 1.8.9 (xtables, `libxt_NAT`).

mod options;
mod refusal;
mod rule;
mod values;
mod words;

use std::fmt;

pub use self::refusal::Refusal;
use self::rule::{Effect, Place, Rule};
use self::words::{Split, logical_lines, split};
use crate::policy::file::{Document, DocumentError};
use crate::policy::scope::Family;
use crate::policy::{Policy, PolicyName, PolicySpec};

/// What became of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Policies in the order of the chain, first those for IPv4; each has a name of its own: the
    /// rule's comment, if it can be one, else `imported-1` and so on.
    pub policies: Vec<Policy>,
    /// The translations, and other rules of POSTROUTING, that are not among them; in order of the
    /// text.
    pub left_out: Vec<LeftOut>,
}

/// A rule that did not become a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its line in the text, from 1.
    pub line: usize,
    /// The rule as it was written.
    pub rule: Box<str>,
    /// Why it did not.
    pub reason: Refusal,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: `{}`", self.line, self.reason, self.rule)
    }
}

impl Imported {
    /// The policy of one command, given as words: `iptables`, `-t`, `nat` and so on, with `sudo`, a
    /// path or nothing at all before the options.
    ///
    /// Either there is a policy, or it is said why not.
    #[must_use]
    pub fn of_command<S: AsRef<str>>(words: &[S]) -> Self {
        let words: Vec<String> = words.iter().map(|word| word.as_ref().to_owned()).collect();
        let text = words.join(" ");
        let mut reader = Reader::default();
        reader.words(1, &text, words);
        let mut imported = reader.finish();
        if imported.policies.is_empty() && imported.left_out.is_empty() {
            let reason = Refusal::NoTranslation;
            imported.left_out.push(LeftOut { line: 1, rule: text.into(), reason });
        }
        imported
    }

    /// The policies of a text: what iptables-save or `iptables -t nat -S` print, or commands.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let mut reader = Reader::default();
        for (line, text) in logical_lines(text) {
            reader.line(line, text.trim());
        }
        reader.finish()
    }

    /// The policies as a document; an error when there is none.
    pub fn document(&self) -> Result<Document, DocumentError> {
        Document::new(self.policies.clone())
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    /// The table of the dump that the line is in.
    table: Option<Box<str>>,
    /// Whether the dump is one of ip6tables-save.
    is_ipv6: bool,
    ipv4: Chain,
    ipv6: Chain,
    left_out: Vec<LeftOut>,
}

/// The rules of POSTROUTING in order; a rule that is left out keeps its place.
type Chain = Vec<Option<Candidate>>;

/// A policy without its name.
struct Candidate {
    spec: PolicySpec,
    comment: Option<PolicyName>,
}

impl Reader {
    fn line(&mut self, number: usize, text: &str) {
        if let Some(comment) = text.strip_prefix('#') {
            if comment.contains("tables-save") {
                self.is_ipv6 = comment.contains("ip6tables-save");
            }
        } else if let Some(table) = text.strip_prefix('*') {
            self.table = Some(table.into());
        } else if text == "COMMIT" {
            self.table = None;
        } else if !text.is_empty() && !text.starts_with(':') {
            let is_shell = !text.starts_with(['-', '[']);
            match split(text, is_shell) {
                Split::Words(words) => self.words(number, text, words),
                Split::Refused(reason) => self.leave_out(number, text, reason),
            }
        }
    }

    fn words(&mut self, number: usize, text: &str, words: Vec<String>) {
        let in_dump = (self.table.as_deref(), self.family());
        let rule = match Rule::read(words, in_dump) {
            Ok(rule) => rule,
            Err(reason) => return self.leave_out(number, text, reason),
        };
        let (family, place) = (rule.family, rule.place);
        let candidate = match rule.effect() {
            Effect::Nothing => return,
            Effect::Refused(reason) => return self.leave_out(number, text, reason),
            Effect::LeftOut(reason) => {
                self.leave_out(number, text, reason);
                None
            }
            Effect::Policy(spec, comment) => Some(Candidate { spec: *spec, comment }),
        };
        let chain = match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        };
        let at = match place {
            Place::Last => chain.len(),
            Place::At(index) => index.min(chain.len()),
        };
        chain.insert(at, candidate);
    }

    fn family(&self) -> Family {
        if self.is_ipv6 { Family::Ipv6 } else { Family::Ipv4 }
    }

    fn leave_out(&mut self, line: usize, rule: &str, reason: Refusal) {
        self.left_out.push(LeftOut { line, rule: rule.into(), reason });
    }

    fn finish(self) -> Imported {
        let candidates: Vec<_> = self.ipv4.into_iter().chain(self.ipv6).flatten().collect();
        let names = names(&candidates);
        let policies = candidates.into_iter().zip(names).filter_map(|(candidate, name)| {
            Policy::new(PolicySpec { name, ..candidate.spec }).ok()
        });
        Imported { policies: policies.collect(), left_out: self.left_out }
    }
}

/// A name for each: its comment, if no other before has the same, else the next free number.
fn names(candidates: &[Candidate]) -> Vec<PolicyName> {
    let mut taken = Vec::new();
    for candidate in candidates {
        let own = candidate.comment.clone().filter(|name| !taken.contains(&Some(name.clone())));
        taken.push(own);
    }
    let numbered = |number: usize| format!("imported-{number}").parse::<PolicyName>().ok();
    let used = taken.clone();
    let mut free = (1..).filter_map(numbered).filter(|name| !used.contains(&Some(name.clone())));
    taken.into_iter().filter_map(|name| name.or_else(|| free.next())).collect()
}

#[cfg(test)]
mod tests;
