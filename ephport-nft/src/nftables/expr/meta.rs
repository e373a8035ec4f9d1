//! `meta`: a fact about the packet that is not in it (net/netfilter/nft_meta.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::{
    NFT_META_IIF, NFT_META_IIFNAME, NFT_META_IIFTYPE, NFT_META_L4PROTO, NFT_META_MARK,
    NFT_META_NFPROTO, NFT_META_OIF, NFT_META_OIFNAME, NFT_META_OIFTYPE,
};

attributes! {
    /// Loads a fact about the packet into a register.
    Meta("meta") {
        /// Which fact, an `NFT_META_*`.
        key: u32 = NFTA_META_KEY,
        /// Where to.
        dreg: Register = NFTA_META_DREG,
    }
}

impl Meta {
    /// The name that nft has for the fact, if we know it.
    #[must_use]
    pub fn key_name(&self) -> Option<&'static str> {
        match self.key {
            NFT_META_MARK => Some("mark"),
            NFT_META_IIF => Some("iif"),
            NFT_META_OIF => Some("oif"),
            NFT_META_IIFNAME => Some("iifname"),
            NFT_META_OIFNAME => Some("oifname"),
            NFT_META_IIFTYPE => Some("iiftype"),
            NFT_META_OIFTYPE => Some("oiftype"),
            NFT_META_NFPROTO => Some("nfproto"),
            NFT_META_L4PROTO => Some("l4proto"),
            _ => None,
        }
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meta load ")?;
        match self.key_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "key {}", self.key)?,
        }
        write!(f, " => {}", self.dreg)
    }
}
