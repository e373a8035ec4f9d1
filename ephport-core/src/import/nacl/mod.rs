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

mod error;
mod json;
mod note;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

pub use self::error::{Location, NaclError};
pub use self::note::Note;
use crate::net::address_range::AddressRange;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;
use crate::text::quoted;

/// The network ACLs of a document; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAcls {
    acls: Vec<NetworkAcl>,
    /// Whether the document has a `NextToken`.
    has_more: bool,
}

impl NetworkAcls {
    /// Each of them, in the order of the document.
    #[must_use]
    pub fn acls(&self) -> &[NetworkAcl] {
        &self.acls
    }

    /// Only the one with this id.
    ///
    /// # Errors
    /// [`NaclError::UnknownAcl`] with the ids that there are.
    pub fn of_id(self, id: &str) -> Result<Self, NaclError> {
        let known = self.acls.iter().map(NetworkAcl::id).collect::<Vec<_>>().join(", ");
        let unknown = || NaclError::UnknownAcl { id: id.into(), known: known.into() };
        self.select(|acl| acl.id() == id).ok_or_else(unknown)
    }

    /// Only the one of this subnet.
    ///
    /// # Errors
    /// [`NaclError::UnknownSubnet`] with the subnets that there are.
    pub fn of_subnet(self, id: &str) -> Result<Self, NaclError> {
        let known = self.acls.iter().flat_map(NetworkAcl::subnets).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "no subnets".into() } else { known };
        let unknown = || NaclError::UnknownSubnet { id: id.into(), known: known.into() };
        self.select(|acl| acl.subnets().any(|subnet| subnet == id)).ok_or_else(unknown)
    }

    fn select(mut self, is_selected: impl Fn(&NetworkAcl) -> bool) -> Option<Self> {
        self.acls.retain(is_selected);
        (!self.acls.is_empty()).then_some(Self { has_more: false, ..self })
    }

    /// The ports that are good with every one of these ACLs; see [`NetworkAcl::reply_ports`].
    #[must_use]
    pub fn reply_ports(&self, protocol: Protocol, remotes: &[AddressRange]) -> PortSet {
        common(self.acls.iter().map(|acl| acl.reply_ports(protocol, remotes)))
    }

    /// What a reader should know of the document, whatever the remote addresses.
    #[must_use]
    pub fn document_notes(&self) -> Vec<Note> {
        let ids = || self.acls.iter().map(|acl| acl.id.clone()).collect();
        let several = (self.acls.len() > 1).then(|| Note::Several { acls: ids() });
        let outbound = self.acls.iter().filter(|acl| acl.denies_outbound);
        let outbound = outbound.map(|acl| Note::NothingOutbound { acl: acl.id.clone() });
        let more = self.has_more.then_some(Note::MorePages);
        more.into_iter().chain(several).chain(outbound).collect()
    }

    /// What a reader should know before relying on the ports.
    #[must_use]
    pub fn notes(&self, remotes: &[AddressRange]) -> Vec<Note> {
        self.acls.iter().flat_map(|acl| acl.notes(remotes)).collect()
    }
}

/// Reads what `aws ec2 describe-network-acls` prints: the object, the list in it, or one of them.
impl FromStr for NetworkAcls {
    type Err = NaclError;

    fn from_str(text: &str) -> Result<Self, NaclError> {
        json::read(text)
    }
}

/// The inbound entries of one network ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAcl {
    id: Box<str>,
    entries: Vec<Entry>,
    subnets: Vec<Box<str>>,
    /// Whether there are outbound entries and none allows anything.
    denies_outbound: bool,
}

impl NetworkAcl {
    /// The ACL with these inbound entries, in any order.
    #[must_use]
    pub fn new(id: &str, mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| entry.number);
        Self { id: id.into(), entries, subnets: Vec::new(), denies_outbound: false }
    }

    /// Its id, like `acl-0a1b2c3d`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The ids of its subnets, like `subnet-0a1b2c3d`.
    pub fn subnets(&self) -> impl Iterator<Item = &str> {
        self.subnets.iter().map(AsRef::as_ref)
    }

    /// The inbound entries, in the order in which they are evaluated.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The ports to which replies get through from every address of `remotes`; both families are
    /// judged by the entries of their own. Without remotes these are all ports.
    ///
    /// Addresses whose replies get through to no port from 1024 up are disregarded, because no port
    /// can help them; [`Note::Unreachable`] names them. If there are no others, no port is good.
    #[must_use]
    pub fn reply_ports(&self, protocol: Protocol, remotes: &[AddressRange]) -> PortSet {
        let starts: BTreeSet<_> = remotes.iter().flat_map(|remote| self.starts(*remote)).collect();
        let sets = starts.iter().map(|remote| self.reply_ports_from(protocol, *remote));
        let mut reachable = sets.filter(is_reachable).peekable();
        if reachable.peek().is_none() && !remotes.is_empty() {
            return PortSet::EMPTY;
        }
        common(reachable)
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
    /// only where a network starts, and after its end.
    fn starts(&self, remote: AddressRange) -> BTreeSet<IpAddr> {
        let networks = self.entries.iter().map(|entry| AddressRange::from(entry.remote));
        let changes = networks.flat_map(|network| {
            let start = remote.contains(network.first()).then(|| network.first());
            let end = remote.index_of(network.last());
            [start, end.and_then(|index| remote.nth(index.checked_add(1)?))]
        });
        std::iter::once(remote.first()).chain(changes.flatten()).collect()
    }

    /// The addresses of `remotes` whose replies get through to no port from 1024 up.
    fn unreachable(&self, protocol: Protocol, remotes: &[AddressRange]) -> Vec<AddressRange> {
        let mut found: Vec<AddressRange> = Vec::new();
        for remote in remotes {
            let starts: Vec<_> = self.starts(*remote).into_iter().collect();
            let ends = starts.iter().skip(1).map(|next| {
                let index = remote.index_of(*next).and_then(|index| index.checked_sub(1));
                index.and_then(|index| remote.nth(index))
            });
            let ends = ends.chain([Some(remote.last())]);
            let mut run: Option<AddressRange> = None;
            for (start, end) in starts.iter().zip(ends) {
                let is_open = is_reachable(&self.reply_ports_from(protocol, *start));
                let part = end.and_then(|end| AddressRange::new(*start, end).ok());
                match (part.filter(|_| !is_open), run) {
                    (Some(part), Some(before)) => {
                        run = AddressRange::new(before.first(), part.last()).ok();
                    }
                    (part, before) => {
                        found.extend(before);
                        run = part;
                    }
                }
            }
            found.extend(run);
        }
        found
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
            let acl = self.id.clone();
            if self.reply_ports(protocol, remotes).is_empty() {
                notes.push(Note::NoReplies { acl, protocol });
            } else {
                let remotes = self.unreachable(protocol, remotes);
                if !remotes.is_empty() {
                    notes.push(Note::Unreachable { acl, protocol, remotes });
                }
            }
        }
        notes
    }
}

/// Whether replies get through to a port that a client uses.
fn is_reachable(ports: &PortSet) -> bool {
    !ports.intersection(&PortRange::EPHEMERAL.into()).is_empty()
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
    /// The remote addresses to which it applies.
    pub remote: IpNet,
    /// The packets to which it applies.
    pub traffic: Traffic,
    /// Its verdict.
    pub action: Action,
}

impl Entry {
    /// Whether it decides on TCP or UDP.
    fn is_of_ports(&self) -> bool {
        [Protocol::Tcp, Protocol::Udp].into_iter().any(|p| !self.traffic.ports(p).is_empty())
    }

    /// Whether it applies to some of `remotes`, but not to all in its family.
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

/// The verdict of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The packets get through.
    Allow,
    /// The packets are dropped.
    Deny,
}

/// The packets to which an entry applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Every packet, whatever its protocol.
    All,
    /// The packets of one protocol to these ports.
    Protocol {
        /// The IANA protocol number.
        number: u8,
        /// The destination ports; all, for protocols whose ports AWS does not compare.
        ports: PortSet,
    },
    /// A protocol that we do not know; it matches no packet here.
    Unknown(Box<str>),
}

impl Traffic {
    /// The ports of `protocol`.
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
            Self::Unknown(text) => write!(f, "protocol {}", quoted(text)),
        }
    }
}

#[cfg(test)]
mod tests;
