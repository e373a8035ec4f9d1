//! What registers hold, in nft's words.

use ephport_core::Family;

use super::values::{
    address_len, address_type, interface, network, number, port, protocol, suffix_len, tcp_flags,
};

use crate::nftables::SetSpec;
use crate::nftables::datatype::{IFNAME, INET_PROTO, INET_SERVICE, INTEGER, IPV4_ADDR, IPV6_ADDR};
use crate::nftables::expr::{Bitwise, Byteorder, Cmp, CmpOp, Ct, Hash, Numgen, Payload, Register};
use crate::uapi::{
    ARPHRD_LOOPBACK, IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IP_CT_ESTABLISHED, IP_CT_NEW,
    IP_CT_RELATED, IPS_ASSURED, IPS_CONFIRMED, IPS_DST_NAT, IPS_EXPECTED, IPS_SEEN_REPLY,
    IPS_SRC_NAT, NF_CT_STATE_INVALID_BIT, NF_CT_STATE_UNTRACKED_BIT, NFPROTO_IPV4, NFPROTO_IPV6,
    NFT_CT_DST_IP, NFT_CT_DST_IP6, NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_HASH_JENKINS, NFT_META_IIF,
    NFT_META_IIFNAME, NFT_META_L4PROTO, NFT_META_MARK, NFT_META_NFPROTO, NFT_META_OIF,
    NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_PAYLOAD_NETWORK_HEADER,
};

/// What a register holds.
#[derive(Clone)]
pub(super) enum Term {
    Meta(u32),
    Payload(Payload),
    TcpFlags(u8),
    DestinationType,
    Constant(Vec<u8>),
    /// The front of an address, or all of it; a prefix of it where it was masked.
    Address {
        words: String,
        family: Family,
        loaded: u32,
        prefix: Option<u32>,
    },
    Ct(Ct),
    CtBits {
        ct: Ct,
        mask: u32,
    },
    /// A generated number in the order of the machine.
    Number(String),
    /// The same in network order.
    NetworkNumber(String),
    /// What a map holds.
    Mapped(String),
}

/// The registers of the virtual machine, as far as the rule has set them.
pub(super) struct Registers {
    /// By their first 32-bit word.
    terms: Vec<(u32, Term)>,
    /// What the rule or its table says of the packet's family.
    family: Option<u8>,
}

/// Registers 1 to 4 have four words each; 8 and above name the words.
fn word(Register(number): Register) -> Option<u32> {
    match number {
        1..=4 => Some((number - 1) * 4),
        _ => number.checked_sub(8),
    }
}

impl Registers {
    pub(super) fn new(family: Option<u8>) -> Self {
        Self { terms: Vec::new(), family }
    }

    pub(super) fn set(&mut self, register: Register, term: Term) {
        let Some(word) = word(register) else { return };
        self.terms.retain(|(held, _)| *held != word);
        self.terms.push((word, term));
    }

    pub(super) fn term(&self, register: Register) -> Option<&Term> {
        self.at(word(register)?)
    }

    fn at(&self, word: u32) -> Option<&Term> {
        self.terms.iter().find(|(held, _)| *held == word).map(|(_, term)| term)
    }

    pub(super) fn family(&self) -> Option<u8> {
        self.family
    }

    /// The port in a register.
    pub(super) fn port(&self, register: Register) -> Option<u16> {
        match self.term(register)? {
            Term::Constant(bytes) => bytes.as_slice().try_into().ok().map(u16::from_be_bytes),
            _ => None,
        }
    }

    /// The hash of the terms that stand one after another.
    pub(super) fn hash(&self, hash: &Hash) -> Option<String> {
        let mut at = word(hash.sreg)?;
        let end = at.checked_add(hash.len / 4)?;
        let mut fields = Vec::new();
        while at < end {
            let (words, len) = self.at(at)?.field()?;
            fields.push(words);
            at += len.div_ceil(4);
        }
        let is_whole =
            at == end && hash.len.is_multiple_of(4) && hash.hash_type == NFT_HASH_JENKINS;
        let fields = fields.join(" . ");
        let seed = hash.seed.map_or(String::new(), |seed| format!(" seed {seed:#x}"));
        let offset = offset(hash.offset.unwrap_or(0));
        is_whole.then(|| format!("jhash {fields} mod {}{seed}{offset}", hash.modulus))
    }

    pub(super) fn in_network_order(&self, order: &Byteorder) -> Option<Term> {
        let Term::Number(words) = self.term(order.sreg)? else { return None };
        let whole = Byteorder { sreg: order.sreg, dreg: order.dreg, ..Byteorder::TO_NETWORK };
        (*order == whole).then(|| Term::NetworkNumber(words.clone()))
    }
}

fn offset(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}

impl Term {
    /// An address is one only in a packet of a known family.
    pub(super) fn payload(load: &Payload, family: Option<u8>) -> Self {
        let named = match (family, load.offset) {
            (Some(NFPROTO_IPV4), 12) => Some(("ip saddr", Family::Ipv4)),
            (Some(NFPROTO_IPV4), 16) => Some(("ip daddr", Family::Ipv4)),
            (Some(NFPROTO_IPV6), 8) => Some(("ip6 saddr", Family::Ipv6)),
            (Some(NFPROTO_IPV6), 24) => Some(("ip6 daddr", Family::Ipv6)),
            _ => None,
        };
        let named = named.filter(|_| load.base == NFT_PAYLOAD_NETWORK_HEADER);
        match named.filter(|(_, family)| (1..=address_len(*family)).contains(&load.len)) {
            Some((words, family)) => {
                Self::Address { words: words.into(), family, loaded: load.len, prefix: None }
            }
            None => Self::Payload(load.clone()),
        }
    }

    pub(super) fn ct(ct: &Ct) -> Self {
        let named = match ct.key {
            NFT_CT_SRC_IP => Some(("ip saddr", Family::Ipv4)),
            NFT_CT_DST_IP => Some(("ip daddr", Family::Ipv4)),
            NFT_CT_SRC_IP6 => Some(("ip6 saddr", Family::Ipv6)),
            NFT_CT_DST_IP6 => Some(("ip6 daddr", Family::Ipv6)),
            _ => None,
        };
        match (named, ct.direction_name()) {
            (Some((name, family)), Some(direction)) => Self::Address {
                words: format!("ct {direction} {name}"),
                family,
                loaded: address_len(family),
                prefix: None,
            },
            _ => Self::Ct(ct.clone()),
        }
    }

    pub(super) fn numgen(numgen: &Numgen) -> Option<Self> {
        let (kind, modulus) = (numgen.type_name()?, numgen.modulus);
        Some(Self::Number(format!("numgen {kind} mod {modulus}{}", offset(numgen.offset))))
    }

    /// Its words before a value.
    fn words(&self) -> Option<String> {
        let words = match self {
            Self::Meta(NFT_META_OIFNAME) => "oifname",
            Self::Meta(NFT_META_IIFNAME) => "iifname",
            Self::Meta(NFT_META_OIF) => "oif",
            Self::Meta(NFT_META_IIF) => "iif",
            Self::Meta(NFT_META_OIFTYPE) => "meta oiftype",
            Self::Meta(NFT_META_NFPROTO) => "meta nfproto",
            Self::Meta(NFT_META_L4PROTO) => "meta l4proto",
            Self::Meta(NFT_META_MARK) => "meta mark",
            Self::Payload(load) if load.loads_same(&Payload::SOURCE_PORT) => "th sport",
            Self::DestinationType => "fib daddr type",
            Self::Address { words, .. } => words,
            Self::Ct(ct) if ct.key == Ct::DIRECTION.key => "ct direction",
            _ => return None,
        };
        Some(words.into())
    }

    /// Its words and length as a field of a hash.
    fn field(&self) -> Option<(String, u32)> {
        let len = match self {
            Self::Address { loaded, prefix: None, .. } => *loaded,
            Self::Payload(load) => load.len,
            _ => return None,
        };
        Some((self.words()?, len))
    }

    /// Its words before a set, if keys of that set are what it holds.
    pub(super) fn key_of(&self, set: &SetSpec) -> Option<String> {
        let is_number = set.key_type == Some(INTEGER) && set.key_len == Some(4);
        let datatype = match self {
            Self::Number(words) => {
                return (is_number && !set.is_interval()).then(|| words.clone());
            }
            Self::NetworkNumber(words) => {
                return (is_number && set.is_interval()).then(|| words.clone());
            }
            Self::Address { family: Family::Ipv4, loaded: 4, prefix: None, .. } => IPV4_ADDR,
            Self::Address { family: Family::Ipv6, loaded: 16, prefix: None, .. } => IPV6_ADDR,
            Self::Payload(_) => INET_SERVICE,
            Self::Meta(NFT_META_L4PROTO) => INET_PROTO,
            Self::Meta(NFT_META_OIFNAME | NFT_META_IIFNAME) => IFNAME,
            _ => return None,
        };
        (set.key_type == Some(datatype)).then(|| self.words())?
    }

    /// A value that it is compared with.
    fn value(&self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Meta(NFT_META_OIFNAME | NFT_META_IIFNAME) => {
                interface(bytes).map(|name| format!("\"{name}\""))
            }
            Self::Meta(NFT_META_OIF | NFT_META_IIF) => Some(number(bytes)?.to_string()),
            Self::Meta(NFT_META_MARK) => Some(format!("{:#x}", number(bytes)?)),
            Self::Meta(NFT_META_OIFTYPE) => {
                (bytes == ARPHRD_LOOPBACK.to_ne_bytes()).then(|| "loopback".into())
            }
            Self::Meta(NFT_META_NFPROTO) => match bytes {
                [NFPROTO_IPV4] => Some("ipv4".into()),
                [NFPROTO_IPV6] => Some("ipv6".into()),
                _ => None,
            },
            Self::Meta(NFT_META_L4PROTO) => protocol(bytes),
            Self::Payload(_) => port(bytes),
            Self::DestinationType => address_type(number(bytes)?).map(Into::into),
            Self::Address { family, prefix, .. } => network(*family, bytes, *prefix),
            Self::Ct(_) => match bytes {
                [IP_CT_DIR_ORIGINAL] => Some("original".into()),
                [IP_CT_DIR_REPLY] => Some("reply".into()),
                _ => None,
            },
            _ => None,
        }
    }
}

pub(super) fn masked(registers: &Registers, bitwise: &Bitwise) -> Option<Term> {
    let mask = bitwise.mask.bytes()?;
    let plain = Bitwise { sreg: bitwise.sreg, dreg: bitwise.dreg, ..Bitwise::mask(mask) };
    if *bitwise != plain {
        return None;
    }
    match registers.term(bitwise.sreg)? {
        Term::Payload(load) if load.loads_same(&Payload::TCP_FLAGS) => match mask {
            [mask] => Some(Term::TcpFlags(*mask)),
            _ => None,
        },
        Term::Ct(ct) => Some(Term::CtBits { ct: ct.clone(), mask: number(mask)? }),
        Term::Address { words, family, loaded, prefix: None } => {
            let is_whole = u32::try_from(mask.len()) == Ok(address_len(*family));
            let free = suffix_len(mask.iter().map(|byte| !byte)).filter(|_| is_whole)?;
            Some(Term::Address {
                words: words.clone(),
                family: *family,
                loaded: *loaded,
                prefix: Some(address_len(*family) * 8 - free),
            })
        }
        _ => None,
    }
}

pub(super) fn is_range(low: &Cmp, high: &Cmp) -> bool {
    low.sreg == high.sreg && low.op == CmpOp::Gte && high.op == CmpOp::Lte
}

pub(super) fn range(term: &Term, low: &Cmp, high: &Cmp) -> Option<String> {
    let Term::Payload(_) = term else { return None };
    let (low, high) = (port(low.data.bytes()?)?, port(high.data.bytes()?)?);
    Some(format!("{} {low}-{high}", term.words()?))
}

pub(super) fn comparison(registers: &mut Registers, cmp: &Cmp) -> Option<String> {
    let bytes = cmp.data.bytes()?;
    let op = cmp.op.symbol();
    let term = registers.term(cmp.sreg)?;
    let statement = match term {
        Term::TcpFlags(mask) => {
            let [flags] = bytes else { return None };
            let op = if op.is_empty() { "== " } else { op };
            format!("tcp flags & ({}) {op}{}", tcp_flags(*mask), tcp_flags(*flags))
        }
        Term::CtBits { ct, mask } => ct_bits(ct, *mask, cmp)?,
        _ => format!("{} {op}{}", term.words()?, term.value(bytes)?),
    };
    if let (Term::Meta(NFT_META_NFPROTO), CmpOp::Eq, [family]) = (term, cmp.op, bytes) {
        registers.family = Some(*family);
    }
    Some(statement)
}

/// One of the bits, or none of them.
fn ct_bits(ct: &Ct, mask: u32, cmp: &Cmp) -> Option<String> {
    const STATES: [(u32, &str); 5] = [
        (NF_CT_STATE_INVALID_BIT, "invalid"),
        (state_bit(IP_CT_ESTABLISHED), "established"),
        (state_bit(IP_CT_RELATED), "related"),
        (state_bit(IP_CT_NEW), "new"),
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
    let (key, names) = match ct {
        ct if ct.key == Ct::STATE.key => ("state", &STATES[..]),
        ct if ct.key == Ct::STATUS.key => ("status", &STATUSES[..]),
        _ => return None,
    };
    let set: Vec<_> = names.iter().filter(|(bit, _)| mask & bit != 0).collect();
    let is_named = set.iter().fold(0, |bits, (bit, _)| bits | bit) == mask;
    if !is_named || number(cmp.data.bytes()?)? != 0 {
        return None;
    }
    let names: Vec<_> = set.iter().map(|(_, name)| *name).collect();
    match (cmp.op, names.as_slice()) {
        (CmpOp::Neq, _) => Some(format!("ct {key} {}", names.join(","))),
        (CmpOp::Eq, [name]) => Some(format!("ct {key} & {name} == 0")),
        _ => None,
    }
}

/// `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h.
const fn state_bit(ctinfo: u32) -> u32 {
    1 << (ctinfo + 1)
}
