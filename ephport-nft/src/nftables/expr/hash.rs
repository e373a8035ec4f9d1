//! `hash`: a number that is the same for the same bytes (net/netfilter/nft_hash.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::NFT_HASH_JENKINS;

attributes! {
    /// Loads Jenkins' hash of a register's bytes, below a modulus, in the order of the machine.
    Hash("hash") {
        /// Holds the first of the bytes.
        sreg: Register = NFTA_HASH_SREG,
        /// Where to.
        dreg: Register = NFTA_HASH_DREG,
        /// How many bytes.
        len: u32 = NFTA_HASH_LEN,
        /// How many different numbers.
        modulus: u32 = NFTA_HASH_MODULUS,
        /// What the hash begins with; without it the kernel draws one.
        seed: Option<u32> = NFTA_HASH_SEED,
        /// The lowest number, 0 if absent.
        offset: Option<u32> = NFTA_HASH_OFFSET,
        /// An `NFT_HASH_*`.
        kind: u32 = NFTA_HASH_TYPE,
    }
}

impl Hash {
    /// Jenkins' hash of `len` bytes from register 2 on, below `modulus`, into register 1.
    #[must_use]
    pub fn jenkins(len: u32, modulus: u32, seed: u32) -> Self {
        Self {
            sreg: Register::R2,
            dreg: Register::R1,
            len,
            modulus,
            seed: Some(seed),
            offset: None,
            kind: NFT_HASH_JENKINS,
        }
    }

    /// The kernel lists no offset of 0.
    pub(super) fn normalized(&self) -> Self {
        Self { offset: self.offset.filter(|offset| *offset != 0), ..self.clone() }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sreg, dreg, len, modulus, .. } = self;
        let seed = self.seed.unwrap_or(0);
        let kind = if self.kind == NFT_HASH_JENKINS { "jhash" } else { "unknown" };
        write!(f, "hash {dreg} = {kind}({sreg}, {len}, {seed:#x}) % mod {modulus}")?;
        match self.offset {
            Some(offset) => write!(f, " offset {offset}"),
            None => Ok(()),
        }
    }
}
