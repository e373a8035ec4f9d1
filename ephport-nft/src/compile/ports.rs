//! Whether a port is in a set of ports.
//!
//! An interval set is empty for an instant of the commit that adds it: a packet that is under way then is not
//! matched. So ranges are compared one by one, or a few ports of one range are excepted, or the port is compared
//! by its leading bits, in a hash set for each number of them.

use std::collections::BTreeMap;

use ephport_core::{PortRange, PortSet};

use super::Program;
use crate::nftables::expr::{Bitwise, Cmp, CmpOp, Expr, Lookup, Payload};
use crate::nftables::value;
use crate::table::Set;

/// Up to so many ranges are compared one by one, without a look at the other forms.
pub(super) const MAX_COMPARED: usize = 4;

/// The most ports that are excepted from one range.
const MAX_EXCEPTED: u32 = 64;

/// The bits of a port.
const BITS: u32 = u16::BITS;

impl Program {
    /// Whether the port that `load` loads is one of these, as alternatives of which one matches.
    pub(super) fn ports(&mut self, load: &Expr, ports: &PortSet) -> Vec<Vec<Expr>> {
        let ranges = ports.ranges();
        if ranges.len() > 1 && ranges.iter().all(|range| range.count() == 1) {
            let set = self.anonymous_set(|name| keyed(load, Set::ports(name, ports)));
            return vec![vec![load.clone(), Lookup::within(&set.name).into()]];
        }
        if ranges.len() <= MAX_COMPARED {
            return ranges.iter().map(|range| within(load, *range)).collect();
        }
        if let Some(matches) = self.all_but_few(load, ports) {
            return vec![matches];
        }
        let by_len = by_leading_bits(ports);
        // nft has no bits of a connection's port.
        let has_bits = matches!(load, Expr::Payload(_));
        if ranges.len() <= by_len.len() || !has_bits {
            return ranges.iter().map(|range| within(load, *range)).collect();
        }
        by_len.into_iter().map(|(len, firsts)| self.leading_bits(load, len, &firsts)).collect()
    }

    /// Matches the range from the lowest to the highest port, but for a few in between.
    fn all_but_few(&mut self, load: &Expr, ports: &PortSet) -> Option<Vec<Expr>> {
        let (first, last) = (ports.ranges().first()?.first(), ports.ranges().last()?.last());
        let hull = PortRange::new(first, last).ok()?;
        let excepted = PortSet::from(hull).difference(ports);
        if excepted.count() > MAX_EXCEPTED {
            return None;
        }
        let keys = excepted.ports().map(|port| value::port_bytes(port).to_vec());
        let set = self.anonymous_set(|name| keyed(load, Set::port_keys(name, keys)));
        let mut exprs = within(load, hull);
        exprs.extend([load.clone(), Lookup::outside(&set.name).into()]);
        Some(exprs)
    }

    /// Matches the ports whose first `len` bits are those of one of `firsts`.
    fn leading_bits(&mut self, load: &Expr, len: u32, firsts: &[u16]) -> Vec<Expr> {
        let mut exprs = bits(load, len);
        exprs.push(if let [first] = firsts {
            Cmp::new(CmpOp::Eq, &first.to_be_bytes()).into()
        } else {
            let keys = firsts.iter().map(|first| first.to_be_bytes().to_vec());
            let set = self.anonymous_set(|name| keyed(load, Set::port_keys(name, keys)));
            Lookup::within(&set.name).into()
        });
        exprs
    }
}

/// The same set for what `load` loads: ports or identifiers.
pub(super) fn keyed(load: &Expr, set: Set) -> Set {
    if *load == Payload::ECHO_IDENTIFIER.into() { set.of_identifiers() } else { set }
}

/// Whether the port that `load` loads is in a range.
pub(super) fn within(load: &Expr, range: PortRange) -> Vec<Expr> {
    let [first, last] = [range.first(), range.last()].map(value::port_bytes);
    let mut exprs = vec![load.clone()];
    if first == last {
        exprs.push(Cmp::new(CmpOp::Eq, &first).into());
    } else {
        exprs.extend([Cmp::new(CmpOp::Gte, &first).into(), Cmp::new(CmpOp::Lte, &last).into()]);
    }
    exprs
}

/// Loads the first `len` bits of the port that `load` loads.
pub(super) fn bits(load: &Expr, len: u32) -> Vec<Expr> {
    let mut exprs = vec![load.clone()];
    if len < BITS {
        let mask = u16::MAX.checked_shl(BITS - len).unwrap_or(0);
        exprs.push(Bitwise::mask(&mask.to_be_bytes()).into());
    }
    exprs
}

/// The fewest aligned blocks that are the set together: by the number of leading bits that the ports of a block
/// share, the first port of each block.
pub(super) fn by_leading_bits(ports: &PortSet) -> BTreeMap<u32, Vec<u16>> {
    let mut blocks: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
    for range in ports.ranges() {
        let (mut first, last) = (u32::from(range.first().get()), u32::from(range.last().get()));
        while first <= last {
            let aligned = first.trailing_zeros().min(BITS);
            let fitting = (last - first + 1).ilog2();
            let free = aligned.min(fitting);
            blocks.entry(BITS - free).or_default().extend(u16::try_from(first));
            first += 1 << free;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use ephport_core::Port;

    use super::*;

    #[test]
    fn blocks_cover_exactly_their_ports() {
        for text in ["1-65535", "1024-65535", "7", "1000-1007,2000-2001", "4928-4943,5952-5967"] {
            let ports: PortSet = text.parse().unwrap();
            let covered = by_leading_bits(&ports).into_iter().flat_map(|(len, firsts)| {
                firsts.into_iter().map(move |first| {
                    let last = u32::from(first) + (1 << (BITS - len)) - 1;
                    let port = |number: u32| Port::new(u16::try_from(number).unwrap()).unwrap();
                    PortRange::new(port(first.into()), port(last)).unwrap()
                })
            });
            assert_eq!(covered.collect::<PortSet>(), ports, "{text}");
        }
    }

    #[test]
    fn equal_blocks_share_their_length() {
        let map_e: PortSet = "4928-4943,5952-5967,6976-6991".parse().unwrap();
        assert_eq!(by_leading_bits(&map_e), BTreeMap::from([(12, vec![4928, 5952, 6976])]));
    }
}
