//! Consecutive addresses of one family, which can be counted and indexed.
//!
//! ```
//! use ephport_core::AddressRange;
//!
//! let hosts: AddressRange = "198.51.100.1-198.51.100.14".parse()?;
//! assert_eq!(hosts.count(), 14);
//! assert_eq!(hosts.nth(13), Some("198.51.100.14".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::net::family::Family;
use crate::text::quoted;

/// Consecutive addresses of one family, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Every IPv4 address.
    pub const ALL_IPV4: Self =
        Self { first: IpAddr::V4(Ipv4Addr::UNSPECIFIED), last: IpAddr::V4(Ipv4Addr::BROADCAST) };
    /// Every IPv6 address.
    pub const ALL_IPV6: Self = Self {
        first: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        last: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    };

    /// The addresses from `first` to `last`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, AddressRangeError> {
        if first.is_ipv4() != last.is_ipv4() {
            return Err(AddressRangeError::Families { first, last });
        }
        if first > last {
            return Err(AddressRangeError::Reversed { first, last });
        }
        Ok(Self { first, last })
    }

    /// The lowest address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// The family of all of them.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.first)
    }

    /// The number of addresses; `u128::MAX` for all of IPv6, which are one more.
    #[must_use]
    pub fn count(self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// Whether `address` is one of these.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.index_of(address).is_some()
    }

    /// How many addresses of the range are below `address`, if it is one of these.
    #[must_use]
    pub fn index_of(self, address: IpAddr) -> Option<u128> {
        let is_one =
            Family::of(address) == self.family() && (self.first..=self.last).contains(&address);
        is_one.then(|| number(address) - number(self.first))
    }

    /// The address with `index` addresses of the range below it, if the range has as many.
    #[must_use]
    pub fn nth(self, index: u128) -> Option<IpAddr> {
        let number = number(self.first).checked_add(index).filter(|n| *n <= number(self.last))?;
        address(self.family(), number)
    }

    /// Whether the first address is a multiple of `step` and the range as well.
    pub(crate) fn is_aligned(self, step: u128) -> bool {
        number(self.first).is_multiple_of(step) && self.count().is_multiple_of(step)
    }

    /// The address before the first, if there is one.
    pub(crate) fn previous(self) -> Option<IpAddr> {
        address(self.family(), number(self.first).checked_sub(1)?)
    }

    /// The address after the last, if there is one.
    pub(crate) fn next(self) -> Option<IpAddr> {
        address(self.family(), number(self.last).checked_add(1)?)
    }

    /// The network that has just these addresses, if there is one.
    #[must_use]
    pub fn network(self) -> Option<IpNet> {
        let host_bits = number(self.first) ^ number(self.last);
        let width = if self.first.is_ipv4() { 32 } else { 128 };
        let prefix_len = u8::try_from(width - host_bits.count_ones()).ok()?;
        let network = IpNet::new(self.first, prefix_len).ok()?;
        (Self::from(network) == self).then_some(network)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: Family, number: u128) -> Option<IpAddr> {
    Some(match family {
        Family::Ipv4 => Ipv4Addr::from_bits(u32::try_from(number).ok()?).into(),
        Family::Ipv6 => Ipv6Addr::from_bits(number).into(),
    })
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }
}

/// Every address of the network, the first and the last included.
impl From<IpNet> for AddressRange {
    fn from(network: IpNet) -> Self {
        Self { first: network.network(), last: network.broadcast() }
    }
}

impl TryFrom<RangeInclusive<IpAddr>> for AddressRange {
    type Error = AddressRangeError;

    fn try_from(range: RangeInclusive<IpAddr>) -> Result<Self, AddressRangeError> {
        Self::new(*range.start(), *range.end())
    }
}

/// `10.0.0.0/22`, `10.0.0.1-10.0.0.14`, or one address.
impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let unreadable = || AddressRangeError::NotAddresses { text: text.into() };
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (first.trim().parse(), last.trim().parse());
            return Self::new(first.map_err(|_| unreadable())?, last.map_err(|_| unreadable())?);
        }
        let network = text.parse::<IpNet>().map(Self::from);
        network.or_else(|_| text.parse::<IpAddr>().map(Self::from)).map_err(|_| unreadable())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network() {
            _ if self.first == self.last => write!(f, "{}", self.first),
            Some(network) => write!(f, "{network}"),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Why a text or two addresses are not a range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressRangeError {
    /// Neither a network nor a range nor an address.
    #[error(
        "{} names no addresses: expected 10.0.0.0/22, 10.0.0.1-10.0.0.14 or 10.0.0.1",
        quoted(text)
    )]
    NotAddresses {
        /// What was written.
        text: Box<str>,
    },
    /// One end is IPv4, the other IPv6.
    #[error("range {first}-{last} mixes address families: expected both ends of one")]
    Families {
        /// The end written first.
        first: IpAddr,
        /// The end written last.
        last: IpAddr,
    },
    /// The first address is above the last.
    #[error("range {first}-{last} is reversed: write {last}-{first}")]
    Reversed {
        /// The end written first.
        first: IpAddr,
        /// The end written last.
        last: IpAddr,
    },
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::strategies::allocation::address_ranges;
    use crate::testing::errors;

    #[test]
    fn errors_of_address_ranges() {
        let errors =
            errors::<AddressRange>(&["x", "10.0.0.0/33", "10.0.0.1-::1", "10.0.0.2-10.0.0.1"]);
        expect![[r#"
            "x" => `x` names no addresses: expected 10.0.0.0/22, 10.0.0.1-10.0.0.14 or 10.0.0.1
            "10.0.0.0/33" => `10.0.0.0/33` names no addresses: expected 10.0.0.0/22, 10.0.0.1-10.0.0.14 or 10.0.0.1
            "10.0.0.1-::1" => range 10.0.0.1-::1 mixes address families: expected both ends of one
            "10.0.0.2-10.0.0.1" => range 10.0.0.2-10.0.0.1 is reversed: write 10.0.0.1-10.0.0.2
        "#]].assert_eq(&errors);
    }

    #[test]
    fn network_ranges_print_as_cidr() {
        let cases = [
            ("10.0.0.0-10.0.3.255", "10.0.0.0/22"),
            ("10.0.1.7/22", "10.0.0.0/22"),
            ("10.0.0.1-10.0.0.2", "10.0.0.1-10.0.0.2"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
        ];
        for (text, printed) in cases {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn count_of_all_ipv6_saturates() {
        assert_eq!("::/0".parse::<AddressRange>().unwrap().count(), u128::MAX);
        assert_eq!("0.0.0.0/0".parse::<AddressRange>().unwrap().count(), 1 << 32);
    }

    proptest! {
        #[test]
        fn printed_values_parse_back(range in address_ranges()) {
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn address_index_is_invertible(range in address_ranges(), index in any::<u128>()) {
            let index = index % range.count();
            let address = range.nth(index).unwrap();
            prop_assert_eq!(range.index_of(address), Some(index));
            let past = (range.count() < u128::MAX).then(|| range.nth(range.count()));
            prop_assert_eq!(past.flatten(), None);
        }
    }
}
