//! The normalized view of a table: everything that was asked for, and nothing that the kernel or nft
//! adds.
//!
//! Handles, counters, the names of anonymous sets, the order of chains, of sets and of elements, and the
//! fingerprint are not part of it. The view borrows the table; it is compared and hashed part by part.

use std::collections::HashMap;
use std::fmt;

use super::TableState;
use super::fingerprint::fingerprint_of;
use super::layout::timeouts_of;
use super::set::NormalizedSet;
use crate::netlink::{CodecError, Writer};
use crate::nftables::expr::{Expr, Lookup};
use crate::nftables::{Chain, CtTimeout, ElementRef, Rule, Table, UnknownObject};
use crate::uapi::NFTA_RULE_EXPRESSIONS;

/// A borrowing view of a [`TableState`]. Two tables do the same when their views are equal.
pub struct Normalized<'a> {
    pub(crate) table: &'a Table,
    /// By name.
    pub(crate) chains: Vec<&'a Chain>,
    /// By chain; the rules of one chain in their order.
    pub(crate) rules: Vec<&'a Rule>,
    /// By name.
    pub(crate) timeouts: Vec<CtTimeout>,
    /// In order.
    pub(crate) unknown: Vec<&'a UnknownObject>,
    /// Named and anonymous sets by name.
    sets: HashMap<&'a str, NormalizedSet<'a>>,
}

/// One part of the view, encoded by itself.
#[derive(Clone, Copy)]
enum Part<'a> {
    Table(&'a Table),
    Chain(&'a Chain),
    Set(&'a NormalizedSet<'a>),
    Element(ElementRef<'a>),
    Rule(&'a Rule),
    Timeout(&'a CtTimeout),
    Unknown(&'a UnknownObject),
}

impl TableState {
    /// The normalized view of the table.
    #[must_use]
    pub fn normalized(&self) -> Normalized<'_> {
        let mut chains: Vec<_> = self.chains.iter().collect();
        chains.sort_by(|a, b| a.name.cmp(&b.name));
        // Rules are chain by chain: there are fewer runs to sort than rules.
        let mut runs: Vec<_> = self.rules.chunk_by(|a, b| a.chain == b.chain).collect();
        runs.sort_by(|a, b| {
            let [a, b] = [a, b].map(|run| run.first().map(|rule| &rule.chain));
            a.cmp(&b)
        });
        let rules = runs.into_iter().flatten().collect();
        let sets = self.sets.iter().map(|set| (set.spec.name.as_str(), set.normalized())).collect();
        let timeouts = self.timeouts.iter();
        let timeouts = timeouts.map(|object| object.normalized(timeouts_of(&object.name).as_ref()));
        let mut timeouts: Vec<_> = timeouts.collect();
        timeouts.sort_by(|a, b| a.name.cmp(&b.name));
        let mut unknown: Vec<_> = self.unknown.iter().collect();
        unknown.sort();
        Normalized { table: &self.table, chains, rules, timeouts, unknown, sets }
    }
}

impl<'a> Normalized<'a> {
    /// The timeouts of this name.
    pub(crate) fn timeout(&self, name: &str) -> Option<&CtTimeout> {
        self.timeouts.iter().find(|object| object.name == name)
    }

    /// The set of this name.
    pub(crate) fn set(&self, name: &str) -> Option<&NormalizedSet<'a>> {
        self.sets.get(name)
    }

    /// The sets with names of their own, by name.
    pub(crate) fn named_sets(&self) -> Vec<&NormalizedSet<'a>> {
        let mut named: Vec<_> = self.sets.values().filter(|set| !set.spec.is_anonymous()).collect();
        named.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        named
    }

    /// The chain of this name.
    pub(crate) fn chain(&self, name: &str) -> Option<&'a Chain> {
        let at = self.chains.binary_search_by(|chain| chain.name.as_str().cmp(name)).ok()?;
        self.chains.get(at).copied()
    }

    /// The rules of one chain.
    pub(crate) fn rules_of(&self, chain: &str) -> &[&'a Rule] {
        let first = self.rules.partition_point(|rule| rule.chain.as_str() < chain);
        let rest = self.rules.get(first..).unwrap_or_default();
        let (rules, _) = rest.split_at(rest.partition_point(|rule| rule.chain == chain));
        rules
    }

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let chains = self.chains.iter().map(|chain| Part::Chain(chain));
        let sets = self.named_sets().into_iter().flat_map(|set| {
            let elements = set.elements.iter().map(Part::Element);
            [Part::Set(set)].into_iter().chain(elements)
        });
        let rules = self.rules.iter().map(|rule| Part::Rule(rule));
        let unknown = self.unknown.iter().map(|object| Part::Unknown(object));
        let first = [Part::Table(self.table)].into_iter();
        let timeouts = self.timeouts.iter().map(Part::Timeout);
        first.chain(chains).chain(sets).chain(timeouts).chain(rules).chain(unknown)
    }

    /// Encodes a part, which begins with the kind of the part.
    fn encode(&self, part: Part<'_>, w: &mut Writer) {
        match part {
            Part::Table(table) => {
                w.raw(b"TABL");
                table.normalized().encode(w);
            }
            Part::Chain(chain) => {
                w.raw(b"CHAI");
                chain.normalized().encode(w);
            }
            Part::Set(set) => {
                w.raw(b"SETS");
                set.spec.normalized().encode(w);
                set.elements.check(w);
            }
            Part::Element(element) => {
                w.raw(b"ELEM");
                element.encode(w);
            }
            Part::Rule(rule) => {
                w.raw(b"RULE");
                self.write_rule(rule, w);
            }
            Part::Timeout(object) => {
                w.raw(b"TIME");
                object.encode(w);
            }
            Part::Unknown(UnknownObject { message, object_type, name }) => {
                w.u32_be(*message, object_type.unwrap_or(u32::MAX));
                w.bytes(*message, name);
            }
        }
    }

    /// Calls `visit` with the encoding of each part, one after another.
    ///
    /// # Errors
    /// A part that is too long for netlink.
    pub(super) fn encodings(&self, mut visit: impl FnMut(&[u8])) -> Result<(), CodecError> {
        let mut w = Writer::new();
        for part in self.parts() {
            self.encode(part, &mut w);
            visit(w.written()?);
            w.clear();
        }
        Ok(())
    }

    /// Whether a part of both is the same.
    fn has_same(&self, own: Part<'_>, other: &Normalized<'_>, others: Part<'_>) -> bool {
        if let (Part::Rule(own), Part::Rule(others)) = (own, others) {
            return self.is_same_rule(own, other, others);
        }
        let (mut ours, mut theirs) = (Writer::new(), Writer::new());
        self.encode(own, &mut ours);
        other.encode(others, &mut theirs);
        ours.into_bytes() == theirs.into_bytes()
    }

    /// Whether a rule of this table and one of the other do the same.
    pub(crate) fn is_same_rule(&self, own: &Rule, other: &Normalized<'_>, others: &Rule) -> bool {
        let is_plain = |expr: &Expr| !matches!(expr, Expr::Lookup(_));
        let is_same = |(a, b): (&Expr, &Expr)| is_plain(a) && a.normalized() == b.normalized();
        // Mostly the values are the same, and need not be encoded.
        (own.exprs.len() == others.exprs.len()
            && own.exprs.iter().zip(&others.exprs).all(is_same)
            && (own.family, &own.table, &own.chain)
                == (others.family, &others.table, &others.chain)
            && own.userdata == others.userdata
            && own.other == others.other)
            || self.rule_bytes(own) == other.rule_bytes(others)
    }

    /// The encoding of one of the rules.
    pub(crate) fn rule_bytes(&self, rule: &Rule) -> Vec<u8> {
        let mut w = Writer::new();
        self.write_rule(rule, &mut w);
        w.into_bytes()
    }

    /// Anonymous sets are encoded after the rule, without their names.
    fn write_rule(&self, rule: &Rule, w: &mut Writer) {
        let userdata = rule.userdata.clone().filter(|_| fingerprint_of(rule).is_none());
        let Rule { family, table, chain, other, .. } = rule;
        Rule { userdata, other: other.clone(), ..Rule::new(*family, table, chain, Vec::new()) }
            .encode(w);
        let anonymous =
            |lookup: &Lookup| self.set(&lookup.set).filter(|set| set.spec.is_anonymous());
        w.nested(NFTA_RULE_EXPRESSIONS, |w| {
            for expr in &rule.exprs {
                match expr {
                    Expr::Lookup(lookup) if anonymous(lookup).is_some() => {
                        let nameless = Lookup { set: String::new(), ..lookup.normalized() };
                        Expr::from(nameless).encode(w);
                    }
                    _ => expr.normalized().encode(w),
                }
            }
        });
        for expr in &rule.exprs {
            if let Expr::Lookup(lookup) = expr
                && let Some(set) = anonymous(lookup)
            {
                set.write(w);
            }
        }
    }
}

impl PartialEq for Normalized<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (mut own, mut others) = (self.parts(), other.parts());
        loop {
            match (own.next(), others.next()) {
                (None, None) => return true,
                (Some(Part::Element(a)), Some(Part::Element(b))) if a == b => {}
                (Some(a), Some(b)) if self.has_same(a, other, b) => {}
                _ => return false,
            }
        }
    }
}

impl Eq for Normalized<'_> {}

impl fmt::Debug for Normalized<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} chains, {} sets, {} rules",
            self.chains.len(),
            self.sets.len(),
            self.rules.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::expr::{Immediate, Verdict};

    #[test]
    fn order_of_rules_counts_only_within_a_chain() {
        let chain = |name| Chain::regular(1, "t", name);
        let rule =
            |chain, verdict| Rule::new(1, "t", chain, vec![Immediate::verdict(verdict).into()]);
        let table = |rules| TableState {
            chains: vec![chain("b"), chain("a")],
            rules,
            ..TableState::empty(Table::new(1, "t"))
        };
        let (first, second) = (rule("b", Verdict::Drop), rule("b", Verdict::Accept));
        let other = rule("a", Verdict::Return);
        let listed = table(vec![first.clone(), second.clone(), other.clone()]);
        let written = table(vec![other.clone(), first.clone(), second.clone()]);
        assert_eq!(written.normalized(), listed.normalized());
        assert_eq!(written.checksum(), listed.checksum());
        let turned = table(vec![second, first, other]);
        assert_ne!(turned.normalized(), listed.normalized());
    }
}
