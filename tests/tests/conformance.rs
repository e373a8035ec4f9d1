//! Rulesets that nft loads, read back and compared with what a policy means (`ephport_testkit::conformance`).

use ephport_core::strategies::flows;
use ephport_core::{Address, Flow, HostFacts, Policy, PortRange};
use ephport_nft::netlink::Socket;
use ephport_nft::uapi::NFPROTO_INET;
use ephport_nft::{Plan, TableState};
use ephport_testkit::conformance::{Difference, difference, read};
use ephport_tests::Host;
use ephport_tests::random::samples;
use ephport_tests::tool::tool;

/// The policy in the words of an administrator, with a set of ports.
const WRITTEN: &str = r#"
table inet mine {
    set ephemeral { type inet_service; flags interval; elements = { 1024-65535 } }
    chain translate {
        udp sport @ephemeral masquerade to :49152-61000
    }
    chain out { type nat hook postrouting priority srcnat; policy accept;
        fib daddr type { broadcast, multicast } return
        fib daddr . oif type broadcast return
        iif 0 fib saddr type != local return
        rt ipsec exists return
        oifname "eth0" meta l4proto udp jump translate
    }
}
"#;

fn plan() -> Plan {
    let range: PortRange = "49152-61000".parse().unwrap();
    let policy = Policy::to(range).out(["eth0"]).protocols(["udp"]).address(Address::Masquerade);
    Plan::new(&[policy.build().unwrap()], &HostFacts::default()).unwrap()
}

/// The table that nft makes of a text, as the kernel has it.
fn loaded(text: &str) -> TableState {
    let host = Host::new("host").expect("a host");
    let printed = tool(&host, "nft", &["-f", "-"], text);
    assert!(printed.success, "{printed:?}");
    let socket = host.run(Socket::netfilter).expect("a socket");
    read(socket, NFPROTO_INET, "mine").expect("read").expect("a table")
}

fn udp_flows() -> Vec<Flow> {
    let near: Flow = "udp 10.0.0.7:20000 -> 203.0.113.9:53 oif eth0".parse().unwrap();
    let privileged: Flow = "udp 10.0.0.7:123 -> 203.0.113.9:123 oif eth0".parse().unwrap();
    let multicast: Flow = "udp 10.0.0.7:20000 -> 224.0.0.251:5353 oif eth0".parse().unwrap();
    [near, privileged, multicast].into_iter().chain(samples(&flows(), 500)).collect()
}

/// The connections that are translated otherwise, or the first error.
fn differences(table: &TableState) -> Result<Vec<Difference>, String> {
    let plan = plan();
    let all = udp_flows().into_iter().map(|flow| difference(table, &plan, &flow));
    let all: Result<Vec<_>, _> = all.collect();
    all.map(|all| all.into_iter().flatten().collect()).map_err(|error| error.to_string())
}

#[test]
fn rules_that_an_administrator_wrote_conform() {
    assert_eq!(differences(&loaded(WRITTEN)), Ok(vec![]));
}

#[test]
fn each_difference_names_its_connection() {
    let narrow = loaded(&WRITTEN.replace("61000", "60999"));
    let found = differences(&narrow).unwrap();
    assert!(found[0].to_string().contains("found ports 49152-60999"), "{}", found[0]);
    let privileged = loaded(&WRITTEN.replace("1024-65535", "1-65535"));
    let found = differences(&privileged).unwrap();
    assert!(found[0].to_string().starts_with("udp 10.0.0.7:123 -> "), "{}", found[0]);
    let everywhere = loaded(&WRITTEN.replace("fib daddr type { broadcast, multicast } return", ""));
    let found = differences(&everywhere).unwrap();
    assert!(found[0].to_string().contains("-> 224.0.0.251:5353"), "{}", found[0]);
}

#[test]
fn a_dropping_chain_is_a_difference() {
    let drop = "table inet mine {\nchain gate {\ntype filter hook postrouting priority 200;\n\
                udp sport 49152 drop\n}\n}\n";
    let found = differences(&loaded(&format!("{WRITTEN}{drop}"))).unwrap();
    assert!(
        found[0].to_string().ends_with("by port 49152: dropped, expected to be sent"),
        "{}",
        found[0]
    );
}

#[test]
fn rules_that_are_not_expressed_are_named() {
    let limited = WRITTEN.replace("oifname \"eth0\"", "limit rate 9/second oifname \"eth0\"");
    let error = differences(&loaded(&limited)).unwrap_err();
    let expected = "table mine: rule 4 of chain out has an expression that cannot be interpreted: ";
    assert!(error.starts_with(expected), "{error}");
}
