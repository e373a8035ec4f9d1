//! What NAT is told: `masq` and `nat` over the registers.

use std::net::IpAddr;

use ephport_core::{Address, NatFlags, Port, PortRange};

use super::NatTarget;
use super::registers::Registers;
use crate::nftables::expr::{Masq, Nat, Register};
use crate::uapi::{
    NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM,
    NF_NAT_RANGE_PROTO_RANDOM_FULLY, NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, NFPROTO_IPV4,
    NFPROTO_IPV6, NFT_NAT_SNAT,
};

pub(super) fn masquerade(registers: &Registers, masq: &Masq) -> Option<NatTarget> {
    // The kernel takes it, but nobody can have meant it.
    if masq.ignores_its_ports() {
        return None;
    }
    let flags = masq.flags.unwrap_or(0);
    let (min, max) = (masq.proto_min, masq.proto_max);
    let ports = match flags & NF_NAT_RANGE_PROTO_SPECIFIED {
        0 => None,
        // Without registers the kernel would take the range 0-0.
        _ => Some(ports(registers, min?, max)?),
    };
    target(ports, Address::Masquerade, flags & !NF_NAT_RANGE_PROTO_SPECIFIED)
}

/// Of packets of its family; others it passes over (`nft_nat_inet_eval`).
pub(super) fn source_nat(registers: &Registers, nat: &Nat) -> Option<NatTarget> {
    let fixed = |register| {
        Some(Address::Fixed(match u8::try_from(nat.family) {
            Ok(NFPROTO_IPV6) => {
                IpAddr::from(<[u8; 16]>::try_from(registers.bytes(register, 16)?).ok()?)
            }
            Ok(NFPROTO_IPV4) => {
                IpAddr::from(<[u8; 4]>::try_from(registers.bytes(register, 4)?).ok()?)
            }
            // The kernel refuses an address of both families.
            _ => return None,
        }))
    };
    if nat.nat_type != NFT_NAT_SNAT || !is_family(nat.family) {
        return None;
    }
    let address = nat.addr_min.map_or(Some(Address::Keep), fixed)?;
    // A range of addresses is nothing that a policy asks for.
    if nat.addr_max.is_some_and(|register| fixed(register) != Some(address)) {
        return None;
    }
    let ports = match nat.proto_min {
        None => None,
        Some(min) => Some(ports(registers, min, nat.proto_max)?),
    };
    // What the registers say, the flags may say too.
    let implied = nat.addr_min.map_or(0, |_| NF_NAT_RANGE_MAP_IPS)
        | nat.proto_min.map_or(0, |_| NF_NAT_RANGE_PROTO_SPECIFIED);
    target(ports, address, nat.flags.unwrap_or(0) & !implied)
}

fn is_family(family: u32) -> bool {
    [NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6].map(u32::from).contains(&family)
}

/// With those of the flags that say how; no others are known here.
fn target(ports: Option<PortRange>, address: Address, flags: u32) -> Option<NatTarget> {
    let has = |flag| flags & flag != 0;
    let known =
        NF_NAT_RANGE_PROTO_RANDOM | NF_NAT_RANGE_PROTO_RANDOM_FULLY | NF_NAT_RANGE_PERSISTENT;
    (flags & !known == 0).then(|| NatTarget {
        ports,
        address,
        flags: NatFlags {
            random: has(NF_NAT_RANGE_PROTO_RANDOM),
            fully_random: has(NF_NAT_RANGE_PROTO_RANDOM_FULLY),
            persistent: has(NF_NAT_RANGE_PERSISTENT),
        },
    })
}

/// The range in two registers; the kernel turns one round whose ends are.
fn ports(registers: &Registers, min: Register, max: Option<Register>) -> Option<PortRange> {
    let port = |register| {
        let bytes = registers.bytes(register, 2)?.try_into().ok()?;
        Port::new(u16::from_be_bytes(bytes)).ok()
    };
    let low = port(min)?;
    let high = max.map_or(Some(low), port)?;
    PortRange::new(low.min(high), low.max(high)).ok()
}
