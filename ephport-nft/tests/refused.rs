//! What neither compiles nor can be interpreted is refused, with a message that names the place.

use ephport_core::{Flow, HostFacts, Policy, PolicySpec, Target};
use ephport_nft::compile::CompileError;
use ephport_nft::interpret::{InterpretError, effect};
use ephport_nft::netlink::{CodecError, NfGenMsg, Writer};
use ephport_nft::nftables::expr::{
    Expr, Immediate, Lookup, Meta, Numgen, Opaque, Register, Verdict,
};
use ephport_nft::nftables::{Elements, Rule, Table};
use ephport_nft::table::layout::POSTROUTING;
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::table::{Set, SetName};
use ephport_nft::uapi::{
    NFT_META_OIFNAME, NFT_NG_RANDOM, NFTA_DATA_VERDICT, NFTA_LIST_ELEM, NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_SET_ID,
    NFTA_SET_ELEM_LIST_TABLE, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE,
};
use ephport_nft::{TableState, compile};

fn compiled() -> TableState {
    let policy =
        Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()))).unwrap();
    let host = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
    compile(&[policy.resolve(&host).unwrap()]).unwrap()
}

/// Why a program that begins with these expressions means nothing.
fn refusal(exprs: Vec<Expr>) -> InterpretError {
    refusal_of(compiled(), exprs)
}

fn refusal_of(mut ruleset: TableState, exprs: Vec<Expr>) -> InterpretError {
    ruleset.rules.insert(0, Rule::new(FAMILY, TABLE, POSTROUTING, exprs));
    let flow: Flow = "tcp 10.0.0.7:20000 -> 203.0.113.9:443 oif eth0".parse().unwrap();
    effect(&ruleset, &flow).unwrap_err()
}

#[test]
fn unknown_expression_is_refused() {
    let error = refusal(vec![Opaque::new("quota".into(), None).into()]);
    assert!(matches!(error, InterpretError::Expression { index: 0, .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "rule 0 of chain postrouting has an expression that cannot be interpreted: [ quota ]"
    );
}

#[test]
fn a_register_that_does_not_exist() {
    let load = Meta { key: NFT_META_OIFNAME, dreg: Register(99) };
    assert!(matches!(refusal(vec![load.into()]), InterpretError::Expression { .. }));
}

#[test]
fn missing_and_endless_chains_are_refused() {
    for chain in ["absent", POSTROUTING] {
        let error = refusal(vec![Immediate::verdict(Verdict::Jump(chain.into())).into()]);
        assert_eq!(error, InterpretError::Chain { chain: chain.into() });
        assert_eq!(error.to_string(), format!("chain {chain} does not exist or is part of a loop"));
    }
}

#[test]
fn a_chance_that_a_connection_is_not_translated() {
    let mut ruleset = compiled();
    let verdicts = [Verdict::Accept, Verdict::Continue];
    ruleset.sets.push(Set::number_verdicts(SetName::Named("chance"), &verdicts));
    let drawn = Register(1);
    let numgen = Numgen { dreg: drawn, modulus: 2, numgen_type: NFT_NG_RANDOM, offset: 0 };
    let dreg = Some(Register::VERDICT);
    let lookup = Lookup { set: "chance".into(), sreg: drawn, dreg, set_id: None, flags: None };
    let error = refusal_of(ruleset, vec![numgen.into(), lookup.into()]);
    assert_eq!(error, InterpretError::Undecided);
    assert_eq!(
        error.to_string(),
        "the rules do different things to the same connection, depending on a generated number"
    );
}

/// The body of a message about a list of elements, with what `more` adds.
fn list(more: impl FnOnce(&mut Writer)) -> Result<Elements, CodecError> {
    let mut w = Writer::new();
    w.raw(&NfGenMsg::new(FAMILY).to_bytes());
    w.string(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    more(&mut w);
    Elements::decode(&w.finish().unwrap())
}

/// A list of one element whose value is this verdict.
fn list_of(code: u32, chain: Option<&str>) -> Result<Elements, CodecError> {
    list(|w| {
        w.string(NFTA_SET_ELEM_LIST_SET, "s");
        w.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
            w.nested(NFTA_LIST_ELEM, |w| {
                w.nested(NFTA_SET_ELEM_DATA, |w| {
                    w.nested(NFTA_DATA_VERDICT, |w| {
                        w.u32_be(NFTA_VERDICT_CODE, code);
                        if let Some(chain) = chain {
                            w.string(NFTA_VERDICT_CHAIN, chain);
                        }
                    });
                });
            });
        });
    })
}

#[test]
fn bytes_that_are_no_elements() {
    let truncated = CodecError::Truncated { what: "nfgenmsg", need: 4, have: 1 };
    assert_eq!(Elements::decode(&[1]), Err(truncated));
    let attribute = NFTA_SET_ELEM_LIST_SET;
    let object = "set element list";
    assert_eq!(list(|_| {}), Err(CodecError::Missing { object, attribute }));
    assert_eq!(list(|w| w.bytes(attribute, b"s")), Err(CodecError::NotAString { attribute }));
    let attribute = NFTA_SET_ELEM_LIST_TABLE;
    assert_eq!(list(|w| w.string(attribute, "t")), Err(CodecError::Twice { object, attribute }));
    let unknown_item = list(|w| w.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |w| w.u8(99, 0)));
    assert_eq!(unknown_item, Err(CodecError::Unknown { object, attribute: 99 }));
    let attribute = NFTA_SET_ELEM_LIST_SET_ID;
    let size = CodecError::Size { attribute, what: "u32", need: 4, have: 1 };
    assert_eq!(list(|w| w.u8(attribute, 0)), Err(size));
    assert!(list_of(1, None).is_ok());
    assert_eq!(list_of(1, Some("c")), Err(CodecError::Value { what: "verdict", value: 1 }));
}

#[test]
fn two_policies_of_one_name() {
    let policy =
        Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()))).unwrap();
    let host = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
    let resolved = policy.resolve(&host).unwrap();
    let error = compile(&[resolved.clone(), resolved]).unwrap_err();
    assert!(matches!(error, CompileError::SameName { .. }), "{error:?}");
    assert_eq!(error.to_string(), "two policies are called default: give each a name of its own");
}

/// No policy is as long as this rule, but a ruleset can be.
#[test]
fn rule_too_long_for_a_message() {
    let verdict = Immediate::verdict(Verdict::Continue);
    let rule = Rule::new(FAMILY, TABLE, POSTROUTING, vec![verdict.into(); 2_000]);
    let ruleset = TableState { rules: vec![rule], ..TableState::empty(Table::new(FAMILY, TABLE)) };
    let error = CompileError::from(ruleset.signed().unwrap_err());
    assert!(matches!(error, CompileError::Wire(CodecError::AttributeTooLong { .. })), "{error:?}");
    assert!(error.to_string().starts_with("the policies cannot be encoded: attribute 4 would be "));
}
