//! `bitwise`: masks a register (net/netfilter/nft_bitwise.c).

use std::fmt;

use super::{Data, Register};
use crate::nftables::schema::attributes;
use crate::uapi::NFT_BITWISE_MASK_XOR;

attributes! {
    /// `dreg = (sreg & mask) ^ xor`.
    Bitwise("bitwise") {
        /// From.
        sreg: Register = NFTA_BITWISE_SREG,
        /// To.
        dreg: Register = NFTA_BITWISE_DREG,
        /// How many bytes.
        len: u32 = NFTA_BITWISE_LEN,
        /// Absent before Linux 5.6, which knew this one operation alone.
        op: Option<u32> = NFTA_BITWISE_OP,
        /// The bits that stay.
        mask: Data = NFTA_BITWISE_MASK,
        /// The bits that are turned.
        xor: Data = NFTA_BITWISE_XOR,
    }
}

impl Bitwise {
    /// Keeps the bits of `mask` in register 1.
    #[must_use]
    pub fn mask(mask: &[u8]) -> Self {
        Self {
            sreg: Register::R1,
            dreg: Register::R1,
            len: u32::try_from(mask.len()).unwrap_or(u32::MAX),
            op: Some(NFT_BITWISE_MASK_XOR),
            mask: Data::value(mask),
            xor: Data::Value(vec![0; mask.len()]),
        }
    }
}

impl fmt::Display for Bitwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sreg, dreg, mask, xor, .. } = self;
        write!(f, "bitwise {dreg} = ( {sreg} & {mask} ) ^ {xor}")
    }
}
