//! How datagrams get to the kernel and back.

use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;

use super::{Ack, CodecError, Messages, Reader};
use crate::uapi::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

/// A way to the kernel's netlink, or to something that answers in its place.
///
/// The kernel works through a request before `send` returns, so that all answers to it are queued
/// by then; only a dump goes on while it is received.
pub trait Transport {
    /// Sends one datagram whole.
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError>;

    /// The next datagram that is queued, or `None` when there is none.
    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError>;

    /// The next datagram, for which it waits a bounded time.
    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError>;

    /// The next datagram, for which it waits so long; `None` when none comes. A way on which all
    /// that will come is queued already need not wait.
    fn receive_within(&mut self, _time: Duration) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.poll()
    }

    /// Lets others finish, who were in the way `times` in a row.
    fn backoff(&mut self, _times: u32) {}
}

/// Why a conversation over netlink failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The socket cannot be opened.
    #[error("cannot open a netlink socket ({errno}): {}", open_hint(*errno))]
    Open {
        /// What the kernel said.
        errno: Errno,
    },
    /// A socket option is refused.
    #[error("cannot set the netlink socket's {option} ({errno})")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The datagram does not fit the socket's buffer and the buffer cannot grow.
    #[error(
        "a transaction of {len} bytes does not fit the socket's send buffer of {room}: \
         raise net.core.wmem_max to {}, or run with CAP_NET_ADMIN in the initial namespace",
        needed(*len)
    )]
    TooLarge {
        /// The datagram's length in bytes.
        len: usize,
        /// What the buffer holds in bytes.
        room: usize,
    },
    /// Sending failed.
    #[error("cannot send {len} bytes over netlink ({errno})")]
    Send {
        /// The datagram's length in bytes.
        len: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// Receiving failed.
    #[error("cannot receive from netlink ({errno})")]
    Receive {
        /// What the kernel said.
        errno: Errno,
    },
    /// A datagram was larger than the buffer for it.
    #[error("the kernel sent a netlink datagram larger than {room} bytes")]
    Cut {
        /// The buffer's size in bytes.
        room: usize,
    },
    /// The kernel did not answer in time.
    #[error("the kernel did not answer a netlink request within {seconds} s")]
    Silent {
        /// How long it had.
        seconds: u32,
    },
    /// The kernel refused a request for a dump.
    #[error("the kernel refused to list its objects ({errno})")]
    Refused {
        /// What the kernel said.
        errno: Errno,
    },
    /// The objects changed while they were listed.
    #[error("the kernel's objects changed while they were listed")]
    Interrupted,
    /// The kernel's bytes are not what netlink allows.
    #[error("the kernel's answer cannot be read: {0}")]
    Wire(#[from] CodecError),
}

/// What the kernel takes of the send buffer for itself (`netlink_sendmsg`).
pub(super) const SEND_OVERHEAD: usize = 32;

/// The setting that makes room for a datagram of `len` bytes: a buffer is twice what was asked for.
fn needed(len: usize) -> usize {
    (len + SEND_OVERHEAD).div_ceil(2)
}

fn open_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPROTONOSUPPORT => {
            "the kernel has no nfnetlink; load it with `modprobe nfnetlink`, \
             or use a kernel with CONFIG_NETFILTER_NETLINK"
        }
        Errno::EMFILE | Errno::ENFILE => "too many files are open",
        Errno::ENOMEM | Errno::ENOBUFS => "there is no memory left for it",
        _ => "the system forbids it",
    }
}

/// Sends requests and gives every answer to them.
pub fn exchange(transport: &mut impl Transport, datagram: &[u8]) -> Result<Vec<Ack>, NetlinkError> {
    transport.send(datagram)?;
    let mut acks = Vec::new();
    while let Some(answer) = transport.poll()? {
        for message in Messages::new(&answer) {
            let message = message?;
            if message.header.message_type == NLMSG_ERROR {
                acks.push(Ack::decode(message)?);
            }
        }
    }
    Ok(acks)
}

/// Sends a request for a dump with the sequence number `seq` and calls `visit` with the message type and
/// the body of each object.
pub fn dump(
    transport: &mut impl Transport,
    request: &[u8],
    seq: u32,
    mut visit: impl FnMut(u16, &[u8]) -> Result<(), CodecError>,
) -> Result<(), NetlinkError> {
    transport.send(request)?;
    let mut interrupted = false;
    loop {
        let datagram = transport.receive()?;
        for message in Messages::new(&datagram) {
            let message = message?;
            if message.header.seq != seq {
                continue; // a late answer to an earlier request
            }
            // Read on to the end: the socket takes no other request before.
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.header.message_type {
                NLMSG_DONE => return done(message.body, interrupted),
                NLMSG_ERROR => match Ack::decode(message)?.errno {
                    Some(errno) => return Err(NetlinkError::Refused { errno }),
                    None => return Ok(()),
                },
                message_type => visit(message_type, message.body)?,
            }
        }
    }
}

/// The result of a dump whose `NLMSG_DONE` has this body: an errno, 0 for a complete dump.
fn done(body: &[u8], interrupted: bool) -> Result<(), NetlinkError> {
    let code = i32::from_ne_bytes(Reader::new(body).array("error code of a dump")?);
    match code {
        0 if interrupted => Err(NetlinkError::Interrupted),
        0 => Ok(()),
        code => Err(NetlinkError::Refused { errno: Errno::from_raw(code.saturating_neg()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_to_do() {
        let cases = [
            (
                NetlinkError::Open { errno: Errno::EPROTONOSUPPORT },
                "cannot open a netlink socket (EPROTONOSUPPORT: Protocol not supported): the kernel \
                 has no nfnetlink; load it with `modprobe nfnetlink`, or use a kernel with \
                 CONFIG_NETFILTER_NETLINK",
            ),
            (
                NetlinkError::Open { errno: Errno::EMFILE },
                "cannot open a netlink socket (EMFILE: Too many open files): too many files are open",
            ),
            (
                NetlinkError::Open { errno: Errno::ENOMEM },
                "cannot open a netlink socket (ENOMEM: Out of memory): there is no memory left for it",
            ),
            (
                NetlinkError::Open { errno: Errno::EACCES },
                "cannot open a netlink socket (EACCES: Permission denied): the system forbids it",
            ),
            (
                NetlinkError::Option { option: "NETLINK_EXT_ACK", errno: Errno::ENOPROTOOPT },
                "cannot set the netlink socket's NETLINK_EXT_ACK (ENOPROTOOPT: Protocol not available)",
            ),
            (
                NetlinkError::TooLarge { len: 300_000, room: 212_960 },
                "a transaction of 300000 bytes does not fit the socket's send buffer of 212960: raise \
                 net.core.wmem_max to 150016, or run with CAP_NET_ADMIN in the initial namespace",
            ),
            (
                NetlinkError::Send { len: 20, errno: Errno::ECONNREFUSED },
                "cannot send 20 bytes over netlink (ECONNREFUSED: Connection refused)",
            ),
            (
                NetlinkError::Receive { errno: Errno::ENOBUFS },
                "cannot receive from netlink (ENOBUFS: No buffer space available)",
            ),
            (
                NetlinkError::Cut { room: 65_536 },
                "the kernel sent a netlink datagram larger than 65536 bytes",
            ),
            (
                NetlinkError::Silent { seconds: 10 },
                "the kernel did not answer a netlink request within 10 s",
            ),
            (
                NetlinkError::Refused { errno: Errno::EPERM },
                "the kernel refused to list its objects (EPERM: Operation not permitted)",
            ),
            (NetlinkError::Interrupted, "the kernel's objects changed while they were listed"),
            (
                NetlinkError::Wire(CodecError::NotAString { attribute: 1 }),
                "the kernel's answer cannot be read: attribute 1 is not a NUL-terminated UTF-8 string",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }
}
