//! Lists of elements that copies share.

use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use super::schema::{Attribute, Inside, Item, Slot};
use super::set::Element;
use crate::netlink::{Attr, CodecError, Writer};
use crate::uapi::NFTA_LIST_ELEM;

/// The elements of a set. Copies share them until one is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementList(Arc<Vec<Element>>);

impl ElementList {
    /// Those of these indexes, shared.
    pub(crate) fn part(&self, range: Range<usize>) -> ElementsPart {
        ElementsPart { all: self.clone(), range }
    }
}

impl From<Vec<Element>> for ElementList {
    fn from(elements: Vec<Element>) -> Self {
        Self(Arc::new(elements))
    }
}

impl FromIterator<Element> for ElementList {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        elements.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for ElementList {
    type Target = Vec<Element>;

    fn deref(&self) -> &Vec<Element> {
        &self.0
    }
}

impl DerefMut for ElementList {
    fn deref_mut(&mut self) -> &mut Vec<Element> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a> IntoIterator for &'a ElementList {
    type Item = &'a Element;
    type IntoIter = std::slice::Iter<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The elements of one message: a part of a list.
#[derive(Clone, Debug, Default)]
pub struct ElementsPart {
    all: ElementList,
    range: Range<usize>,
}

impl From<Vec<Element>> for ElementsPart {
    fn from(elements: Vec<Element>) -> Self {
        let range = 0..elements.len();
        Self { all: elements.into(), range }
    }
}

impl Deref for ElementsPart {
    type Target = [Element];

    fn deref(&self) -> &[Element] {
        self.all.get(self.range.clone()).unwrap_or_default()
    }
}

impl PartialEq for ElementsPart {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ElementsPart {}

impl<'a> IntoIterator for &'a ElementsPart {
    type Item = &'a Element;
    type IntoIter = std::slice::Iter<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for ElementsPart {
    type Item = Element;
    type IntoIter = std::iter::Take<std::iter::Skip<std::vec::IntoIter<Element>>>;

    /// Without a copy of a list that nothing shares.
    fn into_iter(self) -> Self::IntoIter {
        let elements = Arc::unwrap_or_clone(self.all.0).into_iter();
        elements.skip(self.range.start).take(self.range.len())
    }
}

impl Attribute for ElementsPart {
    const INSIDE: Inside = Element::LISTED;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.nested(attribute_type, |w| {
            for element in self {
                w.nested(NFTA_LIST_ELEM, |w| element.encode_inside(w));
            }
        });
    }

    fn decode(list: Attr<'_>) -> Result<Self, CodecError> {
        <Vec<Element> as Attribute>::decode(list).map(Into::into)
    }
}

/// A list that is empty when its attribute is missing.
impl Slot for ElementsPart {
    type Value = Self;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        Attribute::encode(self, w, attribute_type);
    }

    fn fill(value: Option<Self>, _: &'static str, _: u16) -> Result<Self, CodecError> {
        Ok(value.unwrap_or_default())
    }
}
