//! Why a text does not describe network ACLs.

use std::fmt;

use thiserror::Error;

use crate::text::{Quoted, excerpt, quoted};

/// A place in the document, as jq names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Location {
    /// Whether the document is the list of ACLs itself, not an object with `NetworkAcls`.
    pub is_list: bool,
    /// The index of the ACL.
    pub acl: usize,
    /// The index of the entry in it.
    pub entry: Option<usize>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = if self.is_list { "." } else { ".NetworkAcls" };
        write!(f, "{list}[{}]", self.acl)?;
        self.entry.map_or(Ok(()), |entry| write!(f, ".Entries[{entry}]"))
    }
}

/// Why a text does not describe network ACLs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NaclError {
    /// Not JSON, or another type of value than AWS prints.
    #[error("{}: expected what `aws ec2 describe-network-acls` prints", shown(.problem))]
    Json {
        /// The line at fault, from 1.
        line: usize,
        /// The column at fault, from 1.
        column: usize,
        /// The message of the JSON reader, the line and column included.
        problem: Box<str>,
    },
    /// JSON without network ACLs.
    #[error(
        "there is no network ACL in .NetworkAcls: \
         expected what `aws ec2 describe-network-acls` prints"
    )]
    NoAcl,
    /// No network ACL has the id.
    #[error("there is no network ACL {}: the document has {}", quoted(.id), shown(.known))]
    UnknownAcl {
        /// The id.
        id: Box<str>,
        /// The ids that there are.
        known: Box<str>,
    },
    /// No network ACL is associated with the subnet.
    #[error("no network ACL has subnet {}: the document has {}", quoted(.id), shown(.known))]
    UnknownSubnet {
        /// The id.
        id: Box<str>,
        /// The ids of subnets that there are.
        known: Box<str>,
    },
    /// A field that is needed.
    #[error("{location}: {field} is missing")]
    Missing {
        /// The place of the value without it.
        location: Location,
        /// The field.
        field: &'static str,
    },
    /// Two networks in one entry.
    #[error("{location}: has CidrBlock and Ipv6CidrBlock: expected one of them")]
    TwoNetworks {
        /// The place of the entry.
        location: Location,
    },
    /// Not a network.
    #[error("{location}: {field} {}: expected a network like {example}", quoted(.text))]
    Network {
        /// The place of the entry.
        location: Location,
        /// The field.
        field: &'static str,
        /// Its value.
        text: Box<str>,
        /// An example of one.
        example: &'static str,
    },
    /// Neither allow nor deny.
    #[error("{location}: RuleAction {}: expected allow or deny", quoted(.text))]
    Action {
        /// The place of the entry.
        location: Location,
        /// Its value.
        text: Box<str>,
    },
    /// Ports that are out of range or reversed.
    #[error("{location}: PortRange from {from} to {to}: expected 0 <= From <= To <= 65535")]
    PortRange {
        /// The place of the entry.
        location: Location,
        /// The first port.
        from: i64,
        /// The last port.
        to: i64,
    },
}

/// A message or a list of ids.
fn shown(text: &str) -> Quoted<'_> {
    excerpt(text).up_to(240)
}
