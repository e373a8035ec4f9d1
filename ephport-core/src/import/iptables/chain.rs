//! The rules of one chain, in order, by rule numbers as `-I`, `-D` and `-R` count them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One rule of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The index of the line's rule.
    pub(super) rule: usize,
    /// Which of the rules that iptables makes of the line: the pair of source and destination.
    pub(super) part: usize,
    /// The hash by which `-D` and `-C` find it.
    pub(super) key: u64,
}

/// The hash of a value, the same in every run.
pub(super) fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The most entries of a chunk.
const CHUNK: usize = 1024;

/// Entries in chunks, so that an insertion anywhere shifts few of them.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// None of them is empty.
    chunks: Vec<Vec<Entry>>,
    len: usize,
    /// How many entries have a key.
    counts: HashMap<u64, usize>,
}

impl Chain {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.chunks.iter().flatten().copied()
    }

    /// Whether an entry has this key.
    pub(super) fn contains(&self, key: u64) -> bool {
        self.counts.contains_key(&key)
    }

    /// Inserts before the entry at `index`; at the end if there are not so many.
    pub(super) fn insert(&mut self, index: usize, entry: Entry) {
        let index = index.min(self.len);
        self.len += 1;
        *self.counts.entry(entry.key).or_default() += 1;
        let (mut at, mut offset) = (0, index);
        while let Some(chunk) = self.chunks.get(at).filter(|chunk| chunk.len() < offset) {
            offset -= chunk.len();
            at += 1;
        }
        let last = self.chunks.len().saturating_sub(1);
        let at = at.min(last);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return self.chunks.push(vec![entry]);
        };
        chunk.insert(offset, entry);
        if chunk.len() > CHUNK {
            // Chunks that were filled from an end of the chain stay full.
            let tail = chunk.split_off(match (at, offset) {
                (0, 0) => 1,
                (_, CHUNK..) if at == last => CHUNK,
                _ => CHUNK / 2,
            });
            self.chunks.insert(at + 1, tail);
        }
    }

    /// Removes the entry at `index`.
    pub(super) fn remove(&mut self, index: usize) -> Option<Entry> {
        let (mut at, mut offset) = (0, index);
        while let Some(chunk) = self.chunks.get(at).filter(|chunk| chunk.len() <= offset) {
            offset -= chunk.len();
            at += 1;
        }
        let chunk = self.chunks.get_mut(at)?;
        let entry = chunk.remove(offset);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        self.forget(entry.key);
        Some(entry)
    }

    /// Removes the first entry with this key.
    pub(super) fn remove_key(&mut self, key: u64) -> Option<Entry> {
        let index = self.contains(key).then(|| self.iter().position(|entry| entry.key == key));
        self.remove(index.flatten()?)
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) -> Vec<Entry> {
        std::mem::take(self).chunks.concat()
    }

    fn forget(&mut self, key: u64) {
        self.len -= 1;
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chain_is_a_list(steps in prop::collection::vec((0..4u8, 0..3000usize), 0..200)) {
            let (mut chain, mut list) = (Chain::default(), Vec::new());
            for (rule, (step, index)) in steps.into_iter().enumerate() {
                let entry = Entry { rule, part: 0, key: (rule % 7) as u64 };
                match step {
                    0 | 1 => {
                        // A few thousand entries make several chunks.
                        for part in 0..100 {
                            let entry = Entry { part, ..entry };
                            list.insert(index.min(list.len()), entry);
                            chain.insert(index, entry);
                        }
                    }
                    2 => {
                        let removed = (index < list.len()).then(|| list.remove(index));
                        prop_assert_eq!(chain.remove(index), removed);
                    }
                    _ => {
                        let at = list.iter().position(|other| other.key == entry.key);
                        prop_assert_eq!(chain.remove_key(entry.key), at.map(|at| list.remove(at)));
                    }
                }
            }
            prop_assert_eq!(chain.len(), list.len());
            prop_assert!(chain.iter().eq(list.iter().copied()));
            prop_assert!(chain.clear() == list);
        }
    }
}
