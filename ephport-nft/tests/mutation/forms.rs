//! The forms that programs are made of. Each must be among those that are changed.

use ephport_nft::TableState;
use ephport_nft::nftables::Rule;
use ephport_nft::nftables::expr::{CmpOp, Data, Expr, Payload};
use ephport_nft::uapi::{
    NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY,
    NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFT_META_IIF, NFT_META_NFPROTO, NFT_META_OIFNAME,
    NFT_META_OIFTYPE, NFT_NG_INCREMENTAL, NFT_NG_RANDOM,
};

/// A form, and whether an expression has it, of a rule of a program.
type Form = (&'static str, fn(&TableState, &Rule, &Expr) -> bool);

/// All forms of programs that are not enforced.
pub(crate) const ALL: [Form; 29] = [
    ("way out by name", |_, rule, expr| out(rule, expr) == Some(16)),
    ("way out by prefix", |_, rule, expr| out(rule, expr).is_some_and(|len| len < 16)),
    ("guard of loopback", |_, _, expr| meta(expr) == Some(NFT_META_OIFTYPE)),
    ("family", |_, _, expr| meta(expr) == Some(NFT_META_NFPROTO)),
    ("origin", |_, _, expr| meta(expr) == Some(NFT_META_IIF)),
    (
        "opening segment",
        |_, _, expr| matches!(expr, Expr::Payload(load) if load.loads_same(&Payload::TCP_FLAGS)),
    ),
    ("any segment", |_, rule, expr| {
        let asks = |expr: &Expr| matches!(expr, Expr::Cmp(cmp) if cmp.data == Data::value(&[6]));
        let is_flags = |expr: &Expr| matches!(expr, Expr::Bitwise(bits) if bits.len == 1);
        let is_base = matches!(expr, Expr::Payload(load) if *load == Payload::SOURCE_PORT);
        is_base && rule.exprs.iter().any(asks) && !rule.exprs.iter().any(is_flags)
    }),
    (
        "echo request",
        |_, _, expr| matches!(expr, Expr::Payload(load) if load.loads_same(&Payload::ICMP_TYPE)),
    ),
    (
        "identifier",
        |_, _, expr| matches!(expr, Expr::Payload(load) if load.loads_same(&Payload::ECHO_IDENTIFIER)),
    ),
    ("mask of an address", |_, _, expr| matches!(expr, Expr::Bitwise(bits) if bits.len > 1)),
    ("set of IPv4 networks", |it, _, expr| key_len(it, expr) == Some((4, false))),
    ("one source port", |_, _, expr| cmp(expr, CmpOp::Eq, 2)),
    ("range of source ports", |_, _, expr| cmp(expr, CmpOp::Gte, 2)),
    ("set of source ports", |it, _, expr| key_len(it, expr) == Some((2, false))),
    ("masquerade", |_, _, expr| matches!(expr, Expr::Masq(_))),
    ("to one port", |_, _, expr| matches!(expr, Expr::Masq(masq) if masq.proto_max.is_none())),
    ("kept address", |_, _, expr| nat(expr, NFPROTO_INET)),
    ("fixed IPv4 address", |_, _, expr| nat(expr, NFPROTO_IPV4)),
    ("fixed IPv6 address", |_, _, expr| nat(expr, NFPROTO_IPV6)),
    ("random", |_, _, expr| flags(expr) & NF_NAT_RANGE_PROTO_RANDOM != 0),
    ("fully random", |_, _, expr| flags(expr) & NF_NAT_RANGE_PROTO_RANDOM_FULLY != 0),
    ("persistent", |_, _, expr| flags(expr) & NF_NAT_RANGE_PERSISTENT != 0),
    ("turns", |_, _, expr| matches!(expr, Expr::Numgen(n) if n.numgen_type == NFT_NG_INCREMENTAL)),
    ("chance", |_, _, expr| matches!(expr, Expr::Numgen(n) if n.numgen_type == NFT_NG_RANDOM)),
    ("hash of an IPv4 source", |_, _, expr| matches!(expr, Expr::Hash(hash) if hash.len == 8)),
    ("hash of an IPv6 source", |_, _, expr| matches!(expr, Expr::Hash(hash) if hash.len == 20)),
    ("weights", |_, _, expr| matches!(expr, Expr::Byteorder(_))),
    ("blocks", |it, _, expr| value_len(it, expr) == Some(8)),
    ("blocks of addresses", |it, _, expr| value_len(it, expr).is_some_and(|len| len > 8)),
];

/// Whether a program has a form.
pub(crate) fn has(ruleset: &TableState, (_, is_form): Form) -> bool {
    ruleset.rules.iter().any(|rule| rule.exprs.iter().any(|expr| is_form(ruleset, rule, expr)))
}

fn meta(expr: &Expr) -> Option<u32> {
    if let Expr::Meta(meta) = expr { Some(meta.key) } else { None }
}

/// How much of a name is compared.
fn out(rule: &Rule, expr: &Expr) -> Option<usize> {
    let at = rule.exprs.iter().position(|other| other == expr)?;
    let Some(Expr::Cmp(cmp)) = rule.exprs.get(at + 1) else { return None };
    cmp.data.bytes().filter(|_| meta(expr) == Some(NFT_META_OIFNAME)).map(<[u8]>::len)
}

fn cmp(expr: &Expr, op: CmpOp, len: usize) -> bool {
    let is_long = |data: &Data| data.bytes().is_some_and(|bytes| bytes.len() == len);
    matches!(expr, Expr::Cmp(cmp) if cmp.op == op && is_long(&cmp.data))
}

/// The length of a set's keys, and whether it is a map.
fn key_len(ruleset: &TableState, expr: &Expr) -> Option<(u32, bool)> {
    let Expr::Lookup(lookup) = expr else { return None };
    let set = &ruleset.set(&lookup.set)?.spec;
    Some((set.key_len?, set.is_map()))
}

fn value_len(ruleset: &TableState, expr: &Expr) -> Option<u32> {
    let Expr::Lookup(lookup) = expr else { return None };
    ruleset.set(&lookup.set)?.spec.data_len
}

/// To an address of this family that is in a register by itself, or to none.
fn nat(expr: &Expr, family: u8) -> bool {
    matches!(expr, Expr::Nat(nat) if nat.family == u32::from(family) && nat.addr_max.is_none())
}

fn flags(expr: &Expr) -> u32 {
    match expr {
        Expr::Masq(masq) => masq.flags.unwrap_or(0),
        Expr::Nat(nat) => nat.flags.unwrap_or(0),
        _ => 0,
    }
}
