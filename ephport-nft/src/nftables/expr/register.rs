//! Registers of the virtual machine.

use std::fmt;

use crate::netlink::{Attr, CodecError, Writer};
use crate::nftables::schema::Field;
use crate::uapi::{NFT_REG_1, NFT_REG_2, NFT_REG_3, NFT_REG_VERDICT};

/// A register number (`enum nft_registers`): 0 holds the verdict, 1 to 4 are 16 bytes wide, 8 to 23
/// name the same room in units of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u32);

impl Register {
    /// The verdict.
    pub const VERDICT: Self = Self(NFT_REG_VERDICT);
    /// The first data register.
    pub const R1: Self = Self(NFT_REG_1);
    /// The second data register.
    pub const R2: Self = Self(NFT_REG_2);
    /// The third data register.
    pub const R3: Self = Self(NFT_REG_3);
}

impl Field for Register {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.u32_be(kind, self.0);
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.u32_be().map(Self)
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reg {}", self.0)
    }
}
