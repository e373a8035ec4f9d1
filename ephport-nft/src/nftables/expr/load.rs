//! Expressions that load a value into a register: `immediate`, `meta`, `payload`, `ct`, `fib` and `rt`
//! (net/netfilter/nft_immediate.c, nft_meta.c, nft_payload.c, nft_ct.c, nft_fib.c, nft_rt.c).

use std::fmt;

use super::data::{Data, Register, Verdict};
use crate::nftables::schema::attributes;
use crate::uapi::{
    IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, NFT_CT_DIRECTION, NFT_CT_DST_IP, NFT_CT_DST_IP6,
    NFT_CT_ID, NFT_CT_MARK, NFT_CT_PROTO_SRC, NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_CT_STATE,
    NFT_CT_STATUS, NFT_FIB_RESULT_ADDRTYPE, NFT_META_IIF, NFT_META_IIFNAME, NFT_META_IIFTYPE,
    NFT_META_L4PROTO, NFT_META_MARK, NFT_META_NFPROTO, NFT_META_OIF, NFT_META_OIFKIND,
    NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_META_SECPATH, NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER, NFT_RT_XFRM, NFTA_FIB_F_DADDR, NFTA_FIB_F_OIF, NFTA_FIB_F_SADDR,
};

attributes! {
    /// Loads a constant into a register, or ends the rule with a verdict.
    Immediate("immediate") {
        /// The destination register.
        dreg: Register = NFTA_IMMEDIATE_DREG,
        /// The constant.
        data: Data = NFTA_IMMEDIATE_DATA,
    }
}

impl Immediate {
    /// A verdict.
    #[must_use]
    pub fn verdict(verdict: Verdict) -> Self {
        Self { dreg: Register::VERDICT, data: Data::verdict(verdict) }
    }
}

impl fmt::Display for Immediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "immediate {} {}", self.dreg, self.data)
    }
}

attributes! {
    /// Loads metadata of the packet into a register.
    Meta("meta") {
        /// The metadata, an `NFT_META_*`.
        key: u32 = NFTA_META_KEY,
        /// The destination register.
        dreg: Register = NFTA_META_DREG,
    }
}

impl Meta {
    /// nft's name for the metadata, if it is known here.
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
            NFT_META_SECPATH => Some("secpath"),
            NFT_META_OIFKIND => Some("oifkind"),
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

attributes! {
    /// Loads bytes of the packet into a register.
    Payload("payload") {
        /// The destination register.
        dreg: Register = NFTA_PAYLOAD_DREG,
        /// The header that the offset begins at, an `NFT_PAYLOAD_*`.
        base: u32 = NFTA_PAYLOAD_BASE,
        /// The offset in bytes.
        offset: u32 = NFTA_PAYLOAD_OFFSET,
        /// The length in bytes.
        len: u32 = NFTA_PAYLOAD_LEN,
    }
}

impl Payload {
    /// Two bytes at the start of the transport header: the source port of TCP, UDP, SCTP and UDP-Lite.
    pub const SOURCE_PORT: Self =
        Self { dreg: Register::R1, base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 0, len: 2 };

    /// The two bytes after it: the destination port.
    pub const DESTINATION_PORT: Self =
        Self { dreg: Register::R1, base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, len: 2 };

    /// The byte with TCP's FIN, SYN, RST, PSH, ACK and URG bits (RFC 9293 §3.1).
    pub const TCP_FLAGS: Self =
        Self { dreg: Register::R1, base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 13, len: 1 };

    /// The type of a message of ICMP or ICMPv6 (RFC 792, RFC 4443 §2.1).
    pub const ICMP_TYPE: Self =
        Self { dreg: Register::R1, base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 0, len: 1 };

    /// The identifier of an echo request (RFC 792, RFC 4443 §4.1).
    pub const ECHO_IDENTIFIER: Self =
        Self { dreg: Register::R1, base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 4, len: 2 };

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

    /// Whether both load the same bytes, into whatever register.
    #[must_use]
    pub fn loads_same(&self, other: &Self) -> bool {
        (self.base, self.offset, self.len) == (other.base, other.offset, other.len)
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = header_name(self.base);
        write!(f, "payload load {}b @ {base} header + {} => {}", self.len, self.offset, self.dreg)
    }
}

attributes! {
    /// Writes bytes of a register into the packet.
    PayloadWrite("payload") {
        /// The source register.
        sreg: Register = NFTA_PAYLOAD_SREG,
        /// The header that the offset begins at, an `NFT_PAYLOAD_*`.
        base: u32 = NFTA_PAYLOAD_BASE,
        /// The offset in bytes.
        offset: u32 = NFTA_PAYLOAD_OFFSET,
        /// The length in bytes.
        len: u32 = NFTA_PAYLOAD_LEN,
        /// The checksum that changes with the bytes, an `NFT_PAYLOAD_CSUM_*`.
        csum_type: u32 = NFTA_PAYLOAD_CSUM_TYPE,
        /// The offset of that checksum in the same header.
        csum_offset: u32 = NFTA_PAYLOAD_CSUM_OFFSET,
        /// `NFT_PAYLOAD_L4CSUM_*`.
        csum_flags: u32 = NFTA_PAYLOAD_CSUM_FLAGS,
    }
}

/// The name of a header in bytecode.
fn header_name(base: u32) -> &'static str {
    match base {
        NFT_PAYLOAD_NETWORK_HEADER => "network",
        NFT_PAYLOAD_TRANSPORT_HEADER => "transport",
        0 => "link",
        _ => "other",
    }
}

impl fmt::Display for PayloadWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sreg, len, offset, csum_type, csum_offset, csum_flags, .. } = self;
        let base = header_name(self.base);
        write!(f, "payload write {sreg} => {len}b @ {base} header + {offset}")?;
        write!(f, " csum_type {csum_type} csum_off {csum_offset} csum_flags {csum_flags:#x}")
    }
}

attributes! {
    /// Loads a value of the packet's connection into a register.
    Ct("ct") {
        /// The destination register.
        dreg: Register = NFTA_CT_DREG,
        /// The value, an `NFT_CT_*`.
        key: u32 = NFTA_CT_KEY,
        /// The direction, an `IP_CT_DIR_*`, for a value that both directions have.
        direction: Option<u8> = NFTA_CT_DIRECTION,
    }
}

impl Ct {
    /// The packet's state, as bits.
    pub const STATE: Self = Self { dreg: Register::R1, key: NFT_CT_STATE, direction: None };
    /// The packet's direction; a single byte.
    pub const DIRECTION: Self = Self { dreg: Register::R1, key: NFT_CT_DIRECTION, direction: None };
    /// The connection's status, `IPS_*` bits.
    pub const STATUS: Self = Self { dreg: Register::R1, key: NFT_CT_STATUS, direction: None };
    /// The IPv4 source of the connection's first packet, before any translation.
    pub const ORIGINAL_SOURCE_V4: Self = Self::original(NFT_CT_SRC_IP);
    /// The IPv6 source of the connection's first packet, before any translation.
    pub const ORIGINAL_SOURCE_V6: Self = Self::original(NFT_CT_SRC_IP6);

    /// The source port of the connection's first packet, before any translation.
    pub const ORIGINAL_SOURCE_PORT: Self = Self::original(NFT_CT_PROTO_SRC);
    /// The number of the connection (`CTA_ID`).
    pub const ID: Self = Self { dreg: Register::R1, key: NFT_CT_ID, direction: None };

    const fn original(key: u32) -> Self {
        Self { dreg: Register::R1, key, direction: Some(IP_CT_DIR_ORIGINAL) }
    }

    fn key_name(&self) -> Option<&'static str> {
        match self.key {
            NFT_CT_STATE => Some("state"),
            NFT_CT_DIRECTION => Some("direction"),
            NFT_CT_STATUS => Some("status"),
            NFT_CT_ID => Some("id"),
            NFT_CT_MARK => Some("mark"),
            NFT_CT_PROTO_SRC => Some("proto_src"),
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

attributes! {
    /// Loads a property of an address from the routing table: its type is an `RTN_*` in the order of the
    /// machine.
    Fib("fib") {
        /// The destination register.
        dreg: Register = NFTA_FIB_DREG,
        /// The property, an `NFT_FIB_RESULT_*`.
        result: u32 = NFTA_FIB_RESULT,
        /// The address, `NFTA_FIB_F_*`.
        flags: u32 = NFTA_FIB_FLAGS,
    }
}

impl Fib {
    /// The type of the destination address.
    pub const DESTINATION_TYPE: Self = Self::address_type(NFTA_FIB_F_DADDR);
    /// The type of the destination address as an address of the output interface.
    pub const DESTINATION_TYPE_OUT: Self = Self::address_type(NFTA_FIB_F_DADDR | NFTA_FIB_F_OIF);
    /// The type of the source address.
    pub const SOURCE_TYPE: Self = Self::address_type(NFTA_FIB_F_SADDR);
    /// The type of the source address as an address of the output interface.
    pub const SOURCE_TYPE_OUT: Self = Self::address_type(NFTA_FIB_F_SADDR | NFTA_FIB_F_OIF);

    /// In postrouting the kernel has no other result than the type.
    const fn address_type(flags: u32) -> Self {
        Self { dreg: Register::R1, result: NFT_FIB_RESULT_ADDRTYPE, flags }
    }

    /// nft's operands for its flags; `None` if a flag is unknown.
    pub(crate) fn operands(&self) -> Option<String> {
        const NAMES: [(u32, &str); 3] =
            [(NFTA_FIB_F_SADDR, "saddr"), (NFTA_FIB_F_DADDR, "daddr"), (NFTA_FIB_F_OIF, "oif")];
        let set = NAMES.iter().filter(|(flag, _)| self.flags & flag != 0);
        let known = NAMES.iter().fold(0, |known, (flag, _)| known | flag);
        let names: Vec<_> = set.map(|(_, name)| *name).collect();
        (self.flags & !known == 0).then(|| names.join(" . "))
    }
}

impl fmt::Display for Fib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operands() {
            Some(operands) => write!(f, "fib {operands}")?,
            None => write!(f, "fib flags {:#x}", self.flags)?,
        }
        match self.result {
            NFT_FIB_RESULT_ADDRTYPE => f.write_str(" type")?,
            other => write!(f, " result {other}")?,
        }
        write!(f, " => {}", self.dreg)
    }
}

attributes! {
    /// Loads a property of the packet's route into a register.
    Rt("rt") {
        /// The destination register.
        dreg: Register = NFTA_RT_DREG,
        /// The property, an `NFT_RT_*`.
        key: u32 = NFTA_RT_KEY,
    }
}

impl Rt {
    /// Whether IPsec will transform the packet (`rt ipsec`): a byte, 1 or 0.
    pub const IPSEC: Self = Self { dreg: Register::R1, key: NFT_RT_XFRM };
}

impl fmt::Display for Rt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rt load ")?;
        match self.key {
            NFT_RT_XFRM => f.write_str("ipsec")?,
            other => write!(f, "key {other}")?,
        }
        write!(f, " => {}", self.dreg)
    }
}
