//! The transport protocols whose source port the kernel's NAT can translate.
//!
//! DCCP has ports too, but since Linux 6.16 the kernel tracks it without them: its address is
//! translated, its port is not. It is refused by name rather than accepted in vain.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::{excerpt, quoted};

/// A transport protocol with translatable ports; its number is the IANA protocol number.
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
}

impl Protocol {
    /// All of them, by number.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::UdpLite];

    /// The IANA protocol number, as in the IPv4 protocol and IPv6 next header fields.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol with this IANA number, if its ports are translatable.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    /// The name that nft and iptables use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::UdpLite => "udplite",
        }
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let known =
            Self::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| match text.to_ascii_lowercase().as_str() {
            "dccp" => ProtocolError::Dccp,
            "icmp" | "icmpv6" | "ipv6-icmp" | "gre" | "esp" | "ah" => {
                ProtocolError::WithoutPorts { text: text.into() }
            }
            _ => ProtocolError::Unknown { text: text.into() },
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of protocols, in order of their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocols(u8);

impl Protocols {
    /// TCP and UDP, the default of a policy.
    pub const DEFAULT: Self = Self(0b0011);

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

    /// Each protocol, by number.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.into_iter().filter(move |protocol| self.contains(*protocol))
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        Self(protocols.into_iter().fold(0, |bits, protocol| bits | Self::bit(protocol)))
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
    #[error("unknown protocol {}: expected tcp, udp, udplite or sctp", quoted(text))]
    Unknown {
        /// What was written.
        text: Box<str>,
    },
    /// A protocol without ports.
    #[error("{} has no ports to translate: expected tcp, udp, udplite or sctp", excerpt(text))]
    WithoutPorts {
        /// The protocol's name.
        text: Box<str>,
    },
    /// The kernel does not translate DCCP's ports.
    #[error(
        "the kernel translates the address of dccp but not its ports: \
         expected tcp, udp, udplite or sctp"
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
        for bits in 1..16 {
            let set = Protocols(bits);
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(set.iter().collect::<Protocols>(), set);
        }
        assert_eq!(Protocols::DEFAULT.to_string(), "tcp,udp");
    }

    /// IANA's numbers.
    #[test]
    fn a_protocol_has_its_number() {
        let numbers = [("tcp", 6), ("udp", 17), ("sctp", 132), ("udplite", 136)];
        for (name, number) in numbers {
            let protocol: Protocol = name.parse().unwrap();
            assert_eq!((protocol.number(), protocol.to_string()), (number, name.into()));
            assert_eq!(Protocol::from_number(number), Some(protocol));
        }
        assert_eq!(Protocol::from_number(1), None);
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
        let errors = errors::<Protocols>(&["quic", "", "icmp", "dccp"]);
        expect![[r#"
            "quic" => unknown protocol `quic`: expected tcp, udp, udplite or sctp
            "" => unknown protocol ``: expected tcp, udp, udplite or sctp
            "icmp" => icmp has no ports to translate: expected tcp, udp, udplite or sctp
            "dccp" => the kernel translates the address of dccp but not its ports: expected tcp, udp, udplite or sctp
        "#]].assert_eq(&errors);
    }
}
