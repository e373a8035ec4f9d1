//! Random lists of operations, right and wrong, to compare kernels by.
//!
//! Few names and numbers are used, so that operations meet: a chain is deleted while a rule jumps to it, a
//! rule is inserted before another, an element is added twice. Wrong ones are among them: missing objects,
//! lengths that do not fit, flags that exclude each other, expressions that no kernel has.

use ephport_nft::CodecError;
use ephport_nft::netlink::{NfGenMsg, Writer};
use ephport_nft::nftables::expr::Data;
use ephport_nft::nftables::expr::{
    Counter, Expr, Immediate, Lookup, Masq, ObjRef, Opaque, Payload, Register, Verdict,
};
use ephport_nft::nftables::{Chain, Element, Elements, Hook, Rule, SetSpec, Table};
use ephport_nft::uapi::{
    NFPROTO_INET, NFPROTO_IPV4, NFT_DATA_VERDICT, NFT_MSG_DELCHAIN, NFT_MSG_DELOBJ,
    NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE,
    NFT_OBJECT_COUNTER, NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP,
    NFTA_OBJ_DATA, NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE, NLM_F_APPEND, NLM_F_CREATE,
    NLM_F_EXCL,
};

use crate::{Batch, Random};

const TABLES: [(u8, &str); 3] = [(NFPROTO_INET, "t"), (NFPROTO_INET, "u"), (NFPROTO_IPV4, "t")];
const CHAINS: [&str; 4] = ["a", "b", "c", "d"];
const SETS: [&str; 4] = ["s", "m", "v", "i"];
const OBJECTS: [&str; 2] = ["o", "p"];
/// `NLM_F_REPLACE` of new objects, `NLM_F_NONREC` of deleted ones.
const REPLACE: u16 = 0x100;

/// A batch that adds most of the objects that the others are about.
///
/// # Errors
/// None that can happen: all parts are short.
pub fn foundation(random: &mut Random, seq: u32) -> Result<Vec<u8>, CodecError> {
    let (family, table) = TABLES[0];
    let mut batch = Batch::new(seq, None);
    batch.push(NFT_MSG_NEWTABLE, NLM_F_CREATE, |w| Table::new(family, table).encode(w));
    for name in CHAINS {
        let chain = Chain { policy: None, name: name.into(), ..chain(random, family, table) };
        let is_right =
            chain.hook.as_ref().is_none_or(|hook| hook.priority > -200 && hook.number != 2);
        let chain = if is_right { chain } else { Chain::regular(family, table, name) };
        let chain = Chain {
            flags: None,
            chain_type: chain.chain_type.filter(|kind| kind != "none"),
            ..chain
        };
        if random.chance(900) {
            batch.push(NFT_MSG_NEWCHAIN, NLM_F_CREATE, |w| chain.encode(w));
        }
    }
    for (name, id) in SETS.into_iter().zip(1..) {
        let (flags, data_type, data_len) = match name {
            "m" => (NFT_SET_MAP, Some(13), Some(2)),
            "v" => (NFT_SET_MAP, Some(NFT_DATA_VERDICT), None),
            "i" => (NFT_SET_INTERVAL, None, None),
            _ => (0, None, None),
        };
        let spec = SetSpec {
            flags: Some(flags),
            key_type: Some(13),
            key_len: Some(2),
            data_type,
            data_len,
            id: Some(id),
            ..SetSpec::new(family, table, name)
        };
        if random.chance(900) {
            batch.push(NFT_MSG_NEWSET, NLM_F_CREATE, |w| spec.encode(w));
        }
    }
    batch.push(NFT_MSG_NEWOBJ, NLM_F_CREATE, |w| {
        object(w, family, table, OBJECTS[0], NFT_OBJECT_COUNTER);
        w.bytes(NFTA_OBJ_DATA, &[]);
    });
    batch.finish()
}

/// A batch of up to eight operations, the first with the sequence number `seq` + 1.
///
/// # Errors
/// None that can happen: all parts are short.
pub fn batch(random: &mut Random, seq: u32) -> Result<Vec<u8>, CodecError> {
    let mut batch = Batch::new(seq, None);
    let most = [1, 1, 2, 4, 8][random.below(5)];
    for _ in 0..=random.below(most) {
        operation(random, &mut batch);
    }
    batch.finish()
}

fn operation(random: &mut Random, batch: &mut Batch) {
    let (family, table) = TABLES[if random.chance(800) { 0 } else { random.below(3) }];
    let mut flags = NLM_F_CREATE;
    for (flag, per_mille) in
        [(NLM_F_CREATE, 30), (NLM_F_EXCL, 60), (REPLACE, 40), (NLM_F_APPEND, 600)]
    {
        if random.chance(per_mille) {
            flags ^= flag;
        }
    }
    let delete = if random.chance(60) { REPLACE } else { 0 };
    match random.below(24) {
        0..3 => {
            let table =
                Table { flags: random.chance(50).then_some(1), ..Table::new(family, table) };
            batch.push(NFT_MSG_NEWTABLE, flags, |w| table.encode(w));
        }
        3 if random.chance(300) => {
            batch.push(NFT_MSG_DELTABLE, delete, |w| Table::new(family, table).encode(w));
        }
        3..7 => {
            let chain = chain(random, family, table);
            batch.push(NFT_MSG_NEWCHAIN, flags, |w| chain.encode(w));
        }
        7 => {
            let chain = Chain {
                handle: handle(random, 300),
                ..Chain::regular(family, table, one(random, &CHAINS))
            };
            batch.push(NFT_MSG_DELCHAIN, delete, |w| chain.encode(w));
        }
        8..13 => {
            let rule = rule(random, family, table);
            batch.push(NFT_MSG_NEWRULE, flags, |w| rule.encode(w));
        }
        13 => {
            let chain = one(random, &CHAINS);
            let rule =
                Rule { handle: handle(random, 700), ..Rule::new(family, table, chain, vec![]) };
            batch.push(NFT_MSG_DELRULE, 0, |w| rule.encode(w));
        }
        14..17 => {
            let set = set(random, family, table);
            batch.push(NFT_MSG_NEWSET, flags, |w| set.encode(w));
        }
        17 => {
            let set = SetSpec {
                handle: handle(random, 200),
                ..SetSpec::new(family, table, one(random, &SETS))
            };
            batch.push(NFT_MSG_DELSET, delete, |w| set.encode(w));
        }
        18..21 => {
            let elements = elements(random, family, table);
            batch.push(NFT_MSG_NEWSETELEM, flags & !REPLACE, |w| elements.encode(w));
        }
        21 => {
            let elements = elements(random, family, table);
            batch.push(NFT_MSG_DELSETELEM, 0, |w| elements.encode(w));
        }
        22 => {
            let (kind, name) = (object_type(random), one(random, &OBJECTS));
            batch.push(NFT_MSG_NEWOBJ, flags, |w| {
                object(w, family, table, name, kind);
                w.bytes(NFTA_OBJ_DATA, &[]);
            });
        }
        _ => {
            let (kind, name) = (object_type(random), one(random, &OBJECTS));
            batch.push(NFT_MSG_DELOBJ, 0, |w| object(w, family, table, name, kind));
        }
    }
}

fn one<'a>(random: &mut Random, names: &[&'a str]) -> &'a str {
    random.pick(names).copied().unwrap_or_default()
}

fn handle(random: &mut Random, per_mille: u32) -> Option<u64> {
    random.chance(per_mille).then(|| 1 + random.next_u64() % 8)
}

fn object_type(random: &mut Random) -> u32 {
    // An unknown type makes the kernel look for a module, which is slow.
    if random.chance(5) { 99 } else { NFT_OBJECT_COUNTER }
}

fn object(w: &mut Writer, family: u8, table: &str, name: &str, kind: u32) {
    w.raw(&NfGenMsg::new(family).to_bytes());
    w.string(NFTA_OBJ_TABLE, table);
    w.string(NFTA_OBJ_NAME, name);
    w.u32_be(NFTA_OBJ_TYPE, kind);
}

fn chain(random: &mut Random, family: u8, table: &str) -> Chain {
    const BASES: [(&str, u32, i32); 6] = [
        ("nat", 4, 90),
        ("filter", 4, 0),
        ("nat", 0, -100),
        ("filter", 2, 10),
        ("nat", 2, 90),
        ("nat", 4, -250),
    ];
    let chain = Chain::regular(family, table, one(random, &CHAINS));
    let policy = random.chance(150).then(|| [0, 1, 9][random.below(3)]);
    if random.chance(600) {
        return Chain { policy, flags: random.chance(30).then_some(1), ..chain };
    }
    let (chain_type, number, priority) =
        BASES[if random.chance(850) { random.below(4) } else { random.below(6) }];
    let chain_type = if random.chance(5) { "none" } else { chain_type };
    Chain {
        hook: Some(Hook::new(number, priority)),
        chain_type: Some(chain_type.into()),
        policy,
        ..chain
    }
}

fn rule(random: &mut Random, family: u8, table: &str) -> Rule {
    let mut exprs = Vec::new();
    for _ in 0..random.below(4) {
        expression(random, &mut exprs);
    }
    let rule = Rule::new(family, table, one(random, &CHAINS), exprs);
    Rule {
        handle: handle(random, 80),
        position: handle(random, 150),
        userdata: random.chance(200).then(|| vec![0, 2, b'x', 0]),
        ..rule
    }
}

fn expression(random: &mut Random, exprs: &mut Vec<Expr>) {
    let chain = one(random, &CHAINS).to_string();
    match random.below(12) {
        0..3 => exprs.push(Counter::default().into()),
        3 => exprs.push(Immediate::verdict(Verdict::Accept).into()),
        4..6 => exprs.push(Immediate::verdict(Verdict::Jump(chain)).into()),
        6 => exprs.push(Immediate::verdict(Verdict::Goto(chain)).into()),
        7..10 => {
            let name = one(random, &SETS);
            let is_map = name == "m" || name == "v";
            let to = if name == "v" { Register::VERDICT } else { Register::R1 };
            let lookup = Lookup::value(name, to);
            let is_wrong = random.chance(50);
            // A map is looked up as a set by newer kernels only.
            let dreg = lookup.dreg.filter(|_| is_map || is_wrong);
            let set_id = random.chance(200).then(|| 1 + u32::from(random.chance(500)));
            exprs.push(Payload::SOURCE_PORT.into());
            exprs.push(Lookup { dreg, set_id, ..lookup }.into());
        }
        10 if random.chance(500) => {
            exprs.push(Masq { flags: None, proto_min: None, proto_max: None }.into());
        }
        10 => exprs.push(
            ObjRef { object_type: NFT_OBJECT_COUNTER, name: one(random, &OBJECTS).into() }.into(),
        ),
        _ if random.chance(20) => exprs.push(Opaque::new("none".into(), None).into()),
        _ => exprs.push(Immediate::verdict(Verdict::Return).into()),
    }
}

fn set(random: &mut Random, family: u8, table: &str) -> SetSpec {
    let name = one(random, &SETS);
    let mut flags = match name {
        "m" | "v" => NFT_SET_MAP,
        "i" => NFT_SET_INTERVAL,
        _ => 0,
    };
    for (flag, per_mille) in
        [(NFT_SET_CONSTANT, 100), (NFT_SET_ANONYMOUS, 40), (NFT_SET_MAP, 20), (1 << 20, 10)]
    {
        if random.chance(per_mille) {
            flags ^= flag;
        }
    }
    let spec = SetSpec {
        flags: Some(flags),
        key_type: Some(13),
        key_len: if random.chance(30) {
            [None, Some(0), Some(65)][random.below(3)]
        } else {
            Some(2)
        },
        id: (!random.chance(20)).then(|| 1 + u32::from(random.chance(500))),
        ..SetSpec::new(family, table, name)
    };
    match name {
        "v" => SetSpec { data_type: Some(NFT_DATA_VERDICT), ..spec },
        "m" => SetSpec { data_type: Some(13), data_len: (!random.chance(20)).then_some(2), ..spec },
        _ => spec,
    }
}

fn elements(random: &mut Random, family: u8, table: &str) -> Elements {
    let name = one(random, &SETS);
    let spec = SetSpec::new(family, table, name);
    let mut elements = Vec::new();
    for _ in 0..=random.below(3) {
        let key = u16::try_from(random.below(5)).unwrap_or(0);
        let data = match name {
            "v" => Some(Data::verdict(if random.chance(500) {
                Verdict::Drop
            } else {
                Verdict::Goto(one(random, &CHAINS).into())
            })),
            "m" => Some(Data::value(&[0, u8::from(random.chance(300))])),
            _ => None,
        };
        let data = data.filter(|_| !random.chance(30));
        let is_short = random.chance(20);
        let bytes = |key: u16| key.to_be_bytes()[usize::from(is_short)..].to_vec();
        if name == "i" {
            elements.push(Element::new(bytes(10 * key + 1), data));
            elements.push(Element::end(bytes(10 * key + 6)));
        } else {
            elements.push(Element::new(bytes(key), data));
        }
    }
    if random.chance(20) {
        elements.push(Element::end(vec![0, 99]));
    }
    Elements { set_id: random.chance(100).then_some(1), ..Elements::new(&spec, elements) }
}
