//! `explain` against the wire: its explanation of a connection is what the server sees.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ephport_tests::random::samples;
use ephport_tests::tool::{nft_load, tool};
use ephport_tests::{
    BRIDGED_LEFT, BRIDGED_RIGHT, Bridged, CLIENT_V4, Host, Protocol, ROUTER_V4, Routed, SERVER_V4,
    SERVER_V6, Server, connect_within, ephport, ephport_args, of_family, routed_with_addresses,
};
use proptest::prelude::*;
use serde_json::Value;

const PORT: u16 = 443;

/// Much longer than an answer needs, and short where there is none.
const TIMEOUT: Duration = Duration::from_millis(150);

/// The explanation of a flow under a policy, on the host that has the policy.
fn explained(host: &Host, flags: &str, flow: &str) -> Value {
    let parts = ["explain", "--json", "--flow", flow].into_iter().chain(flags.split_whitespace());
    let ended = ephport_args(host, parts, b"");
    assert_eq!(ended.exit, ephport_cli::Exit::Success, "{flow}: {}", ended.err);
    serde_json::from_str(&ended.out).unwrap()
}

/// A connection, the host that opens it, and the parts of its flow after the addresses.
struct Case<'a> {
    policy_host: &'a Host,
    opener: &'a Host,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    /// From `oif` on.
    parts: &'a str,
    /// The addresses that masquerading may choose.
    masqueraded: &'a [&'a str],
}

impl Case<'_> {
    /// Opens the connection and compares. Returns whether it is translated.
    fn check(&self, flags: &str) -> bool {
        let Self { protocol, from, to, parts, .. } = self;
        let name = if *protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let flow = format!("{name} {from} -> {to} {parts}");
        let explanation = explained(self.policy_host, flags, &flow);
        assert_eq!(explanation["agrees"], true, "{flags}: {explanation:#}");
        // A port of an earlier connection is in use: the kernel would move even one that no rule translates.
        assert!(tool(self.policy_host, "conntrack", &["-F"], "").success);
        let result = self.opener.run(|| connect_within(TIMEOUT, *protocol, *from, *to));
        let is_dropped = explanation["enforcement"]["drops_all"] == true;
        let Ok(connection) = result else {
            assert!(is_dropped, "{flags}: no answer, but {explanation:#}");
            return false;
        };
        let seen = connection.seen;
        assert!(!is_dropped, "{flags}: sent as {seen}, but {explanation:#}");
        let Some(translation) = explanation["translation"].as_object() else {
            assert_eq!(seen, *from, "{flags}: {explanation:#}");
            return false;
        };
        let ports = translation["ports"].as_array().unwrap().iter();
        let mut ports = ports.map(|range| {
            let end = |end: &str| u16::try_from(range[end].as_u64().unwrap()).unwrap();
            end("first")..=end("last")
        });
        assert!(
            ports.any(|range| range.contains(&seen.port())),
            "{flags}: {seen}, but {explanation:#}"
        );
        let address = seen.ip().to_string();
        let is_right = match translation["address"].as_str().unwrap() {
            "keep" => seen.ip() == from.ip(),
            "masquerade" => self.masqueraded.contains(&address.as_str()),
            fixed => fixed == address,
        };
        assert!(is_right, "{flags}: {seen}, but {explanation:#}");
        true
    }
}

/// The sources of the network of [`routed_with_addresses`], and whether the router has them.
const SOURCES: [(&str, bool); 20] = [
    ("203.0.113.1", true),
    ("203.0.113.7", true),
    ("198.51.100.1", true),
    ("10.99.0.1", true),
    ("198.51.100.65", true),
    ("10.77.1.1", true),
    ("192.0.2.1", true),
    ("198.51.100.66", false),
    ("10.77.1.2", false),
    ("100.64.0.2", false),
    ("2001:db8:2::1", true),
    ("2001:db8:2::7", true),
    ("2001:db8:99::1", true),
    ("fd99::1", true),
    ("2001:db8:4::1", true),
    ("fd77::1", true),
    ("2001:db8:3::1", true),
    ("2001:db8:4::2", false),
    ("2001:db8:1::2", false),
    ("fd77::2", false),
];

/// Policies of every kind of scope, address and target.
const POLICIES: [&str; 16] = [
    "--to-ports 49152-61000",
    "--to-ports 49152-61000 --enforce",
    "--to-ports 49152-61000 --address masquerade --enforce",
    "--to-ports 49152-61000 --address keep -o any",
    "--to-ports 49152-61000 --address 203.0.113.7",
    "--to-ports local --sport 1-65535",
    "--to-ports 20000-20999,30000-30999 --per-source-stable",
    "--to-ports 20000-20999,30000-30999 --random --enforce",
    "--map-e psid=52,psid-len=8,offset=6",
    "--to-ports 49152-61000 --origin local --enforce",
    "--to-ports 49152-61000 --origin forwarded --address masquerade",
    "--to-ports 49152-61000 -i lan0 -s 10.0.0.0/8,2001:db8::/32",
    "--to-ports 49152-61000 -s 198.51.100.0/24 --enforce",
    "--to-ports 49152-61000 --except-destination 203.0.113.9 --enforce",
    "--blocks 10.77.1.0/29=1000@20000-65535 --enforce",
    "--to-ports 49152-61000 --exempt-sport 4000-9999 -p udp --dport 443",
];

/// The source of a flow is only its address: `explain` finds the kind of it on the host.
#[test]
fn explain_agrees_with_random_connections() {
    let net = routed_with_addresses();
    let _server = Server::start(&net.server, PORT).unwrap();
    let drawn = (0..SOURCES.len(), 1..=u16::MAX, any::<bool>());
    let drawn = samples(&drawn, 80 * POLICIES.len());
    let mut translated = 0;
    let mut used = std::collections::HashSet::new();
    for (flags, flows) in POLICIES.iter().zip(drawn.chunks(80)) {
        assert_eq!(
            ephport(&net.router, &format!("apply {flags}")).exit,
            ephport_cli::Exit::Success,
            "{flags}"
        );
        for (source, port, is_tcp) in flows {
            let (source, is_router) = SOURCES[*source];
            let address: IpAddr = source.parse().unwrap();
            let from = SocketAddr::new(address, *port);
            // conntrack remembers what it did with the connection before.
            if *port == PORT || !used.insert((from, *is_tcp)) {
                continue;
            }
            let case = Case {
                policy_host: &net.router,
                opener: if is_router { &net.router } else { &net.client },
                protocol: if *is_tcp { Protocol::Tcp } else { Protocol::Udp },
                from,
                to: SocketAddr::new(of_family(address, SERVER_V4, SERVER_V6), PORT),
                parts: "oif wan0",
                masqueraded: &["203.0.113.1", "2001:db8:2::1", "2001:db8:2::7"],
            };
            translated += u32::from(case.check(flags));
        }
    }
    assert!(translated > 400, "{translated}");
}

#[test]
fn b2_explain_knows_bridged_frames() {
    let net = Bridged::new();
    let _server = Server::start(&net.right, PORT).unwrap();
    let to = SocketAddr::new(BRIDGED_RIGHT, PORT);
    for (port, flags) in (20_000..).zip([
        "--to-ports 49152-61000 --enforce",
        "--to-ports 49152-61000 --origin local --address masquerade",
        "--to-ports 49152-61000 --origin forwarded",
    ]) {
        assert_eq!(ephport(&net.host, &format!("apply {flags}")).exit, ephport_cli::Exit::Success);
        for (opener, own, parts) in [
            (&net.left, BRIDGED_LEFT, "oif br0 bridged"),
            (&net.host, IpAddr::from([192, 0, 2, 1]), "oif br0"),
        ] {
            let case = Case {
                policy_host: &net.host,
                opener,
                protocol: Protocol::Udp,
                from: SocketAddr::new(own, port),
                to,
                parts,
                masqueraded: &["192.0.2.1"],
            };
            let is_own = parts == "oif br0" && !flags.contains("forwarded");
            assert_eq!(case.check(flags), is_own, "{flags} {parts}");
        }
    }
}

#[test]
fn b18_explain_names_other_nat_rules() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    nft_load(
        &net.router,
        "table ip other {\n chain c { type nat hook postrouting priority srcnat; \
         oifname wan0 meta l4proto udp masquerade to :14000-14999; }\n}\n",
    );
    let flags = "--to-ports 49152-61000";
    let flow = "udp 10.77.1.2:701 -> 203.0.113.9:443 oif wan0";
    assert_eq!(ephport(&net.router, &format!("apply {flags}")).exit, ephport_cli::Exit::Success);
    let parts = ["explain", "--flow", flow].into_iter().chain(flags.split_whitespace());
    let out = ephport_args(&net.router, parts, b"").out;
    assert!(
        out.contains("not translated by ephport (another NAT rule may): source port 701"),
        "{out}"
    );
    assert!(out.contains("10.77.1.2 is no address of this host"), "{out}");
    let to = SocketAddr::new(SERVER_V4, PORT);
    let seen = net.client.run(|| connect_within(TIMEOUT, Protocol::Udp, 701, to)).unwrap().seen;
    assert!((14_000..15_000).contains(&seen.port()), "{seen}");
}

#[test]
fn b1_explain_skips_what_ipsec_protects() {
    let net = Routed::new().unwrap();
    let flow = "udp 10.77.1.2:40000 -> 203.0.113.9:443 oif wan0 iif lan0 ipsec";
    let explanation = explained(&net.router, "--to-ports 49152-61000 --enforce", flow);
    assert_eq!(
        (&explanation["translation"], &explanation["enforcement"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(explanation["non_matches"][0]["kind"], "ipsec");
}

/// A server that announces port 35001 in passive mode of FTP (RFC 959), for one control connection.
fn announce(server: &Host) -> std::thread::JoinHandle<()> {
    let listener = server.run(|| std::net::TcpListener::bind("203.0.113.9:21")).unwrap();
    std::thread::spawn(move || {
        let (mut control, _) = listener.accept().unwrap();
        // The helper reads lines after the first.
        control.write_all(b"220 ready\r\n").unwrap();
        let mut command = [0; 6];
        control.read_exact(&mut command).unwrap();
        control.write_all(b"227 Entering Passive Mode (203,0,113,9,136,185)\r\n").unwrap();
        // Until the client is done.
        let _ = control.read(&mut command);
    })
}

/// The control connection of a client; the announcement has passed the router.
fn control(client: &Host) -> std::net::TcpStream {
    client.run(|| {
        let mut control = std::net::TcpStream::connect("203.0.113.9:21").unwrap();
        control.read_exact(&mut [0; 11]).unwrap();
        control.write_all(b"PASV\r\n").unwrap();
        let mut reply = [0; 49];
        control.read_exact(&mut reply).unwrap();
        control
    })
}

#[test]
fn a10_explain_knows_expected_connections() {
    for (flags, passes) in [
        ("--to-ports 49152-61000", true),
        ("--to-ports 49152-61000 --enforce", true),
        ("--to-ports 49152-61000 --enforce --expected-connections drop", false),
    ] {
        let net = Routed::new().unwrap();
        nft_load(
            &net.router,
            "table inet helpers {\n ct helper ftp { type \"ftp\" protocol tcp; l3proto ip; }\n \
             chain c { type filter hook prerouting priority 0; tcp dport 21 ct helper set \"ftp\"; }\n}\n",
        );
        assert_eq!(
            ephport(&net.router, &format!("apply {flags}")).exit,
            ephport_cli::Exit::Success
        );
        let _data = Server::start(&net.server, 35_001).unwrap();
        let announcing = announce(&net.server);
        let control = control(&net.client);
        let flow = "tcp 10.77.1.2:40001 -> 203.0.113.9:35001 oif wan0 iif lan0 expected";
        let explanation = explained(&net.router, flags, flow);
        assert_eq!(explanation["translation"], Value::Null, "{explanation:#}");
        assert_eq!(explanation["non_matches"][0]["kind"], "expected");
        assert_eq!(explanation["enforcement"]["drops_all"] == true, !passes, "{explanation:#}");
        let to = SocketAddr::new(SERVER_V4, 35_001);
        let from = SocketAddr::new(CLIENT_V4, 40_001);
        let result = net.client.run(|| connect_within(TIMEOUT, Protocol::Tcp, from, to));
        match result {
            // The helper binds it to the address of the control connection, with its own port.
            Ok(connection) => {
                assert_eq!((connection.seen, passes), (SocketAddr::new(ROUTER_V4, 40_001), true));
            }
            Err(error) => assert!(!passes, "{flags}: {error}"),
        }
        drop(control);
        announcing.join().unwrap();
        // Others to the same port are not expected.
        let seen =
            net.client.run(|| connect_within(TIMEOUT, Protocol::Tcp, 40_002, to)).unwrap().seen;
        assert!((49_152..=61_000).contains(&seen.port()), "{seen}");
    }
}
