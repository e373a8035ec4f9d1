//! A netlink socket.

use std::hash::{BuildHasher, RandomState};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, SndBuf, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    getsockopt, recvmsg, sendto, setsockopt, socket,
};

use super::errno::Errno;
use super::limit::Limit;
use super::namespace::{Namespace, NamespaceError};
use super::transport::{NetlinkError, SEND_OVERHEAD, Transport};
use crate::sys::{netlink_socket, set_netlink_option, socket_namespace, socket_option};
use crate::uapi::{
    NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_NETFILTER, NETLINK_XFRM,
    NFNLGRP_NFTABLES,
};

/// The limit for an answer of the kernel. It answers at once; this only ends a hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// Larger than any datagram of a dump, which the kernel cuts at 32 KiB (`NLMSG_GOODSIZE`).
const RECEIVE_ROOM: usize = 64 * 1024;

/// The longest backoff, as a power of two of milliseconds.
const LONGEST_PAUSE: u32 = 7;

/// The size of the buffer for events, in bytes.
const EVENT_ROOM: usize = 4 * 1024 * 1024;

/// A socket to one of the kernel's netlink families.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The room for the next datagram: a large table is read in many.
    buffer: Vec<u8>,
    /// The longest datagram that is known to fit in the send buffer, in bytes.
    room: usize,
    limit: Limit,
}

impl Socket {
    /// A socket to nfnetlink, in the network namespace of this thread.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkNetFilter, 0)
    }

    /// A socket to rtnetlink, in the network namespace of this thread.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkRoute, 0)
    }

    /// A socket to sock_diag, in the network namespace of this thread.
    pub fn sock_diag() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkSockDiag, 0)
    }

    /// A socket to generic netlink, in the network namespace of this thread.
    pub fn generic() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkGeneric, 0)
    }

    /// A socket that receives each change of nf_tables, in the network namespace of this thread.
    pub fn nf_tables_events() -> Result<Self, NetlinkError> {
        Self::subscribed(SockProtocol::NetlinkNetFilter, &[NFNLGRP_NFTABLES])
    }

    /// A socket that receives the notifications of these groups of rtnetlink (`RTNLGRP_*`, up to 32).
    pub fn route_events(groups: &[u32]) -> Result<Self, NetlinkError> {
        Self::subscribed(SockProtocol::NetlinkRoute, groups)
    }

    /// A socket that joins these multicast groups, with a large buffer.
    fn subscribed(protocol: SockProtocol, groups: &[u32]) -> Result<Self, NetlinkError> {
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        let socket = Self::open(protocol, mask)?;
        socket.make_receive_room(EVENT_ROOM);
        Ok(socket)
    }

    /// Enlarges the receive buffer to `len` bytes: as for sending, and with whatever size: the loss of events is
    /// an event.
    pub(crate) fn make_receive_room(&self, len: usize) {
        let _ = retry(|| setsockopt(&self.fd, RcvBufForce, &len))
            .or_else(|_| retry(|| setsockopt(&self.fd, RcvBuf, &len)));
    }

    /// The same socket, which receives each change of nf_tables too.
    pub(crate) fn with_nf_tables_events(self) -> Result<Self, NetlinkError> {
        let group = i32::try_from(NFNLGRP_NFTABLES).unwrap_or_default();
        retry(|| set_netlink_option(self.fd.as_fd(), NETLINK_ADD_MEMBERSHIP, group))
            .map_err(|errno| NetlinkError::Bind { errno })?;
        self.make_receive_room(EVENT_ROOM);
        Ok(self)
    }

    /// The network namespace of the socket.
    pub(crate) fn namespace(&self) -> Result<Namespace, NamespaceError> {
        retry(|| socket_namespace(self.fd.as_fd()))
            .map(Namespace::from)
            .map_err(|errno| NamespaceError::OfSocket { errno })
    }

    /// A socket to IPsec's policies, in the network namespace of this thread.
    pub fn xfrm() -> Result<Self, NetlinkError> {
        let fd = retry(|| netlink_socket(NETLINK_XFRM));
        Self::bound(fd.map_err(|errno| NetlinkError::Open { errno })?, 0)
    }

    /// A socket that joins these multicast groups: bit 0 is group 1.
    fn open(protocol: SockProtocol, groups: u32) -> Result<Self, NetlinkError> {
        let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
        let fd = retry(|| socket(family, SockType::Raw, flags, protocol));
        Self::bound(fd.map_err(|errno| NetlinkError::Open { errno })?, groups)
    }

    fn bound(fd: OwnedFd, groups: u32) -> Result<Self, NetlinkError> {
        retry(|| bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)))
            .map_err(|errno| NetlinkError::Bind { errno })?;
        Self::configured(fd)
    }

    fn configured(fd: OwnedFd) -> Result<Self, NetlinkError> {
        let refused = |option| move |errno| NetlinkError::Option { option, errno };
        retry(|| set_netlink_option(fd.as_fd(), NETLINK_EXT_ACK, 1))
            .map_err(refused("NETLINK_EXT_ACK"))?;
        retry(|| set_netlink_option(fd.as_fd(), NETLINK_CAP_ACK, 1))
            .map_err(refused("NETLINK_CAP_ACK"))?;
        Ok(Self { fd, buffer: vec![0; RECEIVE_ROOM], room: 0, limit: Limit::default() })
    }

    /// Enlarges the send buffer to `len` bytes and checks its size: the kernel grants less without an error.
    fn make_room(&mut self, len: usize) -> Result<(), NetlinkError> {
        if len <= self.room {
            return Ok(());
        }
        let room = || {
            let size = retry(|| getsockopt(&self.fd, SndBuf));
            let size = size.map_err(|errno| NetlinkError::Option { option: "SO_SNDBUF", errno })?;
            Ok::<_, NetlinkError>(size.saturating_sub(SEND_OVERHEAD))
        };
        self.room = room()?;
        if len <= self.room {
            return Ok(());
        }
        let wanted = len + SEND_OVERHEAD;
        // The first needs CAP_NET_ADMIN in the initial user namespace; the second is bounded by
        // net.core.wmem_max. Only the size shows whether one of them succeeded.
        let _ = retry(|| setsockopt(&self.fd, SndBufForce, &wanted));
        if len > room()? {
            let _ = retry(|| setsockopt(&self.fd, SndBuf, &wanted));
        }
        self.room = room()?;
        match self.room {
            room if len > room => Err(NetlinkError::TooLarge { len, room }),
            _ => Ok(()),
        }
    }

    /// Its port id, which identifies it in [`Commit`](crate::nftables::Commit).
    pub fn port_id(&self) -> Result<u32, NetlinkError> {
        retry(|| getsockname::<NetlinkAddr>(self.fd.as_raw_fd()))
            .map(|address| address.pid())
            .map_err(|errno| NetlinkError::Bind { errno })
    }

    /// Waits until `socket` is readable, the time is over or the limit's interrupt is raised; only the last is true.
    fn is_interrupted(
        &self,
        time: Duration,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<bool, NetlinkError> {
        // Whole milliseconds, rounded up: less than one would be none.
        let time = time.saturating_add(Duration::from_nanos(999_999));
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let interrupt = self.limit.interrupt.as_ref();
        let fds = socket.into_iter().chain(interrupt.map(AsFd::as_fd));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        retry(|| poll(&mut fds, timeout)).map_err(receive_error)?;
        Ok(interrupt.is_some_and(super::limit::Interrupt::is_raised))
    }

    fn receive_with(&mut self, flags: MsgFlags) -> Result<Vec<u8>, Errno> {
        loop {
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let received = retry(|| {
                recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut parts, None, flags)
                    .map(|r| (r.bytes, r.flags, r.address))
            })?;
            let (len, flags, sender) = received;
            if flags.contains(MsgFlags::MSG_TRUNC) {
                return Err(Errno::EMSGSIZE);
            }
            // Only the kernel has port id 0: a datagram of another process is not an answer.
            if sender.is_none_or(|address| address.pid() == 0) {
                return Ok(self.buffer.iter().take(len).copied().collect());
            }
        }
    }
}

impl Transport for Socket {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let len = datagram.len();
        self.make_room(len)?;
        let kernel = NetlinkAddr::new(0, 0);
        let sent = retry(|| sendto(self.fd.as_raw_fd(), datagram, &kernel, MsgFlags::empty()))
            .map_err(|errno| NetlinkError::Send { len, errno })?;
        if sent == len { Ok(()) } else { Err(NetlinkError::Send { len, errno: Errno::EMSGSIZE }) }
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        match self.receive_with(MsgFlags::MSG_DONTWAIT) {
            Ok(datagram) => Ok(Some(datagram)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(receive_error(errno)),
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        if let Some(datagram) = self.receive_within(PATIENCE)? {
            return Ok(datagram);
        }
        self.limit.check()?;
        Err(NetlinkError::Silent { seconds: PATIENCE.as_secs().try_into().unwrap_or(u32::MAX) })
    }

    fn receive_within(&mut self, time: Duration) -> Result<Option<Vec<u8>>, NetlinkError> {
        let end = Instant::now().checked_add(self.limit.left(time));
        loop {
            if let Some(datagram) = self.poll()? {
                return Ok(Some(datagram));
            }
            let left =
                end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            if self.is_interrupted(left, Some(self.fd.as_fd()))? {
                return Ok(None);
            }
        }
    }

    fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// Of many that retry at once only one succeeds, and slow ones never do. So each waits a random time,
    /// from twice as long a span as the last time.
    fn backoff(&mut self, times: u32) {
        let span = 1000 << times.min(LONGEST_PAUSE);
        let time = Duration::from_micros(RandomState::new().hash_one(times) % span);
        if self.limit.interrupt.is_none() {
            return thread::sleep(self.limit.left(time));
        }
        // An error of poll(2) ends the pause early, which is no fault.
        let _ = self.is_interrupted(self.limit.left(time), None);
    }

    fn port_id(&self) -> Option<u32> {
        Self::port_id(self).ok()
    }
}

/// A socket that was opened before, perhaps by another process: one of NETLINK_NETFILTER. It is bound if it is not
/// yet, and stays in its network namespace.
impl TryFrom<OwnedFd> for Socket {
    type Error = NetlinkError;

    fn try_from(fd: OwnedFd) -> Result<Self, NetlinkError> {
        let number = |option| retry(|| socket_option(fd.as_fd(), option)).ok();
        let (domain, protocol) = (number(libc::SO_DOMAIN), number(libc::SO_PROTOCOL));
        if (domain, protocol) != (Some(libc::AF_NETLINK), Some(NETLINK_NETFILTER)) {
            let found = match (domain, protocol) {
                (Some(libc::AF_NETLINK), Some(protocol)) => format!("netlink protocol {protocol}"),
                (Some(domain), _) => format!("a socket of address family {domain}"),
                (None, _) => "no socket".into(),
            };
            return Err(NetlinkError::OtherSocket { found });
        }
        let socket = Self::configured(fd)?;
        if socket.port_id()? == 0 {
            retry(|| bind(socket.fd.as_raw_fd(), &NetlinkAddr::new(0, 0)))
                .map_err(|errno| NetlinkError::Bind { errno })?;
        }
        Ok(socket)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn receive_error(errno: Errno) -> NetlinkError {
    match errno {
        Errno::EMSGSIZE => NetlinkError::Cut { room: RECEIVE_ROOM },
        errno => NetlinkError::Receive { errno },
    }
}

/// A system call, repeated while a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> Result<T, Errno> {
    loop {
        match call().map_err(Errno::of_call) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
