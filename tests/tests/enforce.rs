//! Enforcement: what would still be sent with another port is dropped and counted, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use ephport_tests::tool::nft_load;
use ephport_tests::wire::{Capture, Raw, Sender, plain, tcp};
use ephport_tests::{
    CLIENT_V4, Host, Protocol, ROUTER_V4, Routed, SERVER_V4, Server, connect, connect_within,
    dropped, ephport_ok, seen,
};

const PORT: u16 = 443;
const SERVER: SocketAddr = SocketAddr::new(SERVER_V4, PORT);
const SHORT: Duration = Duration::from_millis(200);

/// A tool that binds connections before us, to ports that are not allowed.
fn somebody_first(router: &Host) {
    nft_load(
        router,
        "table ip first {\n chain postrouting {\n \
         type nat hook postrouting priority 80; policy accept;\n \
         oifname \"wan0\" meta l4proto { tcp, udp } masquerade to :2000-2999\n }\n}\n",
    );
}

#[test]
fn other_tools_translations_outside_are_dropped() {
    for (flags, expected) in [("", true), ("--enforce", false)] {
        let net = Routed::new().unwrap();
        let _server = Server::start(&net.server, PORT).unwrap();
        somebody_first(&net.router);
        ephport_ok(&net.router, &format!("apply --to-ports 49152-61000 {flags}"));
        for (host, protocol) in [(&net.client, Protocol::Tcp), (&net.client, Protocol::Udp)] {
            let result = host.run(|| connect_within(SHORT, protocol, 40_000, SERVER));
            match result {
                Ok(connection) => {
                    assert!(expected && (2_000..3_000).contains(&connection.seen.port()));
                }
                Err(error) => assert!(!expected, "{error}"),
            }
        }
        if !expected {
            assert!(dropped(&net.router) >= 2);
        }
    }
}

#[test]
fn forwarded_segments_unknown_to_conntrack_are_dropped() {
    const ACK: u8 = 0x10;
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let _seen = seen(&net.client, Protocol::Tcp, 40_000, SERVER);
    ephport_ok(&net.router, "apply --to-ports 49152-61000 --enforce");
    let mut capture = Capture::start(&net.server);
    let from = SocketAddr::new(CLIENT_V4, 40_001);
    let bytes = plain(from.ip(), SERVER.ip(), 6, &tcp(from, SERVER, ACK, &[]));
    let packet = Raw { name: "segment".into(), to: SERVER.ip(), bytes };
    Sender::new(&net.client).send(&packet).unwrap();
    let packets = capture.packets();
    let escaped = packets.iter().any(|packet| packet.source_port == Some(from.port()));
    assert!(!escaped, "{packets:?}");
    assert_eq!(dropped(&net.router), 1);
}

#[test]
fn translated_and_exempt_ports_are_permitted() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, "apply --to-ports 49152-61000 --exempt-sport 4500 --enforce");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for host in [&net.client, &net.router] {
            let port = seen(host, protocol, 40_000, SERVER).port();
            assert!((49_152..=61_000).contains(&port), "{port}");
        }
    }
    for port in [68, 500, 4500] {
        let own = SocketAddr::new(CLIENT_V4, port);
        assert_eq!(seen(&net.client, Protocol::Udp, port, SERVER), own);
    }
    assert_eq!(dropped(&net.router), 0);
}

#[test]
fn replies_are_permitted_on_any_port() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, "apply --to-ports 49152-61000 --enforce");
    let _here = Server::start(&net.router, 8080).unwrap();
    let _behind = Server::start(&net.client, 8080).unwrap();
    for address in [ROUTER_V4, CLIENT_V4] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let to = SocketAddr::new(address, 8080);
            let own = SocketAddr::new(SERVER_V4, 40_000);
            assert_eq!(seen(&net.server, protocol, 40_000, to), own);
        }
    }
    assert_eq!(dropped(&net.router), 0);
}

#[test]
fn packets_out_of_scope_are_not_enforced() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let scope = "-p udp --except-destination 203.0.113.9 --enforce";
    ephport_ok(&net.router, &format!("apply --to-ports 49152-61000 {scope}"));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let own = SocketAddr::new(CLIENT_V4, 40_000);
        assert_eq!(seen(&net.client, protocol, 40_000, SERVER), own);
    }
}

#[test]
fn the_address_is_masqueraded_kept_or_fixed() {
    let fixed = "203.0.113.7".parse().unwrap();
    let cases = [("masquerade", ROUTER_V4), ("keep", CLIENT_V4), ("203.0.113.7", fixed)];
    for target in ["49152-61000", "49152-55000,56000-61000"] {
        for (address, expected) in cases {
            let net = Routed::new().unwrap();
            let _server = Server::start(&net.server, PORT).unwrap();
            net.router.address("wan0", "203.0.113.7/24").unwrap();
            ephport_ok(&net.router, &format!("apply --to-ports {target} --address {address}"));
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let source = net.client.run(|| connect(protocol, 40_000, SERVER)).unwrap().seen;
                assert_eq!(source.ip(), expected, "{address}");
                assert!((49_152..=61_000).contains(&source.port()), "{source}");
            }
        }
    }
}
