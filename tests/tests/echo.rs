//! Echo identifiers of ICMP and ICMPv6, by raw packets (RFC 5508, RFC 7597 §8.2).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ephport_core::{MapE, PortSet};
use ephport_tests::tool::nft_load;
use ephport_tests::wire::{Capture, Packet};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6, dropped,
    ephport, ephport_ok,
};
use socket2::{Domain, Protocol, Socket, Type};

/// The set of a MAP-E customer: 15 ranges of 16 ports.
const MAP_E: &str = "psid=52,psid-len=8,offset=4";

/// The first identifier that the tests use; outside of all sets.
const FIRST: u16 = 40_000;

/// The messages of one family: the types of a request and its reply (RFC 792, RFC 4443).
#[derive(Clone, Copy)]
struct Icmp {
    to: IpAddr,
    request: u8,
    reply: u8,
}

const V4: Icmp = Icmp { to: SERVER_V4, request: 8, reply: 0 };
const V6: Icmp = Icmp { to: SERVER_V6, request: 128, reply: 129 };

fn of_family(address: IpAddr) -> Icmp {
    if address.is_ipv4() { V4 } else { V6 }
}

impl Icmp {
    fn number(self) -> u8 {
        if self.to.is_ipv4() { 1 } else { 58 }
    }
}

/// A host that sends requests and reads what answers them.
struct Pinger {
    socket: Socket,
    icmp: Icmp,
}

impl Pinger {
    fn new(host: &Host, icmp: Icmp) -> Self {
        let (domain, protocol) = match icmp.to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = host.run(|| Socket::new(domain, Type::RAW, Some(protocol))).unwrap();
        socket.set_recv_buffer_size(8 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { socket, icmp }
    }

    fn send(&self, id: u16, sequence: u16) {
        self.send_type(self.icmp.request, id, sequence);
    }

    /// The kernel fills in the checksum of ICMPv6. A rule may drop the packet, which is an error of the call.
    fn send_type(&self, icmp_type: u8, id: u16, sequence: u16) {
        let mut message = vec![icmp_type, 0, 0, 0];
        message.extend([id.to_be_bytes(), sequence.to_be_bytes()].concat());
        message.resize(20, 0);
        let words = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let checksum = !u16::try_from(words.sum::<u32>() % 0xffff).unwrap();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let _ = self.socket.send_to(&message, &SocketAddr::new(self.icmp.to, 0).into());
    }

    /// The identifiers and sequence numbers of replies, until `count` have arrived or none does for some time.
    fn replies(&mut self, count: usize) -> BTreeSet<(u16, u16)> {
        let (mut replies, mut buffer) = (BTreeSet::new(), [0; 512]);
        let mut last = Instant::now();
        while replies.len() < count && last.elapsed() < Duration::from_secs(2) {
            let Ok(len) = self.socket.read(&mut buffer) else { continue };
            let header = if self.icmp.to.is_ipv4() { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
            let message = &buffer[header..len];
            if message[0] == self.icmp.reply {
                let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
                replies.insert((number(4), number(6)));
                last = Instant::now();
            }
        }
        replies
    }
}

/// The identifiers of the requests among `packets`, with how often each came.
fn identifiers(packets: &[Packet], icmp: Icmp) -> BTreeMap<u16, usize> {
    let mut seen = BTreeMap::new();
    let is_request = |packet: &&Packet| {
        packet.protocol == icmp.number() && packet.transport.first() == Some(&icmp.request)
    };
    for packet in packets.iter().filter(is_request) {
        let id = u16::from_be_bytes([packet.transport[4], packet.transport[5]]);
        *seen.entry(id).or_default() += 1;
    }
    seen
}

fn is_inside(set: &PortSet, id: u16) -> bool {
    ephport_core::Port::new(id).is_ok_and(|port| set.contains(port))
}

fn map_e() -> PortSet {
    MAP_E.parse::<MapE>().unwrap().ports()
}

/// Sends pings with 240 identifiers, `rounds` times: each is answered, and arrives with an identifier of the
/// set; the count of identifiers that the server sees.
fn pings(net: &Routed, from: &Host, icmp: Icmp, set: &PortSet, rounds: u16) -> usize {
    let mut pinger = Pinger::new(from, icmp);
    let mut capture = Capture::start(&net.server);
    let mut seen = BTreeMap::new();
    for sequence in 0..rounds {
        let ids: Vec<_> = (FIRST..FIRST + 240).collect();
        // The buffer of a capture may be too small for all of a round.
        for ids in ids.chunks(40) {
            let expected: BTreeSet<_> = ids.iter().map(|id| (*id, sequence)).collect();
            for (id, sequence) in &expected {
                pinger.send(*id, *sequence);
            }
            let replies = pinger.replies(expected.len());
            assert_eq!(replies, expected, "round {sequence}: {} of 40 answered", replies.len());
            for (id, count) in identifiers(&capture.ready(), icmp) {
                *seen.entry(id).or_insert(0) += count;
            }
        }
    }
    for (id, count) in identifiers(&capture.packets(), icmp) {
        *seen.entry(id).or_insert(0) += count;
    }
    let outside: Vec<_> = seen.keys().filter(|id| !is_inside(set, **id)).collect();
    assert!(outside.is_empty(), "{outside:?} outside {set}");
    assert_eq!(seen.values().sum::<usize>(), 240 * usize::from(rounds));
    seen.len()
}

/// openwrt/openwrt#25191: 42 rounds of 240 are 10,080 pings.
#[test]
fn map_e_uses_its_set_for_identifiers() {
    for enforce in ["", "--enforce"] {
        let net = Routed::new().unwrap();
        ephport_ok(&net.router, &format!("apply --map-e {MAP_E} {enforce}"));
        assert_eq!(pings(&net, &net.client, V4, &map_e(), 42), 240, "{enforce}");
        assert_eq!(dropped(&net.router), 0);
    }
}

#[test]
fn local_pings_use_the_set() {
    for enforce in ["", "--enforce"] {
        let net = Routed::new().unwrap();
        ephport_ok(&net.router, &format!("apply --map-e {MAP_E} {enforce}"));
        assert_eq!(pings(&net, &net.router, V4, &map_e(), 4), 240, "{enforce}");
    }
}

/// IPv6, by each distribution over many ranges, and with one range; IPv4 too where the policy names both.
#[test]
fn identifiers_use_each_form_of_set() {
    let equal = map_e().to_string();
    for (flags, set, least) in [
        ("--address masquerade --enforce", "30000-30239", 200),
        ("--address auto", "30000-30239", 200),
        ("--spread weighted", equal.as_str(), 100),
        ("--enforce", equal.as_str(), 240),
        ("--fully-random", equal.as_str(), 100),
    ] {
        let net = Routed::new().unwrap();
        let line = format!("apply -p tcp,icmp,icmpv6 --to-ports {set} {flags}");
        ephport_ok(&net.router, &line);
        let set = set.parse().unwrap();
        for icmp in [V4, V6] {
            // Where the draw is random, a range may be full: then half as many identifiers.
            if least < 240 {
                assert!(some_pings(&net, icmp, &set, 60) <= 60, "{line}");
            } else {
                assert_eq!(pings(&net, &net.client, icmp, &set, 2), 240, "{line}");
            }
        }
    }
}

/// Pings with so many identifiers from the client, all of which are answered.
fn some_pings(net: &Routed, icmp: Icmp, set: &PortSet, count: u16) -> usize {
    let mut pinger = Pinger::new(&net.client, icmp);
    let mut capture = Capture::start(&net.server);
    (FIRST..FIRST + count).for_each(|id| pinger.send(id, 1));
    let replies = pinger.replies(count.into());
    assert_eq!(replies.len(), usize::from(count));
    let seen = identifiers(&capture.packets(), icmp);
    assert!(seen.keys().all(|id| is_inside(set, *id)), "{seen:?} outside {set}");
    seen.len()
}

/// An identifier of a source is the same for two destinations, and a permitted one in a large range is kept.
#[test]
fn hash_gives_an_identifier_one_range() {
    let net = Routed::new().unwrap();
    let line = "apply -p icmp,icmpv6 --to-ports 10000-10999,20000-20999 --per-source-stable";
    ephport_ok(&net.router, line);
    net.server.address("eth0", "203.0.113.10/24").unwrap();
    net.server.address("eth0", "2001:db8:2::10/64").unwrap();
    for icmp in [V4, V6] {
        let other = match icmp.to {
            IpAddr::V4(_) => "203.0.113.10",
            IpAddr::V6(_) => "2001:db8:2::10",
        };
        let to = [icmp, Icmp { to: other.parse().unwrap(), ..icmp }];
        let ids = to.map(|icmp| {
            let mut pinger = Pinger::new(&net.client, icmp);
            let mut capture = Capture::start(&net.server);
            for id in (FIRST..FIRST + 40).chain([10_007, 20_008]) {
                pinger.send(id, 1);
                assert_eq!(pinger.replies(1), BTreeSet::from([(id, 1)]));
            }
            let requests = capture.packets();
            let seen = |id: u16| identifiers(&requests, icmp).contains_key(&id);
            assert!(seen(10_007) && seen(20_008), "permitted identifiers are kept");
            let ids: Vec<_> = requests
                .iter()
                .filter(|packet| packet.transport.first() == Some(&icmp.request))
                .map(|packet| u16::from_be_bytes([packet.transport[4], packet.transport[5]]))
                .map(|id| id / 10_000)
                .collect();
            ids
        });
        assert_eq!(ids[0], ids[1]);
        assert!(ids[0].contains(&1) && ids[0].contains(&2), "{ids:?}");
    }
}

/// With a virtual range, ports are rewritten and identifiers are not: both are inside of the set.
#[test]
fn remapped_policies_translate_identifiers() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, &format!("apply --map-e {MAP_E} --spread remap --enforce"));
    assert_eq!(pings(&net, &net.client, V4, &map_e(), 2), 240);
    assert_eq!(dropped(&net.router), 0);
}

/// Who sends what past NAT: only echo requests are dropped, and only outside of the set.
#[test]
fn enforcement_judges_echo_requests_only() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, "apply -p icmp,icmpv6 --to-ports 30000-30999 --enforce");
    nft_load(
        &net.router,
        "table inet raw {\n chain prerouting {\n type filter hook prerouting priority raw;\n notrack\n }\n \
         chain output {\n type filter hook output priority raw;\n notrack\n }\n}\n",
    );
    for icmp in [V4, V6] {
        for host in [&net.client, &net.router] {
            let before = dropped(&net.router);
            let pinger = Pinger::new(host, icmp);
            let mut capture = Capture::start(&net.server);
            for id in [1, 29_999, 30_000, 30_999, 31_000] {
                pinger.send(id, 1);
            }
            // Of a timestamp request; of a node information query.
            let other = if icmp.to.is_ipv4() { 13 } else { 139 };
            pinger.send_type(other, 5, 1);
            let packets = capture.packets();
            let seen: Vec<_> = identifiers(&packets, icmp).into_keys().collect();
            assert_eq!(seen, [30_000, 30_999]);
            assert!(packets.iter().any(|packet| packet.transport.first() == Some(&other)));
            assert_eq!(dropped(&net.router) - before, 3);
        }
    }
}

/// A ping from outside, and errors about packets from outside, are sent as they are.
#[test]
fn replies_and_errors_pass() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, "apply -p udp,icmp,icmpv6 --to-ports 30000-30999 --enforce");
    for to in [CLIENT_V4, ROUTER_V4, CLIENT_V6, ROUTER_V6] {
        let icmp = Icmp { to, ..of_family(to) };
        let mut pinger = Pinger::new(&net.server, icmp);
        pinger.send(FIRST, 1);
        assert_eq!(pinger.replies(1), BTreeSet::from([(FIRST, 1)]), "{to}");
        let closed = SocketAddr::new(to, 9);
        let error = net.server.run(|| {
            let any = if closed.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = std::net::UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            socket.connect(closed).unwrap();
            socket.send(b"?").unwrap();
            socket.recv(&mut [0; 8]).unwrap_err()
        });
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
    }
    assert_eq!(dropped(&net.router), 0);
}

#[test]
fn identifiers_stay_unless_asked_for() {
    for flags in [
        "--to-ports 30000-30999",
        "--sport 32768-61000 --to-ports 49152-61000",
        "-p tcp,udp --map-e psid=52,psid-len=8,offset=4",
        "-p icmpv6 --to-ports 30000-30999 --enforce",
        "--dport 53 --map-e psid=52,psid-len=8,offset=4 --enforce",
    ] {
        let net = Routed::new().unwrap();
        ephport_ok(&net.router, &format!("apply {flags}"));
        let mut pinger = Pinger::new(&net.client, V4);
        let mut capture = Capture::start(&net.server);
        pinger.send(FIRST, 1);
        assert_eq!(pinger.replies(1), BTreeSet::from([(FIRST, 1)]));
        let seen: Vec<_> = identifiers(&capture.packets(), V4).into_keys().collect();
        assert_eq!(seen, [FIRST], "{flags}");
    }
}

/// RFC 7422: each source has the identifiers of its block; one without a block is dropped.
#[test]
fn blocks_contain_identifiers() {
    let net = Routed::new().unwrap();
    net.client.address("eth0", "10.77.1.3/24").unwrap();
    let line = "apply --blocks 10.77.1.2=30000-30015 --blocks 2001:db8:1::2=31000-31015 --enforce";
    ephport_ok(&net.router, line);
    for (icmp, set) in [(V4, "30000-30015"), (V6, "31000-31015")] {
        assert!(some_pings(&net, icmp, &set.parse().unwrap(), 12) == 12);
    }
    let pinger = Pinger::new(&net.client, V4);
    pinger.socket.bind(&SocketAddr::from(([10, 77, 1, 3], 0)).into()).unwrap();
    let mut capture = Capture::start(&net.server);
    pinger.send(FIRST, 2);
    assert_eq!(identifiers(&capture.packets(), V4).len(), 0);
    assert_eq!(dropped(&net.router), 1);
}

#[test]
fn usage_counts_identifiers() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, &format!("apply --map-e {MAP_E}"));
    let mut pinger = Pinger::new(&net.client, V4);
    (FIRST..FIRST + 24).for_each(|id| pinger.send(id, 1));
    assert_eq!(pinger.replies(24).len(), 24);
    let usage = ephport_ok(&net.router, &format!("usage --map-e {MAP_E}"));
    assert!(usage.contains("24/240  icmp 203.0.113.9\n"), "{usage}");
    assert_eq!(
        ephport(&net.router, &format!("usage --map-e {MAP_E} --outside")).exit,
        ephport_cli::Exit::Success
    );
}
