//! Source addresses, bridged frames and other tools' business: what a policy must not disturb, with real
//! packets.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};

use ephport_cli::Exit;
use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::wire::Capture;
use ephport_tests::{
    BRIDGED_LEFT, BRIDGED_RIGHT, Bridged, CLIENT_V4, CLIENT_V6, Host, Protocol, ROUTER_V4,
    ROUTER_V6, Routed, SERVER_V4, SERVER_V6, Server, TempDir, connect, dropped, ephport,
    ephport_ok, of_family, protocols_and_servers, routed_with_addresses, seen,
};

const PORT: u16 = 443;
const LINE: &str = "--to-ports 49152-61000";
const INSIDE: RangeInclusive<u16> = 49_152..=61_000;

/// A source port outside of `INSIDE` that no connection before had: conntrack remembers these.
fn fresh() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Each kind of source, with the address that the server sees; `None` is the router's primary one.
#[test]
fn b5_auto_keeps_addresses_that_are_valid_outside() {
    let net = routed_with_addresses();
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, &format!("apply {LINE} --enforce"));
    for (host, source, is_kept) in [
        (&net.router, "203.0.113.1", true),
        (&net.router, "203.0.113.7", true),
        (&net.router, "198.51.100.1", true),
        (&net.router, "10.99.0.1", true),
        (&net.router, "198.51.100.65", true),
        (&net.router, "10.77.1.1", false),
        (&net.router, "192.0.2.1", false),
        (&net.client, "198.51.100.66", true),
        (&net.client, "10.77.1.2", false),
        (&net.client, "100.64.0.2", false),
        (&net.router, "2001:db8:2::1", true),
        (&net.router, "2001:db8:2::7", true),
        (&net.router, "2001:db8:99::1", true),
        (&net.router, "fd99::1", true),
        (&net.router, "2001:db8:4::1", true),
        (&net.router, "fd77::1", false),
        (&net.router, "2001:db8:3::1", false),
        (&net.client, "2001:db8:4::2", true),
        (&net.client, "2001:db8:1::2", true),
        (&net.client, "fd77::2", false),
    ] {
        let source: IpAddr = source.parse().unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let from = SocketAddr::new(source, 40_000);
            let seen =
                seen(host, protocol, from, (of_family(source, SERVER_V4, SERVER_V6), PORT).into());
            assert!(INSIDE.contains(&seen.port()), "{source}: {seen}");
            // Of several IPv6 addresses of the uplink, masquerading selects any.
            let masqueraded: &[&str] = match source {
                IpAddr::V4(_) => &["203.0.113.1"],
                IpAddr::V6(_) => &["2001:db8:2::1", "2001:db8:2::7"],
            };
            let is_masqueraded = masqueraded.contains(&seen.ip().to_string().as_str());
            let is_right = if is_kept { seen.ip() == source } else { is_masqueraded };
            assert!(is_right, "{protocol} {source} is seen as {seen}");
        }
    }
    assert_eq!(dropped(&net.router), 0);
}

/// Connections that a mark sends by the second provider get that one's address.
#[test]
fn b5_rerouted_connections_get_the_address_of_their_uplink() {
    let net = routed_with_addresses();
    let _server = Server::start(&net.server, PORT).unwrap();
    ok(&net.router, "ip rule add fwmark 7 lookup 77");
    ok(&net.router, "ip route add default via 192.0.2.9 dev wan1 table 77");
    nft_load(
        &net.router,
        "table ip m {\n chain o { type route hook output priority mangle; udp dport 443 mark set 7; }\n}\n",
    );
    ephport_ok(&net.router, &format!("apply {LINE}"));
    // The socket chose the address before the mark changed the route.
    let seen = seen(&net.router, Protocol::Udp, 40_000, (SERVER_V4, PORT).into());
    assert_eq!(seen.ip().to_string(), "192.0.2.1");
    assert!(INSIDE.contains(&seen.port()), "{seen}");
}

#[test]
fn b3_routed_ipv6_containers_keep_their_address() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, &format!("apply {LINE}"));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let seen = seen(&net.client, protocol, 40_000, (SERVER_V6, PORT).into());
        assert_eq!(seen.ip(), CLIENT_V6);
        assert!(INSIDE.contains(&seen.port()), "{seen}");
    }
}

#[test]
fn addresses_of_a_policy_are_those_asked_for() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    ok(&net.router, "ip address add 203.0.113.7/24 dev wan0");
    for (address, v4, v6) in [
        ("masquerade", ROUTER_V4, ROUTER_V6),
        ("keep", CLIENT_V4, CLIENT_V6),
        ("auto", ROUTER_V4, CLIENT_V6),
        ("203.0.113.7", IpAddr::from([203, 0, 113, 7]), CLIENT_V6),
    ] {
        ephport_ok(&net.router, &format!("apply {LINE} --address {address}"));
        for (protocol, server) in protocols_and_servers() {
            let seen = seen(&net.client, protocol, fresh(), (server, PORT).into());
            assert_eq!(seen.ip(), of_family(server, v4, v6), "{address} {protocol}");
            // A fixed address applies to its own family only.
            assert!(INSIDE.contains(&seen.port()) || seen.ip() == v6, "{address}: {seen}");
        }
    }
}

/// The sources that `right` sees of `left` and of the bridge's own host, which both send from `port`.
fn seen_behind(net: &Bridged, protocol: Protocol, port: u16) -> [SocketAddr; 2] {
    let to = SocketAddr::new(BRIDGED_RIGHT, PORT);
    [&net.left, &net.host].map(|host| seen(host, protocol, port, to))
}

#[test]
fn b2_bridged_frames_are_never_touched() {
    let net = Bridged::new();
    let _right = Server::start(&net.right, PORT).unwrap();
    let _left = Server::start(&net.left, PORT).unwrap();
    // They do pass postrouting: another table's rule translates them.
    nft_load(
        &net.host,
        "table ip seen {\n chain c { type nat hook postrouting priority 0; \
         udp dport 443 masquerade to :2000-2999; }\n}\n",
    );
    let [bridged, _] = seen_behind(&net, Protocol::Udp, fresh());
    assert!((2_000..3_000).contains(&bridged.port()), "{bridged}: bridge-nf-call-iptables works");
    ok(&net.host, "nft delete table ip seen");
    let untouched = |port| SocketAddr::new(BRIDGED_LEFT, port);
    for flags in [
        "",
        "--enforce",
        "--origin local --enforce",
        "--address masquerade --enforce",
        "-o any --enforce",
        "-o br0 --pick-up any",
        "--ipsec match --enforce",
    ] {
        ephport_ok(&net.host, &format!("apply {LINE} {flags}"));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let port = fresh();
            let [bridged, own] = seen_behind(&net, protocol, port);
            assert_eq!(bridged, untouched(port), "{flags}");
            assert!(INSIDE.contains(&own.port()), "{flags}: {own}");
        }
        // Both ways, and in IPv6.
        let back = SocketAddr::new(BRIDGED_LEFT, PORT);
        let from = SocketAddr::new(BRIDGED_RIGHT, fresh());
        assert_eq!(seen(&net.right, Protocol::Udp, from, back), from, "{flags}");
        let v6 = SocketAddr::new("2001:db8::12".parse().unwrap(), PORT);
        let port = fresh();
        assert_eq!(seen(&net.left, Protocol::Udp, port, v6).port(), port, "{flags}");
        assert_eq!(dropped(&net.host), 0, "{flags}");
    }
    ephport_ok(&net.host, &format!("apply {LINE} --origin forwarded --enforce"));
    let port = fresh();
    let [bridged, own] = seen_behind(&net, Protocol::Udp, port);
    assert_eq!((bridged, own.port()), (untouched(port), port));
}

#[test]
fn b4_excepted_destinations_keep_the_address_of_pods() {
    let net = Routed::new().unwrap();
    let pod = IpAddr::from([10, 2, 0, 5]);
    net.server.address("eth0", "10.2.0.5/32").unwrap();
    ok(&net.router, "ip route add 10.2.0.0/16 via 203.0.113.9");
    let _server = Server::start(&net.server, PORT).unwrap();
    let from_pod = |flags: &str| {
        let ended = ephport(&net.router, &format!("apply {LINE} {flags}"));
        assert_eq!(ended.exit, Exit::Success);
        let seen = seen(&net.client, Protocol::Udp, fresh(), (pod, PORT).into());
        (seen.ip(), ended.err.contains("10.2.0.0/16"))
    };
    assert_eq!(from_pod(""), (ROUTER_V4, true), "the node's address, and a warning");
    assert_eq!(from_pod("--except-destination 10.2.0.0/16"), (CLIENT_V4, false));
}

#[test]
fn b7_kept_private_sources_get_no_reply() {
    let net = Routed::new().unwrap();
    // A server that knows no way back to the containers.
    ok(&net.server, "ip route del 10.77.1.0/24");
    let _server = Server::start(&net.server, PORT).unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    // A container engine's own rule comes after ephport's.
    nft_load(
        &net.router,
        "table ip engine {\n chain c { type nat hook postrouting priority srcnat; \
         ip saddr 10.77.1.0/24 oifname wan0 masquerade; }\n}\n",
    );
    let ended = ephport(&net.router, &format!("apply {LINE} --address keep -p udp"));
    assert!(ended.err.contains("private sources of other hosts"), "{}", ended.err);
    assert!(net.client.run(|| connect(Protocol::Udp, 40_000, to)).is_err());
    ephport_ok(&net.router, &format!("apply {LINE} -p udp"));
    assert_eq!(seen(&net.client, Protocol::Udp, 40_001, to).ip(), ROUTER_V4);
}

/// A TCP connection whose segments are signed (RFC 2385), in Python: its own socket option.
const SIGNED: &str = r#"
import socket, struct, sys
role, own, peer = sys.argv[1], sys.argv[2], sys.argv[3]
def sign(s, address):
    address = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(address))
    s.setsockopt(socket.IPPROTO_TCP, 14, address + struct.pack("=BBHi80s", 0, 0, 3, 0, b"key"))
s = socket.socket()
s.settimeout(3)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sign(s, peer)
if role == "server":
    s.bind((own, 179)); s.listen(); print("ready", flush=True)
    s.accept()[0].sendall(b"open")
else:
    s.bind((own, 40000))
    try:
        s.connect((peer, 179)); print(s.recv(9).decode())
    except OSError as error:
        print("failed", error)
"#;

#[test]
fn b8_signed_tcp_breaks_unless_the_origin_is_forwarded() {
    let net = Routed::new().unwrap();
    let directory = TempDir::new();
    let script = directory.path().join("signed.py");
    std::fs::write(&script, SIGNED).unwrap();
    let script = script.to_str().unwrap();
    let run = |host: &Host, role: &str, own: IpAddr, peer: IpAddr| {
        let [own, peer] = [own, peer].map(|address| address.to_string());
        tool(host, "python3", &[script, role, &own, &peer], "").out
    };
    let session = || {
        std::thread::scope(|scope| {
            scope.spawn(|| run(&net.server, "server", SERVER_V4, ROUTER_V4));
            while !ok(&net.server, "ss -Htln").contains(":179 ") {
                std::thread::yield_now();
            }
            run(&net.router, "client", ROUTER_V4, SERVER_V4)
        })
    };
    assert_eq!(session(), "open\n", "without a policy");
    ephport_ok(&net.router, &format!("apply {LINE} --origin forwarded"));
    assert_eq!(session(), "open\n", "with origin = \"forwarded\"");
    ephport_ok(&net.router, &format!("apply {LINE} --except-destination {SERVER_V4}"));
    assert_eq!(session(), "open\n", "with the peer excepted");
    ephport_ok(&net.router, &format!("apply {LINE}"));
    assert!(session().starts_with("failed"), "the signature covers the port");
}

#[test]
fn b15_summaries_name_the_source_address() {
    let net = Routed::new().unwrap();
    for (address, expected) in [
        ("", "auto: kept if valid outside, else masquerade"),
        ("--address masquerade", "masquerade: an address of the output interface"),
        ("--address keep --origin local", "keep: not changed"),
        ("--address 203.0.113.1", "becomes 203.0.113.1"),
    ] {
        let row = format!("  source address  {expected}\n");
        for command in ["show --format summary", "apply --dry-run", "diff", "apply"] {
            let ended = ephport(&net.router, &format!("{command} {LINE} {address}"));
            assert!(ended.out.contains(&row), "{command} {address}: {}", ended.out);
        }
        let status = ephport_ok(&net.router, "status");
        assert!(status.contains(&format!("  source address          {expected}\n")), "{status}");
        ephport_ok(&net.router, "remove");
    }
}

#[test]
fn b16_only_low_and_exempt_ports_stay() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    ephport_ok(&net.router, &format!("apply {LINE}"));
    // A container's privileged port is not translated.
    assert_eq!(seen(&net.client, Protocol::Udp, 500, to), SocketAddr::new(CLIENT_V4, 500));
    for port in [4500, 41_641] {
        assert!(INSIDE.contains(&seen(&net.router, Protocol::Udp, port, to).port()));
    }
    assert!(tool(&net.router, "conntrack", &["-D", "-p", "udp"], "").success);
    ephport_ok(&net.router, &format!("apply {LINE} --exempt-sport 4500,41641 --sport 1-65535"));
    assert!(INSIDE.contains(&seen(&net.client, Protocol::Udp, 501, to).port()));
    for port in [4500, 41_641] {
        assert_eq!(seen(&net.router, Protocol::Udp, port, to), SocketAddr::new(ROUTER_V4, port));
    }
}

#[test]
fn b17_attempts_are_counted_as_attempts() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    ephport_ok(&net.router, "apply --to-ports 50000-50001 -p udp");
    let open: Vec<_> = (40_000..40_004)
        .filter_map(|port| {
            net.client
                .run(|| {
                    ephport_tests::connect_within(
                        std::time::Duration::from_millis(200),
                        Protocol::Udp,
                        port,
                        to,
                    )
                })
                .ok()
        })
        .collect();
    assert_eq!(open.len(), 2, "there are two ports");
    let status = ephport_ok(&net.router, "status");
    assert!(status.contains("  translations attempted  4\n"), "{status}");
}

/// The packets of the client that the server's side of the uplink carries.
#[test]
fn b1_ipsec_traffic_is_not_taken_out_of_its_tunnel() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    let listing = ephport_ok(&net.router, &format!("show {LINE} --address masquerade"));
    let guard = listing.find("rt ipsec exists return").expect("a guard");
    assert!(guard < listing.find("masquerade to").unwrap(), "the guard comes first: {listing}");
    // Without a key the kernel sends nothing; nor does it send anything plain.
    ok(
        &net.router,
        "ip xfrm policy add src 10.77.1.0/24 dst 203.0.113.0/24 dir out tmpl src 203.0.113.1 \
         dst 203.0.113.9 proto esp mode tunnel",
    );
    ephport_ok(&net.router, &format!("apply {LINE}"));
    let mut capture = Capture::start(&net.server);
    let sent = net.client.run(|| {
        ephport_tests::connect_within(
            std::time::Duration::from_millis(300),
            Protocol::Udp,
            40_000,
            to,
        )
    });
    assert!(sent.is_err());
    let packets = capture.packets();
    assert!(packets.iter().all(|packet| packet.protocol != 17), "{packets:?}");
    // What no IPsec policy covers is translated.
    assert!(INSIDE.contains(&seen(&net.router, Protocol::Udp, 40_001, to).port()));
}
