//! Bytes as the values that nft writes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ephport_core::Family;

use crate::uapi::{RTN_BROADCAST, RTN_MULTICAST, RTN_UNICAST};

/// In bytes.
pub(super) fn address_len(family: Family) -> u32 {
    if family == Family::Ipv4 { 4 } else { 16 }
}

pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

pub(super) fn port(bytes: &[u8]) -> Option<String> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?).to_string())
}

pub(super) fn protocol(bytes: &[u8]) -> Option<String> {
    let [number] = bytes else { return None };
    let protocol = ephport_core::Protocol::from_number(*number);
    Some(protocol.map_or(number.to_string(), |protocol| protocol.to_string()))
}

/// The address of all bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = bytes.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets).into());
    v4.or_else(|| bytes.try_into().ok().map(|octets: [u8; 16]| Ipv6Addr::from(octets).into()))
}

/// The front of an address is a prefix.
pub(super) fn network(family: Family, bytes: &[u8], prefix: Option<u32>) -> Option<String> {
    let len = usize::try_from(address_len(family)).ok()?;
    let mut whole = bytes.to_vec();
    whole.resize(len, 0);
    let address = address(&whole)?;
    match prefix {
        _ if bytes.len() > len => None,
        Some(prefix) => Some(format!("{address}/{prefix}")),
        None if bytes.len() < len => Some(format!("{address}/{}", bytes.len() * 8)),
        None => Some(address.to_string()),
    }
}

/// All 16 bytes of a register are a name, fewer are a prefix.
pub(super) fn interface(bytes: &[u8]) -> Option<String> {
    let name = bytes.split(|byte| *byte == 0).next()?;
    let name = str::from_utf8(name).ok()?;
    let is_whole = bytes.len() == 16;
    Some(if is_whole { name.into() } else { format!("{name}*") })
}

pub(super) fn tcp_flags(bits: u8) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let set = NAMES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    let names: Vec<_> = set.map(|(_, name)| *name).collect();
    if names.is_empty() { "0x0".into() } else { names.join(" | ") }
}

pub(super) fn address_type(number: u32) -> Option<&'static str> {
    let types =
        [(RTN_UNICAST, "unicast"), (RTN_BROADCAST, "broadcast"), (RTN_MULTICAST, "multicast")];
    types.into_iter().find(|(value, _)| u32::from(*value) == number).map(|(_, name)| name)
}

/// How many bits are set, if they are the last ones.
pub(super) fn suffix_len(bytes: impl Iterator<Item = u8>) -> Option<u32> {
    let bits = bytes.fold(0u128, |bits, byte| bits << 8 | u128::from(byte));
    (bits & bits.wrapping_add(1) == 0).then(|| bits.count_ones())
}
