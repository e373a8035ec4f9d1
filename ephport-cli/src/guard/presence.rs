//! One guard in each network namespace, which other commands find.
//!
//! An abstract socket belongs to the network namespace and vanishes with its process.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The name of the guard's socket.
const NAME: &[u8] = b"ephport-nft/guard";

/// A running guard of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// Its process; 0 if that is in another pid namespace.
    pub(crate) process: i32,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            0 => f.write_str("`ephport-nft guard` in another pid namespace"),
            process => write!(f, "`ephport-nft guard`, process {process},"),
        }
    }
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

/// The guard of this network namespace, if one runs.
pub(crate) fn running() -> Option<Running> {
    let stream = UnixStream::connect_addr(&address().ok()?).ok()?;
    let process = getsockopt(&stream, PeerCredentials).map_or(0, |peer| peer.pid());
    Some(Running { process })
}

/// The sign by which other commands find this guard.
pub(crate) struct Presence(UnixListener);

impl Presence {
    /// Become the guard of this network namespace; `None` if there is one.
    pub(crate) fn take() -> io::Result<Option<Self>> {
        match UnixListener::bind_addr(&address()?) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Some(Self(listener)))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answer all who ask.
    pub(crate) fn answer(&self) {
        while self.0.accept().is_ok() {}
    }
}

impl AsFd for Presence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
