use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::decision::Decision;
use crate::host::HostFacts;
use crate::net::port::PortRange;
use crate::policy::file::Document;
use crate::policy::warning::Warning;
use crate::strategies::{wide_documents, wide_policies};
use crate::{Families, Family, PortSet, Scope, ValueError};

fn spec() -> PolicySpec {
    PolicySpec::to(PortRange::EPHEMERAL)
}

#[test]
fn fixed_address_narrows_the_families() {
    let families = |address: &str| {
        let policy = Policy::new(PolicySpec { address: address.parse().unwrap(), ..spec() });
        policy.map(|policy| policy.families())
    };
    assert_eq!(families("masquerade"), Ok(Families::Both));
    assert_eq!(families("keep"), Ok(Families::Both));
    assert_eq!(families("192.0.2.1"), Ok(Families::Ipv4));
    assert_eq!(families("2001:db8::1"), Ok(Families::Ipv6));
}

#[test]
fn blocks_without_outside_addresses_accept_an_address() {
    let table: crate::BlockTable = "10.0.0.0/30=64@1024-65535".parse().unwrap();
    let policy = Policy::new(PolicySpec { address: Address::Keep, ..PolicySpec::to(table) });
    assert!(policy.is_ok());
}

#[test]
fn errors_of_parts() {
    let no_protocol = Scope { protocols: Some(std::iter::empty().collect()), ..Scope::default() };
    let host_bits = Scope { sources: vec!["10.0.0.1/8".parse().unwrap()], ..Scope::default() };
    let no_destination = Scope { destination_ports: PortSet::EMPTY, ..Scope::default() };
    let errors: String = [
        PolicySpec { source_ports: PortSet::EMPTY, ..spec() },
        PolicySpec::to(PortSet::EMPTY),
        PolicySpec { scope: no_protocol, ..spec() },
        PolicySpec { scope: host_bits, ..spec() },
        PolicySpec { scope: no_destination, ..spec() },
    ]
    .map(|spec| format!("{}\n", Policy::new(spec).unwrap_err()))
    .concat();
    expect![[r#"
        no source ports left to translate: source-ports minus exempt-source-ports is empty
        no ports left to permit: to-ports minus except-ports is empty
        no connection can match protocols none
        sources: 10.0.0.1/8 has bits after its prefix: expected the network 10.0.0.0/8 or the address 10.0.0.1
        no connection can match destination-ports none
    "#]].assert_eq(&errors);
}

#[test]
fn builder_keeps_the_first_error() {
    let builder = Policy::to(PortRange::EPHEMERAL).named("a b").out(["lo"]);
    let error = builder.build().unwrap_err();
    assert_eq!(error.keys(), ["name"]);
    let unknown = Policy::to(PortRange::EPHEMERAL).with("speed", ["1"]).build().unwrap_err();
    assert_eq!(unknown.to_string(), "unknown key `speed`");
    let policy = Policy::to(PortRange::EPHEMERAL)
        .named("a")
        .out(["eth0", "wg*"])
        .sources(["10.0.0.0/8"])
        .destinations(["192.0.2.0/24"])
        .protocols(["tcp"])
        .address(Address::Keep)
        .enforce()
        .build()
        .unwrap();
    let text = "[[policy]]\nname = \"a\"\nprotocols = [\"tcp\"]\nout-interfaces = [\"eth0\", \"wg*\"]\n\
                sources = [\"10.0.0.0/8\"]\ndestinations = [\"192.0.2.0/24\"]\n\
                to-ports = \"1024-65535\"\naddress = \"keep\"\nenforce = true\n";
    assert_eq!(Document::from(policy).to_toml(), text);
    let any = Policy::to(PortRange::EPHEMERAL).out_any().build().unwrap();
    assert_eq!(any.spec().scope.out_interfaces, crate::OutInterfaces::Any);
}

/// The warnings of a document with policies of these lines.
fn warnings(policies: &[&str]) -> String {
    let policy = |(lines, name): (&&str, char)| {
        let target = if lines.contains("blocks") { "" } else { "to-ports = \"1024-65535\"\n" };
        format!("[[policy]]\nname = \"{name}\"\n{target}{lines}\n")
    };
    let text: String = policies.iter().zip('a'..).map(policy).collect();
    let document: Document = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    document.warnings().iter().flat_map(|warning| [warning.to_string(), "\n".into()]).collect()
}

#[test]
fn keys_without_effect_are_warnings() {
    let all: String = [
        "random = true\nfully-random = true",
        "random = true\nper-source-stable = true",
        "per-source-stable = true",
        "random = true\nspread = \"hash\"",
        "spread = \"round-robin\"",
        "except-ports = \"2000\"\nspread = \"hash\"\nper-source-stable = true",
        "except-ports = \"2000\"\nspread = \"weighted\"\nrandom = true",
        "persistent = true\naddress = \"keep\"",
        "persistent = true\naddress = \"192.0.2.1\"",
        "pick-up = \"any\"\nprotocols = [\"udp\"]",
        "open-connections = \"drop\"",
        "expected-connections = \"drop\"",
        "exempt-source-ports = \"53\"",
        "except-ports = \"53\"",
        "destinations = [\"10.0.0.0/8\"]\nexcept-destinations = [\"192.0.2.0/24\", \"2001:db8::/32\"]",
        "out-interfaces = [\"eth0\"]\nexcept-interfaces = [\"wg*\"]",
        "except-interfaces = [\"lo\"]",
    ]
    .map(|lines| warnings(&[lines]))
    .concat();
    expect![[r#"
        policy a: random has no effect: fully-random chooses a random port already
        policy a: per-source-stable has no effect: a random port differs for each destination
        policy a: per-source-stable has no effect: there is only one range
        policy a: per-source-stable has no effect: there is only one range
        policy a: spread has no effect: a random port differs for each destination
        policy a: spread has no effect: there is only one range
        policy a: spread has no effect: there is only one range
        policy a: per-source-stable has no effect: spread = hash is the same
        policy a: persistent has no effect: the address is the same for all connections already
        policy a: persistent has no effect: the address is the same for all connections already
        policy a: pick-up has no effect: the policy does not match tcp
        policy a: open-connections has no effect: the policy is not enforced
        policy a: expected-connections has no effect: the policy is not enforced
        policy a: exempt-source-ports has no effect: none of them is in source-ports
        policy a: except-ports has no effect: none of them is permitted by the target
        policy a: except-destinations has no effect: none of them is in destinations
        policy a: except-interfaces has no effect: none of them is an output interface of the policy
        policy a: except-interfaces has no effect: none of them is an output interface of the policy
    "#]]
    .assert_eq(&all);
    for lines in [
        "",
        "enforce = true\nexempt-source-ports = \"53\"",
        "persistent = true",
        "except-destinations = [\"10.0.0.0/8\"]",
        "except-interfaces = [\"wg0\"]",
        "out-interfaces = [\"wg*\"]\nexcept-interfaces = [\"wg0\"]",
        "enforce = true\nopen-connections = \"drop\"",
    ] {
        assert_eq!(warnings(&[lines]), "", "{lines}");
    }
}

#[test]
fn shadowed_policies_are_warnings() {
    let expected =
        "policy b has no effect: policy a before it matches every connection that it matches\n";
    for (first, second) in [
        ("", ""),
        ("", "sources = [\"10.0.0.0/8\"]\nenforce = true"),
        ("out-interfaces = \"any\"", "out-interfaces = [\"eth0\"]"),
        ("out-interfaces = \"any\"", ""),
        ("out-interfaces = [\"w*\"]", "out-interfaces = [\"wg*\", \"wan0\"]"),
        ("mark = \"0x1/0x1\"", "mark = \"0x3/0xff\""),
        ("except-destinations = [\"10.0.0.0/9\"]", "except-destinations = [\"10.0.0.0/8\"]"),
        ("except-interfaces = [\"wg0\"]", "except-interfaces = [\"wg*\"]"),
        ("origin = \"forwarded\"", "in-interfaces = [\"docker0\"]"),
        ("ipsec = \"match\"", ""),
        (
            "sources = [\"10.0.0.0/8\"]",
            "blocks = \"10.0.0.0/30=64@1024-65535\"\nprotocols = [\"tcp\"]",
        ),
        ("protocols = [\"icmp\", \"tcp\"]", "protocols = [\"icmp\"]\nfamilies = [\"ipv4\"]"),
    ] {
        assert_eq!(warnings(&[first, second]), expected, "{first} before {second}");
    }
    for (first, second) in [
        ("protocols = [\"tcp\"]", ""),
        ("sources = [\"10.0.0.0/8\"]", "blocks = \"10.0.0.0/30=64@1024-65535\""),
        ("out-interfaces = [\"eth0\"]", ""),
        ("mark = \"0x1/0x1\"", ""),
        ("mark = \"0x1/0xff\"", "mark = \"0x1/0x1\""),
        ("source-ports = \"2000-3000\"", ""),
        ("except-interfaces = [\"wg*\"]", "except-interfaces = [\"wg0\"]"),
        ("", "ipsec = \"match\""),
        ("", "pick-up = \"any\""),
        ("blocks = \"10.0.0.0/30=64@1024-65535\"", "sources = [\"10.0.0.0/8\"]"),
        ("families = [\"ipv4\"]", ""),
        ("destination-ports = \"443\"", ""),
        ("in-interfaces = [\"docker0\"]", "origin = \"forwarded\""),
    ] {
        assert_eq!(warnings(&[first, second]), "", "{first} before {second}");
    }
}

#[test]
fn absent_interfaces_are_warnings() {
    let text = "[[policy]]\nname = \"a\"\nout-interfaces = [\"eth0\", \"wg*\"]\n\
                in-interfaces = [\"docker0\"]\nto-ports = \"1024\"";
    let document: Document = text.parse().unwrap();
    let host = HostFacts { interfaces: vec!["eth0".parse().unwrap()], ..HostFacts::default() };
    let warnings = document.host_warnings(&host);
    let messages: String =
        warnings.iter().flat_map(|warning| [warning.to_string(), "\n".into()]).collect();
    expect![[r#"
        policy a: no interface matches `wg*` now; the policy applies to it as soon as one does
        policy a: no interface matches `docker0` now; the policy applies to it as soon as one does
    "#]]
    .assert_eq(&messages);
    assert_eq!(warnings[0].name(), "no-interface");
}

/// A host with what the kernels of most test machines lack.
fn unusual_host() -> HostFacts {
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    HostFacts {
        uplinks: names(&["eth0"]),
        interfaces: names(&["br0", "eth0", "eth1", "eth2", "red", "red-b"]),
        port_devices: vec![("eth2".parse().unwrap(), "br0".parse().unwrap())],
        vrfs: names(&["red", "red-b"]),
        filtered_bridges: names(&["br0"]),
        alternative_names: vec![("tenants".parse().unwrap(), "red".parse().unwrap())],
        local_networks: vec!["192.0.2.2/32".parse().unwrap(), "203.0.113.0/28".parse().unwrap()],
        routed_networks: (0..11)
            .map(|i| (format!("10.{i}.0.0/16").parse().unwrap(), "eth0".parse().unwrap()))
            .collect(),
        udp_listeners: "500,4500,5000,51999".parse().unwrap(),
        wireguard_ports: "51999".parse().unwrap(),
        ..HostFacts::default()
    }
}

#[test]
fn warnings_of_a_host_name_cause_and_key() {
    let warnings = |lines: &str| -> String {
        let text = format!("[[policy]]\nname = \"a\"\n{lines}");
        let warnings = text.parse::<Document>().unwrap().host_warnings(&unusual_host());
        let lines = warnings.iter().map(|warning| format!("{}: {warning}\n", warning.name()));
        lines.collect::<Vec<_>>().concat()
    };
    let cases = [
        "to-ports = \"1024-2047\"\nout-interfaces = [\"red\", \"tenants\", \"red*\", \"eth1\"]\nprotocols = \"tcp\"",
        "to-ports = \"1024-2047\"\nout-interfaces = \"eth1\"",
        "to-ports = \"1024-2047\"\nprotocols = \"tcp\"",
        "to-ports = \"1024-2047\"\nprotocols = \"tcp\"\nenforce = true\nout-interfaces = \"any\"\norigin = \"local\"",
        "to-ports = \"1024-2047\"\nprotocols = \"tcp\"\naddress = \"203.0.113.16\"\norigin = \"local\"",
        "blocks = [\"10.0.0.1=203.0.113.15:1024-2047\", \"10.0.0.2=203.0.113.16:1024-2047\"]\n\
         out-interfaces = \"eth1\"\nprotocols = \"tcp\"",
        "to-ports = \"1024-2047\"\nprotocols = \"tcp\"\naddress = \"keep\"",
        "to-ports = \"1024-2047\"\nprotocols = \"tcp\"\nout-interfaces = [\"eth2\", \"eth*\", \"ETH0\", \"eth1@if5\"]\n\
         in-interfaces = [\"eth2\"]\nexcept-interfaces = [\"absent0\"]",
        "to-ports = \"1024-2047\"\nprotocols = \"tcp\"\nout-interfaces = \"any\"\nexcept-interfaces = [\"eth2\"]\n\
         except-destinations = \"10.0.0.0/8\"",
    ];
    expect![[r#"
        vrf-device: policy a: `red` is a VRF device, which sends nothing itself: name the interfaces in the VRF
        vrf-device: policy a: `red` is a VRF device, which sends nothing itself: name the interfaces in the VRF
        vrf-device: policy a: `red*` is a VRF device, which sends nothing itself: name the interfaces in the VRF

        server-port: policy a: IPsec NAT traversal of this host uses UDP port 4500, which is translated when this host sends first: exempt-source-ports = "4500" keeps it
        server-port: policy a: WireGuard of this host uses UDP port 51999, which is translated when this host sends first: exempt-source-ports = "51999" keeps it

        routed-networks: policy a: connections from other hosts to 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, 10.5.0.0/16, 10.6.0.0/16, 10.7.0.0/16, 3 more (own route by eth0) get an address of this host: except-destinations excludes networks that know the way back

        filtered-bridge: policy a: the frames of bridge br0 pass netfilter (bridge-nf-call-iptables): a frame that another tool's NAT translates to a port that is not permitted is dropped

        no-address: policy a: no interface of this host has the address 203.0.113.16: replies arrive only if other hosts route it to this one

        no-address: policy a: no interface of this host has the address 203.0.113.16: replies arrive only if other hosts route it to this one

        private-sources: policy a: address = "keep" applies to private sources of other hosts too, and replies to these do not arrive from outside: use auto or masquerade, or origin = "local"

        port-device: policy a: `eth2` is a port of br0, by which the host sends and receives: name br0
        no-interface: policy a: no interface matches `ETH0` now; the policy applies to it as soon as one does. `eth0` exists
        no-interface: policy a: no interface matches `eth1@if5` now; the policy applies to it as soon as one does. `eth1` exists
        port-device: policy a: `eth2` is a port of br0, by which the host sends and receives: name br0
        routed-networks: policy a: connections from other hosts to 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, 10.5.0.0/16, 10.6.0.0/16, 10.7.0.0/16, 3 more (own route by eth0) get an address of this host: except-destinations excludes networks that know the way back

        port-device: policy a: `eth2` is a port of br0, by which the host sends and receives: name br0
    "#]].assert_eq(&cases.map(warnings).join("\n"));
}

proptest! {
    #[test]
    fn every_policy_translates_its_example(policy in wide_policies()) {
        let flow = policy.example_flow().expect("accepted policies have one");
        let resolved = policy.resolve(&HostFacts::default()).unwrap();
        let decision = resolved.decide(&flow);
        prop_assert!(matches!(decision, Decision::Translated(_)), "{policy:?} {flow} {decision:?}");
    }

    /// Neither flows nor the example of the later policy reach it.
    #[test]
    fn unreachable_policies_match_no_connection(
        document in wide_documents(),
        flows in proptest::collection::vec(crate::strategies::wide_flows(), 8),
    ) {
        let policies = document.resolve(&HostFacts::default()).unwrap();
        for warning in document.warnings() {
            let Warning::Unreachable { policy, .. } = warning else { continue };
            let index = policies.iter().position(|resolved| resolved.name == policy).unwrap();
            let example = document.policies()[index].example_flow();
            for flow in flows.iter().cloned().chain(example) {
                let matched = crate::evaluate(&policies, &flow).matched;
                prop_assert!(matched.is_none_or(|matched| matched.index != index), "{flow}");
            }
        }
    }

    #[test]
    fn refused_policies_match_no_flow(
        spec in crate::strategies::specs(), flow in crate::strategies::wide_flows()
    ) {
        if let Err(error) = Policy::new(spec.clone()) {
            prop_assert!(!error.keys().is_empty());
            // A resolved policy has a family.
            let has_family = Family::ALL.into_iter().any(|family| !spec.excludes(family));
            if matches!(error, PolicyError::Excludes { .. }) || !has_family {
                return Ok(());
            }
            // Keys that exempt all source ports contradict each other, although identifiers are translated
            // whatever they say.
            if matches!(error, PolicyError::NoPorts { .. }) && !flow.protocol().has_ports() {
                return Ok(());
            }
            let unchecked = Policy(std::sync::Arc::new(spec));
            if let Ok(resolved) = unchecked.resolve(&HostFacts::default()) {
                let decision = resolved.decide(&flow);
                prop_assert!(matches!(decision, Decision::Untouched(_)), "{unchecked:?} {flow}");
            }
        }
    }
}

#[test]
fn errors_have_their_variants() {
    let build = |key: &str, value: &str| {
        Policy::to(PortRange::EPHEMERAL).with(key, [value]).build().unwrap_err()
    };
    assert!(matches!(build("colour", "red"), PolicyError::UnknownKey { .. }));
    assert!(matches!(build("pick-up", "never"), PolicyError::Value { key: "pick-up", .. }));
    assert!(matches!(
        build("sources", "somewhere"),
        PolicyError::Value { error: ValueError::Network(_), .. }
    ));
    assert!(matches!(build("address", "127.0.0.1"), PolicyError::NotASource { .. }));
    assert!(matches!(build("sources", "224.0.0.0/4"), PolicyError::NoConnection { .. }));
    assert!(matches!(
        Policy::new(PolicySpec::to(PortSet::EMPTY)),
        Err(PolicyError::NoPorts { what: "permit", .. })
    ));
    let host_bits = Scope { sources: vec!["10.0.0.1/8".parse().unwrap()], ..Scope::default() };
    let refused = Policy::new(PolicySpec { scope: host_bits, ..spec() });
    assert!(matches!(refused, Err(PolicyError::Network { key: "sources", .. })));
    let reserved = crate::InterfacePattern::Name("any".parse().unwrap());
    let scope = Scope { in_interfaces: vec![reserved], ..Scope::default() };
    let refused = Policy::new(PolicySpec { scope, ..spec() });
    assert!(matches!(refused, Err(PolicyError::ReservedName { .. })));
}
