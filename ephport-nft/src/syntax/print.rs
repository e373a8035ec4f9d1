//! Statements and operands as nft prints them; `None` for what nft has no syntax for.

use ephport_core::{Family, Protocol};

use super::operand::{AddressField, IcmpField, Operand};
use super::sets::{SetRef, port, suffix_len};
use super::statement::{MatchValue, Statement};
use crate::nftables::datatype::{IFNAME, INET_PROTO, INET_SERVICE, INTEGER, IPV4_ADDR, IPV6_ADDR};
use crate::nftables::expr::{Ct, Hash, ObjRef, Payload, PayloadWrite};
use crate::nftables::value::{self, address_len, ct_state_bit, number};
use crate::table::layout::is_open_set;
use crate::uapi::{
    ARPHRD_LOOPBACK, IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IP_CT_ESTABLISHED, IP_CT_NEW,
    IP_CT_RELATED, IPS_ASSURED, IPS_CONFIRMED, IPS_DST_NAT, IPS_EXPECTED, IPS_SEEN_REPLY,
    IPS_SRC_NAT, NF_CT_STATE_INVALID_BIT, NF_CT_STATE_UNTRACKED_BIT, NFT_CT_ID, NFT_CT_PROTO_SRC,
    NFT_FIB_RESULT_ADDRTYPE, NFT_META_IIF, NFT_META_IIFNAME, NFT_META_IIFTYPE, NFT_META_L4PROTO,
    NFT_META_MARK, NFT_META_NFPROTO, NFT_META_OIF, NFT_META_OIFKIND, NFT_META_OIFNAME,
    NFT_META_OIFTYPE, NFT_META_SECPATH, NFT_OBJECT_CT_TIMEOUT, NFT_PAYLOAD_CSUM_INET,
    NFT_PAYLOAD_TRANSPORT_HEADER, NFT_RT_XFRM, NFTA_FIB_F_DADDR, NFTA_FIB_F_OIF, NFTA_FIB_F_SADDR,
    RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST,
};

impl Statement<'_> {
    /// The statement as nft prints it; `None` where nft has no syntax for it, or prints something that
    /// the kernel does not do.
    #[must_use]
    pub fn to_nft(&self) -> Option<String> {
        match self {
            Self::Match { operand, is_inverted, value } => matched(operand, *is_inverted, value),
            Self::Counter(counter) => {
                Some(format!("counter packets {} bytes {}", counter.packets, counter.bytes))
            }
            Self::Object(ObjRef { object_type: NFT_OBJECT_CT_TIMEOUT, name }) => {
                Some(format!("ct timeout set \"{name}\""))
            }
            Self::Nat(nat) => nat.to_nft(),
            Self::Verdict(verdict) => Some(verdict.to_string()),
            Self::Vmap { key: Operand::Masked(inner, mask), map } => {
                Some(format!("{} vmap {}", masked_key(inner, mask, *map)?, map.to_nft()?))
            }
            Self::Vmap { key, map } => Some(format!("{} vmap {}", key.key(*map)?, map.to_nft()?)),
            Self::Write { write, value, protocol } => written(write, value, (*protocol)?),
            Self::Object(_) | Self::Raw(_) => None,
        }
    }
}

/// A port that a map has for the same port. nft updates the checksum that the protocol has; it does not know the
/// one of SCTP, and writes no packet without.
fn written(write: &PayloadWrite, value: &Operand<'_>, protocol: u8) -> Option<String> {
    let protocol = Protocol::from_number(protocol)?;
    let checksum = match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp | Protocol::UdpLite => 6,
        Protocol::Sctp | Protocol::Icmp | Protocol::Icmpv6 => return None,
    };
    let Operand::Map { key, map, slot: 0 } = value else { return None };
    let PayloadWrite { base, offset, len, .. } = *write;
    let is_same = **key == Operand::Payload { base, offset, len };
    let has_checksum = (write.csum_type, write.csum_offset, write.csum_flags)
        == (NFT_PAYLOAD_CSUM_INET, checksum, 0);
    let port = match (base, offset, len) {
        (NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2) => "sport",
        (NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2) => "dport",
        _ => return None,
    };
    let port = format!("{protocol} {port}");
    (is_same && has_checksum).then_some(format!("{port} set {port} map {}", map.to_nft()?))
}

fn matched(operand: &Operand<'_>, is_inverted: bool, value: &MatchValue<'_>) -> Option<String> {
    let op = if is_inverted { "!= " } else { "" };
    match (operand, value) {
        (Operand::Masked(inner, mask), MatchValue::Set(set)) => {
            let op = if is_inverted { "!=" } else { "==" };
            Some(format!("{} {op} {}", masked_key(inner, mask, *set)?, set.to_nft()?))
        }
        (_, MatchValue::Set(set)) => Some(format!("{} {op}{}", operand.key(*set)?, set.to_nft()?)),
        (Operand::Masked(inner, mask), MatchValue::Bytes(bytes)) => {
            masked(inner, mask, is_inverted, bytes)
        }
        (_, MatchValue::Bytes(bytes)) => {
            Some(format!("{} {op}{}", operand.to_nft()?, operand.value(bytes)?))
        }
        (_, MatchValue::Order(op, bytes)) => {
            Some(format!("{} {}{}", operand.to_nft()?, op.symbol(), operand.value(bytes)?))
        }
        // nft encodes an inverted range and a plain one in different ways.
        (
            Operand::Payload { .. }
            | Operand::Icmp { field: IcmpField::Identifier, .. }
            | Operand::Ct { key: NFT_CT_PROTO_SRC, .. },
            MatchValue::Range(low, high),
        ) if !is_inverted => Some(format!("{} {}-{}", operand.to_nft()?, port(low)?, port(high)?)),
        _ => None,
    }
}

/// The bits of an operand that are looked up in a set.
fn masked_key(inner: &Operand<'_>, mask: &[u8], set: SetRef<'_>) -> Option<String> {
    let bits = match inner {
        Operand::Payload { .. } | Operand::Icmp { .. } => port(mask)?,
        _ => value::address(mask)?.to_string(),
    };
    Some(format!("{} & {bits}", inner.key(set)?))
}

/// Flags, or a prefix of an address.
fn masked(inner: &Operand<'_>, mask: &[u8], is_inverted: bool, bytes: &[u8]) -> Option<String> {
    match inner {
        Operand::Payload { base, offset, len } => {
            let load = Payload { base: *base, offset: *offset, len: *len, ..Payload::TCP_FLAGS };
            let op = if is_inverted { "!=" } else { "==" };
            let ([mask], [flags]) = (mask, bytes) else {
                return Some(format!(
                    "{} & {} {op} {}",
                    inner.to_nft()?,
                    port(mask)?,
                    port(bytes)?
                ));
            };
            (load == Payload::TCP_FLAGS)
                .then(|| format!("tcp flags & ({}) {op} {}", tcp_flags(*mask), tcp_flags(*flags)))
        }
        Operand::Icmp { field: IcmpField::Identifier, .. } => {
            let op = if is_inverted { "!=" } else { "==" };
            Some(format!("{} & {} {op} {}", inner.to_nft()?, port(mask)?, port(bytes)?))
        }
        Operand::Meta(NFT_META_MARK) => {
            let op = if is_inverted { "!=" } else { "==" };
            Some(format!("meta mark & {:#010x} {op} {:#010x}", number(mask)?, number(bytes)?))
        }
        Operand::Ct { key, .. } => ct_bits(*key, number(mask)?, is_inverted, bytes),
        Operand::Address(field) => {
            let bits = u32::try_from(8 * address_len(field.family)).ok()?;
            let is_whole = field.is_whole() && mask.len() == field.len;
            let free = suffix_len(mask.iter().map(|byte| !byte)).filter(|_| is_whole)?;
            let op = if is_inverted { "!= " } else { "" };
            Some(format!("{} {op}{}/{}", inner.to_nft()?, value::address(bytes)?, bits - free))
        }
        _ => None,
    }
}

impl Operand<'_> {
    /// The operand before a value.
    pub(super) fn to_nft(&self) -> Option<String> {
        let text = match self {
            Self::Meta(NFT_META_OIFNAME) => "oifname",
            Self::Meta(NFT_META_IIFNAME) => "iifname",
            Self::Meta(NFT_META_OIF) => "oif",
            Self::Meta(NFT_META_IIF) => "iif",
            Self::Meta(NFT_META_OIFTYPE) => "meta oiftype",
            Self::Meta(NFT_META_IIFTYPE) => "meta iiftype",
            Self::Meta(NFT_META_SECPATH) => "meta ipsec",
            Self::Meta(NFT_META_OIFKIND) => "meta oifkind",
            Self::Rt(NFT_RT_XFRM) => "rt ipsec",
            Self::Ct { key: NFT_CT_PROTO_SRC, direction: Some(direction) } => {
                return Some(format!("ct {} proto-src", direction_name(*direction)?));
            }
            Self::Ct { key: NFT_CT_ID, direction: None } => "ct id",
            Self::Meta(NFT_META_NFPROTO) => "meta nfproto",
            Self::Meta(NFT_META_L4PROTO) => "meta l4proto",
            Self::Meta(NFT_META_MARK) => "meta mark",
            Self::Payload { base, offset, len: 2 } if *base == Payload::SOURCE_PORT.base => {
                match offset {
                    0 => "th sport",
                    2 => "th dport",
                    _ => return None,
                }
            }
            Self::Icmp { family: Family::Ipv4, field: IcmpField::Type } => "icmp type",
            Self::Icmp { family: Family::Ipv4, field: IcmpField::Identifier } => "icmp id",
            Self::Icmp { family: Family::Ipv6, field: IcmpField::Type } => "icmpv6 type",
            Self::Icmp { family: Family::Ipv6, field: IcmpField::Identifier } => "icmpv6 id",
            Self::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags } => return fib(*flags),
            Self::Address(field) => return Some(address(*field)),
            Self::Ct { key, direction: None } if *key == Ct::DIRECTION.key => "ct direction",
            Self::Numgen(numgen) => {
                let (kind, modulus) = (numgen.type_name()?, numgen.modulus);
                return Some(format!("numgen {kind} mod {modulus}{}", offset(numgen.offset)));
            }
            Self::Hash(fields, hash) => return jhash(fields, hash),
            Self::NetworkOrder(number) => return number.to_nft(),
            Self::Map { key, map, .. } => {
                return Some(format!("{} map {}", key.key(*map)?, map.to_nft()?));
            }
            _ => return None,
        };
        Some(text.into())
    }

    /// The operand before a set, if the keys of the set are of its type.
    fn key(&self, set: SetRef<'_>) -> Option<String> {
        let spec = set.spec()?;
        let is_number = spec.key_type == Some(INTEGER) && spec.key_len == Some(4);
        let datatype = match self {
            Self::Numgen(_) | Self::Hash(..) => {
                return (is_number && !spec.is_interval()).then(|| self.to_nft())?;
            }
            Self::NetworkOrder(_) => {
                return (is_number && spec.is_interval()).then(|| self.to_nft())?;
            }
            Self::Address(field) if field.is_whole() => match field.family {
                Family::Ipv4 => IPV4_ADDR,
                Family::Ipv6 => IPV6_ADDR,
            },
            Self::Ct { key: NFT_CT_ID, direction: None } if is_open_set(spec) => INTEGER,
            Self::Payload { .. } => INET_SERVICE,
            Self::Icmp { field: IcmpField::Identifier, .. } if spec.key_len == Some(2) => INTEGER,
            Self::Meta(NFT_META_L4PROTO) => INET_PROTO,
            Self::Meta(NFT_META_OIFNAME | NFT_META_IIFNAME) => IFNAME,
            _ => return None,
        };
        (spec.key_type == Some(datatype)).then(|| self.to_nft())?
    }

    /// A value that the operand is compared with.
    fn value(&self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Meta(NFT_META_OIFNAME | NFT_META_IIFNAME) => {
                value::interface(bytes).map(|name| format!("\"{name}\""))
            }
            Self::Meta(NFT_META_OIFKIND) => {
                value::interface(bytes).map(|kind| format!("\"{kind}\""))
            }
            Self::Rt(NFT_RT_XFRM) | Self::Meta(NFT_META_SECPATH) => match bytes {
                [0] => Some("missing".into()),
                [1] => Some("exists".into()),
                _ => None,
            },
            Self::Meta(NFT_META_OIF | NFT_META_IIF) => Some(number(bytes)?.to_string()),
            Self::Meta(NFT_META_MARK) => Some(format!("{:#x}", number(bytes)?)),
            Self::Meta(NFT_META_OIFTYPE | NFT_META_IIFTYPE) => {
                (bytes == ARPHRD_LOOPBACK.to_ne_bytes()).then(|| "loopback".into())
            }
            Self::Meta(NFT_META_NFPROTO) => match value::family(*bytes.first()?)? {
                _ if bytes.len() != 1 => None,
                Family::Ipv4 => Some("ipv4".into()),
                Family::Ipv6 => Some("ipv6".into()),
            },
            Self::Meta(NFT_META_L4PROTO) => value::protocol(bytes),
            Self::Payload { .. }
            | Self::Icmp { field: IcmpField::Identifier, .. }
            | Self::Ct { key: NFT_CT_PROTO_SRC, .. } => port(bytes),
            Self::Icmp { family, field: IcmpField::Type } => match bytes {
                [kind] if *kind == value::echo_request(*family) => Some("echo-request".into()),
                _ => None,
            },
            Self::Fib { .. } => address_type(number(bytes)?).map(Into::into),
            Self::Address(field) => network(*field, bytes),
            Self::Ct { .. } => match bytes {
                [direction] => direction_name(*direction).map(Into::into),
                _ => None,
            },
            _ => None,
        }
    }
}

fn address(field: AddressField) -> String {
    let direction = field.direction.and_then(direction_name);
    let direction = direction.map_or(String::new(), |name| format!("ct {name} "));
    let family = value::family_name(value::nfproto(field.family)).unwrap_or_default();
    let end = if field.is_source { "saddr" } else { "daddr" };
    format!("{direction}{family} {end}")
}

fn direction_name(direction: u8) -> Option<&'static str> {
    match direction {
        IP_CT_DIR_ORIGINAL => Some("original"),
        IP_CT_DIR_REPLY => Some("reply"),
        _ => None,
    }
}

/// Leading bytes of an address are a prefix.
fn network(field: AddressField, bytes: &[u8]) -> Option<String> {
    let len = address_len(field.family);
    let mut whole = bytes.to_vec();
    whole.resize(len.max(bytes.len()), 0);
    let address = value::address(&whole).filter(|_| bytes.len() <= len)?;
    Some(match bytes.len() {
        bytes if bytes < len => format!("{address}/{}", 8 * bytes),
        _ => address.to_string(),
    })
}

fn fib(flags: u32) -> Option<String> {
    let names = [(NFTA_FIB_F_SADDR, "saddr"), (NFTA_FIB_F_DADDR, "daddr"), (NFTA_FIB_F_OIF, "oif")];
    let known = names.iter().fold(0, |known, (flag, _)| known | flag);
    let set = names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name);
    let set = set.collect::<Vec<_>>().join(" . ");
    (flags != 0 && flags & !known == 0).then(|| format!("fib {set} type"))
}

fn address_type(number: u32) -> Option<&'static str> {
    let types = [
        (RTN_UNICAST, "unicast"),
        (RTN_LOCAL, "local"),
        (RTN_BROADCAST, "broadcast"),
        (RTN_MULTICAST, "multicast"),
    ];
    types.into_iter().find(|(value, _)| u32::from(*value) == number).map(|(_, name)| name)
}

/// nft hashes fields of the packet.
fn jhash(fields: &[Operand<'_>], hash: &Hash) -> Option<String> {
    let field = |field: &Operand<'_>| match field {
        Operand::Address(_)
        | Operand::Payload { .. }
        | Operand::Icmp { field: IcmpField::Identifier, .. } => field.to_nft(),
        _ => None,
    };
    let fields = fields.iter().map(field).collect::<Option<Vec<_>>>()?.join(" . ");
    let seed = hash.seed.map_or(String::new(), |seed| format!(" seed {seed:#x}"));
    let offset = offset(hash.offset.unwrap_or(0));
    Some(format!("jhash {fields} mod {}{seed}{offset}", hash.modulus))
}

fn offset(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}

fn tcp_flags(bits: u8) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let set = NAMES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    let names: Vec<_> = set.map(|(_, name)| *name).collect();
    if names.is_empty() { "0x0".into() } else { names.join(" | ") }
}

/// At least one of the bits, or none of them.
fn ct_bits(key: u32, mask: u32, is_inverted: bool, bytes: &[u8]) -> Option<String> {
    const STATES: [(u32, &str); 5] = [
        (NF_CT_STATE_INVALID_BIT, "invalid"),
        (ct_state_bit(IP_CT_ESTABLISHED), "established"),
        (ct_state_bit(IP_CT_RELATED), "related"),
        (ct_state_bit(IP_CT_NEW), "new"),
        (NF_CT_STATE_UNTRACKED_BIT, "untracked"),
    ];
    const STATUSES: [(u32, &str); 6] = [
        (IPS_EXPECTED, "expected"),
        (IPS_SEEN_REPLY, "seen-reply"),
        (IPS_ASSURED, "assured"),
        (IPS_CONFIRMED, "confirmed"),
        (IPS_SRC_NAT, "snat"),
        (IPS_DST_NAT, "dnat"),
    ];
    let (key, names) = match key {
        key if key == Ct::STATE.key => ("state", &STATES[..]),
        key if key == Ct::STATUS.key => ("status", &STATUSES[..]),
        _ => return None,
    };
    let set: Vec<_> = names.iter().filter(|(bit, _)| mask & bit != 0).collect();
    let is_named = set.iter().fold(0, |bits, (bit, _)| bits | bit) == mask;
    if !is_named || number(bytes)? != 0 {
        return None;
    }
    let names: Vec<_> = set.iter().map(|(_, name)| *name).collect();
    match (is_inverted, names.as_slice()) {
        (true, _) => Some(format!("ct {key} {}", names.join(","))),
        (false, [name]) => Some(format!("ct {key} & {name} == 0")),
        _ => None,
    }
}
