//! `numgen`: a number for each packet (net/netfilter/nft_numgen.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::{NFT_NG_INCREMENTAL, NFT_NG_RANDOM};

attributes! {
    /// Loads a number below a modulus, in the order of the machine.
    Numgen("numgen") {
        /// Where to.
        dreg: Register = NFTA_NG_DREG,
        /// How many different numbers.
        modulus: u32 = NFTA_NG_MODULUS,
        /// One after another or at random, an `NFT_NG_*`.
        kind: u32 = NFTA_NG_TYPE,
        /// The lowest number.
        offset: u32 = NFTA_NG_OFFSET,
    }
}

impl Numgen {
    /// 0, 1 and on below `modulus`, then from 0 again, into register 1.
    #[must_use]
    pub fn incremental(modulus: u32) -> Self {
        Self { dreg: Register::R1, modulus, kind: NFT_NG_INCREMENTAL, offset: 0 }
    }

    /// Any number below `modulus`, into register 1.
    #[must_use]
    pub fn random(modulus: u32) -> Self {
        Self { kind: NFT_NG_RANDOM, ..Self::incremental(modulus) }
    }

    /// The name that nft has for its kind.
    pub(crate) fn kind_name(&self) -> Option<&'static str> {
        match self.kind {
            NFT_NG_INCREMENTAL => Some("inc"),
            NFT_NG_RANDOM => Some("random"),
            _ => None,
        }
    }
}

impl fmt::Display for Numgen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind_name().unwrap_or("unknown");
        write!(f, "numgen {} = {kind} mod {}", self.dreg, self.modulus)?;
        if self.offset != 0 {
            write!(f, " offset {}", self.offset)?;
        }
        Ok(())
    }
}
