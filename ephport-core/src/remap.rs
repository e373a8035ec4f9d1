//! A set of ports as one contiguous range: conntrack translates to a *virtual* range as large as the set, and
//! each packet gets the real port for the virtual one on its way out, and the reverse on its way in.
//!
//! The kernel searches one range for a free port, so a set of many ranges then serves like one range. Most
//! ports of a range that overlaps the set are their own virtual port.
//!
//! ```
//! use ephport_core::PortSet;
//! use ephport_core::remap::{Avoid, Remap};
//!
//! let ports: PortSet = "4928-4943,5952-5967".parse()?;
//! let remap = Remap::new(&ports, &Avoid::default()).expect("several ranges");
//! assert_eq!(remap.virtual_range().to_string(), "5952-5983");
//! assert_eq!(remap.real("5968".parse()?), Some("4928".parse()?));
//! assert_eq!(remap.real("5952".parse()?), Some("5952".parse()?));
//! # Ok::<(), ephport_core::PortError>(())
//! ```

use std::cmp::Reverse;

use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;

/// Ports that a virtual range does not contain where that is avoidable, unless they are ports of the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Avoid {
    /// Ports with another meaning: those of other policies, of services, and those that are not translated.
    pub taken: PortSet,
    /// Ports that sockets of the host get. A virtual range is beside them if it then has as many ports of the
    /// set as any other.
    pub own: PortSet,
}

/// A bijection from a contiguous virtual range to a set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remap {
    virtual_range: PortRange,
    /// The virtual and the real port, where they differ; ascending in both.
    pairs: Vec<(Port, Port)>,
}

impl Remap {
    /// The bijection for a set of several ranges; `None` for other sets, which need none.
    ///
    /// Of all ranges as large as the set it is one with the fewest ports of `avoid.taken` outside of the set,
    /// among those with the most ports of the set, among those with the fewest of `avoid.own`, the highest.
    #[must_use]
    pub fn new(ports: &PortSet, avoid: &Avoid) -> Option<Self> {
        if ports.ranges().len() < 2 {
            return None;
        }
        let taken = PortSet::from(PortRange::PRIVILEGED).union(&avoid.taken).difference(ports);
        let own = avoid.own.difference(ports);
        let counts = [&taken, ports, &own].map(Counts::new);
        let size = u16::try_from(ports.count()).ok()?;
        let range = |first: Port| {
            let last = Port::new(first.get().checked_add(size - 1)?).ok()?;
            PortRange::new(first, last).ok()
        };
        let cost = |range: &PortRange| {
            let [taken, identical, own] = [0, 1, 2].map(|at: usize| counts[at].of(*range));
            (taken, Reverse(identical), own, Reverse(range.first()))
        };
        let virtual_range = PortRange::ALL.ports().map_while(range).min_by_key(cost)?;
        let virtual_ports = PortSet::from(virtual_range);
        let (only_virtual, only_real) =
            (virtual_ports.difference(ports), ports.difference(&virtual_ports));
        let pairs = only_virtual.ports().zip(only_real.ports()).collect();
        Some(Self { virtual_range, pairs })
    }

    /// The range to which conntrack translates.
    #[must_use]
    pub fn virtual_range(&self) -> PortRange {
        self.virtual_range
    }

    /// The virtual and the real port, for each pair of different ones; ascending in both.
    #[must_use]
    pub fn pairs(&self) -> &[(Port, Port)] {
        &self.pairs
    }

    /// The real port for a virtual one; `None` outside of the virtual range.
    #[must_use]
    pub fn real(&self, port: Port) -> Option<Port> {
        let found = self.pairs.binary_search_by_key(&port, |(virtual_port, _)| *virtual_port);
        let pair = found.ok().and_then(|at| self.pairs.get(at));
        let port = pair.map_or(port, |(_, real)| *real);
        (pair.is_some() || self.virtual_range.contains(port)).then_some(port)
    }

    /// The part of the virtual range to which a connection with this source port is translated. From a port that
    /// is only virtual it is the half without that port: NAT must change the port, because the kernel marks
    /// only such connections as translated (`IPS_SRC_NAT`).
    #[must_use]
    pub fn range_for(&self, port: Port) -> PortRange {
        let is_only_virtual = self.virtual_range.contains(port) && self.real(port) != Some(port);
        let other = self.halves().into_iter().find(|half| !half.contains(port));
        other.filter(|_| is_only_virtual).unwrap_or(self.virtual_range)
    }

    /// The lower and the upper half of the virtual range.
    #[must_use]
    pub fn halves(&self) -> [PortRange; 2] {
        let (first, last) = (self.virtual_range.first(), self.virtual_range.last());
        let middle = first.get() + (last.get() - first.get()) / 2;
        let half = |first, last| PortRange::new(first, last).unwrap_or(self.virtual_range);
        match Port::new(middle).ok().and_then(|middle| Some((middle, middle.next()?))) {
            Some((below, above)) => [half(first, below), half(above, last)],
            None => [self.virtual_range; 2],
        }
    }

    /// The real ports of a part of the virtual range.
    #[must_use]
    pub fn real_ports(&self, range: PortRange) -> PortSet {
        range.ports().filter_map(|port| self.real(port)).map(PortRange::from).collect()
    }

    /// The ports of the virtual range that are not in the set.
    #[must_use]
    pub fn only_virtual(&self) -> PortSet {
        self.pairs.iter().map(|(port, _)| PortRange::from(*port)).collect()
    }

    /// The ports of the set that are not in the virtual range.
    #[must_use]
    pub fn only_real(&self) -> PortSet {
        self.pairs.iter().map(|(_, port)| PortRange::from(*port)).collect()
    }

    /// The ports whose packets are rewritten: those of one of the sides only.
    #[must_use]
    pub fn rewritten(&self) -> PortSet {
        self.only_virtual().union(&self.only_real())
    }
}

/// How many ports of a set are in a range, in constant time.
struct Counts(Vec<u32>);

impl Counts {
    fn new(ports: &PortSet) -> Self {
        let mut below = Vec::with_capacity(1 << 16);
        let (mut count, mut ranges) = (0, ports.ranges().iter().peekable());
        below.push(0);
        for port in PortRange::ALL.ports() {
            ranges.next_if(|range| range.last() < port);
            count += u32::from(ranges.peek().is_some_and(|range| range.contains(port)));
            below.push(count);
        }
        Self(below)
    }

    fn of(&self, range: PortRange) -> u32 {
        let up_to = |port: u16| self.0.get(usize::from(port)).copied().unwrap_or(0);
        up_to(range.last().get()) - up_to(range.first().get() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::strategies::port_sets;

    fn remap(ports: &str, taken: &str, own: &str) -> Remap {
        let avoid = Avoid { taken: taken.parse().unwrap(), own: own.parse().unwrap() };
        Remap::new(&ports.parse().unwrap(), &avoid).unwrap()
    }

    #[test]
    fn single_ranges_need_no_virtual_range() {
        for ports in ["none", "7", "1024-65535"] {
            assert_eq!(Remap::new(&ports.parse().unwrap(), &Avoid::default()), None, "{ports}");
        }
    }

    #[test]
    fn virtual_ranges_overlap_the_set_and_avoid_other_ports() {
        let map_e = "4928-4943,5952-5967,6976-6991";
        for (taken, own, expected) in [
            ("none", "none", "6976-7023"),
            // Another range with as many ports of the set.
            ("7000", "none", "6952-6999"),
            ("none", "7000-7023", "6952-6999"),
            ("1024-4927,5000-65535", "none", "4928-4975"),
            ("1024-65535", "none", "6976-7023"),
        ] {
            let found = remap(map_e, taken, own).virtual_range().to_string();
            assert_eq!(found, expected, "{taken} {own}");
        }
    }

    proptest! {
        #[test]
        fn real_ports_are_exactly_the_set(
            ports in port_sets(),
            taken in port_sets(),
            own in port_sets(),
        ) {
            let avoid = Avoid { taken, own };
            let Some(remap) = Remap::new(&ports, &avoid) else {
                prop_assert!(ports.ranges().len() < 2);
                return Ok(());
            };
            let range = remap.virtual_range();
            prop_assert_eq!(range.count(), ports.count());
            let real: BTreeSet<Port> = range.ports().filter_map(|port| remap.real(port)).collect();
            prop_assert!(real.into_iter().eq(ports.ports()));
            let outside = PortSet::from(range).complement();
            prop_assert!(outside.ports().all(|port| remap.real(port).is_none()));
            for (virtual_port, real) in remap.pairs() {
                prop_assert!(range.contains(*virtual_port) && !ports.contains(*virtual_port));
                prop_assert!(ports.contains(*real) && !range.contains(*real));
            }
            for port in range.ports() {
                let to = remap.range_for(port);
                let is_kept = ports.contains(port);
                prop_assert_eq!(to == range, is_kept, "{} is translated to {}", port, to);
                prop_assert!(is_kept || !to.contains(port));
            }
            prop_assert_eq!(Some(remap), Remap::new(&ports, &avoid), "the same again");
        }

        #[test]
        fn no_other_range_is_better(ports in port_sets(), taken in port_sets(), first in 1..=u16::MAX) {
            let avoid = Avoid { taken, own: PortSet::EMPTY };
            let Some(remap) = Remap::new(&ports, &avoid) else { return Ok(()) };
            let last = u32::from(first) + ports.count() - 1;
            let Ok(last) = u16::try_from(last) else { return Ok(()) };
            let port = |number| Port::new(number).unwrap();
            let other = PortRange::new(port(first), port(last)).unwrap();
            let taken = PortSet::from(PortRange::PRIVILEGED).union(&avoid.taken).difference(&ports);
            let cost = |range: PortRange| {
                let range = PortSet::from(range);
                (range.intersection(&taken).count(), Reverse(range.intersection(&ports).count()))
            };
            prop_assert!(cost(remap.virtual_range()) <= cost(other));
        }
    }
}
