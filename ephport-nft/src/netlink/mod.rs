//! Netlink's byte format: messages, attributes, acknowledgements.
//!
//! A netlink datagram is a run of messages, each a 16-byte header (`struct nlmsghdr`), a fixed
//! body, and attributes (`struct nlattr`) that may nest; all is aligned to 4 bytes
//! (linux/netlink.h). [`Writer`] builds one in a single pass, [`Reader`] decodes one without
//! trusting any length in it.

mod ack;
mod errno;
mod limit;
mod message;
mod namespace;
mod reader;
mod socket;
mod transport;
mod writer;

pub use ack::Ack;
pub use errno::Errno;
pub use limit::{Interrupt, Limit};
pub use message::{Header, Message, Messages, NfGenMsg};
pub use namespace::{Namespace, NamespaceError};
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

/// The reason why bytes are not valid netlink, or why a value does not fit in a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Fewer bytes than a field or a declared length needs.
    #[error("{what} needs {need} bytes, {have} are left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// The bytes that it needs.
        need: usize,
        /// The bytes that are left.
        have: usize,
    },
    /// A value with another size than its type has.
    #[error("attribute {attribute} has {have} bytes, expected {need} for {what}")]
    Size {
        /// The attribute's type.
        attribute: u16,
        /// What was expected in it.
        what: &'static str,
        /// The expected size in bytes.
        need: usize,
        /// The size found.
        have: usize,
    },
    /// A string without its closing NUL, with one inside, or not UTF-8.
    #[error("attribute {attribute} is not a NUL-terminated UTF-8 string")]
    NotAString {
        /// The attribute's type.
        attribute: u16,
    },
    /// A required attribute that is missing.
    #[error("{object} lacks the required attribute {attribute}")]
    Missing {
        /// The object.
        object: &'static str,
        /// The attribute's type.
        attribute: u16,
    },
    /// An attribute that occurs twice.
    #[error("{object} has attribute {attribute} twice")]
    Twice {
        /// The object.
        object: &'static str,
        /// The attribute's type.
        attribute: u16,
    },
    /// An unknown attribute.
    #[error("{object} has an unknown attribute {attribute}")]
    Unknown {
        /// The object.
        object: &'static str,
        /// The attribute's type.
        attribute: u16,
    },
    /// An undefined number.
    #[error("{value} is not a {what}")]
    Value {
        /// The field.
        what: &'static str,
        /// The number found.
        value: u32,
    },
    /// An attribute's length is a 16-bit number, its 4-byte header included.
    #[error("attribute {attribute} would be {len} bytes long: the maximum is 65535; split it")]
    AttributeTooLong {
        /// The attribute's type.
        attribute: u16,
        /// The length it would have.
        len: usize,
    },
    /// A message's length is a 32-bit number.
    #[error("message would be {len} bytes long: the maximum is 4294967295")]
    MessageTooLong {
        /// The length it would have.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn messages_name_object_and_attribute() {
        let errors = [
            CodecError::Truncated { what: "nlmsghdr", need: 16, have: 3 },
            CodecError::Size { attribute: 2, what: "u32", need: 4, have: 1 },
            CodecError::NotAString { attribute: 1 },
            CodecError::Missing { object: "table", attribute: 1 },
            CodecError::Twice { object: "table", attribute: 1 },
            CodecError::Unknown { object: "meta", attribute: 9 },
            CodecError::Value { what: "cmp operation", value: 9 },
            CodecError::AttributeTooLong { attribute: 3, len: 70_000 },
            CodecError::MessageTooLong { len: usize::MAX },
        ];
        let messages = errors.map(|error| error.to_string()).join("\n");
        let messages = messages.replace(&usize::MAX.to_string(), "MAX");
        expect![[r#"
            nlmsghdr needs 16 bytes, 3 are left
            attribute 2 has 1 bytes, expected 4 for u32
            attribute 1 is not a NUL-terminated UTF-8 string
            table lacks the required attribute 1
            table has attribute 1 twice
            meta has an unknown attribute 9
            9 is not a cmp operation
            attribute 3 would be 70000 bytes long: the maximum is 65535; split it
            message would be MAX bytes long: the maximum is 4294967295"#]]
        .assert_eq(&messages);
    }
}
