//! Rewriting of ports for policies that translate to a virtual range, see [`ephport_core::remap`].
//!
//! On the way out, after translation, the virtual source port of a translated connection becomes the real
//! one; on the way in, before conntrack, the real destination port becomes the virtual one. An ICMP error has
//! the header of the packet that it is about, whose port is rewritten too, and so is the port of a TCP reset that
//! this host sends for a segment of no connection. Each rule that writes ends the chain.

use ephport_core::{Address, Family, Ipsec, Protocol, Remap, ResolvedPolicy};

use super::Program;
use super::ports::within;
use super::scope::{Packets, family, is_within_bytes, l4proto, product, protocol};
use super::translate::translate;
use crate::nftables::SetSpec;
use crate::nftables::expr::{
    Bitwise, Cmp, CmpOp, Counter, Ct, Expr, Fib, Immediate, Lookup, Payload, PayloadWrite,
    Register, Rt, Verdict,
};
use crate::nftables::value;
use crate::table::layout::{self, REMAP_IN, REMAP_IN_PRIORITY, REMAP_OUT, REMAP_OUT_PRIORITY};
use crate::table::{Set, SetName};
use crate::uapi::{
    IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IPPROTO_ICMP, IPPROTO_ICMPV6, IPS_ASSURED, IPS_SRC_NAT,
    NF_CT_STATE_INVALID_BIT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NFT_PAYLOAD_CSUM_INET,
    NFT_PAYLOAD_CSUM_NONE, NFT_PAYLOAD_CSUM_SCTP, NFT_PAYLOAD_TRANSPORT_HEADER, RTN_LOCAL,
};

/// The length of the headers of ICMP (RFC 792), ICMPv6 (RFC 4443), IPv4 without options and IPv6.
const ICMP: u32 = 8;
const IPV4: u32 = 20;
const IPV6: u32 = 40;

/// The offset of the checksum of ICMP and of ICMPv6.
const ICMP_CHECKSUM: u32 = 2;

/// TCP's RST bit (RFC 9293 §3.1).
const TCP_RST: u8 = 0x04;

/// The version of IPv4 and the length of its header without options; the bits of a fragment's offset.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const FRAGMENT_OFFSET: [u8; 2] = [0x1f, 0xff];

/// The direction of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

impl Way {
    /// The port that is rewritten.
    fn port(self) -> Payload {
        match self {
            Self::Out => Payload::SOURCE_PORT,
            Self::In => Payload::DESTINATION_PORT,
        }
    }

    /// The port of the remote side.
    fn remote_port(self) -> Payload {
        match self {
            Self::Out => Payload::DESTINATION_PORT,
            Self::In => Payload::SOURCE_PORT,
        }
    }
}

/// The protocols whose ports are rewritten: identifiers are translated to the set itself.
fn with_ports(policy: &ResolvedPolicy) -> impl Iterator<Item = Protocol> {
    policy.protocols.iter().filter(|known| known.has_ports())
}

impl Program {
    /// Adds the chains that rewrite ports, if a policy has a virtual range.
    pub(super) fn remap(&mut self, policies: &[ResolvedPolicy]) {
        let remapped = policies.iter().filter_map(|policy| Some((policy, policy.remap.as_ref()?)));
        let remapped: Vec<_> = remapped.collect();
        if remapped.is_empty() {
            return;
        }
        let filter = "filter";
        self.base_chain_at(REMAP_IN, filter, NF_INET_PRE_ROUTING, REMAP_IN_PRIORITY);
        self.base_chain_at(REMAP_OUT, filter, NF_INET_POST_ROUTING, REMAP_OUT_PRIORITY);
        if self.guards_ipsec {
            let exists = Cmp::new(CmpOp::Eq, &[1]);
            self.rule(REMAP_OUT, vec![Rt::IPSEC.into(), exists.into(), verdict(Verdict::Return)]);
        }
        for (policy, remap) in remapped {
            for way in [Way::In, Way::Out] {
                self.rewrite(policy, remap, way);
            }
        }
    }

    /// Adds the chain that translates to the virtual range; its name.
    pub(super) fn virtual_range(&mut self, policy: &ResolvedPolicy, remap: &Remap) -> String {
        let chain = layout::virtual_range_chain(&policy.name);
        self.chain(&chain);
        // A port that is only virtual is changed: the kernel marks only such connections as translated.
        let [low, high] = remap.halves();
        for (half, other) in [(low, high), (high, low)] {
            let ports = remap.only_virtual().intersection(&half.into());
            for ports in self.ports(&Payload::SOURCE_PORT.into(), &ports) {
                for known in with_ports(policy) {
                    let exprs = protocol(known).into_iter().chain(ports.clone());
                    let exprs = exprs.chain(translate(other, policy, policy.address));
                    self.rule(&chain, exprs.collect());
                }
            }
        }
        for known in with_ports(policy) {
            let to = translate(remap.virtual_range(), policy, policy.address);
            self.rule(&chain, protocol(known).into_iter().chain(to).collect());
        }
        chain
    }

    fn rewrite(&mut self, policy: &ResolvedPolicy, remap: &Remap, way: Way) {
        let (base, chain) = match way {
            Way::Out => (REMAP_OUT, layout::remap_out_chain(&policy.name)),
            Way::In => (REMAP_IN, layout::remap_in_chain(&policy.name)),
        };
        self.chain(&chain);
        for packets in Packets::of(policy) {
            let alternatives = match way {
                Way::Out => self.scope(policy, &packets, super::networks::Source::Packet),
                Way::In => self.arriving(policy, &packets),
            };
            for mut exprs in alternatives {
                exprs.push(verdict(Verdict::Jump(chain.clone())));
                self.rule_of(policy, base, exprs);
            }
        }
        let map = match way {
            Way::Out => {
                let named = layout::real_ports_map(&policy.name);
                Set::port_map(SetName::Named(&named), remap.pairs().iter().copied())
            }
            Way::In => {
                let named = layout::virtual_ports_map(&policy.name);
                let pairs = remap.pairs().iter().map(|(virtual_port, real)| (*real, *virtual_port));
                Set::port_map(SetName::Named(&named), pairs)
            }
        };
        let map = self.set(map);
        if way == Way::In && policy.enforce {
            self.drop_virtual(policy, remap, &chain);
        }
        for known in with_ports(policy) {
            let others = self.remote_ports(&way.remote_port(), &policy.destination_ports);
            for exprs in product(vec![vec![protocol(known)], others, vec![translated(way)]]) {
                for write in rewritten(known, way, &map) {
                    self.rule(&chain, [exprs.as_slice(), &write].concat());
                }
            }
        }
        if way == Way::Out && policy.protocols.contains(Protocol::Tcp) {
            let tcp = protocol(Protocol::Tcp);
            let write = rewritten(Protocol::Tcp, way, &map).concat();
            for alternative in unconnected_resets() {
                self.rule(&chain, [tcp.as_slice(), &alternative, &write].concat());
            }
        }
        for of in policy.families.iter() {
            self.errors(policy, of, (way, &chain), &map);
        }
    }

    /// Drops what comes in for virtual ports that are no ports of the set.
    fn drop_virtual(&mut self, policy: &ResolvedPolicy, remap: &Remap, chain: &str) {
        for known in with_ports(policy) {
            for range in remap.only_virtual().ranges() {
                let ports = within(&Payload::DESTINATION_PORT.into(), *range);
                let exprs = protocol(known).into_iter().chain(ports);
                let drop = [Counter::default().into(), verdict(Verdict::Drop)];
                self.rule(chain, exprs.chain(drop).collect());
            }
        }
    }

    /// Rewrites the port in the header of the packet that an ICMP error is about. Such a packet went the other
    /// way.
    fn errors(
        &mut self,
        policy: &ResolvedPolicy,
        of: Family,
        (way, chain): (Way, &str),
        map: &SetSpec,
    ) {
        let errors = layout::errors_chain(chain, of);
        self.chain(&errors);
        let kind = Payload { offset: 0, len: 1, ..Payload::SOURCE_PORT };
        // Destination unreachable to redirect, time exceeded and parameter problem; in ICMPv6, all below 128.
        let (number, kinds): (u8, &[[u8; 2]]) = match of {
            Family::Ipv4 => (IPPROTO_ICMP, &[[3, 5], [11, 12]]),
            Family::Ipv6 => (IPPROTO_ICMPV6, &[[1, 127]]),
        };
        for [first, last] in kinds {
            let mut exprs = family(of).to_vec();
            exprs.extend(l4proto(number));
            exprs.extend(is_within_bytes(&kind.clone().into(), &[*first], &[*last]));
            exprs.push(verdict(Verdict::Goto(errors.clone())));
            self.rule(chain, exprs);
        }
        for known in with_ports(policy) {
            let mut exprs = inner_protocol(of, known);
            let header = ICMP + if of == Family::Ipv4 { IPV4 } else { IPV6 };
            let port = match way {
                Way::Out => Payload::DESTINATION_PORT,
                Way::In => Payload::SOURCE_PORT,
            };
            let port = Payload { offset: header + port.offset, ..port };
            exprs.extend(write(port, map, (NFT_PAYLOAD_CSUM_INET, ICMP_CHECKSUM)));
            self.rule(&errors, exprs);
        }
    }
}

/// Whether the inner header of an ICMP error is of this protocol, without options or extension headers before
/// it, and not of a later fragment.
fn inner_protocol(of: Family, known: Protocol) -> Vec<Expr> {
    let byte = |offset, value| -> [Expr; 2] {
        let load = Payload { offset: ICMP + offset, len: 1, ..Payload::SOURCE_PORT };
        [load.into(), Cmp::new(CmpOp::Eq, &[value]).into()]
    };
    match of {
        Family::Ipv4 => {
            let fragment = Payload { offset: ICMP + 6, ..Payload::SOURCE_PORT };
            let first = [
                fragment.into(),
                Bitwise::mask(&FRAGMENT_OFFSET).into(),
                Cmp::new(CmpOp::Eq, &[0; 2]).into(),
            ];
            byte(0, IPV4_WITHOUT_OPTIONS)
                .into_iter()
                .chain(byte(9, known.number()))
                .chain(first)
                .collect()
        }
        Family::Ipv6 => byte(6, known.number()).into(),
    }
}

/// On the way out, only translated connections have a virtual port.
fn translated(way: Way) -> Vec<Expr> {
    if way == Way::In {
        return Vec::new();
    }
    let mask = Bitwise::mask(&IPS_SRC_NAT.to_ne_bytes());
    vec![
        Ct::DIRECTION.into(),
        Cmp::new(CmpOp::Eq, &[IP_CT_DIR_ORIGINAL]).into(),
        Ct::STATUS.into(),
        mask.into(),
        Cmp::new(CmpOp::Neq, &[0; 4]).into(),
    ]
}

/// The TCP resets of this host for a segment of no connection, and for one that would open a connection to a
/// port without a service. Such a segment came in for a real port.
fn unconnected_resets() -> [Vec<Expr>; 2] {
    let reset = || {
        let set = Cmp::new(CmpOp::Neq, &[0]);
        [Payload::TCP_FLAGS.into(), Bitwise::mask(&[TCP_RST]).into(), set.into()]
    };
    let is_set = |bits: u32, is_set: bool| {
        let op = if is_set { CmpOp::Neq } else { CmpOp::Eq };
        [Expr::from(Bitwise::mask(&bits.to_ne_bytes())), Cmp::new(op, &[0; 4]).into()]
    };
    let invalid = [Ct::STATE.into()].into_iter().chain(is_set(NF_CT_STATE_INVALID_BIT, true));
    let reply = [Ct::DIRECTION.into(), Cmp::new(CmpOp::Eq, &[IP_CT_DIR_REPLY]).into()];
    let refused = reply.into_iter().chain([Ct::STATUS.into()]).chain(is_set(IPS_ASSURED, false));
    [reset().into_iter().chain(invalid).collect(), reset().into_iter().chain(refused).collect()]
}

/// Rewrites the port of a packet, as alternatives of which the first that matches does it: a UDP packet without
/// a checksum gets none.
fn rewritten(known: Protocol, way: Way, map: &SetSpec) -> Vec<Vec<Expr>> {
    let checksum = |offset| (NFT_PAYLOAD_CSUM_INET, offset);
    let plain = |checksum| write(way.port(), map, checksum).to_vec();
    match known {
        Protocol::Tcp => vec![plain(checksum(16))],
        Protocol::UdpLite => vec![plain(checksum(6))],
        Protocol::Sctp => vec![plain((NFT_PAYLOAD_CSUM_SCTP, 8))],
        Protocol::Udp => {
            let load = Payload { offset: 6, ..Payload::SOURCE_PORT };
            let none = [load.into(), Cmp::new(CmpOp::Eq, &[0; 2]).into()];
            let without = none.into_iter().chain(plain((NFT_PAYLOAD_CSUM_NONE, 0))).collect();
            vec![without, plain(checksum(6))]
        }
        Protocol::Icmp | Protocol::Icmpv6 => Vec::new(),
    }
}

/// Writes the value that the map has for these bytes in their place, with its effect on a checksum; a packet
/// without one continues.
fn write(bytes: Payload, map: &SetSpec, (csum_type, csum_offset): (u32, u32)) -> [Expr; 4] {
    let write = PayloadWrite {
        sreg: Register::R1,
        base: NFT_PAYLOAD_TRANSPORT_HEADER,
        offset: bytes.offset,
        len: bytes.len,
        csum_type,
        csum_offset,
        csum_flags: 0,
    };
    [
        bytes.into(),
        Lookup::value(&map.name, Register::R1).into(),
        write.into(),
        verdict(Verdict::Accept),
    ]
}

/// The address that translated connections of a policy have.
pub(super) fn is_own_address(policy: &ResolvedPolicy) -> Vec<Expr> {
    if let Address::Fixed(address) = policy.address {
        let load = match Family::of(address) {
            Family::Ipv4 => Payload::IPV4_DESTINATION,
            Family::Ipv6 => Payload::IPV6_DESTINATION,
        };
        return vec![load.into(), Cmp::new(CmpOp::Eq, &value::address_bytes(address)).into()];
    }
    let local = Cmp::new(CmpOp::Eq, &u32::from(RTN_LOCAL).to_ne_bytes());
    vec![Fib::DESTINATION_TYPE.into(), local.into()]
}

/// Whether packets that IPsec decrypted are out of scope.
pub(super) fn skips_decrypted(policy: &ResolvedPolicy) -> bool {
    policy.ipsec == Ipsec::Skip
}

fn verdict(verdict: Verdict) -> Expr {
    Immediate::verdict(verdict).into()
}
