use proptest::prelude::*;

use super::*;
use crate::decision::{Decision, evaluate, permits, permits_invalid};
use crate::net::family::Families;
use crate::net::port::Port;
use crate::policy::scope::{Ipsec, Origin, OutInterfaces, Scope};
use crate::policy::{Address, OpenConnections, PickUp, PolicySpec, Target};
use crate::strategies::allocation::block_tables;
use crate::strategies::{documents, flows, ports, wide_documents, wide_policies};

const POLICY: &str = "[[policy]]\nname = \"a\"\nto-ports = \"1-9\"\n";

fn policy(name: &str) -> Policy {
    let spec = PolicySpec::to(Target::Ports("49152-61000".parse().unwrap()));
    Policy::new(PolicySpec { name: name.parse().unwrap(), ..spec }).unwrap()
}

#[test]
fn every_key_is_read_and_printed() {
    let text = r#"[[policy]]
name = "builds"
protocols = ["tcp", "sctp"]
out-interfaces = ["eth0", "wg*"]
except-interfaces = ["wg0"]
in-interfaces = ["docker0", "br-*"]
sources = ["172.16.0.0/12"]
destinations = ["0.0.0.0/1", "198.51.100.7/32"]
except-destinations = ["10.0.0.0/8", "2001:db8::/32"]
destination-ports = "80,443"
origin = "forwarded"
families = ["ipv4"]
mark = "0x1/0xff"
ipsec = "match"
source-ports = "1-65535"
exempt-source-ports = "500,4500"
to-ports = "49152-61000"
except-ports = "50000-50010"
random = true
fully-random = true
persistent = true
per-source-stable = true
address = "192.0.2.1"
pick-up = "any"
enforce = true
open-connections = "drop"

[[policy]]
name = "subscribers"
blocks = "10.0.0.0/22=63@1024-65535"

[[policy]]
name = "two"
out-interfaces = "any"
blocks = ["10.0.0.1=1024-2047", "10.0.0.2=2048-4095"]

[[policy]]
name = "host"
origin = "local"
families = ["ipv6"]
to-ports = "local"
address = "keep"
"#;
    let document: Document = text.parse().unwrap();
    let [builds, _, _, host] = document.policies() else { panic!("four policies") };
    assert_eq!(builds.scope.origin, Origin::Forwarded);
    assert_eq!(builds.scope.out_interfaces, "eth0,wg*".parse().unwrap());
    assert_eq!(builds.address, Address::Fixed("192.0.2.1".parse().unwrap()));
    assert_eq!(builds.pick_up, PickUp::Any);
    assert_eq!(
        (builds.scope.ipsec, builds.open_connections),
        (Ipsec::Match, OpenConnections::Drop)
    );
    assert_eq!(builds.scope.mark.map(|mark| mark.to_string()).as_deref(), Some("0x1/0xff"));
    assert_eq!(builds.scope.destination_ports.to_string(), "80,443");
    assert_eq!((builds.scope.in_interfaces.len(), builds.scope.except_interfaces.len()), (2, 1));
    assert_eq!((&host.target, host.scope.families), (&Target::Local, Families::Ipv6));
    assert_eq!(document.to_toml(), text);
}

#[test]
fn what_says_the_default_is_not_printed() {
    let text = r#"
        policy = [{ name = "a", to-ports = "49152:61000", out-interfaces = "uplinks",
                    origin = "both", families = ["ipv6", "ipv4"], protocols = ["udp", "tcp"],
                    address = "masquerade", pick-up = "opening", enforce = false,
                    destination-ports = "1-65535", ipsec = "skip", open-connections = "keep" }]"#;
    let document: Document = text.parse().unwrap();
    assert_eq!(document, policy("a").into());
    assert_eq!(document.to_toml(), "[[policy]]\nname = \"a\"\nto-ports = \"49152-61000\"\n");
}

#[test]
fn map_e_parameters_become_ports() {
    let text = "[[policy]]\nname = \"a\"\nmap-e = \"psid=52,psid-len=8,offset=1\"";
    let document: Document = text.parse().unwrap();
    let printed = "[[policy]]\nname = \"a\"\nto-ports = \"39424-39551\"\n";
    assert_eq!(document.to_toml(), printed);
}

#[test]
fn an_address_is_a_network_and_doubled_interfaces_are_one() {
    let text = format!("{POLICY}sources = [\"10.0.0.7\"]\nout-interfaces = [\"eth0\", \"eth0\"]");
    let document: Document = text.parse().unwrap();
    let scope = &document.policies()[0].scope;
    assert_eq!(scope.sources, ["10.0.0.7/32".parse().unwrap()]);
    assert_eq!(scope.out_interfaces, "eth0".parse().unwrap());
}

/// What stands after `POLICY`, on its line 4 and behind.
#[test]
fn every_message_about_a_value_says_where_it_stands() {
    let cases = [
        (
            "protocols = \"tcp\"",
            "13: protocols \"tcp\": expected a list of strings, like [\"tcp\"]",
        ),
        (
            "protocols = [\"tcp\", \"é\"]",
            "21: protocols \"é\": unknown protocol `é`: expected tcp, udp, udplite or sctp",
        ),
        ("protocols = [\"tcp\", 5]", "21: protocols 5: expected a list of strings, like [\"tcp\"]"),
        (
            "protocols = [ ]",
            "13: protocols [ ]: an empty list says nothing: leave the key out, or name something",
        ),
        (
            "sources = [\"10.0.0.0/33\"]",
            "12: sources \"10.0.0.0/33\": expected a network like 10.0.0.0/8 or an address",
        ),
        (
            "out-interfaces = \"eth0\"",
            "18: out-interfaces \"eth0\": expected \"any\" or a list of strings, like [\"eth0\"]",
        ),
        (
            "out-interfaces = [\"any\"]",
            "19: out-interfaces \"any\": expected the name of an interface: \
             `any` and `uplinks` stand alone, not in a list",
        ),
        (
            "out-interfaces = [\"*\"]",
            "19: out-interfaces \"*\": `*` alone would include loopback: \
             write `any` for every interface but loopback",
        ),
        ("families = [\"ip\"]", "13: families \"ip\": expected ipv4 or ipv6"),
        ("origin = \"here\"", "10: origin \"here\": expected local, forwarded or both"),
        ("origin = 1", "10: origin 1: expected a string, like \"local\""),
        ("random = 1", "10: random 1: expected true or false"),
        (
            "address = \"1.2.3\"",
            "11: address \"1.2.3\": expected masquerade, keep or an address like 192.0.2.1",
        ),
        ("pick-up = \"all\"", "11: pick-up \"all\": expected opening or any"),
        ("source-ports = 1024", "16: source-ports 1024: expected a string, like \"1024-65535\""),
        (
            "except-ports = \"1-65535\"",
            "16: \"1-65535\": policy `a`: no port is allowed: \
             name at least one to go to, like 49152-61000",
        ),
        (
            "exempt-source-ports = \"1-65535\"",
            "23: \"1-65535\": policy `a`: no source port is moved: \
             name at least one, like 1024-65535",
        ),
        (
            "address = \"::1\"\nfamilies = [\"ipv4\"]",
            "11: \"::1\": policy `a`: address ::1 is of a family that the policy leaves alone: \
             name one of its own",
        ),
        (
            "map-e = \"psid=1,psid-len=1\"",
            "9: map-e \"psid=1,psid-len=1\": the policy has to-ports already: \
             expected one of them",
        ),
        (
            "speed = 1",
            "1: unknown key `speed`: expected name, protocols, out-interfaces, \
             except-interfaces, in-interfaces, sources, destinations, except-destinations, \
             destination-ports, origin, families, mark, ipsec, source-ports, exempt-source-ports, to-ports, \
             map-e, blocks, except-ports, random, fully-random, persistent, per-source-stable, \
             address, pick-up, enforce, open-connections",
        ),
        ("speed = = 1", "9: `=`: not TOML: extra `=`, expected nothing"),
        (
            "random = maybe",
            "10: `maybe`: not TOML: string values must be quoted, expected literal string",
        ),
    ];
    for (more, message) in cases {
        let error = format!("{POLICY}{more}").parse::<Document>().unwrap_err();
        assert_eq!(error.to_string(), format!("line 4, column {message}"));
    }
}

#[test]
fn every_message_about_a_target_says_where_it_stands() {
    let cases = [
        (
            "to-ports = 1024",
            "line 3, column 12: to-ports 1024: expected a string, like \"49152-61000\"",
        ),
        (
            "to-ports = \"10-x\"",
            "line 3, column 12: to-ports \"10-x\": `x` is not a port: \
             expected a number from 1 to 65535",
        ),
        (
            "to-ports = \"10-20",
            "line 3, column 18: `to-ports = \"10-20`: not TOML: invalid basic string, expected `\"`",
        ),
        (
            "map-e = \"psid=300,psid-len=8\"",
            "line 3, column 9: map-e \"psid=300,psid-len=8\": psid 300 does not fit in 8 bits: \
             expected 0 to 255",
        ),
        (
            "blocks = 1",
            "line 3, column 10: blocks 1: expected a string or a list of strings, \
             like \"10.0.0.0/22=63@1024-65535\"",
        ),
        (
            "blocks = [\"10.0.0.1=1\",\n   \"10.0.0.2\"]",
            "line 4, column 4: blocks \"10.0.0.2\": `10.0.0.2` is not a block: \
             expected SOURCE=PORTS, like 10.0.0.1=1024-2047",
        ),
        (
            "blocks = [\"10.0.0.1=1\",\n  \"10.0.0.1=2\"]",
            "line 3, column 10: blocks [\"10.0.0.1=1\",...: 10.0.0.1=1 and 10.0.0.1=2 are for the \
             same source: expected one block for each",
        ),
        (
            "blocks = \"10.0.0.1=1\"\nper-source-stable = true",
            "line 4, column 21: true: policy `a`: each source has one block: \
             per-source-stable means nothing for a block table",
        ),
        (
            "enforce = true",
            "line 1, column 1: policy `a` does not say where to: \
             expected one of to-ports, map-e and blocks",
        ),
    ];
    for (target, message) in cases {
        let error = format!("[[policy]]\nname = \"a\"\n{target}").parse::<Document>().unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn every_message_about_the_document_says_where_it_stands() {
    let twice = format!("{POLICY}\n{POLICY}");
    let cases = [
        ("", "line 1, column 1: there is no policy: expected at least one [[policy]]"),
        ("policy = []", "line 1, column 10: []: there is no policy: expected at least one"),
        ("policy = 1", "line 1, column 10: policy 1: expected [[policy]] above each policy"),
        (
            "\n[policy]\nname = \"a\"",
            "line 2, column 1: policy [policy]: expected [[policy]] above each policy",
        ),
        ("a = 1\n[[policy]]", "line 1, column 1: unknown key `a`: expected [[policy]]"),
        (
            "[[policy]]\n",
            "line 1, column 1: [[policy]]: the policy has no name: \
             expected for example name = \"builds\"",
        ),
        (
            "[[policy]]\nname = \"9\"",
            "line 2, column 8: name \"9\": `9` cannot name a policy: expected a letter, then \
             letters, digits, `_`, `-` or `.`, at most 32 in all",
        ),
        (
            &twice,
            "line 6, column 8: \"a\": policies 1 and 2 are both named `a`: \
             expected a name of its own for each",
        ),
        (
            "[[policy]]\nname = \"a\"\nname = \"b\"",
            "line 3, column 1: `name`: not TOML: duplicate key",
        ),
        ("nonsense", "line 1, column 9: `nonsense`: not TOML: key with no value, expected `=`"),
    ];
    for (text, message) in cases {
        assert_eq!(text.parse::<Document>().unwrap_err().to_string(), message);
    }
}

#[test]
fn documents_hold_policies_with_names_of_their_own() {
    assert_eq!(
        Document::new(Vec::new()).unwrap_err().to_string(),
        "there is no policy: expected at least one"
    );
    let three = ["a", "b", "a"].map(policy).to_vec();
    assert_eq!(
        Document::new(three).unwrap_err().to_string(),
        "policies 1 and 3 are both named `a`: expected a name of its own for each"
    );
}

#[test]
fn a_policy_without_a_meaning_is_named() {
    let document = Document::new(vec![policy("builds")]).unwrap();
    assert_eq!(
        document.resolve(&HostFacts::default()).unwrap_err().to_string(),
        "policy `builds`: no uplink found: no interface holds a default route; \
         name the interfaces with `-o eth0`, or take all of them with `-o any`"
    );
}

/// Two enforced policies of which the first moves high ports alone.
#[test]
fn the_first_policy_in_scope_owns_the_connection() {
    let document: Document = r#"
        [[policy]]
        name = "first"
        out-interfaces = ["eth0"]
        source-ports = "40000-65535"
        to-ports = "50000-50009"
        enforce = true

        [[policy]]
        name = "second"
        out-interfaces = "any"
        to-ports = "60000-60009"
        enforce = true
    "#
    .parse()
    .unwrap();
    let policies = document.resolve(&HostFacts::default()).unwrap();
    let outcome = |flow: &str| {
        let outcome = evaluate(&policies, &flow.parse().unwrap());
        (outcome.matched.map(|matched| matched.index), outcome.non_matches.len())
    };
    assert_eq!(outcome("tcp 10.0.0.1:45000 -> 10.0.0.2:80 oif eth0"), (Some(0), 0));
    assert_eq!(outcome("tcp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth0"), (Some(1), 1));
    assert_eq!(outcome("tcp 10.0.0.1:100 -> 10.0.0.2:80 oif eth0"), (None, 2));
    let out = |flow: &str, leaving: u16| {
        permits(&policies, &flow.parse().unwrap(), Port::new(leaving).unwrap())
    };
    let low = "tcp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth0";
    // The second moves it, but the first owns it.
    assert!(out(low, 50_000) && !out(low, 60_000) && !out(low, 30_000) && out(low, 100));
    let other = "tcp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth1";
    assert!(out(other, 60_000) && !out(other, 50_000));
    assert!(out("sctp 10.0.0.1:30000 -> 10.0.0.2:80 oif eth0", 30_000));
}

fn printable_policies() -> impl Strategy<Value = Policy> {
    let spec = (wide_policies(), block_tables(), any::<(bool, bool, bool)>());
    spec.prop_filter_map("parts that do not fit", |(policy, table, (uplinks, local, blocks))| {
        let mut spec = (*policy).clone();
        if uplinks {
            spec.scope = Scope { out_interfaces: OutInterfaces::Uplinks, ..spec.scope };
        }
        match (local, blocks) {
            (true, _) => spec.target = Target::Local,
            (false, true) => spec.target = Target::Blocks(table),
            (false, false) => {}
        }
        Policy::new(spec).ok()
    })
}

#[test]
fn an_enforced_policy_takes_unplaced_packets_for_its_own_by_what_is_sure_of_them() {
    let first = "sources = [\"10.0.0.0/8\"]\nexcept-destinations = [\"192.0.2.0/24\"]";
    let last =
        "[[policy]]\nname = \"b\"\nout-interfaces = \"any\"\nto-ports = \"1-9\"\nenforce = true";
    let permits = |lines: &str, flow: &str| {
        let text = format!("{POLICY}out-interfaces = [\"eth0\"]\n{lines}\n");
        let policies = text.parse::<Document>().unwrap().resolve(&HostFacts::default()).unwrap();
        permits_invalid(&policies, &flow.parse().unwrap())
    };
    let flow = "tcp 172.16.0.1:2000 -> 192.0.2.1:80 oif eth0";
    assert!(permits(first, flow), "it is not enforced");
    assert!(!permits(&format!("{first}\nenforce = true"), flow), "its source is not sure");
    let elsewhere = "tcp 172.16.0.1:2000 -> 192.0.2.1:80 oif eth1";
    assert!(permits(&format!("{first}\nenforce = true"), elsewhere));
    let group = "udp 172.16.0.1:2000 -> 224.0.0.1:80 oif eth0";
    assert!(permits(&format!("{first}\nenforce = true"), group));
    let nowhere = "except-destinations = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\nenforce = true";
    assert!(permits(nowhere, flow), "nothing is in scope");
    // One that is not enforced keeps them from the next only where all of it is sure.
    assert!(permits(last, flow));
    assert!(!permits(&format!("sources = [\"172.16.0.0/12\"]\n{last}"), flow));
    assert!(!permits(&format!("except-destinations = [\"192.0.2.0/24\"]\n{last}"), flow));
}

proptest! {
    #[test]
    fn what_is_printed_parses_back(document in wide_documents()) {
        prop_assert_eq!(document.to_toml().parse(), Ok(document));
    }

    #[test]
    fn policies_that_depend_on_the_host_parse_back(policy in printable_policies()) {
        let document = Document::from(policy);
        prop_assert_eq!(document.to_toml().parse(), Ok(document));
    }

    #[test]
    fn first_translating_policy_matches(document in documents(), flow in flows()) {
        let policies = document.resolve(&HostFacts::default()).unwrap();
        let evaluation = evaluate(&policies, &flow);
        let decisions: Vec<_> = policies.iter().map(|policy| policy.decide(&flow)).collect();
        for passed in &evaluation.non_matches {
            prop_assert_eq!(&decisions[passed.index], &Decision::Untouched(passed.reason));
        }
        let matched = evaluation.matched.clone();
        let index = matched.as_ref().map_or(policies.len(), |matched| matched.index);
        prop_assert_eq!(evaluation.non_matches.len(), index);
        let translation = matched.map(|matched| Decision::Translated(matched.translation));
        prop_assert_eq!(decisions.get(index), translation.as_ref());
    }

    #[test]
    fn enforcing_policy_permits_its_own_translations(
        document in documents(), flow in flows(), port in ports()
    ) {
        let policies = document.resolve(&HostFacts::default()).unwrap();
        let owner = policies.iter().position(|policy| policy.out_of_scope(&flow).is_none());
        if let Some(matched) = evaluate(&policies, &flow).matched
            && owner == Some(matched.index)
        {
            prop_assert!(matched.translation.ports.ports().all(|port| permits(&policies, &flow, port)));
        }
        if owner.is_none_or(|owner| !policies[owner].enforce) {
            prop_assert!(permits(&policies, &flow, port));
        }
    }

    #[test]
    fn parsing_never_panics(text in "(\\[\\[policy\\]\\]\n|name|to-ports|=|\"[a-z0-9é-]{0,4}\"|\n|[ -~]){0,40}") {
        let _ = text.parse::<Document>();
    }

    /// A policy file of which one character is another.
    #[test]
    fn damaged_files_never_panic(document in documents(), at in any::<prop::sample::Index>(), c in any::<char>()) {
        let mut text: Vec<char> = document.to_toml().chars().collect();
        let at = at.index(text.len());
        text[at] = c;
        if let Err(error) = text.into_iter().collect::<String>().parse::<Document>() {
            prop_assert!(error.line >= 1 && error.column >= 1);
        }
    }
}
