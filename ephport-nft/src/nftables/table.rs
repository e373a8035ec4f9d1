//! Tables (`NFTA_TABLE_*`).

use super::{Comment, RawAttr, without, write_other};
use crate::netlink::{CodecError, NfGenMsg, Reader, Writer};
use crate::nftables::schema::{Field, Slot, set};
use crate::uapi::{
    NFTA_TABLE_FLAGS, NFTA_TABLE_HANDLE, NFTA_TABLE_NAME, NFTA_TABLE_USE, NFTA_TABLE_USERDATA,
};

const OBJECT: &str = "table";

/// A table: a name for chains, sets and rules that live and go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// An `NFPROTO_*`.
    pub family: u8,
    /// Unique in its family.
    pub name: String,
    /// `NFT_TABLE_F_*`.
    pub flags: Option<u32>,
    /// The kernel's number for it.
    pub handle: Option<u64>,
    /// At most 256 bytes that the kernel keeps for us; since Linux 5.10.
    pub userdata: Option<Vec<u8>>,
    /// What we have no name for.
    pub other: Vec<RawAttr>,
}

impl Table {
    /// A table with nothing but its name.
    #[must_use]
    pub fn new(family: u8, name: &str) -> Self {
        let name = name.into();
        Self { family, name, flags: None, handle: None, userdata: None, other: Vec::new() }
    }

    /// Its comment.
    #[must_use]
    pub fn comment(&self) -> Option<Comment> {
        Comment::from_userdata(self.userdata.as_ref()?)
    }

    /// Writes the body of a message about it.
    pub fn write(&self, w: &mut Writer) {
        w.raw(&NfGenMsg::new(self.family).to_bytes());
        w.string(NFTA_TABLE_NAME, &self.name);
        Slot::put(&self.flags, w, NFTA_TABLE_FLAGS);
        Slot::put(&self.handle, w, NFTA_TABLE_HANDLE);
        if let Some(userdata) = &self.userdata {
            w.bytes(NFTA_TABLE_USERDATA, userdata);
        }
        write_other(w, &self.other);
    }

    /// Reads the body of a message about it.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let family = NfGenMsg::read(&mut reader)?.family;
        let (mut name, mut handle, mut flags) = (None, None, None);
        let (mut userdata, mut other) = (None, Vec::new());
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.kind {
                NFTA_TABLE_NAME => set(&mut name, attr, OBJECT)?,
                NFTA_TABLE_FLAGS => flags = Some(u32::take(attr)?).filter(|flags| *flags != 0),
                NFTA_TABLE_HANDLE => set(&mut handle, attr, OBJECT)?,
                NFTA_TABLE_USERDATA => userdata = Some(attr.value.to_vec()),
                _ => other.push(attr.into()),
            }
        }
        let name = Slot::fill(name, OBJECT, NFTA_TABLE_NAME)?;
        Ok(Self { family, name, flags, handle, userdata, other })
    }

    /// The table as it was asked for: without the kernel's own numbers.
    #[must_use]
    pub fn normalized(&self) -> Self {
        Self { handle: None, other: without(&self.other, &[NFTA_TABLE_USE]), ..self.clone() }
    }
}
