//! A customer's IPv4 address and ports, worked out from its IPv6 prefix: RFC 7597 §5.2.
//!
//! The provider's *basic mapping rule* says which bits of a delegated IPv6 prefix, the *embedded
//! address* (EA) bits, hold the end of the IPv4 address and the PSID. Providers that hand out the
//! PSID itself need [`PsidRule`] alone; [`MapE`] is either, as it is written on a command line:
//!
//! ```
//! use ephport_core::MapE;
//!
//! let derived: MapE = "ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,\
//!                      delegated=2001:db8:12:3400::/56".parse()?;
//! let given: MapE = "psid=52,psid-len=8,offset=6".parse()?;
//! assert_eq!(derived.ports(), given.ports());
//! # Ok::<(), ephport_core::MapEError>(())
//! ```
//!
//! Prefixes are kept without the bits after their length.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::allocation::key_values::KeyValues;
use crate::allocation::psid::{PsidError, PsidRule};
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;

/// Where a customer's ports come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapE {
    /// The provider names the port set.
    Psid(PsidRule),
    /// The port set follows from the delegated IPv6 prefix.
    Allocation(Allocation),
}

impl MapE {
    /// The customer's ports; never none.
    #[must_use]
    pub fn ports(&self) -> PortSet {
        match self {
            Self::Psid(rule) => rule.ports(),
            Self::Allocation(allocation) => allocation.ports(),
        }
    }
}

/// The provider's basic mapping rule (RFC 7597 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BasicMappingRule {
    ipv6_prefix: Ipv6Net,
    ipv4_prefix: Ipv4Net,
    port_set: PortSetSource,
}

/// How a customer of a rule learns its port set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PortSetSource {
    /// From what the EA bits hold after the end of the IPv4 address.
    Embedded { ea_len: u8, offset: u8 },
    /// By DHCP or by hand; there are no EA bits.
    Provisioned(PsidRule),
}

impl BasicMappingRule {
    /// The most EA bits: a whole IPv4 address and a whole port.
    pub const MAX_EA_LEN: u8 = 48;

    /// The rule by which the `ea_len` bits after `ipv6_prefix` complete `ipv4_prefix`; what is left
    /// of them after that is the PSID, which stands `offset` bits into a port.
    pub fn new(
        ipv6_prefix: Ipv6Net,
        ipv4_prefix: Ipv4Net,
        ea_len: u8,
        offset: u8,
    ) -> Result<Self, MapEError> {
        let (ipv6_prefix, ipv4_prefix) = (ipv6_prefix.trunc(), ipv4_prefix.trunc());
        let available = Self::MAX_EA_LEN.min(128 - ipv6_prefix.prefix_len());
        if ea_len > available {
            return Err(MapEError::EaLen { ea_len, ipv6_prefix, available });
        }
        PsidRule::check_bits(offset, ea_len.saturating_sub(suffix_len(ipv4_prefix)))?;
        let port_set = PortSetSource::Embedded { ea_len, offset };
        Ok(Self { ipv6_prefix, ipv4_prefix, port_set })
    }

    /// The rule without EA bits, by which one customer has this port set of this address.
    #[must_use]
    pub fn provisioned(ipv6_prefix: Ipv6Net, address: Ipv4Addr, psid: PsidRule) -> Self {
        Self {
            ipv6_prefix: ipv6_prefix.trunc(),
            ipv4_prefix: address.into(),
            port_set: PortSetSource::Provisioned(psid),
        }
    }

    /// The prefix in which all customers' delegated prefixes are.
    #[must_use]
    pub fn ipv6_prefix(&self) -> Ipv6Net {
        self.ipv6_prefix
    }

    /// How many bits of the delegated prefix follow the rule's, 0 to 48: RFC 7597's o.
    #[must_use]
    pub fn ea_len(&self) -> u8 {
        match self.port_set {
            PortSetSource::Embedded { ea_len, .. } => ea_len,
            PortSetSource::Provisioned(_) => 0,
        }
    }

    /// What the customer has to whom `delegated`, the end-user IPv6 prefix, was given.
    ///
    /// A longer prefix than the rule asks for is fine: only its first bits matter.
    pub fn for_prefix(&self, delegated: Ipv6Net) -> Result<Allocation, MapEError> {
        let (rule, delegated) = (*self, delegated.trunc());
        if !self.ipv6_prefix.contains(&delegated) {
            return Err(MapEError::Outside { delegated, ipv6_prefix: self.ipv6_prefix });
        }
        let expected = self.ipv6_prefix.prefix_len() + self.ea_len();
        if delegated.prefix_len() < expected {
            return Err(MapEError::TooShort { delegated, expected });
        }
        let (ipv4, psid) = match self.port_set {
            PortSetSource::Provisioned(psid) => (self.ipv4_prefix, Some(psid)),
            PortSetSource::Embedded { ea_len, offset } => {
                let ea_bits = bits(delegated.addr(), self.ipv6_prefix.prefix_len(), ea_len);
                self.split(ea_bits, ea_len, offset)?
            }
        };
        Ok(Allocation { rule, delegated, ipv4, psid })
    }

    /// Cuts the EA bits in the end of the IPv4 address and the PSID.
    fn split(
        &self,
        ea_bits: u64,
        ea_len: u8,
        offset: u8,
    ) -> Result<(Ipv4Net, Option<PsidRule>), MapEError> {
        let address_len = ea_len.min(suffix_len(self.ipv4_prefix));
        let psid_len = ea_len - address_len;
        let missing = suffix_len(self.ipv4_prefix) - address_len;
        let suffix = (ea_bits >> psid_len) << missing;
        let address = u64::from(self.ipv4_prefix.addr().to_bits()) | suffix;
        // Both are 32 bits at most, because the suffix fits behind the prefix.
        let address = Ipv4Addr::from_bits(u32::try_from(address).unwrap_or(u32::MAX));
        let ipv4 = Ipv4Net::new_assert(address, 32 - missing);
        if psid_len == 0 {
            return Ok((ipv4, None));
        }
        let psid = u16::try_from(ea_bits & ((1 << psid_len) - 1)).unwrap_or(u16::MAX);
        Ok((ipv4, Some(PsidRule::new(offset, psid_len, psid)?)))
    }
}

/// How many bits an address has after the prefix: RFC 7597's p.
fn suffix_len(prefix: Ipv4Net) -> u8 {
    32 - prefix.prefix_len()
}

/// The `len` (at most 48) bits of `address` after its first `skip`.
fn bits(address: Ipv6Addr, skip: u8, len: u8) -> u64 {
    let from_left = u128::from(address).checked_shl(skip.into()).unwrap_or(0);
    let bits = from_left.checked_shr(128 - u32::from(len)).unwrap_or(0);
    u64::try_from(bits).unwrap_or(u64::MAX)
}

/// What a customer has by a rule: an IPv4 address, a part of one, or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Allocation {
    rule: BasicMappingRule,
    delegated: Ipv6Net,
    ipv4: Ipv4Net,
    psid: Option<PsidRule>,
}

impl Allocation {
    /// The customer's IPv4 address as a /32, or its prefix when it has several.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Net {
        self.ipv4
    }

    /// Its port set, when it shares the address with others.
    #[must_use]
    pub fn psid(&self) -> Option<PsidRule> {
        self.psid
    }

    /// Its ports: all of them, when it does not share the address. Never none.
    #[must_use]
    pub fn ports(&self) -> PortSet {
        self.psid.map_or_else(|| PortRange::ALL.into(), PsidRule::ports)
    }
}

/// `psid=52,psid-len=8,offset=6`, or `ipv6-prefix=...,ipv4-prefix=...,ea-len=...,offset=...,
/// delegated=...`, where `psid` and `psid-len` may follow an `ea-len` of 0. The offset is 6 when
/// left out; a PSID may be written in hexadecimal, `0x34`.
impl FromStr for MapE {
    type Err = MapEError;

    fn from_str(text: &str) -> Result<Self, MapEError> {
        let pairs = KeyValues::parse(text)?;
        let of_a_rule = ["ipv6-prefix", "ipv4-prefix", "ea-len", "delegated"];
        if !of_a_rule.into_iter().any(|key| pairs.has(key)) {
            return psid_rule(&pairs).map(Self::Psid);
        }
        let rule = mapping_rule(&pairs)?;
        let delegated = pairs.prefix("delegated", "2001:db8:12:3400::/56")?;
        rule.for_prefix(delegated).map(Self::Allocation)
    }
}

fn mapping_rule(pairs: &KeyValues<'_>) -> Result<BasicMappingRule, MapEError> {
    let ipv6_prefix = pairs.prefix("ipv6-prefix", "2001:db8::/40")?;
    let ipv4_prefix: Ipv4Net = pairs.prefix("ipv4-prefix", "192.0.2.0/24")?;
    let ea_len = pairs.number("ea-len", BasicMappingRule::MAX_EA_LEN)?;
    if !pairs.has("psid") && !pairs.has("psid-len") {
        return BasicMappingRule::new(ipv6_prefix, ipv4_prefix, ea_len, offset(pairs)?);
    }
    let psid = psid_rule(pairs)?;
    if ea_len > 0 || ipv4_prefix.prefix_len() < 32 {
        return Err(MapEError::PsidTwice { ea_len, ipv4_prefix });
    }
    Ok(BasicMappingRule::provisioned(ipv6_prefix, ipv4_prefix.addr(), psid))
}

fn psid_rule(pairs: &KeyValues<'_>) -> Result<PsidRule, MapEError> {
    let psid = pairs.number("psid", u16::MAX)?;
    let len = pairs.number("psid-len", PsidRule::MAX_LEN)?;
    Ok(PsidRule::new(offset(pairs)?, len, psid)?)
}

fn offset(pairs: &KeyValues<'_>) -> Result<u8, MapEError> {
    if pairs.has("offset") {
        pairs.number("offset", PsidRule::MAX_OFFSET)
    } else {
        Ok(PsidRule::DEFAULT_OFFSET)
    }
}

impl fmt::Display for MapE {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Psid(rule) => write!(f, "{rule}"),
            Self::Allocation(allocation) => write!(f, "{allocation}"),
        }
    }
}

impl fmt::Display for BasicMappingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ipv6-prefix={},ipv4-prefix={},", self.ipv6_prefix, self.ipv4_prefix)?;
        match self.port_set {
            PortSetSource::Embedded { ea_len, offset } => {
                write!(f, "ea-len={ea_len},offset={offset}")
            }
            PortSetSource::Provisioned(psid) => write!(f, "ea-len=0,{psid}"),
        }
    }
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},delegated={}", self.rule, self.delegated)
    }
}

/// Why a text or numbers do not give a customer's ports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapEError {
    /// A part without `=`.
    #[error("`{text}` is not KEY=VALUE: expected for example psid=52,psid-len=8,offset=6")]
    NotAPair {
        /// The part.
        text: Box<str>,
    },
    /// A key that says nothing of MAP-E.
    #[error("unknown key `{key}`: expected {}", KeyValues::KNOWN.join(", "))]
    UnknownKey {
        /// The key.
        key: Box<str>,
    },
    /// A key given twice.
    #[error("`{key}` is given twice: expected once")]
    Repeated {
        /// The key.
        key: Box<str>,
    },
    /// A key that is needed.
    #[error(
        "`{key}` is missing: expected psid=52,psid-len=8,offset=6, or \
         ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,\
         delegated=2001:db8:12:3400::/56"
    )]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Not a number, or too large a number.
    #[error("{key} `{text}`: expected a number from 0 to {max}")]
    Number {
        /// The key.
        key: &'static str,
        /// Its value.
        text: Box<str>,
        /// The largest number that may stand there.
        max: Box<str>,
    },
    /// Not a prefix of the right family.
    #[error("{key} `{text}`: expected a prefix like {example}")]
    Prefix {
        /// The key.
        key: &'static str,
        /// Its value.
        text: Box<str>,
        /// What one looks like.
        example: &'static str,
    },
    /// The port set does not exist.
    #[error(transparent)]
    Psid(#[from] PsidError),
    /// More EA bits than MAP-E has, or than follow the prefix.
    #[error("ea-len {ea_len} is too large: after {ipv6_prefix} expected 0 to {available}")]
    EaLen {
        /// The number of EA bits.
        ea_len: u8,
        /// The rule's IPv6 prefix.
        ipv6_prefix: Ipv6Net,
        /// The most that there may be.
        available: u8,
    },
    /// A PSID is given beside EA bits or a prefix that would hold one.
    #[error(
        "psid is given beside ea-len {ea_len} and ipv4-prefix {ipv4_prefix}: \
         expected ea-len=0 and one address (/32), or no psid"
    )]
    PsidTwice {
        /// The number of EA bits.
        ea_len: u8,
        /// The rule's IPv4 prefix.
        ipv4_prefix: Ipv4Net,
    },
    /// The delegated prefix is not of this rule.
    #[error("delegated prefix {delegated} is not of this rule: expected one inside {ipv6_prefix}")]
    Outside {
        /// The delegated prefix.
        delegated: Ipv6Net,
        /// The rule's IPv6 prefix.
        ipv6_prefix: Ipv6Net,
    },
    /// The delegated prefix does not hold all the EA bits.
    #[error("delegated prefix {delegated} ends among the EA bits: expected /{expected} or longer")]
    TooShort {
        /// The delegated prefix.
        delegated: Ipv6Net,
        /// The shortest length.
        expected: u8,
    },
}

#[cfg(test)]
mod tests;
