//! Tables (`NFTA_TABLE_*`): containers of chains, sets and rules.

use super::schema::attributes;
use super::userdata::Comment;

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
    } other, padding NFTA_TABLE_PAD, bookkeeping NFTA_TABLE_USE
}

impl Table {
    /// A table with only a name.
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

    /// The table without the kernel's own numbers.
    #[must_use]
    pub fn normalized(&self) -> Self {
        Self { flags: self.flags.filter(|flags| *flags != 0), handle: None, ..self.clone() }
    }
}
