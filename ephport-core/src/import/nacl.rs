//! The source ports whose replies an AWS network ACL lets back in.
//!
//! A network ACL keeps no state: the reply to a connection is an inbound packet like any other, and
//! its destination port is the connection's source port. The inbound entries are evaluated by rule
//! number and the first match wins; what matches none is denied (*Amazon VPC User Guide*, Network
//! ACL rules). A port is good when replies to it get through from **every** remote address.
//! Outbound entries do not matter here, because they look at the destination port.
//!
//! The text is what `aws ec2 describe-network-acls` prints:
//!
//! ```
//! use ephport_core::{AddressRange, NetworkAcls, Protocol};
//!
//! let acls: NetworkAcls = r#"{"NetworkAcls": [{"NetworkAclId": "acl-1", "Entries": [
//!     {"RuleNumber": 140, "Egress": false, "CidrBlock": "0.0.0.0/0", "Protocol": "6",
//!      "PortRange": {"From": 32768, "To": 65535}, "RuleAction": "allow"}]}]}"#.parse()?;
//! let ports = acls.reply_ports(Protocol::Tcp, &[AddressRange::ALL_IPV4]);
//! assert_eq!(ports.to_string(), "32768-65535");
//! # Ok::<(), ephport_core::NaclError>(())
//! ```

mod json;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::net::address_range::AddressRange;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;

/// The network ACLs of a document; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAcls(Vec<NetworkAcl>);

impl NetworkAcls {
    /// Each of them, as the document has them.
    #[must_use]
    pub fn acls(&self) -> &[NetworkAcl] {
        &self.0
    }

    /// The ports that are good with every one of these ACLs; see [`NetworkAcl::reply_ports`].
    #[must_use]
    pub fn reply_ports(&self, protocol: Protocol, remotes: &[AddressRange]) -> PortSet {
        common(self.0.iter().map(|acl| acl.reply_ports(protocol, remotes)))
    }

    /// What a reader should know before relying on the ports.
    #[must_use]
    pub fn notes(&self, remotes: &[AddressRange]) -> Vec<Note> {
        self.0.iter().flat_map(|acl| acl.notes(remotes)).collect()
    }
}

/// Reads what `aws ec2 describe-network-acls` prints.
impl FromStr for NetworkAcls {
    type Err = NaclError;

    fn from_str(text: &str) -> Result<Self, NaclError> {
        json::read(text).map(Self)
    }
}

/// The inbound entries of one network ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAcl {
    id: Box<str>,
    entries: Vec<Entry>,
}

impl NetworkAcl {
    /// The ACL with these inbound entries, in any order.
    #[must_use]
    pub fn new(id: &str, mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| entry.number);
        Self { id: id.into(), entries }
    }

    /// Its id, like `acl-0a1b2c3d`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The inbound entries, in the order in which they are evaluated.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The ports to which replies get through from every address of `remotes`; both families are
    /// judged by the entries of their own. Without remotes these are all ports.
    #[must_use]
    pub fn reply_ports(&self, protocol: Protocol, remotes: &[AddressRange]) -> PortSet {
        let starts: BTreeSet<_> = remotes.iter().flat_map(|remote| self.starts(*remote)).collect();
        common(starts.into_iter().map(|remote| self.reply_ports_from(protocol, remote)))
    }

    /// The ports to which replies get through from this remote address.
    #[must_use]
    pub fn reply_ports_from(&self, protocol: Protocol, remote: IpAddr) -> PortSet {
        let mut allowed = PortSet::EMPTY;
        let mut undecided = PortSet::from(PortRange::ALL);
        for entry in self.entries.iter().filter(|entry| entry.remote.contains(&remote)) {
            let decided = undecided.intersection(&entry.traffic.ports(protocol));
            undecided = undecided.difference(&decided);
            if entry.action == Action::Allow {
                allowed = allowed.union(&decided);
            }
        }
        allowed
    }

    /// One address of each part of `remote` that the entries treat alike: the verdict can change
    /// only where a network starts, and behind its end.
    fn starts(&self, remote: AddressRange) -> Vec<IpAddr> {
        let networks = self.entries.iter().map(|entry| AddressRange::from(entry.remote));
        let changes = networks.flat_map(|network| {
            let start = remote.contains(network.first()).then(|| network.first());
            let end = remote.index_of(network.last());
            [start, end.and_then(|index| remote.nth(index.checked_add(1)?))]
        });
        std::iter::once(remote.first()).chain(changes.flatten()).collect()
    }

    /// What a reader should know before relying on the ports.
    #[must_use]
    pub fn notes(&self, remotes: &[AddressRange]) -> Vec<Note> {
        let mut notes = Vec::new();
        for entry in &self.entries {
            let (acl, entry) = (self.id.clone(), entry.clone());
            if matches!(entry.traffic, Traffic::Unknown(_)) {
                notes.push(Note::UnknownProtocol { acl, entry });
            } else if entry.is_of_ports() && entry.narrows(remotes) {
                notes.push(Note::SomeRemotes { acl, entry });
            }
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            if self.reply_ports(protocol, remotes).is_empty() {
                notes.push(Note::NoReplies { acl: self.id.clone(), protocol });
            }
        }
        notes
    }
}

/// The ports that all sets have; every port, when there are no sets.
fn common(sets: impl Iterator<Item = PortSet>) -> PortSet {
    sets.fold(PortRange::ALL.into(), |common, set| common.intersection(&set))
}

/// One inbound entry of a network ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its rule number; the lowest is evaluated first. 32767 and 32768 are the final denials.
    pub number: u32,
    /// The remote addresses that it speaks of.
    pub remote: IpNet,
    /// The packets that it speaks of.
    pub traffic: Traffic,
    /// What becomes of them.
    pub action: Action,
}

impl Entry {
    /// Whether it decides on TCP or UDP.
    fn is_of_ports(&self) -> bool {
        [Protocol::Tcp, Protocol::Udp].into_iter().any(|p| !self.traffic.ports(p).is_empty())
    }

    /// Whether it speaks of some of `remotes`, but not of all in its family.
    fn narrows(&self, remotes: &[AddressRange]) -> bool {
        let own = AddressRange::from(self.remote);
        let mut of_family = remotes.iter().filter(|remote| remote.family() == own.family());
        let meets =
            |remote: &&AddressRange| own.first() <= remote.last() && remote.first() <= own.last();
        let covers =
            |remote: &AddressRange| own.contains(remote.first()) && own.contains(remote.last());
        of_family.clone().any(|remote| meets(&remote)) && !of_family.all(covers)
    }
}

/// `rule 140: allow 6 to 32768-65535 from 0.0.0.0/0`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        write!(f, "rule {}: {action} {} from {}", self.number, self.traffic, self.remote)
    }
}

/// What an entry does with the packets that it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// They get through.
    Allow,
    /// They do not.
    Deny,
}

/// Which packets an entry speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Every packet, whatever its protocol.
    All,
    /// The packets of one protocol, to these ports.
    Protocol {
        /// The IANA protocol number.
        number: u8,
        /// The destination ports; all, for protocols in which AWS does not look at them.
        ports: PortSet,
    },
    /// A protocol that we do not know; it matches no packet here.
    Unknown(Box<str>),
}

impl Traffic {
    /// The ports of `protocol` that are spoken of.
    fn ports(&self, protocol: Protocol) -> PortSet {
        match self {
            Self::All => PortRange::ALL.into(),
            Self::Protocol { number, ports } if *number == protocol.number() => ports.clone(),
            Self::Protocol { .. } | Self::Unknown(_) => PortSet::EMPTY,
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all traffic"),
            Self::Protocol { number, ports } => match Protocol::from_number(*number) {
                Some(protocol) => write!(f, "{protocol} to {ports}"),
                None => write!(f, "protocol {number}"),
            },
            Self::Unknown(text) => write!(f, "protocol `{text}`"),
        }
    }
}

/// What a reader should know before relying on the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// An entry that speaks of some remote addresses alone, so that not all ports are good that
    /// some connections could use.
    SomeRemotes {
        /// The id of the ACL.
        acl: Box<str>,
        /// The entry.
        entry: Entry,
    },
    /// An entry that was passed over.
    UnknownProtocol {
        /// The id of the ACL.
        acl: Box<str>,
        /// The entry.
        entry: Entry,
    },
    /// No port is good.
    NoReplies {
        /// The id of the ACL.
        acl: Box<str>,
        /// The protocol.
        protocol: Protocol,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SomeRemotes { acl, entry } => {
                write!(f, "{acl}: {entry}, which is some of the remote addresses and not all")
            }
            Self::UnknownProtocol { acl, entry } => {
                write!(f, "{acl}: {entry}: the protocol is not known and the rule was passed over")
            }
            Self::NoReplies { acl, protocol } => {
                write!(
                    f,
                    "{acl}: there is no port to which {protocol} replies get through from all"
                )
            }
        }
    }
}

/// Where in the document something is wrong, as jq would name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The index of the ACL.
    pub acl: usize,
    /// The index of the entry in it.
    pub entry: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".NetworkAcls[{}]", self.acl)?;
        self.entry.map_or(Ok(()), |entry| write!(f, ".Entries[{entry}]"))
    }
}

/// Why a text does not describe network ACLs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NaclError {
    /// Not JSON, or another type of value than AWS prints.
    #[error("{problem}: expected what `aws ec2 describe-network-acls` prints")]
    Json {
        /// The line at fault, from 1.
        line: usize,
        /// The column at fault, from 1.
        column: usize,
        /// What the JSON reader says, the line and column included.
        problem: Box<str>,
    },
    /// JSON without network ACLs.
    #[error(
        "there is no network ACL in .NetworkAcls: \
         expected what `aws ec2 describe-network-acls` prints"
    )]
    NoAcl,
    /// A field that is needed.
    #[error("{place}: {field} is missing")]
    Missing {
        /// Where.
        place: Place,
        /// The field.
        field: &'static str,
    },
    /// Two networks in one entry.
    #[error("{place}: has CidrBlock and Ipv6CidrBlock: expected one of them")]
    TwoNetworks {
        /// Where.
        place: Place,
    },
    /// Not a network.
    #[error("{place}: {field} `{text}`: expected a network like {example}")]
    Network {
        /// Where.
        place: Place,
        /// The field.
        field: &'static str,
        /// Its value.
        text: Box<str>,
        /// What one looks like.
        example: &'static str,
    },
    /// Neither allow nor deny.
    #[error("{place}: RuleAction `{text}`: expected allow or deny")]
    Action {
        /// Where.
        place: Place,
        /// Its value.
        text: Box<str>,
    },
    /// Ports that are out of range or reversed.
    #[error("{place}: PortRange from {from} to {to}: expected 0 <= From <= To <= 65535")]
    PortRange {
        /// Where.
        place: Place,
        /// The first port.
        from: i64,
        /// The last port.
        to: i64,
    },
}

#[cfg(test)]
mod tests;
