//! A ruleset as text in nft's own syntax.
//!
//! A rule is a program over registers; to write it down, each register's content is followed as a
//! term (`meta l4proto`, `th sport`, a constant) until an expression uses it. A rule that nft has
//! no words for is printed as a comment, from where they end as bytecode, so that the text never says
//! less than the table does.

mod bytecode;
mod nat;
mod sets;
mod statements;
mod terms;
mod values;

use std::fmt;

use crate::table::{Set, TableState};

use bytecode::family;

use crate::nftables::expr::Expr;
use crate::nftables::{Chain, Rule};
use crate::uapi::{NF_ACCEPT, NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC};

pub use bytecode::Bytecode;
pub(crate) use nat::CHOICES;
pub(crate) use sets::element_words;
use statements::Said;
pub(crate) use values::address as address_of;

/// Prints a ruleset so that `nft -f` loads the same.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a>(&'a TableState);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableState { table, chains, .. } = self.0;
        // What a set needs only for its printing is left out here once for all rules.
        let sets: Vec<_> = self.0.sets.iter().map(Set::normalized).collect();
        writeln!(f, "table {} {} {{", family(table.family), table.name)?;
        if let Some(comment) = table.comment() {
            writeln!(f, "\tcomment \"{}\"", comment.as_str())?;
        }
        for filled in sets.iter().filter(|filled| !filled.spec.is_anonymous()) {
            sets::declaration(f, filled)?;
            writeln!(f)?;
        }
        for (i, chain) in chains.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.chain(f, chain, &sets)?;
        }
        writeln!(f, "}}")
    }
}

impl Listing<'_> {
    fn chain(self, f: &mut fmt::Formatter<'_>, chain: &Chain, sets: &[Set]) -> fmt::Result {
        writeln!(f, "\tchain {} {{", chain.name)?;
        if chain.hook.is_some() && chain.chain_type.is_some() {
            writeln!(f, "\t\t{}", chain_words(chain))?;
        }
        for rule in self.0.rules_of(&chain.name) {
            writeln!(f, "\t\t{}", Line { rule, sets })?;
        }
        writeln!(f, "\t}}")
    }
}

/// A priority as nft writes it in postrouting: relative to where source NAT is.
struct Priority(i32);

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.saturating_sub(NF_IP_PRI_NAT_SRC) {
            0 => f.write_str("srcnat"),
            above @ 1..=10 => write!(f, "srcnat + {above}"),
            below @ -10..=-1 => write!(f, "srcnat - {}", -below),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// One line that `nft` reads, or a comment where nft has no words for the rule.
struct Line<'a> {
    rule: &'a Rule,
    /// Essences.
    sets: &'a [Set],
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { statements, rest } = statements::statements(self.rule, self.sets);
        if rest.iter().any(|expr| matches!(expr, Expr::Opaque(_))) {
            f.write_str("# ephport does not know all of this rule: ")?;
        } else if !rest.is_empty() {
            f.write_str("# nft cannot list all of this rule: ")?;
        }
        f.write_str(&joined(statements, rest))?;
        match self.rule.comment() {
            Some(comment) => write!(f, " comment \"{}\"", comment.as_str()),
            None => Ok(()),
        }
    }
}

fn joined(statements: Vec<String>, rest: &[Expr]) -> String {
    let rest = rest.iter().map(ToString::to_string);
    statements.into_iter().chain(rest).collect::<Vec<_>>().join(" ")
}

/// What a rule does, in nft's words, and from where nft has none as bytecode. The sets are essences.
pub(crate) fn rule_words(rule: &Rule, sets: &[Set]) -> String {
    let Said { statements, rest } = statements::statements(rule, sets);
    joined(statements, rest)
}

/// How a base chain is entered, and what happens at its end; nothing of another.
pub(crate) fn chain_words(chain: &Chain) -> String {
    let (Some(hook), Some(kind)) = (&chain.hook, &chain.chain_type) else { return String::new() };
    let at = if hook.number == NF_INET_POST_ROUTING { "postrouting" } else { "unknown" };
    let (priority, policy) = (Priority(hook.priority), policy(chain));
    format!("type {kind} hook {at} priority {priority}; policy {policy};")
}

fn policy(chain: &Chain) -> &'static str {
    if chain.policy == Some(NF_ACCEPT) { "accept" } else { "drop" }
}

impl TableState {
    /// As text that `nft -f` loads.
    #[must_use]
    pub fn to_nft(&self) -> Listing<'_> {
        Listing(self)
    }

    /// As the instructions that `nft --debug=netlink` prints.
    #[must_use]
    pub fn bytecode(&self) -> Bytecode<'_> {
        Bytecode(self)
    }

    /// Each rule as it stands in the [`Listing`], in the order of `rules`.
    #[must_use]
    pub fn rule_listings(&self) -> Vec<String> {
        let sets: Vec<_> = self.sets.iter().map(Set::normalized).collect();
        self.rules.iter().map(|rule| Line { rule, sets: &sets }.to_string()).collect()
    }
}

/// As in a [`Listing`]; a set that the rule uses is not known here.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Line { rule: self, sets: &[] }.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::expr::{Hash, Payload, Register};
    use crate::table::layout::{FAMILY, TABLE};

    #[test]
    fn priorities_are_relative_to_source_nat_as_far_as_nft_says_so() {
        let cases = [
            (100, "srcnat"),
            (90, "srcnat - 10"),
            (110, "srcnat + 10"),
            (89, "89"),
            (111, "111"),
            (i32::MIN, "-2147483648"),
        ];
        for (priority, words) in cases {
            assert_eq!(Priority(priority).to_string(), words);
        }
    }

    #[test]
    fn a_hash_beyond_all_registers_has_no_words() {
        let hash = Hash {
            sreg: Register(u32::MAX),
            dreg: Register(1),
            len: u32::MAX,
            modulus: 2,
            seed: None,
            offset: None,
            hash_type: 0,
        };
        let load = Payload { dreg: Register(u32::MAX), ..Payload::SOURCE_PORT };
        let rule = Rule::new(FAMILY, TABLE, "c", vec![load.into(), hash.into()]);
        assert!(rule.to_string().starts_with("# nft cannot list all of this rule: "));
    }
}
