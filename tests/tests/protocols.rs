//! The other two protocols whose ports the kernel translates: SCTP (RFC 9260) and UDP-Lite (RFC 3828).
//!
//! The server reads packets raw and SCTP is written raw, so that no kernel needs to speak it.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crc::{CRC_32_ISCSI, Crc};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6, dropped,
    ephport_ok, of_family,
};
use socket2::{Domain, Protocol, Socket, Type};

const OWN: u16 = 40_000;
const PORT: u16 = 443;
const SERVERS: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

/// An SCTP packet with its INIT chunk; the checksum covers the whole packet (RFC 9260 §3, §6.8).
fn sctp_init(from: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), PORT.to_be_bytes()].concat();
    packet.extend([0; 8]); // verification tag, checksum
    packet.extend([1, 0, 0, 20]); // INIT, its length
    packet.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]); // tag, window, streams, TSN
    let checksum = sctp_checksum(&packet);
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// Over the packet with zeros in the checksum's place; its bytes are the CRC's from the lowest.
fn sctp_checksum(packet: &[u8]) -> [u8; 4] {
    let zeroed = [&packet[..8], &[0; 4], &packet[12..]].concat();
    Crc::<u32>::new(&CRC_32_ISCSI).checksum(&zeroed).to_le_bytes()
}

fn send(host: &Host, protocol: Protocol, to: IpAddr) {
    let any = of_family(to, [0; 4].into(), [0; 16].into());
    host.run(|| {
        let domain = Domain::for_address(SocketAddr::new(to, PORT));
        let sent = if protocol == Protocol::SCTP {
            Socket::new(domain, Type::RAW, Some(protocol))
                .and_then(|socket| socket.send_to(&sctp_init(OWN), &SocketAddr::new(to, 0).into()))
        } else {
            Socket::new(domain, Type::DGRAM, Some(protocol)).and_then(|socket| {
                socket.bind(&SocketAddr::new(any, OWN).into())?;
                socket.send_to(b"hello", &SocketAddr::new(to, PORT).into())
            })
        };
        sent.unwrap_or_else(|error| panic!("{protocol:?} to {to}: {error}"));
    });
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

fn assert_moved(host: &Host, receiver: &mut Receiver, protocol: Protocol, to: IpAddr) -> Vec<u8> {
    send(host, protocol, to);
    let (source, packet) = receiver.next();
    assert_eq!(source.ip(), of_family(to, ROUTER_V4, ROUTER_V6), "{protocol:?}");
    assert!((49_152..=61_000).contains(&source.port()), "{protocol:?} left as {source}");
    packet
}

#[test]
fn sctp_is_moved_and_its_checksum_made_anew() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, "apply -p sctp --to-ports 49152-61000");
    for to in SERVERS {
        let mut receiver = Receiver::new(&net.server, Protocol::SCTP, to);
        for host in [&net.client, &net.router] {
            let packet = assert_moved(host, &mut receiver, Protocol::SCTP, to);
            assert_eq!(packet[8..12], sctp_checksum(&packet));
        }
    }
}

#[test]
fn udplite_of_the_host_is_moved() {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, "apply -p udplite --to-ports 49152-61000 --enforce");
    for to in SERVERS {
        let mut receiver = Receiver::new(&net.server, Protocol::UDPLITE, to);
        assert_moved(&net.router, &mut receiver, Protocol::UDPLITE, to);
    }
    assert_eq!(dropped(&net.router), 0);
}

/// Conntrack calls forwarded UDP-Lite invalid, so that no NAT rule sees it: only enforcement can
/// keep it from leaving as it is.
#[test]
fn forwarded_udplite_leaves_as_it_is_unless_enforced() {
    for enforced in [false, true] {
        let net = Routed::new().unwrap();
        let flags = if enforced { "--enforce" } else { "" };
        ephport_ok(&net.router, &format!("apply -p udplite --to-ports 49152-61000 {flags}"));
        for to in SERVERS {
            let mut receiver = Receiver::new(&net.server, Protocol::UDPLITE, to);
            send(&net.client, Protocol::UDPLITE, to);
            if enforced {
                // What the host itself sends arrives: so what was sent before is not on its way.
                assert_moved(&net.router, &mut receiver, Protocol::UDPLITE, to);
            } else {
                let client = of_family(to, CLIENT_V4, CLIENT_V6);
                assert_eq!(receiver.next().0, SocketAddr::new(client, OWN));
            }
        }
        assert_eq!(dropped(&net.router), if enforced { 2 } else { 0 });
    }
}
