//! Sets contain their values by the kernel's own rule of lookup, and nft prints them.

use std::net::{IpAddr, Ipv4Addr};

use ephport_core::strategies::{port_sets, ports};
use ephport_core::{Family, PortRange};
use ephport_nft::TableState;
use ephport_nft::nftables::expr::{
    Byteorder, Cmp, CmpOp, Ct, Expr, Hash, Lookup, Masq, Meta, Nat, Numgen, Payload, Register,
    Verdict,
};
use ephport_nft::nftables::{Chain, ElementRef, Rule, SetSpec, Table};
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::table::{Set, SetName};
use ephport_nft::uapi::{
    NFPROTO_IPV4, NFT_META_NFPROTO, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER,
};
use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

/// What a set contains for a key: in an interval set the last element at or below it counts, and at the
/// same key the beginning of a range (net/netfilter/nft_set_rbtree.c).
fn found<'a>(filled: &'a Set, key: &[u8]) -> Option<ElementRef<'a>> {
    found_in(filled, filled.elements.iter(), key)
}

fn found_in<'a>(
    filled: &Set,
    mut elements: impl Iterator<Item = ElementRef<'a>>,
    key: &[u8],
) -> Option<ElementRef<'a>> {
    if !filled.spec.is_interval() {
        return elements.find(|element| element.key_bytes() == Some(key));
    }
    let below = elements.filter(|element| element.key_bytes().unwrap() <= key);
    below
        .max_by_key(|element| (element.key_bytes(), !element.is_end()))
        .filter(|found| !found.is_end())
}

proptest! {
    #[test]
    fn port_set_contains_exactly_its_ports(set in port_sets(), port in ports(), anonymous in any::<bool>()) {
        let name = if anonymous { SetName::Anonymous(0) } else { SetName::Named("s") };
        let filled = Set::ports(name, &set);
        let key = port.get().to_be_bytes();
        prop_assert_eq!(found(&filled, &key).is_some(), set.contains(port));
        prop_assert_eq!(found_in(&filled, filled.normalized().elements(), &key).is_some(), set.contains(port));
    }

    #[test]
    fn network_set_contains_exactly_its_addresses(
        networks in prop::collection::vec((any::<u32>(), 0..=32u8), 0..8),
        near in any::<prop::sample::Index>(),
        off in -1..=1i64,
    ) {
        let networks: Vec<IpNet> = networks
            .into_iter()
            .map(|(bits, len)| Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), len).into())
            .collect();
        let filled = Set::networks(SetName::Anonymous(0), Family::Ipv4, &networks);
        let edge = filled.elements.iter().nth(near.index(filled.elements.len().max(1)));
        let edge = edge.map_or([0; 4], |element| element.key_bytes().unwrap().try_into().unwrap());
        let address = u32::from_be_bytes(edge).wrapping_add_signed(i32::try_from(off).unwrap());
        let address = Ipv4Addr::from_bits(address);
        let expected = networks.iter().any(|net| net.contains(&IpAddr::V4(address)));
        prop_assert_eq!(found(&filled, &address.octets()).is_some(), expected);
        prop_assert_eq!(found_in(&filled, filled.normalized().elements(), &address.octets()).is_some(), expected);
    }

    #[test]
    fn weights_share_the_numbers(weights in prop::collection::vec(0..100u32, 1..8)) {
        let verdict = |i: usize| Verdict::Goto(format!("r{i}"));
        let verdicts: Vec<_> =
            weights.iter().enumerate().map(|(i, weight)| (*weight, verdict(i))).collect();
        let filled = Set::weighted_verdicts(SetName::Anonymous(0), &verdicts);
        let owners = weights.iter().enumerate().flat_map(|(i, weight)| (0..*weight).map(move |_| i));
        for (number, owner) in (0u32..).zip(owners) {
            let data = found(&filled, &number.to_be_bytes()).and_then(ElementRef::data);
            prop_assert_eq!(data, Some(ephport_nft::nftables::expr::Data::verdict(verdict(owner))));
        }
        let total: u32 = weights.iter().sum();
        prop_assert_eq!(found(&filled, &total.to_be_bytes()), None);
    }
}

fn range(text: &str) -> PortRange {
    text.parse().unwrap()
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain.into())
}

/// The lines that a listing has for one rule over `sets`.
fn listed(sets: Vec<Set>, exprs: Vec<Expr>) -> Vec<String> {
    let ruleset = TableState {
        chains: vec![Chain::regular(FAMILY, TABLE, "c")],
        sets,
        rules: vec![Rule::new(FAMILY, TABLE, "c", exprs)],
        ..TableState::empty(Table::new(FAMILY, TABLE))
    };
    ruleset.to_nft().to_string().lines().map(|line| line.trim().to_string()).collect()
}

/// One rule: what goes before, a lookup, what goes after.
fn rule(before: Vec<Expr>, filled: Set, lookup: Lookup, after: Vec<Expr>) -> String {
    let exprs = [before, vec![lookup.into()], after].concat();
    listed(vec![filled], exprs).into_iter().nth(2).unwrap()
}

fn verdict_of(set: &SetSpec) -> Lookup {
    Lookup::value(&set.name, Register::VERDICT)
}

fn ipv4() -> [Expr; 2] {
    let nfproto = Meta { key: NFT_META_NFPROTO, dreg: Register::R1 };
    [nfproto.into(), Cmp::new(CmpOp::Eq, &[NFPROTO_IPV4]).into()]
}

fn source(dreg: Register) -> Expr {
    Payload { dreg, base: NFT_PAYLOAD_NETWORK_HEADER, offset: 12, len: 4 }.into()
}

#[test]
fn anonymous_sets_are_listed_in_their_rule() {
    let set = Set::ports(SetName::Anonymous(0), &"1024-2000,2002,3000-65535".parse().unwrap());
    let lookup = Lookup::outside(&set.spec.name);
    assert_eq!(
        rule(vec![Payload::SOURCE_PORT.into()], set, lookup, Vec::new()),
        "th sport != { 1024-2000, 2002, 3000-65535 }"
    );
    let networks = ["10.0.0.0/8", "11.0.0.0/8", "192.0.2.1/32", "12.0.0.0/8", "fc00::/7"];
    let networks = networks.map(|text| text.parse().unwrap());
    let set = Set::networks(SetName::Anonymous(0), Family::Ipv4, &networks);
    let lookup = Lookup::within(&set.spec.name);
    assert_eq!(
        rule(vec![Ct::ORIGINAL_SOURCE_V4.into()], set, lookup, Vec::new()),
        "ct original ip saddr { 10.0.0.0-12.255.255.255, 192.0.2.1 }"
    );
}

#[test]
fn verdict_maps_are_listed_in_their_rule() {
    let map = Set::port_verdicts(
        SetName::Anonymous(0),
        &[(range("300-65535"), goto("b")), (range("100-299"), goto("a"))],
    );
    let lookup = verdict_of(&map.spec);
    assert_eq!(
        rule(vec![Payload::SOURCE_PORT.into()], map, lookup, Vec::new()),
        "th sport vmap { 100-299 : goto a, 300-65535 : goto b }"
    );
    let map = Set::number_verdicts(SetName::Anonymous(0), &[goto("a"), goto("b")]);
    let lookup = verdict_of(&map.spec);
    assert_eq!(
        rule(vec![Numgen::incremental(2).into()], map.clone(), lookup.clone(), Vec::new()),
        "numgen inc mod 2 vmap { 0 : goto a, 1 : goto b }"
    );
    let port =
        Payload { dreg: Register(13), base: NFT_PAYLOAD_TRANSPORT_HEADER, ..Payload::SOURCE_PORT };
    let hash = [source(Register::R2), port.into(), Hash::jenkins(8, 2, 1).into()];
    assert_eq!(
        rule([ipv4().to_vec(), hash.to_vec()].concat(), map, lookup, Vec::new()),
        "meta nfproto ipv4 jhash ip saddr . th sport mod 2 seed 0x1 \
         vmap { 0 : goto a, 1 : goto b }"
    );
    let map = Set::weighted_verdicts(
        SetName::Anonymous(0),
        &[(100, goto("a")), (49, goto("b")), (1, goto("a"))],
    );
    let lookup = verdict_of(&map.spec);
    let number = vec![Numgen::random(150).into(), Byteorder::TO_NETWORK.into()];
    assert_eq!(
        rule(number, map.clone(), lookup.clone(), Vec::new()),
        "numgen random mod 150 vmap { 0-99 : goto a, 100-148 : goto b, 149 : goto a }"
    );
    // Numbers in the order of the machine are no keys of an interval map.
    let wrong = rule(vec![Numgen::random(150).into()], map, lookup, Vec::new());
    let beginning =
        "# nft cannot list all of this rule: [ numgen reg 1 = random mod 150 ] [ lookup ";
    assert!(wrong.starts_with(beginning), "{wrong}");
}

#[test]
fn source_blocks_list_with_nat_only() {
    let (inside, outside) = ("10.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
    let blocks = [(inside, outside, range("1024-1087"))];
    let map = Set::source_blocks(SetName::Anonymous(0), Family::Ipv4, blocks);
    let lookup = Lookup::value(&map.spec.name, Register::R1);
    let before = [ipv4().to_vec(), vec![source(Register::R1)]].concat();
    assert_eq!(
        rule(before.clone(), map, lookup, vec![Nat::source_block(Family::Ipv4).into()]),
        "meta nfproto ipv4 snat ip to ip saddr map { 10.0.0.1 : 192.0.2.1 . 1024-1087 }"
    );

    let ports = [(inside, range("1024-1087"))];
    let map = Set::source_ports(SetName::Named("blocks"), Family::Ipv4, ports);
    let lookup = Lookup::value(&map.spec.name, Register::R1);
    let masq = Masq { flags: Some(2), proto_min: Some(Register::R1), proto_max: Some(Register(9)) };
    let lines = listed(vec![map], [before, vec![lookup.into(), masq.into()]].concat());
    assert_eq!(
        lines[1..6],
        [
            "map blocks {",
            "type ipv4_addr : inet_service . inet_service",
            "size 64",
            "elements = { 10.0.0.1 : 1024 . 1087 }",
            "}"
        ]
    );
    assert_eq!(
        lines[8],
        "# nft cannot list all of this rule: meta nfproto ipv4 \
         [ payload load 4b @ network header + 12 => reg 1 ] \
         [ lookup reg 1 set blocks dreg 1 ] [ masq proto_min reg 1 proto_max reg 9 flags 0x2 ]"
    );
}

#[test]
fn normalized_sets_ignore_names_and_order() {
    let ruleset = |number: u32, reversed: bool| {
        let mut first = Set::ports(SetName::Anonymous(number), &"5,7-9".parse().unwrap());
        let second = Set::ports(SetName::Anonymous(number + 1), &"6".parse().unwrap());
        if reversed {
            first.elements.edit(|elements| {
                elements.reverse();
                elements.pop() // the end at 0
            });
        }
        let rule = |filled: &Set| {
            let exprs = vec![Payload::SOURCE_PORT.into(), Lookup::within(&filled.spec.name).into()];
            Rule::new(FAMILY, TABLE, "c", exprs)
        };
        let rules = vec![rule(&first), rule(&second)];
        let sets = if reversed { vec![second, first] } else { vec![first, second] };
        TableState { sets, rules, ..TableState::empty(Table::new(FAMILY, TABLE)) }
    };
    let (a, b) = (ruleset(0, false), ruleset(4, true));
    assert_ne!(a, b);
    assert_eq!(a.normalized(), b.normalized());
    assert_eq!(a.checksum(), b.checksum());
    let mut other = ruleset(0, false);
    other.rules.swap(0, 1);
    assert_ne!(other.normalized(), a.normalized());
}
