//! Lookups: the element of a set for a key.

use crate::nftables::expr::Lookup;
use crate::nftables::{DataLayout, ElementRef};
use crate::table::Set;
use crate::uapi::{NFT_DATA_VERDICT, NFT_SET_ELEM_INTERVAL_END};

use super::path::Draw;
use super::registers::{Drawn, Registers};

/// Whether the kernel accepts the set: each key and value has the declared length, each key of a map has
/// a value, and ends are without a value and only in interval sets.
fn is_sound(filled: &Set) -> bool {
    let set = &filled.spec;
    let len = |declared: Option<u32>| declared.and_then(|len| usize::try_from(len).ok());
    let (key, value) = (len(set.key_len).map(DataLayout::Value), len(set.data_len));
    let is_of_verdicts = set.data_type == Some(NFT_DATA_VERDICT);
    filled.elements.layouts().iter().all(|layout| {
        let is_end = layout.flags & NFT_SET_ELEM_INTERVAL_END != 0 && set.is_interval();
        let has_value = match layout.data {
            None => is_end || !set.is_map(),
            Some(_) if is_end || !set.is_map() => false,
            Some(DataLayout::Verdict) => is_of_verdicts,
            Some(DataLayout::Value(len)) => Some(len) == value,
        };
        has_value && layout.flags == u32::from(is_end) && layout.key == key
    })
}

/// The element for the key in a register, if the set has one; for a generated number all answers, each
/// with its share of the numbers. `None` if the set or the key is invalid.
pub(super) fn answers<'s>(
    filled: &'s Set,
    lookup: &Lookup,
    registers: &Registers,
) -> Option<Vec<(Option<ElementRef<'s>>, Option<Draw>)>> {
    if !is_sound(filled) {
        return None;
    }
    let Some(drawn) = registers.drawn(lookup.sreg) else {
        let len = usize::try_from(filled.spec.key_len?).ok()?;
        return Some(vec![(find(filled, &registers.bytes(lookup.sreg, len)?), None)]);
    };
    let mut answers: Vec<(Option<ElementRef<'_>>, u32)> = Vec::new();
    for (number, count) in representatives(filled, drawn)? {
        let answer = find(filled, &drawn.bytes_of(number));
        match answers.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, numbers)) => *numbers += count,
            None => answers.push((answer, count)),
        }
    }
    let share = |numbers| Draw { by: drawn.by.clone(), numbers, below: drawn.below };
    Some(answers.into_iter().map(|(answer, numbers)| (answer, Some(share(numbers)))).collect())
}

/// The element for `key`: in an interval set the start of the range around it.
fn find<'a>(filled: &'a Set, key: &[u8]) -> Option<ElementRef<'a>> {
    if !filled.spec.is_interval() {
        return filled.elements.with_key(key);
    }
    let elements = filled.elements.iter();
    // At the same key, the start of a range is after the end of another.
    elements
        .filter(|element| element.key_bytes().is_some_and(|own| own <= key))
        .max_by_key(|element| (element.key_bytes(), !element.is_end()))
        .filter(|element| !element.is_end())
}

/// Numbers that represent all that can be generated, and the count that each represents: all numbers up to
/// the next key have the same answer, and in a set without ranges a number that is no key has none.
/// `None` for ranges of numbers that are not in network order: keys are.
fn representatives(filled: &Set, drawn: &Drawn) -> Option<Vec<(u32, u32)>> {
    let key = |element: ElementRef<'_>| {
        let bytes = element.key_bytes()?.try_into().ok()?;
        Some(if drawn.is_network { u32::from_be_bytes(bytes) } else { u32::from_ne_bytes(bytes) })
    };
    let mut keys: Vec<_> = filled.elements.iter().filter_map(key).collect();
    if filled.spec.is_interval() {
        keys.push(0);
    }
    keys.retain(|key| *key < drawn.below);
    keys.sort_unstable();
    keys.dedup();
    if filled.spec.is_interval() {
        let ends = keys.iter().skip(1).copied().chain([drawn.below]);
        let ranges = keys.iter().zip(ends).map(|(first, end)| (*first, end - first));
        return drawn.is_network.then(|| ranges.collect());
    }
    let others = drawn.below.checked_sub(u32::try_from(keys.len()).ok()?)?;
    let other = (0..drawn.below).find(|number| keys.binary_search(number).is_err());
    let of_keys = keys.iter().map(|key| (*key, 1));
    Some(of_keys.chain(other.map(|number| (number, others))).collect())
}
