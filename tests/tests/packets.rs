//! Real packets, forwarded and local, TCP and UDP, IPv4 and IPv6.

use std::net::SocketAddr;

use ephport_tests::tool::ok;
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Connection, Host, Protocol, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4,
    Server, connect, ephport_ok, of_family, protocols_and_servers,
};

const PORT: u16 = 443;
const INSIDE: std::ops::RangeInclusive<u16> = 49_152..=61_000;

fn open(host: &Host, protocol: Protocol, from: &[u16], to: SocketAddr) -> Vec<Connection> {
    host.run(|| {
        let connection = |port: &u16| connect(protocol, *port, to).expect("a connection");
        from.iter().map(connection).collect()
    })
}

#[test]
fn connections_arrive_from_inside_ports() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, "apply --to-ports 49152-61000");
    // On a slow machine a connection must not be forgotten before it is looked at again.
    net.router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "600").unwrap();
    let outside: Vec<u16> =
        (0..100).map(|i| 1024 + i * 400).chain((0..100).map(|i| 61_001 + i)).collect();
    for (protocol, server) in protocols_and_servers() {
        let to = SocketAddr::new(server, PORT);
        // First those whose ports are inside, other ports for each host: all of them are free.
        let mut kept = Vec::new();
        // A public address of the client is not changed.
        let client = of_family(server, ROUTER_V4, CLIENT_V6);
        let hosts = [(&net.client, client), (&net.router, of_family(server, ROUTER_V4, ROUTER_V6))];
        for ((host, address), offset) in hosts.iter().zip(0..) {
            let inside: Vec<u16> = (0..200).map(|i| 49_152 + i * 59 + offset).collect();
            kept.extend(open(host, protocol, &inside, to));
            for (connection, port) in kept.iter().rev().zip(inside.iter().rev()) {
                assert_eq!(connection.seen, SocketAddr::new(*address, *port), "{protocol}");
            }
        }
        for (host, address) in hosts {
            let translated = open(host, protocol, &outside, to);
            for connection in &translated {
                assert!(INSIDE.contains(&connection.seen.port()), "{protocol} {}", connection.seen);
                assert_eq!(connection.seen.ip(), address);
            }
            // Payload went in both directions when they opened, and it still does.
            for connection in kept.iter().chain(&translated) {
                assert_eq!(connection.exchange(b"more"), Ok(connection.seen));
            }
        }
    }
}

#[test]
fn port_in_use_is_replaced_inside_range() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, "apply --to-ports 50000-50009");
    let to = SocketAddr::new(SERVER_V4, PORT);
    let first = open(&net.client, Protocol::Udp, &[50_000], to);
    let second = open(&net.router, Protocol::Udp, &[50_000], to);
    assert_eq!(first[0].seen, SocketAddr::new(ROUTER_V4, 50_000));
    assert!((50_001..=50_009).contains(&second[0].seen.port()), "{}", second[0].seen);
}

/// Opens connections, changes the host, and counts those that still carry payload in both directions.
fn survivors(change: impl FnOnce(&Host)) -> usize {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    let connections = open(&net.client, Protocol::Tcp, &[40_000, 40_001, 40_002, 40_003], to);
    assert!(connections.iter().all(|c| c.seen.ip() == CLIENT_V4));
    change(&net.router);
    connections.iter().filter(|c| c.exchange(b"still there?").is_ok()).count()
}

#[test]
fn open_connections_survive_the_first_apply() {
    let alive = survivors(|router| {
        ephport_ok(router, "apply --sport 32768-61000 --to-ports 49152-61000 -o any");
    });
    assert_eq!(alive, 4);
}

#[test]
fn original_line_breaks_open_connections() {
    let alive = survivors(|router| {
        ok(
            router,
            "iptables-nft -t nat -I POSTROUTING -p tcp -m tcp --sport 32768:61000 \
             -j MASQUERADE --to-ports 49152-61000",
        );
    });
    assert_eq!(alive, 0);
}

#[test]
fn pick_up_any_breaks_open_connections() {
    let alive = survivors(|router| {
        let line = "--sport 32768-61000 --to-ports 49152-61000 -o any --pick-up any";
        ephport_ok(router, &format!("apply {line}"));
    });
    assert_eq!(alive, 0);
}

#[test]
fn removed_policy_translates_nothing() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    ephport_ok(&net.router, "apply --to-ports 49152-61000");
    assert_eq!(open(&net.client, Protocol::Udp, &[40_000], to)[0].seen.ip(), ROUTER_V4);
    assert_eq!(ephport_ok(&net.router, "remove"), "removed table inet ephport\n");
    assert_eq!(
        open(&net.client, Protocol::Udp, &[40_001], to)[0].seen,
        SocketAddr::new(CLIENT_V4, 40_001)
    );
}
