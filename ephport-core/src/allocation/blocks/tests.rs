use expect_test::expect;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::strategies::allocation::block_plans;
use crate::testing::errors;

fn plan(text: &str) -> BlockPlan {
    text.parse().unwrap()
}

/// RFC 7422 §2.4 and its table 1: fourteen hosts of 198.51.100.0/28 behind 192.0.2.1, system ports
/// reserved, compression ratio 1:(14+2). The two blocks that the RFC keeps for its dynamic pool,
/// 57472-65535, are in no block here.
#[test]
fn rfc_7422_example() {
    let plan = plan("198.51.100.1-198.51.100.14=4032@192.0.2.1:1024-65535");
    assert_eq!(plan.sources_per_address(), 16);
    let expected = [
        ("198.51.100.1", "1024-5055"),
        ("198.51.100.2", "5056-9087"),
        ("198.51.100.3", "9088-13119"),
        ("198.51.100.4", "13120-17151"),
        ("198.51.100.5", "17152-21183"),
        ("198.51.100.6", "21184-25215"),
        ("198.51.100.7", "25216-29247"),
        ("198.51.100.8", "29248-33279"),
        ("198.51.100.9", "33280-37311"),
        ("198.51.100.10", "37312-41343"),
        ("198.51.100.11", "41344-45375"),
        ("198.51.100.12", "45376-49407"),
        ("198.51.100.13", "49408-53439"),
        ("198.51.100.14", "53440-57471"),
    ];
    let blocks: Vec<_> = plan.iter().map(|b| (b.source.to_string(), b.ports.to_string())).collect();
    assert_eq!(blocks, expected.map(|(source, ports)| (source.into(), ports.into())));
    let outside = "192.0.2.1".parse().unwrap();
    let who = |port: u16| plan.source_of(outside, Port::new(port).unwrap());
    assert_eq!(who(5055), Some("198.51.100.1".parse().unwrap()));
    assert_eq!(who(5056), Some("198.51.100.2".parse().unwrap()));
    assert_eq!((who(1023), who(57472), who(65535)), (None, None, None));
}

#[test]
fn sources_fill_one_outside_address_after_the_other() {
    let plan = plan("100.64.0.0/24=1008@192.0.2.0/30:1024-65535");
    assert_eq!(plan.sources_per_address(), 64);
    assert_eq!(plan.outside(), Some("192.0.2.0/30".parse().unwrap()));
    let block = |source: &str| plan.block_of(source.parse().unwrap()).unwrap().to_string();
    assert_eq!(block("100.64.0.63"), "100.64.0.63=192.0.2.0:64528-65535");
    assert_eq!(block("100.64.0.64"), "100.64.0.64=192.0.2.1:1024-2031");
    assert_eq!(block("100.64.0.255"), "100.64.0.255=192.0.2.3:64528-65535");
    assert_eq!(plan.block_of("100.64.1.0".parse().unwrap()), None);
    let stranger = plan.source_of("192.0.2.4".parse().unwrap(), Port::MAX);
    assert_eq!(stranger, None);
}

#[test]
fn colon_between_ports_ends_no_address() {
    let colon = plan("10.0.0.0/30=64@1024:2047");
    assert_eq!(colon, plan("10.0.0.0/30=64@1024-2047"));
    assert_eq!(colon.outside(), None);
}

#[test]
fn no_block_straddles_a_gap() {
    let plan = plan("10.0.0.1-10.0.0.3=1000@1024-2999,5000-7500");
    let blocks: Vec<_> = plan.iter().map(|block| block.ports.to_string()).collect();
    // 2024-2999 and 7000-7500 are too short for a block.
    assert_eq!(blocks, ["1024-2023", "5000-5999", "6000-6999"]);
}

#[test]
fn a_million_sources_need_no_table() {
    let plan = plan("10.0.0.0-10.15.66.63=64@198.18.0.0/22:1024-65535");
    assert_eq!(plan.sources().count(), 1_000_000);
    for index in (0..1_000_000).step_by(997) {
        let source = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + index));
        let block = plan.block_of(source).unwrap();
        assert_eq!(plan.source_of(block.outside.unwrap(), block.ports.last()), Some(source));
    }
}

#[test]
fn errors_of_block_plans() {
    let errors = errors::<BlockPlan>(&[
        "10.0.0.0/22=64",
        "10.0.0.0/22=+6@1024-65535",
        "10.0.0.0/22=0@1024-65535",
        "eth0=64@1024-65535",
        "10.0.0.1=64@1024-70000",
        "10.0.0.1=64@[2001:db8::1]:1024-65535",
        "10.0.0.0/22=64@1024-65535",
        "10.0.0.0/30=60000@1024-65535",
        "10.0.0.0/16=64@1-65535",
        "10.0.0.0/20=9@1024-5119",
    ]);
    expect![[r#"
        "10.0.0.0/22=64" => `10.0.0.0/22=64` is not a plan of blocks: expected SOURCES=SIZE@PORTS, like 10.0.0.0/22=63@1024-65535, or SOURCES=SIZE@OUTSIDE:PORTS
        "10.0.0.0/22=+6@1024-65535" => size of blocks in `10.0.0.0/22=+6@1024-65535`: expected a number of ports from 1 to 65535
        "10.0.0.0/22=0@1024-65535" => blocks of 0 ports are empty: expected 1 to 65535
        "eth0=64@1024-65535" => `eth0` names no addresses: expected 10.0.0.0/22, 10.0.0.1-10.0.0.14 or 10.0.0.1
        "10.0.0.1=64@1024-70000" => port 70000 is too large: expected 1 to 65535
        "10.0.0.1=64@[2001:db8::1]:1024-65535" => 10.0.0.1 cannot be translated to 2001:db8::1: expected addresses of one family
        "10.0.0.0/22=64@1024-65535" => 1024 sources need a block of 64 ports each, and there are 1008: expected blocks of at most 63 ports
        "10.0.0.0/30=60000@1024-65535" => 4 sources need a block of 60000 ports each, and there are 1: expected blocks of at most 16128 ports
        "10.0.0.0/16=64@1-65535" => 65536 sources need a block of 64 ports each, and there are 1023: even single ports are too few; expected fewer sources or more outside addresses
        "10.0.0.0/20=9@1024-5119" => 4096 sources need a block of 9 ports each, and there are 455: expected blocks of one port
    "#]].assert_eq(&errors);
}

proptest! {
    #[test]
    fn printed_values_parse_back(plan in block_plans()) {
        prop_assert_eq!(plan.to_string().parse(), Ok(plan.clone()));
        for block in plan.iter().take(20) {
            prop_assert_eq!(block.to_string().parse(), Ok(block));
        }
    }

    #[test]
    fn each_port_maps_back_to_one_source(plan in block_plans()) {
        let mut last = None;
        for block in plan.iter().take(300) {
            prop_assert_eq!(block.ports.count(), u32::from(plan.size()));
            prop_assert!(PortSet::from(block.ports).is_subset(plan.ports()));
            prop_assert_eq!(plan.block_of(block.source), Some(block));
            let outside = block.outside.unwrap_or(block.source);
            for port in [block.ports.first(), block.ports.last()] {
                prop_assert_eq!(plan.source_of(outside, port), Some(block.source));
            }
            let place = Some((block.outside, block.ports.first()));
            prop_assert!(last < place, "{last:?} {place:?}");
            last = place;
        }
    }

    #[test]
    fn parsing_never_panics(text in "[0-9./]{0,12}=[0-9]{0,5}@[0-9.:,\\[\\]-]{0,24}") {
        let _ = text.parse::<BlockPlan>();
    }
}
