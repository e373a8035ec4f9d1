//! Expressions that match a register: `cmp`, `range` and `lookup`
//! (net/netfilter/nft_cmp.c, nft_range.c, nft_lookup.c).

use std::fmt;

use super::data::{Data, Register};
use crate::netlink::{Attr, CodecError, Writer};
use crate::nftables::schema::{Attribute, attributes, required};
use crate::uapi::{
    NFT_CMP_EQ, NFT_CMP_GT, NFT_CMP_GTE, NFT_CMP_LT, NFT_CMP_LTE, NFT_CMP_NEQ, NFT_LOOKUP_F_INV,
    NFT_RANGE_EQ, NFT_RANGE_NEQ,
};

attributes! {
    /// Compares the bytes of a register with a value, as one big-endian number.
    Cmp("cmp") {
        /// The register.
        sreg: Register = NFTA_CMP_SREG,
        /// The comparison.
        op: CmpOp = NFTA_CMP_OP,
        /// The value; its length is the count of bytes that are compared.
        data: Data = NFTA_CMP_DATA,
    }
}

impl Cmp {
    /// Compares register 1.
    #[must_use]
    pub fn new(op: CmpOp, value: &[u8]) -> Self {
        Self { sreg: Register::R1, op, data: Data::value(value) }
    }
}

/// A comparison (`enum nft_cmp_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the kernel's own names")]
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

    /// nft's operator before a value; empty for equality.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        self.row().3
    }
}

required!(CmpOp, RangeOp);

impl Attribute for CmpOp {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.u32_be(attribute_type, self.row().1);
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
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

attributes! {
    /// Compares the bytes of a register with a range.
    Range("range") {
        /// The register.
        sreg: Register = NFTA_RANGE_SREG,
        /// Whether the register must be inside or outside.
        op: RangeOp = NFTA_RANGE_OP,
        /// The first value of the range.
        from: Data = NFTA_RANGE_FROM_DATA,
        /// The last value of the range.
        to: Data = NFTA_RANGE_TO_DATA,
    }
}

/// Inside or outside (`enum nft_range_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeOp {
    /// Inside.
    Eq,
    /// Outside.
    Neq,
}

impl Attribute for RangeOp {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.u32_be(attribute_type, if *self == Self::Eq { NFT_RANGE_EQ } else { NFT_RANGE_NEQ });
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        match attr.u32_be()? {
            NFT_RANGE_EQ => Ok(Self::Eq),
            NFT_RANGE_NEQ => Ok(Self::Neq),
            value => Err(CodecError::Value { what: "range operation", value }),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = if self.op == RangeOp::Eq { "eq" } else { "neq" };
        write!(f, "range {op} {} {} {}", self.sreg, self.from, self.to)
    }
}

attributes! {
    /// Matches if a register is a key of a set; loads the value from a map.
    Lookup("lookup") {
        /// The set's name.
        set: String = NFTA_LOOKUP_SET,
        /// The register with the key.
        sreg: Register = NFTA_LOOKUP_SREG,
        /// The destination register of a map's value.
        dreg: Option<Register> = NFTA_LOOKUP_DREG,
        /// The set's number in its transaction; the kernel never lists it.
        set_id: Option<u32> = NFTA_LOOKUP_SET_ID,
        /// `NFT_LOOKUP_F_*`.
        flags: Option<u32> = NFTA_LOOKUP_FLAGS,
    }
}

impl Lookup {
    fn in_set(set: &str, dreg: Option<Register>) -> Self {
        Self { set: set.into(), sreg: Register::R1, dreg, set_id: None, flags: None }
    }

    /// Matches if register 1 is a key of the set with this name.
    #[must_use]
    pub fn within(set: &str) -> Self {
        Self::in_set(set, None)
    }

    /// Matches unless register 1 is a key of the set with this name.
    #[must_use]
    pub fn outside(set: &str) -> Self {
        Self { flags: Some(NFT_LOOKUP_F_INV), ..Self::in_set(set, None) }
    }

    /// Loads the value of register 1 in the map with this name into `dreg`; [`Register::VERDICT`] for a
    /// verdict.
    #[must_use]
    pub fn value(map: &str, dreg: Register) -> Self {
        Self::in_set(map, Some(dreg))
    }

    /// Whether it matches keys that are *not* in the set.
    #[must_use]
    pub fn is_inverted(&self) -> bool {
        self.flags.unwrap_or(0) & NFT_LOOKUP_F_INV != 0
    }

    /// Without flags of 0, which the kernel lists, and without the set's number, which it does not.
    pub(crate) fn normalized(&self) -> Self {
        let flags = self.flags.filter(|flags| *flags != 0);
        Self { set_id: None, flags, ..self.clone() }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lookup {} set {}", self.sreg, self.set)?;
        if let Some(dreg) = self.dreg {
            write!(f, " dreg {}", dreg.0)?;
        }
        if let Some(flags) = self.flags {
            write!(f, " {flags:#x}")?;
        }
        Ok(())
    }
}
