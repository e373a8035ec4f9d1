//! nft's numbers for types of keys and values (its `enum datatypes`). The kernel only keeps them.

/// A number; with a length of its own in each set.
pub const INTEGER: u32 = 4;
/// An IPv4 address.
pub const IPV4_ADDR: u32 = 7;
/// An IPv6 address.
pub const IPV6_ADDR: u32 = 8;
/// A transport protocol.
pub const INET_PROTO: u32 = 12;
/// A port.
pub const INET_SERVICE: u32 = 13;
/// An interface's name.
pub const IFNAME: u32 = 41;

/// Each type of a concatenation has six bits, the first the highest.
#[must_use]
pub const fn concatenation(first: u32, second: u32) -> u32 {
    first << 6 | second
}

/// nft's name for a single type.
#[must_use]
pub fn name(datatype: u32) -> Option<&'static str> {
    match datatype {
        IPV4_ADDR => Some("ipv4_addr"),
        IPV6_ADDR => Some("ipv6_addr"),
        INET_PROTO => Some("inet_proto"),
        INET_SERVICE => Some("inet_service"),
        IFNAME => Some("ifname"),
        _ => None,
    }
}
