//! Values in registers, keys and flags: the kernel's bytes and numbers as the types of ephport-core,
//! and back.

use std::net::IpAddr;

use ephport_core::{Family, NatFlags, Port, PortRange, Protocol};

use crate::uapi::{
    ICMP_ECHO, ICMPV6_ECHO_REQUEST, NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM,
    NF_NAT_RANGE_PROTO_RANDOM_FULLY, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6,
};

/// The size of an interface name in a register (`IFNAMSIZ`, linux/if.h), in bytes.
pub(crate) const IFNAMSIZ: usize = 16;

/// The number of a family (`NFPROTO_*`, linux/netfilter.h).
pub(crate) fn nfproto(family: Family) -> u8 {
    match family {
        Family::Ipv4 => NFPROTO_IPV4,
        Family::Ipv6 => NFPROTO_IPV6,
    }
}

/// The family of a number; `None` for `NFPROTO_INET`, which is both, and for others.
pub(crate) fn family(nfproto: u8) -> Option<Family> {
    [Family::Ipv4, Family::Ipv6].into_iter().find(|family| self::nfproto(*family) == nfproto)
}

/// The name of an `NFPROTO_*` in nft; `None` for one that ephport does not use.
pub(crate) fn family_name(nfproto: u8) -> Option<&'static str> {
    match nfproto {
        NFPROTO_INET => Some("inet"),
        NFPROTO_IPV4 => Some("ip"),
        NFPROTO_IPV6 => Some("ip6"),
        _ => None,
    }
}

/// The type of an echo request.
pub(crate) fn echo_request(family: Family) -> u8 {
    match family {
        Family::Ipv4 => ICMP_ECHO,
        Family::Ipv6 => ICMPV6_ECHO_REQUEST,
    }
}

/// The length of an address, in bytes.
pub(crate) fn address_len(family: Family) -> usize {
    match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    }
}

/// The bytes of an address, in network order.
pub(crate) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address of exactly 4 or 16 bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The bytes of a port, in network order.
pub(crate) fn port_bytes(port: Port) -> [u8; 2] {
    port.get().to_be_bytes()
}

/// The port of exactly two bytes; `None` for port 0.
pub(crate) fn port(bytes: &[u8]) -> Option<Port> {
    Port::new(u16::from_be_bytes(bytes.try_into().ok()?)).ok()
}

/// The range between two ports in any order: the kernel swaps the ends of a reversed one.
pub(crate) fn port_range(min: Port, max: Port) -> Option<PortRange> {
    PortRange::new(min.min(max), min.max(max)).ok()
}

/// The number of exactly four bytes in the byte order of the host.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// The name of a transport protocol, or its number if ephport does not know it.
pub(crate) fn protocol(bytes: &[u8]) -> Option<String> {
    let [number] = bytes else { return None };
    let known = Protocol::from_number(*number);
    Some(match known {
        // The name in /etc/protocols.
        Some(Protocol::Icmpv6) => "ipv6-icmp".into(),
        known => known.map_or_else(|| number.to_string(), |protocol| protocol.to_string()),
    })
}

/// The bytes of an interface name, up to the size of a register.
pub(crate) fn interface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAMSIZ, 0);
    bytes
}

/// The interface name in a register; fewer bytes are a prefix, written with `*`.
pub(crate) fn interface(bytes: &[u8]) -> Option<String> {
    let name = str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()?;
    let is_whole = bytes.len() == IFNAMSIZ;
    Some(if is_whole { name.into() } else { format!("{name}*") })
}

/// The bit of a state of conntrack (`NF_CT_STATE_BIT`, linux/netfilter/nf_conntrack_common.h).
pub(crate) const fn ct_state_bit(ctinfo: u32) -> u32 {
    1 << (ctinfo + 1)
}

/// A flag of the kernel's NAT, its name in nft, and the field of [`NatFlags`] that it sets.
type NatFlag = (u32, &'static str, fn(&mut NatFlags) -> &mut bool);

/// The flags of the kernel's NAT that select a port or address, in the order in which nft prints
/// them (`NF_NAT_RANGE_*`, linux/netfilter/nf_nat.h).
const NAT_FLAGS: [NatFlag; 3] = [
    (NF_NAT_RANGE_PROTO_RANDOM, "random", |flags| &mut flags.random),
    (NF_NAT_RANGE_PROTO_RANDOM_FULLY, "fully-random", |flags| &mut flags.fully_random),
    (NF_NAT_RANGE_PERSISTENT, "persistent", |flags| &mut flags.persistent),
];

/// The bits of these flags.
pub(crate) fn nat_flag_bits(mut flags: NatFlags) -> u32 {
    NAT_FLAGS
        .iter()
        .fold(0, |bits, (bit, _, field)| bits | if *field(&mut flags) { *bit } else { 0 })
}

/// The flags of these bits; `None` if there is another bit.
pub(crate) fn nat_flags(bits: u32) -> Option<NatFlags> {
    let mut flags = NatFlags::default();
    for (bit, _, field) in NAT_FLAGS {
        *field(&mut flags) = bits & bit != 0;
    }
    (nat_flag_bits(flags) == bits).then_some(flags)
}

/// The names of these flags, separated by commas.
pub(crate) fn nat_flag_names(mut flags: NatFlags) -> String {
    let set = NAT_FLAGS.iter().filter(|(.., field)| *field(&mut flags));
    set.map(|(_, name, _)| *name).collect::<Vec<_>>().join(",")
}

/// Whether all bytes are zero: the lowest key of a set.
pub(crate) fn is_zero(key: &[u8]) -> bool {
    key.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_bytes() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let parsed: IpAddr = text.parse().unwrap();
            assert_eq!(address(&address_bytes(parsed)), Some(parsed));
            let family = Family::of(parsed);
            assert_eq!(self::family(nfproto(family)), Some(family));
            assert_eq!(address_bytes(parsed).len(), address_len(family));
        }
        assert_eq!(interface(&interface_bytes("eth0")).as_deref(), Some("eth0"));
        assert_eq!(interface(b"wg").as_deref(), Some("wg*"));
        assert_eq!(family(NFPROTO_INET), None);
        assert_eq!(port(&[0, 0]), None);
    }

    #[test]
    fn each_nat_flag_has_its_bit() {
        for bits in 0..64 {
            let flags = nat_flags(bits);
            assert_eq!(flags.is_some(), bits & !0x1c == 0, "{bits:#x}");
            assert!(flags.is_none_or(|flags| nat_flag_bits(flags) == bits), "{bits:#x}");
        }
    }
}
