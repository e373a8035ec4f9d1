use proptest::prelude::*;

use super::*;
use crate::net::port::PortRange;
use crate::policy::scope::{Families, OutInterfaces, Scope};
use crate::policy::selection::NatFlags;
use crate::policy::{Address, PickUp, Target};

/// What a rule says, less what every rule says; or why it is no policy.
fn told(imported: &Imported) -> String {
    let [policy] = imported.policies.as_slice() else {
        let [left_out] = imported.left_out.as_slice() else { return format!("{imported:?}") };
        return left_out.reason.to_string();
    };
    assert_eq!((policy.spec().pick_up, imported.left_out.len()), (PickUp::Any, 0));
    let toml = Document::from(policy.clone()).to_toml();
    let usual = ["[[policy]]", "name", "out-interfaces = \"any\"", "families", "pick-up"];
    let usual = |line: &&str| {
        *line != "source-ports = \"1-65535\"" && !usual.iter().any(|usual| line.starts_with(usual))
    };
    toml.lines().filter(usual).collect::<Vec<_>>().join("; ").replace('"', "")
}

fn rule(program: &str, rule: &str) -> String {
    told(&Imported::of_text(&format!("{program} -t nat -A POSTROUTING {rule}")))
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
            protocols: "tcp".parse().unwrap(),
            ..Scope::default()
        },
        source_ports: "32768-61000".parse().unwrap(),
        pick_up: PickUp::Any,
        ..PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()))
    });
    let expected = Imported { policies: vec![expected.unwrap()], left_out: Vec::new() };
    assert_eq!(Imported::of_text(text), expected);
    assert_eq!(Imported::of_text(&format!("$ {text}")), expected);
    let words: Vec<_> = text.split(' ').collect();
    assert_eq!(Imported::of_command(&words), expected);
    assert_eq!(Imported::of_command(&words[2..]), expected);
    assert_eq!(
        Imported::of_command(&[&["/usr/sbin/iptables-nft", "-w"], &words[2..]].concat()),
        expected
    );
}

const NO_PORTS: &str = "no ports: nothing for ephport to say";
const NO_PROTOCOL: &str =
    "ports need -p tcp, udp or sctp before them: iptables refuses the rule as it stands";
const RANGE: &str = "a policy cannot say a range of addresses: expected one --to-source";
const TWO_SOURCES: &str = "`--to-source` is given twice: iptables refuses the rule as it stands";
const NO_SOURCE: &str = "SNAT needs --to-source: iptables refuses the rule as it stands";

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
            "--to-ports `-1`: `` is not a port: expected a number from 1 to 65535",
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

/// What iptables 1.8.9 takes, as its iptables-save prints it back.
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
        let told = rule("ip6tables", &format!("-p tcp -j SNAT --to-source {text}"));
        assert_eq!(told, format!("protocols = [tcp]; {expected}"));
    }
    assert_eq!(
        rule("ip6tables-legacy", "-s 2001:db8::1/ffff:: -p tcp -j MASQUERADE --to-ports 9"),
        "protocols = [tcp]; sources = [2001::/16]; to-ports = 9"
    );
}

#[test]
fn every_refusal_of_a_match_says_why() {
    let cases = [
        ("-p tcp -d 192.0.2.1", "a policy cannot say `-d`"),
        ("-p tcp ! -s 192.0.2.1", "a policy cannot say `! -s`"),
        ("-p tcp ! -o eth0", "a policy cannot say `! -o`"),
        ("! -p tcp", "a policy cannot say `! -p`"),
        ("-p tcp --dport 80", "a policy cannot say `--dport`"),
        ("-p tcp -f", "a policy cannot say `-f`"),
        ("-p tcp -o lo", "a policy never touches loopback"),
        (
            "-p tcp -m addrtype ! --dst-type LOCAL --limit-iface-out",
            "a policy cannot say match `addrtype`",
        ),
        (
            "-p tcp -m statistic --mode random --probability 0.5",
            "a policy cannot say match `statistic`",
        ),
        ("-p icmp", "-p: icmp has no ports to translate: expected tcp, udp, udplite or sctp"),
        (
            "-p 33",
            "-p: the kernel translates the address of dccp but not its ports: \
             expected tcp, udp, udplite or sctp",
        ),
        ("-p 50", "-p: unknown protocol `50`: expected tcp, udp, udplite or sctp"),
        ("-p 0132", "-p: unknown protocol `0132`: expected tcp, udp, udplite or sctp"),
        ("-p tcp -s 10.0.0.0/010", "-s `10.0.0.0/010`: expected a network like 10.0.0.0/8"),
        ("-p tcp -s localhost", "-s `localhost`: expected a network like 10.0.0.0/8"),
        ("-p udplite", NO_PROTOCOL),
        ("-p all", NO_PROTOCOL),
        ("--sport 1 -p tcp", NO_PROTOCOL),
        ("-p tcp -m udp", "match `udp` needs -p udp: iptables refuses the rule as it stands"),
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
        (
            "-p tcp --sport 1 --sport 2",
            "`--sport` is given twice: iptables refuses the rule as it stands",
        ),
        (
            "-p tcp -s 10.0.0.0/255.0.255.0",
            "-s `10.0.0.0/255.0.255.0`: expected a network like 10.0.0.0/8",
        ),
        (
            "-p tcp ! -d 10.0.0.0/8,192.0.2.0/24",
            "`! -d` takes one network: iptables refuses the rule as it stands",
        ),
        (
            "-p tcp -6",
            "`-6` is for the other address family: iptables refuses the rule as it stands",
        ),
        ("-p tcp --sports 1", "`--sports` is not understood here: expected an option of iptables"),
        ("-p tcp PORT=1", "`PORT=1` is not understood here: expected an option of iptables"),
        ("-p tcp && x", "`&&` is not understood here: expected an option of iptables"),
        ("-p tcp ! -m tcp", "`!` is not understood here: expected an option of iptables"),
        ("-p tcp -o 'eth0", "a quote is not closed: expected a closing one on the line"),
        ("-p tcp -o $WAN", "`$WAN` is for a shell to replace: expected the value itself"),
    ];
    for (text, expected) in cases {
        assert_eq!(rule("iptables", &format!("{text} -j MASQUERADE --to-ports 9")), expected);
    }
}

#[test]
fn every_refusal_of_a_target_says_why() {
    let cases = [
        ("-j MASQUERADE --to-ports 0", "--to-ports `0`: port 0 is not a port: expected 1 to 65535"),
        ("-j MASQUERADE --to-ports 9-5", "--to-ports `9-5`: range 9-5 is reversed: write 5-9"),
        (
            "-j MASQUERADE --to-ports 5:9",
            "--to-ports `5:9`: `5:9` is not a port: expected a number from 1 to 65535",
        ),
        (
            "-j MASQUERADE --to-ports",
            "`--to-ports` needs a value: iptables refuses the rule as it stands",
        ),
        (
            "-j MASQUERADE --to-ports 9 --random --random",
            "`--random` is given twice: iptables refuses the rule as it stands",
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
             see to it that the policies leave alone what it takes from the rules behind it",
        ),
        (
            "-j ACCEPT",
            "target `ACCEPT` is no source translation: \
             see to it that the policies leave alone what it takes from the rules behind it",
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
fn every_refusal_of_a_command_says_why() {
    let cases = [
        ("iptables -t nat -D POSTROUTING 1", "`-D` takes rules away: only -A and -I are followed"),
        (
            "iptables -t nat -R POSTROUTING 1 -p tcp -j MASQUERADE --to-ports 9",
            "`-R` takes rules away: only -A and -I are followed",
        ),
        ("iptables -t nat -F", "`-F` takes rules away: only -A and -I are followed"),
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
        (
            "iptables -t nat -P POSTROUTING ACCEPT",
            "no source translation: expected -t nat -A POSTROUTING -j MASQUERADE or -j SNAT",
        ),
    ];
    for (text, expected) in cases {
        let words: Vec<_> = text.split(' ').collect();
        assert_eq!(told(&Imported::of_command(&words)), expected);
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
    let imported = Imported::of_text(DUMP);
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
    let left_out: Vec<_> = imported.left_out.iter().map(ToString::to_string).collect();
    assert_eq!(
        left_out,
        ["line 11: no ports: nothing for ephport to say: \
         `-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE`"]
    );
    assert!(imported.document().is_ok());
}

/// `iptables -t nat -S` prints no table.
#[test]
fn counters_that_do_not_end_are_not_passed_over() {
    let dump = "*nat\n[5:6 -A POSTROUTING -p tcp -j MASQUERADE --to-ports 9\nCOMMIT\n";
    let told = told(&Imported::of_text(dump));
    assert_eq!(told, "`[5:6` is not understood here: expected an option of iptables");
}

#[test]
fn what_is_done_to_other_chains_is_passed_over() {
    for text in ["iptables -t nat -D DOCKER 1", "iptables -D DOCKER 1 -t nat"] {
        let imported = Imported::of_text(text);
        assert!(imported.policies.is_empty() && imported.left_out.is_empty(), "{imported:?}");
    }
}

#[test]
fn rules_without_a_table_are_of_nat() {
    let imported = Imported::of_text(
        "-P POSTROUTING ACCEPT\n-A POSTROUTING -p tcp -j MASQUERADE --to-ports 9\n",
    );
    assert_eq!((imported.policies.len(), imported.left_out.len()), (1, 0));
}

#[test]
fn commands_are_put_where_they_go_in_the_chain() {
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
    let imported = Imported::of_text(&commands.join("\n"));
    let targets = imported.policies.iter().map(|policy| match &policy.spec().target {
        Target::Ports(ports) => ports.to_string(),
        target => format!("{target:?}"),
    });
    assert_eq!(targets.collect::<Vec<_>>(), ["3", "2", "1", "4", "5", "6"]);
    assert_eq!(imported.left_out.iter().map(|left| left.line).collect::<Vec<_>>(), [5]);
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
        let imported = Imported::of_text(&words.join(" "));
        if !imported.policies.is_empty() {
            prop_assert!(imported.document().is_ok());
        }
        let imported = Imported::of_command(&words);
        prop_assert_eq!(imported.policies.len() + imported.left_out.len(), 1);
    }

    #[test]
    fn reading_any_text_never_panics(text in any::<String>()) {
        let _ = Imported::of_text(&text);
    }

    #[test]
    fn ranges_come_through(sport in crate::strategies::port_ranges(), to in crate::strategies::port_ranges()) {
        let (first, last) = (sport.first(), sport.last());
        let text = format!("-p tcp --sport {first}:{last} -j MASQUERADE --to-ports {to}");
        let imported = Imported::of_text(&format!("iptables -t nat -A POSTROUTING {text}"));
        let policy = &imported.policies[0];
        prop_assert_eq!(&policy.spec().source_ports, &sport.into());
        let to: PortRange = to;
        prop_assert_eq!(&policy.spec().target, &Target::Ports(to.into()));
    }
}
