//! Whether an address is in some networks, as nft itself would ask: by a set, or without one where
//! a single comparison does.

use ephport_core::Family;
use ipnet::IpNet;

use super::Program;
use super::scope::Source;
use crate::nftables::expr::{
    Bitwise, Cmp, CmpOp, Ct, Data, Expr, Lookup, Payload, Range, RangeOp, Register,
};
use crate::nftables::value::address_len;
use crate::table::{Set, merged_networks};

/// Which address is asked about.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Source(Source),
    Destination,
}

impl Program {
    /// Goes on if the address is in one of `networks`, or only if it is in none of them; `None` if
    /// that never is so.
    pub(super) fn in_networks(
        &mut self,
        of: Of,
        family: Family,
        networks: &[IpNet],
        is_inside: bool,
    ) -> Option<Vec<Expr>> {
        match merged_networks(family, networks).as_slice() {
            [] => (!is_inside).then(Vec::new),
            [(first, last)] => single(of, family, first, last, is_inside),
            _ => {
                let set = self.anonymous_set(|name| Set::networks(name, family, networks));
                let lookup =
                    if is_inside { Lookup::within(&set.name) } else { Lookup::outside(&set.name) };
                let len = u32::try_from(address_len(family)).ok()?;
                Some(vec![load(of, family, len), lookup.into()])
            }
        }
    }
}

/// One range of addresses, as nft compares it: a prefix of whole bytes by those bytes, another
/// prefix under its mask, any other range by its ends.
fn single(of: Of, family: Family, first: &[u8], last: &[u8], is_inside: bool) -> Option<Vec<Expr>> {
    let op = if is_inside { CmpOp::Eq } else { CmpOp::Neq };
    let whole = u32::try_from(first.len()).ok()?;
    let Some(prefix) = prefix_len(first, last) else {
        let mut exprs = vec![load(of, family, whole)];
        if is_inside {
            exprs.push(Cmp::new(CmpOp::Gte, first).into());
            exprs.push(Cmp::new(CmpOp::Lte, last).into());
        } else {
            let (from, to) = (Data::value(first), Data::value(last));
            exprs.push(Range { sreg: Register::R1, op: RangeOp::Neq, from, to }.into());
        }
        return Some(exprs);
    };
    let bytes = usize::try_from(prefix / 8).ok()?;
    Some(match (prefix, prefix % 8) {
        (0, _) => return is_inside.then(Vec::new),
        (_, 0) => {
            vec![load(of, family, prefix / 8), Cmp::new(op, first.get(..bytes)?).into()]
        }
        _ => {
            let mask: Vec<_> = first.iter().zip(last).map(|(low, high)| !(low ^ high)).collect();
            vec![load(of, family, whole), Bitwise::mask(&mask).into(), Cmp::new(op, first).into()]
        }
    })
}

/// The length of the prefix that all from `first` to `last` share and nothing else has.
fn prefix_len(first: &[u8], last: &[u8]) -> Option<u32> {
    let number = |bytes: &[u8]| bytes.iter().fold(0u128, |n, byte| n << 8 | u128::from(*byte));
    let host = number(first) ^ number(last);
    let is_prefix = host & host.wrapping_add(1) == 0 && number(first) & host == 0;
    let bits = u32::try_from(first.len() * 8).ok()?;
    is_prefix.then(|| bits - host.count_ones())
}

/// Loads the first `len` bytes of the address; conntrack only knows whole ones.
fn load(of: Of, family: Family, len: u32) -> Expr {
    let header = match (of, family) {
        (Of::Source(Source::Connection), Family::Ipv4) => return Ct::ORIGINAL_SOURCE_V4.into(),
        (Of::Source(Source::Connection), Family::Ipv6) => return Ct::ORIGINAL_SOURCE_V6.into(),
        (Of::Source(Source::Packet), Family::Ipv4) => Payload::IPV4_SOURCE,
        (Of::Source(Source::Packet), Family::Ipv6) => Payload::IPV6_SOURCE,
        (Of::Destination, Family::Ipv4) => Payload::IPV4_DESTINATION,
        (Of::Destination, Family::Ipv6) => Payload::IPV6_DESTINATION,
    };
    Payload { len, ..header }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_told_from_other_ranges() {
        assert_eq!(prefix_len(&[10, 0, 0, 0], &[10, 255, 255, 255]), Some(8));
        assert_eq!(prefix_len(&[10, 0, 0, 1], &[10, 0, 0, 1]), Some(32));
        assert_eq!(prefix_len(&[0; 4], &[255; 4]), Some(0));
        assert_eq!(prefix_len(&[0; 16], &[255; 16]), Some(0));
        assert_eq!(prefix_len(&[10, 0, 0, 0], &[10, 0, 0, 2]), None);
        assert_eq!(prefix_len(&[10, 0, 0, 1], &[10, 0, 0, 2]), None);
    }
}
