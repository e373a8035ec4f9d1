//! `byteorder`: turns a register's bytes round (net/netfilter/nft_byteorder.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::{NFT_BYTEORDER_HTON, NFT_BYTEORDER_NTOH};

attributes! {
    /// Converts numbers between the order of the machine and that of the network.
    Byteorder("byteorder") {
        /// From.
        sreg: Register = NFTA_BYTEORDER_SREG,
        /// To.
        dreg: Register = NFTA_BYTEORDER_DREG,
        /// Which way, an `NFT_BYTEORDER_*`.
        op: u32 = NFTA_BYTEORDER_OP,
        /// How many bytes in all.
        len: u32 = NFTA_BYTEORDER_LEN,
        /// How many bytes each number has.
        size: u32 = NFTA_BYTEORDER_SIZE,
    }
}

impl Byteorder {
    /// The 32-bit number in register 1 into network order, as the keys of an interval set are.
    pub const TO_NETWORK: Self =
        Self { sreg: Register::R1, dreg: Register::R1, op: NFT_BYTEORDER_HTON, len: 4, size: 4 };
}

impl fmt::Display for Byteorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sreg, dreg, len, size, .. } = self;
        let op = match self.op {
            NFT_BYTEORDER_NTOH => "ntoh",
            NFT_BYTEORDER_HTON => "hton",
            _ => "unknown",
        };
        write!(f, "byteorder {dreg} = {op}({sreg}, {size}, {len})")
    }
}
