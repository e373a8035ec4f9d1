//! `nat`: translation to a given address, given ports or both (net/netfilter/nft_nat.c).

use std::fmt;

use ephport_core::Family;

use super::Register;
use crate::nftables::schema::attributes;
use crate::uapi::{
    NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6,
    NFT_NAT_DNAT, NFT_NAT_SNAT,
};

attributes! {
    /// Translates to the addresses and ports in registers.
    Nat("nat") {
        /// Source or destination, an `NFT_NAT_*`.
        kind: u32 = NFTA_NAT_TYPE,
        /// Of which packets, an `NFPROTO_*`; with an address not `NFPROTO_INET`.
        family: u32 = NFTA_NAT_FAMILY,
        /// Holds the lowest address.
        addr_min: Option<Register> = NFTA_NAT_REG_ADDR_MIN,
        /// Holds the highest address; the lowest alone if absent.
        addr_max: Option<Register> = NFTA_NAT_REG_ADDR_MAX,
        /// Holds the lowest port.
        proto_min: Option<Register> = NFTA_NAT_REG_PROTO_MIN,
        /// Holds the highest port; the lowest alone if absent.
        proto_max: Option<Register> = NFTA_NAT_REG_PROTO_MAX,
        /// `NF_NAT_RANGE_*`; what the registers imply the kernel sets itself.
        flags: Option<u32> = NFTA_NAT_FLAGS,
    }
}

impl Nat {
    /// Source translation of packets of `family` that names neither address nor ports yet.
    #[must_use]
    pub fn source(family: u8) -> Self {
        Self {
            kind: NFT_NAT_SNAT,
            family: family.into(),
            addr_min: None,
            addr_max: None,
            proto_min: None,
            proto_max: None,
            flags: None,
        }
    }

    /// Source translation to the address, lowest port, address and highest port that a map put
    /// one after another from register 1 on.
    #[must_use]
    pub fn source_block(family: Family) -> Self {
        let (number, [proto_min, addr_max, proto_max]) = match family {
            Family::Ipv4 => (NFPROTO_IPV4, [9, 10, 11]),
            Family::Ipv6 => (NFPROTO_IPV6, [2, 13, 17]),
        };
        Self {
            addr_min: Some(Register::R1),
            addr_max: Some(Register(addr_max)),
            proto_min: Some(Register(proto_min)),
            proto_max: Some(Register(proto_max)),
            ..Self::source(number)
        }
    }

    /// The kernel lists a lower register also as the upper one, and the flags that the registers
    /// imply.
    pub(super) fn normalized(&self) -> Self {
        let mut implied = 0;
        if self.addr_min.is_some() {
            implied |= NF_NAT_RANGE_MAP_IPS;
        }
        if self.proto_min.is_some() {
            implied |= NF_NAT_RANGE_PROTO_SPECIFIED;
        }
        Self {
            addr_max: self.addr_max.filter(|max| Some(*max) != self.addr_min),
            proto_max: self.proto_max.filter(|max| Some(*max) != self.proto_min),
            flags: self.flags.map(|flags| flags & !implied).filter(|flags| *flags != 0),
            ..self.clone()
        }
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            NFT_NAT_SNAT => "snat",
            NFT_NAT_DNAT => "dnat",
            _ => "unknown",
        };
        let family = match u8::try_from(self.family) {
            Ok(NFPROTO_INET) => "inet",
            Ok(NFPROTO_IPV4) => "ip",
            Ok(NFPROTO_IPV6) => "ip6",
            _ => "unknown",
        };
        write!(f, "nat {kind} {family}")?;
        let registers = [
            ("addr_min", self.addr_min),
            ("addr_max", self.addr_max),
            ("proto_min", self.proto_min),
            ("proto_max", self.proto_max),
        ];
        for (name, register) in registers {
            if let Some(register) = register {
                write!(f, " {name} {register}")?;
            }
        }
        match self.flags {
            Some(flags) => write!(f, " flags {flags:#x}"),
            None => Ok(()),
        }
    }
}
