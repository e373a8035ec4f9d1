//! Connections of a router: `wan0` (192.0.2.1) is its uplink, `lan0` (10.0.0.254) is inside.

use ephport_core::{Document, HostFacts};

use super::*;
use crate::conntrack::{Connection, Layer4, Status, Tuple};
use crate::uapi::{IPS_DST_NAT, IPS_SRC_NAT};

fn addresses() -> Vec<LocalAddress> {
    let address = |name: &str, address: &str, broadcast: Option<&str>| LocalAddress {
        interface: name.parse().ok(),
        address: address.parse().unwrap(),
        broadcast: broadcast.map(|broadcast| broadcast.parse().unwrap()),
    };
    vec![
        address("lo", "127.0.0.1", None),
        address("wan0", "192.0.2.1", Some("192.0.2.255")),
        address("lan0", "10.0.0.254", Some("10.0.0.255")),
        address("wan0", "2001:db8::1", None),
    ]
}

fn policies(text: &str) -> Vec<ResolvedPolicy> {
    let facts = HostFacts::with_uplinks(["wan0".parse().unwrap()]);
    let document: Document = text.parse().unwrap();
    document.resolve(&facts).unwrap()
}

fn policy(keys: &str) -> Vec<ResolvedPolicy> {
    policies(&format!("[[policy]]\nname = \"a\"\n{keys}\n"))
}

/// `PROTOCOL SOURCE>DESTINATION SEEN>SENT`: the tuples of both directions, as conntrack lists them.
fn connection(text: &str) -> Connection {
    let words: Vec<&str> = text.split(' ').collect();
    let protocol = if words[0] == "tcp" { 6 } else { 17 };
    let tuple = |text: &str| {
        let (source, destination) = text.split_once('>').unwrap();
        let [source, destination]: [SocketAddr; 2] =
            [source, destination].map(|text| text.parse().unwrap());
        Tuple {
            source: source.ip(),
            destination: destination.ip(),
            protocol,
            layer4: Layer4::Ports { source: source.port(), destination: destination.port() },
            zone: 0,
        }
    };
    let (original, reply) = (tuple(words[1]), tuple(words[2]));
    let port = |tuple: &Tuple| (tuple.source_port(), tuple.destination_port());
    let is_source_nat = original.source != reply.destination || port(&original).0 != port(&reply).1;
    let is_destination_nat =
        original.destination != reply.source || port(&original).1 != port(&reply).0;
    let bits = [(is_source_nat, IPS_SRC_NAT), (is_destination_nat, IPS_DST_NAT)];
    let status = bits.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum();
    let (tcp_state, timeout, mark, id) = (None, Some(1), 0, None);
    Connection { original, reply, status: Status(status), tcp_state, timeout, mark, id }
}

/// The policy that applies to a connection, and the place of its port.
fn placed(policies: &[ResolvedPolicy], text: &str) -> Option<(String, Placement)> {
    let mut usage = Usage::new(policies, &addresses());
    let found = usage.add(&connection(text));
    found.map(|(policy, _, placement)| (policy.name.to_string(), placement))
}

const FORWARDED: &str = "tcp 10.0.0.7:40000>203.0.113.9:443 203.0.113.9:443>192.0.2.1:50000";

#[test]
fn source_ports_are_permitted_exempt_or_outside() {
    let policies = policy("to-ports = \"49152-61000\"\nexempt-source-ports = \"4500\"");
    let place = |text| placed(&policies, text).map(|(_, placement)| placement);
    let cases = [
        (FORWARDED, Placement::Permitted),
        // The host's own socket with a port of the set, which NAT did not change.
        (
            "tcp 192.0.2.1:50000>203.0.113.9:443 203.0.113.9:443>192.0.2.1:50000",
            Placement::Permitted,
        ),
        ("tcp 192.0.2.1:40000>203.0.113.9:443 203.0.113.9:443>192.0.2.1:40000", Placement::Outside),
        ("udp 10.0.0.7:40000>203.0.113.9:443 203.0.113.9:443>192.0.2.1:2000", Placement::Outside),
        ("udp 10.0.0.7:4500>203.0.113.9:53 203.0.113.9:53>192.0.2.1:4500", Placement::Exempt),
        ("udp 192.0.2.1:68>203.0.113.9:67 203.0.113.9:67>192.0.2.1:68", Placement::Exempt),
        (
            "tcp [2001:db8::1]:1>[2001:db8:9::9]:443 [2001:db8:9::9]:443>[2001:db8::1]:49152",
            Placement::Permitted,
        ),
        // Translated to an address of no interface.
        (
            "tcp 10.0.0.7:40000>203.0.113.9:443 203.0.113.9:443>198.51.100.1:1025",
            Placement::Outside,
        ),
    ];
    for (text, placement) in cases {
        assert_eq!(place(text), Some(placement), "{text}");
    }
}

#[test]
fn connections_out_of_scope_are_not_counted() {
    let policies = policy("to-ports = \"49152-61000\"");
    let cases = [
        // To this host, and through it to a server inside.
        "tcp 203.0.113.9:40000>192.0.2.1:22 192.0.2.1:22>203.0.113.9:40000",
        "tcp 203.0.113.9:40000>192.0.2.1:80 10.0.0.7:8080>203.0.113.9:40000",
        // From this host to itself.
        "tcp 127.0.0.1:40000>127.0.0.1:80 127.0.0.1:80>127.0.0.1:40000",
        "tcp 192.0.2.1:40000>192.0.2.1:80 192.0.2.1:80>192.0.2.1:40000",
        // By another interface, with NAT and without.
        "tcp 203.0.113.9:40000>192.0.2.1:80 10.0.0.7:80>10.0.0.254:40000",
        "tcp 10.0.0.254:40000>10.0.0.7:80 10.0.0.7:80>10.0.0.254:40000",
        // To groups and networks.
        "udp 192.0.2.1:5353>224.0.0.251:5353 224.0.0.251:5353>192.0.2.1:5353",
        "udp 192.0.2.1:5000>192.0.2.255:5000 192.0.2.255:5000>192.0.2.1:5000",
        "udp 192.0.2.1:68>255.255.255.255:67 255.255.255.255:67>192.0.2.1:68",
    ];
    for text in cases {
        assert_eq!(placed(&policies, text), None, "{text}");
        let mut usage = Usage::new(&policies, &addresses());
        usage.add(&connection(text));
        assert_eq!(usage.unknown(), 0, "{text}");
    }
    let mut icmp = connection(FORWARDED);
    icmp.original.protocol = 1;
    assert!(Usage::new(&policies, &addresses()).add(&icmp).is_none());
}

#[test]
fn scopes_decide_as_policies_do() {
    let cases = [
        ("protocols = [\"udp\"]", false),
        ("protocols = [\"tcp\"]", true),
        ("families = [\"ipv6\"]", false),
        ("sources = [\"10.0.1.0/24\"]", false),
        ("sources = [\"10.0.0.0/24\"]", true),
        ("except-destinations = [\"203.0.113.0/24\"]", false),
        ("destinations = [\"203.0.113.0/24\"]", true),
        ("destinations = [\"198.51.100.0/24\"]", false),
        ("origin = \"local\"", false),
        ("origin = \"forwarded\"", true),
        ("out-interfaces = [\"lan0\"]", false),
        ("out-interfaces = [\"wan*\"]", true),
        ("out-interfaces = \"any\"", true),
    ];
    for (key, is_in_scope) in cases {
        let policies = policy(&format!("to-ports = \"49152-61000\"\n{key}"));
        assert_eq!(placed(&policies, FORWARDED).is_some(), is_in_scope, "{key}");
    }
}

#[test]
fn first_policy_that_translates_the_port_counts() {
    let policies = policies(
        "[[policy]]\nname = \"high\"\nto-ports = \"49152-61000\"\n\
         [[policy]]\nname = \"low\"\nsource-ports = \"1-1023\"\nto-ports = \"512-1023\"\n",
    );
    let sent = |from: u16, to: u16| {
        let text = format!("tcp 10.0.0.7:{from}>203.0.113.9:443 203.0.113.9:443>192.0.2.1:{to}");
        placed(&policies, &text).unwrap()
    };
    assert_eq!(sent(40_000, 50_000), ("high".into(), Placement::Permitted));
    assert_eq!(sent(500, 600), ("low".into(), Placement::Permitted));
}

#[test]
fn direction_without_nat_is_known_by_sources() {
    let transit = "tcp 198.51.100.7:40000>203.0.113.9:443 203.0.113.9:443>198.51.100.7:40000";
    let any = policy("to-ports = \"49152-61000\"");
    let mut usage = Usage::new(&any, &addresses());
    assert!(usage.add(&connection(transit)).is_none());
    assert_eq!((usage.unknown(), usage.policies()[0].outside), (1, 0));
    let inside = policy("to-ports = \"49152-61000\"\nsources = [\"198.51.100.0/24\"]");
    let mut usage = Usage::new(&inside, &addresses());
    assert!(usage.add(&connection(transit)).is_some());
    assert_eq!((usage.unknown(), usage.policies()[0].outside), (0, 1));
}

#[test]
fn fullest_destinations_come_first() {
    let policies = policy("to-ports = \"50000-50099\"");
    let mut usage = Usage::new(&policies, &addresses());
    for server in 1..=20_u16 {
        for port in 0..server {
            let (to, sent) = (format!("203.0.113.{server}:443"), 50_000 + port);
            let text = format!("tcp 10.0.0.7:40000>{to} {to}>192.0.2.1:{sent}");
            usage.add(&connection(&text));
        }
    }
    let fullest = usage.fullest(0, 10);
    assert_eq!(fullest.len(), 10);
    for (destination, ports) in fullest.iter().zip((11..=20).rev()) {
        assert_eq!((destination.ports, destination.error, destination.capacity), (ports, 0, 100));
        assert_eq!(destination.destination, format!("203.0.113.{ports}:443").parse().unwrap());
        assert_eq!(destination.source, IpAddr::from([192, 0, 2, 1]));
        assert!((destination.ratio() - f64::from(ports) / 100.0).abs() < 1e-9);
    }
    let of = &usage.policies()[0];
    assert_eq!((of.connections, of.used.count()), (210, 20));
    assert_eq!(of.used.to_set().to_string(), "50000-50019");
    assert_eq!(of.used.count_in("50010-50029".parse().unwrap()), 10);
    assert!(usage.fullest(1, 10).is_empty());
}

#[test]
fn zones_and_addresses_have_ports_of_their_own() {
    let policies = policy("to-ports = \"50000-50099\"");
    let mut usage = Usage::new(&policies, &addresses());
    let text = "tcp 10.0.0.7:40000>203.0.113.9:443 203.0.113.9:443>192.0.2.1:50000";
    usage.add(&connection(text));
    usage.add(&connection(&text.replace("192.0.2.1", "198.51.100.1")));
    let mut zoned = connection(text);
    zoned.reply.zone = 7;
    usage.add(&zoned);
    let fullest = usage.fullest(0, 10);
    assert!(fullest.len() == 3 && fullest.iter().all(|destination| destination.ports == 1));
    assert_eq!(fullest.iter().map(|destination| destination.zone).sum::<u16>(), 7);
}

#[test]
fn blocks_count_by_source() {
    let policies = policy("blocks = \"10.0.0.0/30=10@50000-50039\"");
    let mut usage = Usage::new(&policies, &addresses());
    for (source, sent) in [(1, 50_010), (1, 50_011), (2, 50_020), (2, 50_010), (9, 50_000)] {
        let source = format!("10.0.0.{source}:40000>203.0.113.9:443");
        usage.add(&connection(&format!("tcp {source} 203.0.113.9:443>192.0.2.1:{sent}")));
    }
    let fullest = usage.fullest(0, 10);
    let counts: Vec<_> = fullest.iter().map(|d| (d.source.to_string(), d.ports)).collect();
    assert_eq!(counts, [("10.0.0.1".to_string(), 2), ("10.0.0.2".to_string(), 1)]);
    assert!(fullest.iter().all(|destination| destination.capacity == 10));
    // A port of another block is outside; a source without a block is out of scope.
    assert_eq!((usage.policies()[0].connections, usage.policies()[0].outside), (3, 1));
}
