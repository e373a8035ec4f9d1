//! Chains (`NFTA_CHAIN_*`): lists of rules, entered from a hook or from another chain.

use super::{RawAttr, without, write_other};
use crate::netlink::{Attr, CodecError, NfGenMsg, Reader, Writer};
use crate::nftables::schema::{Field, Slot, attributes, set};
use crate::uapi::{
    NFT_CHAIN_BASE, NFTA_CHAIN_FLAGS, NFTA_CHAIN_HANDLE, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_CHAIN_USE,
};

const OBJECT: &str = "chain";

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The table's family, an `NFPROTO_*`.
    pub family: u8,
    /// The table's name.
    pub table: String,
    /// Unique in its table.
    pub name: String,
    /// The kernel's number for it.
    pub handle: Option<u64>,
    /// Where packets enter it; a base chain has one.
    pub hook: Option<Hook>,
    /// What happens to a packet at its end, an `NF_*`; a base chain has one.
    pub policy: Option<u32>,
    /// `filter`, `nat` or `route`; a base chain has one.
    pub kind: Option<String>,
    /// `NFT_CHAIN_*`.
    pub flags: Option<u32>,
    /// What we have no name for.
    pub other: Vec<RawAttr>,
}

attributes! {
    /// Where in the packet's path a base chain is entered.
    #[derive(Copy)]
    Hook("hook") {
        /// An `NF_INET_*`.
        number: u32 = NFTA_HOOK_HOOKNUM,
        /// Chains of one hook run in ascending order of it.
        priority: i32 = NFTA_HOOK_PRIORITY,
    }
}

impl Field for i32 {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.u32_be(kind, self.cast_unsigned());
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.u32_be().map(u32::cast_signed)
    }
}

impl Field for Hook {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.nested(kind, |w| self.write(w));
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        Self::read(attr.nested())
    }
}

impl Chain {
    /// A chain that is entered from others.
    #[must_use]
    pub fn regular(family: u8, table: &str, name: &str) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
            handle: None,
            hook: None,
            policy: None,
            kind: None,
            flags: None,
            other: Vec::new(),
        }
    }

    /// Writes the body of a message about it.
    pub fn write(&self, w: &mut Writer) {
        w.raw(&NfGenMsg::new(self.family).to_bytes());
        w.string(NFTA_CHAIN_TABLE, &self.table);
        w.string(NFTA_CHAIN_NAME, &self.name);
        Slot::put(&self.handle, w, NFTA_CHAIN_HANDLE);
        Slot::put(&self.hook, w, NFTA_CHAIN_HOOK);
        Slot::put(&self.policy, w, NFTA_CHAIN_POLICY);
        Slot::put(&self.kind, w, NFTA_CHAIN_TYPE);
        Slot::put(&self.flags, w, NFTA_CHAIN_FLAGS);
        write_other(w, &self.other);
    }

    /// Reads the body of a message about it.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let family = NfGenMsg::read(&mut reader)?.family;
        let (mut table, mut name, mut handle, mut hook) = (None, None, None, None);
        let (mut policy, mut kind, mut flags, mut other) = (None, None, None, Vec::new());
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.kind {
                NFTA_CHAIN_TABLE => set(&mut table, attr, OBJECT)?,
                NFTA_CHAIN_NAME => set(&mut name, attr, OBJECT)?,
                NFTA_CHAIN_HANDLE => set(&mut handle, attr, OBJECT)?,
                NFTA_CHAIN_HOOK => set(&mut hook, attr, OBJECT)?,
                NFTA_CHAIN_POLICY => set(&mut policy, attr, OBJECT)?,
                NFTA_CHAIN_TYPE => set(&mut kind, attr, OBJECT)?,
                NFTA_CHAIN_FLAGS => set(&mut flags, attr, OBJECT)?,
                _ => other.push(attr.into()),
            }
        }
        Ok(Self {
            family,
            table: Slot::fill(table, OBJECT, NFTA_CHAIN_TABLE)?,
            name: Slot::fill(name, OBJECT, NFTA_CHAIN_NAME)?,
            handle,
            hook,
            policy,
            kind,
            flags,
            other,
        })
    }

    /// The chain as it was asked for: without the kernel's own numbers.
    #[must_use]
    pub fn normalized(&self) -> Self {
        // The kernel sets NFT_CHAIN_BASE on whatever has a hook.
        let flags = self.flags.map(|flags| flags & !NFT_CHAIN_BASE).filter(|flags| *flags != 0);
        let other = without(&self.other, &[NFTA_CHAIN_USE]);
        Self { handle: None, flags, other, ..self.clone() }
    }
}
