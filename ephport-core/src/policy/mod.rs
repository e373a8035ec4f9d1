//! A policy: from which source ports the connections in its scope may leave.
//!
//! ```
//! use ephport_core::{Policy, PolicySpec, Target};
//!
//! // The original one-liner's range, for every TCP and UDP connection by the uplinks.
//! let range = "49152-61000".parse()?;
//! let policy = Policy::new(PolicySpec::to(Target::Ports(range)))?;
//! assert_eq!(policy.source_ports.to_string(), "1024-65535");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod file;
pub mod scope;
pub mod selection;

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;

use thiserror::Error;

use crate::allocation::block_table::BlockTable;
use crate::net::family::{Families, Family};
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::word::{WordError, words};
use scope::Scope;
use selection::NatFlags;

/// The longest policy name in bytes: with it, the comment on a rule stays readable.
pub const MAX_NAME_LEN: usize = 32;

/// What a policy is called in comments, chains and messages: a letter, then letters, digits, `_`,
/// `-` and `.`, at most 32 bytes, so that nft can read it as an identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Box<str>);

impl PolicyName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PolicyName {
    /// The name of a policy that is given by flags alone.
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for PolicyName {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let fits = (1..=MAX_NAME_LEN).contains(&text.len());
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_identifier =
            text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if fits && starts_well && is_identifier {
            Ok(Self(text.into()))
        } else {
            Err(PolicyError::Name { text: text.into() })
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What one says of a policy; [`Policy::new`] checks that its parts fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// What it is called.
    pub name: PolicyName,
    /// Which connections it speaks of.
    pub scope: Scope,
    /// The source ports that it moves; the ephemeral ports unless narrowed.
    pub source_ports: PortSet,
    /// Of these, the ones that keep their meaning and are not moved.
    pub exempt: PortSet,
    /// Where to.
    pub target: Target,
    /// Ports taken out of the target.
    pub except_ports: PortSet,
    /// The flags of the kernel's NAT.
    pub flags: NatFlags,
    /// Whether one socket gets one range for all destinations, by a hash of its address and port
    /// (endpoint-independent mapping, RFC 4787 section 4.1).
    pub per_source_stable: bool,
    /// What becomes of the source address.
    pub address: Address,
    /// From which packets of a TCP connection it may start.
    pub pick_up: PickUp,
    /// Whether packets with another source port are dropped.
    pub enforce: bool,
    /// What enforcement does to connections that were open when the policy was first applied.
    pub open_connections: OpenConnections,
}

impl PolicySpec {
    /// A policy with this target, and the default for all else.
    #[must_use]
    pub fn to(target: Target) -> Self {
        Self {
            name: PolicyName::default(),
            scope: Scope::default(),
            source_ports: PortRange::EPHEMERAL.into(),
            exempt: PortSet::EMPTY,
            target,
            except_ports: PortSet::EMPTY,
            flags: NatFlags::default(),
            per_source_stable: false,
            address: Address::default(),
            pick_up: PickUp::default(),
            enforce: false,
            open_connections: OpenConnections::default(),
        }
    }
}

/// The ports that a policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These ports; not empty.
    Ports(PortSet),
    /// The host's own `ip_local_port_range`, as it is when the policy is applied.
    Local,
    /// To each source its own block.
    Blocks(BlockTable),
}

/// What becomes of the source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Address {
    /// It becomes an address of the interface that the connection leaves by: in IPv4 the primary
    /// one, in IPv6 the one that source address selection finds (RFC 6724).
    #[default]
    Masquerade,
    /// It stays.
    Keep,
    /// It becomes this one; only connections of its family are in scope.
    Fixed(IpAddr),
}

impl FromStr for Address {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        const EXPECTED: &str = "masquerade, keep or an address like 192.0.2.1";
        match text {
            "masquerade" => Ok(Self::Masquerade),
            "keep" => Ok(Self::Keep),
            _ => text.parse().map(Self::Fixed).map_err(|_| WordError { expected: EXPECTED }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => f.write_str("masquerade"),
            Self::Keep => f.write_str("keep"),
            Self::Fixed(address) => address.fmt(f),
        }
    }
}

/// From which packets of a TCP connection a policy may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PickUp {
    /// The opening segment alone (SYN without ACK, RST or FIN): connections that were open before
    /// the policy came keep their port.
    #[default]
    Opening,
    /// Any packet that conntrack takes for the first, as iptables does it. The first NAT rule on a
    /// host then breaks the TCP connections that are open.
    Any,
}

words!(PickUp, "opening or any", Opening = "opening", Any = "any");

/// What enforcement does to connections that were open when the policy was first applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OpenConnections {
    /// They continue with the source port that they have.
    #[default]
    Keep,
    /// They are dropped unless their source port is permitted.
    Drop,
}

words!(OpenConnections, "keep or drop", Keep = "keep", Drop = "drop");

/// A policy whose parts fit together; they are read through [`PolicySpec`]'s fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy(PolicySpec);

impl Policy {
    /// Checks that the parts fit together.
    pub fn new(spec: PolicySpec) -> Result<Self, PolicyError> {
        if spec.source_ports.is_subset(&spec.exempt) {
            return Err(PolicyError::NoSourcePorts);
        }
        if spec.scope.protocols.is_empty() {
            return Err(PolicyError::NoProtocol);
        }
        if let Address::Fixed(address) = spec.address
            && !spec.scope.families.contains(Family::of(address))
        {
            return Err(PolicyError::AddressFamily { address });
        }
        match &spec.target {
            Target::Ports(ports) if ports.is_subset(&spec.except_ports) => {
                Err(PolicyError::NoTargetPorts)
            }
            Target::Blocks(blocks) => spec.check_blocks(blocks).map(|()| Self(spec)),
            _ => Ok(Self(spec)),
        }
    }

    /// The families that its address leaves in scope.
    #[must_use]
    pub fn families(&self) -> Families {
        match self.address {
            Address::Fixed(address) => Family::of(address).into(),
            Address::Masquerade | Address::Keep => self.scope.families,
        }
    }
}

impl PolicySpec {
    fn check_blocks(&self, blocks: &BlockTable) -> Result<(), PolicyError> {
        if !self.except_ports.is_empty() {
            return Err(PolicyError::ExceptFromBlocks);
        }
        if self.per_source_stable {
            return Err(PolicyError::StableBlocks);
        }
        let names_addresses = blocks.iter().next().is_some_and(|block| block.outside.is_some());
        if names_addresses && self.address != Address::Masquerade {
            return Err(PolicyError::TwoAddresses);
        }
        Ok(())
    }
}

impl Deref for Policy {
    type Target = PolicySpec;

    fn deref(&self) -> &PolicySpec {
        &self.0
    }
}

/// Why the parts of a policy do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not usable as an identifier.
    #[error(
        "`{text}` cannot name a policy: expected a letter, then letters, digits, `_`, `-` or `.`, \
         at most {MAX_NAME_LEN} in all"
    )]
    Name {
        /// What was written.
        text: Box<str>,
    },
    /// The source ports to move are none.
    #[error("no source port is moved: name at least one, like 1024-65535")]
    NoSourcePorts,
    /// The target holds no port.
    #[error("no port is allowed: name at least one to go to, like 49152-61000")]
    NoTargetPorts,
    /// The fixed address is of a family out of scope.
    #[error("address {address} is of a family that the policy leaves alone: name one of its own")]
    AddressFamily {
        /// The fixed address.
        address: IpAddr,
    },
    /// A block table says itself which ports there are.
    #[error("ports cannot be taken out of a block table: leave them out of its own ports instead")]
    ExceptFromBlocks,
    /// Both the block table and the policy name addresses.
    #[error("the block table names the outside addresses: do not name another one for the policy")]
    TwoAddresses,
    /// A block table has no spread.
    #[error("each source has one block: per-source-stable means nothing for a block table")]
    StableBlocks,
    /// The scope holds no protocol.
    #[error("no protocol is named: expected tcp, udp, udplite or sctp")]
    NoProtocol,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_was_expected() {
        let good = PolicySpec::to(Target::Ports(PortRange::EPHEMERAL.into()));
        let table = "10.0.0.0/30=64@192.0.2.1:1024-65535".parse().unwrap();
        let blocks = PolicySpec::to(Target::Blocks(table));
        let mut no_protocol = good.clone();
        no_protocol.scope.protocols = std::iter::empty().collect();
        let cases = [
            (
                PolicySpec { source_ports: PortSet::EMPTY, ..good.clone() },
                "no source port is moved: name at least one, like 1024-65535",
            ),
            (
                PolicySpec { target: Target::Ports(PortSet::EMPTY), ..good.clone() },
                "no port is allowed: name at least one to go to, like 49152-61000",
            ),
            (
                PolicySpec { except_ports: PortRange::EPHEMERAL.into(), ..good.clone() },
                "no port is allowed: name at least one to go to, like 49152-61000",
            ),
            (
                PolicySpec { exempt: PortRange::ALL.into(), ..good.clone() },
                "no source port is moved: name at least one, like 1024-65535",
            ),
            (
                PolicySpec {
                    address: Address::Fixed("192.0.2.1".parse().unwrap()),
                    scope: Scope { families: Families::Ipv6, ..Scope::default() },
                    ..good.clone()
                },
                "address 192.0.2.1 is of a family that the policy leaves alone: \
                 name one of its own",
            ),
            (
                PolicySpec { except_ports: PortRange::PRIVILEGED.into(), ..blocks.clone() },
                "ports cannot be taken out of a block table: \
                 leave them out of its own ports instead",
            ),
            (
                PolicySpec { address: Address::Keep, ..blocks.clone() },
                "the block table names the outside addresses: \
                 do not name another one for the policy",
            ),
            (
                PolicySpec { per_source_stable: true, ..blocks },
                "each source has one block: per-source-stable means nothing for a block table",
            ),
            (no_protocol, "no protocol is named: expected tcp, udp, udplite or sctp"),
        ];
        for (spec, message) in cases {
            assert_eq!(Policy::new(spec).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_fixed_address_narrows_the_families() {
        let target = || PolicySpec::to(Target::Ports(PortRange::EPHEMERAL.into()));
        let families = |address: &str| {
            Policy::new(PolicySpec { address: address.parse().unwrap(), ..target() })
                .map(|policy| policy.families())
        };
        assert_eq!(families("masquerade"), Ok(Families::Both));
        assert_eq!(families("keep"), Ok(Families::Both));
        assert_eq!(families("192.0.2.1"), Ok(Families::Ipv4));
        assert_eq!(families("2001:db8::1"), Ok(Families::Ipv6));
    }

    #[test]
    fn a_table_without_outside_addresses_leaves_the_address_to_the_policy() {
        let table = "10.0.0.0/30=64@1024-65535".parse().unwrap();
        let spec = PolicySpec { address: Address::Keep, ..PolicySpec::to(Target::Blocks(table)) };
        assert!(Policy::new(spec).is_ok());
    }

    #[test]
    fn names_are_identifiers_of_nft() {
        for name in ["default", "builds", "a", "A-b_c.9", &"x".repeat(32)] {
            let parsed = name.parse::<PolicyName>().unwrap();
            assert_eq!((parsed.as_str(), parsed.to_string().as_str()), (name, name));
            assert_eq!(format!("{parsed:?}"), format!("{name:?}"));
        }
        for name in ["", "9a", "-a", "a b", "a\"b", "é", &"x".repeat(33)] {
            assert_eq!(
                name.parse::<PolicyName>().unwrap_err().to_string(),
                format!(
                    "`{name}` cannot name a policy: expected a letter, then letters, digits, `_`, \
                     `-` or `.`, at most 32 in all"
                )
            );
        }
    }
}
