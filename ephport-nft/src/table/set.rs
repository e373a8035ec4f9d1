//! A set with its elements.

use crate::netlink::Writer;
use crate::nftables::{Element, Elements, SetSpec};

/// How many bytes of elements go into one message: their list is one attribute, whose length is a
/// 16-bit number.
const CHUNK: usize = 48 * 1024;

/// A set with all of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The specification.
    pub spec: SetSpec,
    /// Its elements; their order means nothing.
    pub elements: Vec<Element>,
}

/// The keys from `first` to `last`, with what a map holds for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange<'a> {
    pub(crate) first: &'a [u8],
    pub(crate) last: Vec<u8>,
    pub(crate) element: &'a Element,
}

impl Set {
    /// The set as it was asked for, with its elements in order. Ends that close nothing, or that
    /// the beginning of the next range makes superfluous, are left out: some programs send them,
    /// others do not.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let mut elements: Vec<_> = self.elements.iter().map(Element::normalized).collect();
        elements.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let superfluous = |element: &Element, next: Option<&Element>| {
            let closes_nothing = element.key_bytes().is_some_and(is_zero);
            element.is_end() && (closes_nothing || next.is_some_and(|next| next.key == element.key))
        };
        let next = elements.iter().skip(1).map(Some).chain([None]);
        let kept = elements.iter().zip(next).filter(|(element, next)| !superfluous(element, *next));
        let elements = kept.map(|(element, _)| element.clone()).collect();
        Self { spec: self.spec.normalized(), elements }
    }

    /// The elements in messages that netlink can hold.
    pub(crate) fn chunks(&self) -> Vec<Elements> {
        let (mut chunks, mut chunk, mut len) = (Vec::new(), Vec::new(), 0);
        for element in &self.elements {
            let mut w = Writer::new();
            element.encode(&mut w);
            if len + w.len() > CHUNK {
                chunks.push(Elements::new(&self.spec, std::mem::take(&mut chunk)));
                len = 0;
            }
            len += w.len();
            chunk.push(element.clone());
        }
        if !chunk.is_empty() {
            chunks.push(Elements::new(&self.spec, chunk));
        }
        chunks
    }

    /// The ranges of an interval set, or each key of another; of an essence.
    pub(crate) fn ranges(&self) -> Option<Vec<KeyRange<'_>>> {
        let mut ranges = Vec::new();
        let mut elements = self.elements.iter().peekable();
        while let Some(element) = elements.next() {
            let first = element.key_bytes()?;
            if element.is_end() {
                continue;
            }
            let last = match elements.peek() {
                _ if !self.spec.is_interval() => first.to_vec(),
                Some(next) => below(next.key_bytes()?)?,
                None => vec![u8::MAX; first.len()],
            };
            ranges.push(KeyRange { first, last, element });
        }
        Some(ranges)
    }
}

/// By key; at the same key the end of one range before the beginning of the next.
fn rank(element: &Element) -> (Option<&[u8]>, bool) {
    (element.key_bytes(), !element.is_end())
}

pub(super) fn is_zero(key: &[u8]) -> bool {
    key.iter().all(|byte| *byte == 0)
}

/// The key above, if there is one; keys are numbers in network order.
pub(super) fn above(key: &[u8]) -> Option<Vec<u8>> {
    step(key, |byte| byte.checked_add(1), 0)
}

/// The key below, if there is one.
fn below(key: &[u8]) -> Option<Vec<u8>> {
    step(key, |byte| byte.checked_sub(1), u8::MAX)
}

fn step(key: &[u8], change: impl Fn(u8) -> Option<u8>, carried: u8) -> Option<Vec<u8>> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        if let Some(changed) = change(*byte) {
            *byte = changed;
            return Some(key);
        }
        *byte = carried;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::CodecError;
    use crate::nftables::expr::Data;
    use crate::uapi::NFTA_SET_ELEM_LIST_ELEMENTS;

    #[test]
    fn keys_carry() {
        assert_eq!(above(&[1, 255]), Some(vec![2, 0]));
        assert_eq!(above(&[255, 255]), None);
        assert_eq!(below(&[2, 0]), Some(vec![1, 255]));
        assert_eq!(below(&[0, 0]), None);
    }

    #[test]
    fn portions_hold_all_elements_in_order_and_fit_an_attribute() {
        let elements = (0..9000u32).map(|i| Element::new(i.to_be_bytes().to_vec(), None));
        let filled = Set { spec: SetSpec::new(1, "t", "s"), elements: elements.collect() };
        let chunks = filled.chunks();
        assert!(chunks.len() > 1);
        for chunk in &chunks {
            let mut w = Writer::new();
            chunk.encode(&mut w);
            assert!(w.finish().is_ok());
        }
        let all: Vec<_> = chunks.into_iter().flat_map(|chunk| chunk.elements).collect();
        assert_eq!(all, filled.elements);
    }

    /// Which is why they are sent in chunks.
    #[test]
    fn one_message_holds_2047_elements_of_32_bytes() {
        let element = |i: u32| Element::new(i.to_be_bytes().to_vec(), Some(Data::value(&[0; 8])));
        for (count, expected) in [(2047, Ok(())), (2048, Err(65_540))] {
            let elements: Vec<_> = (0..count).map(element).collect();
            let filled = Set { spec: SetSpec::new(1, "t", "s"), elements };
            let mut chunks = filled.chunks();
            let mut one = chunks.swap_remove(0);
            one.elements.clone_from(&filled.elements);
            let mut w = Writer::new();
            one.encode(&mut w);
            let too_long =
                |len| CodecError::AttributeTooLong { attribute: NFTA_SET_ELEM_LIST_ELEMENTS, len };
            assert_eq!(w.finish().map(drop), expected.map_err(too_long), "{count}");
        }
    }
}
