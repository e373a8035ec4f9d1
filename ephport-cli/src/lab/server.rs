//! A server that reports to each client the source that it saw.
//!
//! On TCP it greets with one line, the client's address and port such as `203.0.113.1:49152`, and then
//! echoes every byte. On UDP it echoes each datagram after such a line. One thread serves all
//! connections, of both families, until the clients close them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::in6_pktinfo;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::sockopt::Ipv6RecvPacketInfo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
};

use super::error::LabError;
use super::host::Host;

/// Size of the receive buffer in bytes: one datagram.
const BUFFER_SIZE: usize = 64 * 1024;

/// A running server; dropping it closes its connections and stops it.
#[derive(Debug)]
pub struct Server {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves TCP and UDP on `port` of every address of `host`, IPv4 and IPv6.
    pub fn start(host: &Host, port: u16) -> Result<Self, LabError> {
        let failed =
            |protocol, errno| LabError::Serve { host: host.name().into(), protocol, port, errno };
        // A socket belongs to the namespace in which it was opened, whatever thread uses it.
        let tcp = host.run(|| listen_tcp(port)).map_err(|errno| failed("TCP", errno))?;
        let udp = host.run(|| listen_udp(port)).map_err(|errno| failed("UDP", errno))?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(|e| failed("TCP", e))?;
        let stop = Arc::new(stop);
        let service = Service { stop: Arc::clone(&stop), tcp, udp, clients: Vec::new() };
        Ok(Self { stop, thread: Some(thread::spawn(move || service.run())) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.write(1); // cannot fail: the counter is 0
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen_tcp(port: u16) -> Result<TcpListener, Errno> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).map_err(|e| errno(&e))?;
    listener.set_nonblocking(true).map_err(|e| errno(&e))?;
    Ok(listener)
}

fn listen_udp(port: u16) -> Result<UdpSocket, Errno> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).map_err(|e| errno(&e))?;
    socket.set_nonblocking(true).map_err(|e| errno(&e))?;
    setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    Ok(socket)
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The line before the echo: the client's source address and port.
fn greeting(client: SocketAddr) -> Vec<u8> {
    let seen = SocketAddr::new(client.ip().to_canonical(), client.port());
    format!("{seen}\n").into_bytes()
}

/// The state of the server's thread.
struct Service {
    stop: Arc<EventFd>,
    tcp: TcpListener,
    udp: UdpSocket,
    clients: Vec<Client>,
}

impl Service {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER_SIZE];
        while let Some(ready) = self.wait() {
            let [tcp, udp, clients @ ..] = ready.as_slice() else { return };
            let mut ready = clients.iter();
            self.clients.retain_mut(|client| match ready.next() {
                Some(true) => client.serve(&mut buffer).is_ok(),
                _ => true,
            });
            if *tcp {
                self.accept();
            }
            if *udp {
                while answer_datagram(&self.udp, &mut buffer).is_ok() {}
            }
        }
    }

    /// Waits for work: whether the TCP listener, the UDP socket and each client are ready. `None` when
    /// the server must stop.
    fn wait(&self) -> Option<Vec<bool>> {
        let input = PollFlags::POLLIN;
        let mut fds = vec![
            PollFd::new(self.stop.as_fd(), input),
            PollFd::new(self.tcp.as_fd(), input),
            PollFd::new(self.udp.as_fd(), input),
        ];
        fds.extend(self.clients.iter().map(|c| PollFd::new(c.stream.as_fd(), c.waits_for())));
        while let Err(errno) = poll(&mut fds, PollTimeout::NONE) {
            if errno != Errno::EINTR {
                return None;
            }
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        (ready.next() == Some(false)).then(|| ready.collect())
    }

    fn accept(&mut self) {
        while let Ok((stream, peer)) = self.tcp.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, pending: greeting(peer) });
            }
        }
    }
}

/// One TCP connection.
struct Client {
    stream: TcpStream,
    /// Bytes that are still to be sent; no more are read before that.
    pending: Vec<u8>,
}

impl Client {
    fn waits_for(&self) -> PollFlags {
        if self.pending.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// Reads or writes once; an error ends the connection.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.pending.is_empty() {
            match self.stream.read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.pending.extend_from_slice(&buffer[..len]),
            }
        }
        let sent = match self.stream.write(&self.pending) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            result => result?,
        };
        self.pending.drain(..sent);
        Ok(())
    }
}

/// Answers one datagram from the address that it was sent to: a connected client receives no other.
fn answer_datagram(socket: &UdpSocket, buffer: &mut [u8]) -> nix::Result<()> {
    let fd = socket.as_raw_fd();
    let mut control = cmsg_space!(in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
    let (len, client) = (received.bytes, received.address.ok_or(Errno::EDESTADDRREQ)?);
    let sent_to = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_addr),
        _ => None,
    });
    let from = sent_to.map(|ipi6_addr| in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 });
    let control: Vec<_> = from.iter().map(ControlMessage::Ipv6PacketInfo).collect();
    let line = greeting(SocketAddr::V6(SocketAddrV6::from(client)));
    let answer = [IoSlice::new(&line), IoSlice::new(&buffer[..len])];
    // An answer that cannot be sent is lost, like any datagram.
    let _ = sendmsg(fd, &answer, &control, MsgFlags::empty(), Some(&client));
    Ok(())
}
