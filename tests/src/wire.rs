//! Packets written byte by byte, and what arrives at the other end of a link.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ephport_cli::lab::Host;
use socket2::{Domain, Protocol, Socket, Type};

/// `ETH_P_ALL` (linux/if_ether.h).
const ETH_P_ALL: u16 = 3;

/// Everything that a host sends and receives, from its network header on.
#[derive(Debug)]
pub struct Capture(Socket);

impl Capture {
    /// Captures on every interface of `host`.
    ///
    /// # Panics
    /// When the kernel gives no packet socket.
    #[must_use]
    pub fn start(host: &Host) -> Self {
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let open = || Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol));
        let socket = host.run(open).expect("a packet socket");
        socket.set_recv_buffer_size(64 << 20).expect("a buffer");
        socket.set_read_timeout(Some(Duration::from_millis(60))).expect("a timeout");
        Self(socket)
    }

    /// The packets that have arrived and arrive until none does for 60 ms.
    pub fn packets(&mut self) -> Vec<Packet> {
        self.read()
    }

    /// The packets that have arrived.
    ///
    /// # Panics
    /// When the socket cannot be read without waiting.
    pub fn ready(&mut self) -> Vec<Packet> {
        self.0.set_nonblocking(true).expect("a mode");
        let packets = self.read();
        self.0.set_nonblocking(false).expect("a mode");
        packets
    }

    fn read(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok(len) = self.0.read(&mut buffer) else { return packets };
            packets.extend(Packet::parse(&buffer[..len]));
        }
    }
}

/// A packet on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The addresses.
    pub source: IpAddr,
    /// The destination.
    pub destination: IpAddr,
    /// The transport protocol, after IPv6's extension headers except AH.
    pub protocol: u8,
    /// Whether it is a fragment other than the first.
    pub is_later_fragment: bool,
    /// Its source port, if it has one.
    pub source_port: Option<u16>,
    /// From the transport header on.
    pub transport: Vec<u8>,
}

impl Packet {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let octets = |from: usize, len: usize| bytes.get(from..from + len);
        match bytes.first()? >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 0xf) * 4;
                let fragment = u16::from_be_bytes(octets(6, 2)?.try_into().ok()?) & 0x1fff;
                let total = usize::from(u16::from_be_bytes(octets(2, 2)?.try_into().ok()?));
                let source = <[u8; 4]>::try_from(octets(12, 4)?).ok()?;
                let destination = <[u8; 4]>::try_from(octets(16, 4)?).ok()?;
                let transport = bytes.get(header..total.min(bytes.len())).unwrap_or_default();
                Some(Self::new(
                    source.into(),
                    destination.into(),
                    bytes[9],
                    fragment != 0,
                    transport,
                ))
            }
            6 => {
                let source = <[u8; 16]>::try_from(octets(8, 16)?).ok()?;
                let destination = <[u8; 16]>::try_from(octets(24, 16)?).ok()?;
                let (mut next, mut at, mut later) = (bytes[6], 40, false);
                while [0, 43, 44, 60].contains(&next) {
                    let header = bytes.get(at..at + 8)?;
                    if next == 44 {
                        later |= u16::from_be_bytes([header[2], header[3]]) >> 3 != 0;
                        at += 8;
                    } else {
                        at += 8 + usize::from(header[1]) * 8;
                    }
                    next = header[0];
                    if later {
                        break;
                    }
                }
                let transport = bytes.get(at..).unwrap_or_default();
                Some(Self::new(source.into(), destination.into(), next, later, transport))
            }
            _ => None,
        }
    }

    fn new(
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        is_later_fragment: bool,
        transport: &[u8],
    ) -> Self {
        let port = match transport {
            [high, low, ..] if !is_later_fragment => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        };
        Self {
            source,
            destination,
            protocol,
            is_later_fragment,
            source_port: port,
            transport: transport.to_vec(),
        }
    }
}

/// A packet to send, from its network header on.
#[derive(Clone, Debug)]
pub struct Raw {
    /// What it is, for messages.
    pub name: String,
    /// Its destination.
    pub to: IpAddr,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A raw socket for whole packets of each family.
#[derive(Debug)]
pub struct Sender {
    v4: Socket,
    v6: Socket,
}

impl Sender {
    /// A sender on `host`.
    ///
    /// # Panics
    /// When the kernel gives no raw socket.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        let raw = Some(Protocol::from(255));
        let (v4, v6) = host.run(|| {
            let v4 = Socket::new(Domain::IPV4, Type::RAW, raw).expect("a raw socket");
            let v6 = Socket::new(Domain::IPV6, Type::RAW, raw).expect("a raw socket");
            (v4, v6)
        });
        v4.set_header_included_v4(true).expect("IP_HDRINCL");
        v6.set_header_included_v6(true).expect("IPV6_HDRINCL");
        v4.set_broadcast(true).expect("SO_BROADCAST");
        Self { v4, v6 }
    }

    /// Sends by this device only, or in this VRF (SO_BINDTODEVICE, socket(7)).
    ///
    /// # Panics
    /// When there is no such device.
    pub fn bind_device(&self, name: &str) {
        for socket in [&self.v4, &self.v6] {
            socket.bind_device(Some(name.as_bytes())).expect("a device");
        }
    }

    /// Sends a packet. The kernel may refuse it, or a rule drop it.
    pub fn send(&self, packet: &Raw) -> std::io::Result<usize> {
        let socket = if packet.to.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.send_to(&packet.bytes, &SocketAddr::new(packet.to, 0).into())
    }
}

/// RFC 791 §3.1: an IPv4 packet; the kernel fills in length, checksum and identification.
///
/// # Panics
/// When an address is not IPv4.
#[must_use]
pub fn ipv4(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    fragment: u16,
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4 addresses") };
    let words = u8::try_from(5 + options.len() / 4).expect("a short header");
    let total = u16::try_from(20 + options.len() + data.len()).expect("a short packet");
    let mut bytes = vec![0x40 | words, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(options);
    bytes.extend(data);
    bytes
}

/// RFC 8200 §3: an IPv6 packet.
///
/// # Panics
/// When an address is not IPv6, or the data exceeds 65,535 bytes.
#[must_use]
pub fn ipv6(from: IpAddr, to: IpAddr, next: u8, data: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { panic!("IPv6 addresses") };
    let len = u16::try_from(data.len()).expect("a short packet");
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(len.to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(data);
    bytes
}

/// A packet of either family with this transport header.
#[must_use]
pub fn plain(from: IpAddr, to: IpAddr, protocol: u8, data: &[u8]) -> Vec<u8> {
    if from.is_ipv4() {
        ipv4(from, to, protocol, 0, &[], data)
    } else {
        ipv6(from, to, protocol, data)
    }
}

/// A TCP segment (RFC 9293 §3.1) with its checksum.
#[must_use]
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    let sum = checksum(from.ip(), to.ip(), 6, &bytes);
    bytes[16..18].copy_from_slice(&sum);
    bytes
}

/// A UDP datagram (RFC 768) with its checksum.
///
/// # Panics
/// When the payload exceeds 65,527 bytes.
#[must_use]
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    bytes.extend(u16::try_from(8 + payload.len()).expect("a short datagram").to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let sum = checksum(from.ip(), to.ip(), 17, &bytes);
    bytes[6..8].copy_from_slice(&sum);
    bytes
}

/// RFC 1071, over the pseudo-header and `data`, whose own field is zero.
fn checksum(from: IpAddr, to: IpAddr, protocol: u8, data: &[u8]) -> [u8; 2] {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let len = u32::try_from(data.len()).expect("a short packet").to_be_bytes();
    let bytes = [&octets(from)[..], &octets(to), &len, &[0, 0, 0, protocol], data].concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}
