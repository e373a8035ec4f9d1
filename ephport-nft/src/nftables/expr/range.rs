//! `range`: goes on only if a register lies inside or outside a range (net/netfilter/nft_range.c).

use std::fmt;

use super::{Data, Register};
use crate::netlink::{Attr, CodecError, Writer};
use crate::nftables::schema::{Field, attributes};
use crate::uapi::{NFT_RANGE_EQ, NFT_RANGE_NEQ};

attributes! {
    /// Compares the bytes of a register with two ends, both included.
    Range("range") {
        /// The register.
        sreg: Register = NFTA_RANGE_SREG,
        /// Inside or outside.
        op: RangeOp = NFTA_RANGE_OP,
        /// The lower end.
        from: Data = NFTA_RANGE_FROM_DATA,
        /// The upper end.
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

impl Field for RangeOp {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.u32_be(kind, if *self == Self::Eq { NFT_RANGE_EQ } else { NFT_RANGE_NEQ });
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
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
