//! `explain`: what becomes of a connection, and why.

use ephport_cli::Exit;
use ephport_tests::{CommandOutput, Host, PolicyFile, ephport_args};
use serde_json::{Value, json};

const FILE: &str = r#"
[[policy]]
name = "builds"
out-interfaces = ["eth0"]
sources = ["172.16.0.0/12"]
source-ports = "1024-29999"
to-ports = "49152-50000"
enforce = true

[[policy]]
name = "tcp"
out-interfaces = "any"
protocols = ["tcp"]
to-ports = "49152-49999,60000-61000"

[[policy]]
name = "rest"
out-interfaces = "any"
except-destinations = ["198.51.100.0/24"]
exempt-source-ports = "4500"
to-ports = "1024-65535"
"#;

/// Explains a flow with the policies above, on a host that has `eth0`.
fn explain(flow: &str, more: &[&str]) -> CommandOutput {
    let (host, file) = (Host::new("host").unwrap(), PolicyFile::new(FILE));
    host.link("eth0", &host, "eth1").unwrap();
    let words = ["explain", file.path(), "--flow", flow].into_iter().chain(more.iter().copied());
    ephport_args(&host, words, b"")
}

fn explained(flow: &str) -> String {
    let ended = explain(flow, &[]);
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""), "{flow}");
    let agreed = ended.out.strip_suffix("  the policy's meaning and its program agree\n");
    agreed.expect("agreement").into()
}

#[test]
fn the_first_policy_that_speaks_of_a_connection_moves_it() {
    let flow = "tcp 172.17.0.2:4000 -> 203.0.113.9:443 oif eth0 iif docker0";
    assert_eq!(
        explained(flow),
        format!(
            "{flow}\n  \
             policy builds: moves it to one of 49152-50000; masqueraded\n  \
             enforcement of policy builds: let out\n  \
             program: postrouting rule 3\n"
        )
    );
}

#[test]
fn a_port_that_is_allowed_is_kept_and_the_policies_before_say_why_they_do_not_care() {
    let flow = "udp 10.0.0.7:40000 -> 203.0.113.9:53 oif eth1";
    assert_eq!(
        explained(flow),
        format!(
            "{flow}\n  \
             policy builds: not it: the output interface is out of scope\n  \
             policy tcp: not it: the protocol is out of scope\n  \
             policy rest: keeps port 40000 if it is free, else one of 1024-65535; masqueraded\n  \
             program: postrouting rule 7\n"
        )
    );
}

#[test]
fn several_ranges_are_several_ways_of_the_program() {
    let flow = "tcp [2001:db8::7]:40000 -> [2001:db8::9]:443 oif eth0";
    assert_eq!(
        explained(flow),
        format!(
            "{flow}\n  \
             policy builds: not it: the source address is out of scope\n  \
             policy tcp: moves it to one of 49152-49999,60000-61000; masqueraded\n  \
             program: postrouting rule 5 -> tcp/ports rule 2 -> tcp/49152-49999 rule 1\n  \
             program: postrouting rule 5 -> tcp/ports rule 2 -> tcp/60000-61000 rule 1\n"
        )
    );
    let kept = explained("tcp 10.0.0.7:60500 -> 203.0.113.9:443 oif eth0");
    assert!(
        kept.ends_with(
            "  policy tcp: keeps port 60500 if it is free, else one of 60000-61000; masqueraded\n  \
             program: postrouting rule 5 -> tcp/ports rule 1 -> tcp/60000-61000 rule 1\n"
        ),
        "{kept}"
    );
}

#[test]
fn an_untouched_connection_has_a_reason_from_each_policy() {
    let cases = [
        (
            "udp 172.17.0.2:4500 -> 224.0.0.251:5353 oif eth1",
            ["the destination is multicast or broadcast"; 3],
        ),
        (
            "udp 10.0.0.7:4500 -> 203.0.113.9:4500 oif eth0",
            [
                "the source address is out of scope",
                "the protocol is out of scope",
                "the source port is not one that is translated",
            ],
        ),
        (
            "udp 10.0.0.7:5000 -> 198.51.100.9:53 oif eth0",
            [
                "the source address is out of scope",
                "the protocol is out of scope",
                "the destination address is excepted",
            ],
        ),
        (
            "tcp 10.0.0.7:5000 -> 203.0.113.9:53 oif eth1 mid-stream",
            [
                "the output interface is out of scope",
                "the connection was open before the policy was applied",
                "the connection was open before the policy was applied",
            ],
        ),
    ];
    for (flow, [builds, tcp, rest]) in cases {
        let port = flow.split([':', ' ']).nth(2).unwrap();
        let program = match tcp {
            "the destination is multicast or broadcast" => "  program: postrouting rule 1\n",
            _ => "",
        };
        assert_eq!(
            explained(flow),
            format!(
                "{flow}\n  policy builds: not it: {builds}\n  policy tcp: not it: {tcp}\n  \
                 policy rest: not it: {rest}\n  no policy speaks of it: its port stays {port}\n{program}"
            )
        );
    }
}

#[test]
fn an_enforcing_policy_owns_what_a_later_one_moves() {
    let partly = explained("tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0");
    assert!(
        partly.contains(
            "  policy builds: not it: the source port is not one that is translated\n  \
             policy tcp: moves it to one of 49152-49999,60000-61000; masqueraded\n  \
             enforcement of policy builds: dropped if it gets one of 60000-61000: \
             it lets out 1-1023,49152-50000 only\n"
        ),
        "{partly}"
    );
    let wholly = explained("tcp 172.17.0.2:60500 -> 203.0.113.9:443 oif eth0");
    let dropped = "  enforcement of policy builds: dropped: it lets out 1-1023,49152-50000 only\n";
    assert!(wholly.contains(dropped), "{wholly}");
    let unmoved = explained("tcp 172.17.0.2:4000 -> 203.0.113.9:443 oif eth0 mid-stream");
    let stays = format!("  no policy speaks of it: its port stays 4000\n{dropped}");
    assert!(unmoved.ends_with(&stays), "{unmoved}");
    let privileged = explained("udp 172.17.0.2:500 -> 203.0.113.9:500 oif eth0");
    let let_out = "its port stays 500\n  enforcement of policy builds: let out\n";
    assert!(privileged.ends_with(let_out), "{privileged}");
}

#[test]
fn it_speaks_to_programs() {
    let json = |flow| -> Value {
        let ended = explain(flow, &["--json"]);
        assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""));
        serde_json::from_str(&ended.out).unwrap()
    };
    let flow = "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0";
    let expected = json!({
        "flow": flow,
        "policy": "tcp",
        "ports": "49152-49999,60000-61000",
        "kept": null,
        "passed_over": [
            { "policy": "builds", "reason": "the source port is not one that is translated" },
        ],
        "enforced_by": "builds",
        "dropped": "60000-61000",
        "program": [
            "postrouting rule 5 -> tcp/ports rule 2 -> tcp/49152-49999 rule 1",
            "postrouting rule 5 -> tcp/ports rule 2 -> tcp/60000-61000 rule 1",
        ],
        "agree": true,
    });
    assert_eq!(json(flow), expected);
    let kept = json("udp 10.0.0.7:40000 -> 203.0.113.9:53 oif eth1");
    assert_eq!((&kept["kept"], &kept["enforced_by"]), (&json!(40_000), &Value::Null));
    let untouched = json("udp 10.0.0.7:400 -> 203.0.113.9:53 oif eth1");
    assert_eq!((&untouched["policy"], &untouched["program"]), (&Value::Null, &json!([])));
}

#[test]
fn what_is_no_flow_is_wrong_usage() {
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
