//! Connections to a [`Server`](super::Server), and what source it saw.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::linger;
use nix::sys::socket::sockopt::{Linger, ReceiveTimeout, ReuseAddr, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect as connect_socket,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use thiserror::Error;

use super::server::errno;

/// How long [`connect`] waits for each step. Within one machine an answer takes microseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a new connection sends to see whether it carries.
const HELLO: &[u8] = b"hello";

/// Longer than any line in which a server tells an address.
const LINE_ROOM: usize = 64;

/// How a connection is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// What the kernel chooses.
    #[default]
    Any,
    /// This port of whatever address the kernel chooses.
    Port(u16),
    /// This address and port; port 0 is the kernel's flags.
    Address(SocketAddr),
}

impl Source {
    /// What to bind to for a connection to `to`.
    fn binding(self, to: SocketAddr) -> Option<SocketAddr> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        match self {
            Self::Any => None,
            Self::Port(port) => Some(SocketAddr::new(any, port)),
            Self::Address(address) => Some(address),
        }
    }
}

impl From<u16> for Source {
    fn from(port: u16) -> Self {
        Self::Port(port)
    }
}

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// Why a connection carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// The system gives no socket.
    #[error("cannot open a {protocol} socket to {to} ({errno})")]
    Socket {
        /// How.
        protocol: Protocol,
        /// To where.
        to: SocketAddr,
        /// What the kernel said.
        errno: Errno,
    },
    /// The source is not to be had.
    #[error(
        "cannot send {protocol} from {from} ({errno}): is that port free and the address local?"
    )]
    Bind {
        /// How.
        protocol: Protocol,
        /// From where.
        from: SocketAddr,
        /// What the kernel said.
        errno: Errno,
    },
    /// The connection is refused, or broke.
    #[error("{protocol} to {to} failed ({errno})")]
    Failed {
        /// How.
        protocol: Protocol,
        /// To where.
        to: SocketAddr,
        /// What the kernel said.
        errno: Errno,
    },
    /// Nothing came back.
    #[error("no reply from {to} over {protocol} within {} ms", patience.as_millis())]
    NoReply {
        /// How.
        protocol: Protocol,
        /// To where.
        to: SocketAddr,
        /// How long it had.
        patience: Duration,
    },
    /// Something else than an echo came back.
    #[error("{to} did not echo what it was sent over {protocol}; is it a Server of the lab?")]
    Garbled {
        /// How.
        protocol: Protocol,
        /// To where.
        to: SocketAddr,
    },
}

/// An open connection; see [`connect`].
///
/// Dropped, TCP ends with a reset and leaves nothing behind, so that the same source can be used
/// again at once; [`Connection::close`] ends it in the orderly way.
#[derive(Debug)]
pub struct Connection {
    /// The source that the server saw when the connection was opened.
    pub seen: SocketAddr,
    peer: Peer,
    socket: Socket,
}

/// The far end, as errors name it.
#[derive(Clone, Copy, Debug)]
struct Peer {
    protocol: Protocol,
    to: SocketAddr,
    patience: Duration,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// Opens a connection in this thread's network (see [`Host::run`](super::Host::run)), sends
/// something both ways, and gives it with what the server saw.
pub fn connect(
    protocol: Protocol,
    from: impl Into<Source>,
    to: impl Into<SocketAddr>,
) -> Result<Connection, TrafficError> {
    connect_within(PATIENCE, protocol, from, to)
}

/// [`connect`] for one that is expected to fail: it waits this long only.
pub fn connect_within(
    patience: Duration,
    protocol: Protocol,
    from: impl Into<Source>,
    to: impl Into<SocketAddr>,
) -> Result<Connection, TrafficError> {
    let peer = Peer { protocol, to: to.into(), patience };
    let socket = open(peer, from.into())?;
    let (socket, seen) = match protocol {
        Protocol::Tcp => {
            let stream = TcpStream::from(socket);
            let seen = read_greeting(&stream).map_err(|error| peer.broken(&error))?;
            (Socket::Tcp(stream), seen.ok_or_else(|| peer.garbled())?)
        }
        // A server of datagrams speaks only when spoken to.
        Protocol::Udp => (Socket::Udp(UdpSocket::from(socket)), peer.to),
    };
    let mut connection = Connection { seen, peer, socket };
    connection.seen = connection.exchange(HELLO)?;
    Ok(connection)
}

impl Connection {
    /// Sends a payload and checks that it comes back; gives the source that the server saw.
    pub fn exchange(&self, payload: &[u8]) -> Result<SocketAddr, TrafficError> {
        let echoed = match &self.socket {
            Socket::Tcp(stream) => {
                echo_stream(stream, payload).map(|same| same.then_some(self.seen))
            }
            Socket::Udp(socket) => echo_datagram(socket, payload),
        };
        echoed.map_err(|error| self.peer.broken(&error))?.ok_or_else(|| self.peer.garbled())
    }

    /// This end's own address and port, as yet untranslated.
    pub fn local(&self) -> Result<SocketAddr, TrafficError> {
        match &self.socket {
            Socket::Tcp(stream) => stream.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
        .map_err(|error| self.peer.broken(&error))
    }

    /// Ends the connection in the orderly way: TCP sends FIN, waits for the server's, and stays in
    /// TIME_WAIT.
    pub fn close(self) -> Result<(), TrafficError> {
        let Socket::Tcp(mut stream) = self.socket else { return Ok(()) };
        close_with_reset(&stream, false)
            .and_then(|()| stream.shutdown(std::net::Shutdown::Write).map_err(|e| errno(&e)))
            .and_then(|()| stream.read(&mut [0]).map_err(|e| errno(&e)))
            .map_err(|errno| self.peer.failed(errno))
            .map(drop)
    }
}

impl Peer {
    fn failed(self, errno: Errno) -> TrafficError {
        TrafficError::Failed { protocol: self.protocol, to: self.to, errno }
    }

    fn broken(self, error: &io::Error) -> TrafficError {
        match errno(error) {
            // A timeout of connect(2) is EINPROGRESS, one of read(2) EAGAIN.
            Errno::EAGAIN | Errno::EINPROGRESS | Errno::ETIMEDOUT => TrafficError::NoReply {
                protocol: self.protocol,
                to: self.to,
                patience: self.patience,
            },
            errno => self.failed(errno),
        }
    }

    fn garbled(self) -> TrafficError {
        TrafficError::Garbled { protocol: self.protocol, to: self.to }
    }
}

/// A connected socket; its every step is bounded by the peer's patience.
fn open(peer: Peer, from: Source) -> Result<OwnedFd, TrafficError> {
    let Peer { protocol, to, patience } = peer;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let limit = TimeVal::microseconds(patience.as_micros().try_into().unwrap_or(i64::MAX));
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|fd| {
            setsockopt(&fd, ReceiveTimeout, &limit)?;
            setsockopt(&fd, SendTimeout, &limit)?;
            Ok(fd)
        })
        .map_err(|errno| TrafficError::Socket { protocol, to, errno })?;
    if let Some(from) = from.binding(to) {
        setsockopt(&fd, ReuseAddr, &true)
            .and_then(|()| bind(fd.as_raw_fd(), &SockaddrStorage::from(from)))
            .map_err(|errno| TrafficError::Bind { protocol, from, errno })?;
    }
    if protocol == Protocol::Tcp {
        close_with_reset(&fd, true).map_err(|errno| peer.failed(errno))?;
    }
    reach(&fd, to, patience).map_err(|errno| peer.broken(&errno.into()))?;
    Ok(fd)
}

/// A process that another thread is about to start holds copies of our sockets until its exec:
/// so a source that was just given back may be in use for a moment longer.
fn reach(socket: &OwnedFd, to: SocketAddr, patience: Duration) -> Result<(), Errno> {
    let deadline = Instant::now() + patience;
    loop {
        match connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EADDRNOTAVAIL) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Whether closing sends a reset, which leaves no TIME_WAIT behind (SO_LINGER, socket(7)).
fn close_with_reset(socket: &impl std::os::fd::AsFd, reset: bool) -> Result<(), Errno> {
    setsockopt(socket, Linger, &linger { l_onoff: reset.into(), l_linger: 0 })
}

/// Reads the line byte by byte, so as not to take any of the echo.
fn read_greeting(mut stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_ROOM {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(parse_address(&line));
        }
        line.extend_from_slice(&byte);
    }
    Ok(None)
}

/// In pieces that fit any buffer: a server that waits for its echo to be taken does not read on.
fn echo_stream(mut stream: &TcpStream, payload: &[u8]) -> io::Result<bool> {
    let mut echo = [0; 4096];
    for piece in payload.chunks(echo.len()) {
        stream.write_all(piece)?;
        let echo = &mut echo[..piece.len()];
        stream.read_exact(echo)?;
        if echo != piece {
            return Ok(false);
        }
    }
    Ok(true)
}

fn echo_datagram(socket: &UdpSocket, payload: &[u8]) -> io::Result<Option<SocketAddr>> {
    socket.send(payload)?;
    let mut answer = vec![0; LINE_ROOM + payload.len()];
    let len = socket.recv(&mut answer)?;
    let mut parts = answer[..len].splitn(2, |byte| *byte == b'\n');
    let (line, echo) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Ok(if echo == payload { parse_address(line) } else { None })
}

fn parse_address(line: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_failed() {
        let (protocol, to) = (Protocol::Tcp, "203.0.113.9:443".parse().unwrap());
        let (from, errno, patience) = (to, Errno::EADDRINUSE, Duration::from_millis(300));
        let cases = [
            (
                TrafficError::Socket { protocol, to, errno: Errno::EMFILE },
                "cannot open a TCP socket to 203.0.113.9:443 (EMFILE: Too many open files)",
            ),
            (
                TrafficError::Bind { protocol, from, errno },
                "cannot send TCP from 203.0.113.9:443 (EADDRINUSE: Address already in use): \
                 is that port free and the address local?",
            ),
            (
                TrafficError::Failed { protocol, to, errno: Errno::ECONNREFUSED },
                "TCP to 203.0.113.9:443 failed (ECONNREFUSED: Connection refused)",
            ),
            (
                TrafficError::NoReply { protocol, to, patience },
                "no reply from 203.0.113.9:443 over TCP within 300 ms",
            ),
            (
                TrafficError::Garbled { protocol, to },
                "203.0.113.9:443 did not echo what it was sent over TCP; \
                 is it a Server of the lab?",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_port_is_bound_in_the_family_of_its_target() {
        let v6: SocketAddr = "[2001:db8::9]:443".parse().unwrap();
        let v4: SocketAddr = "203.0.113.9:443".parse().unwrap();
        assert_eq!(Source::Any.binding(v4), None);
        assert_eq!(Source::Port(7).binding(v4), Some("0.0.0.0:7".parse().unwrap()));
        assert_eq!(Source::Port(7).binding(v6), Some("[::]:7".parse().unwrap()));
        assert_eq!(Source::from(v6).binding(v6), Some(v6));
    }
}
