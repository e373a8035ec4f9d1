//! The protocols whose source port, or for ICMP whose echo identifier, the kernel's NAT can translate.
//!
//! Conntrack distinguishes echo requests by their identifier as it distinguishes connections by their source
//! port, and NAT translates it in the same way (RFC 5508, RFC 7597 §8.2).
//!
//! DCCP has ports too, but since Linux 6.16 the kernel tracks it without them: its address is
//! translated, its port is not. It is refused by name rather than accepted in vain.

use std::array;
use std::fmt;
use std::iter::Flatten;
use std::ops::{BitAnd, BitOr, Not, Sub};
use std::str::FromStr;

use thiserror::Error;

use crate::net::family::{Families, Family};
use crate::text::{excerpt, quoted};

/// A protocol with translatable ports or identifiers; its number is the IANA protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
    /// RFC 9260.
    Sctp = 132,
    /// RFC 3828. The kernel tracks local connections; forwarded packets are in state INVALID. Since
    /// Linux 7.2, at the latest, it does not know the protocol and translates only the address.
    UdpLite = 136,
    /// RFC 792: the identifiers of echo requests. Other messages are never in scope.
    Icmp = 1,
    /// RFC 4443: the same for IPv6.
    Icmpv6 = 58,
}

impl Protocol {
    /// All of them: those with ports by number, then those with identifiers.
    pub const ALL: [Self; 6] =
        [Self::Tcp, Self::Udp, Self::Sctp, Self::UdpLite, Self::Icmp, Self::Icmpv6];

    /// The IANA protocol number, as in the IPv4 protocol and IPv6 next header fields.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol with this IANA number, if its ports or identifiers are translatable.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    /// Whether its packets have ports. Those of ICMP have an identifier in place of the source port, and
    /// nothing in place of the destination port.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        !matches!(self, Self::Icmp | Self::Icmpv6)
    }

    /// The only family that the protocol belongs to; `None` for both.
    #[must_use]
    pub const fn family(self) -> Option<Family> {
        match self {
            Self::Icmp => Some(Family::Ipv4),
            Self::Icmpv6 => Some(Family::Ipv6),
            Self::Tcp | Self::Udp | Self::Sctp | Self::UdpLite => None,
        }
    }

    /// Whether packets of the family can be of the protocol.
    #[must_use]
    pub fn is_of(self, family: Family) -> bool {
        self.family().is_none_or(|only| only == family)
    }

    /// The name that iptables uses, and nft in `meta l4proto`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::UdpLite => "udplite",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
        }
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let name = if text.eq_ignore_ascii_case("ipv6-icmp") { "icmpv6" } else { text };
        let known =
            Self::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name));
        known.ok_or_else(|| match text.to_ascii_lowercase().as_str() {
            "dccp" => ProtocolError::Dccp,
            "gre" | "esp" | "ah" => ProtocolError::WithoutPorts { text: text.into() },
            _ => ProtocolError::Unknown { text: text.into() },
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of protocols, in the order of [`Protocol::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocols(u8);

impl Protocols {
    /// No protocol.
    pub const EMPTY: Self = Self(0);
    /// Every protocol.
    pub const ALL: Self = Self(0b11_1111);
    /// TCP and UDP, the default of a policy.
    pub const DEFAULT: Self = Self(0b00_0011);
    /// These and the echo identifiers of ICMP, the default with `map-e` and `blocks`.
    pub const WITH_IDENTIFIERS: Self = Self(0b11_0011);

    fn bit(protocol: Protocol) -> u8 {
        Protocol::ALL.iter().zip(0u8..).find(|(p, _)| **p == protocol).map_or(0, |(_, i)| 1 << i)
    }

    /// Whether `protocol` is in the set.
    #[must_use]
    pub fn contains(self, protocol: Protocol) -> bool {
        self.0 & Self::bit(protocol) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those to which packets of one of the families can belong.
    #[must_use]
    pub fn of(self, families: Families) -> Self {
        self.iter().filter(|protocol| families.iter().any(|of| protocol.is_of(of))).collect()
    }

    /// Each protocol.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.into_iter().filter(move |protocol| self.contains(*protocol))
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        Self(protocols.into_iter().fold(0, |bits, protocol| bits | Self::bit(protocol)))
    }
}

impl IntoIterator for Protocols {
    type Item = Protocol;
    type IntoIter = Flatten<array::IntoIter<Option<Protocol>, { Protocol::ALL.len() }>>;

    fn into_iter(self) -> Self::IntoIter {
        let of = |protocol| Some(protocol).filter(|protocol| self.contains(*protocol));
        Protocol::ALL.map(of).into_iter().flatten()
    }
}

impl From<Protocol> for Protocols {
    fn from(protocol: Protocol) -> Self {
        Self(Self::bit(protocol))
    }
}

impl Extend<Protocol> for Protocols {
    fn extend<I: IntoIterator<Item = Protocol>>(&mut self, protocols: I) {
        *self = *self | protocols.into_iter().collect();
    }
}

impl BitOr for Protocols {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Protocols {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Protocols {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl Not for Protocols {
    type Output = Self;

    fn not(self) -> Self {
        Self::ALL - self
    }
}

/// Names joined by commas: `tcp,udp`.
impl FromStr for Protocols {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        text.split(',').map(|name| name.trim().parse()).collect()
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Protocol::name).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Why a text is not the name of a protocol that a policy can match.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// An unknown name.
    #[error("unknown protocol {}: expected tcp, udp, udplite, sctp, icmp or icmpv6", quoted(text))]
    Unknown {
        /// What was written.
        text: Box<str>,
    },
    /// A protocol without ports.
    #[error(
        "{} has no ports to translate: expected tcp, udp, udplite, sctp, icmp or icmpv6",
        excerpt(text)
    )]
    WithoutPorts {
        /// The protocol's name.
        text: Box<str>,
    },
    /// The kernel does not translate DCCP's ports.
    #[error(
        "the kernel translates the address of dccp but not its ports: \
         expected tcp, udp, udplite, sctp, icmp or icmpv6"
    )]
    Dccp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::errors;
    use expect_test::expect;

    #[test]
    fn sets_print_and_parse() {
        for bits in 1..64 {
            let set = Protocols(bits);
            assert_eq!(set.into_iter().collect::<Protocols>(), set);
            assert_eq!((!set & set, !set | set), (Protocols::EMPTY, Protocols::ALL));
            let mut extended = Protocols::from(Protocol::Udp);
            extended.extend(set);
            assert_eq!(extended - set, Protocols::from(Protocol::Udp) - set);
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(set.iter().collect::<Protocols>(), set);
        }
        assert_eq!(Protocols::DEFAULT.to_string(), "tcp,udp");
    }

    /// IANA's numbers.
    #[test]
    fn a_protocol_has_its_number() {
        let numbers =
            [("tcp", 6), ("udp", 17), ("sctp", 132), ("udplite", 136), ("icmp", 1), ("icmpv6", 58)];
        for (name, number) in numbers {
            let protocol: Protocol = name.parse().unwrap();
            assert_eq!((protocol.number(), protocol.to_string()), (number, name.into()));
            assert_eq!(Protocol::from_number(number), Some(protocol));
        }
        assert_eq!(Protocol::from_number(47), None);
        assert_eq!("IPv6-ICMP".parse(), Ok(Protocol::Icmpv6));
    }

    #[test]
    fn icmp_belongs_to_one_family() {
        let all: Protocols = Protocol::ALL.into_iter().collect();
        assert_eq!(all.of(Families::Ipv4).to_string(), "tcp,udp,sctp,udplite,icmp");
        assert_eq!(all.of(Families::Ipv6).to_string(), "tcp,udp,sctp,udplite,icmpv6");
        assert_eq!(Protocols::WITH_IDENTIFIERS.to_string(), "tcp,udp,icmp,icmpv6");
        assert_eq!(all.of(Families::Both), all);
    }

    #[test]
    fn protocol_set_contains_its_members() {
        let none: Protocols = [].into_iter().collect();
        assert!(none.is_empty() && !Protocols::DEFAULT.is_empty());
        let twice = [Protocol::Udp, Protocol::Udp].into_iter().collect::<Protocols>();
        assert!(twice.contains(Protocol::Udp) && !twice.contains(Protocol::Tcp));
        assert_eq!(format!("{:?}", Protocols::DEFAULT), "{Tcp, Udp}");
    }

    #[test]
    fn errors_of_protocols() {
        let errors = errors::<Protocols>(&["quic", "", "gre", "dccp"]);
        expect![[r#"
            "quic" => unknown protocol `quic`: expected tcp, udp, udplite, sctp, icmp or icmpv6
            "" => unknown protocol ``: expected tcp, udp, udplite, sctp, icmp or icmpv6
            "gre" => gre has no ports to translate: expected tcp, udp, udplite, sctp, icmp or icmpv6
            "dccp" => the kernel translates the address of dccp but not its ports: expected tcp, udp, udplite, sctp, icmp or icmpv6
        "#]].assert_eq(&errors);
    }
}
