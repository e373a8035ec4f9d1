//! A set with its elements.

use ephport_core::Port;

use super::layout::{REAL, is_open_set};
use crate::netlink::Writer;
use crate::nftables::{ElementIter, ElementList, ElementRef, Elements, SetSpec};

/// The most bytes of elements in one message: their list is one attribute, whose length is a
/// 16-bit number.
const CHUNK: usize = 48 * 1024;

/// A set with all of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The specification.
    pub spec: SetSpec,
    /// The elements, in any order.
    pub elements: ElementList,
}

/// The keys from `first` to `last`, and the value that a map has for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange<'a> {
    pub(crate) first: &'a [u8],
    pub(crate) last: Vec<u8>,
    pub(crate) element: ElementRef<'a>,
}

impl Set {
    /// Whether it is a map from ports to ports.
    pub(crate) fn is_port_map(&self) -> bool {
        self.spec.is_port_map()
    }

    /// Whether it is the map of a policy from virtual to real ports.
    pub(crate) fn is_real_ports_map(&self) -> bool {
        self.is_port_map() && self.spec.name.ends_with(REAL)
    }

    /// The keys of a set or map of ports.
    pub(crate) fn port_key_set(&self) -> impl Iterator<Item = Port> {
        self.elements.iter().filter_map(|element| port(element.key_bytes()?))
    }

    /// The keys and values of a map from ports to ports.
    pub(crate) fn port_pairs(&self) -> impl Iterator<Item = (Port, Port)> {
        let pair = |element: ElementRef<'_>| {
            Some((port(element.key_bytes()?)?, port(element.data()?.bytes()?)?))
        };
        self.elements.iter().filter_map(pair)
    }

    /// The elements in chunks that fit one message each.
    pub(crate) fn chunks(&self) -> Vec<Elements> {
        let parts = self.elements.parts(CHUNK).into_iter();
        parts.map(|part| Elements::new(&self.spec, part)).collect()
    }
}

/// A port in two bytes.
fn port(bytes: &[u8]) -> Option<Port> {
    Port::new(u16::from_be_bytes(bytes.try_into().ok()?)).ok()
}

/// A set whose elements are in the order of their keys, without user data and superfluous ends of ranges.
#[derive(Clone, Debug)]
pub struct NormalizedSet<'a> {
    pub(crate) spec: &'a SetSpec,
    pub(crate) elements: ElementList,
    /// All elements of the set, superfluous ones included.
    all: &'a ElementList,
}

impl Set {
    /// The normalized view of the set. Open connections are not part of it.
    #[must_use]
    pub fn normalized(&self) -> NormalizedSet<'_> {
        let Self { spec, elements } = self;
        let normalized =
            if is_open_set(spec) { ElementList::default() } else { elements.normalized() };
        NormalizedSet { spec, elements: normalized, all: elements }
    }
}

impl NormalizedSet<'_> {
    /// A copy of the set, superfluous elements included.
    pub(crate) fn to_set(&self) -> Set {
        Set { spec: self.spec.clone(), elements: self.all.clone() }
    }

    fn nameless_spec(&self) -> SetSpec {
        SetSpec { name: String::new(), ..self.spec.normalized() }
    }

    /// The specification without a name, and the elements.
    pub(super) fn write(&self, w: &mut Writer) {
        self.nameless_spec().encode(w);
        self.elements.encode_items(w);
    }
}

/// The content without the name, which an anonymous set gets from whoever makes it.
impl PartialEq for NormalizedSet<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.elements == other.elements && self.nameless_spec() == other.nameless_spec()
    }
}

impl NormalizedSet<'_> {
    /// The elements, by key.
    pub fn elements(&self) -> ElementIter<'_> {
        self.elements.iter()
    }

    /// The ranges of an interval set, or the keys of another; `None` for an element without a key.
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
    use crate::nftables::Element;
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
    fn chunks_keep_order_and_fit_one_attribute() {
        let elements = (0..9000u32).map(|i| Element::new(i.to_be_bytes().to_vec(), None));
        let filled = Set { spec: SetSpec::new(1, "t", "s"), elements: elements.collect() };
        let chunks = filled.chunks();
        assert!(chunks.len() > 1);
        for chunk in &chunks {
            let mut w = Writer::new();
            chunk.encode(&mut w);
            assert!(w.finish().is_ok());
        }
        let all = chunks.iter().flat_map(|chunk| &chunk.elements).collect::<ElementList>();
        assert_eq!(all, filled.elements);
    }

    #[test]
    fn one_message_fits_2047_elements_of_32_bytes() {
        let element = |i: u32| Element::new(i.to_be_bytes().to_vec(), Some(Data::value(&[0; 8])));
        for (count, expected) in [(2047, Ok(())), (2048, Err(65_540))] {
            let elements: ElementList = (0..count).map(element).collect();
            let filled = Set { spec: SetSpec::new(1, "t", "s"), elements };
            let mut chunks = filled.chunks();
            let mut one = chunks.swap_remove(0);
            one.elements = filled.elements.clone();
            let mut w = Writer::new();
            one.encode(&mut w);
            let too_long =
                |len| CodecError::AttributeTooLong { attribute: NFTA_SET_ELEM_LIST_ELEMENTS, len };
            assert_eq!(w.finish().map(drop), expected.map_err(too_long), "{count}");
        }
    }
}
