//! `doctor`: each finding with its cause on a host, and none without it. It changes nothing.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use ephport_cli::Exit;
use ephport_core::{Document, HostFacts};
use ephport_nft::doctor::{Finding, Observed, findings};
use ephport_nft::{Client, Plan, host};
use ephport_tests::conntrack::{Entry, insert};
use ephport_tests::tool::{binary, is_able, nft_load, ok, tool};
use ephport_tests::{
    Host, PolicyFile, Protocol, Server, connect_within, ephport, ephport_ok, host_with_uplink,
};
use serde_json::Value;

/// The document of `doctor` with these arguments.
fn examined(host: &Host, line: &str) -> Value {
    let ended = ephport(host, &format!("doctor --json {line}"));
    assert!(matches!(ended.exit, Exit::Success | Exit::Differs), "{}", ended.err);
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    let is_clean = document["findings"].as_array().unwrap().is_empty();
    assert_eq!(ended.exit == Exit::Success, is_clean, "{document}");
    document
}

/// The kinds of the findings.
fn kinds(host: &Host, line: &str) -> Vec<String> {
    let document = examined(host, line);
    let findings = document["findings"].as_array().unwrap();
    for finding in findings {
        assert_ne!(finding["fix"], "see docs/policy.md", "{finding}");
    }
    findings.iter().map(|finding| finding["kind"].as_str().unwrap().into()).collect()
}

/// Flags of a policy that is installed on a host without findings.
const CLEAN: &str = "--to-ports 49152-61000 --except-destination 10.0.0.0/8";

fn clean() -> (Host, Host) {
    let (host, peer) = host_with_uplink();
    ephport_ok(&host, &format!("apply {CLEAN}"));
    assert_eq!(kinds(&host, CLEAN), [""; 0]);
    (host, peer)
}

/// The findings of these flags on a host with such a cause, after the policy is applied there.
#[track_caller]
fn assert_found(host: &Host, flags: &str, expected: &[&str]) {
    ephport_ok(host, &format!("apply {flags}"));
    assert_eq!(kinds(host, flags), expected, "{flags}");
}

#[test]
fn host_without_findings_is_clean_and_unchanged() {
    let (host, _peer) = clean();
    let before = ok(&host, "nft list ruleset");
    let ended = ephport(&host, &format!("doctor {CLEAN}"));
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""));
    assert!(ended.out.ends_with("\nno findings\n"), "{}", ended.out);
    assert!(ended.out.lines().all(|line| line.len() <= 80), "{}", ended.out);
    let (lines, uplinks) = (ended.out.lines().count(), "  uplinks     eth0\n");
    assert!(lines < 15 && ended.out.contains(uplinks), "{}", ended.out);
    assert!(ended.out.contains("NAT chains  90 inet ephport postrouting\n"), "{}", ended.out);
    assert_eq!(ok(&host, "nft list ruleset"), before);
    // Without a policy, on a host that has none.
    let empty = Host::new("host").unwrap();
    assert_eq!(kinds(&empty, ""), [""; 0]);
    assert_eq!(ok(&empty, "nft list ruleset"), "");
}

#[test]
fn state_of_the_table_is_found() {
    let (host, peer) = host_with_uplink();
    assert_eq!(kinds(&host, CLEAN), ["not-installed"]);
    ephport_ok(&host, "apply --to-ports 2000-2999");
    assert_eq!(kinds(&host, CLEAN), ["not-installed"]);
    ephport_ok(&host, &format!("apply {CLEAN}"));
    // Another uplink than it was applied for.
    host.link("eth1", &peer, "eth1").unwrap();
    host.address("eth1", "198.51.100.2/24").unwrap();
    ok(&host, "ip route add default via 198.51.100.1 metric 7");
    assert_eq!(kinds(&host, ""), ["outdated"]);
    ephport_ok(&host, &format!("apply {CLEAN}"));
    ok(&host, "nft add rule inet ephport postrouting accept");
    assert_eq!(kinds(&host, CLEAN), ["drifted"]);
    ephport_ok(&host, "remove");
    nft_load(&host, "table inet ephport {\n}");
    assert_eq!(kinds(&host, CLEAN), ["foreign"]);
    let (host, _peer) = clean();
    ok(&host, "ip route del default");
    assert_eq!(kinds(&host, CLEAN), ["no-uplink", "outdated"]);
}

#[test]
fn rules_of_other_tables_are_found() {
    let (host, _peer) = clean();
    nft_load(
        &host,
        "table ip early {\n chain c {\n type nat hook postrouting priority 50; masquerade\n }\n}",
    );
    assert_eq!(kinds(&host, CLEAN), ["earlier-nat"]);
    let document = examined(&host, CLEAN);
    let chains: Vec<_> = document["nat_chains"].as_array().unwrap().iter().collect();
    assert_eq!(
        (chains[0]["table"].as_str(), chains[0]["priority"].as_i64()),
        (Some("early"), Some(50))
    );
    assert_eq!(chains[1]["table"], "ephport");
    ok(&host, "nft delete table ip early");
    nft_load(
        &host,
        "table ip raw {\n chain c {\n type filter hook prerouting priority -300; notrack\n }\n}",
    );
    assert_eq!(kinds(&host, CLEAN), ["notrack"]);
    ok(&host, "nft delete table ip raw");
    nft_load(
        &host,
        "table ip late {\n chain c {\n type filter hook postrouting priority 200; \
         udp dport 53 udp sport set 9\n }\n}",
    );
    assert_eq!(kinds(&host, CLEAN), ["later-ports"]);
}

#[test]
fn ports_that_something_else_needs_are_found() {
    let (host, _peer) = clean();
    host.sysctl("net/ipv4/ip_local_reserved_ports", "50000-50009").unwrap();
    assert_eq!(kinds(&host, CLEAN), ["reserved-ports"]);
    let excepted = format!("{CLEAN} --except-ports 50000-50009");
    assert_found(&host, &excepted, &[]);
    // Kubernetes' rules, of either kind.
    let wide = "--to-ports 20000-49999";
    assert_found(&host, wide, &[]);
    for (add, table) in [
        ("table ip nat {\n chain KUBE-SERVICES {\n }\n}", "ip nat"),
        ("table ip kube-proxy {\n chain services {\n }\n}", "ip kube-proxy"),
    ] {
        nft_load(&host, add);
        assert_eq!(kinds(&host, wide), ["node-ports"]);
        assert_found(&host, &format!("{wide} --except-ports 30000-32767"), &[]);
        ok(&host, &format!("nft delete table {table}"));
        ephport_ok(&host, &format!("apply {wide}"));
    }
    let any = Ipv4Addr::UNSPECIFIED;
    let _sip = host.run(|| UdpSocket::bind((any, 5060))).unwrap();
    assert_eq!(kinds(&host, wide), ["fixed-ports"]);
    assert_found(&host, &format!("{wide} --exempt-sport 5060"), &[]);
    assert_found(&host, &format!("{wide} --origin forwarded"), &[]);
    let _wireguard = host.run(|| UdpSocket::bind((any, 51820))).unwrap();
    assert_found(&host, &format!("{wide} --exempt-sport 5060"), &["server-port"]);
}

#[test]
fn uplink_of_another_table_is_found() {
    let (host, peer) = clean();
    host.link("wg0", &peer, "wg0").unwrap();
    host.address("wg0", "198.51.100.2/24").unwrap();
    ok(&host, "ip route add default dev wg0 table 51820");
    assert_found(&host, CLEAN, &["other-uplink"]);
    let document = examined(&host, CLEAN);
    let message = document["findings"][0]["message"].as_str().unwrap();
    assert!(message.contains("wg0") && message.contains("table 51820"), "{message}");
    assert_found(&host, &format!("{CLEAN} -o eth0"), &[]);
}

#[test]
fn warnings_of_policies_are_found() {
    let (host, _peer) = host_with_uplink();
    for (flags, expected) in [
        ("--to-ports 49152-61000 -o absent0", "no-interface"),
        ("--to-ports 49152-61000 -o eth0 --address 203.0.113.77", "no-address"),
        ("--to-ports 49152-61000 --per-source-stable", "no-effect"),
    ] {
        assert_found(&host, flags, &[expected]);
    }
    let policy = |name| format!("[[policy]]\nname = \"{name}\"\nto-ports = \"40000-49999\"\n");
    let file = PolicyFile::new(&format!("{}{}", policy("a"), policy("b")));
    assert!(kinds(&host, file.path()).contains(&"unreachable".into()));
}

#[test]
fn state_of_connection_tracking_is_found() {
    let (host, _peer) = clean();
    // 12 DNS queries a second are less than 240 ports serve.
    assert_found(&host, "--to-ports 40000-40239", &["slow-reuse"]);
    host.sysctl("net/netfilter/nf_conntrack_udp_timeout", "5").unwrap();
    assert_found(&host, "--to-ports 40000-40239", &[]);
    assert_found(&host, "--to-ports 40000-40239 -p tcp", &[]);
    ephport_ok(&host, &format!("apply {CLEAN}"));
    nft_load(&host, "table ip h {\n ct helper ftp {\n type \"ftp\" protocol tcp\n }\n}");
    assert_eq!(kinds(&host, CLEAN), ["helper"]);
    ok(&host, "nft delete table ip h");
    if is_able(&host, "iptables -t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp") {
        assert_eq!(kinds(&host, CLEAN), ["helper"]);
        ok(&host, "iptables -t raw -F");
    }
}

#[test]
fn failed_connections_are_found() {
    let (host, peer) = host_with_uplink();
    peer.address("eth0", "192.0.2.1/24").unwrap();
    let _server = Server::start(&peer, 443).unwrap();
    ephport_ok(&host, "apply --to-ports 40000 --random");
    let to = (IpAddr::from([192, 0, 2, 1]), 443);
    let time = std::time::Duration::from_millis(100);
    for port in 2000_u16..2004 {
        drop(host.run(|| connect_within(time, Protocol::Udp, port, to)));
    }
    let found = kinds(&host, "--to-ports 40000 --random");
    assert!(found.contains(&"insert-failed".into()), "{found:?}");
}

#[test]
fn translated_ipsec_is_found() {
    let (host, _peer) = clean();
    let matching = "--to-ports 49152-61000 --ipsec match";
    assert_found(&host, matching, &[]);
    let policy = "ip xfrm policy add src 10.1.0.0/16 dst 10.99.0.0/16 dir out \
                  tmpl src 192.0.2.2 dst 192.0.2.1 proto esp mode tunnel";
    if !is_able(&host, policy) {
        println!("skipped: this kernel has no IPsec policies");
        return;
    }
    assert_eq!(kinds(&host, matching), ["translated-ipsec"]);
    assert_found(&host, CLEAN, &[]);
    ok(&host, "ip xfrm policy deleteall");
    assert_found(&host, matching, &[]);
}

#[test]
fn files_that_others_can_write_are_found() {
    let (host, _peer) = host_with_uplink();
    let file = PolicyFile::new("[[policy]]\nname = \"a\"\nto-ports = \"40000-49999\"\n");
    let path = file.path();
    ephport_ok(&host, &format!("apply {path}"));
    // Root's file in a directory with the sticky bit.
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let before = kinds(&host, path);
    fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(before, [""; 0]);
    assert_eq!(kinds(&host, path), ["writable-file"]);
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(kinds(&host, path), [""; 0]);
}

/// What no namespace of this kernel has: a full table, a flowtable, connections that were forgotten.
#[test]
fn observations_make_findings() {
    let document: Document = "[[policy]]\nname = \"a\"\nto-ports = \"40000-49999\"\n\
                              out-interfaces = \"any\"\nenforce = true\n"
        .parse()
        .unwrap();
    let plan = Plan::new(document.policies(), &HostFacts::default()).unwrap();
    let host = Host::new("host").unwrap();
    let observed = || host.run(|| Observed::read(&mut Client::open().unwrap()).unwrap());
    let facts = host.run(host::facts).unwrap();
    assert_eq!(findings(&plan, &facts, &observed()), []);
    let mut statistics = observed().statistics.unwrap();
    (statistics.entries, statistics.max_entries) = (81, Some(100));
    (statistics.early_drop, statistics.insert_failed) = (1, 2);
    let flowtable =
        ephport_nft::doctor::Object { family: "inet", table: "filter".into(), name: "fast".into() };
    let mut disturbed = observed();
    disturbed.statistics = Some(statistics);
    disturbed.flowtables = vec![flowtable.clone()];
    let policy = plan.resolved[0].name.clone();
    assert_eq!(
        findings(&plan, &facts, &disturbed),
        [
            Finding::Flowtable { policy, flowtable },
            Finding::ConntrackFull { entries: 81, max: 100 },
            Finding::InsertFailed { count: 2 },
            Finding::EarlyDrops { count: 1 },
        ]
    );
    let messages =
        findings(&plan, &facts, &disturbed).iter().map(ToString::to_string).collect::<Vec<_>>();
    expect_test::expect![[r#"
        flowtable fast of table inet filter: its connections bypass postrouting, and so the enforcement of policy a
        the connection tracking table has 81 of 100 entries: new connections are dropped when it is full
        connections failed, 2 since the start of this network namespace: NAT found no free port, or another connection had the same addresses and ports
        connections were forgotten early, because the connection tracking table was full: 1"#]].assert_eq(&messages.join("\n"));
}

#[test]
fn entries_are_counted() {
    let (host, _peer) = clean();
    let to = "198.51.100.1:443".parse().unwrap();
    let entry = |port| Entry {
        source: ([192, 0, 2, 2], port).into(),
        sent: ([192, 0, 2, 2], port).into(),
        destination: to,
    };
    insert(&host, [50_000, 50_001].into_iter().map(entry));
    assert_eq!(examined(&host, CLEAN)["conntrack_entries"], 2);
}

#[test]
fn a_check_that_was_not_done_is_in_the_document() {
    let (host, _peer) = clean();
    assert_eq!(examined(&host, CLEAN)["warnings"], serde_json::json!([]));
    // In a user namespace of its own, in which no further network namespace can be made.
    let script = "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\"";
    let binary = binary();
    let mut words = vec!["-Urn", "sh", "-c", script, "sh", binary.to_str().unwrap()];
    words.extend("doctor --json --to-ports 49152-61000 -o any".split(' '));
    let ended = tool(&host, "unshare", &words, "");
    let document: Value = serde_json::from_str(&ended.out).expect(&ended.err);
    let warnings = document["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{document}");
    assert_eq!(warnings[0]["kind"], "kernel-not-checked", "{document}");
    let message: Value = serde_json::from_str(&ended.err).expect("JSON on standard error");
    assert_eq!(message["message"], warnings[0]["message"]);
}
