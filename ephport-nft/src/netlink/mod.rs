//! Netlink's byte format: messages, attributes, acknowledgements.
//!
//! A netlink datagram is a run of messages, each a 16-byte header (`struct nlmsghdr`), a fixed
//! body, and attributes (`struct nlattr`) that may nest; all is aligned to 4 bytes
//! (linux/netlink.h). [`Writer`] builds one in a single pass, [`Reader`] takes one apart without
//! trusting any length in it.

mod ack;
mod message;
mod reader;
mod socket;
mod sys;
mod transport;
mod writer;

pub use ack::Ack;
pub use message::{Header, Message, Messages, NfGenMsg};
pub use reader::{Attr, Attrs, Reader};
pub use socket::Socket;
pub use transport::{NetlinkError, Transport, dump, exchange};
pub use writer::Writer;

use thiserror::Error;

/// Messages and attributes start at multiples of 4 bytes (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
const ALIGN: usize = 4;

/// Length of `struct nlattr`.
const ATTR_HEADER: usize = 4;

const fn align(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// Why bytes are not netlink, or values do not fit into it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Fewer bytes than a field or a declared length needs.
    #[error("{what} needs {need} bytes, {have} are left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// How many bytes it needs.
        need: usize,
        /// How many there are.
        have: usize,
    },
    /// A value of another size than its kind has.
    #[error("attribute {kind} holds {have} bytes, expected {need} for {what}")]
    Size {
        /// The attribute's number.
        kind: u16,
        /// What was expected in it.
        what: &'static str,
        /// That one's size in bytes.
        need: usize,
        /// The size found.
        have: usize,
    },
    /// A string without its closing NUL, with one inside, or not UTF-8.
    #[error("attribute {kind} is not a NUL-terminated UTF-8 string")]
    NotAString {
        /// The attribute's number.
        kind: u16,
    },
    /// An attribute that the object cannot do without.
    #[error("{object} lacks its attribute {kind}")]
    Missing {
        /// The object.
        object: &'static str,
        /// The attribute's number.
        kind: u16,
    },
    /// An attribute that stands twice.
    #[error("{object} has its attribute {kind} twice")]
    Twice {
        /// The object.
        object: &'static str,
        /// The attribute's number.
        kind: u16,
    },
    /// An attribute that we have no name for.
    #[error("{object} has an unknown attribute {kind}")]
    Unknown {
        /// The object.
        object: &'static str,
        /// The attribute's number.
        kind: u16,
    },
    /// A number that the field does not define.
    #[error("{value} is no {what}")]
    Value {
        /// The field.
        what: &'static str,
        /// The number found.
        value: u32,
    },
    /// An attribute's length is a 16-bit number, its 4-byte header included.
    #[error("attribute {kind} would be {len} bytes long: netlink holds at most 65535; split it")]
    AttributeTooLong {
        /// The attribute's number.
        kind: u16,
        /// The length it would have.
        len: usize,
    },
    /// A message's length is a 32-bit number.
    #[error("message would be {len} bytes long: netlink holds at most 4294967295")]
    MessageTooLong {
        /// The length it would have.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_is_wrong() {
        let cases = [
            (
                CodecError::Truncated { what: "nlmsghdr", need: 16, have: 3 },
                "nlmsghdr needs 16 bytes, 3 are left",
            ),
            (
                CodecError::Size { kind: 2, what: "u32", need: 4, have: 1 },
                "attribute 2 holds 1 bytes, expected 4 for u32",
            ),
            (
                CodecError::NotAString { kind: 1 },
                "attribute 1 is not a NUL-terminated UTF-8 string",
            ),
            (CodecError::Missing { object: "table", kind: 1 }, "table lacks its attribute 1"),
            (CodecError::Twice { object: "table", kind: 1 }, "table has its attribute 1 twice"),
            (CodecError::Unknown { object: "meta", kind: 9 }, "meta has an unknown attribute 9"),
            (CodecError::Value { what: "cmp operation", value: 9 }, "9 is no cmp operation"),
            (
                CodecError::AttributeTooLong { kind: 3, len: 70_000 },
                "attribute 3 would be 70000 bytes long: netlink holds at most 65535; split it",
            ),
            (
                CodecError::MessageTooLong { len: 5_000_000_000 },
                "message would be 5000000000 bytes long: netlink holds at most 4294967295",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }
}
