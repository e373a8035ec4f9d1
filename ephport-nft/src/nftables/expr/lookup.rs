//! `lookup`: is a register's content in a set, and what does a map hold for it
//! (net/netfilter/nft_lookup.c).

use std::fmt;

use super::Register;
use crate::nftables::SetSpec;
use crate::nftables::schema::attributes;
use crate::uapi::NFT_LOOKUP_F_INV;

attributes! {
    /// Goes on only if a register's content is a key of a set; of a map it loads the value.
    Lookup("lookup") {
        /// The set's name.
        set: String = NFTA_LOOKUP_SET,
        /// Holds the key.
        sreg: Register = NFTA_LOOKUP_SREG,
        /// Where the value goes to; a map has one.
        dreg: Option<Register> = NFTA_LOOKUP_DREG,
        /// The set's number in its transaction; the kernel lists none.
        set_id: Option<u32> = NFTA_LOOKUP_SET_ID,
        /// `NFT_LOOKUP_F_*`.
        flags: Option<u32> = NFTA_LOOKUP_FLAGS,
    }
}

impl Lookup {
    fn of(set: &SetSpec, dreg: Option<Register>) -> Self {
        let set = set.name.clone();
        Self { set, sreg: Register::R1, dreg, set_id: None, flags: None }
    }

    /// Goes on if register 1 holds a key of `set`.
    #[must_use]
    pub fn within(set: &SetSpec) -> Self {
        Self::of(set, None)
    }

    /// Goes on unless register 1 holds a key of `set`.
    #[must_use]
    pub fn outside(set: &SetSpec) -> Self {
        Self { flags: Some(NFT_LOOKUP_F_INV), ..Self::of(set, None) }
    }

    /// Loads what `map` holds for register 1 into `dreg`; [`Register::VERDICT`] for a verdict.
    #[must_use]
    pub fn value(map: &SetSpec, dreg: Register) -> Self {
        Self::of(map, Some(dreg))
    }

    /// Whether it goes on for what is *not* in the set.
    #[must_use]
    pub fn is_inverted(&self) -> bool {
        self.flags.unwrap_or(0) & NFT_LOOKUP_F_INV != 0
    }

    /// The kernel lists the flags also when there are none, and never the set's number.
    pub(super) fn normalized(&self) -> Self {
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
