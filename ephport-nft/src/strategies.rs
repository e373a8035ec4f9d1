//! Proptest strategies for what nf_tables is made of, for the property tests of this crate and of
//! others (feature `proptest`).

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::netlink::Writer;
use crate::nftables::expr::{
    Bitwise, Byteorder, Cmp, CmpOp, Counter, Ct, Data, Expr, Fib, Hash, Immediate, Lookup, Masq,
    Meta, Nat, Numgen, ObjRef, Opaque, Payload, PayloadWrite, Range, RangeOp, Register, Rt,
    Verdict,
};
use crate::nftables::{
    Chain, CtTimeout, Element, Elements, Hook, RawAttr, Rule, SetDescription, SetSpec, Table,
    TimeoutData, TimeoutType, TimeoutValues,
};

/// The name of a table, chain or the like.
pub fn names() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,14}"
}

/// Any register number, those that do not exist included.
pub fn registers() -> impl Strategy<Value = Register> {
    prop_oneof![4 => 0..24u32, 1 => any::<u32>()].prop_map(Register)
}

/// Any verdict; [`Verdict::Other`] has no number of its own name.
pub fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Accept),
        Just(Verdict::Drop),
        Just(Verdict::Continue),
        Just(Verdict::Break),
        Just(Verdict::Return),
        names().prop_map(Verdict::Jump),
        names().prop_map(Verdict::Goto),
        (2..0x00ff_ffffu32).prop_map(Verdict::Other),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

/// Any value or verdict.
pub fn data() -> impl Strategy<Value = Data> {
    prop_oneof![bytes().prop_map(|bytes| Data::value(&bytes)), verdicts().prop_map(Data::verdict)]
}

/// Any expression.
pub fn exprs() -> impl Strategy<Value = Expr> {
    let cmp_op = prop::sample::select(vec![
        CmpOp::Eq,
        CmpOp::Neq,
        CmpOp::Lt,
        CmpOp::Lte,
        CmpOp::Gt,
        CmpOp::Gte,
    ]);
    let range_op = prop::sample::select(vec![RangeOp::Eq, RangeOp::Neq]);
    prop_oneof![
        (any::<u32>(), registers()).prop_map(|(key, dreg)| Meta { key, dreg }.into()),
        (registers(), cmp_op, data()).prop_map(|(sreg, op, data)| Cmp { sreg, op, data }.into()),
        (registers(), range_op, data(), data()).prop_map(|(sreg, op, from, to)| Range {
            sreg,
            op,
            from,
            to
        }
        .into()),
        (registers(), any::<(u32, u32, u32)>()).prop_map(|(dreg, (base, offset, len))| Payload {
            dreg,
            base,
            offset,
            len
        }
        .into()),
        (registers(), any::<[u32; 6]>()).prop_map(
            |(sreg, [base, offset, len, csum_type, csum_offset, csum_flags])| PayloadWrite {
                sreg,
                base,
                offset,
                len,
                csum_type,
                csum_offset,
                csum_flags,
            }
            .into()
        ),
        (registers(), registers(), any::<(u32, Option<u32>)>(), data(), data()).prop_map(
            |(sreg, dreg, (len, op), mask, xor)| Bitwise {
                sreg,
                dreg,
                len,
                op,
                mask: mask.into(),
                xor: xor.into()
            }
            .into()
        ),
        (registers(), data()).prop_map(|(dreg, data)| Immediate { dreg, data }.into()),
        any::<(u64, u64)>().prop_map(|(bytes, packets)| Counter { bytes, packets }.into()),
        (any::<u32>(), names()).prop_map(|(object_type, name)| ObjRef { object_type, name }.into()),
        (registers(), any::<(u32, u32)>()).prop_map(|(dreg, (result, flags))| Fib {
            dreg,
            result,
            flags
        }
        .into()),
        (any::<Option<u32>>(), option::of(registers()), option::of(registers()))
            .prop_map(|(flags, proto_min, proto_max)| Masq { flags, proto_min, proto_max }.into()),
        set_exprs(),
        nats(),
        opaques(),
    ]
}

/// Expressions that make a key, or look one up.
fn set_exprs() -> impl Strategy<Value = Expr> {
    let hash = (registers(), registers(), any::<(u32, u32, Option<u32>, Option<u32>, u32)>());
    prop_oneof![
        (names(), registers(), option::of(registers()), any::<(Option<u32>, Option<u32>)>())
            .prop_map(|(set, sreg, dreg, (set_id, flags))| {
                Lookup { set, sreg, dreg, set_id, flags }.into()
            }),
        (registers(), any::<(u32, u32, u32)>()).prop_map(
            |(dreg, (modulus, numgen_type, offset))| {
                Numgen { dreg, modulus, numgen_type, offset }.into()
            }
        ),
        hash.prop_map(|(sreg, dreg, (len, modulus, seed, offset, hash_type))| {
            Hash { sreg, dreg, len, modulus, seed, offset, hash_type }.into()
        }),
        (registers(), registers(), any::<(u32, u32, u32)>()).prop_map(
            |(sreg, dreg, (op, len, size))| Byteorder { sreg, dreg, op, len, size }.into()
        ),
        (registers(), any::<u32>()).prop_map(|(dreg, key)| Rt { dreg, key }.into()),
        (registers(), any::<(u32, Option<u8>)>()).prop_map(|(dreg, (key, direction))| Ct {
            dreg,
            key,
            direction
        }
        .into()),
    ]
}

fn nats() -> impl Strategy<Value = Expr> {
    let addresses = (option::of(registers()), option::of(registers()));
    let ports = (option::of(registers()), option::of(registers()));
    (any::<(u32, u32, Option<u32>)>(), addresses, ports).prop_map(
        |((nat_type, family, flags), (addr_min, addr_max), (proto_min, proto_max))| {
            Nat { nat_type, family, addr_min, addr_max, proto_min, proto_max, flags }.into()
        },
    )
}

/// Expressions of kinds that we do not know, and of known kinds with an attribute we do not know.
fn opaques() -> impl Strategy<Value = Expr> {
    let name = prop_oneof![names().prop_map(|name| format!("x_{name}")), Just("masq".to_string())];
    let data = option::of(bytes().prop_map(|bytes| {
        let mut w = Writer::new();
        w.bytes(99, &bytes);
        w.finish().unwrap_or_default()
    }));
    (name, data).prop_map(|(name, data)| Opaque::new(name, data).into())
}

/// Attributes with numbers that no object of ours has.
fn other() -> impl Strategy<Value = Vec<RawAttr>> {
    vec(
        (90..120u16, bytes()).prop_map(|(attribute_type, value)| RawAttr { attribute_type, value }),
        0..3,
    )
}

/// Any table.
pub fn tables() -> impl Strategy<Value = Table> {
    (
        any::<u8>(),
        names(),
        option::of(1..=u32::MAX),
        any::<Option<u64>>(),
        option::of(bytes()),
        any::<Option<u32>>(),
        other(),
    )
        .prop_map(|(family, name, flags, handle, userdata, owner, other)| Table {
            family,
            name,
            flags,
            handle,
            userdata,
            owner,
            other,
        })
}

/// Any chain.
pub fn chains() -> impl Strategy<Value = Chain> {
    let hook = (any::<(u32, i32)>(), other()).prop_map(|((number, priority), other)| Hook {
        number,
        priority,
        other,
    });
    let place = (any::<u8>(), names(), names(), any::<Option<u64>>());
    let base = (option::of(hook), any::<Option<u32>>(), option::of(names()), any::<Option<u32>>());
    (place, base, other()).prop_map(
        |((family, table, name, handle), (hook, policy, chain_type, flags), other)| Chain {
            family,
            table,
            name,
            handle,
            hook,
            policy,
            chain_type,
            flags,
            other,
        },
    )
}

/// Any timeouts of connections.
pub fn timeouts() -> impl Strategy<Value = CtTimeout> {
    let values = vec((1..12u16, any::<u32>()), 0..11).prop_map(TimeoutValues);
    let data = (any::<Option<u16>>(), any::<u8>(), values)
        .prop_map(|(l3proto, l4proto, values)| TimeoutData { l3proto, l4proto, values });
    let place = (any::<u8>(), names(), names(), any::<Option<u64>>());
    (place, option::of(data), other()).prop_map(|((family, table, name, handle), data, other)| {
        CtTimeout { family, table, name, handle, object_type: TimeoutType, data, other }
    })
}

/// Any rule.
pub fn rules() -> impl Strategy<Value = Rule> {
    let place = (any::<u8>(), names(), names(), any::<(Option<u64>, Option<u64>)>());
    (place, vec(exprs(), 0..12), option::of(bytes()), other()).prop_map(
        |((family, table, chain, (handle, position)), exprs, userdata, other)| Rule {
            family,
            table,
            chain,
            handle,
            position,
            exprs: exprs.into(),
            userdata,
            other,
        },
    )
}

/// Any set.
pub fn sets() -> impl Strategy<Value = SetSpec> {
    let place = (any::<u8>(), names(), names(), any::<Option<u64>>());
    let numbers = any::<[Option<u32>; 6]>();
    let description =
        (any::<Option<u32>>(), other()).prop_map(|(size, other)| SetDescription { size, other });
    let extra = (option::of(bytes()), option::of(description), other());
    (place, numbers, extra).prop_map(
        |((family, table, name, handle), numbers, (userdata, description, other))| {
            let [flags, key_type, key_len, data_type, data_len, id] = numbers;
            SetSpec {
                family,
                table,
                name,
                handle,
                flags,
                key_type,
                key_len,
                data_type,
                data_len,
                id,
                userdata,
                description,
                other,
            }
        },
    )
}

/// Any element of a set.
pub fn elements() -> impl Strategy<Value = Element> {
    let content = (option::of(data()), option::of(data()), any::<Option<u32>>());
    (content, option::of(bytes()), other()).prop_map(|((key, data, flags), userdata, other)| {
        Element { key, data, flags, userdata: userdata.map(Box::new), other }
    })
}

/// Any list of elements.
pub fn element_lists() -> impl Strategy<Value = Elements> {
    let names = (names(), names());
    (any::<u8>(), names, any::<Option<u32>>(), vec(elements(), 0..12), other()).prop_map(
        |(family, (table, set), set_id, elements, other)| Elements {
            family,
            table,
            set,
            set_id,
            elements: elements.into(),
            other,
        },
    )
}
