//! Connections to a [`Server`](super::Server), and the source that it saw.

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

/// Timeout of each step of [`connect`]. Within one machine an answer arrives within microseconds.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Payload with which a new connection is checked.
const HELLO: &[u8] = b"hello";

/// Maximum length in bytes of the line with the source address.
const LINE_SIZE: usize = 64;

/// Transport protocol of a connection.
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

/// Source of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Address and port chosen by the kernel.
    #[default]
    Any,
    /// This port; the kernel chooses the address.
    Port(u16),
    /// This address and port; with port 0 the kernel chooses the port.
    Address(SocketAddr),
}

impl Source {
    /// The address to bind for a connection to `to`, if any.
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

/// An error of opening or using a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// A socket that cannot be opened.
    #[error("cannot open a {protocol} socket to {to} ({errno})")]
    Socket {
        /// The transport protocol.
        protocol: Protocol,
        /// The destination.
        to: SocketAddr,
        /// The kernel's error.
        errno: Errno,
    },
    /// A source that is not available.
    #[error(
        "cannot send {protocol} from {from} ({errno}): is that port free and the address local?"
    )]
    Bind {
        /// The transport protocol.
        protocol: Protocol,
        /// The source.
        from: SocketAddr,
        /// The kernel's error.
        errno: Errno,
    },
    /// A connection that was refused or broke.
    #[error("{protocol} to {to} failed ({errno})")]
    Failed {
        /// The transport protocol.
        protocol: Protocol,
        /// The destination.
        to: SocketAddr,
        /// The kernel's error.
        errno: Errno,
    },
    /// A missing reply.
    #[error("no reply from {to} over {protocol} within {} ms", timeout.as_millis())]
    NoReply {
        /// The transport protocol.
        protocol: Protocol,
        /// The destination.
        to: SocketAddr,
        /// The timeout.
        timeout: Duration,
    },
    /// A reply that is not the echo.
    #[error("{to} did not echo the payload over {protocol}; is it a Server of the lab?")]
    Garbled {
        /// The transport protocol.
        protocol: Protocol,
        /// The destination.
        to: SocketAddr,
    },
}

/// An open connection; see [`connect`].
///
/// When it is dropped, TCP ends with a reset and without TIME_WAIT, so that the same source can be used
/// again at once; [`Connection::close`] ends it with FIN.
#[derive(Debug)]
pub struct Connection {
    /// The source that the server saw when the connection was opened.
    pub seen: SocketAddr,
    peer: Peer,
    socket: Socket,
}

/// The destination, as errors name it.
#[derive(Clone, Copy, Debug)]
struct Peer {
    protocol: Protocol,
    to: SocketAddr,
    timeout: Duration,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// Opens a connection in this thread's network (see [`Host::run`](super::Host::run)) and exchanges a
/// payload; the result contains the source that the server saw.
pub fn connect(
    protocol: Protocol,
    from: impl Into<Source>,
    to: impl Into<SocketAddr>,
) -> Result<Connection, TrafficError> {
    connect_within(TIMEOUT, protocol, from, to)
}

/// [`connect`] with another timeout, for connections that are expected to fail.
pub fn connect_within(
    timeout: Duration,
    protocol: Protocol,
    from: impl Into<Source>,
    to: impl Into<SocketAddr>,
) -> Result<Connection, TrafficError> {
    let peer = Peer { protocol, to: to.into(), timeout };
    let socket = open(peer, from.into())?;
    let (socket, seen) = match protocol {
        Protocol::Tcp => {
            let stream = TcpStream::from(socket);
            let seen = read_greeting(&stream).map_err(|error| peer.broken(&error))?;
            (Socket::Tcp(stream), seen.ok_or_else(|| peer.garbled())?)
        }
        // A UDP server sends nothing before it receives a datagram.
        Protocol::Udp => (Socket::Udp(UdpSocket::from(socket)), peer.to),
    };
    let mut connection = Connection { seen, peer, socket };
    connection.seen = connection.exchange(HELLO)?;
    Ok(connection)
}

impl Connection {
    /// Sends a payload and checks its echo; returns the source that the server saw.
    pub fn exchange(&self, payload: &[u8]) -> Result<SocketAddr, TrafficError> {
        let echoed = match &self.socket {
            Socket::Tcp(stream) => {
                echo_stream(stream, payload).map(|same| same.then_some(self.seen))
            }
            Socket::Udp(socket) => echo_datagram(socket, payload),
        };
        echoed.map_err(|error| self.peer.broken(&error))?.ok_or_else(|| self.peer.garbled())
    }

    /// The local address and port, before translation.
    pub fn local(&self) -> Result<SocketAddr, TrafficError> {
        match &self.socket {
            Socket::Tcp(stream) => stream.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
        .map_err(|error| self.peer.broken(&error))
    }

    /// Closes the connection: TCP sends FIN, waits for the server's FIN, and remains in TIME_WAIT.
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
                timeout: self.timeout,
            },
            errno => self.failed(errno),
        }
    }

    fn garbled(self) -> TrafficError {
        TrafficError::Garbled { protocol: self.protocol, to: self.to }
    }
}

/// Opens a connected socket; the peer's timeout bounds each step.
fn open(peer: Peer, from: Source) -> Result<OwnedFd, TrafficError> {
    let Peer { protocol, to, timeout } = peer;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket_type = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let limit = TimeVal::microseconds(timeout.as_micros().try_into().unwrap_or(i64::MAX));
    let fd = socket(family, socket_type, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|fd| {
            setsockopt(&fd, ReceiveTimeout, &limit)?;
            setsockopt(&fd, SendTimeout, &limit)?;
            Ok(fd)
        })
        .map_err(|errno| TrafficError::Socket { protocol, to, errno })?;
    if let Some(from) = from.binding(to) {
        // A port that the kernel selects for UDP could be that of another socket which has this option too
        // (`udp_lib_get_port`), and one of them would get no replies.
        let is_reusable = protocol == Protocol::Tcp || from.port() != 0;
        setsockopt(&fd, ReuseAddr, &is_reusable)
            .and_then(|()| bind(fd.as_raw_fd(), &SockaddrStorage::from(from)))
            .map_err(|errno| TrafficError::Bind { protocol, from, errno })?;
    }
    if protocol == Protocol::Tcp {
        close_with_reset(&fd, true).map_err(|errno| peer.failed(errno))?;
    }
    connect_retrying(&fd, to, timeout).map_err(|errno| peer.broken(&errno.into()))?;
    Ok(fd)
}

/// Connects, and retries while the source is in use: a process that another thread starts has copies of
/// our sockets until its exec.
fn connect_retrying(socket: &OwnedFd, to: SocketAddr, timeout: Duration) -> Result<(), Errno> {
    let deadline = Instant::now() + timeout;
    loop {
        match connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Err(Errno::EADDRNOTAVAIL) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Sets whether closing sends a reset and avoids TIME_WAIT (SO_LINGER, socket(7)).
fn close_with_reset(socket: &impl std::os::fd::AsFd, reset: bool) -> Result<(), Errno> {
    setsockopt(socket, Linger, &linger { l_onoff: reset.into(), l_linger: 0 })
}

/// Reads the line byte by byte, because the echo follows it.
fn read_greeting(mut stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_SIZE {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(parse_address(&line));
        }
        line.extend_from_slice(&byte);
    }
    Ok(None)
}

/// Sends the payload in chunks that fit any buffer: a server that cannot send its echo reads no more.
fn echo_stream(mut stream: &TcpStream, payload: &[u8]) -> io::Result<bool> {
    let mut echo = [0; 4096];
    for chunk in payload.chunks(echo.len()) {
        stream.write_all(chunk)?;
        let echo = &mut echo[..chunk.len()];
        stream.read_exact(echo)?;
        if echo != chunk {
            return Ok(false);
        }
    }
    Ok(true)
}

fn echo_datagram(socket: &UdpSocket, payload: &[u8]) -> io::Result<Option<SocketAddr>> {
    socket.send(payload)?;
    let mut answer = vec![0; LINE_SIZE + payload.len()];
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
    fn every_error_has_its_message() {
        let (protocol, to) = (Protocol::Tcp, "203.0.113.9:443".parse().unwrap());
        let (from, errno, timeout) = (to, Errno::EADDRINUSE, Duration::from_millis(300));
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
                TrafficError::NoReply { protocol, to, timeout },
                "no reply from 203.0.113.9:443 over TCP within 300 ms",
            ),
            (
                TrafficError::Garbled { protocol, to },
                "203.0.113.9:443 did not echo the payload over TCP; is it a Server of the lab?",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn port_is_bound_in_the_destinations_family() {
        let v6: SocketAddr = "[2001:db8::9]:443".parse().unwrap();
        let v4: SocketAddr = "203.0.113.9:443".parse().unwrap();
        assert_eq!(Source::Any.binding(v4), None);
        assert_eq!(Source::Port(7).binding(v4), Some("0.0.0.0:7".parse().unwrap()));
        assert_eq!(Source::Port(7).binding(v6), Some("[::]:7".parse().unwrap()));
        assert_eq!(Source::from(v6).binding(v6), Some(v6));
    }
}
