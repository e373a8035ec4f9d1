//! The elements of a set, as the bytes of a message.
//!
//! A table has a million elements where each source has its block. Encoded, an element of such a map is 40 bytes, less
//! than half of an [`Element`]; a list is one allocation, and a transaction, the comparison with the kernel's
//! elements and the fingerprint use the bytes as they are.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::expr::Data;
use super::schema::{Attribute, Inside, Item, Slot, items};
use super::set::Element;
use super::value::is_zero;
use crate::netlink::{Attr, Attrs, CodecError, Reader, Writer};
use crate::uapi::{
    NFT_SET_ELEM_INTERVAL_END, NFTA_DATA_VALUE, NFTA_LIST_ELEM, NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_USERDATA,
};

/// The elements of a set, or some of them. Copies and parts share them until one is changed.
#[derive(Clone, Default)]
pub struct ElementList {
    /// Items `NFTA_LIST_ELEM`, as [`Element::encode`] writes them.
    encoded: Arc<Writer>,
    /// The bytes that are in this list.
    range: Range<usize>,
    len: usize,
    shape: Arc<OnceLock<Shape>>,
}

/// What the elements of a list have in common: found when it is first asked for.
#[derive(Debug)]
struct Shape {
    layouts: Vec<Layout>,
    is_sorted: bool,
}

/// An element in a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ElementRef<'a> {
    /// The item of the list.
    item: &'a [u8],
    /// Its attributes.
    inside: &'a [u8],
}

/// What an element has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The length of the item in bytes.
    len: usize,
    pub(crate) key: Option<DataLayout>,
    pub(crate) data: Option<DataLayout>,
    pub(crate) flags: u32,
}

/// A verdict, or a value of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataLayout {
    Value(usize),
    Verdict,
}

impl ElementList {
    /// The count of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order, without copies.
    #[must_use]
    pub fn iter(&self) -> ElementIter<'_> {
        ElementIter(Reader::new(self.bytes()).attrs())
    }

    /// Copies of the elements.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Element> {
        self.iter().filter_map(ElementRef::to_element).collect()
    }

    /// Changes the elements, as values.
    pub fn edit<R>(&mut self, change: impl FnOnce(&mut Vec<Element>) -> R) -> R {
        let mut elements = self.to_vec();
        let result = change(&mut elements);
        *self = elements.into();
        result
    }

    /// Adds copies of the elements of another list.
    pub(crate) fn append(&mut self, other: &Self) {
        if self.is_empty() {
            *self = other.clone();
            return;
        }
        let w = self.writer();
        w.raw(other.bytes());
        w.fail_as(&other.encoded);
        self.range.end = w.len();
        self.len += other.len;
    }

    /// Whether two elements have the same key. Elements with attributes that are not of [`Element`] may.
    pub(crate) fn has_doubles(&self) -> bool {
        let sorted = self.clone().sorted();
        let next = sorted.iter().skip(1);
        let mut pairs = sorted.iter().zip(next).filter(|(a, b)| a.rank() == b.rank());
        pairs.any(|(a, b)| a.is_known() && b.is_known())
    }

    /// The list in the order of its keys; at the same key the end of one range is before the start of the next.
    #[must_use]
    pub(crate) fn sorted(self) -> Self {
        if self.encoded.has_failed() || self.iter().is_sorted_by_key(ElementRef::rank) {
            return self;
        }
        let mut elements: Vec<_> = self.iter().map(|element| (element.rank(), element)).collect();
        elements.sort_unstable_by(|(a, one), (b, other)| a.cmp(b).then(one.item.cmp(other.item)));
        elements.into_iter().map(|(_, element)| element).collect()
    }

    /// The list in the order of its keys and without user data, which only affects how nft prints it. Ends that close
    /// nothing, or that the start of the next range makes superfluous, are skipped: some programs send
    /// them, others do not.
    #[must_use]
    pub(crate) fn normalized(&self) -> Self {
        let list = self.clone().sorted();
        let is_normal =
            |element: &ElementRef<'_>| !element.is_end() && !element.has_more_than_asked_for();
        if list.encoded.has_failed() || list.iter().all(|element| is_normal(&element)) {
            return list;
        }
        let mut elements = list.iter().peekable();
        let mut kept = Writer::default();
        let mut len = 0;
        while let Some(element) = elements.next() {
            let closes_nothing = element.key_bytes().is_some_and(is_zero);
            let is_next = elements.peek().is_some_and(|next| next.key() == element.key());
            if !element.is_end() || !closes_nothing && !is_next {
                element.encode_normalized(&mut kept);
                len += 1;
            }
        }
        (kept, len).into()
    }

    /// The layouts that its elements have, each once.
    pub(crate) fn layouts(&self) -> &[Layout] {
        &self.shape().layouts
    }

    fn shape(&self) -> &Shape {
        self.shape.get_or_init(|| {
            let mut layouts = Vec::new();
            for layout in self.iter().map(ElementRef::layout) {
                if !layouts.contains(&layout) {
                    layouts.push(layout);
                }
            }
            Shape { layouts, is_sorted: self.iter().is_sorted_by_key(ElementRef::rank) }
        })
    }

    /// The element with this key, in a list without ends of ranges.
    pub(crate) fn with_key(&self, key: &[u8]) -> Option<ElementRef<'_>> {
        let Shape { layouts, is_sorted } = self.shape();
        let ([Layout { len, .. }], true) = (layouts.as_slice(), is_sorted) else {
            return self.iter().filter(|element| element.key_bytes() == Some(key)).last();
        };
        // All items have the same length.
        let item =
            |at: usize| ElementIter(Reader::new(self.bytes().get(at * len..)?).attrs()).next();
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            let element = item(middle)?;
            match element.key_bytes().cmp(&Some(key)) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(element),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The parts that have at most `max` bytes, or one element.
    pub(crate) fn parts(&self, max: usize) -> Vec<Self> {
        let (mut parts, mut part) = (Vec::new(), self.range.start..self.range.start);
        let mut len = 0;
        let part_of = |range: &Range<usize>, len| Self {
            encoded: self.encoded.clone(),
            range: range.clone(),
            len,
            shape: Arc::default(),
        };
        for element in self {
            if len > 0 && part.len() + element.item.len() > max {
                parts.push(part_of(&part, len));
                (part.start, len) = (part.end, 0);
            }
            part.end += element.item.len();
            len += 1;
        }
        if len > 0 {
            parts.push(part_of(&part, len));
        }
        parts
    }

    /// Whether both are the same part of the same list.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.encoded, &other.encoded) && self.range == other.range
    }

    /// Fails where the list cannot be encoded.
    pub(crate) fn check(&self, w: &mut Writer) {
        w.fail_as(&self.encoded);
    }

    /// Appends the items.
    pub(crate) fn encode_items(&self, w: &mut Writer) {
        w.raw(self.bytes());
        self.check(w);
    }

    fn bytes(&self) -> &[u8] {
        self.encoded.as_bytes().get(self.range.clone()).unwrap_or_default()
    }

    /// The writer of this list only.
    fn writer(&mut self) -> &mut Writer {
        self.shape = Arc::default();
        if self.range.len() != self.encoded.len() {
            let mut own = Writer::default();
            self.encode_items(&mut own);
            (self.range, self.encoded) = (0..own.len(), own.into());
        }
        Arc::make_mut(&mut self.encoded)
    }
}

/// A list of so many elements.
impl From<(Writer, usize)> for ElementList {
    fn from((mut encoded, len): (Writer, usize)) -> Self {
        encoded.shrink();
        Self { range: 0..encoded.len(), encoded: encoded.into(), len, shape: Arc::default() }
    }
}

impl From<Vec<Element>> for ElementList {
    fn from(elements: Vec<Element>) -> Self {
        elements.into_iter().collect()
    }
}

impl FromIterator<Element> for ElementList {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        let (mut w, mut len) = (Writer::default(), 0);
        for element in elements {
            element.encode(&mut w);
            len += 1;
        }
        (w, len).into()
    }
}

impl<'a> FromIterator<ElementRef<'a>> for ElementList {
    fn from_iter<I: IntoIterator<Item = ElementRef<'a>>>(elements: I) -> Self {
        let (mut w, mut len) = (Writer::default(), 0);
        for element in elements {
            w.raw(element.item);
            len += 1;
        }
        (w, len).into()
    }
}

impl PartialEq for ElementList {
    fn eq(&self, other: &Self) -> bool {
        self.shares(other) || self.bytes() == other.bytes()
    }
}

impl Eq for ElementList {}

impl fmt::Debug for ElementList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// The elements of a list.
#[derive(Clone, Debug)]
pub struct ElementIter<'a>(Attrs<'a>);

impl<'a> Iterator for ElementIter<'a> {
    type Item = ElementRef<'a>;

    fn next(&mut self) -> Option<ElementRef<'a>> {
        let before = self.0.rest();
        let inside = self.0.next()?.ok()?.value;
        let (item, _) = before.split_at_checked(before.len() - self.0.rest().len())?;
        Some(ElementRef { item, inside })
    }
}

impl<'a> IntoIterator for &'a ElementList {
    type Item = ElementRef<'a>;
    type IntoIter = ElementIter<'a>;

    fn into_iter(self) -> ElementIter<'a> {
        self.iter()
    }
}

impl<'a> ElementRef<'a> {
    fn attr(self, attribute_type: u16) -> Option<Attr<'a>> {
        let mut attrs = Reader::new(self.inside).attrs().map_while(Result::ok);
        attrs.find(|attr| attr.attribute_type == attribute_type)
    }

    fn key(self) -> Option<Attr<'a>> {
        self.attr(NFTA_SET_ELEM_KEY)
    }

    /// The bytes of its key.
    #[must_use]
    pub fn key_bytes(self) -> Option<&'a [u8]> {
        let inside = self.key()?.nested().next()?.ok()?;
        (inside.attribute_type == NFTA_DATA_VALUE).then_some(inside.value)
    }

    /// The value or verdict.
    #[must_use]
    pub fn data(self) -> Option<Data> {
        Data::decode(self.attr(NFTA_SET_ELEM_DATA)?).ok()
    }

    /// `NFT_SET_ELEM_*`.
    #[must_use]
    pub fn flags(self) -> Option<u32> {
        self.attr(NFTA_SET_ELEM_FLAGS)?.u32_be().ok()
    }

    /// Whether a range ends before it.
    #[must_use]
    pub fn is_end(self) -> bool {
        self.flags().unwrap_or(0) & NFT_SET_ELEM_INTERVAL_END != 0
    }

    /// The lengths of key and value, and the flags, in one pass.
    pub(crate) fn layout(self) -> Layout {
        let mut layout = Layout { len: self.item.len(), ..Layout::default() };
        let inside = |attr: Attr<'_>| match attr.nested().next() {
            Some(Ok(inside)) if inside.attribute_type == NFTA_DATA_VALUE => {
                DataLayout::Value(inside.value.len())
            }
            _ => DataLayout::Verdict,
        };
        for attr in Reader::new(self.inside).attrs().map_while(Result::ok) {
            match attr.attribute_type {
                NFTA_SET_ELEM_KEY => layout.key = Some(inside(attr)),
                NFTA_SET_ELEM_DATA => layout.data = Some(inside(attr)),
                NFTA_SET_ELEM_FLAGS => layout.flags = attr.u32_be().unwrap_or(0),
                _ => {}
            }
        }
        layout
    }

    /// Whether it has only attributes of [`Element`].
    #[must_use]
    pub fn is_known(self) -> bool {
        self.to_element().is_some_and(|element| element.other.is_empty())
    }

    /// A copy of its own.
    #[must_use]
    pub fn to_element(self) -> Option<Element> {
        Element::decode(Attr { attribute_type: NFTA_LIST_ELEM, value: self.inside }).ok()
    }

    /// Its place in a list that is sorted.
    fn rank(self) -> (Option<&'a [u8]>, bool) {
        (self.key_bytes(), !self.is_end())
    }

    /// Whether it has attributes that are not part of its normalized form.
    fn has_more_than_asked_for(self) -> bool {
        self.flags() == Some(0) || self.attr(NFTA_SET_ELEM_USERDATA).is_some()
    }

    fn encode_normalized(self, w: &mut Writer) {
        match self.to_element().filter(|_| self.has_more_than_asked_for()) {
            Some(element) => element.normalized().encode(w),
            None => w.raw(self.item),
        }
    }

    /// Encodes it as an item of a list.
    pub(crate) fn encode(self, w: &mut Writer) {
        w.raw(self.item);
    }
}

impl fmt::Debug for ElementRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_element().fmt(f)
    }
}

impl Attribute for ElementList {
    const INSIDE: Inside = Element::LISTED;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.nested(attribute_type, |w| self.encode_items(w));
    }

    fn decode(list: Attr<'_>) -> Result<Self, CodecError> {
        let (mut w, mut len) = (Writer::default(), 0);
        for element in items::<Element>(list) {
            element?.encode(&mut w);
            len += 1;
        }
        w.written()?;
        Ok((w, len).into())
    }
}

/// A list that is empty when its attribute is missing.
impl Slot for ElementList {
    type Value = Self;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        Attribute::encode(self, w, attribute_type);
    }

    fn fill(value: Option<Self>, _: &'static str, _: u16) -> Result<Self, CodecError> {
        Ok(value.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(elements: impl IntoIterator<Item = Element>) -> ElementList {
        elements.into_iter().collect()
    }

    fn key(byte: u8) -> Element {
        Element::new(vec![byte], None)
    }

    #[test]
    fn normalized_lists_are_sorted_and_without_superfluous_ends() {
        let (zero, end) = (Element::end(vec![0]), Element::end(vec![7]));
        let noted = Element { userdata: Some(vec![1].into()), flags: Some(0), ..key(9) };
        let normal = list([key(3), Element::end(vec![5]), key(7), key(9)]);
        let read = list([noted, key(7), end, Element::end(vec![5]), zero, key(3)]);
        assert_eq!(read.normalized(), normal);
        assert_eq!(normal.len(), 4);
        let sorted = list([key(1), key(2)]);
        assert!(sorted.normalized().shares(&sorted));
        assert!(!read.has_doubles());
        assert!(list([key(2), key(1), key(2)]).has_doubles());
    }

    #[test]
    fn keys_are_found_in_any_list() {
        let sorted = list((0..100).map(key));
        let reversed = list((0..100).rev().map(key));
        let mixed =
            list((0..100).map(|byte| Element { flags: Some(u32::from(byte % 2)), ..key(byte) }));
        for all in [&sorted, &reversed, &mixed] {
            let found = |byte| Some(all.with_key(&[byte])?.key_bytes()?.to_vec());
            assert!((0..100).all(|byte| found(byte) == Some(vec![byte])));
            assert_eq!(found(100), None);
        }
        assert_eq!((sorted.layouts().len(), mixed.layouts().len()), (1, 2));
    }

    #[test]
    fn parts_share_their_list_until_one_is_changed() {
        let all = list((0..5).map(key));
        let mut parts = all.parts(2 * all.bytes().len() / 5);
        assert_eq!(parts.iter().map(ElementList::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(parts[1], list([key(2), key(3)]));
        let last = parts[2].clone();
        parts[1].append(&last);
        assert_eq!(parts[1], list([key(2), key(3), key(4)]));
        assert_eq!(all.to_vec(), (0..5).map(key).collect::<Vec<_>>());
    }

    #[test]
    fn too_long_element_fails_where_its_list_is_encoded() {
        let mut long = list([key(1), Element::new(vec![0; 70_000], None), key(2)]);
        long = long.normalized();
        let mut w = Writer::new();
        Attribute::encode(&long, &mut w, 1);
        assert!(matches!(w.finish(), Err(CodecError::AttributeTooLong { .. })));
    }
}
