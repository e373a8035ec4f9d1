//! A table that is read beside another: what is equal in both is held once.
//!
//! The installed table mostly is the desired one. Each set and each rule is compared as it arrives, and only those
//! that differ are held in addition.

use std::collections::HashMap;

use crate::nftables::expr::Expr;
use crate::nftables::{ExprList, Rule};
use crate::table::{Set, TableState};

/// The most rules of a chain that are passed over: so many may be missing in the installed chain in one place.
const MAX_PASSED: usize = 8;

/// The parts of a table, by name.
#[derive(Default)]
pub(super) struct Beside<'a> {
    sets: HashMap<&'a str, &'a Set>,
    chains: HashMap<&'a str, &'a [Rule]>,
}

impl<'a> From<&'a TableState> for Beside<'a> {
    fn from(table: &'a TableState) -> Self {
        let sets = table.sets.iter().map(|set| (set.spec.name.as_str(), set));
        let chains = table.rules.chunk_by(|a, b| a.chain == b.chain);
        let chains = chains.filter_map(|rules| Some((rules.first()?.chain.as_str(), rules)));
        Self { sets: sets.collect(), chains: chains.collect() }
    }
}

impl<'a> Beside<'a> {
    /// The set, which shares its elements with the known one of this name if it has the same ones.
    pub(super) fn set(&self, set: Set) -> Set {
        let known = self.sets.get(set.spec.name.as_str());
        let is_same = |known: &&&Set| set.elements.normalized() == known.elements.normalized();
        match known.filter(is_same) {
            Some(known) => Set { elements: known.elements.clone(), spec: set.spec },
            None => set,
        }
    }

    /// The known rules of a chain.
    pub(super) fn chain(&self, name: &str) -> BesideChain<'a> {
        BesideChain(self.chains.get(name).copied().unwrap_or_default())
    }
}

/// The known rules of a chain, from the first that can be the next one of the installed chain.
pub(super) struct BesideChain<'a>(&'a [Rule]);

impl BesideChain<'_> {
    /// The next rule, which shares its expressions with the known rule that has the same ones.
    pub(super) fn rule(&mut self, rule: Rule) -> Rule {
        let mut rest = self.0.iter();
        match rest.by_ref().take(MAX_PASSED).find(|known| is_same(&known.exprs, &rule.exprs)) {
            Some(known) => {
                self.0 = rest.as_slice();
                Rule { exprs: known.exprs.clone(), ..rule }
            }
            None => rule,
        }
    }
}

/// Whether the expressions are the same but for what the kernel adds when it lists them. Counters are not.
fn is_same(known: &ExprList, found: &ExprList) -> bool {
    let is_same = |(known, found): (&Expr, &Expr)| match (known, found) {
        (Expr::Counter(known), Expr::Counter(found)) => known == found,
        _ => known == found || known.normalized() == found.normalized(),
    };
    known.len() == found.len() && known.iter().zip(found).all(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::Table;
    use crate::nftables::expr::{Counter, Immediate, Verdict};

    fn rule(number: u32, packets: u64) -> Rule {
        let exprs = vec![
            Immediate::verdict(Verdict::Other(number)).into(),
            Counter { packets, ..Counter::default() }.into(),
        ];
        Rule::new(1, "t", "c", exprs)
    }

    #[test]
    fn equal_rules_are_shared_across_others() {
        let known = TableState {
            rules: [1, 2, 3, 4, 5].map(|number| rule(number, 0)).to_vec(),
            ..TableState::empty(Table::new(1, "t"))
        };
        let beside = Beside::from(&known);
        let mut chain = beside.chain("c");
        // The second is missing, the ninth is another one, the third has a count.
        let found = [rule(1, 0), rule(9, 0), rule(3, 7), rule(4, 0), rule(5, 0)];
        let shared = found.clone().map(|rule| chain.rule(rule));
        assert_eq!(shared, found);
        let is_shared = |rule: &Rule| {
            known.rules.iter().any(|known| std::ptr::eq(known.exprs.as_ptr(), rule.exprs.as_ptr()))
        };
        assert_eq!(shared.each_ref().map(is_shared), [true, false, false, true, true]);
    }
}
