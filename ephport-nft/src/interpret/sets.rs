//! What a set holds for a key.

use crate::object::Element;
use crate::ruleset::FilledSet;

use super::registers::Drawn;

/// The element for `key`: in an interval set the one that begins the range around it.
pub(super) fn find<'a>(filled: &'a FilledSet, key: &[u8]) -> Option<&'a Element> {
    let mut elements = filled.elements.iter();
    if !filled.set.is_interval() {
        return elements.rfind(|element| element.key_bytes() == Some(key));
    }
    // Of two at one key, the beginning of a range follows the end of another.
    elements
        .filter(|element| element.key_bytes().is_some_and(|own| own <= key))
        .max_by_key(|element| (element.key_bytes(), !element.is_end()))
        .filter(|element| !element.is_end())
}

/// Numbers that stand for all that can be drawn, and for how many each of them stands: neighbours
/// have the same answer up to the next key, and numbers that are no key of a set without ranges
/// all have none. `None` for ranges of numbers that are not in network order, which is that of keys.
pub(super) fn representatives(filled: &FilledSet, drawn: &Drawn) -> Option<Vec<(u32, u32)>> {
    let key = |element: &Element| {
        let bytes = element.key_bytes()?.try_into().ok()?;
        Some(if drawn.is_network { u32::from_be_bytes(bytes) } else { u32::from_ne_bytes(bytes) })
    };
    let mut keys: Vec<_> = filled.elements.iter().filter_map(key).collect();
    if filled.set.is_interval() {
        keys.push(0);
    }
    keys.retain(|key| *key < drawn.below);
    keys.sort_unstable();
    keys.dedup();
    if filled.set.is_interval() {
        let ends = keys.iter().skip(1).copied().chain([drawn.below]);
        let ranges = keys.iter().zip(ends).map(|(first, end)| (*first, end - first));
        return drawn.is_network.then(|| ranges.collect());
    }
    let others = drawn.below - u32::try_from(keys.len()).ok()?;
    let other = (0..drawn.below).find(|number| keys.binary_search(number).is_err());
    let of_keys = keys.iter().map(|key| (*key, 1));
    Some(of_keys.chain(other.map(|number| (number, others))).collect())
}
