//! Long base chains in parts.
//!
//! To resume the dump of a chain, the kernel passes over all rules before, so that the time of a dump grows with the
//! square of a chain's length. A long base chain ends with a `goto` to a chain with its next rules, and so on: from
//! there a packet returns to no rule, so that each rule does what it does in the base chain itself.

use std::collections::HashMap;

use crate::nftables::expr::{Immediate, Verdict};
use crate::nftables::{Chain, Rule};
use crate::table::layout::{self, FAMILY, TABLE};

/// The least rules of a part. A base chain of less than two parts is not divided.
pub(super) const MIN_PART: usize = 1024;

/// The most parts: the kernel follows a packet through 16 chains, and policies have chains in chains.
const MAX_PARTS: usize = 8;

/// The rules, chain by chain, with those of long base chains in parts of at least `min` rules.
pub(super) fn parted(chains: &mut Vec<Chain>, rules: Vec<Rule>, min: usize) -> Vec<Rule> {
    let runs = rules.chunk_by(|a, b| a.chain == b.chain);
    let runs = runs.filter_map(|run| Some((run.first()?.chain.clone(), run.len())));
    let counts: HashMap<_, _> = runs.collect();
    let part_len = |chain: &Chain| {
        let count = counts.get(&chain.name).filter(|count| **count >= 2 * min)?;
        Some((chain.name.clone(), min.max(count.div_ceil(MAX_PARTS))))
    };
    let base = chains.iter().filter(|chain| chain.hook.is_some());
    let long: HashMap<_, _> = base.filter_map(part_len).collect();
    if long.is_empty() {
        return rules;
    }
    let mut all = Vec::with_capacity(rules.len() + MAX_PARTS * long.len());
    let mut indexes: HashMap<String, usize> = HashMap::new();
    for rule in rules {
        let Some(len) = long.get(&rule.chain) else {
            all.push(rule);
            continue;
        };
        let index = indexes.entry(rule.chain.clone()).or_default();
        let (part, is_first) = (*index / len, (*index).is_multiple_of(*len));
        *index += 1;
        let name = layout::part(&rule.chain, part);
        if is_first && part > 0 {
            let before = layout::part(&rule.chain, part - 1);
            let next = Immediate::verdict(Verdict::Goto(name.clone())).into();
            all.push(Rule::new(FAMILY, TABLE, &before, vec![next]));
            let at = chains.iter().position(|chain| chain.name == before);
            chains
                .insert(at.map_or(chains.len(), |at| at + 1), Chain::regular(FAMILY, TABLE, &name));
        }
        all.push(Rule { chain: name, ..rule });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::Hook;

    #[test]
    fn long_base_chains_continue_in_other_chains() {
        let chains = |count: usize, min| {
            let mut chains = vec![
                Chain { hook: Some(Hook::new(4, 0)), ..Chain::regular(FAMILY, TABLE, "base") },
                Chain::regular(FAMILY, TABLE, "other"),
            ];
            let rule = |chain| Rule::new(FAMILY, TABLE, chain, Vec::new());
            let rules = [vec![rule("base"); count], vec![rule("other"); 50]].concat();
            let rules = parted(&mut chains, rules, min);
            let names = chains.into_iter().map(|chain| chain.name);
            let count = |name: &str| rules.iter().filter(|rule| rule.chain == name).count();
            names.map(|name| format!("{name}: {}", count(&name))).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(chains(19, 10), "base: 19, other: 50");
        // Each but the last has a rule more.
        assert_eq!(chains(21, 10), "base: 11, base.2: 11, base.3: 1, other: 50");
        let of_8 = chains(800, 10);
        assert!(of_8.ends_with("base.7: 101, base.8: 100, other: 50"), "{of_8}");
    }
}
