//! Sets, maps (`NFTA_SET_*`) and their elements (`NFTA_SET_ELEM_*`).

use std::borrow::Cow;

use super::datatype::INET_SERVICE;
use super::element_list::ElementList;
use super::expr::Data;
use super::schema::{Inside, Item, attributes};
use crate::netlink::{Attr, CodecError, Writer};
use crate::uapi::{
    NFT_DATA_VERDICT, NFT_SET_ANONYMOUS, NFT_SET_ELEM_INTERVAL_END, NFT_SET_INTERVAL, NFT_SET_MAP,
    NFTA_LIST_ELEM,
};

attributes! {
    /// A set, or a map when its keys have values. Its elements are in messages of their own.
    message SetSpec("set", family) {
        /// The table's name.
        table: String = NFTA_SET_TABLE,
        /// Its name, unique in its table.
        name: String = NFTA_SET_NAME,
        /// The kernel's number for it.
        handle: Option<u64> = NFTA_SET_HANDLE,
        /// `NFT_SET_*`.
        flags: Option<u32> = NFTA_SET_FLAGS,
        /// nft's number for the type of the keys.
        key_type: Option<u32> = NFTA_SET_KEY_TYPE,
        /// The length of a key in bytes.
        key_len: Option<u32> = NFTA_SET_KEY_LEN,
        /// nft's number for the type of a map's values, or `NFT_DATA_VERDICT`.
        data_type: Option<u32> = NFTA_SET_DATA_TYPE,
        /// The length of a map's value in bytes.
        data_len: Option<u32> = NFTA_SET_DATA_LEN,
        /// Its number in its transaction: the kernel requires and never lists it.
        id: Option<u32> = NFTA_SET_ID,
        /// User data, at most 256 bytes.
        userdata: Option<Vec<u8>> = NFTA_SET_USERDATA,
        /// Its size and the fields of its concatenation.
        description: Option<SetDescription> = NFTA_SET_DESC,
    } other, padding NFTA_SET_PAD, bookkeeping NFTA_SET_TYPE, bookkeeping NFTA_SET_COUNT
}

attributes! {
    /// How a set is to be stored. The fields of a concatenation are in `other`.
    #[derive(Default)]
    SetDescription("set description") {
        /// The maximum count of elements.
        size: Option<u32> = NFTA_SET_DESC_SIZE,
    } other
}

impl SetSpec {
    /// A set with only its names.
    #[must_use]
    pub fn new(family: u8, table: &str, name: &str) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
            handle: None,
            flags: None,
            key_type: None,
            key_len: None,
            data_type: None,
            data_len: None,
            id: None,
            userdata: None,
            description: None,
            other: Vec::new(),
        }
    }

    /// The same set with room for `size` elements.
    #[must_use]
    pub fn with_size(self, size: Option<u32>) -> Self {
        let description = size.map(|size| SetDescription { size: Some(size), other: Vec::new() });
        Self { description, ..self }
    }

    /// The maximum count of elements, if it was given.
    #[must_use]
    pub fn size(&self) -> Option<u32> {
        self.description.as_ref()?.size
    }

    fn has(&self, flag: u32) -> bool {
        self.flags.unwrap_or(0) & flag != 0
    }

    /// The types, lengths, flags and size in one line.
    pub(crate) fn summary(&self) -> String {
        let Self { flags, key_type, key_len, data_type, data_len, .. } = self.normalized();
        let names = ["flags", "key type", "key length", "data type", "data length", "size"];
        let values = [flags, key_type, key_len, data_type, data_len, self.size()];
        let known = names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)));
        known.map(|(name, value)| format!("{name} {value:#x}")).collect::<Vec<_>>().join(", ")
    }

    /// Whether it belongs to one rule and is deleted with it.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.has(NFT_SET_ANONYMOUS)
    }

    /// Whether its elements are the ends of ranges.
    #[must_use]
    pub fn is_interval(&self) -> bool {
        self.has(NFT_SET_INTERVAL)
    }

    /// Whether its keys have values.
    #[must_use]
    pub fn is_map(&self) -> bool {
        self.has(NFT_SET_MAP)
    }

    /// Whether it is a map from ports to ports.
    pub(crate) fn is_port_map(&self) -> bool {
        self.is_map() && self.data_type == Some(INET_SERVICE)
    }

    /// The set without the kernel's own numbers and without the user data, which only affects how nft
    /// prints it. The size only limits the count of elements; the length of a verdict is the kernel's own.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let description =
            self.description.clone().map(|described| SetDescription { size: None, ..described });
        Self {
            handle: None,
            id: None,
            flags: self.flags.filter(|flags| *flags != 0),
            data_len: self.data_len.filter(|_| self.data_type != Some(NFT_DATA_VERDICT)),
            userdata: None,
            description: description.filter(|described| *described != SetDescription::default()),
            ..self.clone()
        }
    }
}

attributes! {
    /// A key, with its value in a map. In an interval set a key begins a range, or ends one.
    Element("set element") {
        /// The key; the catch-all element has none.
        key: Option<Data> = NFTA_SET_ELEM_KEY,
        /// The value or verdict.
        data: Option<Data> = NFTA_SET_ELEM_DATA,
        /// `NFT_SET_ELEM_*`.
        flags: Option<u32> = NFTA_SET_ELEM_FLAGS,
        /// User data, at most 256 bytes.
        userdata: Option<Box<Vec<u8>>> = NFTA_SET_ELEM_USERDATA,
    } other, padding NFTA_SET_ELEM_PAD
}

impl Element {
    /// A key of a set, or the first key of a range.
    #[must_use]
    pub fn new(key: Vec<u8>, data: Option<Data>) -> Self {
        Self {
            key: Some(Data::Value(key.into())),
            data,
            flags: None,
            userdata: None,
            other: Vec::new(),
        }
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

    /// The element without the user data, which only affects how nft prints it.
    #[must_use]
    pub fn normalized(&self) -> Cow<'_, Self> {
        if self.flags != Some(0) && self.userdata.is_none() {
            return Cow::Borrowed(self);
        }
        let flags = self.flags.filter(|flags| *flags != 0);
        Cow::Owned(Self { flags, userdata: None, ..self.clone() })
    }

    /// Encodes it as an item of a list of elements.
    pub fn encode(&self, w: &mut Writer) {
        w.nested(NFTA_LIST_ELEM, |w| self.encode_attributes(w));
    }

    /// Decodes an item of a list of elements.
    pub fn decode(element: Attr<'_>) -> Result<Self, CodecError> {
        Self::decode_attributes(element.nested())
    }
}

impl Item for Element {
    const LIST: &'static str = "set element list";
    const LISTED: Inside = Inside::Elements(Self::SCHEMA);

    fn encode_inside(&self, w: &mut Writer) {
        self.encode_attributes(w);
    }

    fn decode_item(attr: Attr<'_>) -> Result<Self, CodecError> {
        Self::decode(attr)
    }
}

attributes! {
    /// Elements of one set, as many as one message contains.
    message Elements("set element list", family) {
        /// The table's name.
        table: String = NFTA_SET_ELEM_LIST_TABLE,
        /// The set's name.
        set: String = NFTA_SET_ELEM_LIST_SET,
        /// The set's number in the transaction.
        set_id: Option<u32> = NFTA_SET_ELEM_LIST_SET_ID,
        /// The elements.
        elements: ElementList = NFTA_SET_ELEM_LIST_ELEMENTS,
    } other
}

impl Elements {
    /// Elements of this set.
    #[must_use]
    pub fn new(spec: &SetSpec, elements: impl Into<ElementList>) -> Self {
        let elements = elements.into();
        let SetSpec { family, table, name, id, .. } = spec;
        let (table, set) = (table.clone(), name.clone());
        Self { family: *family, table, set, set_id: *id, elements, other: Vec::new() }
    }
}
