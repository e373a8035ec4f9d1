//! `docs/guarantee.md` on the wire: hostile packets, and one test for each fault that was seen in the field.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::wire::{Capture, Packet, Raw, Sender, ipv4, ipv6, plain, tcp, udp};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Connection, Protocol, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6,
    Server, TrafficError, connect_within, dropped, ephport_ok, of_family, seen,
};

const PORT: u16 = 443;
const TCP: u8 = 6;
const UDP: u8 = 17;
const AH: u8 = 51;
const SHORT: Duration = Duration::from_millis(200);

/// Every combination that firewalls are tested with, and the usual ones.
const FLAGS: [u8; 16] = [
    0x02, 0x12, 0x10, 0x11, 0x01, 0x04, 0x14, 0x18, 0x00, 0x29, 0x03, 0x06, 0x3f, 0x2b, 0xc2, 0x19,
];
const SOURCE_PORTS: [u16; 6] = [0, 1024, 5353, 40_000, 49_151, 61_001];

/// The source ports that the policies of this file permit: what they translate to, and the privileged ones,
/// which they do not translate.
fn is_permitted(port: u16) -> bool {
    (1..1024).contains(&port) || (49_152..=61_000).contains(&port)
}

/// The packets of TCP and UDP that left by another source port, or without one.
fn escaped(packets: &[Packet]) -> Vec<&Packet> {
    let is_governed = |packet: &&Packet| {
        [TCP, UDP].contains(&packet.protocol)
            && [SERVER_V4, SERVER_V6].contains(&packet.destination)
            && !packet.source_port.is_some_and(is_permitted)
    };
    packets.iter().filter(is_governed).collect()
}

/// Some 330 packets of one sender to the server that no application sends.
fn hostile(from: [IpAddr; 2]) -> Vec<Raw> {
    let mut all = Vec::new();
    for (from, to) in from.into_iter().zip([SERVER_V4, SERVER_V6]) {
        let mut add = |name: String, bytes| all.push(Raw { name, to, bytes });
        for port in SOURCE_PORTS {
            let (source, server) = (SocketAddr::new(from, port), SocketAddr::new(to, PORT));
            for flags in FLAGS {
                add(
                    format!("tcp {source} {flags:#x}"),
                    plain(from, to, TCP, &tcp(source, server, flags, &[])),
                );
            }
            let datagram = udp(source, server, b"hostile");
            add(format!("udp {source}"), plain(from, to, UDP, &datagram));
            for (name, at) in [("length", 5), ("checksum", 7)] {
                let mut wrong = datagram.clone();
                wrong[at] ^= 0x55;
                add(format!("udp {source} with a wrong {name}"), plain(from, to, UDP, &wrong));
            }
            let segment = tcp(source, server, 0x02, &[]);
            for (protocol, header) in [(TCP, &segment), (UDP, &datagram)] {
                for (name, bytes) in wrapped(from, to, protocol, header) {
                    add(format!("{protocol} {source} {name}"), bytes);
                }
            }
        }
        let segment = tcp(SocketAddr::new(from, 40_000), SocketAddr::new(to, PORT), 0x02, &[]);
        for (protocol, len) in [TCP, UDP].into_iter().flat_map(|p| (0..8).map(move |len| (p, len)))
        {
            add(format!("{protocol} of {len} bytes"), plain(from, to, protocol, &segment[..len]));
        }
    }
    all
}

/// The same in fragments, after options and extension headers, and after an AH.
fn wrapped(from: IpAddr, to: IpAddr, protocol: u8, header: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let padded = [header, &[0; 32]].concat();
    let ah = [&[protocol, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..], &[0; 12], header].concat();
    if from.is_ipv4() {
        let option = [0x94, 4, 0, 0]; // router alert (RFC 2113)
        return vec![
            ("in a first fragment", ipv4(from, to, protocol, 0x2000, &[], &padded[..24])),
            ("in a later fragment", ipv4(from, to, protocol, 0x0005, &[], &padded)),
            ("after an option", ipv4(from, to, protocol, 0, &option, header)),
            ("after an AH", ipv4(from, to, AH, 0, &[], &ah)),
        ];
    }
    let extended = |kind: u8, extension: &[u8]| ipv6(from, to, kind, &[extension, header].concat());
    vec![
        ("in a first fragment", extended(44, &[protocol, 0, 0, 1, 0, 0, 0, 9])),
        ("in a later fragment", extended(44, &[protocol, 0, 0, 40, 0, 0, 0, 9])),
        ("after destination options", extended(60, &[protocol, 0, 1, 4, 0, 0, 0, 0])),
        ("after an AH", ipv6(from, to, AH, &ah)),
    ]
}

/// What the packets meet on the router besides the policy.
const CONDITIONS: [(&str, &str); 6] = [
    ("tracked", ""),
    (
        "untracked",
        "table inet raw {\n chain pre { type filter hook prerouting priority raw; notrack; }\n \
         chain out { type filter hook output priority raw; notrack; }\n}\n",
    ),
    (
        "untracked before defragmentation",
        "table inet raw {\n chain pre { type filter hook prerouting priority -500; notrack; }\n \
         chain out { type filter hook output priority -500; notrack; }\n}\n",
    ),
    (
        "bound by another table",
        "table inet first {\n chain post { type nat hook postrouting priority 80; \
         oifname wan0 meta l4proto { tcp, udp } masquerade to :2000-2999; }\n}\n",
    ),
    (
        "copied",
        "table ip copies {\n chain pre { type filter hook prerouting priority -500; \
         iifname lan0 dup to 203.0.113.9 device wan0; }\n \
         chain out { type filter hook output priority -500; dup to 203.0.113.9 device wan0; }\n}\n",
    ),
    (
        "rewritten before",
        "table inet rewrites {\n chain post { type filter hook postrouting priority 200; \
         udp dport 443 udp sport set 7777; }\n}\n",
    ),
];

/// Which of the two senders is in the scope of a policy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InScope {
    Both,
    Forwarded,
    Local,
}

/// Each form of scope, without the source address.
const SCOPES: [(&str, InScope); 14] = [
    ("", InScope::Both),
    ("-o any", InScope::Both),
    ("-o wan* --random", InScope::Both),
    ("--except-interface lan0 -o any --pick-up any", InScope::Both),
    ("-s 10.77.1.0/24,203.0.113.0/24,2001:db8:1::/64,2001:db8:2::/64", InScope::Both),
    ("--except-destination 198.51.100.0/24", InScope::Both),
    ("-d 203.0.113.9,2001:db8:2::9", InScope::Both),
    ("--dport 443", InScope::Both),
    ("--dport 80-90,400-450,1000,2000-2010,3000-3999,8080 --exempt-sport 500", InScope::Both),
    ("--mark 0x1/0xff", InScope::Both),
    ("--ipsec match", InScope::Both),
    ("--in-interface lan0", InScope::Forwarded),
    ("--origin forwarded", InScope::Forwarded),
    ("--origin local", InScope::Local),
];

/// Each form of the source address. A fixed address is of one family.
const ADDRESSES: [&str; 4] =
    ["--address auto", "--address masquerade", "--address keep", "--address 203.0.113.1 --ipv4"];

/// The port of connections that the remote side continues: docs/guarantee.md lets its replies pass.
const CONTINUED: u16 = 40_000;

/// The router marks every packet.
const MARKS: &str = "table inet marks {\n chain pre { type filter hook prerouting priority -400; meta mark set 0x101; }\n \
                     chain out { type filter hook output priority -400; meta mark set 0x101; }\n}\n";

fn permits_family(policy: &str, packet: &Raw) -> bool {
    !policy.contains("--ipv4") || packet.to.is_ipv4()
}

/// Sends the hostile packets of one sender; everything that arrived.
fn send_hostile(net: &Routed, is_forwarded: bool, policy: &str) -> Vec<Packet> {
    let mut capture = Capture::start(&net.server);
    let (host, from) = if is_forwarded {
        (&net.client, [CLIENT_V4, CLIENT_V6])
    } else {
        (&net.router, [ROUTER_V4, ROUTER_V6])
    };
    let sender = Sender::new(host);
    for packet in hostile(from).iter().filter(|packet| permits_family(policy, packet)) {
        // The kernel itself refuses some of them.
        let _ = sender.send(packet);
    }
    capture.packets()
}

/// Sends hostile packets from client and router; what left that must not, and whether packets out of scope were
/// dropped.
fn attack(net: &Routed, policy: &str, in_scope: InScope, is_continued: bool) -> Vec<String> {
    let mut faults = Vec::new();
    for is_forwarded in [true, false] {
        let packets = send_hostile(net, is_forwarded, policy);
        let other = if is_forwarded { InScope::Local } else { InScope::Forwarded };
        let escaped: Vec<_> = escaped(&packets)
            .into_iter()
            .filter(|packet| !is_continued || packet.source_port != Some(CONTINUED))
            .collect();
        if in_scope == other {
            if escaped.len() < 100 {
                faults.push(format!("only {} packets out of scope arrived", escaped.len()));
            }
            continue;
        }
        faults.extend(escaped.into_iter().map(|packet| format!("{packet:?}")));
        let ah = packets.iter().filter(|packet| {
            // After an AH of IPv6, conntrack sees the reply of a connection that the remote side continued.
            let port = packet.transport.get(24..26);
            let is_reply = is_continued && port == Some(&CONTINUED.to_be_bytes()[..]);
            packet.protocol == AH && policy.contains("--ipsec match") && !is_reply
        });
        faults.extend(ah.map(|packet| format!("{packet:?}")));
    }
    faults
}

/// The remote side sends in the middle of connections that conntrack does not know.
fn continue_remotely(net: &Routed) {
    let sender = Sender::new(&net.server);
    for to in [CLIENT_V4, CLIENT_V6, ROUTER_V4, ROUTER_V6] {
        let from = if to.is_ipv4() { SERVER_V4 } else { SERVER_V6 };
        let (server, to) = (SocketAddr::new(from, PORT), SocketAddr::new(to, CONTINUED));
        for (protocol, header) in
            [(TCP, tcp(server, to, 0x10, &[])), (UDP, udp(server, to, b"hello"))]
        {
            let bytes = plain(from, to.ip(), protocol, &header);
            sender.send(&Raw { name: String::new(), to: to.ip(), bytes }).unwrap();
        }
    }
}

fn prepared(conditions: &str) -> Routed {
    let net = Routed::new().unwrap();
    net.router.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0").ok();
    // Packets reach the wire although nobody has asked for the server's link address yet.
    let _server = Server::start(&net.server, PORT).unwrap();
    for to in [SERVER_V4, SERVER_V6] {
        for host in [&net.client, &net.router] {
            let _seen = seen(host, Protocol::Udp, 50_000, SocketAddr::new(to, PORT));
        }
    }
    nft_load(&net.router, &format!("{MARKS}{conditions}"));
    net
}

/// Policies, and with each how many packets escaped it and the first of them.
type Escapes = BTreeMap<String, (usize, String)>;

/// Every scope under a condition with one form of the source address.
fn escapes(conditions: &str, address: &str, is_continued: bool) -> Escapes {
    let net = prepared(conditions);
    let mut faults = BTreeMap::new();
    for (flags, in_scope) in SCOPES {
        let policy = format!("{flags} {address}");
        // A copy has its output interface as its input interface: docs/guarantee.md.
        if conditions.contains(" dup to ")
            && ["--in-interface lan0", "--origin local"].contains(&flags)
        {
            continue;
        }
        ephport_ok(&net.router, &format!("apply --to-ports 49152-61000 --enforce {policy}"));
        if is_continued {
            net.router.sysctl("net/netfilter/nf_conntrack_tcp_loose", "1").ok();
            assert!(tool(&net.router, "conntrack", &["-F"], "").success);
            continue_remotely(&net);
        }
        let escaped = attack(&net, &policy, in_scope, is_continued);
        if let Some(first) = escaped.first() {
            faults.insert(policy, (escaped.len(), first.clone()));
        }
    }
    faults
}

/// Every scope with every form of the source address, each form in networks of its own at the same time: most
/// of the time is spent in waiting for packets.
fn assert_no_escapes(name: &str, conditions: &str, is_continued: bool) {
    let faults: Vec<_> = thread::scope(|scope| {
        let runs = ADDRESSES
            .map(|address| scope.spawn(move || escapes(conditions, address, is_continued)));
        runs.into_iter().flat_map(|run| run.join().expect("a run")).collect()
    });
    assert!(faults.is_empty(), "{name}: {faults:#?}");
}

#[test]
fn hostile_packets_do_not_escape_enforcement() {
    assert!(hostile([CLIENT_V4, CLIENT_V6]).len() >= 300);
    for (name, conditions) in CONDITIONS {
        assert_no_escapes(name, conditions, false);
    }
}

#[test]
fn hostile_packets_beside_remotely_continued_connections_do_not_escape() {
    assert_no_escapes("continued", "", true);
}

/// FTP's helper on port 21, as firewalls assign it.
const HELPER: &str = "table inet helpers {\n ct helper ftp { type \"ftp\" protocol tcp; }\n \
                      chain pre { type filter hook prerouting priority 0; tcp dport 21 ct helper set \"ftp\"; }\n \
                      chain out { type filter hook output priority 0; tcp dport 21 ct helper set \"ftp\"; }\n}\n";

/// The port of FTP's data connections.
const DATA: u16 = 35_001;

/// Opens a control connection of FTP in this thread's network.
fn ftp_control(server: IpAddr) -> Connection {
    let to = SocketAddr::new(server, 21);
    let control = connect_within(SHORT, Protocol::Tcp, 0, to).unwrap();
    // The helper reads from the start of a line on.
    control.exchange(b"\r\n").unwrap();
    control
}

/// Makes the helper expect a data connection.
fn expect_data(control: &Connection, server: IpAddr) {
    // The server echoes this, which makes it an answer (RFC 959, RFC 2428).
    let answer = if server.is_ipv4() {
        "227 Entering Passive Mode (203,0,113,9,136,185)\r\n"
    } else {
        "229 Entering Extended Passive Mode (|||35001|)\r\n"
    };
    control.exchange(answer.as_bytes()).unwrap();
}

/// Opens connections that FTP's helper expects, one from each source port, to these servers; the ports of the packets
/// that arrive.
fn expected_source_ports(net: &Routed, servers: &[IpAddr]) -> Vec<u16> {
    let mut capture = Capture::start(&net.server);
    for (host, sources) in
        [(&net.client, [CLIENT_V4, CLIENT_V6]), (&net.router, [ROUTER_V4, ROUTER_V6])]
    {
        let sender = Sender::new(host);
        for &server in servers {
            let source = of_family(server, sources[0], sources[1]);
            let control = host.run(|| ftp_control(server));
            for port in SOURCE_PORTS.into_iter().filter(|port| *port > 0) {
                expect_data(&control, server);
                let (from, to) = (SocketAddr::new(source, port), SocketAddr::new(server, DATA));
                let bytes = plain(source, server, TCP, &tcp(from, to, 0x02, &[]));
                let _ = sender.send(&Raw { name: String::new(), to: server, bytes });
            }
        }
    }
    let packets = capture.packets();
    let is_data = |packet: &&Packet| packet.transport.get(2..4) == Some(&DATA.to_be_bytes()[..]);
    packets.iter().filter(is_data).filter_map(|packet| packet.source_port).collect()
}

#[test]
fn helper_bound_connections_pass_or_do_not_escape() {
    // Control and data connections have other destination ports than the others.
    let scopes =
        SCOPES.map(|(scope, in_scope)| (scope.replace("--dport", "--dport 21,35001,"), in_scope));
    let scopes = scopes.map(|(scope, in_scope)| (scope.replace(", ", ","), in_scope));
    thread::scope(|scope| {
        for address in ADDRESSES {
            let scopes = &scopes;
            scope.spawn(move || {
                for (flags, _) in scopes.iter().filter(|(_, scope)| *scope == InScope::Both) {
                    assert_helper_bound(&format!("{flags} {address}"));
                }
            });
        }
    });
}

/// Connections that FTP's helper expects pass by their own ports or, if asked for, only by permitted ones.
fn assert_helper_bound(policy: &str) {
    let net = prepared(HELPER);
    let _control = Server::start(&net.server, 21).unwrap();
    let line = format!("apply --to-ports 49152-61000 --enforce {policy}");
    ephport_ok(&net.router, &line);
    let servers = [SERVER_V4, SERVER_V6];
    let servers = if policy.contains("--ipv4") { &servers[..1] } else { &servers[..] };
    let passed = expected_source_ports(&net, servers);
    let unchanged = passed.iter().filter(|port| SOURCE_PORTS.contains(port)).count();
    // Five ports of each of two hosts.
    assert_eq!(unchanged, 10 * servers.len(), "{line}: {passed:?}");
    ephport_ok(&net.router, &format!("{line} --expected-connections drop"));
    let escaped = expected_source_ports(&net, servers);
    assert!(escaped.iter().all(|port| is_permitted(*port)), "{line}: {escaped:?}");
}

#[test]
fn hostile_packets_do_escape_without_enforcement() {
    let net = prepared(CONDITIONS[1].1);
    ephport_ok(&net.router, "apply --to-ports 49152-61000");
    assert!(attack(&net, "", InScope::Both, false).len() > 300);
}

#[test]
fn a1_untracked_packets_are_judged_by_their_own_source() {
    for source in ["10.77.1.0/24,203.0.113.0/24,2001:db8::/33", "10.77.0.0/16"] {
        let net = prepared(CONDITIONS[1].1);
        let line = format!("apply --to-ports 49152-61000 --enforce -s {source} --ipv4");
        ephport_ok(&net.router, &line);
        let _server = Server::start(&net.server, PORT).unwrap();
        let server = SocketAddr::new(SERVER_V4, PORT);
        let result = net.client.run(|| connect_within(SHORT, Protocol::Udp, 40_000, server));
        assert!(matches!(result, Err(TrafficError::NoReply { .. })), "{result:?}");
        let inside = SocketAddr::new(CLIENT_V4, 50_000);
        assert_eq!(seen(&net.client, Protocol::Udp, 50_000, server), inside);
        assert_eq!(dropped(&net.router), 1);
    }
}

#[test]
fn a3_policies_shield_only_what_they_translate() {
    let net = prepared(CONDITIONS[3].1);
    let document = "[[policy]]\nname = \"dns\"\nprotocols = [\"udp\"]\nsource-ports = \"5353\"\n\
                    to-ports = \"6000-6099\"\n\n[[policy]]\nname = \"rest\"\n\
                    to-ports = \"49152-61000\"\nenforce = true\n";
    let file = ephport_tests::PolicyFile::new(document);
    ephport_ok(&net.router, &format!("apply {}", file.path()));
    let _server = Server::start(&net.server, PORT).unwrap();
    let server = SocketAddr::new(SERVER_V4, PORT);
    // Another table binds both; only what `dns` could translate may be sent so.
    let port = seen(&net.client, Protocol::Udp, 5353, server).port();
    assert!((2_000..3_000).contains(&port), "{port}");
    let result = net.client.run(|| connect_within(SHORT, Protocol::Udp, 5354, server));
    assert!(result.is_err(), "{result:?}");
}

#[test]
fn a4_sources_use_only_their_block() {
    let net = prepared("");
    for address in ["10.77.1.10/24", "10.77.1.11/24", "10.77.1.99/24"] {
        net.client.address("eth0", address).unwrap();
    }
    let document = "[[policy]]\nname = \"blocks\"\nenforce = true\n\
                    blocks = [\"10.77.1.10=20000-20999\", \"10.77.1.11=21000-21999\"]\n";
    let file = ephport_tests::PolicyFile::new(document);
    ephport_ok(&net.router, &format!("apply {}", file.path()));
    let _server = Server::start(&net.server, PORT).unwrap();
    let server = SocketAddr::new(SERVER_V4, PORT);
    let from = |last: u8, port: u16| SocketAddr::new(IpAddr::from([10, 77, 1, last]), port);
    for (last, block) in [(10, 20_000..21_000), (11, 21_000..22_000)] {
        let port = seen(&net.client, Protocol::Udp, from(last, 40_000), server).port();
        assert!(block.contains(&port), "{port}");
    }
    // Another table sends each by the other's block.
    let other = "table ip first {\n chain post { type nat hook postrouting priority 80; \
                 oifname wan0 ip saddr 10.77.1.10 meta l4proto udp masquerade to :21000-21999; }\n}\n";
    nft_load(&net.router, other);
    for source in [from(10, 40_001), from(99, 20_500), from(99, 40_000)] {
        let result = net.client.run(|| connect_within(SHORT, Protocol::Udp, source, server));
        assert!(result.is_err(), "{source}: {result:?}");
    }
    assert!(dropped(&net.router) >= 3);
}

#[test]
fn a8_broadcast_of_another_interface_is_no_exception() {
    let net = prepared("");
    ephport_ok(&net.router, "apply --to-ports 49152-61000 --enforce");
    let mut capture = Capture::start(&net.server);
    let sender = Sender::new(&net.router);
    net.router.run(|| {
        tool(
            &net.router,
            "ip",
            &["route", "add", "10.77.1.255/32", "via", "203.0.113.9", "dev", "wan0"],
            "",
        )
    });
    let (from, to) =
        (SocketAddr::new(ROUTER_V4, 40_000), SocketAddr::new([10, 77, 1, 255].into(), PORT));
    let bytes = plain(from.ip(), to.ip(), UDP, &udp(from, to, b"hello"));
    let _ = sender.send(&Raw { name: String::new(), to: to.ip(), bytes });
    let escaped: Vec<_> =
        capture.packets().into_iter().filter(|packet| packet.source_port == Some(40_000)).collect();
    assert!(escaped.is_empty(), "{escaped:?}");
}

#[test]
fn a9_invalid_packets_out_of_scope_pass() {
    let net = prepared("");
    ephport_ok(&net.router, "apply --to-ports 49152-61000 --enforce -s 172.17.0.0/16");
    let mut capture = Capture::start(&net.server);
    let sender = Sender::new(&net.client);
    let (from, to) = (SocketAddr::new(CLIENT_V4, 40_000), SocketAddr::new(SERVER_V4, PORT));
    let bytes = plain(from.ip(), to.ip(), TCP, &tcp(from, to, 0x10, &[]));
    sender.send(&Raw { name: String::new(), to: to.ip(), bytes }).unwrap();
    let passed =
        capture.packets().iter().filter(|packet| packet.source_port == Some(40_000)).count();
    assert!(passed >= 1);
    assert_eq!(dropped(&net.router), 0);
}

#[test]
fn a10_expected_connections_pass_or_drop_as_asked() {
    for (flags, passes) in
        [("", true), ("--enforce", true), ("--enforce --expected-connections drop", false)]
    {
        let net = prepared(HELPER);
        ephport_ok(&net.router, &format!("apply --to-ports 49152-61000 {flags}"));
        let _control = Server::start(&net.server, 21).unwrap();
        let _data = Server::start(&net.server, DATA).unwrap();
        for (server, port) in [(SERVER_V4, 40_001), (SERVER_V6, 40_002)] {
            let control = net.client.run(|| ftp_control(server));
            expect_data(&control, server);
            let data = SocketAddr::new(server, DATA);
            let result = net.client.run(|| connect_within(SHORT, Protocol::Tcp, port, data));
            // NAT binds it to the address of the control connection and to its own port.
            let port_seen = result.map(|connection| connection.seen.port()).ok();
            assert_eq!(port_seen, passes.then_some(port), "{flags} {server}");
            // No one expects a second one.
            let other = seen(&net.client, Protocol::Tcp, port + 100, data).port();
            assert!((49_152..=61_000).contains(&other), "{other}");
        }
        let expected = ok(&net.router, "nft list table inet ephport");
        let counted = expected.lines().find(|line| line.contains("ct status expected"));
        let is_counted = counted.is_some_and(|line| !line.contains("packets 0 "));
        assert_eq!(is_counted, flags == "--enforce", "{counted:?}");
    }
}

#[test]
fn a11_authentication_headers_pass_unless_ipsec_is_matched() {
    let net = prepared("");
    let arrived = || {
        let mut capture = Capture::start(&net.server);
        let sender = Sender::new(&net.client);
        for (from, to) in [(CLIENT_V4, SERVER_V4), (CLIENT_V6, SERVER_V6)] {
            let datagram =
                udp(SocketAddr::new(from, 40_000), SocketAddr::new(to, PORT), b"hostile");
            let ah = wrapped(from, to, UDP, &datagram)
                .into_iter()
                .find(|(name, _)| *name == "after an AH");
            let (name, bytes) = ah.unwrap();
            sender.send(&Raw { name: name.into(), to, bytes }).unwrap();
        }
        capture.packets().iter().filter(|packet| packet.protocol == AH).count()
    };
    for (flags, expected) in [
        ("", 2),
        ("--enforce", 2),
        ("--enforce --ipsec match", 0),
        ("--enforce --ipsec match --source 203.0.113.0/24", 2),
    ] {
        ephport_ok(&net.router, &format!("apply --to-ports 49152-61000 {flags}"));
        assert_eq!(arrived(), expected, "{flags}");
    }
}

#[test]
fn a12_ports_that_another_table_rewrites_are_seen() {
    let net = prepared(CONDITIONS[5].1);
    ephport_ok(&net.router, "apply --to-ports 49152-61000 --enforce");
    let _server = Server::start(&net.server, PORT).unwrap();
    let server = SocketAddr::new(SERVER_V4, PORT);
    let result = net.client.run(|| connect_within(SHORT, Protocol::Udp, 40_000, server));
    assert!(result.is_err(), "{result:?}");
}

#[test]
fn b14_loopback_is_never_translated() {
    for interfaces in ["l*", "any"] {
        let net = Routed::new().unwrap();
        let _server = Server::start(&net.router, PORT).unwrap();
        ephport_ok(&net.router, &format!("apply --to-ports 49152-61000 -o {interfaces} --enforce"));
        let from = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let to = SocketAddr::new(from.ip(), PORT);
        assert_eq!(seen(&net.router, Protocol::Udp, from, to), from);
    }
}
