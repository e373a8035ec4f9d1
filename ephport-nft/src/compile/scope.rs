//! Which packets a rule matches.

use ephport_core::{
    Address, Families, Family, InterfacePattern, Interfaces, Ipsec, Mark, Origin, PermittedPorts,
    PickUp, PortRange, PortSet, Protocol, ResolvedPolicy,
};

use super::Program;
use super::networks::{Of, Source};
use super::remap::{is_own_address, skips_decrypted};
use crate::nftables::expr::{Bitwise, Cmp, CmpOp, Ct, Expr, Lookup, Meta, Payload, Register, Rt};
use crate::nftables::value;
use crate::table::Set;
use crate::uapi::{
    ARPHRD_LOOPBACK, NF_CT_STATE_INVALID_BIT, NF_CT_STATE_UNTRACKED_BIT, NFT_META_IIF,
    NFT_META_IIFNAME, NFT_META_IIFTYPE, NFT_META_L4PROTO, NFT_META_MARK, NFT_META_NFPROTO,
    NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_META_SECPATH,
};

/// TCP's FIN, SYN, RST and ACK bits (RFC 9293 §3.1).
const TCP_STATE_FLAGS: u8 = 0x17;
const TCP_SYN: u8 = 0x02;

/// Some output interfaces and one family, where a rule must know which.
pub(super) struct Packets<'a> {
    exit: Exit<'a>,
    pub(super) family: Option<Family>,
    /// Whether the rule is for ICMP.
    is_icmp: bool,
}

/// Output interfaces that one rule matches.
#[derive(Clone)]
enum Exit<'a> {
    Any,
    One(&'a InterfacePattern),
    /// Several names, in a set; it cannot contain prefixes.
    Names(Vec<&'a InterfacePattern>),
}

impl<'a> Exit<'a> {
    /// One alternative for all names, and one for each prefix.
    fn of(patterns: impl Iterator<Item = &'a InterfacePattern>) -> Vec<Self> {
        let (names, prefixes): (Vec<_>, Vec<_>) =
            patterns.partition(|pattern| matches!(pattern, InterfacePattern::Name(_)));
        let names = match names.as_slice() {
            [] => None,
            [name] => Some(Self::One(name)),
            _ => Some(Self::Names(names)),
        };
        names.into_iter().chain(prefixes.into_iter().map(Self::One)).collect()
    }
}

impl<'a> Packets<'a> {
    /// All that are in a policy's scope.
    pub(super) fn of(policy: &'a ResolvedPolicy) -> Vec<Self> {
        let exits = match &policy.out_interfaces {
            Interfaces::Any => vec![Exit::Any],
            Interfaces::Matching(patterns) => Exit::of(patterns.iter()),
        };
        let families = families(policy);
        let each = |exit: &Exit<'a>| {
            let exit = exit.clone();
            families.iter().map(move |family| {
                let exit = exit.clone();
                Self { exit, family: *family, is_icmp: false }
            })
        };
        exits.iter().flat_map(each).collect()
    }
}

impl Packets<'_> {
    /// Those of them that can be of the protocol; none for ICMP of the other family.
    pub(super) fn of_protocol(&self, protocol: Protocol) -> Option<Self> {
        let is_possible = self.family.is_none_or(|family| protocol.is_of(family));
        is_possible.then(|| Self {
            exit: self.exit.clone(),
            family: self.family.or(protocol.family()),
            is_icmp: !protocol.has_ports(),
        })
    }

    /// Whether the policy has ports for any of them: a table of blocks may have none for a family.
    pub(super) fn have_ports(&self, policy: &ResolvedPolicy) -> bool {
        let PermittedPorts::Blocks(blocks) = &policy.permitted else { return true };
        self.family.is_some_and(|family| blocks.count_of(family) > 0)
    }
}

/// The families that need rules of their own; `None` is both in one rule.
fn families(policy: &ResolvedPolicy) -> Vec<Option<Family>> {
    let needs_family = !policy.sources.is_empty()
        || !policy.destinations.is_empty()
        || !policy.except_destinations.is_empty()
        || matches!(policy.permitted, PermittedPorts::Blocks(_))
        || matches!(policy.address, Address::Fixed(_))
        || policy.families != Families::Both;
    if !needs_family {
        return vec![None];
    }
    policy.families.iter().map(Some).collect()
}

impl Program {
    /// The scope of a policy without its protocols and ports, as alternatives of which one matches.
    pub(super) fn scope(
        &mut self,
        policy: &ResolvedPolicy,
        packets: &Packets<'_>,
        source: Source,
    ) -> Vec<Vec<Expr>> {
        let mut first = self.by_interface(&packets.exit, [NFT_META_OIFTYPE, NFT_META_OIFNAME]);
        for excepted in Exit::of(policy.except_interfaces.iter()) {
            first.extend(self.interfaces(NFT_META_OIFNAME, CmpOp::Neq, &excepted));
        }
        first.extend(origin(policy.origin));
        first.extend(policy.mark.into_iter().flat_map(mark));
        if policy.ipsec == Ipsec::Skip && !self.guards_ipsec {
            first.extend([Rt::IPSEC.into(), Cmp::new(CmpOp::Eq, &[0]).into()]);
        }
        let mut conditions = vec![vec![first]];
        if !policy.in_interfaces.is_empty() {
            let alternatives = Exit::of(policy.in_interfaces.iter());
            let compared = alternatives.iter();
            let compared = compared.map(|one| self.interfaces(NFT_META_IIFNAME, CmpOp::Eq, one));
            conditions.push(compared.collect());
        }
        // nft lists only `ip daddr` for family and address, and reads that as family, then address.
        // `ct original ip saddr` implies no family for nft, so it is last: only in this order does
        // nft load its own listing as the same rule.
        if let Some(family) = packets.family {
            let addresses = self.addresses(policy, family, source);
            let is_packet = |expr: &Expr| matches!(expr, Expr::Payload(_));
            let names_packet = addresses.iter().flatten().flatten().any(is_packet);
            let at = conditions.len();
            conditions.extend(addresses);
            // ICMP implies the family: without an address of the packet, nft reads it just before the protocol.
            let at = if packets.is_icmp && !names_packet { conditions.len() } else { at };
            conditions.insert(at, vec![self::family(family).into()]);
        }
        product(conditions)
    }

    /// The packets that come in for connections in scope, as alternatives of which one matches: what the scope
    /// requires of the packets that go out, with both sides exchanged.
    pub(super) fn arriving(
        &mut self,
        policy: &ResolvedPolicy,
        packets: &Packets<'_>,
    ) -> Vec<Vec<Expr>> {
        let mut first = self.by_interface(&packets.exit, [NFT_META_IIFTYPE, NFT_META_IIFNAME]);
        for excepted in Exit::of(policy.except_interfaces.iter()) {
            first.extend(self.interfaces(NFT_META_IIFNAME, CmpOp::Neq, &excepted));
        }
        if skips_decrypted(policy) {
            first.extend([load_meta(NFT_META_SECPATH), Cmp::new(CmpOp::Eq, &[0]).into()]);
        }
        let mut conditions = vec![vec![first]];
        if let Some(family) = packets.family {
            conditions.push(vec![self::family(family).into()]);
            let remote = Of::Source(Source::Packet);
            if !policy.destinations.is_empty() {
                conditions.push(self.inside(remote, family, &policy.destinations));
            }
            let excepted = self.outside(remote, family, &policy.except_destinations);
            conditions.push(excepted.into_iter().collect());
        }
        conditions.push(vec![is_own_address(policy)]);
        product(conditions)
    }

    /// Whether the name of an interface is one of these.
    fn interfaces(&mut self, key: u32, op: CmpOp, interfaces: &Exit<'_>) -> Vec<Expr> {
        match interfaces {
            Exit::Any => Vec::new(),
            Exit::One(pattern) => interface(key, op, pattern).into(),
            Exit::Names(names) => {
                let keys = names.iter().map(|name| interface_key(name));
                let set = self.anonymous_set(|name| Set::interfaces(name, keys));
                let lookup = match op {
                    CmpOp::Neq => Lookup::outside(&set.name),
                    _ => Lookup::within(&set.name),
                };
                vec![load_meta(key), lookup.into()]
            }
        }
    }

    /// Whether the interface is one of these. Loopback is never in scope, whatever its name.
    fn by_interface(&mut self, exit: &Exit<'_>, [kind, name]: [u32; 2]) -> Vec<Expr> {
        let loopback = ARPHRD_LOOPBACK.to_ne_bytes();
        let not_loopback = [load_meta(kind), Cmp::new(CmpOp::Neq, &loopback).into()];
        let named = self.interfaces(name, CmpOp::Eq, exit);
        match exit {
            Exit::Any | Exit::One(InterfacePattern::Prefix(_)) => {
                not_loopback.into_iter().chain(named).collect()
            }
            Exit::One(InterfacePattern::Name(_)) | Exit::Names(_) => named,
        }
    }

    /// Conditions on the addresses, each as alternatives.
    fn addresses(
        &mut self,
        policy: &ResolvedPolicy,
        family: Family,
        source: Source,
    ) -> Vec<Vec<Vec<Expr>>> {
        let mut conditions = Vec::new();
        if !policy.destinations.is_empty() {
            conditions.push(self.inside(Of::Destination, family, &policy.destinations));
        }
        let excepted = self.outside(Of::Destination, family, &policy.except_destinations);
        conditions.push(excepted.into_iter().collect());
        if !policy.sources.is_empty() {
            conditions.push(self.inside(Of::Source(source), family, &policy.sources));
        }
        conditions
    }

    /// Whether the destination port is one of these, as alternatives of which one matches.
    pub(super) fn destination_ports(&mut self, ports: &PortSet) -> Vec<Vec<Expr>> {
        self.remote_ports(&Payload::DESTINATION_PORT, ports)
    }

    /// The same for the port that `load` loads.
    pub(super) fn remote_ports(&mut self, load: &Payload, ports: &PortSet) -> Vec<Vec<Expr>> {
        if *ports == PortRange::ALL.into() {
            return vec![Vec::new()];
        }
        self.ports(&load.clone().into(), ports)
    }
}

/// Every choice of one alternative for each condition.
pub(super) fn product(conditions: Vec<Vec<Vec<Expr>>>) -> Vec<Vec<Expr>> {
    conditions.into_iter().fold(vec![Vec::new()], |chosen, alternatives| {
        let append = |front: &Vec<Expr>| {
            let front = front.clone();
            alternatives.iter().map(move |back| [front.as_slice(), back].concat())
        };
        chosen.iter().flat_map(append).collect()
    })
}

fn load_meta(key: u32) -> Expr {
    Meta { key, dreg: Register::R1 }.into()
}

/// A whole name is compared with its closing NULs, a prefix without.
fn interface_key(pattern: &InterfacePattern) -> Vec<u8> {
    match pattern {
        InterfacePattern::Name(name) => value::interface_bytes(name.as_str()),
        InterfacePattern::Prefix(prefix) => prefix.as_str().as_bytes().to_vec(),
    }
}

fn interface(key: u32, op: CmpOp, pattern: &InterfacePattern) -> [Expr; 2] {
    [load_meta(key), Cmp::new(op, &interface_key(pattern)).into()]
}

pub(super) fn family(family: Family) -> [Expr; 2] {
    [load_meta(NFT_META_NFPROTO), Cmp::new(CmpOp::Eq, &[value::nfproto(family)]).into()]
}

/// Whether the bytes that `load` loads are from `first` to `last`.
pub(super) fn is_within_bytes(load: &Expr, first: &[u8], last: &[u8]) -> Vec<Expr> {
    let ends = [Cmp::new(CmpOp::Gte, first).into(), Cmp::new(CmpOp::Lte, last).into()];
    std::iter::once(load.clone()).chain(ends).collect()
}

/// What begins at this host has no input interface.
fn origin(origin: Origin) -> Vec<Expr> {
    match origin {
        Origin::Both => Vec::new(),
        Origin::Local => is_local(true).into(),
        Origin::Forwarded => is_local(false).into(),
    }
}

/// Whether the packet has no input interface.
pub(super) fn is_local(is_local: bool) -> [Expr; 2] {
    let op = if is_local { CmpOp::Eq } else { CmpOp::Neq };
    [load_meta(NFT_META_IIF), Cmp::new(op, &0u32.to_ne_bytes()).into()]
}

fn mark(mark: Mark) -> Vec<Expr> {
    let mut exprs = vec![load_meta(NFT_META_MARK)];
    if mark.mask() != u32::MAX {
        exprs.push(Bitwise::mask(&mark.mask().to_ne_bytes()).into());
    }
    exprs.push(Cmp::new(CmpOp::Eq, &mark.value().to_ne_bytes()).into());
    exprs
}

/// Always before the ports are read: other protocols have something else where a port would be. Of ICMP it matches
/// echo requests, in a rule that has the family.
pub(super) fn protocol(protocol: Protocol) -> Vec<Expr> {
    let mut exprs = l4proto(protocol.number()).to_vec();
    if let Some(family) = protocol.family() {
        let echo = Cmp::new(CmpOp::Eq, &[value::echo_request(family)]);
        exprs.extend([Payload::ICMP_TYPE.into(), echo.into()]);
    }
    exprs
}

/// The same in a rule that does not have the family.
pub(super) fn any_of(protocol: Protocol) -> Vec<Expr> {
    let of = protocol.family().map(family);
    of.into_iter().flatten().chain(self::protocol(protocol)).collect()
}

/// Loads the source port, or the identifier of an echo request.
pub(super) fn source_port(protocol: Protocol) -> Payload {
    if protocol.has_ports() { Payload::SOURCE_PORT } else { Payload::ECHO_IDENTIFIER }
}

/// The number of the transport protocol.
pub(super) fn l4proto(number: u8) -> [Expr; 2] {
    [load_meta(NFT_META_L4PROTO), Cmp::new(CmpOp::Eq, &[number]).into()]
}

/// Any other transport protocol.
pub(super) fn not_l4proto(number: u8) -> [Expr; 2] {
    [load_meta(NFT_META_L4PROTO), Cmp::new(CmpOp::Neq, &[number]).into()]
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

/// Packets without a connection.
pub(super) fn unconnected() -> [Expr; 3] {
    let bits = NF_CT_STATE_INVALID_BIT | NF_CT_STATE_UNTRACKED_BIT;
    let mask = Bitwise::mask(&bits.to_ne_bytes());
    [Ct::STATE.into(), mask.into(), Cmp::new(CmpOp::Neq, &[0; 4]).into()]
}

/// RFC 791 §3.1, RFC 8200 §3.
pub(super) fn source_address(family: Family, dreg: Register) -> Expr {
    let load = match family {
        Family::Ipv4 => Payload::IPV4_SOURCE,
        Family::Ipv6 => Payload::IPV6_SOURCE,
    };
    Payload { dreg, ..load }.into()
}
