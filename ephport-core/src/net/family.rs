//! Address families.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::word::{WordError, words};

/// One of the two address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (RFC 791).
    Ipv4,
    /// IPv6 (RFC 8200).
    Ipv6,
}

words!(Family, "ipv4 or ipv6", Ipv4 = "ipv4", Ipv6 = "ipv6");

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// The family of a network.
    #[must_use]
    pub fn of_network(network: IpNet) -> Self {
        Self::of(network.addr())
    }
}

/// One or both of the address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// Only IPv4.
    Ipv4,
    /// Only IPv6.
    Ipv6,
}

impl Families {
    /// Whether `family` is one of them.
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => family == Family::Ipv4,
            Self::Ipv6 => family == Family::Ipv6,
        }
    }

    /// Each of them, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl From<Family> for Families {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }
}

/// One or both, joined by a comma: `ipv4,ipv6`.
impl FromStr for Families {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let families = text.split(',').map(|word| word.trim().parse::<Family>());
        let families = families.collect::<Result<Vec<_>, _>>()?;
        Ok(match families.as_slice() {
            [first, rest @ ..] if rest.iter().all(|family| family == first) => (*first).into(),
            _ => Self::Both,
        })
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Family::name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_parse_as_printed() {
        for families in [Families::Both, Families::Ipv4, Families::Ipv6] {
            assert_eq!(families.to_string().parse(), Ok(families));
        }
        assert_eq!("IPv6, ipv6".parse(), Ok(Families::Ipv6));
        assert_eq!("ip".parse::<Families>(), Err(WordError { expected: "ipv4 or ipv6" }));
    }
}
