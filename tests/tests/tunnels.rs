//! IPsec, VRF, VXLAN and WireGuard beside a policy. Kernels without one of them report it; in the kernels of
//! `tests/kernels` all of them are required.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ephport_cli::Exit;
use ephport_nft::host;
use ephport_tests::tool::{is_able, ok, tool};
use ephport_tests::wire::{Capture, Packet};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, PolicyFile, Protocol, ROUTER_V4, Routed, SERVER_V4, Server,
    connect_within, ephport, ephport_args, ephport_ok, of_family, seen,
};

const LINE: &str = "apply --to-ports 49152-61000";
const PORT: u16 = 443;
const UDP: u8 = 17;
const ESP: u8 = 50;

fn permitted(port: u16) -> bool {
    (49_152..=61_000).contains(&port)
}

/// The networks behind server and client, of each family.
const FAR: [&str; 2] = ["10.99.0.1", "2001:db8:99::1"];
const NEAR: [&str; 2] = ["10.77.1.0/24", "2001:db8:1::/64"];
const FAR_NETS: [&str; 2] = ["10.99.0.0/16", "2001:db8:99::/64"];

/// Policies and states of IPsec (ESP in tunnel mode) between the networks; false if the kernel has no ESP.
fn protect(net: &Routed) -> bool {
    let ends = [["203.0.113.1", "203.0.113.9"], ["2001:db8:2::1", "2001:db8:2::9"]];
    for family in [0, 1] {
        let [router, server] = ends[family];
        for (host, out) in [(&net.router, true), (&net.server, false)] {
            for (from, to, spi) in [(router, server, "0x1000"), (server, router, "0x2000")] {
                let state = format!(
                    "ip xfrm state add src {from} dst {to} proto esp spi {spi} mode tunnel auth hmac(sha256) \
                     0x{:064} enc cbc(aes) 0x{:032}",
                    1, 2
                );
                if !is_able(host, &state) {
                    return false;
                }
            }
            let near = (NEAR[family], FAR_NETS[family], router, server);
            let far = (FAR_NETS[family], NEAR[family], server, router);
            let (outwards, inwards) = if out { (near, far) } else { (far, near) };
            for (dir, (from, to, tunnel_from, tunnel_to)) in
                [("out", outwards), ("in", inwards), ("fwd", inwards)]
            {
                ok(
                    host,
                    &format!(
                        "ip xfrm policy add src {from} dst {to} dir {dir} \
                     tmpl src {tunnel_from} dst {tunnel_to} proto esp mode tunnel"
                    ),
                );
            }
        }
        net.server
            .address("lo", &format!("{}/{}", FAR[family], if family == 0 { 32 } else { 128 }))
            .unwrap();
    }
    ok(&net.router, "ip route add 10.99.0.0/16 via 203.0.113.9");
    ok(&net.router, "ip route add 2001:db8:99::/64 via 2001:db8:2::9");
    true
}

#[test]
fn b1_ipsec_protected_traffic_is_never_translated() {
    let net = Routed::new().unwrap();
    if !protect(&net) {
        return;
    }
    let _server = Server::start(&net.server, PORT).unwrap();
    for flags in
        ["", "--enforce", "--address masquerade --enforce", "--address keep --random -o any"]
    {
        ephport_ok(&net.router, &format!("{LINE} {flags}"));
        for (far, near) in FAR.into_iter().zip([CLIENT_V4, CLIENT_V6]) {
            let to = SocketAddr::new(far.parse().unwrap(), PORT);
            let gateway =
                of_family(near, IpAddr::from([10, 77, 1, 1]), "2001:db8:1::1".parse().unwrap());
            for (host, from) in [(&net.client, near), (&net.router, gateway)] {
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    let from = SocketAddr::new(from, 40_000);
                    let mut capture = Capture::start(&net.server);
                    assert_eq!(seen(host, protocol, from, to), from, "{flags}");
                    let protected =
                        capture.packets().iter().filter(|packet| packet.protocol == ESP).count();
                    assert!(protected >= 2, "{protected} packets of ESP");
                    // The same connection is not the next one's.
                    assert!(tool(&net.router, "conntrack", &["-F"], "").success);
                }
            }
        }
        // What IPsec does not protect is translated.
        assert!(permitted(
            seen(&net.client, Protocol::Udp, 40_000, (SERVER_V4, PORT).into()).port()
        ));
    }
}

#[test]
fn ipsec_protected_traffic_is_translated_on_request() {
    let net = Routed::new().unwrap();
    if !protect(&net) {
        return;
    }
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, &format!("{LINE} --ipsec match --enforce"));
    let seen =
        seen(&net.client, Protocol::Udp, 40_000, (FAR[0].parse::<IpAddr>().unwrap(), PORT).into());
    // No IPsec policy matches the translated packet: this is why it is not the default.
    assert_eq!(seen.ip(), ROUTER_V4);
    assert!(permitted(seen.port()), "{seen}");
}

/// A policy that skips what IPsec protects, and one that does not.
const SKIP_AND_MATCH: &str = "[[policy]]\nname = \"skips\"\nout-interfaces = [\"wan0\"]\nto-ports = \"20000-20999\"\n\
                              enforce = true\n\n[[policy]]\nname = \"matches\"\nout-interfaces = [\"wan0\"]\n\
                              to-ports = \"30000-30999\"\nipsec = \"match\"\nenforce = true\n";

#[test]
fn enforcement_judges_packets_that_left_their_tunnel() {
    let net = Routed::new().unwrap();
    if !protect(&net) {
        return;
    }
    let _server = Server::start(&net.server, PORT).unwrap();
    // Another source address takes the packet out of the tunnel, and so into the scope of the first policy.
    for (address, is_sent) in [("masquerade", false), ("keep", true)] {
        let file = PolicyFile::new(&format!("{SKIP_AND_MATCH}address = \"{address}\"\n"));
        ephport_ok(&net.router, &format!("apply {}", file.path()));
        for (far, near) in FAR.into_iter().zip([CLIENT_V4, CLIENT_V6]) {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let from = SocketAddr::new(near, 40_000);
                let to = SocketAddr::new(far.parse().unwrap(), PORT);
                let timeout = Duration::from_millis(500);
                let connected = net.client.run(|| connect_within(timeout, protocol, from, to));
                assert_eq!(connected.is_ok(), is_sent, "{address} {to}: {connected:?}");
                if let Ok(connection) = connected {
                    assert!((30_000..31_000).contains(&connection.seen.port()), "{connection:?}");
                }
                let flow = format!("{protocol} {from} -> {to} oif wan0 iif lan0 ipsec");
                let words = ["explain", file.path(), "--flow", flow.as_str()];
                let explained = ephport_args(&net.router, words, b"");
                assert_eq!(explained.exit, Exit::Success, "{explained:?}");
                let policy = if is_sent { "matches: permitted" } else { "skips: dropped" };
                assert!(explained.out.contains(policy), "{address}: {}", explained.out);
            }
        }
    }
}

/// The router's interfaces in a VRF; false if the kernel has none.
fn enslave(net: &Routed) -> bool {
    if !is_able(&net.router, "ip link add vrf0 type vrf table 10") {
        return false;
    }
    for line in [
        "ip link set vrf0 up",
        "ip link set lan0 master vrf0",
        "ip link set wan0 master vrf0",
        "ip route add default via 203.0.113.9 table 10",
    ] {
        ok(&net.router, line);
    }
    true
}

/// The source ports with which the datagrams of a socket in the VRF arrive, of those that do.
fn sent_from_vrf(net: &Routed, ports: std::ops::Range<u16>) -> Vec<u16> {
    let mut capture = Capture::start(&net.server);
    net.router.run(|| {
        for port in ports {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
            socket.bind_device(Some(b"vrf0")).unwrap();
            socket.bind(&SocketAddr::new([0, 0, 0, 0].into(), port).into()).unwrap();
            // A drop is EPERM.
            let _ = socket.send_to(b"hello", &SocketAddr::new(SERVER_V4, PORT).into());
        }
    });
    let arrived = capture.packets();
    let udp =
        arrived.iter().filter(|packet| packet.protocol == UDP && packet.destination == SERVER_V4);
    udp.filter_map(|packet| packet.source_port).collect()
}

#[test]
fn b10_uplinks_in_a_vrf_are_translated() {
    let net = Routed::new().unwrap();
    if !enslave(&net) {
        return;
    }
    let facts = net.router.run(host::facts).unwrap();
    assert_eq!(facts.uplinks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["wan0"]);
    let _server = Server::start(&net.server, PORT).unwrap();
    for (number, flags) in ["", "--enforce", "-o any --enforce", "-o wan0 --address keep --enforce"]
        .into_iter()
        .enumerate()
    {
        ephport_ok(&net.router, &format!("{LINE} {flags}"));
        let first = 40_000 + 10 * u16::try_from(number).unwrap();
        let forwarded = seen(&net.client, Protocol::Udp, first, (SERVER_V4, PORT).into()).port();
        assert!(permitted(forwarded), "{flags}: {forwarded}");
        let local = sent_from_vrf(&net, first..first + 3);
        assert!(
            local.len() == 3 && local.iter().all(|port| permitted(*port)),
            "{flags}: {local:?}"
        );
    }
}

#[test]
fn b10_vrf_devices_are_no_output_interfaces() {
    let net = Routed::new().unwrap();
    if !enslave(&net) {
        return;
    }
    let ended = ephport(&net.router, &format!("{LINE} -o vrf0"));
    assert_eq!(ended.exit, ephport_cli::Exit::Success, "{}", ended.err);
    let local = sent_from_vrf(&net, 40_000..40_003);
    assert_eq!(local, [40_000, 40_001, 40_002]);
    // Enforcement does not drop what it cannot translate there.
    ephport_ok(&net.router, &format!("{LINE} -o vrf0 --enforce"));
    assert_eq!(sent_from_vrf(&net, 40_010..40_012), [40_010, 40_011]);
}

/// The packets of UDP to this port of the server, by source port.
fn outer(packets: &[Packet], port: u16) -> Vec<u16> {
    let to_port = packets.iter().filter(|packet| {
        packet.protocol == UDP
            && packet.destination == SERVER_V4
            && packet.transport.get(2..4) == Some(&port.to_be_bytes()[..])
    });
    to_port.filter_map(|packet| packet.source_port).collect()
}

#[test]
fn outer_packets_of_vxlan_are_translated() {
    let net = Routed::new().unwrap();
    let link = |local: &str, remote: &str, dev: &str| {
        format!(
            "ip link add vxlan0 type vxlan id 5 local {local} remote {remote} dstport 4789 dev {dev}"
        )
    };
    if !is_able(&net.router, &link("203.0.113.1", "203.0.113.9", "wan0")) {
        return;
    }
    ok(&net.server, &link("203.0.113.9", "203.0.113.1", "eth0"));
    for (host, address) in [(&net.router, "10.55.0.1/24"), (&net.server, "10.55.0.9/24")] {
        ok(host, &format!("ip address add {address} dev vxlan0"));
        ok(host, "ip link set vxlan0 up");
    }
    let _server = Server::start(&net.server, PORT).unwrap();
    let far = SocketAddr::new([10, 55, 0, 9].into(), PORT);
    for (number, flags) in
        ["", "--enforce", "--exempt-sport 32768-49151 --enforce"].into_iter().enumerate()
    {
        ephport_ok(&net.router, &format!("{LINE} {flags}"));
        let mut capture = Capture::start(&net.server);
        let first = 20_000 + 100 * u16::try_from(number).unwrap();
        for port in first..first + 20 {
            // The overlay is no uplink.
            let inner = SocketAddr::new([10, 55, 0, 1].into(), port);
            assert_eq!(seen(&net.router, Protocol::Udp, inner, far), inner);
        }
        let outer = outer(&capture.packets(), 4789);
        assert!(outer.len() >= 20, "{outer:?}");
        let is_expected = |port: &u16| {
            permitted(*port) || flags.contains("exempt") && (32_768..49_152).contains(port)
        };
        assert!(outer.iter().all(is_expected), "{flags}: {outer:?}");
    }
}

/// A tunnel of WireGuard from the router to the server, whose router's end listens on this port; false if the
/// kernel has no WireGuard.
fn wireguard(net: &Routed, listen: u16) -> bool {
    if !is_able(&net.router, "ip link add wg0 type wireguard") {
        return false;
    }
    ok(&net.server, "ip link add wg0 type wireguard");
    let keys = || {
        let private = ok(&net.router, "wg genkey");
        let public = tool(&net.router, "wg", &["pubkey"], &private).out;
        (private, public.trim().to_owned())
    };
    let ((router_key, router_public), (server_key, server_public)) = (keys(), keys());
    let port = listen.to_string();
    let set = |host: &Host, key: &str, args: &[&str]| {
        let args = [&["set", "wg0", "private-key", "/dev/stdin"], args].concat();
        let printed = tool(host, "wg", &args, key);
        assert!(printed.success, "{printed:?}");
    };
    set(
        &net.router,
        &router_key,
        &[
            "listen-port",
            &port,
            "peer",
            &server_public,
            "allowed-ips",
            "10.66.0.0/24",
            "endpoint",
            "203.0.113.9:51821",
        ],
    );
    set(
        &net.server,
        &server_key,
        &["listen-port", "51821", "peer", &router_public, "allowed-ips", "10.66.0.0/24"],
    );
    for (host, address) in [(&net.router, "10.66.0.1/24"), (&net.server, "10.66.0.9/24")] {
        ok(host, &format!("ip address add {address} dev wg0"));
        ok(host, "ip link set wg0 up");
    }
    true
}

#[test]
fn b16_listeners_of_wireguard_keep_permitted_and_exempt_ports() {
    for (listen, flags, is_kept) in [
        (51_820, "--enforce", true),
        (41_641, "--enforce", false),
        (41_641, "--exempt-sport 41641 --enforce", true),
    ] {
        let net = Routed::new().unwrap();
        ephport_ok(&net.router, &format!("{LINE} {flags}"));
        if !wireguard(&net, listen) {
            return;
        }
        let _server = Server::start(&net.server, PORT).unwrap();
        let mut capture = Capture::start(&net.server);
        let inner = SocketAddr::new([10, 66, 0, 1].into(), 40_000);
        let far = SocketAddr::new([10, 66, 0, 9].into(), PORT);
        assert_eq!(seen(&net.router, Protocol::Udp, inner, far), inner, "{flags}");
        let outer = outer(&capture.packets(), 51_821);
        assert!(!outer.is_empty());
        let is_expected = |port: &u16| if is_kept { *port == listen } else { permitted(*port) };
        assert!(outer.iter().all(is_expected), "{listen} {flags}: {outer:?}");
    }
}
