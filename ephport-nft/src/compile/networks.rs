//! Whether an address is in some networks.
//!
//! An anonymous interval set of a rule that replaces another is empty for an instant of the commit: a packet
//! that is under way then is not matched. So several networks are compared by their masked address, in a
//! hash set for each length of prefix.

use std::collections::BTreeMap;

use ephport_core::Family;
use ipnet::IpNet;

use super::Program;
use crate::nftables::expr::{Bitwise, Cmp, CmpOp, Ct, Expr, Lookup, Payload};
use crate::nftables::value;
use crate::table::Set;

/// The place of the source address that the connection had before translation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The packet: before translation, and of packets without a connection.
    Packet,
    /// The connection, after translation.
    Connection,
}

/// The address that is compared.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Source(Source),
    Destination,
}

impl Program {
    /// Alternatives, of which one matches if the address is in one of `networks`; none if no address of
    /// `family` is.
    pub(super) fn inside(&mut self, of: Of, family: Family, networks: &[IpNet]) -> Vec<Vec<Expr>> {
        let by_prefix = by_prefix(family, networks);
        by_prefix.iter().map(|(len, nets)| self.compared(of, family, *len, nets, true)).collect()
    }

    /// Matches if the address is in none of `networks`; `None` if no address of `family` is.
    pub(super) fn outside(
        &mut self,
        of: Of,
        family: Family,
        networks: &[IpNet],
    ) -> Option<Vec<Expr>> {
        let by_prefix = by_prefix(family, networks);
        if by_prefix.contains_key(&0) {
            return None;
        }
        let compared =
            by_prefix.iter().map(|(len, nets)| self.compared(of, family, *len, nets, false));
        Some(compared.flatten().collect())
    }

    /// Compares the first `len` bits of an address.
    fn compared(
        &mut self,
        of: Of,
        family: Family,
        len: u8,
        networks: &[IpNet],
        is_inside: bool,
    ) -> Vec<Expr> {
        let op = if is_inside { CmpOp::Eq } else { CmpOp::Neq };
        let [network] = networks else {
            return self.looked_up(of, family, len, networks, is_inside);
        };
        let bytes = octets(*network);
        match (len, len % 8) {
            (0, _) => Vec::new(),
            (_, 0) => {
                let front = bytes.iter().take(usize::from(len / 8)).copied().collect::<Vec<_>>();
                vec![load(of, family, u32::from(len / 8)), Cmp::new(op, &front).into()]
            }
            _ => vec![
                load(of, family, address_len(family)),
                Bitwise::mask(&mask(family, len)).into(),
                Cmp::new(op, &bytes).into(),
            ],
        }
    }

    fn looked_up(
        &mut self,
        of: Of,
        family: Family,
        len: u8,
        networks: &[IpNet],
        is_inside: bool,
    ) -> Vec<Expr> {
        let keys = networks.iter().map(|network| octets(*network));
        let set = self.anonymous_set(|name| Set::addresses(name, family, keys));
        let mut exprs = vec![load(of, family, address_len(family))];
        if u32::from(len) < address_len(family) * 8 {
            exprs.push(Bitwise::mask(&mask(family, len)).into());
        }
        exprs.push(
            if is_inside { Lookup::within(&set.name) } else { Lookup::outside(&set.name) }.into(),
        );
        exprs
    }
}

/// Those of the networks that are of `family`, merged, by the length of their prefix.
fn by_prefix(family: Family, networks: &[IpNet]) -> BTreeMap<u8, Vec<IpNet>> {
    let of_family = networks.iter().filter(|net| Family::of(net.addr()) == family);
    let mut by_prefix: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for network in IpNet::aggregate(&of_family.copied().collect()) {
        by_prefix.entry(network.prefix_len()).or_default().push(network);
    }
    by_prefix
}

/// The first address of a network.
fn octets(network: IpNet) -> Vec<u8> {
    value::address_bytes(network.network())
}

pub(super) fn mask(family: Family, len: u8) -> Vec<u8> {
    let bits = (0..address_len(family)).map(|byte| u32::from(len).saturating_sub(byte * 8).min(8));
    bits.map(|bits| !u8::MAX.checked_shr(bits).unwrap_or(0)).collect()
}

/// Loads the whole address.
pub(super) fn address(of: Of, family: Family) -> Expr {
    load(of, family, address_len(family))
}

/// Loads the first `len` bytes of the address; conntrack has only whole ones.
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

fn address_len(family: Family) -> u32 {
    u32::try_from(value::address_len(family)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_their_prefix() {
        assert_eq!(mask(Family::Ipv4, 0), [0; 4]);
        assert_eq!(mask(Family::Ipv4, 12), [255, 240, 0, 0]);
        assert_eq!(mask(Family::Ipv4, 32), [255; 4]);
        assert_eq!(mask(Family::Ipv6, 9)[..3], [255, 128, 0]);
    }

    #[test]
    fn networks_are_merged_and_grouped_by_prefix() {
        let nets: Vec<IpNet> =
            ["10.0.0.0/25", "10.0.0.128/25", "10.2.0.0/24", "fd00::/8", "10.9.0.0/16"]
                .map(|net| net.parse().unwrap())
                .into();
        let lens =
            |family| by_prefix(family, &nets).into_iter().map(|(len, nets)| (len, nets.len()));
        assert_eq!(lens(Family::Ipv4).collect::<Vec<_>>(), [(16, 1), (24, 2)]);
        assert_eq!(lens(Family::Ipv6).collect::<Vec<_>>(), [(8, 1)]);
    }
}
