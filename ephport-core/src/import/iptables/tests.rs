//! The cases of iptables' own tests, and each reason by its message.

mod invariants;
mod properties;

use proptest::prelude::*;

use super::*;
use crate::net::family::Families;
use crate::net::port::PortRange;
use crate::policy::scope::{Ipsec, OutInterfaces, Scope};
use crate::policy::selection::NatFlags;
use crate::policy::{Address, PickUp, Policy, PolicySpec, Target};

/// The policy of a rule without what all have in common, or why it is none.
fn shown(imported: &Imported) -> String {
    let [policy] = imported.policies.as_slice() else {
        let [skipped] = imported.skipped.as_slice() else { return format!("{imported:?}") };
        return skipped.reason.to_string();
    };
    assert_eq!(imported.skipped.len(), 0);
    let toml = Document::from(policy.clone()).to_toml();
    let usual = [
        "[[policy]]",
        "name",
        "out-interfaces = \"any\"",
        "families",
        "pick-up = \"any\"",
        "ipsec = \"match\"",
        "address = \"masquerade\"",
    ];
    let usual = |line: &&str| {
        *line != "source-ports = \"1-65535\"" && !usual.iter().any(|usual| line.starts_with(usual))
    };
    toml.lines().filter(usual).collect::<Vec<_>>().join("; ").replace('"', "")
}

fn rule(program: &str, rule: &str) -> String {
    shown(&Imported::parse(format!("{program} -t nat -A POSTROUTING {rule}"), None))
}

/// The rule of the original post, exactly.
#[test]
fn the_original_one_liner() {
    let text = "sudo iptables -t nat -I POSTROUTING -p tcp -m tcp --sport 32768:61000 \
                -j MASQUERADE --to-ports 49152-61000";
    let expected = Policy::new(PolicySpec {
        name: "imported-1".parse().unwrap(),
        scope: Scope {
            out_interfaces: OutInterfaces::Any,
            families: Families::Ipv4,
            protocols: Some("tcp".parse().unwrap()),
            ipsec: Ipsec::Match,
            ..Scope::default()
        },
        source_ports: "32768-61000".parse().unwrap(),
        address: Address::Masquerade,
        pick_up: PickUp::Any,
        ..PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()))
    });
    let expected = Imported { policies: vec![expected.unwrap()], ..Imported::default() };
    assert_eq!(Imported::parse(text, None), expected);
    assert_eq!(Imported::parse(format!("$ {text}"), None), expected);
    let words: Vec<_> = text.split(' ').collect();
    assert_eq!(Imported::from_args(&words, None), expected);
    let without_program = Imported::from_args(&words[2..], None);
    assert_eq!(without_program.policies, expected.policies);
    assert_eq!(
        without_program.notes[0].to_string(),
        "line 1: neither IPv4 nor IPv6 is named: IPv4 is assumed"
    );
    assert_eq!(Imported::from_args(&words[2..], Some(Family::Ipv4)), expected);
    assert_eq!(
        Imported::from_args(&[&["/usr/sbin/iptables-nft", "-w"], &words[2..]].concat(), None),
        expected
    );
}

const NO_PORTS: &str = "no ports: expected --to-ports, or --to-source with ports";
const NO_PROTOCOL: &str =
    "ports require -p tcp, udp, sctp, dccp or icmp before them: iptables refuses the rule";
const RANGE: &str = "policies do not support a range of addresses: expected one --to-source";
const TWO_SOURCES: &str = "`--to-source` is given twice: iptables refuses the rule";
const NO_SOURCE: &str = "`SNAT` requires --to-source: iptables refuses the rule";

/// The cases of iptables' own `libipt_MASQUERADE.t` and `libip6t_MASQUERADE.t`, which are the same.
#[test]
fn masquerade_cases_of_iptables() {
    let cases = [
        ("-j MASQUERADE", NO_PORTS),
        ("-j MASQUERADE --random", NO_PORTS),
        ("-j MASQUERADE --random-fully", NO_PORTS),
        ("-p tcp -j MASQUERADE --to-ports 1024", "protocols = [tcp]; to-ports = 1024"),
        ("-p udp -j MASQUERADE --to-ports 1024-65535", "protocols = [udp]; to-ports = 1024-65535"),
        (
            "-p udp -j MASQUERADE --to-ports 1024-65536",
            "--to-ports `1024-65536`: port 65536 is too large: expected 1 to 65535",
        ),
        (
            "-p udp -j MASQUERADE --to-ports -1",
            "--to-ports `-1`: `-1` is not a port: expected a number from 1 to 65535",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rule("iptables", text), expected, "{text}");
        assert_eq!(rule("ip6tables", text), expected, "{text}");
    }
}

/// The cases of iptables' own `libipt_SNAT.t`.
#[test]
fn snat_cases_of_iptables() {
    let cases = [
        ("-j SNAT --to-source 1.1.1.1", NO_PORTS),
        ("-j SNAT --to-source 1.1.1.1-1.1.1.10", NO_PORTS),
        ("-j SNAT --to-source 1.1.1.1:1025-65535", NO_PROTOCOL),
        ("-j SNAT --to-source 1.1.1.1 --to-source 2.2.2.2", TWO_SOURCES),
        ("-j SNAT --to-source 1.1.1.1 --random", NO_PORTS),
        ("-j SNAT --to-source 1.1.1.1 --random-fully", NO_PORTS),
        ("-j SNAT --to-source 1.1.1.1 --persistent", NO_PORTS),
        ("-j SNAT --to-source 1.1.1.1 --random --persistent", NO_PORTS),
        ("-j SNAT --to-source 1.1.1.1 --random --random-fully", NO_PORTS),
        ("-j SNAT --to-source 1.1.1.1 --random --random-fully --persistent", NO_PORTS),
        (
            "-p tcp -j SNAT --to-source 1.1.1.1:1025-65535",
            "protocols = [tcp]; to-ports = 1025-65535; address = 1.1.1.1",
        ),
        ("-p tcp -j SNAT --to-source 1.1.1.1-1.1.1.10:1025-65535", RANGE),
        (
            "-p tcp -j SNAT --to-source 1.1.1.1-1.1.1.10:1025-65536",
            "--to-source `1025-65536`: port 65536 is too large: expected 1 to 65535",
        ),
        (
            "-p tcp -j SNAT --to-source 1.1.1.1-1.1.1.10:1025-65535 \
             --to-source 2.2.2.2-2.2.2.20:1025-65535",
            TWO_SOURCES,
        ),
        ("-j SNAT", NO_SOURCE),
    ];
    for (text, expected) in cases {
        assert_eq!(rule("iptables", text), expected, "{text}");
    }
}

/// The cases of iptables' own `libip6t_SNAT.t`.
#[test]
fn snat_cases_of_ip6tables() {
    let cases = [
        ("-j SNAT --to-source dead::beef", NO_PORTS),
        ("-j SNAT --to-source dead::beef-dead::fee7", NO_PORTS),
        ("-j SNAT --to-source [dead::beef]:1025-65535", NO_PROTOCOL),
        ("-j SNAT --to-source [dead::beef] --to-source [dead::fee7]", TWO_SOURCES),
        ("-j SNAT --to-source dead::beef --random", NO_PORTS),
        ("-j SNAT --to-source dead::beef --random-fully", NO_PORTS),
        ("-j SNAT --to-source dead::beef --persistent", NO_PORTS),
        ("-j SNAT --to-source dead::beef --random --persistent", NO_PORTS),
        ("-j SNAT --to-source dead::beef --random --random-fully", NO_PORTS),
        ("-j SNAT --to-source dead::beef --random --random-fully --persistent", NO_PORTS),
        (
            "-p tcp -j SNAT --to-source [dead::beef]:1025-65535",
            "protocols = [tcp]; to-ports = 1025-65535; address = dead::beef",
        ),
        ("-p tcp -j SNAT --to-source [dead::beef-dead::fee7]:1025-65535", RANGE),
        (
            "-p tcp -j SNAT --to-source [dead::beef-dead::fee7]:1025-65536",
            "--to-source `1025-65536`: port 65536 is too large: expected 1 to 65535",
        ),
        (
            "-p tcp -j SNAT --to-source [dead::beef-dead::fee7]:1025-65535 \
             --to-source [dead::beef-dead::fee8]:1025-65535",
            TWO_SOURCES,
        ),
        ("-j SNAT", NO_SOURCE),
    ];
    for (text, expected) in cases {
        assert_eq!(rule("ip6tables", text), expected, "{text}");
    }
}

/// Rules that iptables 1.8.9 accepts, as its iptables-save prints them.
#[test]
fn rules_that_become_policies() {
    let cases = [
        ("-p TCP --sport 100:200", "protocols = [tcp]; source-ports = 100-200; to-ports = 9"),
        ("-p 17 --source-port 1024:", "protocols = [udp]; to-ports = 9"),
        (
            "-p sctp -m sctp --sport :1024",
            "protocols = [sctp]; source-ports = 1-1024; to-ports = 9",
        ),
        ("-p tcp --sport :", "protocols = [tcp]; to-ports = 9"),
        ("-p tcp --sport 0:5", "protocols = [tcp]; source-ports = 1-5; to-ports = 9"),
        ("-p tcp --sport 0x50:0120", "protocols = [tcp]; source-ports = 80; to-ports = 9"),
        (
            "-p tcp ! --sport 100:200",
            "protocols = [tcp]; source-ports = 1-99,201-65535; to-ports = 9",
        ),
        (
            "-p tcp -m multiport --sports 1:5,7",
            "protocols = [tcp]; source-ports = 1-5,7; to-ports = 9",
        ),
        (
            "-p tcp -m tcp --sport 4:9 -m multiport ! --source-ports 6,7",
            "protocols = [tcp]; source-ports = 4-5,8-9; to-ports = 9",
        ),
        (
            "-p tcp -s 10.1.2.3/255.255.0.0,172.16/12,192.0.2.1",
            "protocols = [tcp]; sources = [10.1.0.0/16, 172.16.0.0/12, 192.0.2.1/32]; to-ports = 9",
        ),
        ("-p tcp -s 0.0.0.0/0 -d 0/0", "protocols = [tcp]; to-ports = 9"),
        (
            "-p tcp ! -d 10.0.0.0/8 ! -o lo",
            "protocols = [tcp]; except-destinations = [10.0.0.0/8]; to-ports = 9",
        ),
        ("-p tcp -o wg+", "protocols = [tcp]; out-interfaces = [wg*]; to-ports = 9"),
        ("-p tcp -o +", "protocols = [tcp]; to-ports = 9"),
        ("-p tcp --syn", "protocols = [tcp]; to-ports = 9"),
        ("-p tcp -d 192.0.2.1", "protocols = [tcp]; destinations = [192.0.2.1/32]; to-ports = 9"),
        ("-p tcp --dport 80", "protocols = [tcp]; destination-ports = 80; to-ports = 9"),
        ("-p icmp", "protocols = [icmp]; to-ports = 9"),
        ("-p icmp -m icmp --icmp-type 8", "protocols = [icmp]; to-ports = 9"),
        ("-p 1 --icmp-type echo-request", "protocols = [icmp]; to-ports = 9"),
        (
            "-p tcp -m multiport ! --dports 80,443",
            "protocols = [tcp]; destination-ports = 1-79,81-442,444-65535; to-ports = 9",
        ),
        ("-p tcp ! -o eth0", "protocols = [tcp]; except-interfaces = [eth0]; to-ports = 9"),
        ("-p tcp -m mark --mark 010/0xff", "protocols = [tcp]; mark = 0x8/0xff; to-ports = 9"),
        ("-p tcp -m mark --mark 0/0", "protocols = [tcp]; to-ports = 9"),
        (
            "-p tcp -s 10.0.0.0/010 -d 1.2",
            "protocols = [tcp]; sources = [10.0.0.0/8]; destinations = [1.2.0.0/32]; to-ports = 9",
        ),
        ("-m tcp --sport 5 -p tcp", "protocols = [tcp]; source-ports = 5; to-ports = 9"),
        ("-p tcp -m multiport --sport 5,6", "protocols = [tcp]; source-ports = 5-6; to-ports = 9"),
        (
            "-p udp -m multiport --sports 5:9 -m multiport --sport 8:12",
            "protocols = [udp]; source-ports = 8-9; to-ports = 9",
        ),
        ("-p tcp -m comment --comment a -m comment --comment b", "protocols = [tcp]; to-ports = 9"),
        ("-w5 --proto tcp --out eth0", "protocols = [tcp]; out-interfaces = [eth0]; to-ports = 9"),
        ("-ptcp -oeth0", "protocols = [tcp]; out-interfaces = [eth0]; to-ports = 9"),
        ("--protocol=tcp --wait 5 -4 -c 1 2 -v", "protocols = [tcp]; to-ports = 9"),
    ];
    for (text, expected) in cases {
        assert_eq!(rule("iptables", &format!("{text} -j MASQUERADE --to-ports 9")), expected);
    }
    let cases = [
        ("-j MASQUERADE --to-port 0x400-02001", "to-ports = 1024-1025"),
        (
            "-j MASQUERADE --random --to-ports=9 --random-fully",
            "to-ports = 9; random = true; fully-random = true",
        ),
        (
            "-j SNAT --to 192.0.2.1-192.0.2.1:9 --persistent",
            "to-ports = 9; persistent = true; address = 192.0.2.1",
        ),
        ("-j SNAT --to-source :9", "to-ports = 9; address = keep"),
    ];
    for (text, expected) in cases {
        assert_eq!(
            rule("iptables", &format!("-p tcp {text}")),
            format!("protocols = [tcp]; {expected}")
        );
    }
    let cases = [("[]:9", "to-ports = 9; address = keep"), (":9", "to-ports = 9; address = keep")];
    for (text, expected) in cases {
        let shown = rule("ip6tables", &format!("-p tcp -j SNAT --to-source {text}"));
        assert_eq!(shown, format!("protocols = [tcp]; {expected}"));
    }
    assert_eq!(
        rule("ip6tables-legacy", "-s 2001:db8::1/ffff:: -p tcp -j MASQUERADE --to-ports 9"),
        "protocols = [tcp]; sources = [2001::/16]; to-ports = 9"
    );
}

#[test]
fn skipped_matches_have_a_reason() {
    let cases = [
        ("-p tcp ! --syn", "policies do not support `! --syn`"),
        ("-p tcp ! -s 192.0.2.1", "policies do not support `! -s`"),
        ("-p tcp ! -o +", "policies do not support `! -o`"),
        ("-p tcp ! -d 0/0", "policies do not support `! -d`"),
        ("-p tcp -m mark --mark 1 -m mark --mark 2/2", "policies do not support `--mark` twice"),
        ("-p tcp -m policy --dir out", "policies do not support match `policy`"),
        ("-p tcp -m policy --dir out --pol ipsec", "policies do not support `--pol`"),
        ("-p tcp -i eth0", "POSTROUTING cannot have `-i`: iptables refuses the rule"),
        ("-p tcp -n", "`-n` does not go with a command that adds rules: iptables refuses the rule"),
        ("! -p tcp", "policies do not support `! -p`"),
        ("-p tcp --tcp-flags SYN SYN", "policies do not support `--tcp-flags`"),
        ("-p tcp -f", "policies do not support `-f`"),
        ("-p tcp -o lo", "policies never translate on loopback"),
        (
            "-p tcp -m addrtype ! --dst-type LOCAL --limit-iface-out",
            "policies do not support match `addrtype`",
        ),
        (
            "-p tcp -m statistic --mode random --probability 0.5",
            "policies do not support match `statistic`",
        ),
        ("-p icmp --icmp-type 13", "policies do not support `--icmp-type`"),
        ("-p icmp ! --icmp-type 8", "policies do not support `! --icmp-type`"),
        (
            "-p 33",
            "-p: the kernel translates the address of dccp but not its ports: \
             expected tcp, udp, udplite, sctp, icmp or icmpv6",
        ),
        ("-p 50", NO_PROTOCOL),
        ("-p 0132", NO_PROTOCOL),
        ("-p 256", "-p: unknown protocol `256`: expected tcp, udp, udplite, sctp, icmp or icmpv6"),
        ("-p tcp -s 10.0.0.0/33", "-s `10.0.0.0/33`: expected a network like 10.0.0.0/8"),
        ("-p tcp -s localhost", "-s `localhost`: expected a network like 10.0.0.0/8"),
        ("-p udplite", NO_PROTOCOL),
        ("-p all", NO_PROTOCOL),
        ("--sport 1 -p tcp", NO_PROTOCOL),
        ("-p tcp -m udp", "match `udp` requires -p udp: iptables refuses the rule"),
        ("-p tcp -o e*", "-o: `e*`: expected `*` only at the end of a prefix, like wg*"),
        ("-p tcp --sport 5:1", "--sport `5:1`: range 5-1 is reversed: write 1-5"),
        ("-p tcp --sport 0", "--sport `0`: port 0 is not a port: expected 1 to 65535"),
        (
            "-p tcp --sport 5-6",
            "--sport `5-6`: `5-6` is not a port: expected a number from 1 to 65535",
        ),
        (
            "-p tcp --sport http:",
            "--sport `http`: names of services are not looked up: expected the number",
        ),
        (
            "-p tcp ! --sport :",
            "no source ports left to translate: source-ports minus exempt-source-ports is empty",
        ),
        ("-p tcp --sport 1 --sport 2", "`--sport` is given twice: iptables refuses the rule"),
        (
            "-p tcp -s 10.0.0.0/255.0.255.0",
            "-s `10.0.0.0/255.0.255.0`: expected a network like 10.0.0.0/8",
        ),
        (
            "-p tcp ! -d 10.0.0.0/8,192.0.2.0/24",
            "`! -d` accepts one network: iptables refuses the rule",
        ),
        ("-p tcp -6", "`-6` is for the other address family: iptables refuses the rule"),
        ("-p tcp --sports 1", "`--sports` is not understood here: expected an option of iptables"),
        ("-p tcp PORT=1", "`PORT=1` is not understood here: expected an option of iptables"),
        ("-p tcp ! -m tcp", "`!` is not understood here: expected an option of iptables"),
        ("-p tcp -o 'eth0", "a quote is not closed: expected a closing one on the line"),
        ("-p tcp -o $WAN", "`$WAN` is for a shell to replace: expected the value itself"),
    ];
    for (text, expected) in cases {
        assert_eq!(rule("iptables", &format!("{text} -j MASQUERADE --to-ports 9")), expected);
    }
}

#[test]
fn skipped_targets_have_a_reason() {
    let cases = [
        ("-j MASQUERADE --to-ports 0", "--to-ports `0`: port 0 is not a port: expected 1 to 65535"),
        ("-j MASQUERADE --to-ports 9-5", "--to-ports `9-5`: range 9-5 is reversed: write 5-9"),
        (
            "-j MASQUERADE --to-ports 5:9",
            "--to-ports `5:9`: `5:9` is not a port: expected a number from 1 to 65535",
        ),
        ("-j MASQUERADE --to-ports", "`--to-ports` requires a value: iptables refuses the rule"),
        (
            "-j MASQUERADE --to-ports 9 --random --random",
            "`--random` is given twice: iptables refuses the rule",
        ),
        (
            "-j MASQUERADE ! --to-ports 9",
            "`!` is not understood here: expected an option of iptables",
        ),
        (
            "-j MASQUERADE --to-ports 9 --persistent",
            "`--persistent` is not understood here: expected an option of iptables",
        ),
        (
            "-j SNAT --to-source [::1]:9",
            "--to-source `:1]:9`: `:1]:9` is not a port: expected a number from 1 to 65535",
        ),
        (
            "-j SNAT --to-source host:9",
            "--to-source `host:9`: expected an address with ports like 192.0.2.1:1024-2047",
        ),
        (
            "-j MASQUERADE --to-source 192.0.2.1:9",
            "`--to-source` is not understood here: expected an option of iptables",
        ),
        (
            "--random -j MASQUERADE --to-ports 9",
            "`--random` is not understood here: expected an option of iptables",
        ),
        (
            "--random-fully -j MASQUERADE --to-ports 9",
            "`--random-fully` is not understood here: expected an option of iptables",
        ),
        (
            "-g MINE",
            "target `MINE` is no source translation: \
             except from the policies the packets that it keeps from the rules after it",
        ),
        (
            "-j ACCEPT",
            "target `ACCEPT` is no source translation: \
             except from the policies the packets that it keeps from the rules after it",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rule("iptables", &format!("-p tcp {text}")), expected);
    }
    assert_eq!(rule("ip6tables", "-p tcp -j SNAT --to-source ::1"), NO_PORTS);
    assert_eq!(
        rule("ip6tables", "-p tcp -j SNAT --to-source [::1"),
        "--to-source `[::1`: expected an address with ports like [2001:db8::1]:1024-2047"
    );
}

#[test]
fn skipped_commands_have_a_reason() {
    let cases = [
        (
            "iptables -t nat -D POSTROUTING 1",
            "`-D` removes a rule that the lines before it do not add",
        ),
        (
            "iptables -t nat -R POSTROUTING 1 -p tcp -j MASQUERADE --to-ports 9",
            "`-R` removes a rule that the lines before it do not add",
        ),
        (
            "iptables -t nat -F",
            "no source translation: expected -t nat -A POSTROUTING -j MASQUERADE or -j SNAT",
        ),
        (
            "iptables -t nat -A OUT -p tcp -j MASQUERADE --to-ports 9",
            "chain `OUT`: only the rules of POSTROUTING itself can be policies",
        ),
        ("nft list ruleset", "expected an iptables command or a line of iptables-save"),
        ("iptables-restore x", "expected an iptables command or a line of iptables-save"),
        (
            "iptables -A FORWARD -j ACCEPT",
            "no source translation: expected -t nat -A POSTROUTING -j MASQUERADE or -j SNAT",
        ),
        ("iptables -t nat -P POSTROUTING ACCEPT", "`-P` adds no rule"),
    ];
    for (text, expected) in cases {
        let words: Vec<_> = text.split(' ').collect();
        assert_eq!(shown(&Imported::from_args(&words, None)), expected);
    }
}

const DUMP: &str = r#"# Generated by iptables-save v1.8.9 (nf_tables) on Mon Jan 14 20:00:00 2019
*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [12:840]
:DOCKER - [0:0]
[3:180] -A POSTROUTING -s 172.17.0.0/16 -p tcp -m comment --comment "builds" -j MASQUERADE --to-ports 49152-61000
-A POSTROUTING -p udp -m comment --comment "x y" -j MASQUERADE --to-ports 49152-61000 --random
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -p tcp -m comment --comment builds -j SNAT --to-source 192.0.2.1:1024-2047
-A DOCKER -i docker0 -j RETURN
COMMIT
# Completed on Mon Jan 14 20:00:00 2019
# Generated by ip6tables-save v1.8.9 (nf_tables) on Mon Jan 14 20:00:00 2019
*nat
-A POSTROUTING -p tcp -j SNAT --to-source [2001:db8::1]:1024-2047
COMMIT
"#;

#[test]
fn dumps_keep_their_order() {
    let imported = Imported::parse(DUMP, None);
    let policies: Vec<_> = imported
        .policies
        .iter()
        .map(|policy| (policy.name().as_str(), policy.spec().scope.families, policy.spec().address))
        .collect();
    let fixed = |text: &str| Address::Fixed(text.parse().unwrap());
    assert_eq!(
        policies,
        [
            ("builds", Families::Ipv4, Address::Masquerade),
            ("imported-1", Families::Ipv4, Address::Masquerade),
            ("imported-2", Families::Ipv4, fixed("192.0.2.1")),
            ("imported-3", Families::Ipv6, fixed("2001:db8::1")),
        ]
    );
    let random = NatFlags { random: true, ..NatFlags::default() };
    assert_eq!(imported.policies[1].spec().flags, random);
    let skipped: Vec<_> = imported.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(
        skipped,
        ["line 11: no ports: expected --to-ports, or --to-source with ports: \
         `-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE`; \
         it wins over imported-2 in iptables, not over the policies"]
    );
    assert!(imported.document().is_ok());
}

/// `iptables -t nat -S` prints no table.
#[test]
fn unterminated_counters_are_errors() {
    let dump = "*nat\n[5:6 -A POSTROUTING -p tcp -j MASQUERADE --to-ports 9\nCOMMIT\n";
    let shown = shown(&Imported::parse(dump, None));
    assert_eq!(shown, "`[5:6` is not understood here: expected an option of iptables");
}

#[test]
fn other_chains_are_skipped() {
    for text in ["iptables -t nat -D DOCKER 1", "iptables -D DOCKER 1 -t nat"] {
        let imported = Imported::parse(text, None);
        assert!(imported.policies.is_empty() && imported.skipped.is_empty(), "{imported:?}");
    }
}

#[test]
fn rules_without_a_table_are_of_nat() {
    let imported = Imported::parse(
        "-P POSTROUTING ACCEPT\n-A POSTROUTING -p tcp -j MASQUERADE --to-ports 9\n",
        None,
    );
    assert_eq!((imported.policies.len(), imported.skipped.len()), (1, 0));
}

#[test]
fn commands_insert_at_their_chain_position() {
    let commands = [
        "#!/bin/sh",
        "iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 1 # last but one",
        "iptables -t nat -I POSTROUTING -p tcp \\",
        "    -j MASQUERADE --to-ports 2",
        "iptables -t nat -I POSTROUTING -j ACCEPT",
        "/sbin/iptables -t nat -I POSTROUTING 2 -p tcp -j MASQUERADE --to-ports 3",
        "iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 4",
        "iptables -t nat -I POSTROUTING 99 -p tcp -j MASQUERADE --to-ports 5",
        "ip6tables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 6",
    ];
    let imported = Imported::parse(commands.join("\n"), None);
    let targets = imported.policies.iter().map(|policy| match &policy.spec().target {
        Target::Ports(ports) => ports.to_string(),
        target => format!("{target:?}"),
    });
    assert_eq!(targets.collect::<Vec<_>>(), ["3", "2", "1", "4", "5", "6"]);
    assert_eq!(imported.skipped.iter().map(|left| left.line).collect::<Vec<_>>(), [5]);
}

fn words() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "iptables",
        "ip6tables",
        "sudo",
        "-t",
        "nat",
        "-A",
        "-I",
        "-D",
        "POSTROUTING",
        "-p",
        "tcp",
        "udp",
        "-m",
        "multiport",
        "comment",
        "--comment",
        "\"x y\"",
        "--sport",
        "--sports",
        "1:5",
        "32768:61000",
        "-s",
        "-d",
        "10.0.0.0/8",
        "!",
        "-o",
        "wg+",
        "lo",
        "-j",
        "MASQUERADE",
        "SNAT",
        "--to-ports",
        "--to-source",
        "1024-2047",
        "192.0.2.1:1-9",
        "[::1]:9",
        "--random",
        "*nat",
        "COMMIT",
        "[0:0]",
        "\n",
        "\\\n",
        "-w",
        "-c",
        "--to=9",
        "-4",
        "-6",
        "#",
    ]);
    prop_oneof![8 => known.prop_map(String::from), 1 => "[ -~é]{0,6}", 1 => any::<String>()]
}

proptest! {
    #[test]
    fn reading_never_panics(words in prop::collection::vec(words(), 0..40)) {
        let imported = Imported::parse(words.join(" "), None);
        if !imported.policies.is_empty() {
            prop_assert!(imported.document().is_ok());
        }
        let imported = Imported::from_args(&words, None);
        prop_assert_eq!(imported.policies.len() + imported.skipped.len(), 1);
    }

    #[test]
    fn reading_any_text_never_panics(text in any::<String>()) {
        let _ = Imported::parse(&text, None);
    }

    #[test]
    fn ranges_come_through(sport in crate::strategies::port_ranges(), to in crate::strategies::port_ranges()) {
        let (first, last) = (sport.first(), sport.last());
        let text = format!("-p tcp --sport {first}:{last} -j MASQUERADE --to-ports {to}");
        let imported = Imported::parse(format!("iptables -t nat -A POSTROUTING {text}"), None);
        let policy = &imported.policies[0];
        prop_assert_eq!(&policy.spec().source_ports, &sport.into());
        let to: PortRange = to;
        prop_assert_eq!(&policy.spec().target, &Target::Ports(to.into()));
    }
}

/// The reason for which a rule is skipped.
fn reason(rule: &str) -> SkipReason {
    let text = format!("iptables -t nat {rule} -j MASQUERADE --to-ports 9");
    Imported::parse(&text, None).skipped.remove(0).reason
}

#[test]
fn reasons_have_their_kind() {
    let invalid = |rule: &str| match reason(rule) {
        SkipReason::Invalid(invalid) => invalid,
        other => panic!("{rule}: {other:?}"),
    };
    let rule = |rule: &str| format!("-A POSTROUTING -p tcp {rule}");
    assert_eq!(invalid("-A POSTROUTING ! -p all"), Invalid::NegatedAll { option: "-p" });
    let both = invalid(&rule("--syn --tcp-flags SYN SYN"));
    assert_eq!(both, Invalid::Excluded { option: "--tcp-flags" });
    assert!(matches!(
        invalid(&rule("-o sixteen-letters-")),
        Invalid::Interface { option: "-o", .. }
    ));
    let many: Vec<_> = (1..=16).map(|port| port.to_string()).collect();
    let many = invalid(&rule(&format!("-m multiport --sports {}", many.join(","))));
    assert_eq!(many, Invalid::TooManyPorts { option: "--sports" });
    let replaced =
        "-A POSTROUTING -j LOG\niptables -t nat -R POSTROUTING 1 -s 10.0.0.1,10.0.0.2 -p tcp";
    assert_eq!(invalid(replaced), Invalid::SeveralRules { option: "-R" });
    assert_eq!(invalid("-I POSTROUTING 0 -p tcp"), Invalid::RuleNumber { word: "0".into() });
    let mark = invalid(&rule("-m mark --mark 4294967296"));
    assert!(matches!(mark, Invalid::Mark { option: "--mark", .. }), "{mark:?}");

    let unsupported = |rule: &str| match reason(rule) {
        SkipReason::Unsupported(unsupported) => unsupported,
        other => panic!("{rule}: {other:?}"),
    };
    let mark = unsupported(&rule("-m mark --mark 2/1"));
    assert!(matches!(mark, Unsupported::Mark { option: "--mark", .. }), "{mark:?}");
    let ports = unsupported(&rule("--sport 0"));
    assert!(matches!(ports, Unsupported::Ports { option: "--sport", .. }), "{ports:?}");
    let not_utf8 = unsupported(&rule("-o \u{fffd}"));
    assert_eq!(not_utf8, Unsupported::NotUtf8 { option: "-o" });
    let networks: Vec<_> = (0..=256).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    let networks = networks.join(",");
    let many = unsupported(&rule(&format!("-s {networks} -d {networks}")));
    assert!(matches!(many, Unsupported::TooManyRules { .. }), "{many:?}");

    let add = "-A POSTROUTING -p tcp -j MASQUERADE --to-ports 9";
    let text = format!("iptables -t nat {add}\niptables -t nat {}", add.replace("-A", "-D"));
    let reasons: Vec<_> =
        Imported::parse(text, None).skipped.into_iter().map(|s| s.reason).collect();
    assert_eq!(
        reasons,
        [
            NotInstalled::Removed { by: 2 }.into(),
            NotInstalled::Removes { option: "-D", line: 1 }.into(),
        ]
    );
}

/// `--pol` without the match `policy` begins `--policy`.
#[test]
fn second_command_is_refused() {
    let command = reason("-A POSTROUTING -p tcp --pol none");
    assert!(matches!(command, SkipReason::Invalid(Invalid::Excluded { .. })), "{command:?}");
}
