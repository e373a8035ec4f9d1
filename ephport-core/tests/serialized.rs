//! The feature `serde`: what is written is read back equal, in a format for people and in one that is not, and what is
//! read is checked.

use std::fmt::Debug;

use ephport_core::strategies::{
    addresses, allocation, documents, flows, interface_patterns, marks, out_interfaces, policies,
    port_ranges, port_sets, ports, protocols, timeouts, wide_policies,
};
use ephport_core::{
    ConnectionTimeouts, Decision, DefaultRoute, Document, Effect, Families, Family, HostFacts,
    InterfaceName, Interfaces, Policy, PolicyError, PolicyName, Port, PortRange, PortSet, Reason,
    TimeoutState, Timeouts, evaluate,
};
use proptest::prelude::*;
use serde_json::json;

use serde::Serialize;
use serde::de::DeserializeOwned;

fn returns<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("JSON");
    let read: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(&read, value, "{text}");
    let bytes = postcard::to_allocvec(value).expect("postcard");
    let read: T = postcard::from_bytes(&bytes).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(&read, value, "{text}");
}

proptest! {
    #[test]
    fn policies_return(policy in policies(), wide in wide_policies(), document in documents()) {
        returns(&policy);
        returns(&wide);
        returns(&document);
    }

    #[test]
    fn written_document_is_a_policy_file(document in documents()) {
        let file = toml::to_string(&document).expect("TOML");
        prop_assert_eq!(file.parse(), Ok(document));
    }

    #[test]
    fn values_return(
        (port, range, set) in (ports(), port_ranges(), port_sets()),
        (protocols, pattern, out) in (protocols(), interface_patterns(), out_interfaces()),
        (address, mark, timeouts) in (addresses(), marks(), timeouts()),
        (table, map_e) in (allocation::block_tables(), allocation::map_es()),
        sources in allocation::address_ranges(),
    ) {
        returns(&port);
        returns(&(range, set));
        returns(&(protocols, pattern, out));
        returns(&(address, mark, timeouts, sources));
        returns(&(table, map_e));
    }

    #[test]
    fn flows_and_decisions_return(document in documents(), flow in flows()) {
        returns(&flow);
        let mut host = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
        host.local_ports = PortRange::named("linux");
        for policy in document.resolve(&host).unwrap_or_default() {
            let decision = policy.decide(&flow);
            if let Decision::Translated(translation) = &decision {
                returns(&Effect::Translated(translation.clone()));
            }
            returns(&decision);
        }
    }
}

#[test]
fn facts_of_an_earlier_version_are_read() {
    let mut host = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
    host.reserved_ports = "5000-5100".parse().unwrap();
    host.local_networks = vec!["192.0.2.7/32".parse().unwrap()];
    host.default_routes =
        vec![DefaultRoute::new("eth0".parse().unwrap(), 254, Family::Ipv4, None, false)];
    returns(&host);
    let older: HostFacts = serde_json::from_value(json!({ "uplinks": ["eth0"] })).unwrap();
    assert_eq!(older, HostFacts::with_uplinks(["eth0".parse().unwrap()]));
}

#[test]
fn small_values_have_the_texts_of_policy_files() {
    let policy = Policy::to(PortRange::EPHEMERAL).named("a").out(["eth0", "wg*"]).enforce();
    let policy = policy.with("timeouts", ["udp-53-replied=2"]).build().unwrap();
    let expected = json!({
        "name": "a", "out-interfaces": ["eth0", "wg*"], "to-ports": "1024-65535",
        "timeouts": { "udp-53-replied": 2 }, "enforce": true,
    });
    assert_eq!(serde_json::to_value(&policy).unwrap(), expected);
    let values = (
        (Port::new_assert(7), PortRange::new_assert(1, 9), Family::Ipv4, Families::Both),
        (Interfaces::Any, "eth0".parse::<InterfaceName>().unwrap(), PolicyName::default()),
        Reason::ExceptedInterface,
        ConnectionTimeouts::new([(TimeoutState::SynSent, 3)]),
        "udp-replied=9".parse::<Timeouts>().unwrap(),
    );
    let texts = json!([
        [7, "1-9", "ipv4", "ipv4,ipv6"],
        ["any", "eth0", "default"],
        "excepted-interface",
        { "syn_sent": 3 },
        "udp-replied=9",
    ]);
    assert_eq!(json!(values), texts);
    returns(&values);
}

#[test]
fn what_is_read_is_checked() {
    fn refused<T: DeserializeOwned + Debug>(value: serde_json::Value) -> String {
        serde_json::from_value::<T>(value).unwrap_err().to_string()
    }
    let cases = [
        refused::<Port>(json!(0)),
        refused::<PortSet>(json!("9-1")),
        refused::<InterfaceName>(json!("e*")),
        refused::<Policy>(json!({ "to-ports": "1-9" })),
        refused::<Policy>(json!({ "name": "a" })),
        refused::<Policy>(json!({ "name": "a", "to-ports": "1-9", "map-e": "psid=1" })),
        refused::<Policy>(json!({ "name": "a", "to-port": "1-9" })),
        refused::<Policy>(json!({ "name": "a", "to-ports": "1-9", "sources": [] })),
        refused::<Policy>(json!({ "name": "a", "to-ports": "1-9", "enforce": "true" })),
        refused::<Policy>(json!({ "name": "a", "to-ports": "1-9", "except-ports": "1-9" })),
        refused::<Policy>(json!([])),
        refused::<Document>(json!({ "policy": [] })),
    ];
    expect_test::expect![[r#"
        port 0 is not a port: expected 1 to 65535
        range 9-1 is reversed: write 1-9
        `e*`: expected `*` only at the end of a prefix, like wg*
        missing field `name`
        expected exactly one of to-ports, map-e, blocks, blocks-file
        map-e: `psid-len` is missing: expected psid=52,psid-len=8,offset=6, or ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,delegated=2001:db8:12:3400::/56
        unknown key `to-port`: expected to-ports
        sources: an empty list has no meaning
        enforce: expected a value like true
        no ports left to permit: to-ports minus except-ports is empty
        invalid type: sequence, expected a policy with the keys of policy files
        there is no policy: expected at least one"#]].assert_eq(&cases.join("\n"));
}

#[test]
fn errors_and_warnings_have_parts() {
    let text = "[[policy]]\nname = \"a\"\nto-ports = \"iana\"\nper-source-stable = true\n";
    let warnings = serde_json::to_value(text.parse::<Document>().unwrap().warnings()).unwrap();
    let error = "[[policy]]\nname = \"a\"\nto-ports = \"x\"\n".parse::<Document>().unwrap_err();
    let refused: PolicyError =
        Policy::to(PortRange::EPHEMERAL).with("except-ports", ["1-65535"]).build().unwrap_err();
    let parts = json!([warnings, error, refused]);
    expect_test::expect![[r#"
        [
          [
            {
              "message": "policy a: per-source-stable has no effect: there is only one range",
              "name": "no-effect",
              "policy": "a"
            }
          ],
          {
            "column": 12,
            "keys": [
              "to-ports"
            ],
            "line": 3,
            "message": "to-ports \"x\": `x` is not a port: expected a number from 1 to 65535"
          },
          {
            "keys": [
              "to-ports",
              "except-ports"
            ],
            "message": "no ports left to permit: to-ports minus except-ports is empty"
          }
        ]"#]]
    .assert_eq(&format!("{parts:#}"));
}

#[test]
fn evaluations_name_what_matched() {
    let policy = Policy::to(PortRange::EPHEMERAL).out_any().build().unwrap();
    let policies = [policy.resolve(&HostFacts::default()).unwrap()];
    let flow = "tcp 10.0.0.7:80 -> 203.0.113.9:443 oif eth0".parse().unwrap();
    let reason = evaluate(&policies, &flow).non_matches[0].reason;
    assert_eq!(serde_json::to_value(reason).unwrap(), json!("source-port"));
}
