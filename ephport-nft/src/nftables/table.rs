//! Tables (`NFTA_TABLE_*`): containers of chains, sets and rules.

use super::schema::attributes;
use super::userdata::Comment;
use crate::uapi::{NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST};

attributes! {
    /// A table.
    message Table("table", family) {
        /// Its name, unique in its family.
        name: String = NFTA_TABLE_NAME,
        /// `NFT_TABLE_F_*`.
        flags: Option<u32> = NFTA_TABLE_FLAGS,
        /// The kernel's number for it.
        handle: Option<u64> = NFTA_TABLE_HANDLE,
        /// User data, at most 256 bytes; since Linux 5.10.
        userdata: Option<Vec<u8>> = NFTA_TABLE_USERDATA,
        /// The port id of the socket that owns it, as the kernel lists it; since Linux 5.12.
        owner: Option<u32> = NFTA_TABLE_OWNER,
    } other, padding NFTA_TABLE_PAD, bookkeeping NFTA_TABLE_USE
}

/// The flags of a table that only its owner may change and that outlives it; since Linux 6.9.
pub(crate) const OWNED: u32 = NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST;

impl Table {
    /// A table with only a name.
    #[must_use]
    pub fn new(family: u8, name: &str) -> Self {
        let (name, other) = (name.into(), Vec::new());
        Self { family, name, flags: None, handle: None, userdata: None, owner: None, other }
    }

    /// Its comment.
    #[must_use]
    pub fn comment(&self) -> Option<Comment> {
        Comment::from_userdata(self.userdata.as_ref()?)
    }

    /// The table without the kernel's own numbers, and without its owner: who may change a table is no
    /// part of what it does.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let flags = self.flags.map(|flags| flags & !OWNED).filter(|flags| *flags != 0);
        Self { flags, handle: None, owner: None, ..self.clone() }
    }

    /// The same table for a request: its socket becomes the owner.
    pub(crate) fn owned(&self) -> Self {
        let table = self.normalized();
        Self { flags: Some(table.flags.unwrap_or(0) | OWNED), ..table }
    }

    /// Whether its owner ended, and the next socket may become its owner.
    pub(crate) fn is_orphan(&self) -> bool {
        self.flags.unwrap_or(0) & OWNED == NFT_TABLE_F_PERSIST
    }
}
