//! Encoding and decoding are inverse, for every object and expression and for what the kernel
//! itself sends.

use ephport_nft::expr::Expr;
use ephport_nft::object::{Chain, Rule, Table};
use ephport_nft::strategies::{chains, exprs, rules, tables};
use ephport_nft::wire::{Header, Messages, Reader, WireError, Writer};
use proptest::prelude::*;

fn encoded(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().expect("small enough")
}

fn read_expr(bytes: &[u8]) -> Result<Expr, WireError> {
    Expr::read(Reader::new(bytes).attrs().next().expect("an attribute")?)
}

proptest! {
    #[test]
    fn expressions(expr in exprs()) {
        let bytes = encoded(|w| expr.write(w));
        let read = read_expr(&bytes).unwrap();
        prop_assert_eq!(encoded(|w| read.write(w)), bytes);
        prop_assert_eq!(read, expr);
    }

    #[test]
    fn tables_(table in tables()) {
        prop_assert_eq!(Table::read(&encoded(|w| table.write(w))), Ok(table));
    }

    #[test]
    fn chains_(chain in chains()) {
        prop_assert_eq!(Chain::read(&encoded(|w| chain.write(w))), Ok(chain));
    }

    #[test]
    fn rules_(rule in rules()) {
        prop_assert_eq!(Rule::read(&encoded(|w| rule.write(w))), Ok(rule));
    }

    #[test]
    fn hostile_bytes_never_panic_and_what_is_read_is_stable(
        rule in rules(),
        at in any::<prop::sample::Index>(),
        bits in 1..=255u8,
    ) {
        let mut bytes = encoded(|w| rule.write(w));
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let _ = (Table::read(&bytes), Chain::read(&bytes));
        if let Ok(read) = Rule::read(&bytes) {
            prop_assert_eq!(Rule::read(&encoded(|w| read.write(w))), Ok(read));
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

#[test]
fn rules_of_the_kernel_encode_to_the_same_bytes() {
    let rules: Vec<_> = goldens().into_iter().filter(|golden| golden.kind == "rule").collect();
    assert!(rules.len() >= 9);
    for golden in rules {
        let rule = Rule::read(&golden.bytes).unwrap();
        let bytes = encoded(|w| rule.write(w));
        // Bytes 2 and 3 are the generation's low half, which only answers carry.
        assert_eq!(bytes[4..], golden.bytes[4..]);
        // nft has words for expressions that we keep as bytes.
        let known = |expr: &&Expr| !matches!(expr, Expr::Opaque(_));
        for expr in rule.exprs.iter().filter(known) {
            assert!(golden.instructions.contains(&expr.essence().to_string().as_str()), "{expr}");
        }
        assert_eq!(rule.exprs.len(), golden.instructions.len());
    }
}

#[test]
fn tables_and_chains_of_the_kernel_lose_nothing() {
    for golden in goldens() {
        match golden.kind {
            "table" => {
                let table = Table::read(&golden.bytes).unwrap();
                assert_eq!(table.comment().unwrap().as_str(), "foo");
                assert_eq!(Table::read(&encoded(|w| table.write(w))), Ok(table));
            }
            "chain" => {
                let chain = Chain::read(&golden.bytes).unwrap();
                assert_eq!(Chain::read(&encoded(|w| chain.write(w))), Ok(chain));
            }
            _ => {}
        }
    }
}

#[test]
fn every_truncation_of_what_the_kernel_sends_is_an_error() {
    for golden in goldens() {
        let header = Header { kind: 0xa06, flags: 0, seq: 1 };
        let bytes = encoded(|w| w.message(header, |w| w.raw(&golden.bytes)));
        assert!(Messages::new(&bytes).all(|message| message.is_ok()));
        for cut in 1..bytes.len() {
            assert!(Messages::new(&bytes[..cut]).any(|message| message.is_err()), "{cut}");
        }
        // The objects themselves see what is cut off inside of an attribute.
        for cut in 0..golden.bytes.len() {
            let body = &golden.bytes[..cut];
            let _ = (Table::read(body), Chain::read(body), Rule::read(body));
        }
    }
}
