//! The sockets of a client.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::options::Options;
use super::{Client, Error};
use crate::netlink::{Namespace, Socket};

impl Client<Socket> {
    /// The nf_tables of this thread's network namespace. [`Options`] open a client otherwise.
    ///
    /// # Errors
    /// [`Error::Netlink`] when there is no socket.
    pub fn open() -> Result<Self, Error> {
        Options::new().open()
    }

    /// The nf_tables of another network namespace, which no thread of this process but one of the call enters.
    /// [`Namespace::run`] names what that needs.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::Namespace`].
    pub fn in_namespace(namespace: &Namespace) -> Result<Self, Error> {
        Options::new().in_namespace(namespace).open()
    }

    /// The port id of its socket, which identifies its transactions in
    /// [`Commit`](crate::table::Commit).
    pub fn port_id(&self) -> Result<u32, Error> {
        Ok(self.transport.port_id()?)
    }
}

/// A client over a socket of NETLINK_NETFILTER that was opened before, perhaps by another process. The kernel checks
/// the capabilities of both processes. Without CAP_NET_ADMIN, open connections cannot be read.
impl TryFrom<OwnedFd> for Client<Socket> {
    type Error = Error;

    fn try_from(fd: OwnedFd) -> Result<Self, Error> {
        let socket = Socket::try_from(fd)?;
        let namespace = socket.namespace()?;
        let sockets = Some(namespace.run(Socket::sock_diag)?);
        let namespace = Some(namespace);
        Ok(Self { sockets, namespace, ..Self::with_transport(socket) })
    }
}

/// The netlink socket. What is read from it is missing in the client's answers.
impl AsFd for Client<Socket> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

/// The same descriptor.
impl AsRawFd for Client<Socket> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
