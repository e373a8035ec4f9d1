//! The faults of the original one-liner, each shown with it, and its absence with ephport.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ephport_tests::tool::ok;
use ephport_tests::{
    CLIENT_V4, Host, Protocol, ROUTER_V4, Routed, SERVER_V4, Server, connect, ephport_ok, publish,
    seen,
};

const PORT: u16 = 443;
const INSIDE: std::ops::RangeInclusive<u16> = 49_152..=61_000;

fn one_liner(host: &Host) {
    ok(
        host,
        "iptables-nft -t nat -I POSTROUTING -p tcp -m tcp --sport 32768:61000 \
         -j MASQUERADE --to-ports 49152-61000",
    );
}

fn ephport(host: &Host) {
    ephport_ok(host, "apply --to-ports 49152-61000");
}

fn ephport_on_any(host: &Host) {
    ephport_ok(host, "apply --to-ports 49152-61000 -o any");
}

/// What `of` sees after `install`.
fn after(install: fn(&Host), of: fn(&Routed) -> SocketAddr) -> SocketAddr {
    let net = Routed::new().unwrap();
    install(&net.router);
    of(&net)
}

#[test]
fn it_rewrites_connections_on_loopback() {
    fn on_loopback(net: &Routed) -> SocketAddr {
        let _server = Server::start(&net.router, PORT).unwrap();
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let from = SocketAddr::new(localhost, 40_000);
        seen(&net.router, Protocol::Tcp, from, SocketAddr::new(localhost, PORT))
    }
    let untouched = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    assert!(!after(one_liner, on_loopback).ip().is_loopback());
    assert_eq!(after(ephport, on_loopback), untouched);
    assert_eq!(after(ephport_on_any, on_loopback), untouched);
}

#[test]
fn it_hides_clients_of_published_ports() {
    fn published(net: &Routed) -> SocketAddr {
        publish(&net.router, 8080, PORT);
        let _server = Server::start(&net.client, PORT).unwrap();
        let from = SocketAddr::new(SERVER_V4, 40_000);
        seen(&net.server, Protocol::Tcp, from, SocketAddr::new(ROUTER_V4, 8080))
    }
    assert_eq!(after(one_liner, published).ip(), IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1)));
    assert_eq!(after(ephport, published), SocketAddr::new(SERVER_V4, 40_000));
}

#[test]
fn it_ignores_other_source_ports() {
    fn low_port(net: &Routed) -> SocketAddr {
        let _server = Server::start(&net.server, PORT).unwrap();
        seen(&net.client, Protocol::Tcp, 20_000, SocketAddr::new(SERVER_V4, PORT))
    }
    assert_eq!(after(one_liner, low_port), SocketAddr::new(CLIENT_V4, 20_000));
    let translated = after(ephport, low_port);
    assert!(translated.ip() == ROUTER_V4 && INSIDE.contains(&translated.port()), "{translated}");
}

#[test]
fn it_ignores_udp_and_ipv6() {
    fn udp(net: &Routed) -> SocketAddr {
        let _server = Server::start(&net.server, PORT).unwrap();
        seen(&net.client, Protocol::Udp, 40_000, SocketAddr::new(SERVER_V4, PORT))
    }
    fn ipv6(net: &Routed) -> SocketAddr {
        let _server = Server::start(&net.server, PORT).unwrap();
        seen(&net.client, Protocol::Tcp, 40_000, (ephport_tests::SERVER_V6, PORT).into())
    }
    for way in [udp, ipv6] {
        assert_eq!(after(one_liner, way).port(), 40_000);
        assert!(INSIDE.contains(&after(ephport, way).port()));
    }
}

#[test]
fn it_loses_against_a_masquerade_that_comes_first() {
    fn after_another(net: &Routed) -> SocketAddr {
        // As a container engine that restarts puts its own rule in front.
        ok(&net.router, "iptables-nft -t nat -I POSTROUTING -s 10.77.1.0/24 -j MASQUERADE");
        let _server = Server::start(&net.server, PORT).unwrap();
        seen(&net.client, Protocol::Tcp, 40_000, SocketAddr::new(SERVER_V4, PORT))
    }
    assert_eq!(after(one_liner, after_another), SocketAddr::new(ROUTER_V4, 40_000));
    let translated = after(ephport, after_another);
    assert!(translated.ip() == ROUTER_V4 && INSIDE.contains(&translated.port()), "{translated}");
}

#[test]
fn it_is_duplicated_when_loaded_twice() {
    let net = Routed::new().unwrap();
    one_liner(&net.router);
    one_liner(&net.router);
    let rules = ok(&net.router, "iptables-nft -t nat -S POSTROUTING");
    assert_eq!(rules.matches("49152-61000").count(), 2);
    ephport(&net.router);
    let again = ephport_ok(&net.router, "apply --to-ports 49152-61000");
    assert!(again.starts_with("unchanged table inet ephport\n"), "{again}");
    let _server = Server::start(&net.server, PORT).unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    assert!(net.client.run(|| connect(Protocol::Udp, 40_000, to)).is_ok());
}
