//! The sockets of this thread's network namespace, over sock_diag (linux/inet_diag.h).

mod sctp;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ephport_core::Protocol;
use thiserror::Error;

pub use self::sctp::Tags;
use crate::netlink::{
    CodecError, Errno, Header, NetlinkError, Reader, Socket, Transport, Writer, dump,
};
use crate::uapi::{
    AF_INET, AF_INET6, INET_DIAG_INFO, NLM_F_DUMP, NLM_F_REQUEST, SOCK_DIAG_BY_FAMILY, TCP_CLOSE,
    TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK,
    TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT, TCP_TIME_WAIT,
};

/// A socket (`struct inet_diag_msg`), or a pair of addresses of an SCTP association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InetSocket {
    /// The protocol.
    pub protocol: Protocol,
    /// The local address and port. An address that IPv6 maps from IPv4 (`::ffff:192.0.2.1`) is
    /// that IPv4 address.
    pub local: SocketAddr,
    /// The remote address and port, if the socket is connected. SCTP's endpoints have none, only their
    /// associations.
    pub remote: Option<SocketAddr>,
    /// The state.
    pub state: SocketState,
    /// The user that opened the socket.
    pub uid: u32,
    /// The inode, by which `/proc/PID/fd` names the socket; 0 when no process has it open.
    pub inode: u32,
    /// The tags of an SCTP association.
    pub tags: Option<Tags>,
}

/// The state of a socket (`TCP_*` of netinet/tcp.h); sockets of UDP and UDP-Lite use
/// [`SocketState::ESTABLISHED`] (connected) and [`SocketState::CLOSE`] only. SCTP's associations have the state of
/// TCP that is nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketState(pub u8);

impl SocketState {
    /// A connection, or a UDP socket with a remote address.
    pub const ESTABLISHED: Self = Self(TCP_ESTABLISHED);
    /// A TCP connection whose opening segment is not answered yet.
    pub const SYN_SENT: Self = Self(TCP_SYN_SENT);
    /// A TCP connection that the remote side opens.
    pub const SYN_RECV: Self = Self(TCP_SYN_RECV);
    /// A TCP connection that this side closed, before the acknowledgement.
    pub const FIN_WAIT1: Self = Self(TCP_FIN_WAIT1);
    /// A TCP connection that this side closed.
    pub const FIN_WAIT2: Self = Self(TCP_FIN_WAIT2);
    /// A TCP connection that both sides closed, the remote side last.
    pub const TIME_WAIT: Self = Self(TCP_TIME_WAIT);
    /// A TCP connection that the remote side closed.
    pub const CLOSE_WAIT: Self = Self(TCP_CLOSE_WAIT);
    /// A TCP connection that both sides closed, this side last.
    pub const LAST_ACK: Self = Self(TCP_LAST_ACK);
    /// A TCP connection that both sides closed at once.
    pub const CLOSING: Self = Self(TCP_CLOSING);
    /// A UDP socket without a remote address.
    pub const CLOSE: Self = Self(TCP_CLOSE);
    /// A TCP socket that accepts connections.
    pub const LISTEN: Self = Self(TCP_LISTEN);
}

/// Why the sockets cannot be listed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SockDiagError {
    /// The conversation with the kernel failed.
    #[error("cannot list the sockets: {0}")]
    Netlink(NetlinkError),
    /// The kernel has no sock_diag for a protocol.
    #[error(
        "the kernel cannot list {protocol} sockets (module {}, CONFIG_INET_DIAG and {})",
        module(*protocol).0,
        module(*protocol).1
    )]
    NoModule {
        /// The protocol.
        protocol: Protocol,
    },
}

impl From<NetlinkError> for SockDiagError {
    fn from(error: NetlinkError) -> Self {
        Self::Netlink(error)
    }
}

/// The module that lists the sockets of `protocol`, and its option of the kernel's configuration.
fn module(protocol: Protocol) -> (&'static str, &'static str) {
    match protocol {
        Protocol::Tcp => ("tcp_diag", "CONFIG_INET_TCP_DIAG"),
        Protocol::Sctp => ("sctp_diag", "CONFIG_INET_SCTP_DIAG"),
        _ => ("udp_diag", "CONFIG_INET_UDP_DIAG"),
    }
}

/// The protocols whose sockets this thread's network namespace can have: TCP, UDP, UDP-Lite if the kernel knows
/// it, and SCTP if there is an association. To ask for SCTP's sockets loads its modules, so that it is not asked for
/// otherwise, nor without /proc.
pub fn protocols() -> impl Iterator<Item = Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::UdpLite, Protocol::Sctp];
    all.into_iter().filter(|protocol| {
        let directory = Path::new("/proc/thread-self/net");
        match protocol {
            Protocol::UdpLite => directory.join("udplite").exists(),
            Protocol::Sctp => File::open(directory.join("sctp/assocs"))
                .is_ok_and(|file| BufReader::new(file).lines().map_while(Result::ok).count() > 1),
            _ => true,
        }
    })
}

/// Lists the sockets of this thread's network namespace, IPv4 and IPv6, of its [`protocols`].
pub fn sockets() -> Result<Vec<InetSocket>, SockDiagError> {
    let mut sockets = Vec::new();
    let mut transport = Socket::sock_diag()?;
    for protocol in protocols() {
        visit(&mut transport, protocol, |socket| sockets.push(socket))?;
    }
    Ok(sockets)
}

/// Calls `visit` with each socket of `protocol`; nothing is kept.
pub fn visit(
    transport: &mut impl Transport,
    protocol: Protocol,
    visit: impl FnMut(InetSocket),
) -> Result<(), SockDiagError> {
    dumped(transport, protocol, u32::MAX, visit)
}

/// The same for the sockets in one state.
pub fn visit_in(
    transport: &mut impl Transport,
    protocol: Protocol,
    state: SocketState,
    visit: impl FnMut(InetSocket),
) -> Result<(), SockDiagError> {
    dumped(transport, protocol, 1u32.checked_shl(state.0.into()).unwrap_or(u32::MAX), visit)
}

fn dumped(
    transport: &mut impl Transport,
    protocol: Protocol,
    states: u32,
    mut visit: impl FnMut(InetSocket),
) -> Result<(), SockDiagError> {
    for (seq, family) in (1..).zip([AF_INET, AF_INET6]) {
        let request = request(family, protocol, states, seq).map_err(NetlinkError::from)?;
        let result = dump(transport, &request, seq, |kind, body| {
            if kind == SOCK_DIAG_BY_FAMILY {
                let (socket, attrs) = InetSocket::split(protocol, body)?;
                match protocol {
                    Protocol::Sctp => sctp::visit_pairs(socket, attrs, &mut visit)?,
                    _ => visit(socket),
                }
            }
            Ok(())
        });
        match result {
            Err(NetlinkError::Rejected { errno: Errno::ENOENT | Errno::EINVAL }) => {
                return Err(SockDiagError::NoModule { protocol });
            }
            result => result?,
        }
    }
    Ok(())
}

/// A dump of the sockets of one family and protocol in these states, as bits (`struct inet_diag_req_v2`).
fn request(family: u8, protocol: Protocol, states: u32, seq: u32) -> Result<Vec<u8>, CodecError> {
    const SOCKID_LEN: usize = 48;
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    let extensions = if protocol == Protocol::Sctp { 1 << (INET_DIAG_INFO - 1) } else { 0 };
    let mut w = Writer::new();
    w.message(Header { message_type: SOCK_DIAG_BY_FAMILY, flags, seq }, |w| {
        w.raw(&[family, protocol.number(), extensions, 0]);
        w.raw(&states.to_ne_bytes());
        w.raw(&[0; SOCKID_LEN]);
    });
    w.finish()
}

impl InetSocket {
    /// Reads the body of a `SOCK_DIAG_BY_FAMILY` message about a socket of `protocol`.
    pub fn read(protocol: Protocol, body: &[u8]) -> Result<Self, CodecError> {
        Ok(Self::split(protocol, body)?.0)
    }

    /// The socket, and the attributes after it.
    fn split(protocol: Protocol, body: &[u8]) -> Result<(Self, Reader<'_>), CodecError> {
        const WHAT: &str = "inet_diag_msg";
        let mut reader = Reader::new(body);
        let [family, state, _timer, _retransmissions] = reader.array(WHAT)?;
        let local_port = u16::from_be_bytes(reader.array(WHAT)?);
        let remote_port = u16::from_be_bytes(reader.array(WHAT)?);
        let local = address(family, reader.array(WHAT)?)?;
        let remote = address(family, reader.array(WHAT)?)?;
        let _interface = reader.u32_ne(WHAT)?;
        let _cookie: [u8; 8] = reader.array(WHAT)?;
        let _expires = reader.u32_ne(WHAT)?;
        let _receive_queue = reader.u32_ne(WHAT)?;
        let _send_queue = reader.u32_ne(WHAT)?;
        let uid = reader.u32_ne(WHAT)?;
        let inode = reader.u32_ne(WHAT)?;
        let socket = Self {
            protocol,
            local: SocketAddr::new(local, local_port),
            remote: (remote_port != 0).then(|| SocketAddr::new(remote, remote_port)),
            state: SocketState(state),
            uid,
            inode,
            tags: None,
        };
        Ok((socket, reader))
    }
}

/// An address field of `struct inet_diag_sockid`: 16 bytes, of which IPv4 uses the first four.
fn address(family: u8, bytes: [u8; 16]) -> Result<IpAddr, CodecError> {
    let [a, b, c, d, ..] = bytes;
    match family {
        AF_INET => Ok([a, b, c, d].into()),
        AF_INET6 => Ok(IpAddr::from(bytes).to_canonical()),
        value => Err(CodecError::Value { what: "family of a socket", value: value.into() }),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn every_error_has_its_message() {
        let errno = Errno::EIO;
        let cases = [
            (
                NetlinkError::Receive { errno }.into(),
                "cannot list the sockets: cannot receive from netlink (EIO: I/O error)",
            ),
            (
                SockDiagError::NoModule { protocol: Protocol::Udp },
                "the kernel cannot list udp sockets (module udp_diag, CONFIG_INET_DIAG and \
                 CONFIG_INET_UDP_DIAG)",
            ),
            (
                SockDiagError::NoModule { protocol: Protocol::Tcp },
                "the kernel cannot list tcp sockets (module tcp_diag, CONFIG_INET_DIAG and \
                 CONFIG_INET_TCP_DIAG)",
            ),
            (
                SockDiagError::NoModule { protocol: Protocol::Sctp },
                "the kernel cannot list sctp sockets (module sctp_diag, CONFIG_INET_DIAG and \
                 CONFIG_INET_SCTP_DIAG)",
            ),
        ];
        for (error, message) in cases {
            let error: SockDiagError = error;
            assert_eq!(error.to_string(), message);
        }
    }

    /// A socket as the kernel sends it, up to its inode.
    fn message(family: u8, local: [u8; 16], remote: [u8; 16], remote_port: u16) -> Vec<u8> {
        let mut body = vec![family, TCP_ESTABLISHED, 0, 0];
        body.extend(50_000_u16.to_be_bytes());
        body.extend(remote_port.to_be_bytes());
        body.extend(local);
        body.extend(remote);
        body.extend([0; 24]); // interface, cookie, expiry, queues
        body.extend(1000_u32.to_ne_bytes());
        body.extend(77_u32.to_ne_bytes());
        body
    }

    fn v4(address: [u8; 4]) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address);
        bytes
    }

    #[test]
    fn socket_is_read() {
        let body = message(AF_INET, v4([10, 0, 0, 1]), v4([192, 0, 2, 9]), 443);
        let expected = InetSocket {
            protocol: Protocol::Tcp,
            local: "10.0.0.1:50000".parse().unwrap(),
            remote: Some("192.0.2.9:443".parse().unwrap()),
            state: SocketState::ESTABLISHED,
            uid: 1000,
            inode: 77,
            tags: None,
        };
        assert_eq!(InetSocket::read(Protocol::Tcp, &body), Ok(expected));
        let unconnected = message(AF_INET, v4([10, 0, 0, 1]), v4([0; 4]), 0);
        let read = InetSocket::read(Protocol::Udp, &unconnected).unwrap();
        assert_eq!((read.protocol, read.remote), (Protocol::Udp, None));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        let body = message(AF_INET6, mapped, mapped, 80);
        let read = InetSocket::read(Protocol::Tcp, &body).unwrap();
        assert_eq!(read.local, "192.0.2.1:50000".parse().unwrap());
        assert_eq!(read.remote, Some("192.0.2.1:80".parse().unwrap()));
    }

    #[test]
    fn truncation_and_unknown_families_are_errors() {
        let body = message(AF_INET6, [1; 16], [2; 16], 80);
        for cut in 0..body.len() {
            assert!(InetSocket::read(Protocol::Tcp, &body[..cut]).is_err(), "{cut}");
        }
        let body = message(99, [1; 16], [2; 16], 80);
        let error = CodecError::Value { what: "family of a socket", value: 99 };
        assert_eq!(InetSocket::read(Protocol::Tcp, &body), Err(error));
    }
}
