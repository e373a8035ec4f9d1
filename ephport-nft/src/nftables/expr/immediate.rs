//! `immediate`: a value or a verdict given in the program (net/netfilter/nft_immediate.c).

use std::fmt;

use super::{Data, Register, Verdict};
use crate::nftables::schema::attributes;

attributes! {
    /// Puts a value into a register, or gives the verdict.
    Immediate("immediate") {
        /// Where to.
        dreg: Register = NFTA_IMMEDIATE_DREG,
        /// What.
        data: Data = NFTA_IMMEDIATE_DATA,
    }
}

impl Immediate {
    /// Ends the rule with this verdict.
    #[must_use]
    pub fn verdict(verdict: Verdict) -> Self {
        Self { dreg: Register::VERDICT, data: Data::Verdict(verdict) }
    }
}

impl fmt::Display for Immediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "immediate {} {}", self.dreg, self.data)
    }
}
