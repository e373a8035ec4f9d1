//! `payload`: bytes of the packet itself (net/netfilter/nft_payload.c).

use std::fmt;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::{NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER};

attributes! {
    /// Loads bytes of the packet into a register.
    Payload("payload") {
        /// Where to.
        dreg: Register = NFTA_PAYLOAD_DREG,
        /// The header to count from, an `NFT_PAYLOAD_*`.
        base: u32 = NFTA_PAYLOAD_BASE,
        /// From the header's start, in bytes.
        offset: u32 = NFTA_PAYLOAD_OFFSET,
        /// How many bytes.
        len: u32 = NFTA_PAYLOAD_LEN,
    }
}

impl Payload {
    /// Two bytes at the start of the transport header: in TCP, UDP, SCTP and UDP-Lite alike the
    /// source port.
    pub const SOURCE_PORT: Self =
        Self { dreg: Register::R1, base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 0, len: 2 };

    /// The byte that holds TCP's FIN, SYN, RST, PSH, ACK and URG bits (RFC 9293 §3.1).
    pub const TCP_FLAGS: Self =
        Self { dreg: Register::R1, base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 13, len: 1 };

    /// The source address of IPv4 (RFC 791 §3.1).
    pub const IPV4_SOURCE: Self = Self::network(12, 4);
    /// The destination address of IPv4.
    pub const IPV4_DESTINATION: Self = Self::network(16, 4);
    /// The source address of IPv6 (RFC 8200 §3).
    pub const IPV6_SOURCE: Self = Self::network(8, 16);
    /// The destination address of IPv6.
    pub const IPV6_DESTINATION: Self = Self::network(24, 16);

    const fn network(offset: u32, len: u32) -> Self {
        Self { dreg: Register::R1, base: NFT_PAYLOAD_NETWORK_HEADER, offset, len }
    }

    /// Whether both load the same bytes, wherever to.
    #[must_use]
    pub fn loads_same(&self, other: &Self) -> bool {
        (self.base, self.offset, self.len) == (other.base, other.offset, other.len)
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = match self.base {
            NFT_PAYLOAD_NETWORK_HEADER => "network",
            NFT_PAYLOAD_TRANSPORT_HEADER => "transport",
            0 => "link",
            _ => "other",
        };
        write!(f, "payload load {}b @ {base} header + {} => {}", self.len, self.offset, self.dreg)
    }
}
