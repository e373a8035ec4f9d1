//! `ct`: a fact about the packet's connection (net/netfilter/nft_ct.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::{
    IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, NFT_CT_DIRECTION, NFT_CT_DST_IP, NFT_CT_DST_IP6,
    NFT_CT_MARK, NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_CT_STATE, NFT_CT_STATUS,
};

attributes! {
    /// Loads a fact about the packet's connection into a register.
    Ct("ct") {
        /// Where to.
        dreg: Register = NFTA_CT_DREG,
        /// Which fact, an `NFT_CT_*`.
        key: u32 = NFTA_CT_KEY,
        /// Of which direction, an `IP_CT_DIR_*`, where both have one.
        direction: Option<u8> = NFTA_CT_DIRECTION,
    }
}

impl Ct {
    /// What conntrack thinks of the packet, as bits.
    pub const STATE: Self = Self { dreg: Register::R1, key: NFT_CT_STATE, direction: None };
    /// Whether the packet goes the way of the connection's first one; a single byte.
    pub const DIRECTION: Self = Self { dreg: Register::R1, key: NFT_CT_DIRECTION, direction: None };
    /// What became of the connection, `IPS_*` bits.
    pub const STATUS: Self = Self { dreg: Register::R1, key: NFT_CT_STATUS, direction: None };
    /// The IPv4 source of the connection's first packet, before any translation.
    pub const ORIGINAL_SOURCE_V4: Self = Self::original(NFT_CT_SRC_IP);
    /// The IPv6 source of the connection's first packet, before any translation.
    pub const ORIGINAL_SOURCE_V6: Self = Self::original(NFT_CT_SRC_IP6);

    const fn original(key: u32) -> Self {
        Self { dreg: Register::R1, key, direction: Some(IP_CT_DIR_ORIGINAL) }
    }

    fn key_name(&self) -> Option<&'static str> {
        match self.key {
            NFT_CT_STATE => Some("state"),
            NFT_CT_DIRECTION => Some("direction"),
            NFT_CT_STATUS => Some("status"),
            NFT_CT_MARK => Some("mark"),
            NFT_CT_SRC_IP => Some("src_ip"),
            NFT_CT_DST_IP => Some("dst_ip"),
            NFT_CT_SRC_IP6 => Some("src_ip6"),
            NFT_CT_DST_IP6 => Some("dst_ip6"),
            _ => None,
        }
    }

    /// nft's name for its direction.
    pub(crate) fn direction_name(&self) -> Option<&'static str> {
        match self.direction? {
            IP_CT_DIR_ORIGINAL => Some("original"),
            IP_CT_DIR_REPLY => Some("reply"),
            _ => None,
        }
    }
}

impl fmt::Display for Ct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ct load ")?;
        match self.key_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "key {}", self.key)?,
        }
        write!(f, " => {}", self.dreg)?;
        match (self.direction, self.direction_name()) {
            (_, Some(name)) => write!(f, " , dir {name}"),
            (Some(other), None) => write!(f, " , dir {other}"),
            (None, None) => Ok(()),
        }
    }
}
