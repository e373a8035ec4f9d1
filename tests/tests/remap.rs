//! `spread = "remap"` with real packets: each port of a set serves, in both directions, and nothing else changes.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use ephport_cli::Exit;
use ephport_core::{MapE, Port, PortRange, PortSet};
use ephport_tests::tool::{self, is_able};
use ephport_tests::wire::{self, Capture, Raw, Sender};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Connection, Host, Protocol, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4,
    SERVER_V6, Server, connect, connect_within, ephport, ephport_ok, is_long, of_family,
    protocols_and_servers,
};

/// The port of the server.
const PORT: u16 = 443;

/// The set of a MAP-E customer: 15 ranges of 16 ports.
const MAP_E: &str = "psid=52,psid-len=8,offset=4";

/// How long an answer may take before the connection counts as failed.
const TIMEOUT: Duration = Duration::from_millis(500);

fn map_e() -> PortSet {
    MAP_E.parse::<MapE>().unwrap().ports()
}

/// The network with the set of [`MAP_E`] for both families, and more lines of flags.
fn remapped(flags: &str) -> Routed {
    let net = Routed::new().unwrap();
    apply(&net.router, flags);
    net
}

fn apply(router: &Host, flags: &str) {
    ephport_ok(router, &remap_flags(flags));
}

fn remap_flags(flags: &str) -> String {
    format!("apply --to-ports {} --spread remap --address masquerade {flags}", map_e())
}

/// The client and the router, each with its address.
fn senders(net: &Routed, server: IpAddr) -> [(&Host, IpAddr); 2] {
    [
        (&net.client, of_family(server, CLIENT_V4, CLIENT_V6)),
        (&net.router, of_family(server, ROUTER_V4, ROUTER_V6)),
    ]
}

#[test]
fn every_port_serves_one_destination() {
    let set = map_e();
    for (protocol, server) in protocols_and_servers() {
        for from in [0, 1] {
            let net = remapped("");
            let _server = Server::start(&net.server, PORT).unwrap();
            let (host, address) = senders(&net, server)[from];
            let to = SocketAddr::new(server, PORT);
            let connections: Vec<_> = host.run(|| {
                let connect = |port| {
                    connect_within(TIMEOUT * 3, protocol, SocketAddr::new(address, port), to)
                };
                (20_000..20_240).filter_map(|port| connect(port).ok()).collect()
            });
            let seen: BTreeSet<_> = connections.iter().map(|of| of.seen.port()).collect();
            assert!(seen.len() >= 236, "{protocol} {to} {address}: {} of 240", seen.len());
            assert_eq!(seen.len(), connections.len(), "two connections have one port");
            assert!(seen.iter().all(|port| set.contains(Port::new(*port).unwrap())), "{seen:?}");
            // The others go on while a socket of each has a port.
            for connection in connections.iter().step_by(40) {
                host.run(|| connection.exchange(b"again")).unwrap();
            }
        }
    }
}

#[test]
fn icmp_errors_reach_their_socket() {
    let net = remapped("");
    tool::ok(&net.server, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
    for server in [SERVER_V4, SERVER_V6] {
        for (host, address) in senders(&net, server) {
            let sockets: Vec<_> = host.run(|| {
                let open = |_| {
                    let socket = UdpSocket::bind((address, 0)).unwrap();
                    // Nothing listens there.
                    socket.connect((server, 9)).unwrap();
                    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                    socket
                };
                (0..30).map(open).collect()
            });
            for socket in sockets {
                // The server's kernel limits the errors of all of this machine's hosts.
                let answers = (0..50).map(|_| {
                    socket.send(b"unreachable").unwrap_or_default();
                    socket.recv(&mut [0; 16]).unwrap_err().kind()
                });
                let mut refused = answers.filter(|kind| *kind == ErrorKind::ConnectionRefused);
                assert!(refused.next().is_some(), "{socket:?}");
            }
        }
    }
}

/// The network with a host after the server, by a link of this MTU.
fn with_far_host(flags: &str, mtu: u32) -> (Routed, Host) {
    let (net, far) = (remapped(flags), Host::new("far").unwrap());
    net.server.forward().unwrap();
    net.server.link("far0", &far, "eth0").unwrap();
    for (host, link, addresses) in
        [(&net.server, "far0", ["192.0.2.1/24", "2001:db8:5::1/64"]), (&far, "eth0", FAR_NETWORKS)]
    {
        for address in addresses {
            host.address(link, address).unwrap();
        }
        tool::ok(host, &format!("ip link set {link} mtu {mtu}"));
    }
    far.route("default", "192.0.2.1").unwrap();
    far.route("default", "2001:db8:5::1").unwrap();
    tool::ok(&net.server, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
    (net, far)
}

const FAR_NETWORKS: [&str; 2] = ["192.0.2.2/24", "2001:db8:5::2/64"];

/// The addresses of the host after the server.
fn far_addresses() -> [IpAddr; 2] {
    FAR_NETWORKS.map(|network| network.parse::<ipnet::IpNet>().unwrap().addr())
}

#[test]
fn time_exceeded_reaches_its_socket() {
    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv4Ttl, Ipv6RecvErr, Ipv6Ttl};
    let (net, _far) = with_far_host("", 1500);
    for to in far_addresses() {
        for ((host, address), hops) in senders(&net, to).into_iter().zip([2, 1]) {
            host.run(|| {
                let socket = UdpSocket::bind((address, 0)).unwrap();
                if to.is_ipv4() {
                    setsockopt(&socket.as_fd(), Ipv4RecvErr, &true).unwrap();
                    setsockopt(&socket.as_fd(), Ipv4Ttl, &hops).unwrap();
                } else {
                    setsockopt(&socket.as_fd(), Ipv6RecvErr, &true).unwrap();
                    setsockopt(&socket.as_fd(), Ipv6Ttl, &hops).unwrap();
                }
                socket.connect((to, 9)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                socket.send(b"too far").unwrap();
                let error = socket.recv(&mut [0; 16]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{to} {hops}");
            });
        }
    }
}

/// Sends `size` bytes to `listener` and back at once; both must arrive whole.
fn transfer((host, from): (&Host, IpAddr), (far, to): (&Host, IpAddr), size: usize) {
    let listener = far.run(|| TcpListener::bind((to, 0))).unwrap();
    let server = listener.local_addr().unwrap();
    let data: Vec<u8> = (0..=250).cycle().take(size).collect();
    let data = &data;
    let receive = |mut stream: TcpStream| {
        let mut received = Vec::new();
        let read = stream.read_to_end(&mut received);
        assert!(received == *data, "{} of {size} bytes: {read:?}", received.len());
    };
    let send = |mut stream: TcpStream| {
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(data).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    };
    let both = |stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let other = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| send(other));
            receive(stream);
        });
    };
    thread::scope(|scope| {
        scope.spawn(|| both(listener.accept().unwrap().0));
        both(host.run(|| {
            let bound = socket2::Socket::new(
                socket2::Domain::for_address(server),
                socket2::Type::STREAM,
                None,
            )
            .unwrap();
            bound.bind(&SocketAddr::new(from, 0).into()).unwrap();
            bound.connect(&server.into()).unwrap();
            bound.into()
        }));
    });
}

#[test]
fn path_mtu_is_discovered_in_both_directions() {
    // The link after the server is narrow, or the one to the client, whose MTU the client does not know.
    for (far_mtu, lan_mtu) in [(1280, 1500), (1500, 1280)] {
        let (net, far) = with_far_host("", far_mtu);
        tool::ok(&net.router, &format!("ip link set lan0 mtu {lan_mtu}"));
        tool::ok(&net.router, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
        tool::ok(&far, "ip link set eth0 mtu 1500");
        // A host beside the narrow link sends no larger packets by it, and does not tell the other side.
        for (host, mtu, v4, v6) in [
            (&net.client, lan_mtu, "10.77.1.1", "2001:db8:1::1"),
            (&far, far_mtu, "192.0.2.1", "2001:db8:5::1"),
        ] {
            for (family, via, mss) in [(4, v4, 1460), (6, v6, 1440)] {
                let route = format!("default via {via} dev eth0 mtu {mtu} advmss {mss}");
                tool::ok(host, &format!("ip -{family} route change {route}"));
            }
        }
        for to in far_addresses() {
            for sender in senders(&net, to) {
                for _ in 0..4 {
                    transfer(sender, (&far, to), 1 << 18);
                }
            }
        }
    }
}

#[test]
fn transfers_arrive_whole_with_and_without_offloads() {
    let size = if is_long() { 100 << 20 } else { 8 << 20 };
    for offloads in ["on", "off"] {
        let net = remapped("--enforce");
        let links = [
            (&net.client, "eth0"),
            (&net.router, "lan0"),
            (&net.router, "wan0"),
            (&net.server, "eth0"),
        ];
        for (host, link) in links {
            let line = format!(
                "ethtool -K {link} tx {offloads} rx {offloads} tso {offloads} gso {offloads} gro {offloads}"
            );
            if offloads == "off" && !is_able(host, &line) {
                return;
            }
        }
        for server in [SERVER_V4, SERVER_V6] {
            for sender in senders(&net, server) {
                transfer(sender, (&net.server, server), size);
            }
        }
    }
}

#[test]
fn fragments_arrive_in_both_directions() {
    let net = remapped("--enforce");
    let _server = Server::start(&net.server, PORT).unwrap();
    for server in [SERVER_V4, SERVER_V6] {
        for (host, address) in senders(&net, server) {
            for _ in 0..10 {
                let to = SocketAddr::new(server, PORT);
                host.run(|| {
                    let from = SocketAddr::new(address, 0);
                    let connection = connect_within(TIMEOUT, Protocol::Udp, from, to).unwrap();
                    connection.exchange(&[7; 6000]).unwrap();
                });
            }
        }
    }
}

/// Connections that are open, each with its source port on the wire.
struct Open(Vec<Connection>);

impl Open {
    /// TCP and UDP, IPv4 and IPv6, forwarded and local.
    fn new(net: &Routed) -> Self {
        let mut all = Vec::new();
        for (protocol, server) in protocols_and_servers() {
            for (host, address) in senders(net, server) {
                let to = SocketAddr::new(server, PORT);
                let open = || connect(protocol, SocketAddr::new(address, 0), to).unwrap();
                all.extend(host.run(|| (0..8).map(|_| open()).collect::<Vec<_>>()));
            }
        }
        Self(all)
    }

    /// Each continues with the port that it has.
    fn check(&self, net: &Routed, step: &str) {
        for connection in &self.0 {
            // A packet may be lost while the table is replaced.
            let mut errors = Vec::new();
            let exchange =
                |_| connection.exchange(b"again").map_err(|error| errors.push(error)).ok();
            let seen = (0..4).find_map(exchange);
            if seen == Some(connection.seen) {
                continue;
            }
            let ports = [connection.local().unwrap().port(), connection.seen.port()];
            let ports = ports.map(|port| format!("port={port} "));
            let known = ["ipv4", "ipv6"]
                .map(|family| tool::tool(&net.router, "conntrack", &["-L", "-f", family], "").out);
            let known: Vec<_> = known
                .iter()
                .flat_map(|all| all.lines())
                .filter(|line| ports.iter().any(|port| line.contains(port)))
                .collect();
            panic!("{step}: {connection:?} is seen as {seen:?}, {errors:?}, conntrack: {known:#?}");
        }
    }
}

#[test]
fn open_connections_keep_their_ports_when_remap_begins_and_ends() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let set = map_e();
    // Without the nat chain of another table, the kernel translates nothing after `remove`.
    let other = "table inet o { chain c { type nat hook postrouting priority 200; oifname none masquerade; }; }";
    tool::nft_load(&net.router, other);
    let policy = format!("apply --to-ports {set} --address masquerade");
    for enforce in ["", "--enforce"] {
        ephport_ok(&net.router, &format!("{policy} {enforce}"));
        let round_robin = Open::new(&net);
        ephport_ok(&net.router, &format!("{policy} {enforce} --spread remap"));
        round_robin.check(&net, "round-robin to remap");
        let remapped = Open::new(&net);
        ephport_ok(&net.router, &format!("{policy} {enforce} --spread hash"));
        remapped.check(&net, "remap to hash");
        round_robin.check(&net, "remap to hash");
        let other =
            format!("{policy} {enforce} --spread remap --except-ports 4928-4943,65344-65359");
        ephport_ok(&net.router, &other);
        // The ports that are excepted now are out of the set.
        let stays = |connection: &Connection| !(4928..4944).contains(&connection.seen.port());
        let stays = |open: Open| Open(open.0.into_iter().filter(stays).collect());
        let (round_robin, remapped) = (stays(round_robin), stays(remapped));
        remapped.check(&net, "hash to another remap");
        let other_remap = Open::new(&net);
        ephport_ok(&net.router, &format!("{policy} {enforce} --spread remap"));
        for open in [&round_robin, &remapped, &other_remap] {
            open.check(&net, "remap to another remap");
        }
        ephport_ok(&net.router, "remove");
        for open in [&round_robin, &remapped, &other_remap] {
            open.check(&net, "remap to nothing");
        }
    }
}

#[test]
fn a_closed_connection_leaves_its_source_port_to_the_next() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let sets = ["20000-20009,30000-30009", "40000-40009,50000-50009"];
    for closed in [false, true] {
        for server in [SERVER_V4, SERVER_V6] {
            for (host, address) in senders(&net, server) {
                // The socket that waits in TIME_WAIT leaves its port after a second.
                tool::ok(host, "sysctl -qw net.ipv4.tcp_tw_reuse=1");
                for set in sets {
                    let flags = "--spread remap --address masquerade --enforce";
                    ephport_ok(&net.router, &format!("apply --to-ports {set} {flags}"));
                    let (from, to) =
                        (SocketAddr::new(address, 50_001), SocketAddr::new(server, PORT));
                    let connected = host.run(|| connect(Protocol::Tcp, from, to)).unwrap();
                    let seen = Port::new(connected.seen.port()).unwrap();
                    assert!(set.parse::<PortSet>().unwrap().contains(seen), "{seen} of {set}");
                    if closed {
                        connected.close().unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn connections_that_cannot_keep_their_port_are_reported() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let before = "apply --to-ports 62300-62310 --address masquerade";
    assert_eq!(ephport(&net.router, before).err, "");
    let to = SocketAddr::new(SERVER_V4, PORT);
    let connect = || connect(Protocol::Tcp, SocketAddr::new(CLIENT_V4, 0), to).unwrap();
    let _open = net.client.run(connect);
    // These ports are only virtual now.
    let applied = ephport(&net.router, &remap_flags("--enforce"));
    assert_eq!(
        applied.err,
        "warning: 1 open connection ended: spread = remap sends other ports now\n"
    );
    assert_eq!(ephport(&net.router, &remap_flags("--enforce")).err, "");
}

/// A port of the virtual range of [`MAP_E`] that is no port of the set.
const VIRTUAL: u16 = 62_400;

#[test]
fn services_go_on_beside_the_set() {
    let net = Routed::new().unwrap();
    // A port of the set; it is excluded. The other service is added later, on a virtual port.
    let _inside = Server::start(&net.router, 9024).unwrap();
    apply(&net.router, "");
    let _beside = Server::start(&net.router, VIRTUAL).unwrap();
    for router in [ROUTER_V4, ROUTER_V6] {
        for port in [9024, VIRTUAL] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let to = SocketAddr::new(router, port);
                net.server.run(|| connect(protocol, 40_000, to)).unwrap();
            }
        }
    }
}

/// Rules of other tools that forward ports of [`MAP_E`] to a server on the client's host, each with these ports.
const FORWARDS: [(&str, &[u16]); 3] = [
    (
        "add table ip o; add chain ip o c { type nat hook prerouting priority -100; };
         add rule ip o c iifname wan0 tcp dport 9024 dnat to 10.77.1.2:8080",
        &[9024],
    ),
    (
        "add table inet o; add chain inet o c { type nat hook prerouting priority -100; };
         add rule inet o c ip daddr 203.0.113.1 tcp dport { 9025, 13120-13122 } dnat ip to 10.77.1.2:8080",
        &[9025, 13_120, 13_122],
    ),
    (
        "add table inet o; add chain inet o c { type nat hook prerouting priority -100; };
         add map inet o m { type inet_service : inet_service; elements = { 9026 : 8080 }; };
         add rule inet o c tcp dport 9027-9028 redirect to :8081;
         add rule inet o c ip daddr 203.0.113.1 meta l4proto tcp dnat ip to 10.77.1.2:tcp dport map @m",
        &[9026],
    ),
];

/// Whether a server on the client's host is reached by ports of the set that `forward` sends there.
fn check_forwarded(forward: impl Fn(&Host), ports: &[u16]) {
    let net = Routed::new().unwrap();
    let _published = Server::start(&net.client, 8080).unwrap();
    forward(&net.router);
    apply(&net.router, "");
    for port in ports {
        let to = SocketAddr::new(ROUTER_V4, *port);
        net.server.run(|| connect(Protocol::Tcp, 40_000, to)).unwrap();
    }
}

#[test]
fn ports_that_other_tables_forward_go_on() {
    for (rules, ports) in FORWARDS {
        check_forwarded(|router| tool::nft_load(router, rules), ports);
    }
}

#[test]
fn ports_that_iptables_nft_forwards_go_on() {
    let rule = "iptables-nft -t nat -A PREROUTING -p tcp -m multiport --dports 9029,17216:17218 \
                -j DNAT --to-destination 10.77.1.2:8080";
    check_forwarded(|router| drop(tool::ok(router, rule)), &[9029, 17_217]);
    let rule = "iptables-nft -t nat -A PREROUTING -p tcp --dport 9029 -j DNAT --to 10.77.1.2:8080";
    check_forwarded(|router| drop(tool::ok(router, rule)), &[9029]);
}

#[test]
fn a_port_that_is_forwarded_later_is_reported_and_excluded_by_the_next_apply() {
    let net = remapped("");
    let _published = Server::start(&net.client, 8080).unwrap();
    assert_eq!(ephport(&net.router, "status").exit, Exit::Success);
    tool::nft_load(&net.router, FORWARDS[0].0);
    let to = SocketAddr::new(ROUTER_V4, 9024);
    let reached = || net.server.run(|| connect_within(TIMEOUT, Protocol::Tcp, 40_000, to));
    assert!(reached().is_err());
    let status = ephport(&net.router, "status");
    assert_eq!(status.exit, Exit::Differs);
    assert!(status.out.contains("ports 9024"), "{status:?}");
    assert!(ephport(&net.router, "doctor").out.contains("services-in-set"));
    let applied = ephport(&net.router, &remap_flags(""));
    assert!(applied.err.contains("excludes ports 9024"), "{applied:?}");
    reached().unwrap();
    assert_eq!(ephport(&net.router, "status").exit, Exit::Success);
}

#[test]
fn packets_for_virtual_ports_are_dropped_when_enforced() {
    let net = remapped("--enforce");
    let _service = Server::start(&net.router, VIRTUAL).unwrap();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let to = SocketAddr::new(ROUTER_V4, VIRTUAL);
        let connected = net.server.run(|| connect_within(TIMEOUT, protocol, 40_000, to));
        assert!(connected.is_err(), "{connected:?}");
    }
}

#[test]
fn a_port_of_the_set_without_a_service_refuses_connections() {
    for flags in ["", "--enforce"] {
        let net = remapped(flags);
        for router in [ROUTER_V4, ROUTER_V6] {
            for port in [4928, 9024, 65_344] {
                let to = SocketAddr::new(router, port);
                let refused = net.server.run(|| TcpStream::connect_timeout(&to, TIMEOUT * 4));
                assert_eq!(
                    refused.unwrap_err().kind(),
                    ErrorKind::ConnectionRefused,
                    "{flags} {to}"
                );
            }
        }
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let (net, set) = (remapped("--enforce"), map_e());
    let mut capture = Capture::start(&net.server);
    let from = SocketAddr::new(CLIENT_V4, 40_000);
    let sender = Sender::new(&net.client);
    for port in 1000..1020 {
        let to = SocketAddr::new(SERVER_V4, port);
        let mut datagram = wire::udp(from, to, b"unchecked");
        datagram[6..8].fill(0);
        let bytes = wire::plain(from.ip(), to.ip(), 17, &datagram);
        sender.send(&Raw { name: String::new(), to: to.ip(), bytes }).unwrap();
    }
    let arrived = capture.packets();
    let is_udp = |packet: &&wire::Packet| packet.destination == SERVER_V4 && packet.protocol == 17;
    let arrived: Vec<_> = arrived.iter().filter(is_udp).collect();
    assert_eq!(arrived.len(), 20);
    for packet in arrived {
        assert_eq!(packet.transport[6..8], [0, 0]);
        assert!(set.contains(Port::new(packet.source_port.unwrap()).unwrap()), "{packet:?}");
    }
}

#[test]
fn random_sets_serve_and_answer() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let mut random: u64 = 13;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u16::try_from((random >> 33) % below).unwrap()
    };
    // Each connection has a source port of its own: conntrack would take one with the ports of a UDP connection
    // of a set before for the same connection, whose port is outside of this set.
    let mut own = (0..64_000).map(|at: u32| 1024 + u16::try_from(at * 7919 % 64_000).unwrap());
    for _ in 0..if is_long() { 500 } else { 30 } {
        let ranges = 2 + draw(if is_long() { 2000 } else { 40 });
        let ranges = (0..ranges).map(|_| {
            let first = 1024 + draw(64_000);
            let last = Port::new(first + draw(30)).unwrap();
            PortRange::new(Port::new(first).unwrap(), last).unwrap()
        });
        let set: PortSet = ranges.collect();
        let flags = "--spread remap --address masquerade --enforce";
        ephport_ok(&net.router, &format!("apply --to-ports {set} {flags}"));
        for (protocol, server) in protocols_and_servers() {
            for (host, address) in senders(&net, server) {
                let from = SocketAddr::new(address, own.next().unwrap());
                let to = SocketAddr::new(server, PORT);
                let seen = host.run(|| connect(protocol, from, to));
                let seen = seen.unwrap_or_else(|error| {
                    let entries = tool::tool(&net.router, "conntrack", &["-L"], "");
                    let table =
                        tool::tool(&net.router, "nft", &["list", "table", "inet", "ephport"], "")
                            .out;
                    panic!("{} {error}: {set}\n{entries:?}\n{table}", host.name())
                });
                let seen = seen.seen;
                assert!(set.contains(Port::new(seen.port()).unwrap()), "{seen} of {set}");
            }
        }
    }
}
