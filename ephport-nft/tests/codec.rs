//! Encoding and decoding are inverse, for every object and expression and for what the kernel
//! itself sends.

use ephport_core::{Family, PortRange};
use ephport_nft::netlink::{CodecError, Header, Messages, Reader, Writer};
use ephport_nft::nftables::expr::{Expr, Lookup, Nat, Verdict};
use ephport_nft::nftables::{Chain, CtTimeout, Element, Elements, Rule, SetSpec, Table};
use ephport_nft::strategies::{chains, element_lists, exprs, rules, sets, tables, timeouts};
use ephport_nft::table::{Set, SetName};
use ephport_nft::uapi::{
    NF_NAT_RANGE_PROTO_SPECIFIED, NFTA_CHAIN_PAD, NFTA_COUNTER_PAD, NFTA_LIST_ELEM, NFTA_RULE_PAD,
    NFTA_SET_ELEM_PAD, NFTA_SET_PAD, NFTA_TABLE_PAD,
};
use proptest::prelude::*;

fn encoded(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().expect("small enough")
}

fn read_expr(bytes: &[u8]) -> Result<Expr, CodecError> {
    Expr::decode(Reader::new(bytes).attrs().next().expect("an attribute")?)
}

proptest! {
    #[test]
    fn expressions(expr in exprs()) {
        let bytes = encoded(|w| expr.encode(w));
        let read = read_expr(&bytes).unwrap();
        prop_assert_eq!(encoded(|w| read.encode(w)), bytes);
        prop_assert_eq!(read, expr);
    }

    #[test]
    fn tables_(table in tables()) {
        prop_assert_eq!(Table::decode(&encoded(|w| table.encode(w))), Ok(table));
    }

    #[test]
    fn chains_(chain in chains()) {
        prop_assert_eq!(Chain::decode(&encoded(|w| chain.encode(w))), Ok(chain));
    }

    #[test]
    fn rules_(rule in rules()) {
        prop_assert_eq!(Rule::decode(&encoded(|w| rule.encode(w))), Ok(rule));
    }

    #[test]
    fn timeouts_(object in timeouts()) {
        prop_assert_eq!(CtTimeout::decode(&encoded(|w| object.encode(w))), Ok(object));
    }

    #[test]
    fn sets_(set in sets()) {
        prop_assert_eq!(SetSpec::decode(&encoded(|w| set.encode(w))), Ok(set));
    }

    #[test]
    fn elements_(elements in element_lists()) {
        prop_assert_eq!(Elements::decode(&encoded(|w| elements.encode(w))), Ok(elements));
    }

    #[test]
    fn hostile_elements_decode_stably_or_fail(
        elements in element_lists(),
        at in any::<prop::sample::Index>(),
        bits in 1..=255u8,
    ) {
        let mut bytes = encoded(|w| elements.encode(w));
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let _ = SetSpec::decode(&bytes);
        if let Ok(read) = Elements::decode(&bytes) {
            prop_assert_eq!(Elements::decode(&encoded(|w| read.encode(w))), Ok(read));
        }
    }

    #[test]
    fn hostile_bytes_decode_stably_or_fail(
        rule in rules(),
        at in any::<prop::sample::Index>(),
        bits in 1..=255u8,
    ) {
        let mut bytes = encoded(|w| rule.encode(w));
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let _ = (Table::decode(&bytes), Chain::decode(&bytes));
        if let Ok(read) = Rule::decode(&bytes) {
            prop_assert_eq!(Rule::decode(&encoded(|w| read.encode(w))), Ok(read));
        }
    }
}

/// One block of `golden.txt`: a command, the object's kind and bytes, and for a rule its
/// instructions.
struct Golden<'a> {
    kind: &'a str,
    bytes: Vec<u8>,
    instructions: Vec<&'a str>,
}

fn goldens() -> Vec<Golden<'static>> {
    let blocks = include_str!("golden.txt").split("\n\n").filter(|block| block.starts_with("nft "));
    blocks
        .map(|block| {
            let mut lines = block.lines().skip(1);
            let (kind, hex) = lines.next().and_then(|line| line.split_once(' ')).expect("a line");
            Golden { kind, bytes: unhex(hex.trim()), instructions: lines.collect() }
        })
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|c| c.to_digit(16).expect("a hex digit")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("a byte")).collect()
}

/// The attributes of `golden.txt`, which a little-endian kernel sent, in the byte order of this machine; with
/// `pad` as a kernel without efficient unaligned access sends them: padding before 64-bit values.
///
/// `path` leads to the attributes: the kind of object, then attribute types and names of expressions.
fn as_sent_here(bytes: &[u8], path: &str, pad: bool, w: &mut Writer) {
    let mut rest = bytes;
    while let [len, high, type_low, type_high, ..] = *rest {
        let len = usize::from(u16::from_le_bytes([len, high]));
        let attribute_type = u16::from_le_bytes([type_low, type_high]);
        let value = &rest[4..len];
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        let inside = format!("{path} {attribute_type}");
        let padding = PADDED.iter().find(|(padded, _)| *padded == inside);
        if let Some((_, padding)) = padding.filter(|_| pad) {
            w.bytes(*padding, &[]);
        }
        let inside = match inside.as_str() {
            "rule 4 1" => format!("expression {}", name_in(value)),
            "elements 3 1" => "element".into(),
            "element 1" | "element 2" => "data".into(),
            _ if DATA.contains(&inside.as_str()) => "data".into(),
            _ => inside,
        };
        if is_nested(&inside) {
            w.nested(attribute_type, |w| as_sent_here(value, &inside, pad, w));
        } else {
            w.bytes(attribute_type, value);
        }
    }
}

/// 64-bit attributes, and the padding before them (linux/netfilter/nf_tables.h).
const PADDED: [(&str, u16); 7] = [
    ("table 4", NFTA_TABLE_PAD),
    ("chain 2", NFTA_CHAIN_PAD),
    ("rule 3", NFTA_RULE_PAD),
    ("rule 6", NFTA_RULE_PAD),
    ("set 16", NFTA_SET_PAD),
    ("expression counter 2 1", NFTA_COUNTER_PAD),
    ("expression counter 2 2", NFTA_COUNTER_PAD),
];

/// Attributes of expressions with a value or verdict inside.
const DATA: [&str; 6] = [
    "expression cmp 2 3",
    "expression immediate 2 2",
    "expression range 2 3",
    "expression range 2 4",
    "expression bitwise 2 4",
    "expression bitwise 2 5",
];

fn is_nested(path: &str) -> bool {
    let is_data =
        path.starts_with("expression ") && path.ends_with(" 2") && path.matches(' ').count() == 2;
    let is_item = path.starts_with("expression ") && path.matches(' ').count() == 1;
    is_data || is_item || NESTED.contains(&path)
}

const NESTED: [&str; 8] =
    ["chain 4", "rule 4", "set 9", "elements 3", "element", "data", "data 2", "rule 4 1"];

/// The name in the attributes of an expression.
fn name_in(element: &[u8]) -> String {
    let len = usize::from(u16::from_le_bytes([element[0], element[1]]));
    String::from_utf8(element[4..len - 1].to_vec()).expect("a name")
}

impl Golden<'_> {
    /// Its bytes as a kernel of this machine sends them.
    fn sent(&self, pad: bool) -> Vec<u8> {
        encoded(|w| {
            w.raw(&self.bytes[..4]);
            as_sent_here(&self.bytes[4..], self.kind, pad, w);
        })
    }
}

#[test]
fn padding_before_64_bit_values_is_skipped() {
    let mut padded = 0;
    for golden in goldens() {
        let (plain, pad) = (golden.sent(false), golden.sent(true));
        padded += usize::from(plain != pad);
        match golden.kind {
            "table" => assert_eq!(Table::decode(&pad), Table::decode(&plain)),
            "chain" => assert_eq!(Chain::decode(&pad), Chain::decode(&plain)),
            "rule" => assert_eq!(Rule::decode(&pad), Rule::decode(&plain)),
            "set" => assert_eq!(SetSpec::decode(&pad), SetSpec::decode(&plain)),
            _ => assert_eq!(Elements::decode(&pad), Elements::decode(&plain)),
        }
    }
    assert!(padded > 25, "{padded}");
    // Elements with a timeout, which no policy compiles to.
    let element = |pad: bool| {
        let bytes = encoded(|w| {
            w.nested(NFTA_LIST_ELEM, |w| {
                if pad {
                    w.bytes(NFTA_SET_ELEM_PAD, &[]);
                }
                w.u64_be(4, 1000);
            });
        });
        Element::decode(Reader::new(&bytes).attrs().next().unwrap().unwrap()).unwrap()
    };
    assert_eq!(element(true), element(false));
}

#[test]
fn an_attribute_that_occurs_twice_is_an_error() {
    for golden in goldens().into_iter().filter(|golden| golden.kind != "elements") {
        let sent = golden.sent(false);
        let (fixed, attributes) = sent.split_at(4);
        let first = Reader::new(attributes).attrs().next().unwrap().unwrap();
        let again = encoded(|w| {
            w.raw(fixed);
            w.raw(attributes);
            w.bytes(first.attribute_type, first.value);
        });
        let error = match golden.kind {
            "table" => Table::decode(&again).unwrap_err(),
            "chain" => Chain::decode(&again).unwrap_err(),
            "rule" => Rule::decode(&again).unwrap_err(),
            _ => SetSpec::decode(&again).unwrap_err(),
        };
        assert!(matches!(error, CodecError::Twice { .. }), "{error:?}");
    }
}

#[test]
fn ingress_hook_keeps_its_devices() {
    let bytes = encoded(|w| {
        w.raw(&[1, 0, 0, 0]);
        w.string(1, "t");
        w.string(3, "ingress");
        w.nested(4, |w| {
            w.u32_be(1, 5);
            w.u32_be(2, 0);
            w.string(3, "eth0");
            w.nested(4, |w| w.string(1, "eth0"));
        });
    });
    let chain = Chain::decode(&bytes).unwrap();
    assert_eq!(chain.hook.as_ref().unwrap().other.len(), 2);
    assert_eq!(encoded(|w| chain.encode(w)), bytes);
}

#[test]
fn kernel_rules_encode_to_the_same_bytes() {
    let rules: Vec<_> = goldens().into_iter().filter(|golden| golden.kind == "rule").collect();
    assert!(rules.len() >= 9);
    for golden in rules {
        let sent = golden.sent(false);
        let rule = Rule::decode(&sent).unwrap();
        let bytes = encoded(|w| rule.encode(w));
        // Bytes 2 and 3 are the generation's low half, which only answers carry.
        assert_eq!(bytes[4..], sent[4..]);
        // The instructions are those of a little-endian machine: nft prints registers as its words.
        if cfg!(target_endian = "big") {
            continue;
        }
        // nft knows expressions that are opaque here.
        let known = |expr: &&Expr| !matches!(expr, Expr::Opaque(_));
        for expr in rule.exprs.iter().filter(known) {
            let is_found =
                golden.instructions.iter().any(|line| is_printed(line, &expr.normalized()));
            assert!(is_found, "{expr}");
        }
        assert_eq!(rule.exprs.len(), golden.instructions.len());
    }
}

/// Whether `line` is what nft prints for `expr` when it sends it: the kernel has not yet named the
/// anonymous set then, and nft sets the flag of a translation with ports, which the kernel sets for us.
fn is_printed(line: &str, expr: &Expr) -> bool {
    let expr = match expr {
        Expr::Lookup(lookup) if lookup.set.starts_with("__") => {
            let set = format!("{}%d", lookup.set.trim_end_matches(|c: char| c.is_ascii_digit()));
            Lookup { set, ..*lookup.clone() }.into()
        }
        expr => expr.clone(),
    };
    if let Expr::Nat(nat) = &expr {
        let flags = Some(nat.flags.unwrap_or(0) | NF_NAT_RANGE_PROTO_SPECIFIED);
        let nat: Expr = Nat { flags, ..*nat.clone() }.into();
        return line == expr.to_string() || line == nat.to_string();
    }
    line == expr.to_string()
}

/// The sets of the goldens are what our own constructors make.
#[test]
fn kernel_sets_equal_ours() {
    let range = |text: &str| text.parse::<PortRange>().unwrap();
    let goto = |chain: &str| Verdict::Goto(chain.into());
    let networks = ["fc00::/8", "fd00::/8", "2001:db8::/32", "10.0.0.0/8"];
    let networks = networks.map(|text| text.parse().unwrap());
    let (source, outside) = ("10.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
    let ours = [
        Set::ports(SetName::Named("ports"), &"1024-2000,3000-65535".parse().unwrap()),
        Set::port_verdicts(
            SetName::Named("keep"),
            &[(range("300-65535"), goto("q")), (range("100-200"), goto("q"))],
        ),
        Set::networks(SetName::Named("v6"), Family::Ipv6, &networks),
        Set::source_ports(SetName::Named("m"), Family::Ipv4, [(source, range("1024-1087"))]),
        Set::source_blocks(
            SetName::Named("b"),
            Family::Ipv4,
            [(source, outside, range("1024-1087"))],
        ),
    ];
    let goldens = goldens();
    let of_kind = |kind| goldens.iter().filter(move |golden| golden.kind == kind);
    let sets: Vec<_> =
        of_kind("set").map(|golden| SetSpec::decode(&golden.sent(false)).unwrap()).collect();
    let elements = of_kind("elements").map(|golden| Elements::decode(&golden.sent(false)).unwrap());
    let elements: Vec<_> = elements.collect();
    assert_eq!((sets.len(), elements.len()), (ours.len(), ours.len()));
    for our in ours {
        let name = &our.spec.name;
        let set = sets.iter().find(|set| set.name == *name).unwrap();
        let list = elements.iter().find(|list| list.set == *name).unwrap();
        let set = SetSpec { table: our.spec.table.clone(), ..set.clone() };
        let golden = Set { spec: set, elements: list.elements.clone() };
        assert_eq!(golden.normalized(), our.normalized());
    }
}

#[test]
fn kernel_objects_roundtrip() {
    for golden in goldens() {
        match golden.kind {
            "table" => {
                let table = Table::decode(&golden.sent(false)).unwrap();
                assert_eq!(table.comment().unwrap().as_str(), "foo");
                assert_eq!(Table::decode(&encoded(|w| table.encode(w))), Ok(table));
            }
            "chain" => {
                let chain = Chain::decode(&golden.sent(false)).unwrap();
                assert_eq!(Chain::decode(&encoded(|w| chain.encode(w))), Ok(chain));
            }
            "set" => {
                let set = SetSpec::decode(&golden.sent(false)).unwrap();
                assert_eq!(SetSpec::decode(&encoded(|w| set.encode(w))), Ok(set));
            }
            "elements" => {
                let elements = Elements::decode(&golden.sent(false)).unwrap();
                let bytes = encoded(|w| elements.encode(w));
                assert_eq!(bytes[4..], golden.sent(false)[4..]);
            }
            _ => {}
        }
    }
}

#[test]
fn every_truncated_message_is_an_error() {
    for golden in goldens() {
        let header = Header { message_type: 0xa06, flags: 0, seq: 1 };
        let bytes = encoded(|w| w.message(header, |w| w.raw(&golden.sent(false))));
        assert!(Messages::new(&bytes).all(|message| message.is_ok()));
        for cut in 1..bytes.len() {
            assert!(Messages::new(&bytes[..cut]).any(|message| message.is_err()), "{cut}");
        }
        // The objects themselves see what is cut off inside of an attribute.
        let sent = golden.sent(false);
        for cut in 0..sent.len() {
            let body = &sent[..cut];
            let _ = (Table::decode(body), Chain::decode(body), Rule::decode(body));
            let _ = (SetSpec::decode(body), Elements::decode(body));
        }
    }
}
