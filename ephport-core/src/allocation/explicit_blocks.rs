//! Blocks that are listed one by one, in a compact table.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use crate::allocation::blocks::{Block, BlockError};
use crate::net::address_range::AddressRange;
use crate::net::family::Family;
use crate::net::port::{Port, PortRange};

/// The most blocks of a table: one for each address of an IPv4 network with 24 bits for hosts.
pub(super) const MAX_BLOCKS: usize = 1 << 24;

/// Blocks of any size for any sources; no source has two and no port is in two, and there is at
/// least one. Copies share one table: 16 bytes for each IPv4 source, 40 for each IPv6 source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExplicitBlocks {
    table: Arc<Table>,
    file: Option<Box<str>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Table {
    has_outside: bool,
    /// By source.
    ipv4: Vec<Row<Ipv4Addr>>,
    ipv6: Vec<Row<Ipv6Addr>>,
    /// The indexes of all blocks, IPv4 first, by outside address and first port.
    by_place: Vec<u32>,
}

/// A block; its outside address is the source if the table has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Row<A> {
    source: A,
    outside: A,
    ports: PortRange,
}

impl ExplicitBlocks {
    /// The table of these blocks, in any order; at most 16,777,216.
    pub fn new(blocks: Vec<Block>) -> Result<Self, BlockError> {
        let mut rows = Rows::at_most(MAX_BLOCKS);
        for (block, number) in blocks.into_iter().zip(0..) {
            rows.push(block, number).map_err(|conflict| conflict.error)?;
        }
        rows.table().map_err(|conflict| conflict.error)
    }

    /// The same blocks, as a policy names them: by the file that they were read from.
    #[must_use]
    pub(super) fn of_file(self, path: &str) -> Self {
        Self { file: Some(path.into()), ..self }
    }

    /// The same blocks without the file that they were read from.
    #[must_use]
    pub fn without_file(self) -> Self {
        Self { file: None, ..self }
    }

    /// The path of the file that they were read from, as the policy names it.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        self.table.by_place.len()
    }

    pub(super) fn count_of(&self, family: Family) -> usize {
        match family {
            Family::Ipv4 => self.table.ipv4.len(),
            Family::Ipv6 => self.table.ipv6.len(),
        }
    }

    pub(super) fn has_outside(&self) -> bool {
        self.table.has_outside
    }

    /// Every block, by source; IPv4 first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Block> {
        self.iter_of(Family::Ipv4).chain(self.iter_of(Family::Ipv6))
    }

    /// Every block of a family, by source.
    pub(super) fn iter_of(&self, family: Family) -> impl Iterator<Item = Block> + Clone {
        let has_outside = self.table.has_outside;
        let (ipv4, ipv6) = match family {
            Family::Ipv4 => (self.table.ipv4.as_slice(), &[] as &[_]),
            Family::Ipv6 => (&[] as &[_], self.table.ipv6.as_slice()),
        };
        let ipv4 = ipv4.iter().map(move |row| row.block(has_outside));
        ipv4.chain(ipv6.iter().map(move |row| row.block(has_outside)))
    }

    pub(super) fn block_of(&self, source: IpAddr) -> Option<Block> {
        let Table { has_outside, ipv4, ipv6, .. } = &*self.table;
        match source {
            IpAddr::V4(source) => find(ipv4, source).map(|row| row.block(*has_outside)),
            IpAddr::V6(source) => find(ipv6, source).map(|row| row.block(*has_outside)),
        }
    }

    pub(super) fn source_of(&self, outside: IpAddr, port: Port) -> Option<IpAddr> {
        let outside = self.table.has_outside.then_some(outside);
        let end = |index: u32| self.table.block(index).map(|b| (b.outside, b.ports.last()));
        let before = |index: &u32| end(*index).is_some_and(|end| end < (outside, port));
        let at = self.table.by_place.partition_point(before);
        let block = self.table.block(*self.table.by_place.get(at)?)?;
        (block.outside == outside && block.ports.contains(port)).then_some(block.source)
    }

    /// The sources, adjacent ones in one range.
    pub(super) fn sources(&self) -> Vec<AddressRange> {
        merged(self.iter().map(|block| block.source))
    }

    /// The outside addresses, adjacent ones in one range.
    pub(super) fn outside(&self) -> Vec<AddressRange> {
        let by_place = self.table.by_place.iter();
        merged(by_place.filter_map(|index| self.table.block(*index)?.outside))
    }

    pub(super) fn port_ranges(&self) -> BTreeSet<PortRange> {
        self.iter().map(|block| block.ports).collect()
    }
}

/// Ranges of these addresses, which ascend and may be repeated.
fn merged(addresses: impl Iterator<Item = IpAddr>) -> Vec<AddressRange> {
    let mut ranges: Vec<AddressRange> = Vec::new();
    for address in addresses {
        match ranges.last_mut() {
            Some(last) if last.last() == address => {}
            Some(last) if last.next() == Some(address) => {
                *last = AddressRange::new(last.first(), address).unwrap_or(*last);
            }
            _ => ranges.push(address.into()),
        }
    }
    ranges
}

fn find<A: Copy + Ord>(rows: &[Row<A>], source: A) -> Option<&Row<A>> {
    rows.get(rows.binary_search_by_key(&source, |row| row.source).ok()?)
}

impl<A: Copy + Into<IpAddr>> Row<A> {
    fn block(&self, has_outside: bool) -> Block {
        let outside = has_outside.then(|| self.outside.into());
        Block { source: self.source.into(), outside, ports: self.ports }
    }
}

impl Table {
    /// The block with this index, IPv4 first.
    fn block(&self, index: u32) -> Option<Block> {
        let index = usize::try_from(index).ok()?;
        match index.checked_sub(self.ipv4.len()) {
            None => Some(self.ipv4.get(index)?.block(self.has_outside)),
            Some(index) => Some(self.ipv6.get(index)?.block(self.has_outside)),
        }
    }
}

/// Blocks that are being collected, each with a number by which errors name it.
pub(super) struct Rows {
    max: usize,
    first: Option<(Block, u32)>,
    ipv4: Vec<(Row<Ipv4Addr>, u32)>,
    ipv6: Vec<(Row<Ipv6Addr>, u32)>,
}

/// Why blocks are no table, and the numbers of the two at fault in the order of the error; of one, twice.
pub(super) struct Conflict {
    pub(super) error: BlockError,
    pub(super) numbers: (u32, u32),
}

impl Rows {
    /// None yet, and at most `max`.
    pub(super) fn at_most(max: usize) -> Self {
        Self { max, first: None, ipv4: Vec::new(), ipv6: Vec::new() }
    }

    pub(super) fn push(&mut self, block: Block, number: u32) -> Result<(), Conflict> {
        let (first, first_number) = *self.first.get_or_insert((block, number));
        let mixed = match (first.outside, block.outside) {
            (Some(_), None) => Some((first, block, (first_number, number))),
            (None, Some(_)) => Some((block, first, (number, first_number))),
            _ => None,
        };
        if let Some((with, without, numbers)) = mixed {
            return Err(Conflict { error: BlockError::MixedOutside { with, without }, numbers });
        }
        let conflict = |error| Err(Conflict { error, numbers: (number, number) });
        let Block { source, outside, ports } = block;
        match (source, outside.unwrap_or(source)) {
            (IpAddr::V4(source), IpAddr::V4(outside)) => {
                self.ipv4.push((Row { source, outside, ports }, number));
            }
            (IpAddr::V6(source), IpAddr::V6(outside)) => {
                self.ipv6.push((Row { source, outside, ports }, number));
            }
            (inside, outside) => return conflict(BlockError::Families { inside, outside }),
        }
        if self.ipv4.len() + self.ipv6.len() > self.max {
            return conflict(BlockError::TooMany { max: self.max });
        }
        Ok(())
    }

    /// The table of the blocks.
    pub(super) fn table(mut self) -> Result<ExplicitBlocks, Conflict> {
        let Some((first, _)) = self.first else {
            return Err(Conflict { error: BlockError::Empty, numbers: (0, 0) });
        };
        self.ipv4.sort_unstable_by_key(|(row, number)| (row.source, *number));
        self.ipv6.sort_unstable_by_key(|(row, number)| (row.source, *number));
        let (ipv4, mut numbers): (Vec<_>, Vec<_>) = self.ipv4.into_iter().unzip();
        let (ipv6, more): (Vec<_>, Vec<_>) = self.ipv6.into_iter().unzip();
        numbers.extend(more);
        // At most MAX_BLOCKS.
        let by_place = (0..).take(numbers.len()).collect();
        let has_outside = first.outside.is_some();
        let mut table = Table { has_outside, ipv4, ipv6, by_place };
        let mut by_place = std::mem::take(&mut table.by_place);
        let conflict = |a: u32, b: u32, error: fn(Block, Block) -> BlockError| {
            let number = |index| numbers.get(usize::try_from(index).ok()?).copied();
            let error = error(table.block(a)?, table.block(b)?);
            Some(Conflict { error, numbers: (number(a)?, number(b)?) })
        };
        let same_source = |a: &Block, b: &Block| a.source == b.source;
        if let Some((a, b)) = table.pair(&by_place, same_source)
            && let Some(conflict) =
                conflict(a, b, |first, second| BlockError::SourceTwice { first, second })
        {
            return Err(conflict);
        }
        by_place.sort_unstable_by_key(|index| {
            table.block(*index).map(|block| (block.outside, block.ports))
        });
        let overlap = |a: &Block, b: &Block| {
            a.outside == b.outside && a.ports.intersection(b.ports).is_some()
        };
        if let Some((a, b)) = table.pair(&by_place, overlap)
            && let Some(conflict) =
                conflict(a, b, |first, second| BlockError::Overlap { first, second })
        {
            return Err(conflict);
        }
        table.by_place = by_place;
        Ok(ExplicitBlocks { table: Arc::new(table), file: None })
    }
}

impl Table {
    /// The first two neighbours in this order that are wrong together.
    fn pair(&self, order: &[u32], wrong: impl Fn(&Block, &Block) -> bool) -> Option<(u32, u32)> {
        let mut neighbours = order.iter().zip(order.iter().skip(1)).map(|(a, b)| (*a, *b));
        neighbours.find(|(a, b)| {
            let (a, b) = (self.block(*a), self.block(*b));
            a.zip(b).is_some_and(|(a, b)| wrong(&a, &b))
        })
    }
}

/// Lines of `SOURCE=PORTS` or `SOURCE=OUTSIDE:PORTS`. Empty lines, and what follows a `#`, are for people.
impl FromStr for ExplicitBlocks {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let mut rows = Rows::at_most(MAX_BLOCKS);
        for (line, number) in text.lines().zip(1..) {
            let text = line.split('#').next().unwrap_or(line).trim();
            if text.is_empty() {
                continue;
            }
            let located = |error| BlockError::Line { line: number, error: Box::new(error) };
            let block = text.parse().map_err(located)?;
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            rows.push(block, number).map_err(|conflict| conflict.error)?;
        }
        rows.table().map_err(|conflict| conflict.error)
    }
}

impl fmt::Display for ExplicitBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (block, number) in self.iter().zip(0usize..) {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{block}")?;
        }
        Ok(())
    }
}
