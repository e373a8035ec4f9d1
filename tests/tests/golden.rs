//! The goldens of ephport-nft, recorded again: nft runs each command, and the kernel lists the object.

use ephport_nft::netlink::{Header, NfGenMsg, Writer};
use ephport_nft::netlink::{Socket, dump};
use ephport_nft::uapi::{
    NFPROTO_INET, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE, NFTA_RULE_TABLE, NFTA_SET_COUNT, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_TABLE, NFTA_SET_TYPE, NLM_F_DUMP, NLM_F_REQUEST,
};
use ephport_tests::Host;
use ephport_tests::tool::tool;

/// The table of all commands.
const TABLE: &str = "t";

/// `struct nfgenmsg`, whose last two bytes are the generation's low half.
const FIXED: usize = 4;

/// One block of `golden.txt`.
struct Golden {
    command: &'static str,
    kind: &'static str,
    bytes: Vec<u8>,
    instructions: Vec<&'static str>,
}

fn goldens() -> Vec<Golden> {
    let text = include_str!("../../ephport-nft/tests/golden.txt");
    let blocks = text.split("\n\n").filter(|block| block.starts_with("nft "));
    let golden = |block: &'static str| {
        let mut lines = block.lines();
        let command = lines.next().and_then(|line| line.strip_prefix("nft ")).expect("a command");
        let (kind, hex) = lines.next().and_then(|line| line.split_once(' ')).expect("an object");
        Golden { command, kind, bytes: unhex(hex.trim()), instructions: lines.collect() }
    };
    blocks.map(golden).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|c| c.to_digit(16).expect("a hex digit")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("a byte")).collect()
}

/// The last object of a kind that the kernel lists.
fn last_listed(socket: &mut Socket, golden: &Golden, seq: u32) -> Vec<u8> {
    let set = golden.command.split(' ').nth(4).unwrap_or_default();
    let in_set = [(NFTA_SET_ELEM_LIST_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, set)];
    let (message, names): (u16, &[(u16, &str)]) = match golden.kind {
        "table" => (NFT_MSG_GETTABLE, &[]),
        "chain" => (NFT_MSG_GETCHAIN, &[]),
        "rule" => (NFT_MSG_GETRULE, &[(NFTA_RULE_TABLE, TABLE)]),
        "set" => (NFT_MSG_GETSET, &[(NFTA_SET_TABLE, TABLE)]),
        "elements" => (NFT_MSG_GETSETELEM, &in_set),
        kind => panic!("{kind}"),
    };
    let mut w = Writer::new();
    w.message(Header::nf_tables(message, NLM_F_REQUEST | NLM_F_DUMP, seq), |w| {
        w.raw(&NfGenMsg::new(NFPROTO_INET).to_bytes());
        for (kind, name) in names {
            w.string(*kind, name);
        }
    });
    let mut last = Vec::new();
    dump(socket, &w.finish().expect("a request"), seq, |_, body| {
        // The kernel ends a list of elements with an empty one.
        if golden.kind != "elements" || body.len() > last.len() {
            last = body.to_vec();
        }
        Ok(())
    })
    .expect("a list");
    last
}

/// Without the generation and, in a set, without the kernel's bookkeeping.
fn comparable(kind: &str, body: &[u8]) -> Vec<u8> {
    let (fixed, mut rest) = body.split_at(FIXED);
    let mut bytes = fixed[..2].to_vec();
    while kind == "set" && !rest.is_empty() {
        let number = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let len = usize::from(number(0)).next_multiple_of(4);
        let (attr, next) = rest.split_at(len);
        if ![NFTA_SET_TYPE, NFTA_SET_COUNT].contains(&number(2)) {
            bytes.extend(attr);
        }
        rest = next;
    }
    bytes.extend(rest);
    bytes
}

#[test]
fn goldens_equal_nft_and_this_kernel() {
    let host = Host::new("host").unwrap();
    let mut socket = host.run(Socket::netfilter).unwrap();
    let goldens = goldens();
    assert!(goldens.len() >= 30, "{}", goldens.len());
    for (golden, seq) in goldens.iter().zip(1..) {
        let printed = tool(&host, "nft", &["--debug=netlink", golden.command], "");
        assert!(printed.success && printed.err.is_empty(), "{}: {printed:?}", golden.command);
        if golden.kind == "rule" {
            let lines = printed.out.lines().map(str::trim).filter(|line| line.starts_with('['));
            assert_eq!(lines.collect::<Vec<_>>(), golden.instructions, "{}", golden.command);
        }
        let body = last_listed(&mut socket, golden, seq);
        let (found, recorded) =
            (comparable(golden.kind, &body), comparable(golden.kind, &golden.bytes));
        assert_eq!(found, recorded, "{}", golden.command);
    }
}
