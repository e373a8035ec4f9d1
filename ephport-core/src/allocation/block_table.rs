//! Which block of ports each source has, by a plan or line by line.
//!
//! ```
//! use ephport_core::BlockTable;
//!
//! let planned: BlockTable = "10.0.0.0/30=1000@1024-65535".parse()?;
//! let explicit: BlockTable = "
//!     10.0.0.1 = 10000-39999   # the build host
//!     10.0.0.2 = 1024-2047
//! ".parse()?;
//! assert_eq!((planned.count(), explicit.count()), (4, 2));
//! # Ok::<(), ephport_core::BlockError>(())
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::allocation::blocks::{Block, BlockError, BlockPlan};
use crate::allocation::explicit_blocks::ExplicitBlocks;
use crate::net::address_range::AddressRange;
use crate::net::family::Family;
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;

/// Which block of ports each source has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockTable {
    /// By arithmetic.
    Plan(BlockPlan),
    /// Line by line.
    Explicit(ExplicitBlocks),
}

impl BlockTable {
    /// How many sources have a block.
    #[must_use]
    pub fn count(&self) -> u128 {
        match self {
            Self::Plan(plan) => plan.sources().count(),
            Self::Explicit(blocks) => blocks.len() as u128,
        }
    }

    /// How many sources of this family have a block.
    #[must_use]
    pub fn count_of(&self, family: Family) -> u128 {
        match self {
            Self::Plan(plan) if plan.sources().family() == family => self.count(),
            Self::Plan(_) => 0,
            Self::Explicit(blocks) => blocks.count_of(family) as u128,
        }
    }

    /// Whether a source of the family has a block.
    #[must_use]
    pub fn has_family(&self, family: Family) -> bool {
        match self {
            Self::Plan(plan) => plan.sources().family() == family,
            Self::Explicit(blocks) => blocks.count_of(family) > 0,
        }
    }

    /// Whether the blocks name outside addresses; then all do.
    #[must_use]
    pub fn has_outside(&self) -> bool {
        match self {
            Self::Plan(plan) => plan.outside().is_some(),
            Self::Explicit(blocks) => blocks.has_outside(),
        }
    }

    /// The outside addresses that the table names; adjacent ones may be in one range.
    #[must_use]
    pub fn outside(&self) -> Vec<AddressRange> {
        match self {
            Self::Plan(plan) => plan.outside().into_iter().collect(),
            Self::Explicit(blocks) => blocks.outside(),
        }
    }

    /// The block of `source`, if it has one.
    #[must_use]
    pub fn block_of(&self, source: IpAddr) -> Option<Block> {
        match self {
            Self::Plan(plan) => plan.block_of(source),
            Self::Explicit(blocks) => blocks.block_of(source),
        }
    }

    /// The source with `port` of the address `outside`, if there is one. In a table without outside
    /// addresses, the block applies to every address.
    #[must_use]
    pub fn source_of(&self, outside: IpAddr, port: Port) -> Option<IpAddr> {
        match self {
            Self::Plan(plan) => plan.source_of(outside, port),
            Self::Explicit(blocks) => blocks.source_of(outside, port),
        }
    }

    /// The sources that have a block; adjacent ones may be in one range.
    #[must_use]
    pub fn sources(&self) -> Vec<AddressRange> {
        match self {
            Self::Plan(plan) => vec![plan.sources()],
            Self::Explicit(blocks) => blocks.sources(),
        }
    }

    /// Every block of a family, by source.
    #[must_use]
    pub fn iter_of(&self, family: Family) -> Box<dyn Iterator<Item = Block> + '_> {
        match self {
            Self::Plan(plan) if plan.sources().family() == family => Box::new(plan.iter()),
            Self::Plan(_) => Box::new(std::iter::empty()),
            Self::Explicit(blocks) => Box::new(blocks.iter_of(family)),
        }
    }

    /// The path of the file that the blocks were read from, as the policy names it.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Plan(_) => None,
            Self::Explicit(blocks) => blocks.file(),
        }
    }

    /// The key of a policy with these blocks: `blocks`, or `blocks-file`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        if self.file().is_some() { "blocks-file" } else { "blocks" }
    }

    /// Every block, by source.
    #[must_use]
    pub fn iter(&self) -> Box<dyn Iterator<Item = Block> + '_> {
        match self {
            Self::Plan(plan) => Box::new(plan.iter()),
            Self::Explicit(blocks) => Box::new(blocks.iter()),
        }
    }

    /// The ports of all blocks; never none.
    #[must_use]
    pub fn ports(&self) -> PortSet {
        self.port_ranges().into_iter().collect()
    }

    /// The different ranges of ports that are blocks; never none.
    #[must_use]
    pub fn port_ranges(&self) -> BTreeSet<PortRange> {
        match self {
            // The next outside addresses have the same blocks again.
            Self::Plan(plan) => {
                plan.iter().take(plan.sources_per_address()).map(|block| block.ports).collect()
            }
            Self::Explicit(blocks) => blocks.port_ranges(),
        }
    }
}

impl<'a> IntoIterator for &'a BlockTable {
    type Item = Block;
    type IntoIter = Box<dyn Iterator<Item = Block> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A plan, as [`BlockPlan`] is written, or lines of `SOURCE=PORTS` or `SOURCE=OUTSIDE:PORTS`. Empty
/// lines, and what follows a `#`, are for people.
impl FromStr for BlockTable {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let plan = text.split('#').next().unwrap_or(text).trim();
        if plan.contains('@') && plan.lines().count() == 1 {
            return plan.parse().map(Self::Plan);
        }
        text.parse().map(Self::Explicit)
    }
}

impl fmt::Display for BlockTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(plan) => write!(f, "{plan}"),
            Self::Explicit(blocks) => write!(f, "{blocks}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::strategies;
    use crate::strategies::allocation::block_tables;
    use crate::testing::errors;

    #[test]
    fn lines_become_blocks_both_ways() {
        let text = "10.0.0.2 = 2000-2999 # second\n\n10.0.0.1=1024-1999\n";
        let table: BlockTable = text.parse().unwrap();
        assert_eq!(table.to_string(), "10.0.0.1=1024-1999\n10.0.0.2=2000-2999");
        assert_eq!(table.ports().to_string(), "1024-2999");
        assert!((&table).into_iter().eq(table.iter()) && table.iter().count() == 2);
        assert_eq!(table.count(), 2);
        let any = "203.0.113.7".parse().unwrap();
        let who = |port: &str| table.source_of(any, port.parse().unwrap());
        assert_eq!(who("1999"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(who("2000"), Some("10.0.0.2".parse().unwrap()));
        assert_eq!((who("1023"), who("3000")), (None, None));
    }

    #[test]
    fn outside_addresses_have_their_own_ports() {
        let text = "10.0.0.1=192.0.2.1:1024-1999\n10.0.0.2=192.0.2.2:1024-1999";
        let table: BlockTable = text.parse().unwrap();
        assert_eq!(table.to_string(), text);
        let who = |outside: &str| table.source_of(outside.parse().unwrap(), Port::MIN);
        assert_eq!(who("192.0.2.1"), None);
        let who =
            |outside: &str| table.source_of(outside.parse().unwrap(), "1500".parse().unwrap());
        assert_eq!(who("192.0.2.2"), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(who("192.0.2.3"), None);
    }

    #[test]
    fn errors_of_block_tables() {
        let errors = errors::<BlockTable>(&[
            "",
            "\n10.0.0.1",
            "10.0.0.0/24=1",
            "10.0.0.1=0",
            "10.0.0.1=[::1]:5",
            "10.0.0.1=1\n10.0.0.1=2",
            "10.0.0.1=1-9\n10.0.0.2=9",
            "10.0.0.1=1\n10.0.0.2=192.0.2.1:2",
        ]);
        expect![[r#"
            "" => the table has no block: expected lines of SOURCE=PORTS, like 10.0.0.1=1024-2047
            "\n10.0.0.1" => line 2: `10.0.0.1` is not a block: expected SOURCE=PORTS, like 10.0.0.1=1024-2047
            "10.0.0.0/24=1" => line 1: `10.0.0.0/24` is not an address: expected one like 10.0.0.1
            "10.0.0.1=0" => line 1: port 0 is not a port: expected 1 to 65535
            "10.0.0.1=[::1]:5" => line 1: 10.0.0.1 cannot be translated to ::1: expected addresses of one family
            "10.0.0.1=1\n10.0.0.1=2" => 10.0.0.1=1 and 10.0.0.1=2 are for the same source: expected one block for each
            "10.0.0.1=1-9\n10.0.0.2=9" => 10.0.0.1=1-9 and 10.0.0.2=9 overlap: expected each port in one block
            "10.0.0.1=1\n10.0.0.2=192.0.2.1:2" => 10.0.0.2=192.0.2.1:2 names an outside address and 10.0.0.1=1 does not: expected it for all or none
        "#]].assert_eq(&errors);
    }

    proptest! {
        #[test]
        fn reverse_lookup_is_the_inverse(table in block_tables(), ports in vec(strategies::ports(), 20)) {
            // Of every source, in both directions; of a large plan, its first and its last ones.
            let index = |index: usize| table.iter().nth(index);
            let last = usize::try_from(table.count()).unwrap_or(usize::MAX).min(5_000);
            let blocks = table.iter().take(1_000).chain(index(last - 1));
            for block in blocks {
                prop_assert_eq!(table.block_of(block.source), Some(block));
                let outside = block.outside.unwrap_or(block.source);
                let own = [block.ports.first(), block.ports.last()];
                for port in ports.iter().copied().chain(own) {
                    let found = table.source_of(outside, port);
                    prop_assert_eq!(found == Some(block.source), block.ports.contains(port));
                    if let Some(source) = found {
                        let other = table.block_of(source).unwrap();
                        prop_assert!(other.ports.contains(port));
                        prop_assert_eq!(other.outside, block.outside);
                    }
                }
            }
        }

        #[test]
        fn printed_values_parse_back(table in block_tables()) {
            prop_assert_eq!(table.to_string().parse(), Ok(table));
        }

        #[test]
        fn a_plan_written_out_means_the_same(table in block_tables()) {
            let blocks: Vec<_> = table.iter().take(200).collect();
            let explicit = BlockTable::Explicit(ExplicitBlocks::new(blocks.clone()).unwrap());
            for block in blocks {
                let outside = block.outside.unwrap_or(block.source);
                prop_assert_eq!(explicit.block_of(block.source), Some(block));
                prop_assert_eq!(table.block_of(block.source), Some(block));
                for port in [block.ports.first(), block.ports.last()] {
                    prop_assert_eq!(explicit.source_of(outside, port), Some(block.source));
                    prop_assert_eq!(table.source_of(outside, port), Some(block.source));
                }
            }
        }
    }
}
