//! How datagrams get to the kernel and back.

use nix::errno::Errno;
use thiserror::Error;

use crate::uapi::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use crate::wire::{Ack, Messages, WireError};

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
         raise net.core.wmem_max above {len}, or run with CAP_NET_ADMIN in the initial namespace"
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
    Wire(#[from] WireError),
}

fn open_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPROTONOSUPPORT => {
            "the kernel has no nfnetlink; load it with `modprobe nfnetlink`, \
             or use a kernel with CONFIG_NETFILTER_NETLINK"
        }
        Errno::EMFILE | Errno::ENFILE => "too many files are open",
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
            if message.header.kind == NLMSG_ERROR {
                acks.push(Ack::read(message)?);
            }
        }
    }
    Ok(acks)
}

/// Sends a request for a dump with the number `seq` and gives each object to `visit`: the message's
/// type and its body.
pub fn dump(
    transport: &mut impl Transport,
    request: &[u8],
    seq: u32,
    mut visit: impl FnMut(u16, &[u8]) -> Result<(), WireError>,
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
            match message.header.kind {
                NLMSG_DONE if interrupted => return Err(NetlinkError::Interrupted),
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => match Ack::read(message)?.errno {
                    Some(errno) => return Err(NetlinkError::Refused { errno }),
                    None => return Ok(()),
                },
                kind => visit(kind, message.body)?,
            }
        }
    }
}
