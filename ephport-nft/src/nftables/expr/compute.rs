//! Expressions that compute a register: `bitwise`, `byteorder`, `numgen` and `hash`
//! (net/netfilter/nft_bitwise.c, nft_byteorder.c, nft_numgen.c, nft_hash.c).

use std::fmt;

use super::data::{Data, Register};
use crate::nftables::schema::attributes;
use crate::uapi::{
    NFT_BITWISE_MASK_XOR, NFT_BYTEORDER_HTON, NFT_BYTEORDER_NTOH, NFT_HASH_JENKINS,
    NFT_NG_INCREMENTAL, NFT_NG_RANDOM,
};

attributes! {
    /// `dreg = (sreg & mask) ^ xor`.
    Bitwise("bitwise") {
        /// The source register.
        sreg: Register = NFTA_BITWISE_SREG,
        /// The destination register.
        dreg: Register = NFTA_BITWISE_DREG,
        /// The length in bytes.
        len: u32 = NFTA_BITWISE_LEN,
        /// The operation, `NFT_BITWISE_MASK_XOR`; absent before Linux 5.6, which had no other.
        op: Option<u32> = NFTA_BITWISE_OP,
        /// The bits that are kept.
        mask: Box<Data> = NFTA_BITWISE_MASK,
        /// The bits that are inverted.
        xor: Box<Data> = NFTA_BITWISE_XOR,
    }
}

impl Bitwise {
    /// The bits of `mask` in register 1.
    #[must_use]
    pub fn mask(mask: &[u8]) -> Self {
        Self {
            sreg: Register::R1,
            dreg: Register::R1,
            len: u32::try_from(mask.len()).unwrap_or(u32::MAX),
            op: Some(NFT_BITWISE_MASK_XOR),
            mask: Box::new(Data::value(mask)),
            xor: Box::new(Data::Value(vec![0; mask.len()].into())),
        }
    }
}

impl fmt::Display for Bitwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sreg, dreg, mask, xor, .. } = self;
        write!(f, "bitwise {dreg} = ( {sreg} & {mask} ) ^ {xor}")
    }
}

attributes! {
    /// Converts numbers between the order of the machine and that of the network.
    Byteorder("byteorder") {
        /// The source register.
        sreg: Register = NFTA_BYTEORDER_SREG,
        /// The destination register.
        dreg: Register = NFTA_BYTEORDER_DREG,
        /// The direction, an `NFT_BYTEORDER_*`.
        op: u32 = NFTA_BYTEORDER_OP,
        /// The total length in bytes.
        len: u32 = NFTA_BYTEORDER_LEN,
        /// The length of each number in bytes.
        size: u32 = NFTA_BYTEORDER_SIZE,
    }
}

impl Byteorder {
    /// The 32-bit number in register 1 in network order, which the keys of an interval set have.
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

attributes! {
    /// Loads a number below a modulus, in the order of the machine.
    Numgen("numgen") {
        /// The destination register.
        dreg: Register = NFTA_NG_DREG,
        /// The count of different numbers.
        modulus: u32 = NFTA_NG_MODULUS,
        /// The generator, an `NFT_NG_*`.
        numgen_type: u32 = NFTA_NG_TYPE,
        /// The lowest number.
        offset: u32 = NFTA_NG_OFFSET,
    }
}

impl Numgen {
    /// The numbers below `modulus` one after another, into register 1.
    #[must_use]
    pub fn incremental(modulus: u32) -> Self {
        Self { dreg: Register::R1, modulus, numgen_type: NFT_NG_INCREMENTAL, offset: 0 }
    }

    /// A random number below `modulus`, into register 1.
    #[must_use]
    pub fn random(modulus: u32) -> Self {
        Self { numgen_type: NFT_NG_RANDOM, ..Self::incremental(modulus) }
    }

    /// nft's name for its type.
    pub(crate) fn type_name(&self) -> Option<&'static str> {
        match self.numgen_type {
            NFT_NG_INCREMENTAL => Some("inc"),
            NFT_NG_RANDOM => Some("random"),
            _ => None,
        }
    }
}

impl fmt::Display for Numgen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numgen_type = self.type_name().unwrap_or("unknown");
        write!(f, "numgen {} = {numgen_type} mod {}", self.dreg, self.modulus)?;
        if self.offset != 0 {
            write!(f, " offset {}", self.offset)?;
        }
        Ok(())
    }
}

attributes! {
    /// Loads Jenkins' hash of a register's bytes, below a modulus, in the order of the machine.
    Hash("hash") {
        /// The first source register.
        sreg: Register = NFTA_HASH_SREG,
        /// The destination register.
        dreg: Register = NFTA_HASH_DREG,
        /// The length of the hashed bytes.
        len: u32 = NFTA_HASH_LEN,
        /// The count of different numbers.
        modulus: u32 = NFTA_HASH_MODULUS,
        /// The initial value of the hash; without it the kernel draws one.
        seed: Option<u32> = NFTA_HASH_SEED,
        /// The lowest number, 0 if absent.
        offset: Option<u32> = NFTA_HASH_OFFSET,
        /// The function, an `NFT_HASH_*`.
        hash_type: u32 = NFTA_HASH_TYPE,
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
            hash_type: NFT_HASH_JENKINS,
        }
    }

    /// Without an offset of 0, which the kernel does not list.
    pub(super) fn normalized(&self) -> Self {
        Self { offset: self.offset.filter(|offset| *offset != 0), ..self.clone() }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sreg, dreg, len, modulus, .. } = self;
        let seed = self.seed.unwrap_or(0);
        let function = if self.hash_type == NFT_HASH_JENKINS { "jhash" } else { "unknown" };
        write!(f, "hash {dreg} = {function}({sreg}, {len}, {seed:#x}) % mod {modulus}")?;
        match self.offset {
            Some(offset) => write!(f, " offset {offset}"),
            None => Ok(()),
        }
    }
}
