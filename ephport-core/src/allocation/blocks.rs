//! A block of ports for each source, by arithmetic: the deterministic mapping of RFC 7422.
//!
//! Source number i gets block number i, so that the source of a port is known later without any log.
//! Of the RFC's address assignment algorithms this is the sequential one (§2.2, algorithm A), and
//! there is no overflow: its *dynamic address pool* is not supported, because only a log can trace a
//! connection from that pool. A source that has used up its block waits for a free port.
//!
//! A plan is written `SOURCES=SIZE@PORTS`, or, when sources are spread over several outside
//! addresses, `SOURCES=SIZE@OUTSIDE:PORTS`:
//!
//! ```
//! use ephport_core::BlockPlan;
//!
//! let plan: BlockPlan = "10.0.0.0/22=63@1024-65535".parse()?;
//! let block = plan.block_of("10.0.0.1".parse()?).expect("a source of the plan");
//! assert_eq!(block.ports, "1087-1149".parse()?);
//! assert_eq!(plan.source_of("192.0.2.1".parse()?, "1100".parse()?), Some(block.source));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::allocation::range;
use crate::net::address_range::{AddressRange, AddressRangeError};
use crate::net::port::{Port, PortError, PortRange};
use crate::net::port_set::PortSet;
use crate::text::quoted;

/// The ports of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Block {
    /// The source.
    pub source: IpAddr,
    /// Its source address after translation; `None` if the policy chooses it.
    pub outside: Option<IpAddr>,
    /// Its source ports after translation.
    pub ports: PortRange,
}

/// Blocks of one size for consecutive sources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockPlan {
    sources: AddressRange,
    outside: Option<AddressRange>,
    ports: PortSet,
    size: u16,
    /// The blocks of one outside address, ascending; not empty.
    blocks: Vec<PortRange>,
}

impl BlockPlan {
    /// Gives each of `sources`, in order, the next `size` of `ports`: first of the first outside
    /// address, then of the second, and so on. No block straddles a gap of `ports`.
    pub fn new(
        sources: AddressRange,
        size: u16,
        outside: Option<AddressRange>,
        ports: PortSet,
    ) -> Result<Self, BlockError> {
        if size == 0 {
            return Err(BlockError::SizeZero);
        }
        if let Some(outside) = outside.filter(|outside| outside.family() != sources.family()) {
            return Err(BlockError::Families { inside: sources.first(), outside: outside.first() });
        }
        let addresses = outside.map_or(1, AddressRange::count);
        let capacity = |size| block_count(&ports, size).saturating_mul(addresses);
        if capacity(size) < sources.count() {
            let sizes: Vec<u16> = (1..=size).collect();
            // All sizes up to the largest fit.
            let largest = sizes.partition_point(|size| capacity(*size) >= sources.count());
            let (blocks, sources) = (capacity(size), sources.count());
            return Err(BlockError::DoesNotFit { blocks, size, sources, largest });
        }
        let blocks = ports.ranges().iter().flat_map(|range| cut(*range, size)).collect();
        Ok(Self { sources, outside, ports, size, blocks })
    }

    /// The sources.
    #[must_use]
    pub fn sources(&self) -> AddressRange {
        self.sources
    }

    /// The source addresses after translation, when the plan names them.
    #[must_use]
    pub fn outside(&self) -> Option<AddressRange> {
        self.outside
    }

    /// The ports that the blocks are cut from.
    #[must_use]
    pub fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// How many ports a source gets, 1 to 65535.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How many sources share an outside address: RFC 7422's compression ratio, 1:N.
    #[must_use]
    pub fn sources_per_address(&self) -> usize {
        self.blocks.len()
    }

    /// The blocks of one outside address, ascending: the sources of that address have them in order.
    #[must_use]
    pub fn blocks(&self) -> &[PortRange] {
        &self.blocks
    }

    /// The number of low bits of a source address that select its block while the bits above select the
    /// outside address, 1 to 15. `None` where they do not: the plan names no outside addresses, the number of
    /// blocks of an address is no power of two, or the sources do not begin and end at a multiple of it.
    ///
    /// ```
    /// use ephport_core::BlockPlan;
    ///
    /// let plan: BlockPlan = "10.0.0.0/12=1008@192.0.0.0/18:1024-65535".parse()?;
    /// assert_eq!((plan.sources().count(), plan.sources_per_address()), (1_048_576, 64));
    /// assert_eq!(plan.factored_bits(), Some(6)); // 16,384 addresses and 64 blocks
    /// # Ok::<(), ephport_core::BlockError>(())
    /// ```
    #[must_use]
    pub fn factored_bits(&self) -> Option<u32> {
        let per_address = self.blocks.len();
        self.outside?;
        let is_factored = per_address > 1
            && per_address.is_power_of_two()
            && self.sources.is_aligned(per_address as u128);
        is_factored.then(|| per_address.trailing_zeros())
    }

    /// The first source of each outside address in use, with that address.
    pub fn first_sources(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let first = |address: u128| {
            let source = self.sources.nth(address.checked_mul(self.blocks.len() as u128)?)?;
            Some((source, self.outside?.nth(address)?))
        };
        (0..).map_while(first)
    }

    /// The block of `source`, if the plan has one for it.
    #[must_use]
    pub fn block_of(&self, source: IpAddr) -> Option<Block> {
        self.nth(self.sources.index_of(source)?)
    }

    /// The source with `port` of the address `outside`, if there is one. In a plan without outside
    /// addresses, the block applies to every address.
    #[must_use]
    pub fn source_of(&self, outside: IpAddr, port: Port) -> Option<IpAddr> {
        let address = self.outside.map_or(Some(0), |range| range.index_of(outside))?;
        let block = self.blocks.partition_point(|block| block.last() < port);
        self.blocks.get(block).filter(|block| block.contains(port))?;
        let index = address.checked_mul(self.blocks.len() as u128)?.checked_add(block as u128)?;
        self.sources.nth(index)
    }

    /// Every block, by source.
    pub fn iter(&self) -> impl Iterator<Item = Block> {
        (0..self.sources.count()).map_while(|index| self.nth(index))
    }

    /// The block of the source with this index.
    fn nth(&self, index: u128) -> Option<Block> {
        let per_address = self.blocks.len() as u128;
        let outside = match self.outside {
            Some(range) => Some(range.nth(index / per_address)?),
            None => None,
        };
        let ports = *self.blocks.get(usize::try_from(index % per_address).ok()?)?;
        Some(Block { source: self.sources.nth(index)?, outside, ports })
    }
}

/// How many blocks of `size` ports one address has.
fn block_count(ports: &PortSet, size: u16) -> u128 {
    ports.ranges().iter().map(|range| u128::from(range.count() / u32::from(size))).sum()
}

/// The blocks of `size` ports in a range; the rest at its end is in no block.
fn cut(whole: PortRange, size: u16) -> impl Iterator<Item = PortRange> {
    let (first, size) = (u32::from(whole.first().get()), u32::from(size));
    (0..whole.count() / size)
        .filter_map(move |i| range(first + i * size, first + i * size + size - 1))
}

/// `SOURCES=SIZE@PORTS` or `SOURCES=SIZE@OUTSIDE:PORTS`; IPv6 goes in brackets before a colon.
impl FromStr for BlockPlan {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let unreadable = || BlockError::NotAPlan { text: text.into() };
        let (sources, rest) = text.split_once('=').ok_or_else(unreadable)?;
        let (size, place) = rest.split_once('@').ok_or_else(unreadable)?;
        let is_number = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
        let size = size.parse().ok().filter(|_| is_number);
        let size = size.ok_or_else(|| BlockError::Size { text: text.into() })?;
        let (outside, ports) = split_place(place);
        let outside = outside.map(str::parse).transpose()?;
        Self::new(sources.parse()?, size, outside, ports.parse()?)
    }
}

impl fmt::Display for BlockPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}@{}", self.sources, self.size, Place(self.outside, &self.ports))
    }
}

/// `SOURCE=PORTS` or `SOURCE=OUTSIDE:PORTS`.
impl FromStr for Block {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let unreadable = || BlockError::NotABlock { text: text.into() };
        let (source, place) = text.split_once('=').ok_or_else(unreadable)?;
        let (outside, ports) = split_place(place.trim());
        let outside = outside.map(address).transpose()?;
        let block = Self { source: address(source.trim())?, outside, ports: ports.parse()? };
        match outside {
            Some(outside) if outside.is_ipv4() != block.source.is_ipv4() => {
                Err(BlockError::Families { inside: block.source, outside })
            }
            _ => Ok(block),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.source, Place(self.outside.map(AddressRange::from), &self.ports))
    }
}

fn address(text: &str) -> Result<IpAddr, BlockError> {
    text.parse().map_err(|_| BlockError::NotAnAddress { text: text.into() })
}

/// `[OUTSIDE:]PORTS`, as nft writes the target of `snat to`.
struct Place<'a, P>(Option<AddressRange>, &'a P);

impl<P: fmt::Display> fmt::Display for Place<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(outside) if outside.first().is_ipv6() => write!(f, "[{outside}]:{}", self.1),
            Some(outside) => write!(f, "{outside}:{}", self.1),
            None => write!(f, "{}", self.1),
        }
    }
}

/// The two parts of a [`Place`]. A colon after an address has a dot or a bracket before it; one
/// between two ports, as iptables writes a range, has not.
fn split_place(text: &str) -> (Option<&str>, &str) {
    if let Some((outside, ports)) = text.strip_prefix('[').and_then(|text| text.split_once("]:")) {
        return (Some(outside), ports);
    }
    match text.split_once(':') {
        Some((outside, ports)) if outside.contains('.') => (Some(outside), ports),
        _ => (None, text),
    }
}

/// Why there is no block for each source.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Not written as a plan.
    #[error(
        "{} is not a plan of blocks: expected SOURCES=SIZE@PORTS, like \
         10.0.0.0/22=63@1024-65535, or SOURCES=SIZE@OUTSIDE:PORTS",
        quoted(text)
    )]
    NotAPlan {
        /// What was written.
        text: Box<str>,
    },
    /// Not written as a block.
    #[error("{} is not a block: expected SOURCE=PORTS, like 10.0.0.1=1024-2047", quoted(text))]
    NotABlock {
        /// What was written.
        text: Box<str>,
    },
    /// The size is not a number of ports.
    #[error("size of blocks in {}: expected a number of ports from 1 to 65535", quoted(text))]
    Size {
        /// The whole plan.
        text: Box<str>,
    },
    /// Blocks without ports.
    #[error("blocks of 0 ports are empty: expected 1 to 65535")]
    SizeZero,
    /// Not one address.
    #[error("{} is not an address: expected one like 10.0.0.1", quoted(text))]
    NotAnAddress {
        /// What was written.
        text: Box<str>,
    },
    /// Not addresses.
    #[error(transparent)]
    Addresses(#[from] AddressRangeError),
    /// Not ports.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// NAT does not change the family of an address.
    #[error("{inside} cannot be translated to {outside}: expected addresses of one family")]
    Families {
        /// The source, or the first of them.
        inside: IpAddr,
        /// The outside address, or the first of them.
        outside: IpAddr,
    },
    /// More sources than blocks.
    #[error("{sources} sources need a block of {size} ports each, and there are {blocks}: {}", advice(*largest))]
    DoesNotFit {
        /// How many sources there are.
        sources: u128,
        /// How many blocks there are on all outside addresses.
        blocks: u128,
        /// How many ports a block has.
        size: u16,
        /// The largest size with a block for each source; 0 if there is none.
        largest: usize,
    },
    /// A table without blocks.
    #[error("the table has no block: expected lines of SOURCE=PORTS, like 10.0.0.1=1024-2047")]
    Empty,
    /// More blocks than a table has.
    #[error("there are more than {max} blocks: split the policy by its sources")]
    TooMany {
        /// How many a table has at most.
        max: usize,
    },
    /// Two blocks for a source.
    #[error("{first} and {second} are for the same source: expected one block for each")]
    SourceTwice {
        /// One block.
        first: Block,
        /// The other.
        second: Block,
    },
    /// A port that two sources would share.
    #[error("{first} and {second} overlap: expected each port in one block")]
    Overlap {
        /// The block that starts first.
        first: Block,
        /// The other.
        second: Block,
    },
    /// Outside addresses for some sources only.
    #[error("{with} names an outside address and {without} does not: expected it for all or none")]
    MixedOutside {
        /// A block with an outside address.
        with: Block,
        /// A block without.
        without: Block,
    },
    /// A line of a table.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        error: Box<BlockError>,
    },
}

fn advice(largest: usize) -> String {
    match largest {
        0 => {
            "even single ports are too few; expected fewer sources or more outside addresses".into()
        }
        1 => "expected blocks of one port".into(),
        _ => format!("expected blocks of at most {largest} ports"),
    }
}

#[cfg(test)]
mod tests;
