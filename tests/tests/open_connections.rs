//! Connections that are open when a policy is first applied, with real packets: which of them continue, until
//! when, and what `status` reports.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ephport_cli::lab::Connection;
use ephport_tests::strace::{inject, points, traced};
use ephport_tests::tool::nft_load;
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, Protocol, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6,
    Server, apply, connect, connect_within, dropped, ephport, ephport_ok, installed,
};
use serde_json::{Value, json};

const PORT: u16 = 443;
const APPLY: &str = "apply --to-ports 49152-61000 --enforce";
const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(3);
const SIGKILL: i32 = 9;

/// What makes conntrack work before ephport does.
const CONNTRACK: &str = "table inet other {\n chain c { type filter hook prerouting priority 0; ct state invalid counter; }\n}\n";

/// The side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The router or the client, whose packets are in scope.
    Ours,
    /// The server, behind the uplink.
    Remote,
}

/// A kind of connection between our side and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    protocol: Protocol,
    is_ipv4: bool,
    /// Whether our side is the client, and the router forwards.
    is_forwarded: bool,
    opened_by: Side,
}

impl Kind {
    fn all() -> impl Iterator<Item = Self> {
        (0..16).map(|bits: u8| Self {
            protocol: if bits & 1 == 0 { Protocol::Tcp } else { Protocol::Udp },
            is_ipv4: bits & 2 == 0,
            is_forwarded: bits & 4 != 0,
            opened_by: if bits & 8 == 0 { Side::Ours } else { Side::Remote },
        })
    }

    /// Whether the first packet after the first apply is the first one that this host can know of, and makes
    /// it a new connection of our side.
    fn is_unknown(self, speaks_first: Side) -> bool {
        let is_server_of_unknown_clients =
            self.protocol == Protocol::Udp && self.opened_by == Side::Remote;
        speaks_first == Side::Ours && (self.is_forwarded || is_server_of_unknown_clients)
    }
}

/// A socket of an open connection.
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket, SocketAddr),
}

impl Socket {
    /// Whether what this side sends arrives at the other side, from the same port as before.
    fn reaches(&self, other: &Self, timeout: Duration) -> bool {
        const WORDS: &[u8] = b"go on";
        let mut buffer = [0; WORDS.len()];
        let result = match (self, other) {
            (Self::Tcp(from), Self::Tcp(to)) => (&*from).write_all(WORDS).and_then(|()| {
                to.set_read_timeout(Some(timeout))?;
                (&*to).read_exact(&mut buffer)
            }),
            (Self::Udp(from, peer), Self::Udp(to, expected)) => {
                from.send_to(WORDS, peer).and_then(|_| {
                    to.set_read_timeout(Some(timeout))?;
                    let (_, source) = to.recv_from(&mut buffer)?;
                    if source == *expected { Ok(()) } else { Err(io::ErrorKind::AddrInUse.into()) }
                })
            }
            _ => unreachable!("both sides have one protocol"),
        };
        result.is_ok() && buffer == *WORDS
    }
}

/// An open connection: our side, and the server's.
struct Pair {
    kind: Kind,
    ours: Socket,
    remote: Socket,
}

impl Pair {
    /// Opens a connection between two ports outside of the permitted ones, and uses it in both directions.
    fn open(net: &Routed, kind: Kind, port: u16) -> Self {
        let address = |side| match (side, kind.is_forwarded, kind.is_ipv4) {
            (Side::Remote, _, true) => SERVER_V4,
            (Side::Remote, _, false) => SERVER_V6,
            (Side::Ours, true, true) => CLIENT_V4,
            (Side::Ours, true, false) => CLIENT_V6,
            (Side::Ours, false, true) => ROUTER_V4,
            (Side::Ours, false, false) => ROUTER_V6,
        };
        let our_host = if kind.is_forwarded { &net.client } else { &net.router };
        let (ours, remote) = (
            SocketAddr::new(address(Side::Ours), port),
            SocketAddr::new(address(Side::Remote), port),
        );
        let (ours, remote) = match (kind.protocol, kind.opened_by) {
            (Protocol::Tcp, Side::Ours) => tcp(our_host, ours, &net.server, remote),
            (Protocol::Tcp, Side::Remote) => {
                let (remote, ours) = tcp(&net.server, remote, our_host, ours);
                (ours, remote)
            }
            (Protocol::Udp, opened_by) => {
                let bound = |host: &Host, to: SocketAddr| {
                    host.run(|| UdpSocket::bind(to)).expect("a free port")
                };
                let (our_socket, remote_socket) =
                    (bound(our_host, ours), bound(&net.server, remote));
                if opened_by == Side::Ours {
                    // As a client does; a server of UDP has no peer.
                    our_socket.connect(remote).expect("connected");
                }
                (Socket::Udp(our_socket, remote), Socket::Udp(remote_socket, ours))
            }
        };
        let pair = Self { kind, ours, remote };
        let (first, second) = match kind.opened_by {
            Side::Ours => (Side::Ours, Side::Remote),
            Side::Remote => (Side::Remote, Side::Ours),
        };
        assert!(pair.speaks(first, LONG) && pair.speaks(second, LONG), "{kind:?}");
        pair
    }

    /// Whether what this side sends arrives at the other.
    fn speaks(&self, side: Side, timeout: Duration) -> bool {
        match side {
            Side::Ours => self.ours.reaches(&self.remote, timeout),
            Side::Remote => self.remote.reaches(&self.ours, timeout),
        }
    }
}

fn tcp(opener: &Host, from: SocketAddr, server: &Host, to: SocketAddr) -> (Socket, Socket) {
    let listener = server.run(|| TcpListener::bind(to)).expect("a free port");
    let connected = opener.run(|| {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect(&to.into())?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    });
    let accepted = listener.accept().expect("accepted").0;
    if opener.name() == "server" {
        // Only a listener shows which side opened the connection.
        std::mem::forget(listener);
    }
    (Socket::Tcp(connected.expect("connected")), Socket::Tcp(accepted))
}

fn status(router: &Host) -> Value {
    let status = ephport(router, "status --json");
    serde_json::from_str(&status.out).expect("JSON")
}

/// The counts of the first policy: excepted connections, and those of them that are open.
fn counts(router: &Host) -> (u64, u64) {
    let open = &status(router)["policies"][0]["open_connections"];
    let count = |name: &str| open[name].as_u64().expect("a count");
    (count("excepted"), count("open"))
}

#[test]
fn a5_open_connections_continue_whoever_speaks_first() {
    let mut faults = Vec::new();
    for condition in [CONNTRACK, ""] {
        for line in ["apply --to-ports 49152-61000", APPLY] {
            for first in [Side::Ours, Side::Remote] {
                let net = Routed::new().unwrap();
                if !condition.is_empty() {
                    nft_load(&net.router, condition);
                }
                let pairs: Vec<_> = Kind::all()
                    .zip(20_000..)
                    .map(|(kind, port)| Pair::open(&net, kind, port))
                    .collect();
                ephport_ok(&net.router, line);
                for pair in &pairs {
                    let is_tracked = !condition.is_empty();
                    let is_lost = !is_tracked
                        && pair.kind.is_unknown(first)
                        && (line == APPLY || pair.kind.protocol == Protocol::Udp);
                    let second = if first == Side::Ours { Side::Remote } else { Side::Ours };
                    let timeout = if is_lost { SHORT } else { LONG };
                    let is_alive = pair.speaks(first, timeout)
                        && pair.speaks(second, timeout)
                        && pair.speaks(first, timeout);
                    // A segment that the server sends again makes an unknown connection one of the server's.
                    let may_live = is_lost && pair.kind.protocol == Protocol::Tcp;
                    if is_alive == is_lost && !may_live {
                        faults.push((is_tracked, line, first, pair.kind, is_alive));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "tracked, line, first speaker, kind, alive: {faults:#?}");
}

#[test]
fn open_connections_drop_if_asked() {
    for condition in [CONNTRACK, ""] {
        let net = Routed::new().unwrap();
        if !condition.is_empty() {
            nft_load(&net.router, condition);
        }
        let pairs: Vec<_> =
            Kind::all().zip(20_000..).map(|(kind, port)| Pair::open(&net, kind, port)).collect();
        ephport_ok(&net.router, &format!("{APPLY} --open-connections drop"));
        for pair in &pairs {
            // Servers answer by their own port, as they do in connections that are opened later.
            let is_inbound = pair.kind.opened_by == Side::Remote;
            let is_known = !condition.is_empty() || !pair.kind.is_unknown(Side::Ours);
            let is_alive = is_known && is_inbound;
            let timeout = if is_alive { LONG } else { SHORT };
            if is_known || pair.kind.protocol == Protocol::Udp {
                assert_eq!(pair.speaks(Side::Ours, timeout), is_alive, "{:?}", pair.kind);
            }
        }
        assert_eq!(status(&net.router)["policies"][0]["open_connections"], Value::Null);
    }
}

/// A NAT chain before ours.
const BINDS: &str = "table inet first {\n chain post { type nat hook postrouting priority 80; \
                     oifname wan0 meta l4proto { tcp, udp } th sport 40001 masquerade to :2001; }\n}\n";

#[test]
fn exceptions_end_with_their_connections() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let net = Routed::new().unwrap();
        nft_load(&net.router, CONNTRACK);
        for name in ["udp_timeout", "udp_timeout_stream", "tcp_timeout_close"] {
            net.router.sysctl(&format!("net/netfilter/nf_conntrack_{name}"), "1").unwrap();
        }
        let _server = Server::start(&net.server, PORT).unwrap();
        let server = SocketAddr::new(SERVER_V4, PORT);
        let open = || net.client.run(|| connect_within(SHORT, protocol, 40_001, server));
        let before = open().unwrap();
        ephport_ok(&net.router, APPLY);
        assert_eq!(before.exchange(b"more"), Ok(SocketAddr::new(CLIENT_V4, 40_001)), "{protocol}");
        assert_eq!(counts(&net.router), (1, 1));
        // Another table binds connections of the same source from now on.
        nft_load(&net.router, BINDS);
        assert!(before.exchange(b"more").is_ok());
        drop(before);
        let is_gone = || (counts(&net.router) == (1, 0)).then_some(());
        eventually(is_gone).expect("the entry expires");
        let drops = dropped(&net.router);
        assert!(open().is_err(), "{protocol}");
        assert!(dropped(&net.router) > drops, "{protocol}");
        ephport_tests::tool::ok(&net.router, "nft delete table inet first");
        let port = open().unwrap().seen.port();
        assert!((49_152..=61_000).contains(&port), "{protocol} {port}");
    }
}

/// The first value of `what`, within some seconds.
fn eventually<T>(what: impl Fn() -> Option<T>) -> Option<T> {
    (0..200).find_map(|_| {
        let found = what();
        if found.is_none() {
            thread::sleep(Duration::from_millis(50));
        }
        found
    })
}

#[test]
fn reopened_connections_are_no_exception_at_once() {
    let net = Routed::new().unwrap();
    nft_load(&net.router, CONNTRACK);
    let _server = Server::start(&net.server, PORT).unwrap();
    let server = SocketAddr::new(SERVER_V4, PORT);
    let open = || net.client.run(|| connect_within(SHORT, Protocol::Tcp, 40_001, server));
    let before = open().unwrap();
    ephport_ok(&net.router, APPLY);
    assert!(before.exchange(b"more").is_ok());
    nft_load(&net.router, BINDS);
    drop(before);
    // The entry in state CLOSE is replaced by the new connection, which may get its number.
    for _ in 0..3 {
        assert!(open().is_err());
    }
    assert!(dropped(&net.router) >= 3);
}

fn opened(net: &Routed, port: u16) -> Connection {
    let server = SocketAddr::new(SERVER_V4, PORT);
    net.client.run(|| connect(Protocol::Udp, port, server)).unwrap()
}

/// A network, its server, and a connection that was open when a policy was applied on the router.
fn applied_around_a_connection() -> (Routed, Server, Connection) {
    let net = Routed::new().unwrap();
    nft_load(&net.router, CONNTRACK);
    let server = Server::start(&net.server, PORT).unwrap();
    let before = opened(&net, 40_001);
    ephport_ok(&net.router, APPLY);
    (net, server, before)
}

#[test]
fn later_applies_add_no_exception() {
    let (net, _server, before) = applied_around_a_connection();
    let later = opened(&net, 40_002);
    assert!(ephport_ok(&net.router, APPLY).starts_with("unchanged "));
    assert_eq!(counts(&net.router), (1, 1));
    assert!(later.exchange(b"more").is_ok());
    let other = "apply --to-ports 30000-30999 --enforce";
    assert!(ephport_ok(&net.router, other).starts_with("updated "));
    assert_eq!(counts(&net.router), (1, 1));
    assert!(before.exchange(b"more").is_ok());
    // Its port was permitted by the earlier policy only.
    assert!(later.exchange(b"more").is_err());
    // A table that must be replaced keeps the exceptions too.
    ephport_tests::tool::ok(&net.router, "nft add counter inet ephport foreign");
    assert!(ephport_ok(&net.router, other).starts_with("replaced "));
    assert!(before.exchange(b"more").is_ok());
    assert!(ephport_ok(&net.router, "status").starts_with("intact"));
}

#[test]
fn restored_tables_have_their_own_exceptions() {
    let (net, _server, before) = applied_around_a_connection();
    let installed = installed(&net.router);
    ephport_ok(&net.router, &format!("{APPLY} --open-connections drop"));
    assert!(before.exchange(b"more").is_err());
    let _later = opened(&net, 40_002);
    apply(&net.router, installed.table().unwrap());
    assert_eq!(counts(&net.router), (1, 1));
    assert!(before.exchange(b"more").is_ok());
}

#[test]
fn later_enforcement_keeps_connections_of_before() {
    let net = Routed::new().unwrap();
    let pair = |kind: Kind, port| Pair::open(&net, kind, port);
    let kinds: Vec<_> = Kind::all().filter(|kind| kind.opened_by == Side::Ours).collect();
    ephport_ok(&net.router, "apply --to-ports 49152-61000 --sport 1024-19999");
    let pairs: Vec<_> =
        kinds.into_iter().zip(20_000..).map(|(kind, port)| pair(kind, port)).collect();
    let line = format!("{APPLY} --sport 1024-19999");
    assert!(ephport_ok(&net.router, &line).starts_with("updated "));
    for pair in &pairs {
        assert!(
            pair.speaks(Side::Ours, LONG) && pair.speaks(Side::Remote, LONG),
            "{:?}",
            pair.kind
        );
    }
}

#[test]
fn status_counts_open_connections() {
    let net = Routed::new().unwrap();
    nft_load(&net.router, CONNTRACK);
    let pairs: Vec<_> =
        Kind::all().zip(20_000..).map(|(kind, port)| Pair::open(&net, kind, port)).collect();
    ephport_ok(&net.router, APPLY);
    assert_eq!(counts(&net.router), (16, 16));
    let text = ephport_ok(&net.router, "status");
    assert!(text.contains("connections kept        16 open of 16 when first enforced"), "{text}");
    drop(pairs);
    let remove = ephport_ok(&net.router, "remove");
    assert_eq!(remove, "removed table inet ephport\n");
    // Nobody was counted without enforcement.
    ephport_ok(&net.router, "apply --to-ports 49152-61000");
    assert_eq!(status(&net.router)["policies"][0]["open_connections"], json!(null));
}

#[test]
fn hosts_sockets_are_counted_without_conntrack() {
    let net = Routed::new().unwrap();
    let kinds = Kind::all().filter(|kind| kind.opened_by == Side::Ours && !kind.is_forwarded);
    let pairs: Vec<_> =
        kinds.zip(20_000..).map(|(kind, port)| Pair::open(&net, kind, port)).collect();
    assert!(ephport_ok(&net.router, &format!("{APPLY} --dry-run")).starts_with("would install"));
    ephport_ok(&net.router, APPLY);
    assert_eq!(counts(&net.router).0, u64::try_from(pairs.len()).unwrap());
}

#[test]
fn connections_opened_during_the_first_apply_survive() {
    for condition in [CONNTRACK, ""] {
        for _ in 0..5 {
            let net = Routed::new().unwrap();
            if !condition.is_empty() {
                nft_load(&net.router, condition);
            }
            let _server = Server::start(&net.server, PORT).unwrap();
            let server = SocketAddr::new(SERVER_V4, PORT);
            // Without conntrack, what the router forwards is unknown.
            let host = if condition.is_empty() { &net.router } else { &net.client };
            let is_applied = AtomicBool::new(false);
            let connections: Vec<_> = thread::scope(|scope| {
                let opener = scope.spawn(|| {
                    let mut connections = Vec::new();
                    while !is_applied.load(Ordering::Relaxed) && connections.len() < 5000 {
                        let port = 10_000 + u16::try_from(connections.len()).unwrap();
                        connections.push(host.run(|| connect(Protocol::Tcp, port, server)));
                    }
                    connections
                });
                ephport_ok(&net.router, APPLY);
                is_applied.store(true, Ordering::Relaxed);
                opener.join().unwrap()
            });
            let is_lost = |connection: &Result<ephport_tests::Connection, _>| match connection {
                Ok(connection) => connection.exchange(b"more").is_err(),
                Err(_) => true,
            };
            let lost = connections.iter().filter(|connection| is_lost(connection)).count();
            assert_eq!(lost, 0, "of {}, {condition:?}", connections.len());
        }
    }
}

#[test]
fn killed_first_apply_is_completed_by_the_next() {
    let calls = {
        let net = Routed::new().unwrap();
        traced(&net.router, &["--trace=sendto"], &APPLY.split(' ').collect::<Vec<_>>()).calls
    };
    for point in points(&calls) {
        let net = Routed::new().unwrap();
        nft_load(&net.router, CONNTRACK);
        let _server = Server::start(&net.server, PORT).unwrap();
        let server = SocketAddr::new(SERVER_V4, PORT);
        let before = net.client.run(|| connect(Protocol::Tcp, 40_001, server)).unwrap();
        let [only, inject] = inject(&point, "signal=SIGKILL");
        let killed = traced(&net.router, &[&only, &inject], &APPLY.split(' ').collect::<Vec<_>>());
        if killed.output.status.signal() != Some(SIGKILL) {
            continue;
        }
        assert!(before.exchange(b"more").is_ok(), "{point:?}");
        let state = status(&net.router)["state"].clone();
        assert!(["absent", "drifted", "intact"].contains(&state.as_str().unwrap()), "{state}");
        ephport_ok(&net.router, APPLY);
        assert_eq!(status(&net.router)["state"], "intact", "{point:?}");
        assert!(before.exchange(b"more").is_ok(), "{point:?}");
        assert_eq!(counts(&net.router), (1, 1), "{point:?}");
    }
}
