//! Longest common subsequences: the rules of a chain that need not change.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The most pairs of equal items per item for which the result is a longest one: only lists of many equal
/// items have more.
const MAX_PAIRS: usize = 32;

/// The pairs of indexes of a common subsequence, ascending. It is a longest one unless the lists contain
/// very many equal items.
///
/// The algorithm is that of Hunt and Szymanski (1977): time grows as r log n, with r the count of pairs of
/// equal items, which is the length of the lists where no item is repeated.
pub(super) fn longest_common<T: Copy + Eq + Hash>(old: &[T], new: &[T]) -> Vec<(usize, usize)> {
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let mut places: HashMap<T, VecDeque<usize>> = HashMap::new();
    for (at, item) in new.iter().enumerate().skip(same) {
        places.entry(*item).or_default().push_back(at);
    }
    let pairs: usize =
        old.iter().skip(same).filter_map(|item| places.get(item)).map(VecDeque::len).sum();
    let is_repetitive = pairs > MAX_PAIRS.saturating_mul(old.len() + new.len());
    // The last link of the best chain of each length, by length.
    let mut best: Vec<Link> = Vec::new();
    let mut links: Vec<Link> = Vec::new();
    for (i, item) in old.iter().enumerate().skip(same) {
        let Some(places) = places.get_mut(item) else { continue };
        if is_repetitive {
            // Each item is paired only with the same occurrence in the other list.
            let Some(first) = places.pop_front() else { continue };
            extend(&mut best, &mut links, i, first);
        } else {
            places.iter().rev().for_each(|j| extend(&mut best, &mut links, i, *j));
        }
    }
    let mut pairs = Vec::with_capacity(same + best.len());
    let mut next = best.last().copied();
    while let Some(link) = next {
        pairs.push((link.old, link.new));
        next = link.before.and_then(|at| links.get(at)).copied();
    }
    pairs.extend((0..same).rev().map(|at| (at, at)));
    pairs.reverse();
    pairs
}

/// A pair of a chain of pairs.
#[derive(Clone, Copy)]
struct Link {
    old: usize,
    new: usize,
    /// The index of the pair before it.
    before: Option<usize>,
    /// The index of this pair.
    index: usize,
}

fn extend(best: &mut Vec<Link>, links: &mut Vec<Link>, old: usize, new: usize) {
    let len = best.partition_point(|link| link.new < new);
    let before = len.checked_sub(1).and_then(|at| best.get(at)).map(|link| link.index);
    let link = Link { old, new, before, index: links.len() };
    links.push(link);
    match best.get_mut(len) {
        Some(longest) => *longest = link,
        None => best.push(link),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_items_keep_their_order() {
        let common = |old: &str, new: &str| {
            let (old, new): (Vec<_>, Vec<_>) = (old.chars().collect(), new.chars().collect());
            longest_common(&old, &new).iter().map(|(i, _)| old[*i]).collect::<String>()
        };
        assert_eq!(common("abcdef", "abcdef"), "abcdef");
        assert_eq!(common("abcdef", "xacxfe").len(), 3);
        assert_eq!(common("", "abc"), "");
        assert_eq!(common("abc", "cba").len(), 1);
        assert_eq!(common("aab", "aba").len(), 2);
    }

    /// Quadratic work on them would not end for minutes.
    #[test]
    fn long_lists_are_compared() {
        const LEN: u32 = 100_000;
        let list: Vec<_> = (0..LEN).collect();
        let others: [Vec<u32>; 4] = [
            (0..LEN).rev().collect(),
            (LEN..2 * LEN).collect(),
            (0..LEN).map(|i| if i == LEN / 2 { LEN } else { i }).collect(),
            vec![7; 100_000],
        ];
        let lengths = [1, 0, 99_999, 1];
        for (other, expected) in others.iter().zip(lengths) {
            assert_eq!(longest_common(&list, other).len(), expected);
        }
        let repetitive = |first, count| [vec![first], vec![7; count]].concat();
        let common = longest_common(&repetitive(1, 100_000), &repetitive(2, 70_000));
        assert_eq!(common.len(), 70_000);
    }
}
