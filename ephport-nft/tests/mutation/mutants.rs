//! Programs with one change.

use ephport_nft::Ruleset;
use ephport_nft::expr::{
    Bitwise, Byteorder, Cmp, CmpOp, Ct, Data, Expr, Fib, Hash, Immediate, Lookup, Masq, Meta, Nat,
    Numgen, Payload, Range, RangeOp, Register, Verdict,
};
use ephport_nft::uapi::{
    NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY,
    NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFT_BYTEORDER_NTOH,
    NFT_LOOKUP_F_INV, NFT_META_IIFNAME, NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_META_OIFNAME,
    NFT_NAT_DNAT, NFT_SET_ELEM_INTERVAL_END, NFT_SET_INTERVAL,
};

/// Where the change is.
#[derive(Clone, Debug)]
pub enum Site {
    /// In a rule, by its index in the ruleset: an expression before and after; `None` is dropped.
    Expr { rule: usize, expr: usize, was: Expr, is: Option<Expr> },
    /// A whole rule is dropped.
    Rule { rule: usize },
    /// In a set, by its index: an element before and after.
    Element { set: usize, element: usize },
    /// A set's own flags.
    Set { set: usize },
}

/// A program with one change.
pub struct Mutant {
    pub ruleset: Ruleset,
    pub site: Site,
    pub what: String,
}

pub fn of(ruleset: &Ruleset) -> impl Iterator<Item = Mutant> + '_ {
    in_rules(ruleset).chain(in_sets(ruleset))
}

fn in_rules(ruleset: &Ruleset) -> impl Iterator<Item = Mutant> + '_ {
    ruleset.rules.iter().enumerate().flat_map(move |(rule, known)| {
        let whole = std::iter::once_with(move || {
            let mut mutant = ruleset.clone();
            mutant.rules.remove(rule);
            let what = format!("{} rule {rule} dropped", known.chain);
            Mutant { ruleset: mutant, site: Site::Rule { rule }, what }
        });
        let exprs = known.exprs.iter().enumerate().flat_map(move |(expr, was)| {
            let changes = changed(ruleset, was).into_iter().map(Some).chain([None]);
            changes.map(move |is| {
                let mut mutant = ruleset.clone();
                let exprs = &mut mutant.rules[rule].exprs;
                match &is {
                    Some(is) => exprs[expr] = is.clone(),
                    None => drop(exprs.remove(expr)),
                }
                let now = is.as_ref().map_or("dropped".into(), |is| {
                    if is.to_string() == was.to_string() {
                        format!("{is:?}")
                    } else {
                        is.to_string()
                    }
                });
                let what = format!("{} rule {rule}: {was} -> {now}\n  {}", known.chain, known);
                Mutant {
                    ruleset: mutant,
                    site: Site::Expr { rule, expr, was: was.clone(), is },
                    what,
                }
            })
        });
        whole.chain(exprs)
    })
}

fn in_sets(ruleset: &Ruleset) -> impl Iterator<Item = Mutant> + '_ {
    ruleset.sets.iter().enumerate().flat_map(move |(set, filled)| {
        let name = &filled.set.name;
        let flags = std::iter::once_with(move || {
            let mut mutant = ruleset.clone();
            let known = &mut mutant.sets[set].set;
            known.flags = known.flags.map(|flags| flags ^ NFT_SET_INTERVAL);
            Mutant { ruleset: mutant, site: Site::Set { set }, what: format!("{name} interval") }
        });
        let elements = filled.elements.iter().enumerate().flat_map(move |(element, was)| {
            let mut changes = Vec::new();
            for up in [true, false] {
                let key = was.key_bytes().and_then(|key| stepped(key, up));
                changes.extend(key.map(|key| {
                    let mut is = was.clone();
                    is.key = Some(Data::Value(key));
                    Some(is)
                }));
                if let Some(Data::Value(bytes)) = &was.data {
                    // A byte of each of its fields: the data's words.
                    for at in (0..bytes.len()).step_by(4) {
                        let mut bytes = bytes.clone();
                        bytes[at + 1] = step(bytes[at + 1], up);
                        changes.push(Some({
                            let mut is = was.clone();
                            is.data = Some(Data::Value(bytes));
                            is
                        }));
                    }
                }
            }
            if let Some(Data::Verdict(verdict)) = &was.data {
                for verdict in verdicts(ruleset, verdict) {
                    let mut is = was.clone();
                    is.data = Some(Data::Verdict(verdict));
                    changes.push(Some(is));
                }
            }
            if filled.set.is_interval() {
                let mut is = was.clone();
                is.flags = Some(is.flags.unwrap_or(0) ^ NFT_SET_ELEM_INTERVAL_END);
                changes.push(Some(is));
            }
            changes.push(None);
            changes.into_iter().map(move |is| {
                let what = format!("{name} {was:?} -> {is:?}");
                let mut mutant = ruleset.clone();
                let elements = &mut mutant.sets[set].elements;
                match is {
                    Some(is) => elements[element] = is,
                    None => drop(elements.remove(element)),
                }
                Mutant { ruleset: mutant, site: Site::Element { set, element }, what }
            })
        });
        flags.chain(elements)
    })
}

fn step(byte: u8, up: bool) -> u8 {
    if up { byte.wrapping_add(1) } else { byte.wrapping_sub(1) }
}

/// The number above or below; keys end at their ends.
fn stepped(bytes: &[u8], up: bool) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev() {
        let last = if up { u8::MAX } else { 0 };
        let is_carried = *byte == last;
        *byte = step(*byte, up);
        if !is_carried {
            return Some(bytes);
        }
    }
    None
}

fn data(data: &Data) -> Vec<Data> {
    let Data::Value(bytes) = data else { return Vec::new() };
    [true, false].into_iter().filter_map(|up| stepped(bytes, up)).map(Data::Value).collect()
}

/// Other verdicts, each other chain among them.
fn verdicts(ruleset: &Ruleset, was: &Verdict) -> Vec<Verdict> {
    let mut others = vec![Verdict::Accept, Verdict::Drop, Verdict::Return, Verdict::Continue];
    if let Verdict::Goto(chain) = was {
        others.push(Verdict::Jump(chain.clone()));
        let regular = ruleset.chains.iter().filter(|other| other.hook.is_none());
        let regular = regular.filter(|other| other.name != *chain);
        others.extend(regular.map(|other| Verdict::Goto(other.name.clone())));
    }
    others.retain(|other| other != was);
    others
}

/// Numbers around one.
fn near(number: u32) -> [u32; 2] {
    [number.wrapping_add(1), number.wrapping_sub(1)]
}

fn into<T: Into<Expr>>(exprs: impl IntoIterator<Item = T>) -> Vec<Expr> {
    exprs.into_iter().map(Into::into).collect()
}

fn other_registers(register: Option<Register>) -> Vec<Option<Register>> {
    let Some(register) = register else { return Vec::new() };
    let others = [1, 2, 3, 9, 10].map(Register).into_iter();
    others.filter(|other| *other != register).map(Some).chain([None]).collect()
}

fn nat_flags(flags: Option<u32>) -> Vec<Option<u32>> {
    let bits = [
        NF_NAT_RANGE_PROTO_SPECIFIED,
        NF_NAT_RANGE_PROTO_RANDOM,
        NF_NAT_RANGE_PROTO_RANDOM_FULLY,
        NF_NAT_RANGE_PERSISTENT,
    ];
    let known = flags.unwrap_or(0);
    let shuffles = NF_NAT_RANGE_PROTO_RANDOM | NF_NAT_RANGE_PROTO_RANDOM_FULLY;
    let each = bits.into_iter().map(|bit| known ^ bit);
    let mut others: Vec<_> = each.chain([known ^ shuffles]).map(Some).chain([None]).collect();
    others.retain(|other| *other != flags);
    others
}

/// An expression with other operands.
fn changed(ruleset: &Ruleset, expr: &Expr) -> Vec<Expr> {
    match expr {
        Expr::Meta(meta) => {
            let keys = [NFT_META_OIFNAME, NFT_META_IIFNAME, NFT_META_NFPROTO, NFT_META_L4PROTO];
            let keys = keys.into_iter().filter(|key| *key != meta.key);
            let mut others = into(keys.map(|key| Meta { key, ..meta.clone() }));
            others.push(Meta { dreg: Register::R2, ..meta.clone() }.into());
            others
        }
        Expr::Payload(load) => {
            let offsets = near(load.offset).map(|offset| Payload { offset, ..load.clone() });
            let lens = near(load.len).map(|len| Payload { len, ..load.clone() });
            let base = Payload { base: load.base ^ 3, ..load.clone() };
            let dreg = Payload { dreg: Register(load.dreg.0 + 1), ..load.clone() };
            into(offsets.into_iter().chain(lens).chain([base, dreg]))
        }
        Expr::Fib(fib) => into([
            Fib { flags: fib.flags ^ 3, ..fib.clone() },
            Fib { result: fib.result ^ 1, ..fib.clone() },
            Fib { dreg: Register::R2, ..fib.clone() },
        ]),
        Expr::Ct(ct) => {
            let keys = near(ct.key).map(|key| Ct { key, ..ct.clone() });
            let direction = ct.direction.map(|direction| direction ^ 1).or(Some(0));
            let dreg = Register::R2;
            into(
                keys.into_iter().chain([Ct { direction, ..ct.clone() }, Ct { dreg, ..ct.clone() }]),
            )
        }
        Expr::Cmp(cmp) => {
            let op = match cmp.op {
                CmpOp::Eq => CmpOp::Neq,
                CmpOp::Neq => CmpOp::Eq,
                CmpOp::Lt => CmpOp::Lte,
                CmpOp::Lte => CmpOp::Lt,
                CmpOp::Gt => CmpOp::Gte,
                CmpOp::Gte => CmpOp::Gt,
            };
            let back = match cmp.op {
                CmpOp::Gte => CmpOp::Lte,
                CmpOp::Lte => CmpOp::Gte,
                _ => op,
            };
            let ops = [op, back].map(|op| Cmp { op, ..cmp.clone() });
            let values = data(&cmp.data).into_iter().map(|data| Cmp { data, ..cmp.clone() });
            let shorter = cmp
                .data
                .bytes()
                .filter(|bytes| bytes.len() > 1)
                .map(|bytes| Cmp { data: Data::value(&bytes[..bytes.len() - 1]), ..cmp.clone() });
            let ops = if op == back { &ops[..1] } else { &ops[..] };
            into(ops.iter().cloned().chain(values).chain(shorter))
        }
        Expr::Range(range) => {
            let op = if range.op == RangeOp::Eq { RangeOp::Neq } else { RangeOp::Eq };
            let from = data(&range.from).into_iter().map(|from| Range { from, ..range.clone() });
            let to = data(&range.to).into_iter().map(|to| Range { to, ..range.clone() });
            into(from.chain(to).chain([Range { op, ..range.clone() }]))
        }
        Expr::Bitwise(bitwise) => {
            let masks = bitwise.mask.bytes().into_iter().flat_map(|mask| {
                (0..mask.len() * 8).map(|bit| {
                    let mut mask = mask.to_vec();
                    mask[bit / 8] ^= 0x80 >> (bit % 8);
                    Bitwise { mask: Data::Value(mask), ..bitwise.clone() }
                })
            });
            let xor = data(&bitwise.xor).into_iter().map(|xor| Bitwise { xor, ..bitwise.clone() });
            into(masks.chain(xor))
        }
        Expr::Numgen(numgen) => {
            let moduli = near(numgen.modulus).map(|modulus| Numgen { modulus, ..numgen.clone() });
            let more = [
                Numgen { kind: numgen.kind ^ 1, ..numgen.clone() },
                Numgen { offset: 1, ..numgen.clone() },
                Numgen { dreg: Register::R2, ..numgen.clone() },
            ];
            into(moduli.into_iter().chain(more))
        }
        Expr::Hash(hash) => {
            let moduli = near(hash.modulus).map(|modulus| Hash { modulus, ..hash.clone() });
            let lens = near(hash.len).map(|len| Hash { len, ..hash.clone() });
            let more = [
                Hash { seed: None, ..hash.clone() },
                Hash { seed: hash.seed.map(|seed| seed + 1), ..hash.clone() },
                Hash { offset: Some(1), ..hash.clone() },
                Hash { sreg: Register::R1, ..hash.clone() },
                Hash { kind: hash.kind ^ 1, ..hash.clone() },
            ];
            into(moduli.into_iter().chain(lens).chain(more))
        }
        Expr::Byteorder(order) => into([
            Byteorder { op: NFT_BYTEORDER_NTOH, ..order.clone() },
            Byteorder { size: 2, ..order.clone() },
            Byteorder { len: 2, ..order.clone() },
            Byteorder { sreg: Register::R2, ..order.clone() },
            Byteorder { dreg: Register::R2, ..order.clone() },
        ]),
        Expr::Lookup(lookup) => {
            let flags = Some(lookup.flags.unwrap_or(0) ^ NFT_LOOKUP_F_INV);
            let others = ruleset.sets.iter().map(|filled| &filled.set);
            let others = others.filter(|other| other.name != lookup.set);
            let others =
                others.take(3).map(|set| Lookup { set: set.name.clone(), ..lookup.clone() });
            let dregs = other_registers(lookup.dreg).into_iter();
            let dregs = dregs.map(|dreg| Lookup { dreg, ..lookup.clone() });
            let more = [
                Lookup { flags, ..lookup.clone() },
                Lookup { sreg: Register::R2, ..lookup.clone() },
            ];
            into(others.chain(dregs).chain(more))
        }
        Expr::Immediate(immediate) => match &immediate.data {
            Data::Verdict(verdict) => {
                into(verdicts(ruleset, verdict).into_iter().map(Immediate::verdict))
            }
            value => {
                let values = data(value).into_iter();
                let values = values.map(|data| Immediate { data, ..immediate.clone() });
                let dreg = Register(immediate.dreg.0 + 1);
                into(values.chain([Immediate { dreg, ..immediate.clone() }]))
            }
        },
        Expr::Masq(masq) => {
            let flags = nat_flags(masq.flags).into_iter();
            let flags = flags.map(|flags| Masq { flags, ..masq.clone() });
            let min = other_registers(masq.proto_min).into_iter();
            let min = min.map(|proto_min| Masq { proto_min, ..masq.clone() });
            let max = other_registers(masq.proto_max).into_iter();
            let max = max.map(|proto_max| Masq { proto_max, ..masq.clone() });
            let turned =
                Masq { proto_min: masq.proto_max, proto_max: masq.proto_min, ..masq.clone() };
            into(flags.chain(min).chain(max).chain([turned]).filter(|other| other != masq))
        }
        Expr::Nat(nat) => {
            let flags = nat_flags(nat.flags).into_iter().map(|flags| Nat { flags, ..nat.clone() });
            let min = other_registers(nat.proto_min).into_iter();
            let min = min.map(|proto_min| Nat { proto_min, ..nat.clone() });
            let max = other_registers(nat.proto_max).into_iter();
            let max = max.map(|proto_max| Nat { proto_max, ..nat.clone() });
            let address = other_registers(nat.addr_min).into_iter();
            let address = address.map(|addr_min| Nat { addr_min, ..nat.clone() });
            let last = other_registers(nat.addr_max).into_iter();
            let last = last.map(|addr_max| Nat { addr_max, ..nat.clone() });
            let families = [NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6].map(u32::from).into_iter();
            let families = families.filter(|family| *family != nat.family);
            let families = families.map(|family| Nat { family, ..nat.clone() });
            let kind = Nat { kind: NFT_NAT_DNAT, ..nat.clone() };
            let turned = Nat { proto_min: nat.proto_max, proto_max: nat.proto_min, ..nat.clone() };
            let all = flags.chain(min).chain(max).chain(address).chain(last).chain(families);
            into(all.chain([kind, turned]).filter(|other| other != nat))
        }
        Expr::Counter(_) | Expr::Opaque(_) => Vec::new(),
    }
}
