//! Everything else in the kernel's tables is, byte for byte, as it was: handles, counters, order.
//! The test `docker` proves the same for what a Docker engine makes there.

use std::thread;

use ephport_nft::{Applied, Client};
use ephport_tests::random::samples;
use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::{Host, apply, compiled};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const RULESETS: usize = 200;
const THREADS: usize = 4;

const POLICIES: [&str; 2] = [
    "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"49152-61000\"\n",
    "[[policy]]\nname = \"b\"\nout-interfaces = [\"eth*\"]\nto-ports = \"2000-2999,4000-4999\"\n\
     enforce = true\n",
];

/// What a table of this family may contain beside its chains.
const OBJECTS: [&str; 9] = [
    "comment \"not ours\"",
    "set ports { type inet_service; flags interval; elements = { 22, 80-90, 1024-65535 }; }",
    "set marks { type mark; flags dynamic,timeout; timeout 1h; size 99; comment \"kept\"; }",
    "map verdicts { type inet_service : verdict; elements = { 53 : accept, 69 : drop }; }",
    "map next { type mark : inet_service; elements = { 1 : 1000, 2 : 2000 }; }",
    "counter seen { packets 7 bytes 700 }",
    "quota most { over 25 mbytes used 3 kbytes }",
    "limit rare { rate 5/minute burst 3 packets }",
    "chain lost { counter packets 3 bytes 30 drop comment \"nobody comes here\"; }",
];

/// Rules for every family with ports.
const RULES: [&str; 9] = [
    "counter packets 11 bytes 1100 comment \"first\"",
    "meta l4proto tcp counter packets 1 bytes 40 accept",
    "meta mark 0x7 limit rate over 10/second burst 5 packets drop",
    "quota over 100 mbytes used 2 kbytes counter",
    "tcp dport { 22, 80, 443 } counter packets 2 bytes 80",
    "udp dport vmap { 53 : accept, 69 : drop }",
    "iifname \"eth*\" ct state established,related accept",
    "meta mark set numgen random mod 16 offset 4",
    "tcp dport 1024-2047 log prefix \"seen \" level info",
];

/// Base chains: their type, hook and priority, and a rule that only they can have.
const CHAINS: [(&str, &str); 5] = [
    ("filter hook input priority 0", "ct state invalid counter drop"),
    ("filter hook forward priority -5", "oifname \"wg0\" accept"),
    ("filter hook postrouting priority 110", "tcp sport 1-1023 counter"),
    (
        "nat hook postrouting priority 100",
        "oifname \"eth9\" meta l4proto tcp masquerade to :1024-2048 random",
    ),
    ("nat hook prerouting priority -100", "tcp dport 8080 redirect to :80"),
];

/// A table in the text of nft, by the number that makes its name.
fn tables() -> impl Strategy<Value = String> {
    let chain = (select(CHAINS.to_vec()), subsequence(RULES.to_vec(), 0..=RULES.len()));
    let objects = subsequence(OBJECTS.to_vec(), 0..=OBJECTS.len());
    let families = select(vec!["ip", "ip6", "inet"]);
    (families, objects, vec(chain, 0..4), any::<u16>()).prop_map(
        |(family, objects, chains, number)| {
            let chains = chains.iter().enumerate().map(|(i, ((kind, own), rules))| {
                let rules = rules.join("\n  ");
                format!(" chain c{i} {{\n  type {kind}; policy accept;\n  {rules}\n  {own}\n }}\n")
            });
            let chains: String = chains.collect();
            format!("table {family} t{number} {{\n {}\n{chains}}}\n", objects.join("\n "))
        },
    )
}

/// What a tool prints; on standard error it may warn of tables that iptables made.
fn listed(host: &Host, line: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    let printed = tool(host, program, &words.collect::<Vec<_>>(), "");
    assert!(printed.success, "{line}: {printed:?}");
    printed.out
}

/// What nft lists, in both of its forms, without our table.
fn others(host: &Host) -> (String, Vec<serde_json::Value>) {
    let text = listed(host, "nft -a list ruleset");
    let mut is_ours = false;
    let theirs = text.split_inclusive('\n').filter(|line| {
        is_ours |= line.starts_with("table inet ephport {");
        let was_ours = is_ours;
        is_ours &= *line != "}\n";
        !was_ours
    });
    let json: serde_json::Value =
        serde_json::from_str(&listed(host, "nft -j list ruleset")).expect("JSON");
    let objects = json["nftables"].as_array().expect("objects").iter().filter(|object| {
        let object = object.as_object().and_then(|object| object.values().next());
        let named = |key| object.is_some_and(|object| object[key] == "ephport");
        !named("table") && !named("name")
    });
    (theirs.collect(), objects.cloned().collect())
}

/// Installs, changes and removes; `look` sees the same before and after each of them.
fn assert_untouched<T: PartialEq + std::fmt::Debug>(host: &Host, look: impl Fn() -> T) {
    let before = look();
    for (policy, expected) in POLICIES.iter().zip([Applied::Installed, Applied::Updated]) {
        assert_eq!(apply(host, &compiled(policy)), expected);
        assert_eq!(look(), before, "{expected:?}");
    }
    assert_eq!(host.run(|| Client::open().and_then(|mut nft| nft.remove())), Ok(true));
    assert_eq!(look(), before, "removed");
}

#[test]
fn two_hundred_random_rulesets_of_others_are_untouched() {
    let rulesets = samples(&vec(tables(), 1..4), RULESETS);
    let total: usize = rulesets.iter().flatten().map(String::len).sum();
    assert!(total > 100_000, "{total} bytes are too few");
    thread::scope(|scope| {
        for share in rulesets.chunks(RULESETS / THREADS) {
            scope.spawn(move || {
                let host = Host::new("host").unwrap();
                for tables in share {
                    nft_load(&host, &format!("flush ruleset\n{}", tables.concat()));
                    assert_untouched(&host, || others(&host));
                }
            });
        }
    });
}

#[test]
fn iptables_rules_are_untouched() {
    let host = Host::new("host").unwrap();
    for rule in [
        "-t nat -A POSTROUTING -o eth9 -p tcp -j MASQUERADE --to-ports 1024-2048",
        "-t nat -N OTHERS",
        "-t filter -A FORWARD -p udp --dport 53 -m limit --limit 5/min -j ACCEPT",
        "-t mangle -A POSTROUTING -m comment --comment kept -j MARK --set-mark 7",
    ] {
        for program in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
            ok(&host, &format!("{program} {rule}"));
        }
    }
    let saved = |program| {
        let saved = listed(&host, &format!("{program} -c"));
        assert!(saved.contains("--to-ports 1024-2048"), "{saved}");
        saved.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    };
    let programs = [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
    ];
    assert_untouched(&host, || (programs.map(saved), others(&host)));
}
