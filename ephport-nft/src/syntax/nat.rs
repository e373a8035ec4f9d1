//! NAT statements: `masquerade` and `snat`, decoded once for printing, comparison and interpretation.

use ephport_core::{Address, Family, NatFlags, PortRange};

use super::operand::Operand;
use crate::nftables::expr::{Masq, Nat, Register};
use crate::nftables::value::{self, address, address_len, port, port_range};
use crate::uapi::{NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, NFT_NAT_SNAT};

/// A NAT statement.
#[derive(Clone, Debug, PartialEq)]
pub struct NatStatement<'a> {
    /// The family of the packets that it translates; `None` for both.
    pub family: Option<Family>,
    /// The source address after translation.
    pub address: Argument<'a, Address>,
    /// The ports to select from; `None` for any.
    pub ports: Option<Argument<'a, PortRange>>,
    /// The flags that select a port or address.
    pub flags: NatFlags,
    /// Whether the kernel ignores the ports: `masq` without `NF_NAT_RANGE_PROTO_SPECIFIED`. nft
    /// prints the ports nevertheless.
    pub ignores_ports: bool,
}

/// An argument of a NAT statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument<'a, T> {
    /// A value.
    Value(T),
    /// The lower and the upper end, as values of a map.
    Map(Box<[Operand<'a>; 2]>),
}

/// The arguments of a NAT statement for one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatTarget {
    /// The range to select a port from; `None` is any port.
    pub ports: Option<PortRange>,
    /// The source address after translation.
    pub address: Address,
    /// The flags.
    pub flags: NatFlags,
}

/// The first bytes of a register: a constant of this length, or a value of a map.
pub(crate) type Contents<'c, 'a> = &'c mut dyn FnMut(Register, usize) -> Option<Operand<'a>>;

impl<'a> NatStatement<'a> {
    /// The statement of a `masq` expression; `None` for arguments or flags that no policy needs.
    pub(crate) fn from_masq(masq: &Masq, contents: Contents<'_, 'a>) -> Option<Self> {
        let bits = masq.flags.unwrap_or(0);
        // With the flag and without registers the kernel uses the range 0-0.
        if masq.proto_min.is_none() && bits & NF_NAT_RANGE_PROTO_SPECIFIED != 0 {
            return None;
        }
        Some(Self {
            family: None,
            address: Argument::Value(Address::Masquerade),
            ports: ports(masq.proto_min, masq.proto_max, contents)?,
            flags: value::nat_flags(bits & !NF_NAT_RANGE_PROTO_SPECIFIED)?,
            ignores_ports: masq.ignores_its_ports(),
        })
    }

    /// The statement of a `nat` expression; `None` for destination NAT, and for arguments or flags that
    /// no policy needs.
    pub(crate) fn from_nat(nat: &Nat, contents: Contents<'_, 'a>) -> Option<Self> {
        let nfproto = u8::try_from(nat.family).ok().filter(|_| nat.nat_type == NFT_NAT_SNAT)?;
        let family = value::family(nfproto);
        if family.is_none() && nfproto != NFPROTO_INET {
            return None;
        }
        let address = match nat.addr_min {
            None if nat.addr_max.is_some() => return None,
            None => Argument::Value(Address::Keep),
            // The kernel refuses an address for both families.
            Some(min) => fixed(family?, min, nat.addr_max.unwrap_or(min), contents)?,
        };
        Some(Self {
            family,
            address,
            ports: ports(nat.proto_min, nat.proto_max, contents)?,
            flags: value::nat_flags(nat.flags.unwrap_or(0) & !nat.implied_flags())?,
            ignores_ports: false,
        })
    }

    /// Its arguments; `None` if one is a value of a map, or if the kernel ignores one.
    pub(crate) fn target(&self) -> Option<NatTarget> {
        let Argument::Value(address) = self.address else { return None };
        let ports = match &self.ports {
            None => None,
            Some(Argument::Value(range)) => Some(*range),
            Some(Argument::Map(_)) => return None,
        };
        (!self.ignores_ports).then_some(NatTarget { ports, address, flags: self.flags })
    }

    /// As a statement of nft; `None` where nft has none, or prints what the kernel does not do.
    pub(super) fn to_nft(&self) -> Option<String> {
        if self.ignores_ports {
            return None;
        }
        let flags = value::nat_flag_names(self.flags);
        let flags = if flags.is_empty() { flags } else { format!(" {flags}") };
        let ports = match &self.ports {
            None => Some(String::new()),
            Some(Argument::Value(range)) => Some(format!(":{range}")),
            Some(Argument::Map(_)) => None,
        };
        match (&self.address, self.family) {
            (Argument::Value(Address::Masquerade), _) => {
                let ports = ports?;
                let to = if ports.is_empty() { "" } else { " to " };
                Some(format!("masquerade{to}{ports}{flags}"))
            }
            (Argument::Value(Address::Keep), None) => {
                let ports = ports.filter(|ports| !ports.is_empty())?;
                Some(format!("snat to {ports}{flags}"))
            }
            (Argument::Value(Address::Fixed(address)), Some(family)) => {
                let ports = ports?;
                Some(match family {
                    Family::Ipv4 => format!("snat ip to {address}{ports}{flags}"),
                    Family::Ipv6 if ports.is_empty() => format!("snat ip6 to {address}{flags}"),
                    Family::Ipv6 => format!("snat ip6 to [{address}]{ports}{flags}"),
                })
            }
            // nft 1.0.6 reads the wrong registers for IPv6.
            (Argument::Map(ends), Some(Family::Ipv4)) => {
                Some(format!("snat ip to {}{flags}", self.block(ends)?))
            }
            _ => None,
        }
    }

    /// The map of [`Nat::source_block`], if both arguments are in the slots that it reads.
    fn block(&self, addresses: &[Operand<'a>; 2]) -> Option<String> {
        let Some(Argument::Map(ports)) = &self.ports else { return None };
        let [Operand::Map { key, map, slot: 0 }, addr_max] = addresses else { return None };
        let at = |slot| Operand::Map { key: key.clone(), map: *map, slot };
        let is_block = *addr_max == at(2) && **ports == [at(1), at(3)];
        is_block.then(|| addresses[0].to_nft()).flatten()
    }
}

/// The ports, `Some(None)` without any; `None` when they cannot be printed.
#[expect(clippy::option_option, reason = "absent ports differ from unprintable ones")]
fn ports<'a>(
    min: Option<Register>,
    max: Option<Register>,
    contents: Contents<'_, 'a>,
) -> Option<Option<Argument<'a, PortRange>>> {
    let Some(min) = min else { return max.is_none().then_some(None) };
    let (min, max) = (contents(min, 2)?, contents(max.unwrap_or(min), 2)?);
    Some(Some(match (min, max) {
        (Operand::Constant(min), Operand::Constant(max)) => {
            Argument::Value(port_range(port(&min)?, port(&max)?)?)
        }
        (min @ Operand::Map { .. }, max @ Operand::Map { .. }) => Argument::Map([min, max].into()),
        _ => return None,
    }))
}

/// One address: no policy needs a range of addresses.
fn fixed<'a>(
    family: Family,
    min: Register,
    max: Register,
    contents: Contents<'_, 'a>,
) -> Option<Argument<'a, Address>> {
    let len = address_len(family);
    Some(match (contents(min, len)?, contents(max, len)?) {
        (Operand::Constant(min), Operand::Constant(max)) if min == max => {
            Argument::Value(Address::Fixed(address(&min)?))
        }
        (min @ Operand::Map { .. }, max @ Operand::Map { .. }) => Argument::Map([min, max].into()),
        _ => return None,
    })
}
