//! A customer's IPv4 address and ports, worked out from its IPv6 prefix: RFC 7597 §5.2.
//!
//! The provider's *basic mapping rule* names the bits of a delegated IPv6 prefix, the *embedded
//! address* (EA) bits, that contain the end of the IPv4 address and the PSID. Providers that hand out the
//! PSID itself need only [`PsidRule`]; [`MapE`] is either, as it is written on a command line:
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

mod error;
mod key_values;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

pub use self::error::MapEError;
use self::key_values::KeyValues;
use crate::allocation::psid::PsidRule;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;

/// Where a customer's ports come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// From the EA bits after the end of the IPv4 address.
    Embedded { ea_len: u8, offset: u8 },
    /// By DHCP or by hand; there are no EA bits.
    Provisioned(PsidRule),
}

impl BasicMappingRule {
    /// The most EA bits: a whole IPv4 address and a whole port.
    pub const MAX_EA_LEN: u8 = 48;

    /// The rule by which the `ea_len` bits after `ipv6_prefix` complete `ipv4_prefix`; the bits
    /// after that are the PSID, which is `offset` bits into a port.
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
        // Both are 32 bits at most, because the suffix fits after the prefix.
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
/// delegated=...`, or the line `rule=type=map-e,...` of OpenWrt with its own names of the keys.
///
/// `psid-len` may follow an `ea-len` with as many bits for the PSID, and so may `psid`.
/// The offset is 6 by default; a PSID may be written in hexadecimal, `0x34`.
impl FromStr for MapE {
    type Err = MapEError;

    fn from_str(text: &str) -> Result<Self, MapEError> {
        let pairs = KeyValues::parse(text)?;
        if !pairs.has_rule() {
            return psid_rule(&pairs, None).map(Self::Psid);
        }
        let ipv6_prefix = pairs.ipv6_prefix()?;
        let ipv4_prefix = pairs.ipv4_prefix()?;
        let ea_len = pairs.number("ea-len", BasicMappingRule::MAX_EA_LEN)?;
        if ea_len == 0 && (pairs.has("psid") || pairs.has("psid-len")) {
            let psid = psid_rule(&pairs, None)?;
            if ipv4_prefix.prefix_len() < 32 {
                return Err(MapEError::PsidTwice { ea_len, ipv4_prefix });
            }
            let rule = BasicMappingRule::provisioned(ipv6_prefix, ipv4_prefix.addr(), psid);
            return delegated(&pairs, rule).map(Self::Allocation);
        }
        let rule = BasicMappingRule::new(ipv6_prefix, ipv4_prefix, ea_len, offset(&pairs)?)?;
        let derived = ea_len.saturating_sub(suffix_len(ipv4_prefix));
        if pairs.has("psid-len") {
            let psid_len = pairs.number("psid-len", PsidRule::MAX_LEN)?;
            if psid_len != derived {
                return Err(MapEError::PsidLen { psid_len, ea_len, ipv4_prefix, derived });
            }
        }
        if !pairs.has("psid") {
            return delegated(&pairs, rule).map(Self::Allocation);
        }
        let given = psid_rule(&pairs, Some(derived))?;
        if !pairs.has("delegated") {
            return Ok(Self::Psid(given));
        }
        let allocation = delegated(&pairs, rule)?;
        match allocation.psid {
            Some(own) if own != given => {
                Err(MapEError::OtherPsid { psid: given.psid(), derived: own.psid() })
            }
            _ => Ok(Self::Allocation(allocation)),
        }
    }
}

fn delegated(pairs: &KeyValues<'_>, rule: BasicMappingRule) -> Result<Allocation, MapEError> {
    rule.for_prefix(pairs.prefix("delegated", "2001:db8:12:3400::/56")?)
}

/// The rule with the PSID that is given, of `derived` bits if the text does not name their number.
fn psid_rule(pairs: &KeyValues<'_>, derived: Option<u8>) -> Result<PsidRule, MapEError> {
    let psid: u16 = pairs.number("psid", u16::MAX)?;
    let len = match derived {
        Some(len) if !pairs.has("psid-len") => len,
        _ => pairs.number("psid-len", PsidRule::MAX_LEN)?,
    };
    let psid = if pairs.is_openwrt() { of_upper_bits(psid, len)? } else { psid };
    Ok(PsidRule::new(offset(pairs)?, len, psid)?)
}

/// The PSID in the first `len` bits of 16, as DHCP sends it (RFC 7598 section 4.5) and mapcalc of
/// OpenWrt reads it.
fn of_upper_bits(psid: u16, len: u8) -> Result<u16, MapEError> {
    let unused = u32::from(16 - len.min(16));
    let value = psid.checked_shr(unused).unwrap_or(0);
    if value.checked_shl(unused).unwrap_or(0) == psid {
        Ok(value)
    } else {
        Err(MapEError::PsidBits { psid, len })
    }
}

fn offset(pairs: &KeyValues<'_>) -> Result<u8, MapEError> {
    if pairs.has("offset") {
        pairs.number("offset", PsidRule::MAX_OFFSET)
    } else {
        Ok(pairs.default_offset())
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

#[cfg(test)]
mod tests;
