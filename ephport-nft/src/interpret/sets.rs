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

/// Numbers that stand for all that can be drawn: in an interval set neighbours have the same answer
/// up to the next key.
pub(super) fn representatives(filled: &FilledSet, drawn: Drawn) -> Vec<u32> {
    if !filled.set.is_interval() || !drawn.is_network {
        return (0..drawn.below).collect();
    }
    let key = |element: &Element| element.key_bytes()?.try_into().ok().map(u32::from_be_bytes);
    let keys = filled.elements.iter().filter_map(key).filter(|key| *key < drawn.below);
    [0].into_iter().chain(keys).collect()
}
