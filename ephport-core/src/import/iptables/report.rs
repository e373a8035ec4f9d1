//! The outcome of an import.

use std::fmt;

use super::reason::SkipReason;
use crate::policy::{Policy, PolicyName};
use crate::text::{excerpt, quoted};

/// The most characters of a reason in a message.
const MAX_REASON: usize = 400;

/// The most characters of a rule in a message.
const MAX_RULE: usize = 240;

/// The policies of a text, and what did not become one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Policies in the order of the chain, first those for IPv4; each has a name of its own: the
    /// rule's comment, if it can be one, else `imported-1` and so on.
    pub policies: Vec<Policy>,
    /// The translations, and other rules of POSTROUTING, that are not among them; in order of the
    /// text.
    pub skipped: Vec<Skipped>,
    /// What was assumed or bounded.
    pub notes: Vec<Note>,
}

/// A line that did not become a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Its number in the text, from 1; of several that a backslash joins, the first's.
    pub line: usize,
    /// The line as it was written.
    pub rule: Box<str>,
    /// Why it did not.
    pub reason: SkipReason,
    /// The policies whose packets the rule may match before them in the chain.
    pub shadows: Shadows,
}

/// Policies that come after a rule of the chain; ephport applies them all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shadows {
    /// The first of them, at most eight, in order.
    pub policies: Vec<PolicyName>,
    /// Whether there are others.
    pub has_more: bool,
}

/// What was assumed or bounded in an import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Rules whose text does not name an address family are read as rules for IPv4.
    AssumedFamily {
        /// The first line of such rules, from 1.
        first: usize,
        /// The last.
        last: usize,
    },
    /// A rule is inserted after the end of the chain, which iptables refuses unless the chain has
    /// other rules than those of the text; it is appended.
    PastEnd {
        /// The line, from 1.
        line: usize,
        /// The rule number.
        number: usize,
        /// How many rules the chain has.
        len: usize,
    },
    /// A command runs in another network namespace, container or host.
    Elsewhere {
        /// The line, from 1.
        line: usize,
        /// The words before the program.
        by: Box<str>,
    },
    /// A rule of any table assigns timeouts to connections (`CT --timeout`), which no policy gets.
    Timeouts {
        /// The line, from 1; that of the first of several.
        line: usize,
        /// The name of the timeouts.
        name: Box<str>,
    },
    /// There are too many rules to find every policy over which one wins: from this line on, not
    /// all are named.
    NotCompared {
        /// The line, from 1.
        line: usize,
    },
}

/// `line 2: no ports: ...: RULE`, and the policies over which the rule wins.
///
/// Control characters are escaped, and long values are cut.
impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason.to_string();
        write!(f, "line {}: {}", self.line, excerpt(&reason).up_to(MAX_REASON))?;
        write!(f, ": {}", quoted(&self.rule).up_to(MAX_RULE))?;
        if self.shadows.policies.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.shadows.policies.iter().map(PolicyName::as_str).collect();
        let others = if self.shadows.has_more { " and others" } else { "" };
        write!(f, "; it wins over {}{others} in iptables, not over the policies", names.join(", "))
    }
}

impl Note {
    /// The stable name of this kind of note.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AssumedFamily { .. } => "assumed-family",
            Self::PastEnd { .. } => "past-end",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Timeouts { .. } => "timeouts",
            Self::NotCompared { .. } => "not-compared",
        }
    }

    /// The first and the last line that it concerns, from 1.
    #[must_use]
    pub const fn lines(&self) -> (usize, usize) {
        match self {
            Self::AssumedFamily { first, last } => (*first, *last),
            Self::PastEnd { line, .. }
            | Self::Elsewhere { line, .. }
            | Self::Timeouts { line, .. }
            | Self::NotCompared { line } => (*line, *line),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AssumedFamily { first, last } if first == last => {
                write!(f, "line {first}: neither IPv4 nor IPv6 is named: IPv4 is assumed")
            }
            Self::AssumedFamily { first, last } => {
                write!(
                    f,
                    "lines {first} to {last}: neither IPv4 nor IPv6 is named: IPv4 is assumed"
                )
            }
            Self::PastEnd { line, number, len } => write!(
                f,
                "line {line}: rule number {number} is past the end of the chain, which has {len} \
                 rules in this text: the rule is appended"
            ),
            Self::Elsewhere { line, by } => write!(
                f,
                "line {line}: {} runs the command elsewhere: apply the policy there",
                quoted(by).up_to(MAX_RULE)
            ),
            Self::Timeouts { line, name } => write!(
                f,
                "line {line}: the timeouts {} are not imported: `timeouts` of a policy assigns some",
                quoted(name).up_to(MAX_RULE)
            ),
            Self::NotCompared { line } => write!(
                f,
                "line {line}: too many rules to name every policy over which one wins from here on"
            ),
        }
    }
}
