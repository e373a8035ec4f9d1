//! Expressions that act on the packet: `counter`, `masq`, `nat` and `objref`
//! (net/netfilter/nft_counter.c, nft_masq.c, nft_nat.c, nft_objref.c).

use std::fmt;

use ephport_core::Family;

use super::data::Register;
use crate::nftables::schema::attributes;
use crate::nftables::value;
use crate::uapi::{
    NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED, NFT_NAT_DNAT, NFT_NAT_SNAT,
    NFT_OBJECT_CT_TIMEOUT,
};

attributes! {
    /// Counts the packets and bytes that reach it: in a nat chain one packet of each connection.
    #[derive(Default)]
    Counter("counter") {
        /// The count of bytes.
        bytes: u64 = NFTA_COUNTER_BYTES,
        /// The count of packets.
        packets: u64 = NFTA_COUNTER_PACKETS,
    }, padding NFTA_COUNTER_PAD
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counter pkts {} bytes {}", self.packets, self.bytes)
    }
}

attributes! {
    /// Source NAT to the address of the output interface, and to the ports in two registers if it has them.
    #[derive(Default)]
    Masq("masq") {
        /// `NF_NAT_RANGE_*`. Without `NF_NAT_RANGE_PROTO_SPECIFIED` the kernel accepts the
        /// registers and ignores them, and nft lists the ports nevertheless.
        flags: Option<u32> = NFTA_MASQ_FLAGS,
        /// The register with the first port.
        proto_min: Option<Register> = NFTA_MASQ_REG_PROTO_MIN,
        /// The register with the last port; absent for a single port.
        proto_max: Option<Register> = NFTA_MASQ_REG_PROTO_MAX,
    }
}

impl Masq {
    /// Whether it has ports that the kernel ignores.
    #[must_use]
    pub fn ignores_its_ports(&self) -> bool {
        let specified = self.flags.unwrap_or(0) & NF_NAT_RANGE_PROTO_SPECIFIED != 0;
        self.proto_min.is_some() && !specified
    }

    /// Without a last port that is the first: the kernel lists both for a single port.
    pub(super) fn normalized(&self) -> Self {
        Self {
            proto_max: self.proto_max.filter(|max| Some(*max) != self.proto_min),
            ..self.clone()
        }
    }
}

impl fmt::Display for Masq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("masq")?;
        if let Some(register) = self.proto_min {
            write!(f, " proto_min {register}")?;
        }
        if let Some(register) = self.proto_max {
            write!(f, " proto_max {register}")?;
        }
        if let Some(flags) = self.flags {
            write!(f, " flags {flags:#x}")?;
        }
        Ok(())
    }
}

attributes! {
    /// Translates to the addresses and ports in registers.
    Nat("nat") {
        /// Source or destination, an `NFT_NAT_*`.
        nat_type: u32 = NFTA_NAT_TYPE,
        /// The family of the packets, an `NFPROTO_*`; not `NFPROTO_INET` with an address.
        family: u32 = NFTA_NAT_FAMILY,
        /// The register with the first address.
        addr_min: Option<Register> = NFTA_NAT_REG_ADDR_MIN,
        /// The register with the last address; absent for a single address.
        addr_max: Option<Register> = NFTA_NAT_REG_ADDR_MAX,
        /// The register with the first port.
        proto_min: Option<Register> = NFTA_NAT_REG_PROTO_MIN,
        /// The register with the last port; absent for a single port.
        proto_max: Option<Register> = NFTA_NAT_REG_PROTO_MAX,
        /// `NF_NAT_RANGE_*`; the kernel sets those that the registers imply.
        flags: Option<u32> = NFTA_NAT_FLAGS,
    }
}

impl Nat {
    /// Source translation of packets of `family`, without addresses and ports.
    #[must_use]
    pub fn source(family: u8) -> Self {
        Self {
            nat_type: NFT_NAT_SNAT,
            family: family.into(),
            addr_min: None,
            addr_max: None,
            proto_min: None,
            proto_max: None,
            flags: None,
        }
    }

    /// Source translation to the address, first port, address and last port that a map loaded one after
    /// another into the registers from 1.
    #[must_use]
    pub fn source_block(family: Family) -> Self {
        let [proto_min, addr_max, proto_max] = match family {
            Family::Ipv4 => [9, 10, 11],
            Family::Ipv6 => [2, 13, 17],
        };
        Self {
            addr_min: Some(Register::R1),
            addr_max: Some(Register(addr_max)),
            proto_min: Some(Register(proto_min)),
            proto_max: Some(Register(proto_max)),
            ..Self::source(value::nfproto(family))
        }
    }

    /// The flags that the kernel sets by itself, because a register implies them.
    pub(crate) fn implied_flags(&self) -> u32 {
        let address = self.addr_min.map_or(0, |_| NF_NAT_RANGE_MAP_IPS);
        address | self.proto_min.map_or(0, |_| NF_NAT_RANGE_PROTO_SPECIFIED)
    }

    /// Without what the kernel adds: a last register that is the first, and the flags that the registers
    /// imply.
    pub(super) fn normalized(&self) -> Self {
        let implied = self.implied_flags();
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
        let nat_type = match self.nat_type {
            NFT_NAT_SNAT => "snat",
            NFT_NAT_DNAT => "dnat",
            _ => "unknown",
        };
        let family = u8::try_from(self.family).ok().and_then(value::family_name);
        let family = family.unwrap_or("unknown");
        write!(f, "nat {nat_type} {family}")?;
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

attributes! {
    /// Uses an object of the table for the packet: one of `ct timeout` becomes that of its connection.
    ObjRef("objref") {
        /// The type of the object, an `NFT_OBJECT_*`.
        object_type: u32 = NFTA_OBJREF_IMM_TYPE,
        /// The name of the object.
        name: String = NFTA_OBJREF_IMM_NAME,
    }
}

impl ObjRef {
    /// Assigns the timeouts of this name, which the kernel does only before the connection is confirmed.
    #[must_use]
    pub fn timeout(name: &str) -> Self {
        Self { object_type: NFT_OBJECT_CT_TIMEOUT, name: name.into() }
    }
}

impl fmt::Display for ObjRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "objref type {} name {}", self.object_type, self.name)
    }
}
