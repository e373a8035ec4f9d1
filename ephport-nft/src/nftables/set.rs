//! Sets and maps (`NFTA_SET_*`): tables of keys that rules look registers up in.

use super::{RawAttr, without, write_other};
use crate::netlink::{Attr, CodecError, NfGenMsg, Reader, Writer};
use crate::nftables::schema::{Slot, set};
use crate::uapi::{
    NFT_DATA_VERDICT, NFT_SET_ANONYMOUS, NFT_SET_INTERVAL, NFT_SET_MAP, NFTA_SET_DATA_LEN,
    NFTA_SET_DATA_TYPE, NFTA_SET_DESC, NFTA_SET_DESC_SIZE, NFTA_SET_FLAGS, NFTA_SET_HANDLE,
    NFTA_SET_ID, NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_TABLE,
    NFTA_SET_USERDATA,
};

const OBJECT: &str = "set";

/// How the kernel stores a set, and how many elements it has: `NFTA_SET_TYPE` and
/// `NFTA_SET_COUNT` of Linux 6.16, which the headers of most systems do not name yet.
const BOOKKEEPING: [u16; 2] = [19, 20];

/// A set, or a map when its keys have values. Its elements come in messages of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// The table's family, an `NFPROTO_*`.
    pub family: u8,
    /// The table's name.
    pub table: String,
    /// Unique in its table.
    pub name: String,
    /// The kernel's number for it.
    pub handle: Option<u64>,
    /// `NFT_SET_*`.
    pub flags: Option<u32>,
    /// nft's number for the type of its keys.
    pub key_type: Option<u32>,
    /// The length of a key in bytes.
    pub key_len: Option<u32>,
    /// nft's number for the type of its values, or `NFT_DATA_VERDICT`; a map has one.
    pub data_type: Option<u32>,
    /// The length of a value in bytes; a map of values has one.
    pub data_len: Option<u32>,
    /// Its number in its transaction, which the kernel asks for and never lists.
    pub id: Option<u32>,
    /// At most 256 bytes that the kernel keeps for us.
    pub userdata: Option<Vec<u8>>,
    /// How many elements it has room for.
    pub size: Option<u32>,
    /// What we have no name for.
    pub other: Vec<RawAttr>,
}

impl SetSpec {
    /// A set with nothing but its names.
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
            size: None,
            other: Vec::new(),
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags.unwrap_or(0) & flag != 0
    }

    /// Whether it belongs to one rule and goes with it.
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

    /// Writes the body of a message about it.
    pub fn write(&self, w: &mut Writer) {
        w.raw(&NfGenMsg::new(self.family).to_bytes());
        w.string(NFTA_SET_TABLE, &self.table);
        w.string(NFTA_SET_NAME, &self.name);
        Slot::put(&self.handle, w, NFTA_SET_HANDLE);
        Slot::put(&self.flags, w, NFTA_SET_FLAGS);
        Slot::put(&self.key_type, w, NFTA_SET_KEY_TYPE);
        Slot::put(&self.key_len, w, NFTA_SET_KEY_LEN);
        Slot::put(&self.data_type, w, NFTA_SET_DATA_TYPE);
        Slot::put(&self.data_len, w, NFTA_SET_DATA_LEN);
        Slot::put(&self.id, w, NFTA_SET_ID);
        if let Some(userdata) = &self.userdata {
            w.bytes(NFTA_SET_USERDATA, userdata);
        }
        if let Some(size) = self.size {
            w.nested(NFTA_SET_DESC, |w| w.u32_be(NFTA_SET_DESC_SIZE, size));
        }
        write_other(w, &self.other);
    }

    /// Reads the body of a message about it.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let family = NfGenMsg::read(&mut reader)?.family;
        let (mut table, mut name) = (None, None);
        let mut read = Self::new(family, "", "");
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.kind {
                NFTA_SET_TABLE => set(&mut table, attr, OBJECT)?,
                NFTA_SET_NAME => set(&mut name, attr, OBJECT)?,
                NFTA_SET_HANDLE => set(&mut read.handle, attr, OBJECT)?,
                NFTA_SET_FLAGS => set(&mut read.flags, attr, OBJECT)?,
                NFTA_SET_KEY_TYPE => set(&mut read.key_type, attr, OBJECT)?,
                NFTA_SET_KEY_LEN => set(&mut read.key_len, attr, OBJECT)?,
                NFTA_SET_DATA_TYPE => set(&mut read.data_type, attr, OBJECT)?,
                NFTA_SET_DATA_LEN => set(&mut read.data_len, attr, OBJECT)?,
                NFTA_SET_ID => set(&mut read.id, attr, OBJECT)?,
                NFTA_SET_USERDATA => read.userdata = Some(attr.value.to_vec()),
                NFTA_SET_DESC => match read_size(attr) {
                    Ok(size) => read.size = size,
                    Err(_) => read.other.push(attr.into()),
                },
                _ => read.other.push(attr.into()),
            }
        }
        read.table = Slot::fill(table, OBJECT, NFTA_SET_TABLE)?;
        read.name = Slot::fill(name, OBJECT, NFTA_SET_NAME)?;
        Ok(read)
    }

    /// The set as it was asked for: without the kernel's own numbers, and without what only tells
    /// nft how to print it. The size of an anonymous set is that of its elements, the length of a
    /// verdict the kernel's own.
    #[must_use]
    pub fn normalized(&self) -> Self {
        Self {
            handle: None,
            id: None,
            flags: self.flags.filter(|flags| *flags != 0),
            data_len: self.data_len.filter(|_| self.data_type != Some(NFT_DATA_VERDICT)),
            userdata: None,
            size: self.size.filter(|_| !self.is_anonymous()),
            other: without(&self.other, &BOOKKEEPING),
            ..self.clone()
        }
    }
}

/// The size in a description that holds nothing else.
fn read_size(description: Attr<'_>) -> Result<Option<u32>, CodecError> {
    let mut size = None;
    for attr in description.nested() {
        let attr = attr?;
        match attr.kind {
            NFTA_SET_DESC_SIZE => set(&mut size, attr, OBJECT)?,
            kind => return Err(CodecError::Unknown { object: "set description", kind }),
        }
    }
    Ok(size)
}
