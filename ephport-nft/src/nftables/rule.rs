//! Rules (`NFTA_RULE_*`).

use super::{Comment, RawAttr, write_other};
use crate::netlink::{Attr, CodecError, NfGenMsg, Reader, Writer};
use crate::nftables::expr::{Counter, Expr};
use crate::nftables::schema::{Slot, set};
use crate::uapi::{
    NFTA_LIST_ELEM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_POSITION,
    NFTA_RULE_TABLE, NFTA_RULE_USERDATA,
};

const OBJECT: &str = "rule";

/// A rule: a list of expressions in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The table's family, an `NFPROTO_*`.
    pub family: u8,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: Option<u64>,
    /// The handle of the rule before it.
    pub position: Option<u64>,
    /// What it does, in order.
    pub exprs: Vec<Expr>,
    /// At most 256 bytes that the kernel keeps for us.
    pub userdata: Option<Vec<u8>>,
    /// What we have no name for.
    pub other: Vec<RawAttr>,
}

impl Rule {
    /// A rule for the end of a chain.
    #[must_use]
    pub fn new(family: u8, table: &str, chain: &str, exprs: Vec<Expr>) -> Self {
        Self {
            family,
            table: table.into(),
            chain: chain.into(),
            handle: None,
            position: None,
            exprs,
            userdata: None,
            other: Vec::new(),
        }
    }

    /// The same rule with this comment.
    #[must_use]
    pub fn with_comment(self, comment: &Comment) -> Self {
        Self { userdata: Some(comment.to_userdata()), ..self }
    }

    /// Its comment.
    #[must_use]
    pub fn comment(&self) -> Option<Comment> {
        Comment::from_userdata(self.userdata.as_ref()?)
    }

    /// Its first counter.
    #[must_use]
    pub fn counter(&self) -> Option<&Counter> {
        self.exprs.iter().find_map(|expr| match expr {
            Expr::Counter(counter) => Some(counter),
            _ => None,
        })
    }

    /// Writes the body of a message about it.
    pub fn write(&self, w: &mut Writer) {
        w.raw(&NfGenMsg::new(self.family).to_bytes());
        w.string(NFTA_RULE_TABLE, &self.table);
        w.string(NFTA_RULE_CHAIN, &self.chain);
        Slot::put(&self.handle, w, NFTA_RULE_HANDLE);
        Slot::put(&self.position, w, NFTA_RULE_POSITION);
        w.nested(NFTA_RULE_EXPRESSIONS, |w| self.exprs.iter().for_each(|expr| expr.write(w)));
        if let Some(userdata) = &self.userdata {
            w.bytes(NFTA_RULE_USERDATA, userdata);
        }
        write_other(w, &self.other);
    }

    /// Reads the body of a message about it.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let family = NfGenMsg::read(&mut reader)?.family;
        let (mut table, mut chain, mut handle, mut position) = (None, None, None, None);
        let (mut exprs, mut userdata, mut other) = (Vec::new(), None, Vec::new());
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.kind {
                NFTA_RULE_TABLE => set(&mut table, attr, OBJECT)?,
                NFTA_RULE_CHAIN => set(&mut chain, attr, OBJECT)?,
                NFTA_RULE_HANDLE => set(&mut handle, attr, OBJECT)?,
                NFTA_RULE_POSITION => set(&mut position, attr, OBJECT)?,
                NFTA_RULE_EXPRESSIONS => exprs = read_exprs(attr)?,
                NFTA_RULE_USERDATA => userdata = Some(attr.value.to_vec()),
                _ => other.push(attr.into()),
            }
        }
        Ok(Self {
            family,
            table: Slot::fill(table, OBJECT, NFTA_RULE_TABLE)?,
            chain: Slot::fill(chain, OBJECT, NFTA_RULE_CHAIN)?,
            handle,
            position,
            exprs,
            userdata,
            other,
        })
    }

    /// The rule as it was asked for: without the kernel's own numbers, its counters at zero.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let exprs = self.exprs.iter().map(Expr::normalized).collect();
        Self { handle: None, position: None, exprs, ..self.clone() }
    }
}

fn read_exprs(list: Attr<'_>) -> Result<Vec<Expr>, CodecError> {
    let element = |attr: Result<Attr<'_>, CodecError>| match attr? {
        attr if attr.kind == NFTA_LIST_ELEM => Expr::read(attr),
        attr => Err(CodecError::Unknown { object: "expression list", kind: attr.kind }),
    };
    list.nested().map(element).collect()
}
