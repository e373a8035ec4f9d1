//! Datagrams to the kernel and back.

use std::time::Duration;

use thiserror::Error;

use super::{Ack, CodecError, Errno, Limit, Messages, Reader};
use crate::uapi::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

/// A connection to the kernel's netlink, or to a substitute.
///
/// The kernel processes a request before `send` returns: all answers are queued by then. Only a dump
/// continues while it is received.
pub trait Transport {
    /// Sends one datagram.
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError>;

    /// The next queued datagram, or `None`.
    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError>;

    /// The next datagram, after a bounded wait.
    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError>;

    /// The next datagram, or `None` when there is none within `time`. A substitute that queues all its
    /// answers does not wait.
    fn receive_within(&mut self, _time: Duration) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.poll()
    }

    /// Ends later waits by `limit`, and no longer by an earlier one. A substitute that does not wait ignores it.
    fn set_limit(&mut self, _limit: Limit) {}

    /// Waits for other writers, after `times` conflicts in a row.
    fn backoff(&mut self, _times: u32) {}

    /// The port id of the socket; `None` for a substitute, or if it cannot be read.
    fn port_id(&self) -> Option<u32> {
        None
    }
}

impl<T: Transport> Transport for &mut T {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        (**self).send(datagram)
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        (**self).poll()
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        (**self).receive()
    }

    fn receive_within(&mut self, time: Duration) -> Result<Option<Vec<u8>>, NetlinkError> {
        (**self).receive_within(time)
    }

    fn set_limit(&mut self, limit: Limit) {
        (**self).set_limit(limit);
    }

    fn backoff(&mut self, times: u32) {
        (**self).backoff(times);
    }

    fn port_id(&self) -> Option<u32> {
        (**self).port_id()
    }
}

/// The reason why an exchange over netlink failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The socket cannot be opened.
    #[error("cannot open a netlink socket ({errno}){}", open_cause(*errno))]
    Open {
        /// The error of socket(2).
        errno: Errno,
    },
    /// The socket cannot join its multicast groups or get a port id.
    #[error("cannot bind the netlink socket ({errno})")]
    Bind {
        /// The error of bind(2) or getsockname(2).
        errno: Errno,
    },
    /// A socket option cannot be read or set.
    #[error("cannot use the netlink socket's option {option} ({errno})")]
    Option {
        /// The option's name.
        option: &'static str,
        /// The error of getsockopt(2) or setsockopt(2).
        errno: Errno,
    },
    /// The datagram does not fit in the socket's buffer, and the buffer cannot grow.
    #[error(
        "a transaction of {len} bytes does not fit in the socket's send buffer of {room}: it requires \
         net.core.wmem_max of at least {}, or CAP_NET_ADMIN in the initial user namespace",
        needed(*len)
    )]
    TooLarge {
        /// The datagram's length in bytes.
        len: usize,
        /// The size of the buffer in bytes.
        room: usize,
    },
    /// Sending failed.
    #[error("cannot send {len} bytes over netlink ({errno})")]
    Send {
        /// The datagram's length in bytes.
        len: usize,
        /// The error of sendto(2).
        errno: Errno,
    },
    /// Receiving failed.
    #[error("cannot receive from netlink ({errno})")]
    Receive {
        /// The error of recvmsg(2) or poll(2).
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
        /// The limit.
        seconds: u32,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The caller interrupted the wait.
    #[error("interrupted by the caller")]
    Cancelled,
    /// A descriptor that is not a netlink socket to netfilter.
    #[error("expected a socket of AF_NETLINK and NETLINK_NETFILTER, found {found}")]
    OtherSocket {
        /// What it is.
        found: String,
    },
    /// The kernel rejected a request for a dump, or could not complete the dump.
    #[error("the kernel refused to list its objects ({errno})")]
    Rejected {
        /// The error of the answer.
        errno: Errno,
    },
    /// The objects changed while they were listed.
    #[error("the kernel's objects changed while they were listed")]
    Interrupted,
    /// The kernel's answer is not valid netlink.
    #[error("the kernel's answer cannot be decoded: {0}")]
    Answer(CodecError),
}

impl From<CodecError> for NetlinkError {
    fn from(error: CodecError) -> Self {
        Self::Answer(error)
    }
}

/// The part of the send buffer that the kernel uses itself (`netlink_sendmsg`).
pub(super) const SEND_OVERHEAD: usize = 32;

/// The setting that makes room for a datagram of `len` bytes: a buffer is twice as large as requested.
fn needed(len: usize) -> usize {
    (len + SEND_OVERHEAD).div_ceil(2)
}

/// The cause of a socket's failure, where errno(3) does not name it.
fn open_cause(errno: Errno) -> &'static str {
    match errno {
        Errno::EPROTONOSUPPORT => ": the kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK)",
        Errno::EMFILE => ": this process has too many open files",
        Errno::ENFILE => ": the system has too many open files",
        Errno::EPERM | Errno::EACCES => ": a sandbox forbids it to this process",
        Errno::EAFNOSUPPORT => ": the kernel or a sandbox has no netlink",
        _ => "",
    }
}

/// Sends requests and returns the answers to them.
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
            // The dump must be read to its end: the socket accepts no other request before.
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.header.message_type {
                NLMSG_DONE => return done(message.body, interrupted),
                NLMSG_ERROR => match Ack::decode(message)?.errno {
                    Some(errno) => return Err(NetlinkError::Rejected { errno }),
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
    match Errno::from_answer(code) {
        None if interrupted => Err(NetlinkError::Interrupted),
        None => Ok(()),
        Some(errno) => Err(NetlinkError::Rejected { errno }),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use expect_test::expect;

    use super::*;

    #[test]
    fn messages_name_call_errno_and_cause() {
        let open = [
            Errno::EPROTONOSUPPORT,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::EACCES,
            Errno::EPERM,
            Errno::EAFNOSUPPORT,
        ];
        let errors = open.map(|errno| NetlinkError::Open { errno }).into_iter().chain([
            NetlinkError::Bind { errno: Errno::EPERM },
            NetlinkError::Option { option: "NETLINK_EXT_ACK", errno: Errno::ENOPROTOOPT },
            NetlinkError::TooLarge { len: 300_000, room: 212_960 },
            NetlinkError::Send { len: 20, errno: Errno::ECONNREFUSED },
            NetlinkError::Receive { errno: Errno::ENOBUFS },
            NetlinkError::Cut { room: 65_536 },
            NetlinkError::Silent { seconds: 10 },
            NetlinkError::DeadlineExceeded,
            NetlinkError::Cancelled,
            NetlinkError::OtherSocket { found: "no socket".into() },
            NetlinkError::Rejected { errno: Errno::EPERM },
            NetlinkError::Interrupted,
            CodecError::NotAString { attribute: 1 }.into(),
        ]);
        let errors: Vec<_> = errors.collect();
        // What a message contains is not also its source.
        assert!(errors.iter().all(|error| error.source().is_none()));
        let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
        expect![[r#"
            cannot open a netlink socket (EPROTONOSUPPORT: Protocol not supported): the kernel has no nfnetlink (CONFIG_NETFILTER_NETLINK)
            cannot open a netlink socket (EMFILE: Too many open files): this process has too many open files
            cannot open a netlink socket (ENFILE: File table overflow): the system has too many open files
            cannot open a netlink socket (ENOMEM: Out of memory)
            cannot open a netlink socket (EACCES: Permission denied): a sandbox forbids it to this process
            cannot open a netlink socket (EPERM: Operation not permitted): a sandbox forbids it to this process
            cannot open a netlink socket (EAFNOSUPPORT: Address family not supported by protocol): the kernel or a sandbox has no netlink
            cannot bind the netlink socket (EPERM: Operation not permitted)
            cannot use the netlink socket's option NETLINK_EXT_ACK (ENOPROTOOPT: Protocol not available)
            a transaction of 300000 bytes does not fit in the socket's send buffer of 212960: it requires net.core.wmem_max of at least 150016, or CAP_NET_ADMIN in the initial user namespace
            cannot send 20 bytes over netlink (ECONNREFUSED: Connection refused)
            cannot receive from netlink (ENOBUFS: No buffer space available)
            the kernel sent a netlink datagram larger than 65536 bytes
            the kernel did not answer a netlink request within 10 s
            the deadline passed
            interrupted by the caller
            expected a socket of AF_NETLINK and NETLINK_NETFILTER, found no socket
            the kernel refused to list its objects (EPERM: Operation not permitted)
            the kernel's objects changed while they were listed
            the kernel's answer cannot be decoded: attribute 1 is not a NUL-terminated UTF-8 string"#]].assert_eq(&messages.join("\n"));
    }
}
