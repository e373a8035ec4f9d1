//! Which packets a rule is for.

use ephport_core::{
    Address, Families, Family, InterfacePattern, Interfaces, Origin, PermittedPorts, PickUp,
    PortSet, Protocol, ResolvedPolicy,
};

use super::Program;
use super::networks::Of;
use crate::nftables::expr::{Bitwise, Cmp, CmpOp, Expr, Lookup, Meta, Payload, Register};
use crate::nftables::value;
use crate::table::Set;
use crate::uapi::{
    ARPHRD_LOOPBACK, NFT_META_IIF, NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_META_OIFNAME,
    NFT_META_OIFTYPE,
};

/// TCP's FIN, SYN, RST and ACK bits (RFC 9293 §3.1).
const TCP_STATE_FLAGS: u8 = 0x17;
const TCP_SYN: u8 = 0x02;

/// One way out and one family, where a rule must know which.
pub(super) struct Packets<'a> {
    exit: Option<&'a InterfacePattern>,
    pub(super) family: Option<Family>,
}

impl<'a> Packets<'a> {
    /// All that a policy's scope holds.
    pub(super) fn of(policy: &'a ResolvedPolicy) -> Vec<Self> {
        let exits: Vec<_> = match &policy.out_interfaces {
            Interfaces::Any => vec![None],
            Interfaces::Matching(patterns) => patterns.iter().map(Some).collect(),
        };
        let families = families(policy);
        let each = |exit| families.iter().map(move |family| Self { exit, family: *family });
        exits.into_iter().flat_map(each).collect()
    }
}

impl Packets<'_> {
    /// Whether the policy has ports for any of them: a table of blocks may have none for a family.
    pub(super) fn have_ports(&self, policy: &ResolvedPolicy) -> bool {
        let PermittedPorts::Blocks(blocks) = &policy.permitted else { return true };
        blocks.iter().any(|block| Some(Family::of(block.source)) == self.family)
    }

    /// What can be told of a packet that conntrack cannot place.
    pub(super) fn exit_and_family(&self) -> Vec<Expr> {
        let mut exprs = exit(self.exit);
        exprs.extend(self.family());
        exprs
    }

    fn family(&self) -> Vec<Expr> {
        self.family.into_iter().flat_map(self::family).collect()
    }
}

/// The families that need rules of their own; `None` is both in one rule.
fn families(policy: &ResolvedPolicy) -> Vec<Option<Family>> {
    let needs_family = !policy.sources.is_empty()
        || !policy.except_destinations.is_empty()
        || matches!(policy.permitted, PermittedPorts::Blocks(_))
        || matches!(policy.address, Address::Fixed(_))
        || policy.families != Families::Both;
    if !needs_family {
        return vec![None];
    }
    let has_source = |family| {
        policy.sources.is_empty()
            || policy.sources.iter().any(|net| Family::of(net.addr()) == family)
    };
    let in_scope = |family: &Family| policy.families.contains(*family) && has_source(*family);
    [Family::Ipv4, Family::Ipv6].into_iter().filter(in_scope).map(Some).collect()
}

/// Where the source address stands that it had before translation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// In the packet.
    Packet,
    /// In conntrack, after translation.
    Connection,
}

impl Program {
    /// Interface, family, origin and addresses; `None` if no packet has them.
    pub(super) fn scope(
        &mut self,
        policy: &ResolvedPolicy,
        packets: &Packets<'_>,
        source: Source,
    ) -> Option<Vec<Expr>> {
        let mut exprs = exit(packets.exit);
        exprs.extend(origin(policy.origin));
        // nft lists `ip daddr` alone for family and address, and reads it as one after the other:
        // only in this order, with what it does not take for the family's sign behind both
        // (`ct original ip saddr`), is a listing of nft's the same again when it is loaded.
        exprs.extend(packets.family());
        let Some(family) = packets.family else { return Some(exprs) };
        // Where all destinations are excepted nothing is in scope, and no set must be made.
        let excepted = &policy.except_destinations;
        exprs.extend(self.in_networks(Of::Destination, family, excepted, false)?);
        if !policy.sources.is_empty() {
            exprs.extend(self.in_networks(Of::Source(source), family, &policy.sources, true)?);
        }
        Some(exprs)
    }

    /// Whether the source port is one of these.
    pub(super) fn source_ports(&mut self, ports: &PortSet) -> Vec<Expr> {
        let mut exprs = vec![Payload::SOURCE_PORT.into()];
        match ports.ranges() {
            [range] if range.first() == range.last() => {
                exprs.push(Cmp::new(CmpOp::Eq, &range.first().get().to_be_bytes()).into());
            }
            [range] => {
                exprs.push(Cmp::new(CmpOp::Gte, &range.first().get().to_be_bytes()).into());
                exprs.push(Cmp::new(CmpOp::Lte, &range.last().get().to_be_bytes()).into());
            }
            _ => {
                let set = self.anonymous_set(|name| Set::ports(name, ports));
                exprs.push(Lookup::within(&set.name).into());
            }
        }
        exprs
    }
}

fn load_meta(key: u32) -> Expr {
    Meta { key, dreg: Register::R1 }.into()
}

/// A whole name is compared with its closing NULs, a prefix without.
fn exit(pattern: Option<&InterfacePattern>) -> Vec<Expr> {
    let not_loopback =
        [load_meta(NFT_META_OIFTYPE), Cmp::new(CmpOp::Neq, &ARPHRD_LOOPBACK.to_ne_bytes()).into()];
    let Some(pattern) = pattern else { return not_loopback.into() };
    let bytes = match pattern {
        InterfacePattern::Name(name) => value::interface_bytes(name.as_str()),
        InterfacePattern::Prefix(prefix) => prefix.as_str().as_bytes().to_vec(),
    };
    let mut exprs = vec![load_meta(NFT_META_OIFNAME), Cmp::new(CmpOp::Eq, &bytes).into()];
    if matches!(pattern, InterfacePattern::Prefix(prefix) if prefix.covers_loopback()) {
        exprs.extend(not_loopback);
    }
    exprs
}

pub(super) fn family(family: Family) -> [Expr; 2] {
    [load_meta(NFT_META_NFPROTO), Cmp::new(CmpOp::Eq, &[value::nfproto(family)]).into()]
}

/// What begins here came in by no interface.
fn origin(origin: Origin) -> Vec<Expr> {
    let op = match origin {
        Origin::Both => return Vec::new(),
        Origin::Local => CmpOp::Eq,
        Origin::Forwarded => CmpOp::Neq,
    };
    vec![load_meta(NFT_META_IIF), Cmp::new(op, &0u32.to_ne_bytes()).into()]
}

/// Always before the ports are read: an ICMP echo id stands where a port would.
pub(super) fn protocol(protocol: Protocol) -> [Expr; 2] {
    [load_meta(NFT_META_L4PROTO), Cmp::new(CmpOp::Eq, &[protocol.number()]).into()]
}

pub(super) fn opening(protocol: Protocol, pick_up: PickUp) -> Vec<Expr> {
    if protocol != Protocol::Tcp || pick_up == PickUp::Any {
        return Vec::new();
    }
    vec![
        Payload::TCP_FLAGS.into(),
        Bitwise::mask(&[TCP_STATE_FLAGS]).into(),
        Cmp::new(CmpOp::Eq, &[TCP_SYN]).into(),
    ]
}

/// RFC 791 §3.1, RFC 8200 §3.
pub(super) fn source_address(family: Family, dreg: Register) -> Expr {
    let load = match family {
        Family::Ipv4 => Payload::IPV4_SOURCE,
        Family::Ipv6 => Payload::IPV6_SOURCE,
    };
    Payload { dreg, ..load }.into()
}
