//! Operands: the contents of registers, followed from the expression that loads them.

use std::borrow::Cow;

use ephport_core::{Family, Protocol};

use super::sets::SetRef;
use crate::nftables::expr::{
    Bitwise, Byteorder, Ct, Data, Expr, Hash, Immediate, Lookup, Meta, Numgen, Payload, Register,
};
use crate::nftables::value;
use crate::table::Normalized;
use crate::uapi::{
    NFT_CT_DST_IP, NFT_CT_DST_IP6, NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_HASH_JENKINS,
    NFT_META_IIFNAME, NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_META_OIFKIND, NFT_META_OIFNAME,
    NFT_PAYLOAD_NETWORK_HEADER,
};

/// The content of a register.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operand<'a> {
    /// A fact about the packet, an `NFT_META_*`.
    Meta(u32),
    /// An address of the packet, or of its connection.
    Address(AddressField),
    /// Other bytes of the packet.
    Payload {
        /// The header, an `NFT_PAYLOAD_*`.
        base: u32,
        /// The offset from its start, in bytes.
        offset: u32,
        /// The length, in bytes.
        len: u32,
    },
    /// A field of the header of ICMP or ICMPv6.
    Icmp {
        /// The family: of IPv6, it is ICMPv6.
        family: Family,
        /// The field.
        field: IcmpField,
    },
    /// A fact about the packet's connection.
    Ct {
        /// The fact, an `NFT_CT_*`.
        key: u32,
        /// The direction, an `IP_CT_DIR_*`, for a fact that each direction has.
        direction: Option<u8>,
    },
    /// A result of a route lookup.
    Fib {
        /// The result, an `NFT_FIB_RESULT_*`.
        result: u32,
        /// The arguments, `NFTA_FIB_F_*`.
        flags: u32,
    },
    /// A property of the packet's route, an `NFT_RT_*`.
    Rt(u32),
    /// Bytes that the rule contains.
    Constant(Cow<'a, [u8]>),
    /// The bits of another operand under a mask.
    Masked(Box<Operand<'a>>, &'a [u8]),
    /// A number of a sequence, or a random one, in the byte order of the host.
    Numgen(&'a Numgen),
    /// A hash of other operands, in the byte order of the host.
    Hash(Vec<Operand<'a>>, &'a Hash),
    /// A number in network order.
    NetworkOrder(Box<Operand<'a>>),
    /// A value that a map has for a key.
    Map {
        /// The key.
        key: Box<Operand<'a>>,
        /// The map.
        map: SetRef<'a>,
        /// The part of the value, in slots of 4 bytes from 0.
        slot: usize,
    },
}

/// A field of the header of ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpField {
    /// The type of the message.
    Type,
    /// The identifier of an echo request or its reply.
    Identifier,
}

/// An address that can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressField {
    /// The family.
    pub family: Family,
    /// Whether it is the source address; else the destination.
    pub is_source: bool,
    /// The direction of the connection, an `IP_CT_DIR_*`; `None` for the address in the packet.
    pub direction: Option<u8>,
    /// The number of leading bytes that are loaded.
    pub len: usize,
}

impl AddressField {
    /// Whether all bytes of the address are loaded.
    pub(super) fn is_whole(self) -> bool {
        self.len == value::address_len(self.family)
    }
}

impl Operand<'_> {
    fn meta(meta: &Meta) -> Self {
        Self::Meta(meta.key)
    }

    /// Bytes of the network header are an address only in a rule for one family, and those of the transport
    /// header are ICMP's only in a rule for it.
    fn payload(load: &Payload, family: Option<Family>, protocol: Option<u8>) -> Self {
        if let Some((family, field)) = family.and_then(|family| icmp_field(load, family, protocol))
        {
            return Self::Icmp { family, field };
        }
        let fields = [
            (Payload::IPV4_SOURCE, Family::Ipv4, true),
            (Payload::IPV4_DESTINATION, Family::Ipv4, false),
            (Payload::IPV6_SOURCE, Family::Ipv6, true),
            (Payload::IPV6_DESTINATION, Family::Ipv6, false),
        ];
        let is_loaded = |field: &Payload, of| {
            load.base == NFT_PAYLOAD_NETWORK_HEADER
                && family == Some(of)
                && load.offset == field.offset
                && (1..=field.len).contains(&load.len)
        };
        let Payload { base, offset, len, .. } = *load;
        let found = fields.into_iter().find(|(field, of, _)| is_loaded(field, *of));
        match (found, usize::try_from(len)) {
            (Some((_, family, is_source)), Ok(len)) => {
                Self::Address(AddressField { family, is_source, direction: None, len })
            }
            _ => Self::Payload { base, offset, len },
        }
    }

    fn ct(ct: &Ct) -> Self {
        let address = match ct.key {
            NFT_CT_SRC_IP => Some((Family::Ipv4, true)),
            NFT_CT_DST_IP => Some((Family::Ipv4, false)),
            NFT_CT_SRC_IP6 => Some((Family::Ipv6, true)),
            NFT_CT_DST_IP6 => Some((Family::Ipv6, false)),
            _ => None,
        };
        match address.filter(|_| ct.direction_name().is_some()) {
            Some((family, is_source)) => {
                let len = value::address_len(family);
                Self::Address(AddressField { family, is_source, direction: ct.direction, len })
            }
            None => Self::Ct { key: ct.key, direction: ct.direction },
        }
    }

    /// The length of its bytes.
    fn len(&self) -> usize {
        match self {
            Self::Meta(NFT_META_OIFNAME | NFT_META_IIFNAME | NFT_META_OIFKIND) => value::IFNAMSIZ,
            Self::Meta(NFT_META_L4PROTO | NFT_META_NFPROTO)
            | Self::Icmp { field: IcmpField::Type, .. } => 1,
            Self::Address(field) => field.len,
            Self::Icmp { field: IcmpField::Identifier, .. } => 2,
            Self::Payload { len, .. } => usize::try_from(*len).unwrap_or(usize::MAX),
            Self::Constant(bytes) => bytes.len(),
            Self::Masked(_, mask) => mask.len(),
            _ => Register::SLOT_LEN,
        }
    }
}

fn icmp_field(load: &Payload, family: Family, protocol: Option<u8>) -> Option<(Family, IcmpField)> {
    let icmp = match family {
        Family::Ipv4 => Protocol::Icmp,
        Family::Ipv6 => Protocol::Icmpv6,
    };
    let fields =
        [(Payload::ICMP_TYPE, IcmpField::Type), (Payload::ECHO_IDENTIFIER, IcmpField::Identifier)];
    let found = fields.into_iter().find(|(known, _)| load.loads_same(known));
    found.filter(|_| protocol == Some(icmp.number())).map(|(_, field)| (family, field))
}

/// The registers, as far as a rule has filled them.
pub(super) struct Registers<'a> {
    /// The operand that begins in each slot, and the index of the expression that loaded it.
    slots: [Option<(Operand<'a>, usize)>; Register::SLOTS],
    /// The family of the packets for which the rule continues.
    pub(super) family: Option<Family>,
    /// The transport protocol of the packets for which the rule continues.
    pub(super) protocol: Option<u8>,
    /// The loads that no other expression has used yet.
    unused: Vec<usize>,
}

impl<'a> Registers<'a> {
    pub(super) fn new(family: Option<Family>) -> Self {
        Self {
            slots: [const { None }; Register::SLOTS],
            family,
            protocol: None,
            unused: Vec::new(),
        }
    }

    /// The operand in a register, which counts as used.
    pub(super) fn take(&mut self, register: Register) -> Option<Operand<'a>> {
        self.at(register.slot()?)
    }

    fn at(&mut self, slot: usize) -> Option<Operand<'a>> {
        let (operand, load) = self.slots.get(slot)?.clone()?;
        self.unused.retain(|unused| *unused != load);
        Some(operand)
    }

    /// The first bytes of a constant in a register.
    pub(super) fn constant(&mut self, register: Register, len: usize) -> Option<Operand<'a>> {
        match self.take(register)? {
            Operand::Constant(bytes) if bytes.len() == len => Some(Operand::Constant(bytes)),
            map @ Operand::Map { .. } => Some(map),
            _ => None,
        }
    }

    /// Whether all loads since the last call were used.
    pub(super) fn all_used(&mut self) -> bool {
        std::mem::take(&mut self.unused).is_empty()
    }

    fn set(&mut self, dreg: Register, operand: &Operand<'a>, load: usize) -> Option<()> {
        let first = dreg.slot()?;
        let slots = match operand {
            Operand::Map { map, .. } => map.value_len()?,
            operand => operand.len(),
        }
        .div_ceil(Register::SLOT_LEN);
        let slots = self.slots.get_mut(first..first.checked_add(slots)?)?;
        self.unused.push(load);
        for (part, room) in slots.iter_mut().enumerate() {
            *room = match operand {
                Operand::Map { key, map, .. } => {
                    Some((Operand::Map { key: key.clone(), map: *map, slot: part }, load))
                }
                _ => (part == 0).then(|| (operand.clone(), load)),
            };
        }
        Some(())
    }

    /// Follows an expression that fills a register; `None` for an expression that fills none, or with
    /// something that is no [`Operand`].
    pub(super) fn load(
        &mut self,
        expr: &'a Expr,
        index: usize,
        table: &'a Normalized<'a>,
    ) -> Option<()> {
        let (dreg, operand) = match expr {
            Expr::Meta(meta) => (meta.dreg, Operand::meta(meta)),
            Expr::Payload(load) => (load.dreg, Operand::payload(load, self.family, self.protocol)),
            Expr::Ct(ct) => (ct.dreg, Operand::ct(ct)),
            Expr::Fib(fib) => (fib.dreg, Operand::Fib { result: fib.result, flags: fib.flags }),
            Expr::Rt(rt) => (rt.dreg, Operand::Rt(rt.key)),
            Expr::Numgen(numgen) => (numgen.dreg, Operand::Numgen(numgen)),
            Expr::Hash(hash) => (hash.dreg, self.hash(hash)?),
            Expr::Byteorder(order) => (order.dreg, self.network_order(order)?),
            Expr::Bitwise(bitwise) => (bitwise.dreg, self.masked(bitwise)?),
            Expr::Immediate(Immediate { dreg, data: Data::Value(bytes) }) => {
                (*dreg, Operand::Constant((&**bytes).into()))
            }
            Expr::Lookup(lookup) => {
                let dreg = lookup.dreg.filter(|dreg| *dreg != Register::VERDICT)?;
                let (key, map) = self.looked_up(lookup, table)?;
                (dreg, Operand::Map { key: key.into(), map, slot: 0 })
            }
            _ => return None,
        };
        self.set(dreg, &operand, index)
    }

    /// The key and the set of a lookup.
    pub(super) fn looked_up(
        &mut self,
        lookup: &'a Lookup,
        table: &'a Normalized<'a>,
    ) -> Option<(Operand<'a>, SetRef<'a>)> {
        Some((self.take(lookup.sreg)?, SetRef::new(&lookup.set, table)))
    }

    /// The operands that are in consecutive slots.
    fn hash(&mut self, hash: &'a Hash) -> Option<Operand<'a>> {
        let len = usize::try_from(hash.len).ok()?;
        let mut slot = hash.sreg.slot()?;
        let end = slot.checked_add(len / Register::SLOT_LEN)?;
        let mut fields = Vec::new();
        while slot < end {
            let field = self.at(slot)?;
            slot = slot.checked_add(field.len().div_ceil(Register::SLOT_LEN).max(1))?;
            fields.push(field);
        }
        let is_whole = slot == end && len.is_multiple_of(Register::SLOT_LEN);
        (is_whole && hash.hash_type == NFT_HASH_JENKINS).then_some(Operand::Hash(fields, hash))
    }

    /// All four bytes of a number in the byte order of the host.
    fn network_order(&mut self, order: &Byteorder) -> Option<Operand<'a>> {
        let whole = Byteorder { sreg: order.sreg, dreg: order.dreg, ..Byteorder::TO_NETWORK };
        match self.take(order.sreg)? {
            number @ (Operand::Numgen(_) | Operand::Hash(..)) if *order == whole => {
                Some(Operand::NetworkOrder(number.into()))
            }
            _ => None,
        }
    }

    fn masked(&mut self, bitwise: &'a Bitwise) -> Option<Operand<'a>> {
        let mask = bitwise.mask.bytes()?;
        let plain = Bitwise { sreg: bitwise.sreg, dreg: bitwise.dreg, ..Bitwise::mask(mask) };
        let operand = self.take(bitwise.sreg).filter(|_| *bitwise == plain)?;
        Some(Operand::Masked(operand.into(), mask))
    }
}
