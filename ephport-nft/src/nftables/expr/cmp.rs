//! `cmp`: goes on only if a register compares so with a value (net/netfilter/nft_cmp.c).

use std::fmt;

use super::{Data, Register};
use crate::netlink::{Attr, CodecError, Writer};
use crate::nftables::schema::{Field, attributes};
use crate::uapi::{NFT_CMP_EQ, NFT_CMP_GT, NFT_CMP_GTE, NFT_CMP_LT, NFT_CMP_LTE, NFT_CMP_NEQ};

attributes! {
    /// Compares the bytes of a register with a value, as one big-endian number.
    Cmp("cmp") {
        /// The register.
        sreg: Register = NFTA_CMP_SREG,
        /// How.
        op: CmpOp = NFTA_CMP_OP,
        /// The value; as many bytes are compared as it has.
        data: Data = NFTA_CMP_DATA,
    }
}

impl Cmp {
    /// Compares register 1, which all of our programs load into.
    #[must_use]
    pub fn new(op: CmpOp, value: &[u8]) -> Self {
        Self { sreg: Register::R1, op, data: Data::value(value) }
    }
}

/// How two values are compared (`enum nft_cmp_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The kernel's own names.
pub enum CmpOp {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
}

impl CmpOp {
    const ALL: [(Self, u32, &str, &str); 6] = [
        (Self::Eq, NFT_CMP_EQ, "eq", ""),
        (Self::Neq, NFT_CMP_NEQ, "neq", "!= "),
        (Self::Lt, NFT_CMP_LT, "lt", "< "),
        (Self::Lte, NFT_CMP_LTE, "lte", "<= "),
        (Self::Gt, NFT_CMP_GT, "gt", "> "),
        (Self::Gte, NFT_CMP_GTE, "gte", ">= "),
    ];

    fn row(self) -> (Self, u32, &'static str, &'static str) {
        Self::ALL.into_iter().find(|row| row.0 == self).unwrap_or(Self::ALL[0])
    }

    /// As nft writes it before a value; equality is not written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        self.row().3
    }
}

impl Field for CmpOp {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.u32_be(kind, self.row().1);
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        let value = attr.u32_be()?;
        let known = Self::ALL.into_iter().find(|row| row.1 == value);
        known.map(|row| row.0).ok_or(CodecError::Value { what: "cmp operation", value })
    }
}

impl fmt::Display for Cmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cmp {} {} {}", self.op.row().2, self.sreg, self.data)
    }
}
