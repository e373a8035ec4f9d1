//! Sets of ports as sorted ranges that neither overlap nor touch.
//!
//! ```
//! use ephport_core::PortSet;
//!
//! let node_ports: PortSet = "30000-32767".parse()?;
//! let allowed = "1024-65535".parse::<PortSet>()?.difference(&node_ports);
//! assert_eq!(allowed.to_string(), "1024-29999,32768-65535");
//! assert_eq!(&"1024-65535".parse::<PortSet>()? - &node_ports, allowed);
//! # Ok::<(), ephport_core::PortError>(())
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::iter::{Copied, FlatMap};
use std::ops::{BitAnd, BitOr, BitXor, Not, Sub};
use std::slice;
use std::str::FromStr;

use crate::net::port::{Port, PortError, PortRange, Ports};

/// A set of ports; its ranges are sorted, disjoint, and merged where they are adjacent.
///
/// Two sets are equal exactly when they contain the same ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSet(Ranges);

/// Ranges in the least memory: most sets have only one, and a document has several sets a policy.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Ranges {
    UpToOne(Option<PortRange>),
    /// Two or more.
    Several(Box<[PortRange]>),
}

impl Default for PortSet {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Ranges {
    fn as_slice(&self) -> &[PortRange] {
        match self {
            Self::UpToOne(range) => range.as_slice(),
            Self::Several(ranges) => ranges,
        }
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl PortSet {
    /// The set without ports.
    pub const EMPTY: Self = Self(Ranges::UpToOne(None));
    /// Every port.
    pub const ALL: Self = Self::from_range(PortRange::ALL);

    /// The ports of a range; [`From`] for constants.
    #[must_use]
    pub const fn from_range(range: PortRange) -> Self {
        Self(Ranges::UpToOne(Some(range)))
    }

    /// The maximal ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        self.0.as_slice()
    }

    /// The set of ranges that are sorted, disjoint and not adjacent.
    fn of_sorted(ranges: Vec<PortRange>) -> Self {
        Self(match ranges.as_slice() {
            [] => Ranges::UpToOne(None),
            [range] => Ranges::UpToOne(Some(*range)),
            _ => Ranges::Several(ranges.into()),
        })
    }

    /// Whether there is no port in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges().is_empty()
    }

    /// How many ports, 0 to 65535.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ranges().iter().map(|range| range.count()).sum()
    }

    /// Whether `port` is in the set.
    #[must_use]
    pub fn contains(&self, port: Port) -> bool {
        self.range_of(port).is_some()
    }

    /// The maximal range that contains `port`, if it is in the set.
    #[must_use]
    pub fn range_of(&self, port: Port) -> Option<PortRange> {
        let ranges = self.ranges();
        let at = ranges.partition_point(|range| range.last() < port);
        ranges.get(at).copied().filter(|range| range.contains(port))
    }

    /// Each port, in ascending order.
    pub fn ports(&self) -> SetPorts<'_> {
        self.ranges().iter().copied().flat_map(PortRange::ports as fn(PortRange) -> Ports)
    }

    /// The same as [`ports`](Self::ports), by the name that collections have.
    pub fn iter(&self) -> SetPorts<'_> {
        self.ports()
    }

    /// The lowest port.
    #[must_use]
    pub fn first(&self) -> Option<Port> {
        self.ranges().first().map(|range| range.first())
    }

    /// The highest port.
    #[must_use]
    pub fn last(&self) -> Option<Port> {
        self.ranges().last().map(|range| range.last())
    }

    /// The ports of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.ranges().iter().chain(other.ranges()).copied().collect()
    }

    /// The ports of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.ranges(), other.ranges());
        let mut common = Vec::new();
        while let ([a, rest_a @ ..], [b, rest_b @ ..]) = (left, right) {
            common.extend(a.intersection(*b));
            if a.last() < b.last() {
                left = rest_a;
            } else {
                right = rest_b;
            }
        }
        Self::of_sorted(common)
    }

    /// The ports of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    /// The ports of one of the sets, but not of both.
    #[must_use]
    pub fn symmetric_difference(&self, other: &Self) -> Self {
        self.difference(other).union(&other.difference(self))
    }

    /// The ports from 1 to 65535 that are not in this set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let ranges = self.ranges();
        let mut gaps = Vec::with_capacity(ranges.len() + 1);
        let mut from = Some(Port::MIN);
        for range in ranges {
            let gap = from.zip(range.first().previous());
            gaps.extend(gap.and_then(|(first, last)| PortRange::new(first, last).ok()));
            from = range.last().next();
        }
        gaps.extend(from.and_then(|first| PortRange::new(first, Port::MAX).ok()));
        Self::of_sorted(gaps)
    }

    /// Whether every port of this set is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// Whether every port of `other` is in this set.
    #[must_use]
    pub fn is_superset(&self, other: &Self) -> bool {
        other.is_subset(self)
    }

    /// Whether no port is in both sets.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.intersection(other).is_empty()
    }
}

/// The ports of a set, in ascending order.
pub type SetPorts<'a> = FlatMap<Copied<slice::Iter<'a, PortRange>>, Ports, fn(PortRange) -> Ports>;

impl<'a> IntoIterator for &'a PortSet {
    type Item = Port;
    type IntoIter = SetPorts<'a>;

    fn into_iter(self) -> SetPorts<'a> {
        self.ports()
    }
}

/// By the ranges, from the lowest.
impl Ord for PortSet {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ranges().cmp(other.ranges())
    }
}

impl PartialOrd for PortSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Implements an operator for sets and references to them.
macro_rules! operator {
    ($trait:ident, $function:ident, $method:ident) => {
        impl $trait<&PortSet> for &PortSet {
            type Output = PortSet;

            fn $function(self, other: &PortSet) -> PortSet {
                self.$method(other)
            }
        }

        impl $trait for PortSet {
            type Output = PortSet;

            fn $function(self, other: PortSet) -> PortSet {
                self.$method(&other)
            }
        }
    };
}

operator!(BitOr, bitor, union);
operator!(BitAnd, bitand, intersection);
operator!(BitXor, bitxor, symmetric_difference);
operator!(Sub, sub, difference);

impl Not for &PortSet {
    type Output = PortSet;

    fn not(self) -> PortSet {
        self.complement()
    }
}

impl Not for PortSet {
    type Output = PortSet;

    fn not(self) -> PortSet {
        self.complement()
    }
}

impl From<PortRange> for PortSet {
    fn from(range: PortRange) -> Self {
        Self::from_range(range)
    }
}

impl From<Port> for PortSet {
    fn from(port: Port) -> Self {
        PortRange::from(port).into()
    }
}

/// Ranges in any order; those that overlap or touch are merged.
impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(top) if top.last().next().is_none_or(|next| range.first() <= next) => {
                    let last = top.last().max(range.last());
                    *top = PortRange::new(top.first(), last).unwrap_or(*top);
                }
                _ => merged.push(range),
            }
        }
        Self::of_sorted(merged)
    }
}

/// Ports in any order.
impl FromIterator<Port> for PortSet {
    fn from_iter<I: IntoIterator<Item = Port>>(ports: I) -> Self {
        ports.into_iter().map(PortRange::from).collect()
    }
}

impl<T> Extend<T> for PortSet
where
    Self: FromIterator<T>,
{
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        *self = self.union(&items.into_iter().collect());
    }
}

impl<const N: usize> From<[PortRange; N]> for PortSet {
    fn from(ranges: [PortRange; N]) -> Self {
        ranges.into_iter().collect()
    }
}

/// Ranges joined by commas, as [`PortRange`] reads them; `none` is the empty set.
impl FromStr for PortSet {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Self::EMPTY);
        }
        text.split(',').map(|range| range.trim().parse::<PortRange>()).collect()
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, range) in self.ranges().iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strategies::port_sets;

    /// The reference model: one bit a port; bit 0 is never set.
    #[derive(Clone, PartialEq)]
    struct Bitmap(Vec<bool>);

    impl Bitmap {
        fn of(set: &PortSet) -> Self {
            let mut bits = vec![false; 65_536];
            for range in set.ranges() {
                bits[usize::from(range.first().get())..=usize::from(range.last().get())].fill(true);
            }
            Self(bits)
        }

        fn combine(&self, other: &Self, op: impl Fn(bool, bool) -> bool) -> Self {
            let mut bits: Vec<_> = self.0.iter().zip(&other.0).map(|(a, b)| op(*a, *b)).collect();
            bits[0] = false;
            Self(bits)
        }
    }

    fn is_canonical(set: &PortSet) -> bool {
        set.ranges().windows(2).all(|w| w[0].last().get() + 1 < w[1].first().get())
    }

    proptest! {
        #[test]
        fn algebra_is_that_of_a_bitmap(a in port_sets(), b in port_sets()) {
            let (x, y) = (Bitmap::of(&a), Bitmap::of(&b));
            let results = [
                (a.union(&b), x.combine(&y, |p, q| p || q)),
                (a.intersection(&b), x.combine(&y, |p, q| p && q)),
                (a.difference(&b), x.combine(&y, |p, q| p && !q)),
                (a.complement(), x.combine(&y, |p, _| !p)),
                (&a | &b, x.combine(&y, |p, q| p || q)),
                (a.clone() & b.clone(), x.combine(&y, |p, q| p && q)),
                (&a - &b, x.combine(&y, |p, q| p && !q)),
                (&a ^ &b, x.combine(&y, |p, q| p != q)),
                (!&a, x.combine(&y, |p, _| !p)),
            ];
            for (set, bitmap) in results {
                prop_assert!(is_canonical(&set), "{set}");
                prop_assert!(Bitmap::of(&set) == bitmap, "{set}");
            }
            prop_assert_eq!(a.is_subset(&b), x.combine(&y, |p, q| p && !q).0.iter().all(|bit| !bit));
        }

        #[test]
        fn sets_are_collected_from_their_parts(a in port_sets(), b in port_sets()) {
            prop_assert_eq!(a.into_iter().collect::<PortSet>(), a.clone());
            prop_assert_eq!(a.ports().rev().collect::<PortSet>(), a.clone());
            let mut both = a.clone();
            both.extend(b.ranges().iter().copied());
            prop_assert_eq!(&both, &(&a | &b));
            both.extend(b.ports());
            prop_assert_eq!(&both, &(&a | &b));
            prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
            prop_assert!(both.is_superset(&a) && (&a - &b).is_disjoint(&b));
            prop_assert_eq!((a.first(), a.last()), (a.ports().next(), a.ports().next_back()));
        }

        #[test]
        fn membership_is_that_of_a_bitmap(set in port_sets()) {
            let bitmap = Bitmap::of(&set);
            prop_assert_eq!(set.count() as usize, bitmap.0.iter().filter(|bit| **bit).count());
            prop_assert_eq!(set.ports().count(), set.count() as usize);
            for port in PortRange::ALL.ports() {
                prop_assert_eq!(set.contains(port), bitmap.0[usize::from(port.get())]);
                if let Some(range) = set.range_of(port) {
                    prop_assert!(range.contains(port) && set.ranges().contains(&range));
                }
            }
        }

        #[test]
        fn printed_values_parse_back(set in port_sets()) {
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn parsing_never_panics(text in "[0-9:,\\- a-z]{0,24}") {
            if let Ok(set) = text.parse::<PortSet>() {
                prop_assert!(is_canonical(&set));
            }
        }
    }

    #[test]
    fn adjacent_and_unordered_ranges_are_merged() {
        let set: PortSet = "32768:65535, 1024-2000,2001-29999,1500".parse().unwrap();
        assert_eq!(set.to_string(), "1024-29999,32768-65535");
        assert_eq!(PortSet::from(Port::MAX).to_string(), "65535");
    }

    #[test]
    fn a_bad_member_is_named() {
        let error = "1024-2000,x".parse::<PortSet>().unwrap_err();
        assert_eq!(error, PortError::NotANumber { text: "x".into() });
        assert_eq!("1,,2".parse::<PortSet>(), Err(PortError::EmptyRange));
        assert_eq!("".parse::<PortSet>(), Err(PortError::EmptyRange));
    }
}
