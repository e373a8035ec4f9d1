//! docs/rfc.md: what the kernel does where a requirement of an RFC is not a policy's to meet.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use ephport_nft::conntrack::{Connections, Filter};
use ephport_tests::tool::tool;
use ephport_tests::{CLIENT_V4, Host, Routed, SERVER_V4, ephport_ok};

const PORT: u16 = 443;
const OTHER: u16 = 444;
const SERVER: SocketAddr = SocketAddr::new(SERVER_V4, PORT);

/// The lab, with this policy for UDP on its router.
fn lab(apply: &str) -> Routed {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, &format!("apply -p udp {apply}"));
    net
}

fn socket(host: &Host, address: IpAddr, port: u16) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

/// Sends a datagram; the source that the server sees.
fn mapping(from: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    from.send_to(b"?", server.local_addr().unwrap()).unwrap();
    server.recv_from(&mut [0]).unwrap().1
}

/// Whether `to` receives nothing but what `marker` sends after `unwanted`.
fn is_lost(unwanted: impl FnOnce(), marker: impl FnOnce(), to: &UdpSocket) -> bool {
    unwanted();
    marker();
    let mut byte = [0];
    to.recv_from(&mut byte).unwrap();
    byte == *b"m"
}

/// The connections in conntrack of `host`.
fn tracked(host: &Host) -> usize {
    host.run(|| Connections::open(Filter::default()).unwrap().count())
}

#[test]
fn one_port_serves_several_destinations() {
    let net = lab("--to-ports 5000");
    let (server, other) =
        (socket(&net.server, SERVER_V4, PORT), socket(&net.server, SERVER_V4, OTHER));
    let (first, second) =
        (socket(&net.client, CLIENT_V4, 40_000), socket(&net.client, CLIENT_V4, 40_001));
    assert_eq!(mapping(&first, &server), mapping(&second, &other));
}

/// The ports of each of 64 sockets with even ports from 20000 on, for two destinations.
fn ports_by_destination(apply: &str) -> Vec<[u16; 2]> {
    let net = lab(apply);
    let (server, other) =
        (socket(&net.server, SERVER_V4, PORT), socket(&net.server, SERVER_V4, OTHER));
    let of = |port| {
        let client = socket(&net.client, CLIENT_V4, port);
        [mapping(&client, &server), mapping(&client, &other)].map(|seen| seen.port())
    };
    (20_000..20_128).step_by(2).map(of).collect()
}

#[test]
fn one_mapping_serves_all_destinations() {
    let kept = ports_by_destination("--to-ports 20000-20999");
    assert!(
        kept.iter().zip((20_000..).step_by(2)).all(|(seen, own)| *seen == [own; 2]),
        "{kept:?}"
    );
    let translated = ports_by_destination("--to-ports 40000-40999");
    assert!(translated.iter().all(|[one, other]| one == other), "{translated:?}");
}

#[test]
fn random_ports_differ_by_destination() {
    for flag in ["--random", "--fully-random"] {
        let ports = ports_by_destination(&format!("--to-ports 40000-40999 {flag}"));
        let same = ports.iter().filter(|[one, other]| one == other).count();
        assert!(same < 8, "{flag}: {same} of 64 sockets have one port for both destinations");
    }
}

#[test]
fn translated_ports_are_random_and_of_any_parity() {
    let ports = ports_by_destination("--to-ports 40000-40999");
    let first: Vec<_> = ports.iter().map(|[one, _]| *one).collect();
    let parities: BTreeSet<_> = first.iter().map(|port| port % 2).collect();
    let steps: BTreeSet<_> =
        first.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
    assert_eq!(parities.len(), 2, "{first:?}");
    assert!(steps.len() > 32, "consecutive connections have ports in sequence: {first:?}");
}

#[test]
fn mapping_accepts_its_destination_only() {
    let net = lab("--to-ports 40000-40999");
    let (server, other) =
        (socket(&net.server, SERVER_V4, PORT), socket(&net.server, SERVER_V4, OTHER));
    let client = socket(&net.client, CLIENT_V4, 20_000);
    let mapped = mapping(&client, &server);
    let send = |from: &UdpSocket, what: &[u8]| assert_eq!(from.send_to(what, mapped).unwrap(), 1);
    assert!(is_lost(|| send(&other, b"u"), || send(&server, b"m"), &client));
}

#[test]
fn inside_hosts_do_not_reach_each_other_by_outside_ports() {
    let net = lab("--to-ports 40000-40999");
    let server = socket(&net.server, SERVER_V4, PORT);
    let client = socket(&net.client, CLIENT_V4, 20_000);
    let mapped = mapping(&client, &server);
    let inside = socket(&net.client, CLIENT_V4, 20_001);
    let unwanted = || assert_eq!(inside.send_to(b"u", mapped).unwrap(), 1);
    let marker = || assert_eq!(server.send_to(b"m", mapped).unwrap(), 1);
    assert!(is_lost(unwanted, marker, &client));
}

#[test]
fn icmp_errors_leave_the_mapping() {
    let net = lab("--to-ports 40000-40999");
    let server = socket(&net.server, SERVER_V4, PORT);
    let client = socket(&net.client, CLIENT_V4, 20_000);
    let mapped = mapping(&client, &server);
    drop(server);
    client.connect(SERVER).unwrap();
    client.send(b"?").unwrap();
    // The error passed the router, which translated the packet in it.
    let refused = client.recv(&mut [0]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(tracked(&net.router), 1);
    let server = socket(&net.server, SERVER_V4, PORT);
    client.send(b"?").unwrap();
    assert_eq!(server.recv_from(&mut [0]).unwrap().1, mapped);
}

#[test]
fn ended_mapping_frees_its_port_at_once() {
    let net = lab("--to-ports 5000");
    let server = socket(&net.server, SERVER_V4, PORT);
    let first = socket(&net.client, CLIENT_V4, 20_000);
    let mapped = mapping(&first, &server);
    assert!(tool(&net.router, "conntrack", &["-F"], "").success);
    let second = socket(&net.client, CLIENT_V4, 20_001);
    assert_eq!(mapping(&second, &server), mapped);
}

#[test]
fn full_set_deletes_no_mapping() {
    let net = lab("--to-ports 5000");
    let server = socket(&net.server, SERVER_V4, PORT);
    let first = socket(&net.client, CLIENT_V4, 20_000);
    let mapped = mapping(&first, &server);
    let second = socket(&net.client, CLIENT_V4, 20_001);
    second.send_to(b"u", SERVER).unwrap();
    assert_eq!(mapping(&first, &server), mapped);
    assert_eq!(tracked(&net.router), 1);
}

#[test]
fn timers_of_conntrack_are_these() {
    let net = lab("--to-ports 40000-40999");
    let timer = |name: &str| -> u32 {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        let text = net.router.run(|| fs::read_to_string(&path).unwrap());
        text.trim().parse().unwrap()
    };
    let names = ["udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout"];
    assert_eq!(names.map(timer), [30, 120, 30, 30]);
    let tcp = ["established", "syn_sent", "fin_wait", "time_wait", "close"];
    let tcp = tcp.map(|state| timer(&format!("tcp_timeout_{state}")));
    assert_eq!(tcp, [432_000, 120, 120, 120, 10]);
}
