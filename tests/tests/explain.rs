//! `explain`: what happens to a connection, and why.
//!
//! Expected texts are snapshots, see `commands.rs`.

use ephport_cli::Exit;
use ephport_tests::tool::nft_load;
use ephport_tests::{CommandOutput, Host, PolicyFile, ephport_args};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

const FILE: &str = r#"
[[policy]]
name = "builds"
out-interfaces = ["eth0"]
sources = ["172.16.0.0/12"]
source-ports = "1024-29999"
to-ports = "49152-50000"
address = "masquerade"
enforce = true

[[policy]]
name = "tcp"
out-interfaces = "any"
protocols = ["tcp"]
to-ports = "49152-49999,60000-61000"
address = "masquerade"

[[policy]]
name = "rest"
out-interfaces = "any"
except-destinations = ["198.51.100.0/24"]
exempt-source-ports = "4500"
to-ports = "1024-65535"
address = "masquerade"
"#;

/// Explains a flow with the policies above, on a host that has `eth0`.
fn explain(flow: &str, more: &[&str]) -> CommandOutput {
    let (host, file) = (Host::new("host").unwrap(), PolicyFile::new(FILE));
    host.link("eth0", &host, "eth1").unwrap();
    let words = ["explain", file.path(), "--flow", flow].into_iter().chain(more.iter().copied());
    ephport_args(&host, words, b"")
}

fn check(flow: &str, expected: &Expect) {
    let ended = explain(flow, &[]);
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""), "{flow}");
    expected.assert_eq(&ended.out);
}

#[test]
fn first_matching_policy_translates() {
    check(
        "tcp 172.17.0.2:4000 -> 203.0.113.9:443 oif eth0 iif docker0",
        &expect![[r#"
            tcp 172.17.0.2:4000 -> 203.0.113.9:443 oif eth0 iif docker0
              policy builds: translates it to one of 49152-50000
              source address: masquerade: an address of the output interface
              enforcement of policy builds: permitted
              program: postrouting rule 5
              the policies and their program agree
        "#]],
    );
}

#[test]
fn permitted_port_is_kept() {
    check(
        "udp 10.0.0.7:40000 -> 203.0.113.9:53 oif eth1",
        &expect![[r#"
            udp 10.0.0.7:40000 -> 203.0.113.9:53 oif eth1
              policy builds: no match: the output interface is out of scope
              policy tcp: no match: the protocol is out of scope
              policy rest: keeps port 40000 if it is free, else one of 1024-65535
              source address: masquerade: an address of the output interface
              program: postrouting rule 11
              the policies and their program agree
        "#]],
    );
    check(
        "tcp 10.0.0.7:60500 -> 203.0.113.9:443 oif eth0",
        &expect![[r#"
            tcp 10.0.0.7:60500 -> 203.0.113.9:443 oif eth0
              policy builds: no match: the source address is out of scope
              policy tcp: keeps port 60500 if it is free, else one of 60000-61000
              source address: masquerade: an address of the output interface
              program: postrouting rule 7 -> tcp/ports rule 2 -> tcp/60000-61000 rule 1
              the policies and their program agree
        "#]],
    );
}

#[test]
fn several_ranges_have_several_trails() {
    check(
        "tcp [2001:db8::7]:40000 -> [2001:db8::9]:443 oif eth0",
        &expect![[r#"
            tcp [2001:db8::7]:40000 -> [2001:db8::9]:443 oif eth0
              policy builds: no match: the source address is out of scope
              policy tcp: translates it to one of 49152-49999,60000-61000
              source address: masquerade: an address of the output interface
              program: postrouting rule 7 -> tcp/ports rule 3 -> tcp/49152-49999 rule 1
              program: postrouting rule 7 -> tcp/ports rule 3 -> tcp/60000-61000 rule 1
              the policies and their program agree
        "#]],
    );
}

#[test]
fn untranslated_connection_has_a_reason_from_each_policy() {
    check(
        "udp 172.17.0.2:4500 -> 224.0.0.251:5353 oif eth1",
        &expect![[r#"
        udp 172.17.0.2:4500 -> 224.0.0.251:5353 oif eth1
          policy builds: no match: the destination is multicast or broadcast
          policy tcp: no match: the destination is multicast or broadcast
          policy rest: no match: the destination is multicast or broadcast
          not translated by ephport (another NAT rule may): source port 4500
          program: postrouting rule 1
          the policies and their program agree
    "#]],
    );
    check(
        "udp 10.0.0.7:4500 -> 203.0.113.9:4500 oif eth0",
        &expect![[r#"
        udp 10.0.0.7:4500 -> 203.0.113.9:4500 oif eth0
          policy builds: no match: the source address is out of scope
          policy tcp: no match: the protocol is out of scope
          policy rest: no match: the source port is not one that is translated
          not translated by ephport (another NAT rule may): source port 4500
          the policies and their program agree
    "#]],
    );
    check(
        "udp 10.0.0.7:5000 -> 198.51.100.9:53 oif eth0",
        &expect![[r#"
        udp 10.0.0.7:5000 -> 198.51.100.9:53 oif eth0
          policy builds: no match: the source address is out of scope
          policy tcp: no match: the protocol is out of scope
          policy rest: no match: the destination address is excepted
          not translated by ephport (another NAT rule may): source port 5000
          the policies and their program agree
    "#]],
    );
    check(
        "tcp 10.0.0.7:5000 -> 203.0.113.9:53 oif eth1 mid-stream",
        &expect![[r#"
        tcp 10.0.0.7:5000 -> 203.0.113.9:53 oif eth1 mid-stream
          policy builds: no match: the output interface is out of scope
          policy tcp: no match: the connection was open before the policy was applied
          policy rest: no match: the connection was open before the policy was applied
          not translated by ephport (another NAT rule may): source port 5000
          the policies and their program agree
    "#]],
    );
}

#[test]
fn enforcement_applies_to_later_translations() {
    check(
        "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0",
        &expect![[r#"
            tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0
              policy builds: no match: the source port is not one that is translated
              policy tcp: translates it to one of 49152-49999,60000-61000
              source address: masquerade: an address of the output interface
              enforcement of policy builds: dropped with one of 60000-61000: only 1-1023,49152-50000 are permitted (it passes if a helper expected it, or if it was open when first enforced)
              program: postrouting rule 7 -> tcp/ports rule 3 -> tcp/49152-49999 rule 1
              program: postrouting rule 7 -> tcp/ports rule 3 -> tcp/60000-61000 rule 1
              the policies and their program agree
        "#]],
    );
    check(
        "tcp 172.17.0.2:60500 -> 203.0.113.9:443 oif eth0",
        &expect![[r#"
            tcp 172.17.0.2:60500 -> 203.0.113.9:443 oif eth0
              policy builds: no match: the source port is not one that is translated
              policy tcp: keeps port 60500 if it is free, else one of 60000-61000
              source address: masquerade: an address of the output interface
              enforcement of policy builds: dropped: only 1-1023,49152-50000 are permitted (it passes if a helper expected it, or if it was open when first enforced)
              program: postrouting rule 7 -> tcp/ports rule 2 -> tcp/60000-61000 rule 1
              the policies and their program agree
        "#]],
    );
    check(
        "tcp 172.17.0.2:4000 -> 203.0.113.9:443 oif eth0 mid-stream",
        &expect![[r#"
            tcp 172.17.0.2:4000 -> 203.0.113.9:443 oif eth0 mid-stream
              policy builds: no match: the connection was open before the policy was applied
              policy tcp: no match: the connection was open before the policy was applied
              policy rest: no match: the connection was open before the policy was applied
              not translated by ephport (another NAT rule may): source port 4000
              enforcement of policy builds: dropped: only 1-1023,49152-50000 are permitted (it passes if a helper expected it, or if it was open when first enforced)
              the policies and their program agree
        "#]],
    );
    check(
        "udp 172.17.0.2:500 -> 203.0.113.9:500 oif eth0",
        &expect![[r#"
        udp 172.17.0.2:500 -> 203.0.113.9:500 oif eth0
          policy builds: no match: the source port is not one that is translated
          policy tcp: no match: the protocol is out of scope
          policy rest: no match: the source port is not one that is translated
          not translated by ephport (another NAT rule may): source port 500
          enforcement of policy builds: permitted
          the policies and their program agree
    "#]],
    );
}

#[test]
fn explanation_is_printed_as_json() {
    let json = |flow| -> Value {
        let ended = explain(flow, &["--json"]);
        assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""));
        serde_json::from_str(&ended.out).unwrap()
    };
    let flow = "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0";
    let range = |first: u16, last: u16| json!({ "first": first, "last": last });
    let found = json(flow);
    assert_eq!(
        (&found["version"], &found["flow"], &found["agrees"]),
        (&json!(1), &json!(flow), &json!(true))
    );
    let translation = json!({
        "policy": "tcp",
        "ports": [range(49_152, 49_999), range(60_000, 61_000)],
        "keep": null,
        "address": "masquerade",
        "timeouts": {},
    });
    assert_eq!(found["translation"], translation);
    let other = &found["non_matches"][0];
    assert_eq!((&other["policy"], &other["kind"]), (&json!("builds"), &json!("source-port")));
    let enforcement = &found["enforcement"];
    assert_eq!(
        (&enforcement["policy"], &enforcement["drops_all"]),
        (&json!("builds"), &json!(false))
    );
    assert_eq!(enforcement["dropped"], json!([range(60_000, 61_000)]));
    let trails: Vec<Vec<_>> = found["program"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trail| {
            trail.as_array().unwrap().iter().map(|step| step["chain"].as_str().unwrap()).collect()
        })
        .collect();
    let expected = [
        ["postrouting", "tcp/ports", "tcp/49152-49999"],
        ["postrouting", "tcp/ports", "tcp/60000-61000"],
    ];
    assert_eq!(trails, expected);
    let kept = json("udp 10.0.0.7:40000 -> 203.0.113.9:53 oif eth1");
    assert_eq!(
        (&kept["translation"]["keep"], &kept["enforcement"]),
        (&json!(40_000), &Value::Null)
    );
    let untouched = json("udp 10.0.0.7:400 -> 203.0.113.9:53 oif eth1");
    assert_eq!((&untouched["translation"], &untouched["program"]), (&Value::Null, &json!([])));
}

/// A chain of another table that binds connections first.
#[test]
fn rules_of_other_tables_are_named() {
    let (host, file) = (Host::new("host").unwrap(), PolicyFile::new(FILE));
    host.link("eth0", &host, "eth1").unwrap();
    nft_load(
        &host,
        "table ip other { chain post { type nat hook postrouting priority 50; udp dport 53 masquerade; }; }",
    );
    let flow = "udp 10.0.0.7:400 -> 203.0.113.9:53 oif eth1";
    let words = ["explain", file.path(), "--flow", flow];
    let ended = ephport_args(&host, words, b"");
    assert!(
        ended.out.ends_with(
            "not translated by ephport (another NAT rule may): source port 400\n  \
             the policies and their program agree\n  \
             chain post of table ip other (nat, postrouting, priority 50) comes before ephport's: \
             connections that it translates keep the port that it selects\n"
        ),
        "{}",
        ended.out
    );
    let ended = ephport_args(&host, words.into_iter().chain(["--json"]), b"");
    let printed: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(printed["warnings"][0]["kind"], "earlier-nat");
}

#[test]
fn invalid_flow_is_wrong_usage() {
    let cases = [
        (
            "tcp 172.17.0.2:4000",
            "`tcp 172.17.0.2:4000` is not a flow: expected one like \
             tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0 iif docker0",
        ),
        (
            "tcp 172.17.0.2:0 -> 203.0.113.9:443 oif eth0",
            "172.17.0.2:0 has port 0: expected 1 to 65535",
        ),
    ];
    for (flow, message) in cases {
        let ended = explain(flow, &[]);
        assert_eq!(ended.exit, Exit::Usage);
        let line = format!("error: invalid value '{flow}' for '--flow <FLOW>': {message}");
        assert_eq!(ended.err.lines().next(), Some(line.as_str()));
    }
    let ended = ephport_args(&Host::new("host").unwrap(), ["explain", "--to", "1"], b"");
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("\n  --flow <FLOW>\n"), "{}", ended.err);
}
