//! Ports and ranges of ports, valid by construction.
//!
//! A source port on the wire is a 16-bit number (RFC 9293 §3.1, RFC 768); 0 means "none", so a
//! [`Port`] is 1 to 65535 and a [`PortRange`] always contains at least one of them.
//!
//! ```
//! use ephport_core::PortRange;
//!
//! let range: PortRange = "49152-61000".parse()?;
//! assert_eq!(range.count(), 11_849);
//! assert_eq!("49152:61000".parse(), Ok(range)); // as iptables writes it
//! assert!("61000-49152".parse::<PortRange>().is_err());
//! # Ok::<(), ephport_core::PortError>(())
//! ```

use std::fmt;
use std::iter::FusedIterator;
use std::num::NonZeroU16;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::str::FromStr;

use thiserror::Error;

use crate::text::{excerpt, quoted};

/// A transport port, 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

impl Port {
    /// Port 1.
    pub const MIN: Self = Self(NonZeroU16::MIN);
    /// Port 65535.
    pub const MAX: Self = Self(NonZeroU16::MAX);

    /// The port with this number.
    ///
    /// # Errors
    /// [`PortError::Zero`] for 0.
    pub const fn new(number: u16) -> Result<Self, PortError> {
        match NonZeroU16::new(number) {
            Some(number) => Ok(Self(number)),
            None => Err(PortError::Zero),
        }
    }

    /// The port with a number that is known when the program is compiled.
    ///
    /// # Panics
    /// For 0. In a constant, that does not compile.
    ///
    /// ```
    /// use ephport_core::Port;
    ///
    /// const DNS: Port = Port::new_assert(53);
    /// assert_eq!(DNS.get(), 53);
    /// ```
    #[must_use]
    pub const fn new_assert(number: u16) -> Self {
        match NonZeroU16::new(number) {
            Some(number) => Self(number),
            None => panic!("port 0"),
        }
    }

    /// The number, 1 to 65535.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The port above, or `None` at 65535.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The port below, or `None` at 1.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        NonZeroU16::new(self.get() - 1).map(Self)
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

impl From<Port> for u32 {
    fn from(port: Port) -> Self {
        port.get().into()
    }
}

impl From<Port> for NonZeroU16 {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl From<NonZeroU16> for Port {
    fn from(number: NonZeroU16) -> Self {
        Self(number)
    }
}

impl TryFrom<u16> for Port {
    type Error = PortError;

    fn try_from(number: u16) -> Result<Self, PortError> {
        Self::new(number)
    }
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PortError::NotANumber { text: text.into() });
        }
        let number = text.parse::<u16>().map_err(|_| PortError::TooLarge { text: text.into() })?;
        Self::new(number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Consecutive ports, both ends included; never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: Port,
    last: Port,
}

impl PortRange {
    /// Every port, 1-65535.
    pub const ALL: Self = Self { first: Port::MIN, last: Port::MAX };
    /// The privileged ports 1-1023, which only the superuser may bind (`PROT_SOCK`, net/ip.h).
    pub const PRIVILEGED: Self = Self::new_assert(1, 1023);
    /// The ports that are not privileged, 1024-65535: the range of NAT without a range of its own.
    pub const EPHEMERAL: Self = Self::new_assert(1024, 65535);

    /// The names of ranges, each with its range; a name may replace the range wherever ports are
    /// written.
    ///
    /// - `iana`: the dynamic ports of RFC 6335 §6.
    /// - `windows`: the default since Windows Vista and Windows Server 2008.
    /// - `linux`: the default of `ip_local_port_range` since Linux 4.2.
    /// - `linux-before-4.2`: its default until Linux 4.1.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("iana", Self::new_assert(49152, 65535)),
        ("windows", Self::new_assert(49152, 65535)),
        ("linux", Self::new_assert(32768, 60999)),
        ("linux-before-4.2", Self::new_assert(32768, 61000)),
    ];

    /// The range with this name, in lower or upper case; see [`Self::NAMED`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::NAMED.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, range)| range)
    }

    /// The ports from `first` to `last`.
    ///
    /// # Errors
    /// [`PortError::Reversed`] when `first` is above `last`. The kernel would silently swap them.
    pub const fn new(first: Port, last: Port) -> Result<Self, PortError> {
        if first.get() > last.get() {
            return Err(PortError::Reversed { first, last });
        }
        Ok(Self { first, last })
    }

    /// The range whose ends are known when the program is compiled.
    ///
    /// # Panics
    /// When `first` is above `last`, or 0. In a constant, that does not compile.
    ///
    /// ```
    /// use ephport_core::PortRange;
    ///
    /// const BUILDS: PortRange = PortRange::new_assert(49152, 61000);
    /// assert_eq!(BUILDS.count(), 11_849);
    /// ```
    #[must_use]
    pub const fn new_assert(first: u16, last: u16) -> Self {
        assert!(first <= last, "the first port is above the last");
        Self { first: Port::new_assert(first), last: Port::new_assert(last) }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> Port {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> Port {
        self.last
    }

    /// How many ports, 1 to 65535.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last.get() - self.first.get()) + 1
    }

    /// Whether `port` is one of these.
    #[must_use]
    pub fn contains(self, port: Port) -> bool {
        self.first <= port && port <= self.last
    }

    /// The ports that are in both, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last)).ok()
    }

    /// Each port, in ascending order.
    #[must_use]
    pub fn ports(self) -> Ports {
        Ports(self.first.get()..=self.last.get())
    }
}

/// The ports of a range, in ascending order.
#[derive(Clone, Debug)]
pub struct Ports(RangeInclusive<u16>);

impl Iterator for Ports {
    type Item = Port;

    fn next(&mut self) -> Option<Port> {
        self.0.next().and_then(NonZeroU16::new).map(Port)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Ports {
    fn next_back(&mut self) -> Option<Port> {
        self.0.next_back().and_then(NonZeroU16::new).map(Port)
    }
}

impl ExactSizeIterator for Ports {}

impl FusedIterator for Ports {}

impl IntoIterator for PortRange {
    type Item = Port;
    type IntoIter = Ports;

    fn into_iter(self) -> Ports {
        self.ports()
    }
}

impl RangeBounds<Port> for PortRange {
    fn start_bound(&self) -> Bound<&Port> {
        Bound::Included(&self.first)
    }

    fn end_bound(&self) -> Bound<&Port> {
        Bound::Included(&self.last)
    }
}

impl From<PortRange> for RangeInclusive<u16> {
    fn from(range: PortRange) -> Self {
        range.first.get()..=range.last.get()
    }
}

impl TryFrom<RangeInclusive<Port>> for PortRange {
    type Error = PortError;

    fn try_from(range: RangeInclusive<Port>) -> Result<Self, PortError> {
        Self::new(*range.start(), *range.end())
    }
}

/// ```
/// use ephport_core::{PortError, PortRange};
///
/// assert_eq!(PortRange::try_from(1024..=2047)?, "1024-2047".parse()?);
/// assert_eq!(PortRange::try_from(0..=2047), Err(PortError::Zero));
/// # Ok::<(), PortError>(())
/// ```
impl TryFrom<RangeInclusive<u16>> for PortRange {
    type Error = PortError;

    fn try_from(range: RangeInclusive<u16>) -> Result<Self, PortError> {
        Self::new(Port::new(*range.start())?, Port::new(*range.end())?)
    }
}

impl From<Port> for PortRange {
    fn from(port: Port) -> Self {
        Self { first: port, last: port }
    }
}

/// `49152-61000`, `49152:61000` as in iptables (an omitted end is 1 or 65535), a name, or one port.
impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.is_empty() {
            return Err(PortError::EmptyRange);
        }
        if let Some(range) = Self::named(text) {
            return Ok(range);
        }
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (first.trim(), last.trim());
            if first.is_empty() || last.is_empty() {
                return Err(PortError::NotANumber { text: text.into() });
            }
            return Self::new(first.parse()?, last.parse()?);
        }
        match text.split_once(':').map(|(first, last)| (first.trim(), last.trim())) {
            Some(("", "")) => Err(PortError::EmptyRange),
            Some(("", last)) => Self::new(Port::MIN, last.parse()?),
            Some((first, "")) => Self::new(first.parse()?, Port::MAX),
            Some((first, last)) => Self::new(first.parse()?, last.parse()?),
            None => text.parse::<Port>().map(Self::from),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Debug for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text or number is not a port, a range or a set of ports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PortError {
    /// Port 0 means "no port" on the wire.
    #[error("port 0 is not a port: expected 1 to 65535")]
    Zero,
    /// A number above 65535.
    #[error("port {} is too large: expected 1 to 65535", excerpt(text))]
    TooLarge {
        /// The number as it was written.
        text: Box<str>,
    },
    /// Something else than decimal digits.
    #[error("{} is not a port: expected a number from 1 to 65535", quoted(text))]
    NotANumber {
        /// What was written.
        text: Box<str>,
    },
    /// The first port is above the last.
    #[error("range {first}-{last} is reversed: write {last}-{first}")]
    Reversed {
        /// The end written first.
        first: Port,
        /// The end written last.
        last: Port,
    },
    /// Nothing where a range was expected.
    #[error("empty port range: expected PORT or FIRST-LAST, like 49152-61000")]
    EmptyRange,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::errors;
    use expect_test::expect;

    #[test]
    fn errors_of_ports() {
        let errors = errors::<PortRange>(&[
            "0",
            "65536",
            "99999999999999999999",
            "abc",
            "+5",
            "-1",
            "1-",
            "1-2-3",
            "61000-49152",
            "",
            ":",
        ]);
        expect![[r#"
            "0" => port 0 is not a port: expected 1 to 65535
            "65536" => port 65536 is too large: expected 1 to 65535
            "99999999999999999999" => port 99999999999999999999 is too large: expected 1 to 65535
            "abc" => `abc` is not a port: expected a number from 1 to 65535
            "+5" => `+5` is not a port: expected a number from 1 to 65535
            "-1" => `-1` is not a port: expected a number from 1 to 65535
            "1-" => `1-` is not a port: expected a number from 1 to 65535
            "1-2-3" => `2-3` is not a port: expected a number from 1 to 65535
            "61000-49152" => range 61000-49152 is reversed: write 49152-61000
            "" => empty port range: expected PORT or FIRST-LAST, like 49152-61000
            ":" => empty port range: expected PORT or FIRST-LAST, like 49152-61000
        "#]]
        .assert_eq(&errors);
    }

    #[test]
    fn iptables_open_ends() {
        assert_eq!("1024:".parse(), Ok(PortRange::EPHEMERAL));
        assert_eq!(":1023".parse(), Ok(PortRange::PRIVILEGED));
        assert_eq!(":65535".parse(), Ok(PortRange::ALL));
    }

    #[test]
    fn ends_have_no_neighbour_outside() {
        assert_eq!((Port::MIN.previous(), Port::MAX.next()), (None, None));
        assert_eq!(Port::MIN.next().and_then(Port::previous), Some(Port::MIN));
    }

    #[test]
    fn a_port_is_a_number_both_ways() {
        assert_eq!(Port::try_from(443).map(u16::from), Ok(443));
        assert_eq!(format!("{:?}", (Port::MAX, PortRange::EPHEMERAL)), "(65535, 1024-65535)");
    }

    #[test]
    fn counts_from_one_to_all() {
        assert_eq!(PortRange::from(Port::MAX).count(), 1);
        assert_eq!(PortRange::ALL.count(), 65_535);
        assert_eq!(PortRange::ALL.ports().count(), 65_535);
    }
}
