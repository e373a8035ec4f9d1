//! The lab: its networks carry packets, report true sources, and vanish.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ephport_nft::netlink::NetlinkError;
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, LabError, Protocol, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4,
    Server, Source, TrafficError, connect, connect_within, of_family, protocols_and_servers, seen,
    without_descriptors,
};
use nix::errno::Errno;

const PORT: u16 = 443;

fn network() -> (Routed, Server) {
    let net = Routed::new().unwrap();
    let server = Server::start(&net.server, PORT).unwrap();
    (net, server)
}

#[test]
fn server_reports_the_true_source() {
    let (net, _server) = network();
    for (protocol, address) in protocols_and_servers() {
        let to = SocketAddr::new(address, PORT);
        let client = of_family(address, CLIENT_V4, CLIENT_V6);
        let router = of_family(address, ROUTER_V4, ROUTER_V6);
        for port in [1, 1024, 40_000, 65_535] {
            assert_eq!(seen(&net.client, protocol, port, to), SocketAddr::new(client, port));
            assert_eq!(seen(&net.router, protocol, port, to), SocketAddr::new(router, port));
        }
    }
}

#[test]
fn kernel_chooses_an_unspecified_source_port() {
    let (net, _server) = network();
    for (protocol, address) in protocols_and_servers() {
        let client = of_family(address, CLIENT_V4, CLIENT_V6);
        let connection = net
            .client
            .run(|| connect(protocol, SocketAddr::new(client, 0), (address, PORT)))
            .unwrap();
        assert_eq!(connection.seen, connection.local().unwrap());
        assert!((32_768..=60_999).contains(&connection.seen.port()));
    }
}

#[test]
fn source_is_reusable_at_once() {
    let (net, _server) = network();
    for (protocol, address) in protocols_and_servers() {
        for _ in 0..100 {
            assert_eq!(seen(&net.client, protocol, 5000, (address, PORT).into()).port(), 5000);
        }
    }
}

#[test]
fn hundreds_of_connections_stay_open() {
    let (net, _server) = network();
    let open: Vec<_> = (10_000..10_060)
        .flat_map(|port| {
            protocols_and_servers().map(|(protocol, address)| (protocol, port, address))
        })
        .map(|(protocol, port, address)| {
            net.client.run(|| connect(protocol, port, (address, PORT))).unwrap()
        })
        .collect();
    let payload = vec![7; 60_000];
    for connection in &open {
        assert_eq!(connection.exchange(&payload[..1000]).unwrap(), connection.seen);
    }
    open[0].exchange(&payload).unwrap();
    for connection in open {
        connection.close().unwrap();
    }
}

#[test]
fn udp_answer_has_the_requests_destination_as_source() {
    let (net, _server) = network();
    for (address, question) in
        [("198.51.100.7/32", "198.51.100.7:443"), ("fd00::7/128", "[fd00::7]:443")]
    {
        net.server.address("lo", address).unwrap();
        let question: SocketAddr = question.parse().unwrap();
        let unbound = if question.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let from = net.router.run(|| {
            let socket = UdpSocket::bind(unbound).unwrap(); // not connected: receives any answer
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            socket.send_to(b"x", question).unwrap();
            socket.recv_from(&mut [0; 100]).unwrap().1
        });
        assert_eq!(from, question);
    }
}

#[test]
fn stopped_server_refuses_connections() {
    let (net, server) = network();
    let open = net.client.run(|| connect(Protocol::Tcp, 5000, (SERVER_V4, PORT))).unwrap();
    drop(server);
    assert!(matches!(open.exchange(b"x"), Err(TrafficError::Failed { .. })));
    for (protocol, address) in protocols_and_servers() {
        let error = net.client.run(|| connect(protocol, 5001, (address, PORT))).unwrap_err();
        assert!(error.to_string().contains("ECONNREFUSED"), "{error}");
    }
}

#[test]
fn missing_reply_is_an_error_after_the_timeout() {
    let (net, _server) = network();
    net.router.sysctl("net/ipv4/ip_forward", "0").unwrap();
    let timeout = Duration::from_millis(100);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let to = SocketAddr::new(SERVER_V4, PORT);
        let error = net.client.run(|| connect_within(timeout, protocol, 5000, to)).unwrap_err();
        assert_eq!(error, TrafficError::NoReply { protocol, to, timeout });
    }
}

#[test]
fn hosts_and_links_make_other_topologies() {
    let (left, right) = (Host::new("left").unwrap(), Host::new("right").unwrap());
    left.link("a", &right, "b").unwrap();
    left.address("a", "192.0.2.1/31").unwrap();
    right.address("b", "192.0.2.0/31").unwrap();
    right.address("lo", "198.18.0.1/32").unwrap();
    left.route("198.18.0.0/15", "192.0.2.0").unwrap();
    let _server = Server::start(&right, 53).unwrap();
    let to: SocketAddr = "198.18.0.1:53".parse().unwrap();
    assert_eq!(seen(&left, Protocol::Udp, 53, to), "192.0.2.1:53".parse().unwrap());
}

#[test]
fn refused_request_is_named() {
    let host = Host::new("h").unwrap();
    let peer = Host::new("p").unwrap();
    let message = |result: Result<(), LabError>| result.unwrap_err().to_string();
    host.link("eth0", &peer, "eth0").unwrap();
    let exists = message(host.link("eth0", &peer, "eth1"));
    assert!(exists.starts_with("h: the kernel refused link eth0 to eth1 of p (EEXIST"), "{exists}");
    assert_eq!(message(host.up("eth9")), "h has no link `eth9`; make it with Host::link first");
    let route = message(host.route("default", "192.0.2.1"));
    assert!(
        route.starts_with("h: the kernel refused route to 0.0.0.0/0 via 192.0.2.1 (ENETUNREACH"),
        "{route}"
    );
    assert!(message(host.address("eth0", "10.0.0.1")).contains("found `10.0.0.1`"));
    let other = message(host.route("default", "eth0"));
    assert!(other.starts_with("h: cannot read the route to `default` via `eth0`: "), "{other}");
}

#[test]
fn link_that_stays_down_is_named() {
    // Loopback has no peer: its operational state is always unknown.
    let error = Host::new("h").unwrap().await_carrier("lo").unwrap_err();
    assert!(matches!(&error, LabError::LinkDown { link, .. } if link == "lo"), "{error}");
}

#[test]
fn server_and_client_name_port_in_use() {
    let (net, _server) = network();
    let error = Server::start(&net.server, PORT).map(drop).unwrap_err();
    assert!(matches!(error, LabError::Serve { port: PORT, .. }), "{error}");
    let from = SocketAddr::new(SERVER_V4, 5000);
    let error = net.client.run(|| connect(Protocol::Udp, from, (SERVER_V4, PORT))).unwrap_err();
    assert!(matches!(error, TrafficError::Bind { .. }), "{error}");
}

#[test]
fn descriptor_limit_is_an_error() {
    let host = Host::new("h").unwrap();
    let to = SocketAddr::new(SERVER_V4, PORT);
    without_descriptors(|| {
        let error = host.route("default", "192.0.2.1").unwrap_err();
        let open = NetlinkError::Open { errno: ephport_nft::Errno::EMFILE };
        assert!(matches!(&error, LabError::Netlink { source, .. } if *source == open), "{error}");
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let error = host.run(|| connect(protocol, 5000, to)).unwrap_err();
            assert_eq!(error, TrafficError::Socket { protocol, to, errno: Errno::EMFILE });
        }
    });
}

#[test]
fn foreign_server_is_an_error() {
    let host = Host::new("h").unwrap();
    // No address; no end of the line; no echo.
    for greeting in ["220 ready\n".into(), "x".repeat(100), format!("{SERVER_V4}:80\nwhat?")] {
        let (tcp, udp) = host.run(|| {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
            (tcp, udp)
        });
        let to = tcp.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = tcp.accept().unwrap();
                client.write_all(greeting.as_bytes()).unwrap();
                let _ = client.read_to_end(&mut Vec::new()); // until it closes
                let (_, client) = udp.recv_from(&mut [0; 100]).unwrap();
                udp.send_to(greeting.as_bytes(), client).unwrap();
            });
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let error = host.run(|| connect(protocol, Source::Any, to)).unwrap_err();
                assert_eq!(error, TrafficError::Garbled { protocol, to }, "{greeting}");
            }
        });
    }
}

#[test]
fn only_network_sysctls_are_writable() {
    let host = Host::new("h").unwrap();
    for name in ["kernel/hostname", "net/../kernel/hostname", "/kernel/hostname"] {
        assert!(matches!(host.sysctl(name, "x"), Err(LabError::Proc { .. })), "{name}");
    }
}

#[test]
fn process_is_in_the_hosts_namespace() {
    let host = Host::new("h").unwrap();
    let namespace = |of: &str| std::fs::read_link(of).unwrap();
    let outside = namespace("/proc/self/ns/net");
    let inside = host.run(|| namespace("/proc/thread-self/ns/net"));
    let process = host.run(|| {
        Command::new("readlink").arg("/proc/self/ns/net").output().expect("readlink").stdout
    });
    assert_ne!(inside, outside);
    assert_eq!(String::from_utf8(process).unwrap().trim(), inside.to_str().unwrap());
    let spawned = host.spawn(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_eq!(spawned.join().unwrap(), inside);
    assert_eq!(namespace("/proc/thread-self/ns/net"), outside);
}

#[test]
fn dropped_host_vanishes() {
    let witness = Host::new("witness").unwrap();
    let host = Host::new("h").unwrap();
    witness.link("eth0", &host, "eth0").unwrap();
    drop(host);
    await_loss(&witness, "eth0");
}

#[test]
fn host_vanishes_after_a_panic() {
    let witness = Host::new("witness").unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let host = Host::new("h").unwrap();
        witness.link("eth0", &host, "eth0").unwrap();
        let _server = Server::start(&host, PORT).unwrap();
        host.run(|| panic!("as it happens"))
    }))
    .unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"as it happens"));
    await_loss(&witness, "eth0");
}

/// Waits until the link is gone: the kernel removes it some time after the namespace of its peer.
fn await_loss(witness: &Host, link: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(witness.up(link), Err(LabError::NoLink { .. })) {
        assert!(Instant::now() < deadline, "the namespace is still there");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn labs_run_side_by_side() {
    let work = || {
        let (net, _server) = network();
        for (protocol, address) in protocols_and_servers() {
            let expected: IpAddr = of_family(address, CLIENT_V4, CLIENT_V6);
            let seen = seen(&net.client, protocol, 40_000, (address, PORT).into());
            assert_eq!(seen, SocketAddr::new(expected, 40_000));
        }
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(work);
        }
    });
}
