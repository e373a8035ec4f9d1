//! Translation in nft's words.

use ephport_core::Family;

use super::terms::{Registers, Term};
use super::values::address;
use crate::nftables::expr::{Masq, Nat, Register};
use crate::uapi::{
    NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM,
    NF_NAT_RANGE_PROTO_RANDOM_FULLY, NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, NFPROTO_IPV4,
    NFPROTO_IPV6, NFT_NAT_SNAT,
};

/// `nft` would print ports that the kernel ignores; such a rule has no words here.
pub(super) fn masquerade(registers: &Registers, masq: &Masq) -> Option<String> {
    if masq.ignores_its_ports() {
        return None;
    }
    let ports = ports(registers, masq.proto_min, masq.proto_max)?;
    let to = if ports.is_empty() { String::new() } else { format!(" to {ports}") };
    Some(format!("masquerade{to}{}", flags(masq.flags.unwrap_or(0))?))
}

/// Source translation to a given address, given ports or both.
pub(super) fn source(registers: &Registers, nat: &Nat) -> Option<String> {
    let family = u8::try_from(nat.family).ok().filter(|_| nat.nat_type == NFT_NAT_SNAT)?;
    let flags = flags(nat.flags.unwrap_or(0))?;
    let Some(addr_min) = nat.addr_min else {
        let ports = ports(registers, nat.proto_min, nat.proto_max)?;
        let says_enough = family == NFPROTO_INET && !ports.is_empty();
        return says_enough.then(|| format!("snat to {ports}{flags}"));
    };
    let name = match family {
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        _ => return None,
    };
    let to = match registers.term(addr_min)? {
        // nft 1.0.6 takes the wrong registers for IPv6.
        Term::Mapped(words) if reads(nat, &Nat::source_block(Family::Ipv4)) => words.clone(),
        Term::Constant(bytes) if nat.addr_max.is_none_or(|max| max == addr_min) => {
            let address = address(bytes)?;
            let ports = ports(registers, nat.proto_min, nat.proto_max)?;
            match family {
                NFPROTO_IPV6 if !ports.is_empty() => format!("[{address}]{ports}"),
                _ => format!("{address}{ports}"),
            }
        }
        _ => return None,
    };
    Some(format!("snat {name} to {to}{flags}"))
}

/// Whether both take the same from the same registers.
fn reads(nat: &Nat, other: &Nat) -> bool {
    *nat == Nat { flags: nat.flags, ..other.clone() }
}

fn ports(registers: &Registers, min: Option<Register>, max: Option<Register>) -> Option<String> {
    let Some(min) = min else { return max.is_none().then(String::new) };
    let min = registers.port(min)?;
    let max = max.map_or(Some(min), |max| registers.port(max))?;
    Some(if min == max { format!(":{min}") } else { format!(":{min}-{max}") })
}

/// The ways to pick a port that a flag names.
pub(crate) const CHOICES: [(u32, &str); 3] = [
    (NF_NAT_RANGE_PROTO_RANDOM, "random"),
    (NF_NAT_RANGE_PROTO_RANDOM_FULLY, "fully-random"),
    (NF_NAT_RANGE_PERSISTENT, "persistent"),
];

/// The flags after the translation; what the registers imply is not written.
fn flags(flags: u32) -> Option<String> {
    let implied = NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED;
    let known = CHOICES.iter().fold(implied, |known, (flag, _)| known | flag);
    let set = CHOICES.iter().filter(|(flag, _)| flags & flag != 0);
    let words = set.map(|(_, name)| *name).collect::<Vec<_>>().join(",");
    let words = if words.is_empty() { words } else { format!(" {words}") };
    (flags & !known == 0).then_some(words)
}
