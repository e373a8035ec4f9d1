//! `fib`: what the routing table says of an address (net/netfilter/nft_fib.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::{NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, NFTA_FIB_F_SADDR};

attributes! {
    /// Loads what the routing table says of an address: here its type, an `RTN_*` in the order of
    /// the machine.
    Fib("fib") {
        /// Where to.
        dreg: Register = NFTA_FIB_DREG,
        /// What is asked, an `NFT_FIB_RESULT_*`.
        result: u32 = NFTA_FIB_RESULT,
        /// Of which address, `NFTA_FIB_F_*`.
        flags: u32 = NFTA_FIB_FLAGS,
    }
}

impl Fib {
    /// The type of the destination address. In postrouting the kernel answers nothing else.
    pub const DESTINATION_TYPE: Self =
        Self { dreg: Register::R1, result: NFT_FIB_RESULT_ADDRTYPE, flags: NFTA_FIB_F_DADDR };
}

impl fmt::Display for Fib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fib")?;
        for (flag, name) in [(NFTA_FIB_F_SADDR, "saddr"), (NFTA_FIB_F_DADDR, "daddr")] {
            if self.flags & flag != 0 {
                write!(f, " {name}")?;
            }
        }
        match self.result {
            NFT_FIB_RESULT_ADDRTYPE => f.write_str(" type")?,
            other => write!(f, " result {other}")?,
        }
        write!(f, " => {}", self.dreg)
    }
}
