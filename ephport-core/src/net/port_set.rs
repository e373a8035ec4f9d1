//! Sets of ports as sorted ranges that neither overlap nor touch.
//!
//! ```
//! use ephport_core::PortSet;
//!
//! let node_ports: PortSet = "30000-32767".parse()?;
//! let allowed = "1024-65535".parse::<PortSet>()?.difference(&node_ports);
//! assert_eq!(allowed.to_string(), "1024-29999,32768-65535");
//! # Ok::<(), ephport_core::PortError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use crate::net::port::{Port, PortError, PortRange};

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
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        self.ranges().iter().flat_map(|range| range.ports())
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
}

impl From<PortRange> for PortSet {
    fn from(range: PortRange) -> Self {
        Self(Ranges::UpToOne(Some(range)))
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

/// Ranges joined by commas, as [`PortRange`] reads them; `none` is the empty set.
impl FromStr for PortSet {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Self::EMPTY);
        }
        text.split(',').map(|range| range.trim().parse()).collect()
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
            ];
            for (set, bitmap) in results {
                prop_assert!(is_canonical(&set), "{set}");
                prop_assert!(Bitmap::of(&set) == bitmap, "{set}");
            }
            prop_assert_eq!(a.is_subset(&b), x.combine(&y, |p, q| p && !q).0.iter().all(|bit| !bit));
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
