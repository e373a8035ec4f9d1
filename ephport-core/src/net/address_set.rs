//! Sets of addresses, to find out whether conditions on addresses exclude each other.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::address_range::AddressRange;
use crate::net::family::Family;

/// Addresses of one family: ranges that are sorted and disjoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressSet(Vec<AddressRange>);

impl AddressSet {
    /// The ranges of this family; those of the other are ignored.
    pub(crate) fn new(family: Family, ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        let mut sorted: Vec<_> =
            ranges.into_iter().filter(|range| range.family() == family).collect();
        sorted.sort_unstable();
        let mut merged: Vec<AddressRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(top) if range.first() <= top.last() => {
                    let last = top.last().max(range.last());
                    *top = AddressRange::new(top.first(), last).unwrap_or(*top);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Every address of the family.
    pub(crate) fn all(family: Family) -> Self {
        Self(vec![match family {
            Family::Ipv4 => AddressRange::ALL_IPV4,
            Family::Ipv6 => AddressRange::ALL_IPV6,
        }])
    }

    /// The addresses of these networks, or every address if there is none.
    pub(crate) fn within(family: Family, networks: &[IpNet]) -> Self {
        if networks.is_empty() { Self::all(family) } else { Self::of(family, networks) }
    }

    /// The addresses of these networks.
    pub(crate) fn of(family: Family, networks: &[IpNet]) -> Self {
        Self::new(family, networks.iter().copied().map(AddressRange::from))
    }

    /// The lowest address.
    pub(crate) fn first(&self) -> Option<IpAddr> {
        self.0.first().map(|range| range.first())
    }

    /// The addresses that are in both sets.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            both.extend(AddressRange::new(a.first().max(b.first()), a.last().min(b.last())));
            if a.last() < b.last() {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both)
    }

    /// The addresses of this set that are not in `other`.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for range in &self.0 {
            let mut rest = Some(*range);
            for hole in &other.0 {
                let Some(part) = rest.filter(|part| hole.first() <= part.last()) else { break };
                if hole.last() < part.first() {
                    continue;
                }
                left.extend(
                    hole.previous().and_then(|last| AddressRange::new(part.first(), last).ok()),
                );
                rest = hole.next().and_then(|first| AddressRange::new(first, part.last()).ok());
            }
            left.extend(rest);
        }
        Self(left)
    }

    /// Whether there is no address in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every address of this set is in `other`.
    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The addresses 0.0.0.0 to 0.0.0.15 or the highest 16, as bits.
    fn sets() -> impl Strategy<Value = (u16, AddressSet)> {
        vec((0..16u32, 0..6u32), 0..5).prop_map(|ranges| {
            let mut bits = 0u16;
            let ranges = ranges.into_iter().map(|(first, more)| {
                let last = (first + more).min(15);
                (first..=last).for_each(|bit| bits |= 1 << bit);
                let address = |n: u32| {
                    IpAddr::from(std::net::Ipv4Addr::from_bits(if n < 8 {
                        n
                    } else {
                        u32::MAX - 15 + n
                    }))
                };
                (address(first), address(last))
            });
            let halves: Vec<_> = ranges.collect();
            let split = |(first, last): (IpAddr, IpAddr)| {
                let low = "0.0.0.7".parse().expect("an address");
                let high = "255.255.255.248".parse().expect("an address");
                if first <= low && last >= high {
                    vec![AddressRange::new(first, low), AddressRange::new(high, last)]
                } else {
                    vec![AddressRange::new(first, last)]
                }
            };
            let ranges = halves.into_iter().flat_map(split).map(|range| range.expect("in order"));
            (bits, AddressSet::new(Family::Ipv4, ranges.collect::<Vec<_>>()))
        })
    }

    fn bits(set: &AddressSet) -> u16 {
        let address = |n: u32| {
            IpAddr::from(std::net::Ipv4Addr::from_bits(if n < 8 { n } else { u32::MAX - 15 + n }))
        };
        (0..16)
            .filter(|n| set.0.iter().any(|range| range.contains(address(*n))))
            .fold(0, |b, n| b | 1 << n)
    }

    proptest! {
        #[test]
        fn algebra_is_that_of_a_bitmap((a, x) in sets(), (b, y) in sets()) {
            prop_assert_eq!(bits(&x), a);
            prop_assert_eq!(bits(&x.intersection(&y)), a & b);
            prop_assert_eq!(bits(&x.difference(&y)), a & !b);
            prop_assert_eq!(x.is_subset(&y), a & !b == 0);
            prop_assert_eq!(x.is_empty(), a == 0);
        }
    }

    #[test]
    fn everything_minus_everything_is_empty() {
        for family in Family::ALL {
            let all = AddressSet::all(family);
            assert!(all.difference(&all).is_empty());
        }
    }
}
