//! The other two protocols whose ports the kernel translates: SCTP (RFC 9260) and UDP-Lite (RFC 3828).
//!
//! Packets are written and read raw, so that the hosts' kernels need not speak either.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crc::{CRC_32_ISCSI, Crc};
use ephport_tests::tool::is_complete_kernel;
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6, dropped,
    ephport_ok, of_family,
};
use socket2::{Domain, Protocol, Socket, Type};

const OWN: u16 = 40_000;
const PORT: u16 = 443;
/// Of UDP-Lite; what its checksum covers here.
const HEADER_LEN: u16 = 8;
const SERVERS: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

/// INIT: its type and length, tag, window, streams, TSN (RFC 9260 §3.3.2).
const INIT: &[u8] = &[1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
/// DATA: TSN, stream, number in the stream, protocol, four bytes (§3.3.1).
const DATA: &[u8] = &[0, 3, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
/// HEARTBEAT with its information (§3.3.5).
const HEARTBEAT: &[u8] = &[4, 0, 0, 12, 0, 1, 0, 8, 1, 2, 3, 4];

/// An SCTP packet with one chunk; the checksum covers the whole packet (RFC 9260 §3, §6.8).
fn sctp(chunk: &[u8]) -> Vec<u8> {
    let mut packet = [OWN.to_be_bytes(), PORT.to_be_bytes()].concat();
    // An INIT has no verification tag yet.
    packet.extend(if chunk == INIT { [0; 4] } else { [0, 0, 0, 7] });
    packet.extend([0; 4]); // checksum
    packet.extend(chunk);
    let checksum = sctp_checksum(&packet);
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// Over the packet with zeros in the checksum's place; its bytes are the CRC's from the lowest.
fn sctp_checksum(packet: &[u8]) -> [u8; 4] {
    let zeroed = [&packet[..8], &[0; 4], &packet[12..]].concat();
    Crc::<u32>::new(&CRC_32_ISCSI).checksum(&zeroed).to_le_bytes()
}

/// A UDP-Lite packet whose checksum covers only its header (RFC 3828 §3.1, RFC 1071).
fn udplite(source: IpAddr, to: IpAddr) -> Vec<u8> {
    let header = [OWN, PORT, HEADER_LEN, 0].map(u16::to_be_bytes).concat();
    let payload = b"hello";
    let len = u32::try_from(header.len() + payload.len()).expect("a short packet");
    let pseudo = [octets(source), octets(to), (len.to_be_bytes()).into(), vec![0, 0, 0, 136]];
    let bytes = [pseudo.concat(), header.clone()].concat();
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !(sum % 0xffff);
    [&header[..6], &checksum.to_be_bytes()[2..], payload].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// One of the lab's hosts, with the address that its packets have there.
struct Sender<'a> {
    host: &'a Host,
    addresses: [IpAddr; 2],
}

impl<'a> Sender<'a> {
    fn client(net: &'a Routed) -> Self {
        Self { host: &net.client, addresses: [CLIENT_V4, CLIENT_V6] }
    }

    fn router(net: &'a Routed) -> Self {
        Self { host: &net.router, addresses: [ROUTER_V4, ROUTER_V6] }
    }

    fn send(&self, protocol: Protocol, to: IpAddr) {
        let [v4, v6] = self.addresses;
        let packet = match protocol {
            Protocol::SCTP => sctp(INIT),
            _ => udplite(of_family(to, v4, v6), to),
        };
        self.send_packet(protocol, to, &packet);
    }

    fn send_packet(&self, protocol: Protocol, to: IpAddr, packet: &[u8]) {
        let to = SocketAddr::new(to, 0);
        let sent = self.host.run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(protocol));
            socket.and_then(|socket| socket.send_to(packet, &to.into()))
        });
        sent.unwrap_or_else(|error| panic!("{protocol:?} to {to}: {error}"));
    }
}

/// Reads what arrives of one protocol in one family.
struct Receiver {
    socket: Socket,
    is_v4: bool,
}

impl Receiver {
    fn new(server: &Host, protocol: Protocol, address: IpAddr) -> Self {
        let domain = Domain::for_address(SocketAddr::new(address, 0));
        let socket = server.run(|| Socket::new(domain, Type::RAW, Some(protocol))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        Self { socket, is_v4: address.is_ipv4() }
    }

    /// The source of the next packet, and the packet without its IPv4 header, which only that family
    /// gives (raw(7), ipv6(7)).
    fn next(&mut self) -> (SocketAddr, Vec<u8>) {
        let (mut buffer, peer) = ([0; 512], self.socket.peek_sender().expect("a packet"));
        let len = self.socket.read(&mut buffer).expect("the packet");
        let header = if self.is_v4 { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
        let packet = buffer[header..len].to_vec();
        let port = u16::from_be_bytes([packet[0], packet[1]]);
        (SocketAddr::new(peer.as_socket().expect("an address").ip(), port), packet)
    }
}

fn assert_moved(
    sender: &Sender<'_>,
    receiver: &mut Receiver,
    protocol: Protocol,
    to: IpAddr,
) -> Vec<u8> {
    sender.send(protocol, to);
    let (source, packet) = receiver.next();
    // A public address is not changed.
    assert_eq!(source.ip(), of_family(to, ROUTER_V4, sender.addresses[1]), "{protocol:?}");
    assert!((49_152..=61_000).contains(&source.port()), "{protocol:?} left as {source}");
    packet
}

#[test]
fn sctp_is_translated_with_correct_checksum() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, "apply -p sctp --to-ports 49152-61000");
    for to in SERVERS {
        let mut receiver = Receiver::new(&net.server, Protocol::SCTP, to);
        for sender in [Sender::client(&net), Sender::router(&net)] {
            let packet = assert_moved(&sender, &mut receiver, Protocol::SCTP, to);
            assert_eq!(packet[8..12], sctp_checksum(&packet));
        }
    }
}

#[test]
fn sctp_is_remapped_with_correct_checksum() {
    let net = Routed::new().unwrap();
    let flags = "--spread remap --address masquerade --enforce";
    ephport_ok(&net.router, &format!("apply -p sctp --to-ports 2000-2009,3000-3009 {flags}"));
    for to in SERVERS {
        let mut receiver = Receiver::new(&net.server, Protocol::SCTP, to);
        for sender in [Sender::client(&net), Sender::router(&net)] {
            sender.send(Protocol::SCTP, to);
            let (source, packet) = receiver.next();
            let port = source.port();
            assert!((2000..=2009).contains(&port) || (3000..=3009).contains(&port), "{source}");
            assert_eq!(packet[8..12], sctp_checksum(&packet));
        }
    }
}

#[test]
fn local_udplite_is_translated() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, "apply -p udplite --to-ports 49152-61000 --enforce");
    for to in SERVERS {
        let mut receiver = Receiver::new(&net.server, Protocol::UDPLITE, to);
        assert_moved(&Sender::router(&net), &mut receiver, Protocol::UDPLITE, to);
    }
    assert_eq!(dropped(&net.router), 0);
}

/// Conntrack calls forwarded UDP-Lite invalid, so that no NAT rule sees it: only enforcement can
/// keep it from leaving as it is.
#[test]
fn forwarded_udplite_is_untranslated_unless_enforced() {
    for enforced in [false, true] {
        let net = Routed::new().unwrap();
        let flags = if enforced { "--enforce" } else { "" };
        ephport_ok(&net.router, &format!("apply -p udplite --to-ports 49152-61000 {flags}"));
        for to in SERVERS {
            let mut receiver = Receiver::new(&net.server, Protocol::UDPLITE, to);
            Sender::client(&net).send(Protocol::UDPLITE, to);
            if enforced {
                // What the host itself sends arrives: so what was sent before is not on its way.
                assert_moved(&Sender::router(&net), &mut receiver, Protocol::UDPLITE, to);
            } else {
                let client = of_family(to, CLIENT_V4, CLIENT_V6);
                assert_eq!(receiver.next().0, SocketAddr::new(client, OWN));
            }
        }
        assert_eq!(dropped(&net.router), if enforced { 2 } else { 0 });
    }
}

/// docs/guarantee.md, "Open connections".
#[test]
fn forwarded_sctp_data_stays_and_heartbeats_are_translated() {
    for (flags, is_data_dropped) in [("", false), ("--enforce", true)] {
        let net = Routed::new().unwrap();
        ephport_ok(&net.router, &format!("apply -p sctp --to-ports 49152-61000 {flags}"));
        for to in SERVERS {
            let mut receiver = Receiver::new(&net.server, Protocol::SCTP, to);
            let client = Sender::client(&net);
            client.send_packet(Protocol::SCTP, to, &sctp(DATA));
            client.send_packet(Protocol::SCTP, to, &sctp(HEARTBEAT));
            if !is_data_dropped {
                assert_eq!(receiver.next().0.port(), OWN);
            }
            let port = receiver.next().0.port();
            assert!((49_152..=61_000).contains(&port), "{port}");
        }
        assert_eq!(dropped(&net.router), if is_data_dropped { 2 } else { 0 });
    }
}

/// A connected pair of sockets: the router's and the server's.
struct Pair {
    ours: Socket,
    remote: Socket,
    /// Whether the router opened the connection.
    is_opened_here: bool,
}

impl Pair {
    /// The router's address and the server's. A socket of any IPv6 address has its port in IPv4 too.
    fn addresses(to: IpAddr) -> [SocketAddr; 2] {
        let ours = of_family(to, ROUTER_V4, ROUTER_V6);
        let port = if to.is_ipv4() { 20_000 } else { 20_010 };
        [SocketAddr::new(ours, port), SocketAddr::new(to, port + 1)]
    }

    /// Of UDP-Lite: both know each other's address.
    fn of_datagrams(net: &Routed, to: IpAddr) -> Self {
        let [ours, remote] = Self::addresses(to);
        let connected = |host: &Host, local: SocketAddr, peer: SocketAddr| {
            let socket = host.run(|| -> io::Result<Socket> {
                let kind = (Domain::for_address(local), Type::DGRAM, Some(Protocol::UDPLITE));
                let socket = Socket::new(kind.0, kind.1, kind.2)?;
                socket.bind(&local.into())?;
                socket.connect(&peer.into())?;
                Ok(socket)
            });
            socket.expect("a socket of UDP-Lite")
        };
        Self {
            ours: connected(&net.router, ours, remote),
            remote: connected(&net.server, remote, ours),
            is_opened_here: true,
        }
    }

    /// Of SCTP: an association that the router opens, or the server. The router has all of its addresses in it.
    fn of_association(net: &Routed, to: IpAddr, is_opened_here: bool) -> Self {
        let [mut ours, remote] = Self::addresses(to);
        let (client, listener) =
            if is_opened_here { (&net.router, &net.server) } else { (&net.server, &net.router) };
        let (from, to) = if is_opened_here {
            ours.set_ip(of_family(ours.ip(), [0; 4].into(), [0; 16].into()));
            (ours, remote)
        } else {
            (remote, ours)
        };
        let bound = |host: &Host, local: SocketAddr| {
            let socket = host.run(|| {
                Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::SCTP))
            });
            let socket = socket.expect("a socket of SCTP");
            socket.bind(&local.into()).expect("a free port");
            socket
        };
        let listening = bound(listener, to);
        listening.listen(1).expect("listening");
        let connecting = bound(client, from);
        connecting.connect(&to.into()).expect("an association");
        let accepted = listening.accept().expect("accepted").0;
        if is_opened_here {
            return Self { ours: connecting, remote: accepted, is_opened_here };
        }
        // Only a listener shows which side opened the association.
        std::mem::forget(listening);
        Self { ours: accepted, remote: connecting, is_opened_here }
    }

    /// Whether what each side sends arrives at the other, our side first or last.
    fn is_alive(&self, is_ours_first: bool) -> bool {
        let reaches = |mut from: &Socket, mut to: &Socket| {
            let mut buffer = [0; 5];
            let result = from.write_all(b"go on").and_then(|()| {
                to.set_read_timeout(Some(Duration::from_secs(4)))?;
                to.read_exact(&mut buffer)
            });
            result.is_ok() && buffer == *b"go on"
        };
        let (ours, remote) = (&self.ours, &self.remote);
        let (first, second) = if is_ours_first { (ours, remote) } else { (remote, ours) };
        reaches(first, second) && reaches(second, first)
    }
}

/// What `apply` does to pairs that were open before, on a router without conntrack.
fn assert_continued(protocol: &str, is_ours_first: bool, open: impl Fn(&Routed) -> Vec<Pair>) {
    for (flags, is_kept) in
        [("", true), ("--enforce", true), ("--enforce --open-connections drop", false)]
    {
        let net = Routed::new().unwrap();
        let pairs = open(&net);
        assert!(pairs.iter().all(|pair| pair.is_alive(true)), "{protocol}");
        ephport_ok(&net.router, &format!("apply -p {protocol} --to-ports 49152-61000 {flags}"));
        for (number, pair) in pairs.iter().enumerate() {
            // Servers answer by their own port, without an exception.
            let is_kept = is_kept || !pair.is_opened_here;
            assert_eq!(pair.is_alive(is_ours_first), is_kept, "{protocol} {flags} {number}");
        }
    }
}

#[test]
fn open_udplite_connections_of_the_host_continue() {
    for is_ours_first in [true, false] {
        assert_continued("udplite", is_ours_first, |net| {
            SERVERS.map(|to| Pair::of_datagrams(net, to)).into()
        });
    }
}

/// Whether the kernel has SCTP. Those of `tests/kernels` must.
fn has_sctp() -> bool {
    let result = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP));
    if let Err(error) = &result {
        assert!(!is_complete_kernel(), "{error}");
        // The test harness does not capture this.
        let _ = writeln!(io::stderr(), "skipped: this kernel has no SCTP: {error}");
    }
    result.is_ok()
}

#[test]
fn open_sctp_associations_of_the_host_continue() {
    if !has_sctp() {
        return;
    }
    for (is_ours_first, is_opened_here) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        assert_continued("sctp", is_ours_first, |net| {
            SERVERS.map(|to| Pair::of_association(net, to, is_opened_here)).into()
        });
    }
}
