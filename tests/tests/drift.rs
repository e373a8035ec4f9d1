//! Every manual change of the table is reported by status with exit code 3, and apply restores it.

use std::net::UdpSocket;

use ephport_cli::Exit;
use ephport_nft::netlink::{Header, NfGenMsg, Writer};
use ephport_nft::netlink::{Socket, dump};
use ephport_nft::nftables::Rule;
use ephport_nft::nftables::expr::{Counter, Expr};
use ephport_nft::uapi::{NF_NAT_RANGE_PROTO_RANDOM, NLM_F_DUMP, NLM_F_REQUEST};
use ephport_nft::{Installed, TableState};
use ephport_tests::tool::{binary, ok, tool};
use ephport_tests::{Host, PolicyFile, apply, ephport, ephport_ok, host_with_uplink, installed};
use serde_json::{Value, json};

const POLICIES: &str = r#"
[[policy]]
name = "builds"
sources = ["172.16.0.0/12"]
to-ports = "49152-61000"
address = "masquerade"
enforce = true

[[policy]]
name = "subscribers"
protocols = ["udp"]
blocks = ["10.0.0.1=1024-2047", "10.0.0.2=2048-3071", "10.0.0.5=5120-6143"]
address = "masquerade"

[[policy]]
name = "rest"
protocols = ["udp"]
to-ports = "1024-2047,4096-5119"
address = "masquerade"
"#;

/// Rules of `postrouting`, as they are reported.
const BUILDS_UDP: &str = "oifname \"eth0\" meta nfproto ipv4 ip saddr 172.16.0.0/12 meta l4proto udp \
                          th sport 1024-65535 counter packets 0 bytes 0";
const REST: &str = "oifname \"eth0\" meta l4proto udp th sport 1024-65535 \
                    counter packets 0 bytes 0 goto rest/ports";

/// `status` of the binary, where this is the policy file of the host; its exit code and the lines
/// in which it reports drift.
fn status(host: &Host, policy_file: &str) -> (i32, Vec<String>) {
    // In a mount namespace of its own: the machine's /etc stays as it is.
    let script = format!(
        "mount -t tmpfs none /etc && mkdir /etc/ephport && cat > /etc/ephport/policy.toml && \
         {{ {} status; echo $?; }}",
        binary().display()
    );
    let printed = tool(host, "unshare", &["-m", "sh", "-c", &script], policy_file);
    assert_eq!(printed.err, "");
    let mut lines: Vec<_> = printed.out.lines().map(|line| line.trim().to_string()).collect();
    let code = lines.pop().and_then(|line| line.parse().ok()).expect("a code");
    // A block for each policy follows the table's.
    lines.truncate(lines.iter().position(String::is_empty).unwrap_or(lines.len()));
    (code, lines)
}

/// The sentences of `diff`.
fn diff(host: &Host, file: &PolicyFile) -> (Exit, Vec<String>) {
    let ended = ephport(host, &format!("diff {} --json", file.path()));
    let json: Value = serde_json::from_str(&ended.out).expect("JSON");
    let drift = json["differences"].as_array().expect("differences").iter();
    (ended.exit, drift.map(|drift| drift["message"].as_str().expect("text").into()).collect())
}

/// nft by hand. It cannot list all of our rules, and sometimes reports that.
fn nft(host: &Host, command: &str) {
    let printed = tool(host, "nft", &["-f", "-"], command);
    assert!(printed.success, "{command}: {printed:?}");
}

fn ours(host: &Host) -> TableState {
    match installed(host) {
        Installed::Ours { ruleset, .. } => ruleset,
        other => panic!("{other:?}"),
    }
}

/// The kernel's number for a rule of `postrouting`, whose own is from 1.
fn handle(host: &Host, number: usize) -> u64 {
    let ruleset = ours(host);
    ruleset.rules_of("postrouting").nth(number - 1).and_then(|rule| rule.handle).expect("a handle")
}

/// Deletes a rule of `postrouting`.
fn delete(host: &Host, number: usize) {
    let handle = handle(host, number);
    nft(host, &format!("delete rule inet ephport postrouting handle {handle}"));
}

/// Puts another rule in the place of one of `postrouting`.
fn replace(host: &Host, number: usize, rule: &str) {
    let handle = handle(host, number);
    nft(host, &format!("replace rule inet ephport postrouting handle {handle} {rule}"));
}

/// What nft cannot express, by our own client: the fingerprint stays as it was.
fn tamper(host: &Host, change: impl FnOnce(&mut TableState)) {
    let mut ruleset = ours(host);
    change(&mut ruleset);
    apply(host, &ruleset);
}

fn in_postrouting(ruleset: &mut TableState, number: usize) -> &mut Rule {
    ruleset.rules.iter_mut().filter(|rule| rule.chain == "postrouting").nth(number - 1).unwrap()
}

fn masq_flags(ruleset: &mut TableState, number: usize, change: impl Fn(u32) -> Option<u32>) {
    match in_postrouting(ruleset, number).exprs.last_mut() {
        Some(Expr::Masq(masq)) => masq.flags = change(masq.flags.unwrap_or(0)),
        other => panic!("{other:?}"),
    }
}

/// Does it to a host with the policies, and checks every report of it.
fn drifts(deed: impl FnOnce(&Host), sentences: &[&str]) {
    let (host, _peer) = host_with_uplink();
    let file = PolicyFile::new(POLICIES);
    ephport_ok(&host, &format!("apply {}", file.path()));
    assert_eq!(status(&host, POLICIES).0, 0);
    deed(&host);
    let (code, lines) = status(&host, POLICIES);
    assert!(lines[0].starts_with("drifted: table inet ephport, "), "{lines:#?}");
    assert_eq!(
        lines[1..3],
        [
            "changed by another process; `ephport-nft apply` restores it",
            "compared with /etc/ephport/policy.toml:"
        ]
    );
    assert_eq!(
        (code, &lines[3..]),
        (3, &sentences.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
    );
    assert_eq!(diff(&host, &file), (Exit::Differs, lines[3..].to_vec()));
    ephport_ok(&host, &format!("apply {}", file.path()));
    assert_eq!(status(&host, POLICIES).0, 0);
    assert_eq!(diff(&host, &file), (Exit::Success, Vec::new()));
}

#[test]
fn a_rule_is_deleted() {
    drifts(
        |host| delete(host, 6),
        &[&format!(
            "policy builds, rule 6 of postrouting is missing: {BUILDS_UDP} masquerade to :49152-61000"
        )],
    );
}

#[test]
fn the_rule_with_the_signature_is_deleted() {
    drifts(
        |host| delete(host, 1),
        &["rule 1 of postrouting is missing: fib daddr type multicast return"],
    );
}

#[test]
fn a_rule_is_added_before_all() {
    drifts(
        |host| nft(host, "insert rule inet ephport postrouting counter accept"),
        &["rule 1 of postrouting belongs to no policy: counter packets 0 bytes 0 accept"],
    );
}

#[test]
fn a_rule_is_added_after_all() {
    drifts(
        |host| nft(host, "add rule inet ephport enforce ip saddr 10.0.0.0/8 drop"),
        &["rule 16 of enforce belongs to no policy: meta nfproto ipv4 ip saddr 10.0.0.0/8 drop"],
    );
}

#[test]
fn a_rule_gets_other_ports() {
    drifts(
        |host| {
            replace(host, 6, &format!("{BUILDS_UDP} masquerade to :1024-2047 comment \"builds\""));
        },
        &["policy builds, rule 6 of postrouting: ports 1024-2047, expected 49152-61000"],
    );
}

#[test]
fn interface_and_comment_of_a_rule_change() {
    drifts(
        |host| {
            replace(host, 8, &REST.replace("eth0", "eth1"));
        },
        &[
            "policy rest, rule 8 of postrouting: interface `oifname \"eth1\"`, \
             expected `oifname \"eth0\"`",
            "policy rest, rule 8 of postrouting: comment none, expected \"rest\"",
        ],
    );
}

#[test]
fn a_rule_gets_another_address() {
    drifts(
        |host| {
            replace(
                host,
                6,
                &format!("{BUILDS_UDP} snat ip to 192.0.2.9:49152-61000 comment \"builds\""),
            );
        },
        &["policy builds, rule 6 of postrouting: address 192.0.2.9, expected masquerade"],
    );
}

#[test]
fn a_rule_is_replaced_by_something_else() {
    drifts(
        |host| replace(host, 8, "accept"),
        &[
            &format!("policy rest, rule 8 of postrouting is missing: {REST}"),
            "rule 8 of postrouting belongs to no policy: accept",
        ],
    );
}

#[test]
fn a_rule_loses_its_port_range_flag() {
    drifts(
        |host| {
            tamper(host, |ruleset| masq_flags(ruleset, 6, |_| None));
            // nft lists the ports as if they held.
            let listed = tool(host, "nft", &["list", "table", "inet", "ephport"], "").out;
            assert_eq!(listed.matches("masquerade to :49152-61000").count(), 2, "{listed}");
        },
        &["policy builds, rule 6 of postrouting: port range flag cleared (the kernel ignores \
           ports 49152-61000, although nft prints them), expected set"],
    );
}

#[test]
fn a_rule_picks_ports_at_random() {
    drifts(
        |host| {
            tamper(host, |ruleset| {
                masq_flags(ruleset, 5, |flags| Some(flags | NF_NAT_RANGE_PROTO_RANDOM));
            });
        },
        &["policy builds, rule 5 of postrouting: port selection random, expected default"],
    );
}

#[test]
fn rules_change_places() {
    drifts(
        |host| {
            tamper(host, |ruleset| {
                let at = ruleset.rules.iter().position(|rule| rule.chain == "postrouting").unwrap();
                ruleset.rules.swap(at + 4, at + 5);
            });
        },
        &["policy builds, rule 5 of postrouting: position 5, expected 6"],
    );
}

#[test]
fn a_chain_is_added() {
    drifts(
        |host| nft(host, "table inet ephport { chain mine { counter drop; }; }"),
        &["chain mine belongs to no policy"],
    );
}

#[test]
fn a_chain_is_flushed() {
    drifts(
        |host| nft(host, "flush chain inet ephport postrouting"),
        &["chain postrouting: rules none, expected 8"],
    );
}

#[test]
fn the_enforcing_chain_is_removed() {
    drifts(
        |host| nft(host, "flush chain inet ephport enforce\ndelete chain inet ephport enforce"),
        &["chain enforce is missing"],
    );
}

#[test]
fn a_chain_gets_another_priority() {
    drifts(
        |host| {
            tamper(host, |ruleset| {
                let chain = ruleset.chains.iter_mut().find(|chain| chain.name == "postrouting");
                chain.unwrap().hook.as_mut().unwrap().priority = 101;
            });
        },
        &["chain postrouting: priority 101, expected 90"],
    );
}

#[test]
fn a_chain_gets_another_policy() {
    drifts(
        |host| nft(host, "chain inet ephport enforce { policy drop; }"),
        &["chain enforce: declaration `type filter hook postrouting priority 300; policy drop;`, \
           expected `type filter hook postrouting priority 300; policy accept;`"],
    );
}

#[test]
fn an_element_is_added() {
    drifts(
        |host| {
            nft(host, "add element inet ephport subscribers/blocks4 { 10.0.0.3 : 3072 . 4095 }");
        },
        &["set subscribers/blocks4: elements 10.0.0.3 : 3072 . 4095, expected none"],
    );
}

#[test]
fn an_element_is_deleted() {
    drifts(
        |host| nft(host, "delete element inet ephport subscribers/blocks4 { 10.0.0.2 }"),
        &["set subscribers/blocks4: elements none, expected 10.0.0.2 : 2048 . 3071"],
    );
}

#[test]
fn an_element_gets_another_value() {
    drifts(
        |host| {
            nft(
                host,
                "delete element inet ephport subscribers/blocks4 { 10.0.0.2 }\n\
                 add element inet ephport subscribers/blocks4 { 10.0.0.2 : 4096 . 5119 }",
            );
        },
        &["set subscribers/blocks4: elements 10.0.0.2 : 4096 . 5119, \
           expected 10.0.0.2 : 2048 . 3071"],
    );
}

#[test]
fn the_table_is_switched_off() {
    drifts(
        |host| nft(host, "table inet ephport { flags dormant; }"),
        &["the table: flags dormant (the kernel runs none of its rules), expected none"],
    );
}

fn counted(host: &Host) -> u64 {
    ours(host).rules.iter().filter_map(Rule::counter).map(|Counter { packets, .. }| packets).sum()
}

/// `NFT_MSG_GETRULE_RESET` of Linux 6.2, which the headers of most systems do not name yet.
const GETRULE_RESET: u16 = 25;

#[test]
fn counters_are_never_drift() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --to-ports 49152-61000");
    host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:40000").expect("a socket");
        socket.send_to(b"x", "192.0.2.1:53").expect("sent");
    });
    assert_eq!(counted(&host), 1);
    assert!(ephport_ok(&host, "status").starts_with("intact"));
    host.run(|| {
        let mut w = Writer::new();
        w.message(Header::nf_tables(GETRULE_RESET, NLM_F_REQUEST | NLM_F_DUMP, 1), |w| {
            w.raw(&NfGenMsg::new(1).to_bytes());
        });
        let mut socket = Socket::netfilter().expect("a socket");
        dump(&mut socket, &w.finish().unwrap(), 1, |_, _| Ok(())).expect("reset");
    });
    assert_eq!(counted(&host), 0);
    assert!(ephport_ok(&host, "status").starts_with("intact"));
    assert!(ephport_ok(&host, "apply --to-ports 49152-61000").starts_with("unchanged"));
}

#[test]
fn status_without_a_policy_reports_evident_drift() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --to-ports 49152-61000 --address masquerade");
    nft(&host, "add rule inet ephport postrouting drop");
    tamper(&host, |ruleset| masq_flags(ruleset, 5, |_| None));
    let name = "to see all changes, name the policy: `ephport-nft diff FILE`";
    let lost = "policy default, rule 5 of postrouting: port range flag cleared (the kernel ignores \
                ports 49152-61000, although nft prints them), expected set";
    let (code, lines) = status(&host, POLICIES);
    assert_eq!(code, 3);
    let other = "/etc/ephport/policy.toml is not what was applied;";
    assert_eq!(lines[2..], [other, name, lost]);
    // Without the file, or with one that is none.
    let ended = ephport(&host, "status");
    assert_eq!(ended.exit, Exit::Differs);
    assert_eq!(ended.err, "");
    let lines: Vec<_> = ended.out.lines().map(str::trim).collect();
    assert_eq!(lines[2..4], [name, lost]);
    let json: Value = serde_json::from_str(&ephport(&host, "status --json").out).unwrap();
    assert_eq!(json["policy_file"], Value::Null);
    let drift = json!([{
        "chain": "postrouting", "set": null, "rule": 5, "policy": "default",
        "attribute": "port range flag", "expected": "set", "message": lost,
        "found": "cleared (the kernel ignores ports 49152-61000, although nft prints them)",
    }]);
    assert_eq!(json["drift"], drift);
    // The flags that were applied are enough.
    let all = ephport(&host, "diff --to-ports 49152-61000 --address masquerade");
    assert_eq!(all.exit, Exit::Differs);
    let added = "rule 7 of postrouting belongs to no policy: drop";
    let sentences: Vec<_> = all.out.lines().skip(1).take(2).map(str::trim).collect();
    assert_eq!(sentences, [lost, added]);
    ok(&host, "nft delete table inet ephport");
    let gone = ephport(&host, "diff --to-ports 49152-61000 --address masquerade").out;
    assert!(
        gone.starts_with("would install table inet ephport\n  the table is missing\n"),
        "{gone}"
    );
}
