//! Elements of sets and maps (`NFTA_SET_ELEM_*`).

use super::{RawAttr, write_other};
use crate::netlink::{Attr, Attrs, CodecError, NfGenMsg, Reader, Writer};
use crate::nftables::expr::Data;
use crate::nftables::schema::{Slot, set};
use crate::uapi::{
    NFT_SET_ELEM_INTERVAL_END, NFTA_LIST_ELEM, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_SET_ID, NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_USERDATA,
};

/// A key, with its value in a map. In an interval set a key begins a range, or ends one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The key; only an element that stands for all others has none.
    pub key: Option<Data>,
    /// The value or verdict.
    pub data: Option<Data>,
    /// `NFT_SET_ELEM_*`.
    pub flags: Option<u32>,
    /// Bytes that the kernel keeps for us.
    pub userdata: Option<Vec<u8>>,
    /// What we have no name for.
    pub other: Vec<RawAttr>,
}

impl Element {
    /// A key of a set, or the first key of a range.
    #[must_use]
    pub fn new(key: Vec<u8>, data: Option<Data>) -> Self {
        Self { key: Some(Data::Value(key)), data, flags: None, userdata: None, other: Vec::new() }
    }

    /// The key after the last one of a range.
    #[must_use]
    pub fn end(key: Vec<u8>) -> Self {
        Self { flags: Some(NFT_SET_ELEM_INTERVAL_END), ..Self::new(key, None) }
    }

    /// The bytes of its key.
    #[must_use]
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_ref()?.bytes()
    }

    /// Whether a range ends before it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.flags.unwrap_or(0) & NFT_SET_ELEM_INTERVAL_END != 0
    }

    /// Writes it as an element of a list.
    pub fn write(&self, w: &mut Writer) {
        w.nested(NFTA_LIST_ELEM, |w| {
            Slot::put(&self.key, w, NFTA_SET_ELEM_KEY);
            Slot::put(&self.data, w, NFTA_SET_ELEM_DATA);
            Slot::put(&self.flags, w, NFTA_SET_ELEM_FLAGS);
            if let Some(userdata) = &self.userdata {
                w.bytes(NFTA_SET_ELEM_USERDATA, userdata);
            }
            write_other(w, &self.other);
        });
    }

    /// Reads what stands inside an element of a list.
    pub fn read(attrs: Attrs<'_>) -> Result<Self, CodecError> {
        const OBJECT: &str = "set element";
        let (mut key, mut data, mut flags) = (None, None, None);
        let (mut userdata, mut other) = (None, Vec::new());
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                NFTA_SET_ELEM_KEY => set(&mut key, attr, OBJECT)?,
                NFTA_SET_ELEM_DATA => set(&mut data, attr, OBJECT)?,
                NFTA_SET_ELEM_FLAGS => set(&mut flags, attr, OBJECT)?,
                NFTA_SET_ELEM_USERDATA => userdata = Some(attr.value.to_vec()),
                _ => other.push(attr.into()),
            }
        }
        Ok(Self { key, data, flags, userdata, other })
    }

    /// The element as it was asked for: without what only tells nft how to print it.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let flags = self.flags.filter(|flags| *flags != 0);
        Self { flags, userdata: None, ..self.clone() }
    }
}

/// Some elements of one set: what one message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elements {
    /// The table's family, an `NFPROTO_*`.
    pub family: u8,
    /// The table's name.
    pub table: String,
    /// The set's name.
    pub set: String,
    /// The set's number in the transaction.
    pub set_id: Option<u32>,
    /// The elements.
    pub elements: Vec<Element>,
}

impl Elements {
    /// Writes the body of a message about them.
    pub fn write(&self, w: &mut Writer) {
        w.raw(&NfGenMsg::new(self.family).to_bytes());
        w.string(NFTA_SET_ELEM_LIST_TABLE, &self.table);
        w.string(NFTA_SET_ELEM_LIST_SET, &self.set);
        Slot::put(&self.set_id, w, NFTA_SET_ELEM_LIST_SET_ID);
        w.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
            self.elements.iter().for_each(|element| element.write(w));
        });
    }

    /// Reads the body of a message about them.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        const OBJECT: &str = "set element list";
        let mut reader = Reader::new(body);
        let family = NfGenMsg::read(&mut reader)?.family;
        let (mut table, mut name, mut set_id, mut elements) = (None, None, None, Vec::new());
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.kind {
                NFTA_SET_ELEM_LIST_TABLE => set(&mut table, attr, OBJECT)?,
                NFTA_SET_ELEM_LIST_SET => set(&mut name, attr, OBJECT)?,
                NFTA_SET_ELEM_LIST_SET_ID => set(&mut set_id, attr, OBJECT)?,
                NFTA_SET_ELEM_LIST_ELEMENTS => elements = read_elements(attr)?,
                kind => return Err(CodecError::Unknown { object: OBJECT, kind }),
            }
        }
        Ok(Self {
            family,
            table: Slot::fill(table, OBJECT, NFTA_SET_ELEM_LIST_TABLE)?,
            set: Slot::fill(name, OBJECT, NFTA_SET_ELEM_LIST_SET)?,
            set_id,
            elements,
        })
    }
}

fn read_elements(list: Attr<'_>) -> Result<Vec<Element>, CodecError> {
    let element = |attr: Result<Attr<'_>, CodecError>| match attr? {
        attr if attr.kind == NFTA_LIST_ELEM => Element::read(attr.nested()),
        attr => Err(CodecError::Unknown { object: "set element list", kind: attr.kind }),
    };
    list.nested().map(element).collect()
}
