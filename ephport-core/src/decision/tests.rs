use super::*;
use crate::host::HostFacts;
use crate::policy::file::Document;
use crate::policy::selection::NatFlags;
use crate::resolve::ResolveError;
use crate::{Distribution, Warning};

const FLOW: &str = "tcp 10.0.0.1:2000 -> 192.0.2.1:80 oif eth0";

/// A policy for every interface, of these lines.
fn policy(lines: &str) -> ResolvedPolicy {
    let text = format!("[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\n{lines}");
    let document: Document = text.parse().unwrap();
    document.resolve(&HostFacts::default()).unwrap().remove(0)
}

fn reason(policy: &ResolvedPolicy, flow: &str) -> Option<Reason> {
    match policy.decide(&flow.parse().unwrap()) {
        Decision::Untouched(reason) => Some(reason),
        Decision::Translated { .. } => None,
    }
}

#[test]
fn each_single_condition_excludes_a_connection() {
    let cases = [
        ("", FLOW, None),
        ("", "tcp 10.0.0.1:2000 -> 224.0.0.1:80 oif eth0", Some(Reason::NotUnicast)),
        ("", "tcp 10.0.0.1:2000 -> 192.0.2.1:80 oif lo", Some(Reason::Interface)),
        ("families = [\"ipv6\"]", FLOW, Some(Reason::Family)),
        ("families = [\"ipv4\"]", FLOW, None),
        ("protocols = [\"udp\", \"sctp\"]", FLOW, Some(Reason::Protocol)),
        ("origin = \"local\"", FLOW, None),
        ("origin = \"forwarded\"", FLOW, Some(Reason::Origin)),
        ("origin = \"local\"", &format!("{FLOW} iif eth1"), Some(Reason::Origin)),
        ("origin = \"forwarded\"", &format!("{FLOW} iif eth1"), None),
        ("origin = \"both\"", &format!("{FLOW} iif eth1"), None),
        ("sources = [\"10.0.0.0/24\"]", FLOW, None),
        ("sources = [\"10.0.1.0/24\"]", FLOW, Some(Reason::Source)),
        ("destinations = [\"192.0.2.0/24\"]", FLOW, None),
        ("destinations = [\"192.0.3.0/24\"]", FLOW, Some(Reason::Destination)),
        ("except-destinations = [\"192.0.2.0/24\"]", FLOW, Some(Reason::ExceptedDestination)),
        ("except-destinations = [\"10.0.0.0/24\"]", FLOW, None),
        ("destination-ports = \"80,443\"", FLOW, None),
        ("destination-ports = \"443\"", FLOW, Some(Reason::DestinationPort)),
        ("except-interfaces = [\"eth*\"]", FLOW, Some(Reason::ExceptedInterface)),
        ("except-interfaces = [\"eth1\"]", FLOW, None),
        ("in-interfaces = [\"docker0\"]", FLOW, Some(Reason::InInterface)),
        ("in-interfaces = [\"docker*\"]", &format!("{FLOW} iif docker0"), None),
        ("in-interfaces = [\"br0\"]", &format!("{FLOW} iif docker0"), Some(Reason::InInterface)),
        ("mark = \"0x1/0xff\"", FLOW, Some(Reason::Mark)),
        ("mark = \"0x1/0xff\"", &format!("{FLOW} mark 0x301"), None),
        ("mark = \"0x1\"", &format!("{FLOW} mark 0x301"), Some(Reason::Mark)),
        ("mark = \"0\"", FLOW, None),
        ("", &format!("{FLOW} mark 7"), None),
        ("", &format!("{FLOW} ipsec"), Some(Reason::Ipsec)),
        ("ipsec = \"match\"", &format!("{FLOW} ipsec"), None),
        ("ipsec = \"match\"", FLOW, None),
        ("", &format!("{FLOW} mid-stream"), Some(Reason::MidStream)),
        ("pick-up = \"any\"", &format!("{FLOW} mid-stream"), None),
        ("pick-up = \"any\"", FLOW, None),
        ("source-ports = \"2001-65535\"", FLOW, Some(Reason::SourcePort)),
        ("exempt-source-ports = \"2000\"", FLOW, Some(Reason::SourcePort)),
    ];
    for (lines, flow, expected) in cases {
        let policy = policy(&format!("to-ports = \"50000-50099\"\n{lines}"));
        assert_eq!(reason(&policy, flow), expected, "{lines} {flow}");
    }
}

#[test]
fn another_source_address_takes_a_packet_out_of_ipsec() {
    let cases = [
        ("address = \"masquerade\"", "", true),
        ("address = \"masquerade\"", " other-source", false),
        ("address = \"masquerade\"", " iif lan0", false),
        ("address = \"auto\"", " iif lan0", false),
        ("address = \"192.0.2.9\"", " iif lan0", false),
        ("address = \"10.0.0.1\"", " iif lan0", true),
        ("address = \"keep\"", " iif lan0", true),
        ("address = \"masquerade\"\nexempt-source-ports = \"2000\"", " iif lan0", true),
    ];
    for (lines, words, is_ipsec) in cases {
        let policy = policy(&format!("to-ports = \"50000-50099\"\nipsec = \"match\"\n{lines}"));
        let flow: Flow = format!("{FLOW}{words} ipsec").parse().unwrap();
        let policies = [policy];
        let judged = evaluate(&policies, &flow).judged(&flow);
        assert_eq!(judged.is_ipsec(), is_ipsec, "{lines}{words}");
    }
}

/// Translation of a TCP connection from this port of 10.0.0.1.
fn translated(policy: &ResolvedPolicy, port: u16) -> (String, Option<u16>, Address) {
    let flow = format!("tcp 10.0.0.1:{port} -> 192.0.2.1:80 oif eth0").parse().unwrap();
    match policy.decide(&flow) {
        Decision::Translated(Translation { ports, keep, address, .. }) => {
            (ports.to_string(), keep.map(Port::get), address)
        }
        Decision::Untouched(reason) => panic!("{port}: {reason}"),
    }
}

#[test]
fn in_range_ports_are_kept() {
    let all = "1024,2000-2062,3000-3063";
    let several = policy(&format!("to-ports = \"{all}\""));
    for (port, ports, kept) in [
        (1024, all, None),
        (2000, all, None),
        (3000, "3000-3063", Some(3000)),
        (3063, "3000-3063", Some(3063)),
        (4000, all, None),
    ] {
        assert_eq!(translated(&several, port), (ports.into(), kept, Address::Keep), "{port}");
    }
    let only = policy("to-ports = \"1024\"\naddress = \"keep\"");
    assert_eq!(translated(&only, 1024), ("1024".into(), Some(1024), Address::Keep));
    assert_eq!(translated(&only, 1025), ("1024".into(), None, Address::Keep));
    for shuffles in ["random = true", "fully-random = true"] {
        let random = policy(&format!("to-ports = \"3000-3063\"\n{shuffles}"));
        assert_eq!(translated(&random, 3000), ("3000-3063".into(), None, Address::Keep));
    }
}

#[test]
fn sources_use_their_block_and_address() {
    let blocks = policy("blocks = [\"10.0.0.1=192.0.2.9:2000-2009\"]");
    let outside = Address::Fixed("192.0.2.9".parse().unwrap());
    assert_eq!(translated(&blocks, 2005), ("2000-2009".into(), Some(2005), outside));
    assert_eq!(translated(&blocks, 2010), ("2000-2009".into(), None, outside));
    let other = "tcp 10.0.0.2:2005 -> 192.0.2.1:80 oif eth0";
    assert_eq!(reason(&blocks, other), Some(Reason::NoBlock));
    let random = policy("blocks = [\"10.0.0.1=2000-2009\"]\nrandom = true");
    assert_eq!(translated(&random, 2005), ("2000-2009".into(), None, Address::Keep));
}

#[test]
fn auto_keeps_sources_that_are_valid_outside() {
    let text = "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"1\"\n";
    let document: Document = text.parse().unwrap();
    let kept_sources = vec!["10.9.9.9".parse().unwrap(), "2001:db8:9::9".parse().unwrap()];
    let host = HostFacts { kept_sources, ..HostFacts::default() };
    let policy = document.resolve(&host).unwrap().remove(0);
    let cases = [
        ("192.0.2.2", SourceType::OutInterface, "", Address::Keep),
        ("10.0.0.1", SourceType::OutInterface, "", Address::Keep),
        ("10.9.9.9", SourceType::OtherInterface, "", Address::Keep),
        ("2001:db8:9::9", SourceType::OtherInterface, "", Address::Keep),
        ("192.0.2.3", SourceType::OtherInterface, "", Address::Masquerade),
        ("10.0.0.1", SourceType::OtherInterface, "", Address::Masquerade),
        ("203.0.113.1", SourceType::NotLocal, " iif in0", Address::Keep),
        ("2001:db8::1", SourceType::NotLocal, " iif in0", Address::Keep),
        ("9.255.255.255", SourceType::NotLocal, " iif in0", Address::Keep),
        ("10.0.0.0", SourceType::NotLocal, " iif in0", Address::Masquerade),
        ("172.31.255.255", SourceType::NotLocal, " iif in0", Address::Masquerade),
        ("172.32.0.0", SourceType::NotLocal, " iif in0", Address::Keep),
        ("192.168.1.1", SourceType::NotLocal, " iif in0", Address::Masquerade),
        ("100.64.0.1", SourceType::NotLocal, " iif in0", Address::Masquerade),
        ("169.254.1.1", SourceType::NotLocal, " iif in0", Address::Masquerade),
        ("fd00::1", SourceType::NotLocal, " iif in0", Address::Masquerade),
        ("fe80::1", SourceType::NotLocal, " iif in0", Address::Masquerade),
    ];
    for (source, source_type, iif, expected) in cases {
        let (source, to) = if source.contains(':') {
            (format!("[{source}]"), "[2001:db8:1::1]:80")
        } else {
            (source.to_string(), "198.51.100.1:80")
        };
        let flow: Flow = format!("tcp {source}:2000 -> {to} oif eth0{iif}").parse().unwrap();
        let Decision::Translated(translation) = policy.decide(&flow.with_source_type(source_type))
        else {
            panic!("{source}");
        };
        assert_eq!(translation.address, expected, "{source} {source_type:?}");
    }
}

#[test]
fn auto_masquerades_all_with_map_e_ports_of_ipv4() {
    let policy = policy("map-e = \"psid=52,psid-len=8,offset=4\"");
    assert_eq!(policy.address, Address::Masquerade);
    assert_eq!(policy.families, crate::Families::Ipv4);
    let flow = "udp [2001:db8::1]:2000 -> [2001:db8::2]:80 oif eth0";
    assert_eq!(reason(&policy, flow), Some(Reason::Family));
}

#[test]
fn each_distribution_selects_its_ranges() {
    let selection = |lines: &str, port: u16| {
        let flow = format!("tcp 10.0.0.1:{port} -> 192.0.2.1:80 oif eth0").parse().unwrap();
        match policy(lines).decide(&flow) {
            Decision::Translated(translation) => translation.selection,
            Decision::Untouched(reason) => panic!("{lines}: {reason}"),
        }
    };
    let spread = |lines: &str, port| selection(lines, port).distribution;
    let stable = "to-ports = \"2000-2099,3000-3099\"\nper-source-stable = true";
    assert_eq!(spread("to-ports = \"2000-2099\"", 5000), None);
    assert_eq!(spread("to-ports = \"2000-2099,3000-3099\"", 5000), Some(Distribution::RoundRobin));
    assert_eq!(spread("to-ports = \"2000-2099,3000-3098\"", 5000), Some(Distribution::Weighted));
    assert_eq!(spread(stable, 5000), Some(Distribution::Hash));
    for (sizes, last) in [("equal", 3099), ("different", 3098)] {
        for chosen in Distribution::ALL {
            let lines = format!("to-ports = \"2000-2099,3000-{last}\"\nspread = \"{chosen}\"");
            let lines = format!("{lines}\naddress = \"masquerade\"");
            assert_eq!(spread(&lines, 5000), Some(chosen), "{sizes}");
            // A virtual range has no ranges to stay in.
            let kept = (chosen == Distribution::Remap).then_some(chosen);
            assert_eq!(spread(&lines, 2000), kept, "{sizes}");
        }
        let lines = format!("to-ports = \"3000-{last}\"\nspread = \"hash\"");
        assert_eq!(spread(&lines, 5000), None, "{sizes}");
    }
    assert_eq!(spread(stable, 2000), None, "it stays in its range");
    let flags = "to-ports = \"2000\"\nrandom = true\npersistent = true";
    let expected = NatFlags { random: true, persistent: true, ..NatFlags::default() };
    assert_eq!(selection(flags, 5000).flags, expected);
    let fully = NatFlags { fully_random: true, ..NatFlags::default() };
    assert_eq!(selection("to-ports = \"2000\"\nfully-random = true", 5000).flags, fully);
}

#[test]
fn every_reason_has_its_message() {
    let cases = [
        (Reason::NotUnicast, "the destination is multicast or broadcast"),
        (Reason::Interface, "the output interface is out of scope"),
        (Reason::ExceptedInterface, "the output interface is excepted"),
        (Reason::InInterface, "the input interface is out of scope"),
        (Reason::Family, "the address family is out of scope"),
        (Reason::Protocol, "the protocol is out of scope"),
        (Reason::Origin, "the origin is out of scope"),
        (Reason::Source, "the source address is out of scope"),
        (Reason::Destination, "the destination address is out of scope"),
        (Reason::ExceptedDestination, "the destination address is excepted"),
        (Reason::DestinationPort, "the destination port is out of scope"),
        (Reason::Mark, "the mark is out of scope"),
        (Reason::Ipsec, "IPsec protects the packet"),
        (Reason::MidStream, "the connection was open before the policy was applied"),
        (Reason::SourcePort, "the source port is not one that is translated"),
        (Reason::NoBlock, "the source has no block of ports"),
    ];
    for (reason, message) in cases {
        assert_eq!(reason.to_string(), message);
    }
}

/// The policy of these lines on a host with these listeners.
fn remapped(lines: &str, listeners: &str) -> Result<ResolvedPolicy, ResolveError> {
    let document: Document = format!(
        "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nspread = \"remap\"\naddress = \
         \"masquerade\"\n{lines}\n"
    )
    .parse()
    .unwrap();
    let host = HostFacts { tcp_listeners: listeners.parse().unwrap(), ..HostFacts::default() };
    document.policies()[0].resolve(&host)
}

#[test]
fn remapped_connections_keep_ports_of_both_ranges() {
    let policy = remapped("to-ports = \"2000-2009,3000-3009\"", "none").unwrap();
    let range = policy.remap.as_ref().unwrap().virtual_range();
    assert_eq!(range.to_string(), "3000-3019");
    // 3000-3009 are their own virtual ports, and 3010-3019 are those of 2000-2009.
    let all = "2000-2009,3000-3009";
    for (port, kept, ports) in
        [(3005, Some(3005), all), (3010, None, "3000-3009"), (2000, None, all), (40_000, None, all)]
    {
        let flow = format!("tcp 10.0.0.1:{port} -> 192.0.2.1:80 oif eth0").parse().unwrap();
        let Decision::Translated(translation) = policy.decide(&flow) else { panic!("{port}") };
        assert_eq!(translation.keep.map(Port::get), kept, "{port}");
        assert_eq!(translation.ports.to_string(), ports, "{port}");
    }
}

#[test]
fn remapped_sets_exclude_services_and_untranslated_ports() {
    let ports =
        |lines: &str, listeners| remapped(lines, listeners).unwrap().permitted.ports().to_string();
    let set = "to-ports = \"1000-1030,2000-2009,3000-3009\"";
    assert_eq!(ports(set, "none"), "1024-1030,2000-2009,3000-3009");
    let exempt = format!("{set}\nexempt-source-ports = \"2000\"");
    assert_eq!(ports(&exempt, "3009,4000"), "1024-1030,2001-2009,3000-3008");
    let udp = format!("{set}\nprotocols = \"udp\"");
    assert_eq!(ports(&udp, "3009"), "1024-1030,2000-2009,3000-3009");
    let one = "to-ports = \"2000-2009\"";
    assert_eq!(ports(one, "2000"), "2000-2009", "a single range is not remapped");
    let error = remapped("to-ports = \"2000,3000\"", "2000,3000").unwrap_err();
    assert!(matches!(error, ResolveError::NothingLeft { .. }), "{error}");
}

#[test]
fn remapped_sets_exclude_what_other_tables_forward() {
    let text = "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nspread = \"remap\"\n\
                address = \"masquerade\"\nto-ports = \"2000-2009,3000-3009\"\n";
    let document: Document = text.parse().unwrap();
    let forwarded_ports = "2000-2004,5000".parse().unwrap();
    let mut host = HostFacts { forwarded_ports, ..HostFacts::default() };
    let resolved = document.resolve(&host).unwrap();
    assert_eq!(resolved[0].permitted.ports().to_string(), "2005-2009,3000-3009");
    host.unseen_forwards = vec!["table ip nat".into()];
    let warnings = document.host_warnings(&host);
    let is_excluded = |warning: &Warning| matches!(warning, Warning::RemapExcludes { ports, .. } if ports.to_string() == "2000-2004");
    assert!(warnings.iter().any(is_excluded), "{warnings:?}");
    let is_named = |warning: &Warning| matches!(warning, Warning::UnseenForwards { tables, .. } if tables == "table ip nat");
    assert!(warnings.iter().any(is_named), "{warnings:?}");
}

#[test]
fn remapped_policies_are_beside_each_other() {
    let policy = |name: &str, lines: &str| {
        format!(
            "[[policy]]\nname = \"{name}\"\nout-interfaces = \"any\"\naddress = \"masquerade\"\n\
             {lines}\n"
        )
    };
    let resolve = |first: &str, second: &str| {
        let document: Document =
            format!("{}{}", policy("a", first), policy("b", second)).parse().unwrap();
        document.resolve(&HostFacts::default()).map_err(|error| error.to_string())
    };
    let remap = "spread = \"remap\"\nto-ports = \"2000-2009,3000-3009\"";
    let ranges = |first: &str, second: &str| {
        let resolved = resolve(first, second).unwrap();
        let range =
            |policy: &ResolvedPolicy| Some(policy.remap.as_ref()?.virtual_range().to_string());
        (range(&resolved[0]), range(&resolved[1]))
    };
    // Beside the ports of another policy.
    let above = ranges(remap, "to-ports = \"3010-3019\"");
    assert_eq!(above, (Some("2990-3009".into()), None));
    // The same ports have the same virtual range.
    let (first, second) = ranges(&format!("protocols = \"tcp\"\n{remap}"), remap);
    assert_eq!((first.as_deref(), &first), (Some("3000-3019"), &second));
    let both = resolve(remap, "spread = \"hash\"\nto-ports = \"2000-2009,3000-3009\"");
    assert_eq!(
        both.unwrap_err(),
        "policy `a`: ports 2000-2009 are those of policy `b` too, whose packets spread = remap would \
         rewrite: give both policies the same ports and spread = remap, or ports of their own"
    );
    let udp = format!("protocols = \"udp\"\n{remap}");
    assert!(resolve(&udp, "protocols = \"tcp\"\nto-ports = \"2000-2009\"").is_ok());
}
