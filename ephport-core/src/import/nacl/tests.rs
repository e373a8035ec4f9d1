use proptest::prelude::*;

use super::*;
use crate::net::port::Port;
use crate::strategies::import::network_acls;

const EVERYBODY: &[AddressRange] = &[AddressRange::ALL_IPV4];

/// An ACL of inbound entries `NUMBER ACTION PROTOCOL PORTS NETWORK`, and the denial at the end.
fn acl(id: &str, entries: &[&str]) -> String {
    let mut json: Vec<String> = entries.iter().map(|entry| entry_json(entry, false)).collect();
    json.push(entry_json("32767 deny -1 all 0.0.0.0/0", false));
    format!(r#"{{"NetworkAclId": "{id}", "Entries": [{}]}}"#, json.join(","))
}

fn entry_json(entry: &str, egress: bool) -> String {
    let [number, action, protocol, ports, network] =
        entry.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let ports = ports.split_once('-').map_or(String::new(), |(from, to)| {
        format!(r#""PortRange": {{"From": {from}, "To": {to}}},"#)
    });
    let field = if network.contains(':') { "Ipv6CidrBlock" } else { "CidrBlock" };
    format!(
        r#"{{"RuleNumber": {number}, "Egress": {egress}, "Protocol": "{protocol}", {ports}
            "RuleAction": "{action}", "{field}": "{network}"}}"#
    )
}

fn parse(acls: &[String]) -> NetworkAcls {
    format!(r#"{{"NetworkAcls": [{}]}}"#, acls.join(",")).parse().unwrap()
}

fn ports(acls: &NetworkAcls, protocol: Protocol, remotes: &[AddressRange]) -> String {
    acls.reply_ports(protocol, remotes).to_string()
}

/// *Amazon VPC User Guide*, Custom network ACL, the inbound table of the IPv4 example.
#[test]
fn custom_network_acl_of_the_user_guide() {
    let acls = parse(&[acl(
        "acl-5fb85d36",
        &[
            "100 allow 6 80-80 0.0.0.0/0",
            "110 allow 6 443-443 0.0.0.0/0",
            "120 allow 6 22-22 192.0.2.0/24",
            "130 allow 6 3389-3389 192.0.2.0/24",
            "140 allow 6 32768-65535 0.0.0.0/0",
        ],
    )]);
    assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "80,443,32768-65535");
    assert_eq!(ports(&acls, Protocol::Udp, EVERYBODY), "none");
    let home = ["192.0.2.0/24".parse().unwrap()];
    assert_eq!(ports(&acls, Protocol::Tcp, &home), "22,80,443,3389,32768-65535");
    let notes: Vec<_> = acls.notes(EVERYBODY).iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "acl-5fb85d36: rule 120: allow tcp to 22 from 192.0.2.0/24, \
             which is some of the remote addresses and not all",
            "acl-5fb85d36: rule 130: allow tcp to 3389 from 192.0.2.0/24, \
             which is some of the remote addresses and not all",
            "acl-5fb85d36: there is no port to which udp replies get through from all",
        ]
    );
}

/// The last example of aws-cli's `describe-network-acls`: both families, outbound denied.
#[test]
fn example_of_the_aws_cli() {
    let entries = [
        entry_json("32767 deny -1 all 0.0.0.0/0", true),
        entry_json("32768 deny -1 all ::/0", true),
        entry_json("100 allow -1 all 0.0.0.0/0", false),
        entry_json("101 allow -1 all ::/0", false),
        entry_json("32767 deny -1 all 0.0.0.0/0", false),
        entry_json("32768 deny -1 all ::/0", false),
    ];
    let acls = parse(&[format!(
        r#"{{"Associations": [], "NetworkAclId": "acl-6da75208", "VpcId": "vpc-4e20d42b",
             "Tags": [], "Entries": [{}], "IsDefault": true}}"#,
        entries.join(",")
    )]);
    let both = [AddressRange::ALL_IPV4, AddressRange::ALL_IPV6];
    assert_eq!(ports(&acls, Protocol::Tcp, &both), "1-65535");
    assert_eq!(ports(&acls, Protocol::Udp, &both), "1-65535");
    assert_eq!(acls.notes(&both), []);
    assert_eq!(
        acls.document_notes()[0].to_string(),
        "acl-6da75208: no outbound rule allows anything: \
         connections are not sent whatever their port"
    );
}

#[test]
fn lowest_rule_number_wins_in_any_order() {
    let entries = ["200 allow 6 1024-65535 0.0.0.0/0", "100 deny 6 30000-32767 0.0.0.0/0"];
    let acls = parse(&[acl("acl-1", &entries)]);
    assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "1024-29999,32768-65535");
    let entries = ["100 allow 6 1024-65535 0.0.0.0/0", "200 deny 6 30000-32767 0.0.0.0/0"];
    let acls = parse(&[acl("acl-1", &entries)]);
    assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "1024-65535");
}

/// AWS's own advice for blocking an address.
#[test]
fn remote_that_no_port_can_reach_is_disregarded() {
    let entries = ["100 deny -1 all 198.51.100.7/32", "200 allow 17 1024-65535 0.0.0.0/0"];
    let acls = parse(&[acl("acl-1", &entries)]);
    assert_eq!(ports(&acls, Protocol::Udp, EVERYBODY), "1024-65535");
    let notes: Vec<_> = acls.notes(EVERYBODY).iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "acl-1: rule 100: deny all traffic from 198.51.100.7/32, \
             which is some of the remote addresses and not all",
            "acl-1: there is no port to which tcp replies get through from all",
            "acl-1: no udp replies get through from 198.51.100.7 to any port from 1024 up: \
             the ports disregard these addresses",
        ]
    );
    let blocked = ["198.51.100.7".parse().unwrap()];
    assert_eq!(ports(&acls, Protocol::Udp, &blocked), "none");
    assert_eq!(ports(&acls, Protocol::Tcp, &[]), "1-65535");
}

/// A denial of some ports counts for all, because other ports can reach the address.
#[test]
fn ports_denied_for_one_address_are_excluded() {
    let entries = ["100 deny 17 1024-2047 198.51.100.7/32", "200 allow 17 1024-65535 0.0.0.0/0"];
    let acls = parse(&[acl("acl-1", &entries)]);
    assert_eq!(ports(&acls, Protocol::Udp, EVERYBODY), "2048-65535");
}

#[test]
fn allowance_for_some_names_the_others() {
    let cases = [
        ("0.0.0.0/1", "128.0.0.0/1"),
        ("128.0.0.0/1", "0.0.0.0/1"),
        ("10.0.0.0/8", "0.0.0.0-9.255.255.255, 11.0.0.0-255.255.255.255"),
    ];
    for (network, others) in cases {
        let acls = parse(&[acl("acl-1", &[&format!("100 allow 6 1024-65535 {network}")])]);
        assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "1024-65535", "{network}");
        let notes: Vec<_> = acls.notes(EVERYBODY).iter().map(ToString::to_string).collect();
        let note = format!(
            "acl-1: no tcp replies get through from {others} to any port from 1024 up: \
             the ports disregard these addresses"
        );
        assert!(notes.contains(&note), "{notes:?}");
        assert_eq!(ports(&acls, Protocol::Tcp, &[network.parse().unwrap()]), "1024-65535");
    }
}

#[test]
fn two_halves_make_a_whole() {
    let entries = ["100 allow 6 1024-40000 0.0.0.0/1", "200 allow 6 2000-65535 128.0.0.0/1"];
    let acls = parse(&[acl("acl-1", &entries)]);
    assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "2000-40000");
}

#[test]
fn entries_for_some_remotes_are_noted() {
    let remotes = ["192.0.2.64-192.0.2.127".parse().unwrap()];
    let cases = [
        ("6 1-2 192.0.2.0/26", false),
        ("6 1-2 192.0.2.64/26", false),
        ("6 1-2 192.0.2.128/26", false),
        ("6 1-2 192.0.2.0/24", false),
        ("6 1-2 2001:db8::/32", false),
        ("6 1-2 192.0.2.64/27", true),
        ("17 1-2 192.0.2.96/27", true),
        ("-1 all 192.0.2.65/32", true),
        ("1 all 192.0.2.65/32", false),
    ];
    for (entry, expected) in cases {
        let acl = acl("acl-1", &[&format!("100 allow {entry}"), "200 allow -1 all 0.0.0.0/0"]);
        let notes = parse(&[acl]).notes(&remotes);
        let is_noted = matches!(&notes[..], [Note::SomeRemotes { .. }]);
        assert_eq!((is_noted, notes.is_empty()), (expected, !expected), "{entry}: {notes:?}");
    }
}

#[test]
fn several_acls_have_their_common_ports() {
    let acls = parse(&[
        acl("acl-1", &["100 allow 6 1024-50000 0.0.0.0/0"]),
        acl("acl-2", &["100 allow 6 32768-65535 0.0.0.0/0"]),
    ]);
    let each = acls.acls().iter();
    let each: Vec<_> = each.map(|acl| (acl.id(), acl.entries().len())).collect();
    assert_eq!(each, [("acl-1", 2), ("acl-2", 2)]);
    assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "32768-50000");
}

#[test]
fn protocols_are_understood_by_name() {
    let entries = [
        "90 deny TCP 1024-2047 0.0.0.0/0",
        "95 deny icmp all 0.0.0.0/0",
        "100 allow all all 0.0.0.0/0",
    ];
    let acls = parse(&[acl("acl-1", &entries)]);
    assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "1-1023,2048-65535");
    assert_eq!(ports(&acls, Protocol::Udp, EVERYBODY), "1-65535");
    assert_eq!(acls.notes(EVERYBODY), []);
}

#[test]
fn one_of_several_acls_is_chosen() {
    let with_subnet = |acl: String, subnet: &str| {
        acl.replacen('{', &format!(r#"{{"Associations": [{{"SubnetId": "{subnet}"}}], "#), 1)
    };
    let one = with_subnet(acl("acl-1", &["100 allow 6 1024-50000 0.0.0.0/0"]), "subnet-1");
    let two = with_subnet(acl("acl-2", &["100 allow 6 32768-65535 0.0.0.0/0"]), "subnet-2");
    let page = format!(r#"{{"NetworkAcls": [{one},{two}], "NextToken": "x"}}"#);
    let acls: NetworkAcls = page.parse().unwrap();
    let notes: Vec<_> = acls.document_notes().iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "NextToken: the document is one page of several; other network ACLs are missing",
            "2 network ACLs: only ports that all of them let in are good: acl-1, acl-2",
        ]
    );
    let chosen = [acls.clone().of_id("acl-2"), acls.clone().of_subnet("subnet-2")];
    for chosen in chosen.map(Result::unwrap) {
        assert_eq!(ports(&chosen, Protocol::Tcp, EVERYBODY), "32768-65535");
        assert_eq!(chosen.document_notes(), []);
    }
    assert_eq!(
        acls.clone().of_id("acl-3").unwrap_err().to_string(),
        "there is no network ACL `acl-3`: the document has acl-1, acl-2"
    );
    assert_eq!(
        acls.of_subnet("subnet-3").unwrap_err().to_string(),
        "no network ACL has subnet `subnet-3`: the document has subnet-1, subnet-2"
    );
}

/// What `--query NetworkAcls` and `--query 'NetworkAcls[0]'` print.
#[test]
fn lists_and_single_acls_are_accepted() {
    let one = acl("acl-1", &["100 allow 6 1024-50000 0.0.0.0/0"]);
    for text in [one.clone(), format!("[{one}]"), format!(" [{one},{one}]")] {
        let acls: NetworkAcls = text.parse().unwrap();
        assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "1024-50000", "{text}");
    }
    let error = format!("[{one}, {{}}]").parse::<NetworkAcls>().unwrap_err();
    assert_eq!(error.to_string(), ".[1]: NetworkAclId is missing");
}

#[test]
fn arrays_are_no_objects() {
    for text in [r#"{"NetworkAcls": [["acl-1", []]]}"#, r#"[["acl-1", []]]"#] {
        let error = text.parse::<NetworkAcls>().unwrap_err().to_string();
        assert!(error.starts_with("invalid type: sequence, expected an object"), "{error}");
    }
}

#[test]
fn other_protocols_and_port_zero_match_nothing() {
    let entries = [
        "90 deny 1 all 0.0.0.0/0",
        "95 deny 50 1-65535 0.0.0.0/0",
        "97 deny quic 1-65535 0.0.0.0/0",
        "100 allow 6 0-65535 0.0.0.0/0",
        "110 allow 17 0-0 0.0.0.0/0",
        "120 allow 132 5-6 0.0.0.0/0",
    ];
    let acls = parse(&[acl("acl-1", &entries)]);
    assert_eq!(ports(&acls, Protocol::Tcp, EVERYBODY), "1-65535");
    assert_eq!(ports(&acls, Protocol::Udp, EVERYBODY), "none");
    assert_eq!(ports(&acls, Protocol::Sctp, EVERYBODY), "1-65535");
    assert_eq!(
        acls.notes(EVERYBODY)[0].to_string(),
        "acl-1: rule 97: deny protocol `quic` from 0.0.0.0/0: \
         the protocol is not known, the rule is skipped"
    );
}

#[test]
fn errors_name_place_and_accepted_values() {
    let good = entry_json("100 allow 6 1-2 10.0.0.0/8", false);
    let cases = [
        (good.replace(r#""RuleNumber": 100,"#, ""), "RuleNumber is missing"),
        (good.replace(r#""Egress": false,"#, ""), "Egress is missing"),
        (good.replace(r#""Protocol": "6","#, ""), "Protocol is missing"),
        (good.replace(r#""RuleAction": "allow","#, ""), "RuleAction is missing"),
        (good.replace("CidrBlock", "Cidr"), "CidrBlock is missing"),
        (good.replace(r#""From": 1,"#, ""), "PortRange.From is missing"),
        (good.replace(r#", "To": 2"#, ""), "PortRange.To is missing"),
        (
            good.replace("\"CidrBlock\"", "\"Ipv6CidrBlock\": \"::/0\", \"CidrBlock\""),
            "has CidrBlock and Ipv6CidrBlock: expected one of them",
        ),
        (good.replace("/8", "/33"), "CidrBlock `10.0.0.0/33`: expected a network like 10.0.0.0/16"),
        (
            good.replace("CidrBlock", "Ipv6CidrBlock"),
            "Ipv6CidrBlock `10.0.0.0/8`: expected a network like 2001:db8::/32",
        ),
        (good.replace("allow", "permit"), "RuleAction `permit`: expected allow or deny"),
        (
            good.replace(r#""From": 1"#, r#""From": 3"#),
            "PortRange from 3 to 2: expected 0 <= From <= To <= 65535",
        ),
        (
            good.replace(r#""To": 2"#, r#""To": 65536"#),
            "PortRange from 1 to 65536: expected 0 <= From <= To <= 65535",
        ),
    ];
    for (entry, message) in cases {
        let json = format!(
            r#"{{"NetworkAcls": [{}, {{"NetworkAclId": "acl-2", "Entries": [{good}, {entry}]}}]}}"#,
            acl("acl-1", &[])
        );
        let error = json.parse::<NetworkAcls>().unwrap_err();
        assert_eq!(error.to_string(), format!(".NetworkAcls[1].Entries[1]: {message}"));
    }
}

#[test]
fn document_errors_name_the_accepted_values() {
    let cases = [
        (
            "{\n  \"NetworkAcls\": [,",
            "expected value at line 2 column 19: \
             expected what `aws ec2 describe-network-acls` prints",
        ),
        (
            r#"{"NetworkAcls": 1}"#,
            "invalid type: integer `1`, expected a sequence at line 1 column 17: \
             expected what `aws ec2 describe-network-acls` prints",
        ),
        (
            "{}",
            "there is no network ACL in .NetworkAcls: \
             expected what `aws ec2 describe-network-acls` prints",
        ),
        (r#"{"NetworkAcls": [{"Entries": []}]}"#, ".NetworkAcls[0]: NetworkAclId is missing"),
        (r#"{"NetworkAcls": [{"NetworkAclId": "a"}]}"#, ".NetworkAcls[0]: Entries is missing"),
    ];
    for (json, message) in cases {
        assert_eq!(json.parse::<NetworkAcls>().unwrap_err().to_string(), message);
    }
}

/// The rule as AWS states it, one packet at a time.
fn gets_through(acl: &NetworkAcl, protocol: Protocol, remote: IpAddr, port: Port) -> bool {
    let matches = |entry: &&Entry| {
        let is_spoken_of = match &entry.traffic {
            Traffic::All => true,
            Traffic::Protocol { number, ports } => {
                *number == protocol.number() && ports.contains(port)
            }
            Traffic::Unknown(_) => false,
        };
        entry.remote.contains(&remote) && is_spoken_of
    };
    acl.entries.iter().find(matches).is_some_and(|entry| entry.action == Action::Allow)
}

/// The ports at the ends of every range that the ACL or the result has, and their neighbours.
fn around_the_ends(acl: &NetworkAcl, result: &PortSet) -> Vec<Port> {
    let ranges = acl.entries().iter().flat_map(|entry| match &entry.traffic {
        Traffic::Protocol { ports, .. } => ports.ranges().to_vec(),
        Traffic::All | Traffic::Unknown(_) => Vec::new(),
    });
    let ranges = ranges.chain(result.ranges().to_vec()).chain([PortRange::ALL]);
    let ends = ranges.flat_map(|range| [range.first(), range.last()]);
    ends.flat_map(|end| [Some(end), end.previous(), end.next()]).flatten().collect()
}

proptest! {
    /// The networks of the strategy are in and around these eight addresses, and only at the ends of
    /// ranges can a port differ from the next, so that the sample is complete.
    #[test]
    fn ports_are_the_intersection_over_remotes(acl in network_acls()) {
        for remotes in ["10.0.0.8/29", "2001:db8::8/125"] {
            let remotes: AddressRange = remotes.parse().unwrap();
            let ports = acl.reply_ports(Protocol::Tcp, &[remotes]);
            let addresses: Vec<_> = (0..8).filter_map(|i| remotes.nth(i)).collect();
            let reachable = |from: &&IpAddr| {
                let ends = around_the_ends(&acl, &PortRange::EPHEMERAL.into());
                let mut ephemeral = ends.into_iter().filter(|port| port.get() >= 1024);
                ephemeral.any(|port| gets_through(&acl, Protocol::Tcp, **from, port))
            };
            let reachable: Vec<_> = addresses.iter().filter(reachable).collect();
            for port in around_the_ends(&acl, &ports) {
                let mut each = reachable.iter();
                let expected = !reachable.is_empty()
                    && each.all(|from| gets_through(&acl, Protocol::Tcp, **from, port));
                prop_assert_eq!(ports.contains(port), expected, "{} from {}", port, remotes);
            }
            let named = acl.unreachable(Protocol::Tcp, &[remotes]);
            for address in &addresses {
                let is_named = named.iter().any(|range| range.contains(*address));
                prop_assert_eq!(is_named, !reachable.contains(&address), "{}", address);
            }
        }
    }

    /// Over the whole internet, no sampled address that a port can reach is refused.
    #[test]
    fn no_good_port_is_refused_anywhere(acl in network_acls(), more in any::<[u32; 8]>()) {
        let ports = acl.reply_ports(Protocol::Udp, EVERYBODY);
        let edges = acl.entries.iter().flat_map(|e| [e.remote.network(), e.remote.broadcast()]);
        let random = more.map(|bits| IpAddr::V4(bits.into()));
        for remote in edges.filter(IpAddr::is_ipv4).chain(random) {
            if !is_reachable(&acl.reply_ports_from(Protocol::Udp, remote)) {
                continue;
            }
            for range in ports.ranges() {
                for port in [range.first(), range.last()] {
                    prop_assert!(gets_through(&acl, Protocol::Udp, remote, port), "{remote} {port}");
                }
            }
        }
    }

    #[test]
    fn broken_documents_are_errors(cut in 0..400usize) {
        let whole = format!(r#"{{"NetworkAcls": [{}]}}"#, acl("acl-1", &["1 allow 6 1-2 ::/0"]));
        let cut = cut % whole.len();
        prop_assert!(whole[..cut].parse::<NetworkAcls>().is_err());
    }
}
