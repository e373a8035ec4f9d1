//! Counts of ports by destination, in bounded memory.
//!
//! Exact for up to [`MAX_DESTINATIONS`] destinations. Above that the counters follow Misra and Gries
//! ("Finding repeated elements", 1982), with the median as decrement: the full ones stay, and the
//! error of every count is known.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ephport_core::Protocol;

/// The number of destinations that are counted at once: 1.6 MiB, 7/8 of a table of 2^15 places.
pub(super) const MAX_DESTINATIONS: usize = 28_672;

/// The ports among which connections to one destination compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pool {
    /// The index of the policy.
    pub(super) policy: u16,
    /// The zone of conntrack.
    pub(super) zone: u16,
    pub(super) protocol: Protocol,
    pub(super) destination: Endpoint,
    /// The source address after NAT, or, with blocks, before NAT.
    pub(super) owner: IpAddr,
}

/// An address and a port without IPv6's flow label and scope: 18 bytes instead of 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip(), port: address.port() }
    }
}

/// The counters.
#[derive(Debug)]
pub(super) struct Destinations {
    counts: HashMap<Pool, u32>,
    max: usize,
    error: u32,
}

impl Destinations {
    /// No counter, and at most `max` of them at once.
    pub(super) fn new(max: usize) -> Self {
        // All at once: memory is used where there are counters, and none for a larger copy.
        Self { counts: HashMap::with_capacity(max), max, error: 0 }
    }

    /// Counts one port.
    pub(super) fn add(&mut self, pool: Pool) {
        if let Some(count) = self.counts.get_mut(&pool) {
            *count = count.saturating_add(1);
            return;
        }
        if self.counts.len() >= self.max {
            self.shrink();
        }
        self.counts.insert(pool, 1);
    }

    /// Subtracts the median from each counter, and removes those at zero: at least half of them.
    fn shrink(&mut self) {
        let mut counts: Vec<u32> = self.counts.values().copied().collect();
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let median = *median;
        self.error = self.error.saturating_add(median);
        // Drained and not retained: removed entries would make the table grow.
        let rest = self.counts.drain().map(|(pool, count)| (pool, count.saturating_sub(median)));
        let kept: Vec<_> = rest.filter(|(_, count)| *count > 0).collect();
        self.counts.extend(kept);
    }

    /// How much higher than its counter the number of a destination's ports may be, and the most
    /// that a destination without a counter has.
    pub(super) fn error(&self) -> u32 {
        self.error
    }

    /// Each pool with its count, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Pool, u32)> {
        self.counts.iter().map(|(pool, count)| (pool, *count))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn pool(number: u16) -> Pool {
        let address = [10, 0, 0, 1].into();
        let destination = Endpoint { address, port: number };
        Pool { policy: 0, zone: 0, protocol: Protocol::Tcp, destination, owner: address }
    }

    fn found(counted: &Destinations, pool: &Pool) -> u32 {
        counted.iter().find(|(other, _)| *other == pool).map_or(0, |(_, count)| count)
    }

    proptest! {
        #[test]
        fn counts_are_within_their_error(
            max in 1..40_usize,
            numbers in prop::collection::vec(prop_oneof![0..4_u16, 0..200_u16], 0..600),
        ) {
            let mut counted = Destinations::new(max);
            let mut exact: HashMap<Pool, u32> = HashMap::new();
            for number in &numbers {
                counted.add(pool(*number));
                *exact.entry(pool(*number)).or_default() += 1;
                prop_assert!(counted.iter().count() <= max);
            }
            for (pool, count) in &exact {
                let low = found(&counted, pool);
                prop_assert!(low <= *count && *count <= low + counted.error());
            }
            // Each step removes half of the counters, and as much from each as the error grows by.
            let most = 2 * numbers.len() / max;
            prop_assert!(usize::try_from(counted.error()).unwrap() <= most);
            prop_assert!(exact.len() > max || counted.error() == 0);
        }
    }
}
