//! What a ruleset is, whatever the kernel calls its parts.

use std::collections::HashMap;

use super::{Set, TableState};
use crate::nftables::expr::Expr;
use crate::nftables::{Chain, Rule};

impl TableState {
    /// The ruleset as it was asked for: without the kernel's own numbers, its counters at zero, its
    /// chains and sets in order of their names. Two rulesets do the same when their essences are
    /// equal.
    ///
    /// An anonymous set has its name from whoever made it; here it is numbered by its first use.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let mut rules: Vec<_> = self.rules.iter().map(Rule::normalized).collect();
        rules.sort_by(|a, b| a.chain.cmp(&b.chain));
        let names = self.names_by_use(&rules);
        let rename = |name: &mut String| {
            if let Some(new) = names.get(name.as_str()) {
                name.clone_from(new);
            }
        };
        let mut sets: Vec<_> = self.sets.iter().map(Set::normalized).collect();
        for filled in &mut sets {
            rename(&mut filled.spec.name);
        }
        sets.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        for expr in rules.iter_mut().flat_map(|rule| &mut rule.exprs) {
            if let Expr::Lookup(lookup) = expr {
                rename(&mut lookup.set);
            }
        }
        let mut chains: Vec<_> = self.chains.iter().map(Chain::normalized).collect();
        chains.sort_by(|a, b| a.name.cmp(&b.name));
        let mut unknown = self.unknown.clone();
        unknown.sort();
        Self { table: self.table.normalized(), chains, sets, rules, unknown }
    }

    /// A new name for each anonymous set, numbered as these rules use them.
    fn names_by_use(&self, rules: &[Rule]) -> HashMap<String, String> {
        let anonymous =
            self.sets.iter().map(|filled| &filled.spec).filter(|set| set.is_anonymous());
        let is_map: HashMap<_, _> =
            anonymous.map(|set| (set.name.as_str(), set.is_map())).collect();
        let mut names = HashMap::new();
        let (mut sets, mut maps) = (0u32.., 0u32..);
        let exprs = rules.iter().flat_map(|rule| &rule.exprs);
        for expr in exprs {
            let Expr::Lookup(lookup) = expr else { continue };
            let name = lookup.set.as_str();
            if let Some(is_map) = is_map.get(name) {
                names.entry(name.to_string()).or_insert_with(|| match is_map {
                    true => format!("__map{}", maps.next().unwrap_or(u32::MAX)),
                    false => format!("__set{}", sets.next().unwrap_or(u32::MAX)),
                });
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::Table;
    use crate::nftables::expr::{Immediate, Verdict};

    #[test]
    fn the_order_of_rules_counts_within_their_chain_alone() {
        let chain = |name| Chain::regular(1, "t", name);
        let rule =
            |chain, verdict| Rule::new(1, "t", chain, vec![Immediate::verdict(verdict).into()]);
        let ruleset = |rules| TableState {
            chains: vec![chain("b"), chain("a")],
            rules,
            ..TableState::empty(Table::new(1, "t"))
        };
        let (first, second) = (rule("b", Verdict::Drop), rule("b", Verdict::Accept));
        let other = rule("a", Verdict::Return);
        let listed = ruleset(vec![first.clone(), second.clone(), other.clone()]);
        let written = ruleset(vec![other.clone(), first.clone(), second.clone()]);
        assert_eq!(written.normalized(), listed.normalized());
        assert_eq!(written.checksum(), listed.checksum());
        let turned = ruleset(vec![second, first, other]);
        assert_ne!(turned.normalized(), listed.normalized());
    }
}
