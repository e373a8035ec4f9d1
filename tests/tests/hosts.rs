//! Hosts as they are: uplinks wherever routes are, names that nft cannot express, local addresses.

use ephport_cli::Exit;
use ephport_nft::host;
use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::{
    CLIENT_V4, Host, Protocol, Routed, SERVER_V4, Server, ephport, ephport_ok, seen,
};

const LINE: &str = "--to-ports 49152-61000";

/// A host with an interface of this name, whose other end is `peer0`.
fn with_link(name: &str) -> Host {
    let host = Host::new("host").unwrap();
    let added =
        tool(&host, "ip", &["link", "add", name, "type", "veth", "peer", "name", "peer0"], "");
    assert!(added.success, "{added:?}");
    let up = tool(&host, "ip", &["link", "set", name, "up"], "");
    assert!(up.success, "{up:?}");
    ok(&host, "ip link set peer0 up");
    host
}

fn uplinks(host: &Host) -> Vec<String> {
    let facts = host.run(host::facts).unwrap();
    facts.uplinks.iter().map(ToString::to_string).collect()
}

#[test]
fn a6_uplinks_with_inexpressible_names_are_an_error() {
    for name in ["a\"b", "*", "lo*", "a\\b"] {
        let host = with_link(name);
        ok(&host, "ip link add eth0 type veth peer name peer1");
        ok(&host, "ip link set peer1 up");
        ok(&host, "ip link set eth0 up");
        ok(&host, "ip route add default dev eth0");
        let route = ["route", "add", "default", "dev", name, "metric", "9"];
        assert!(tool(&host, "ip", &route, "").success);
        let ended = ephport(&host, &format!("apply {LINE}"));
        assert_eq!(ended.exit, Exit::Failure, "{name}");
        let escaped = name.as_bytes().escape_ascii().to_string();
        assert!(ended.err.contains(&format!("uplink `{escaped}`")), "{}", ended.err);
        assert_eq!(ephport(&host, &format!("apply {LINE} -o eth0")).exit, Exit::Success, "{name}");
    }
}

#[test]
fn b11_uplinks_are_found_by_nexthops_and_half_routes() {
    let host = with_link("eth0");
    ok(&host, "ip address add 192.0.2.2/24 dev eth0");
    assert_eq!(uplinks(&host), [""; 0]);
    for (add, remove) in [
        (
            &["ip nexthop add id 7 via 192.0.2.1 dev eth0", "ip route add default nhid 7"][..],
            &["ip route del default", "ip nexthop del id 7"][..],
        ),
        (
            &[
                "ip nexthop add id 7 via 192.0.2.1 dev eth0",
                "ip nexthop add id 8 group 7",
                "ip route add default nhid 8",
            ],
            &["ip route del default", "ip nexthop flush"],
        ),
        (
            &["ip route add 0.0.0.0/1 dev eth0", "ip route add 128.0.0.0/1 dev eth0"],
            &["ip route del 0.0.0.0/1", "ip route del 128.0.0.0/1"],
        ),
        (
            &["ip -6 route add ::/1 dev eth0", "ip -6 route add 8000::/1 dev eth0"],
            &["ip -6 route del ::/1", "ip -6 route del 8000::/1"],
        ),
        (&["ip route add default dev eth0 table 51820"], &["ip route del default table 51820"]),
    ] {
        for compat in ["1", "0"] {
            host.sysctl("net/ipv4/nexthop_compat_mode", compat).unwrap();
            for line in add {
                ok(&host, line);
            }
            assert_eq!(uplinks(&host), ["eth0"], "{add:?}");
            for line in remove {
                drop(tool(&host, "ip", &line.split(' ').skip(1).collect::<Vec<_>>(), ""));
            }
            assert_eq!(uplinks(&host), [""; 0], "{remove:?}");
        }
    }
    ok(&host, "ip route add 128.0.0.0/1 dev eth0");
    assert_eq!(uplinks(&host), [""; 0], "one half is no default route");
}

#[test]
fn b9_reserved_ports_are_not_local_ports() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    net.router.sysctl("net/ipv4/ip_local_port_range", "20000 20009").unwrap();
    net.router.sysctl("net/ipv4/ip_local_reserved_ports", "20000-20004").unwrap();
    ephport_ok(&net.router, "apply --to-ports local");
    for port in 40_000..40_004 {
        let seen = seen(&net.client, Protocol::Udp, port, (SERVER_V4, 443).into()).port();
        assert!((20_005..=20_009).contains(&seen), "{seen}");
    }
}

#[test]
fn b12_alternative_names_are_resolved() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    ok(&net.router, "ip link property add dev wan0 altname internet0");
    ephport_ok(&net.router, &format!("apply {LINE} -o internet0"));
    let port = seen(&net.client, Protocol::Udp, 40_000, (SERVER_V4, 443).into()).port();
    assert!((49_152..=61_000).contains(&port), "{port}");
}

#[test]
fn b2_transparent_sockets_are_never_touched() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    // The server's answers to the client come to the router's transparent socket.
    nft_load(
        &net.router,
        "table ip divert {\n chain pre { type filter hook prerouting priority mangle; \
         iifname wan0 udp dport 40000 mark set 1; }\n}\n",
    );
    ok(&net.router, "ip rule add fwmark 1 lookup 100");
    ok(&net.router, "ip route add local 0.0.0.0/0 dev lo table 100");
    ephport_ok(&net.router, &format!("apply {LINE} --enforce --address masquerade"));
    let mut capture = ephport_tests::wire::Capture::start(&net.server);
    net.router.run(|| {
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )
        .unwrap();
        socket.set_ip_transparent_v4(true).unwrap();
        socket.bind(&std::net::SocketAddr::new(CLIENT_V4, 40_000).into()).unwrap();
        let to = std::net::SocketAddr::new(SERVER_V4, 443);
        socket.send_to(b"hello", &to.into()).unwrap();
    });
    let packets = capture.packets();
    assert!(
        packets
            .iter()
            .any(|packet| packet.source == CLIENT_V4 && packet.source_port == Some(40_000)),
        "{packets:?}"
    );
}

#[test]
fn b12_forms_of_other_tools_name_the_right_one() {
    let (host, _peer) = ephport_tests::host_with_uplink();
    for (flag, expected) in [
        ("eth+", "expected a prefix with `*`, like wg*"),
        ("!lo", "expected the interfaces to except in except-interfaces"),
    ] {
        let ended = ephport(&host, &format!("apply {LINE} -o {flag}"));
        assert_eq!(ended.exit, Exit::Usage, "{flag}");
        assert!(ended.err.contains(expected), "{}", ended.err);
    }
    let policy = "[[policy]]\nname = \"a\"\nto-ports = \"1024-2047\"\nout-interfaces = ";
    let file = ephport_tests::PolicyFile::new(&format!("{policy}\"eth0,eth1\"\n"));
    let shown = ephport_ok(&host, &format!("show {} --format summary", file.path()));
    assert!(shown.contains("  out-interfaces  eth0, eth1\n"), "{shown}");
    let file = ephport_tests::PolicyFile::new(&format!("{policy}[\"eth0,eth1\"]\n"));
    let ended = ephport(&host, &format!("apply {}", file.path()));
    assert!(ended.err.contains("write each interface as an item of its own"), "{}", ended.err);
}

#[test]
fn b14_loopback_is_refused() {
    let (host, _peer) = ephport_tests::host_with_uplink();
    let ended = ephport(&host, &format!("apply {LINE} -o lo"));
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("no policy applies to the loopback interface"), "{}", ended.err);
}
