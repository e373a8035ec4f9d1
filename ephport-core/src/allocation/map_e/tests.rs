use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::strategies::allocation::map_es;

const EXAMPLE: &str = "ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,\
                       delegated=2001:db8:12:3400::/56";

fn allocation(text: &str) -> Allocation {
    match text.parse() {
        Ok(MapE::Allocation(allocation)) => allocation,
        other => panic!("{other:?}"),
    }
}

fn ends(ports: &PortSet) -> String {
    let [a, b, .., y, z] = ports.ranges() else { panic!("{ports}") };
    format!("{} ranges: {a}, {b}, ...... , {y}, {z}", ports.ranges().len())
}

/// RFC 7597 Appendix A, examples 1 (basic mapping rule), 2 (the same at the border relay) and 3
/// (the same as a forwarding rule): one customer, one address, one port set.
#[test]
fn rfc_7597_examples_1_to_3_share_an_address() {
    let customer = allocation(EXAMPLE);
    assert_eq!(customer.ipv4().to_string(), "192.0.2.18/32");
    assert_eq!(customer.psid(), Some(PsidRule::new(6, 8, 0x34).unwrap()));
    assert_eq!(
        ends(&customer.ports()),
        "63 ranges: 1232-1235, 2256-2259, ...... , 63696-63699, 64720-64723"
    );
    // The border relay gets a packet to 192.0.2.18 port 1232; it is this customer's.
    assert!(customer.ports().contains("1232".parse().unwrap()));
}

/// RFC 7597 Appendix A, example 4: no EA bits, no sharing.
#[test]
fn rfc_7597_example_4_has_a_whole_address() {
    let customer = allocation(
        "ipv6-prefix=2001:db8:12:3400::/56,ipv4-prefix=192.0.2.18/32,ea-len=0,\
         delegated=2001:db8:12:3400::/56",
    );
    assert_eq!((customer.ipv4().to_string(), customer.psid()), ("192.0.2.18/32".into(), None));
    assert_eq!(customer.ports(), PortRange::ALL.into());
}

/// RFC 7597 Appendix A, example 5: no EA bits, and a PSID that DHCP gave. The PSID is the one
/// that fits the example's ports (RFC 7599's erratum 5324, on its copy of the example).
#[test]
fn rfc_7597_example_5_has_a_provisioned_psid() {
    let customer = allocation(
        "ipv6-prefix=2001:db8:12:3400::/56,ipv4-prefix=192.0.2.18/32,ea-len=0,\
         psid=0x34,psid-len=8,delegated=2001:db8:12:3400::/56",
    );
    assert_eq!(customer.ipv4().to_string(), "192.0.2.18/32");
    assert_eq!(
        ends(&customer.ports()),
        "63 ranges: 1232-1235, 2256-2259, ...... , 63696-63699, 64720-64723"
    );
}

/// Calculators and OpenWrt print the length of the PSID, and the PSID, beside the EA bits.
#[test]
fn psid_beside_ea_bits_may_agree_with_them() {
    let customer = allocation(EXAMPLE);
    assert_eq!(allocation(&format!("{EXAMPLE},psid-len=8")), customer);
    assert_eq!(allocation(&format!("{EXAMPLE},psid-len=8,psid=0x34")), customer);
    assert_eq!(allocation(&format!("{EXAMPLE},psid=52")), customer);
    let without = EXAMPLE.replace("delegated=2001:db8:12:3400::/56", "psid=52,psid-len=8");
    assert_eq!(without.parse::<MapE>().unwrap().ports(), customer.ports());
    let whole = EXAMPLE.replace("ea-len=16", "ea-len=8,psid-len=0");
    assert_eq!(allocation(&whole).psid(), None);
}

/// RFC 7597 §5.2: EA bits that just complete the address, and fewer.
#[test]
fn short_ea_bits_give_address_or_prefix() {
    for (ea_len, ipv4) in [(8, "192.0.2.18/32"), (4, "192.0.2.16/28"), (0, "192.0.2.0/24")] {
        let customer = allocation(&EXAMPLE.replace("ea-len=16", &format!("ea-len={ea_len}")));
        assert_eq!((customer.ipv4().to_string(), customer.psid()), (ipv4.into(), None));
    }
}

/// openwrt/openwrt#11972: Japanese providers use an offset of 4, so 15 ranges of 16 ports.
#[test]
fn an_offset_of_4_gives_fifteen_ranges() {
    let customer: MapE = "psid=52,psid-len=8,offset=4".parse().unwrap();
    assert_eq!(
        ends(&customer.ports()),
        "15 ranges: 4928-4943, 9024-9039, ...... , 58176-58191, 62272-62287"
    );
    assert_eq!(customer.ports().count(), 240);
}

#[test]
fn rule_prefix_is_recovered() {
    let ipv6 = "2001:db8::/40".parse().unwrap();
    let rule = BasicMappingRule::new(ipv6, "192.0.2.0/24".parse().unwrap(), 16, 6).unwrap();
    assert_eq!((rule.ipv6_prefix(), rule.ea_len()), (ipv6, 16));
}

#[test]
fn a_longer_delegated_prefix_gives_the_same() {
    let longer = EXAMPLE.replace("3400::/56", "3456:7800::/72");
    let (one, other) = (allocation(EXAMPLE), allocation(&longer));
    assert_eq!((one.ipv4(), one.psid()), (other.ipv4(), other.psid()));
}

#[test]
fn the_longest_and_shortest_prefixes_work() {
    let all =
        "ipv6-prefix=::/0,ipv4-prefix=0.0.0.0/0,ea-len=48,offset=0,delegated=ffff:ffff:ffff::/48";
    assert_eq!(allocation(all).ipv4().to_string(), "255.255.255.255/32");
    assert_eq!(allocation(all).ports().to_string(), "65535");
    let none = "ipv6-prefix=::1/128,ipv4-prefix=0.0.0.0/0,ea-len=0,offset=15,delegated=::1/128";
    assert_eq!(allocation(none).ipv4().to_string(), "0.0.0.0/0");
}

#[test]
fn text_errors_name_the_accepted_values() {
    let cases = [
        "",
        "psid-length=8",
        "psid=1,psid=1",
        "psid=52",
        "psid=x,psid-len=8",
        "psid=+5,psid-len=8",
        "psid=0x+5,psid-len=8",
        "psid=0x,psid-len=8",
        "psid=1,psid-len=17",
        "psid=1,psid-len=8,offset=16",
        "psid=256,psid-len=8",
        "ipv6-prefix=192.0.2.0/24",
        "ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/33",
    ];
    let messages = cases.map(|text| format!("{text} => {}\n", text.parse::<MapE>().unwrap_err()));
    expect![[r#"
         => `` is not KEY=VALUE: expected for example psid=52,psid-len=8,offset=6
        psid-length=8 => unknown key `psid-length`: expected psid, psid-len, offset, ipv6-prefix, ipv4-prefix, ea-len, delegated
        psid=1,psid=1 => `psid` is given twice: expected once
        psid=52 => `psid-len` is missing: expected psid=52,psid-len=8,offset=6, or ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,delegated=2001:db8:12:3400::/56
        psid=x,psid-len=8 => psid `x`: expected a number from 0 to 65535
        psid=+5,psid-len=8 => psid `+5`: expected a number from 0 to 65535
        psid=0x+5,psid-len=8 => psid `0x+5`: expected a number from 0 to 65535
        psid=0x,psid-len=8 => psid `0x`: expected a number from 0 to 65535
        psid=1,psid-len=17 => psid-len `17`: expected a number from 0 to 16
        psid=1,psid-len=8,offset=16 => offset `16`: expected a number from 0 to 15
        psid=256,psid-len=8 => psid 256 does not fit in 8 bits: expected 0 to 255
        ipv6-prefix=192.0.2.0/24 => ipv6-prefix `192.0.2.0/24`: expected a prefix like 2001:db8::/40
        ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/33 => ipv4-prefix `192.0.2.0/33`: expected a prefix like 192.0.2.0/24
    "#]].assert_eq(&messages.concat());
}

#[test]
fn rule_errors_name_the_accepted_values() {
    let cases = [
        "ea-len=49",
        "ea-len=19",
        "ea-len=16,psid-len=6,delegated=2001:db8:12:3400::/56",
        "ea-len=16,psid=1,psid-len=8,delegated=2001:db8:12:3400::/56",
        "ea-len=0,psid=1,psid-len=8",
        "ea-len=0,psid=1",
        "ea-len=16,delegated=2001:db9::/56",
        "ea-len=16,delegated=2001:db8::/48",
    ];
    let messages = cases.map(|rest| {
        let text = format!("ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,{rest}");
        format!("{rest} => {}\n", text.parse::<MapE>().unwrap_err())
    });
    expect![[r#"
        ea-len=49 => ea-len `49`: expected a number from 0 to 48
        ea-len=19 => offset 6 and psid-len 11 make 17 bits: a port has 16, so psid-len is at most 10 here
        ea-len=16,psid-len=6,delegated=2001:db8:12:3400::/56 => psid-len 6 disagrees with ea-len 16 and ipv4-prefix 192.0.2.0/24, which have 8 bits for the PSID: expected one of the two numbers to change
        ea-len=16,psid=1,psid-len=8,delegated=2001:db8:12:3400::/56 => psid 1 disagrees with the delegated prefix, which has PSID 52: omit psid
        ea-len=0,psid=1,psid-len=8 => psid is given beside ea-len 0 and ipv4-prefix 192.0.2.0/24: expected ea-len=0 and one address (/32), or no psid
        ea-len=0,psid=1 => `psid-len` is missing: expected psid=52,psid-len=8,offset=6, or ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,delegated=2001:db8:12:3400::/56
        ea-len=16,delegated=2001:db9::/56 => delegated prefix 2001:db9::/56 is not of this rule: expected one inside 2001:db8::/40
        ea-len=16,delegated=2001:db8::/48 => delegated prefix 2001:db8::/48 ends among the EA bits: expected /56 or longer
    "#]].assert_eq(&messages.concat());
    let (long, ipv4) = ("2001:db8::/120".parse().unwrap(), "192.0.2.0/24".parse().unwrap());
    assert_eq!(
        BasicMappingRule::new(long, ipv4, 16, 6).unwrap_err().to_string(),
        "ea-len 16 is too large: after 2001:db8::/120 expected 0 to 8"
    );
}

proptest! {
    #[test]
    fn printed_values_parse_back(map_e in map_es()) {
        prop_assert_eq!(map_e.to_string().parse(), Ok(map_e));
        prop_assert!(!map_e.ports().is_empty());
    }

    #[test]
    fn parsing_never_panics(
        text in "((psid|psid-len|offset|ea-len|delegated)=[0-9a-fx:/.]{0,8},?){0,4}"
    ) {
        let _ = text.parse::<MapE>();
    }
}
