//! Several ranges of ports: a chain for each, and one that picks among them.
//!
//! A connection that is sent into a full range fails though others have room, and the smaller the
//! ranges are the sooner one is full. So a range is never cut. By default connections are distributed
//! round-robin over ranges of equal size, and at random, weighted by size, over others.

use std::collections::BTreeMap;

use ephport_core::decision::{HASH_SEED, kept_range};
use ephport_core::{Address, Distribution, Family, PortRange, PortSet, Protocol, ResolvedPolicy};

use super::Program;
use super::ports::{bits, by_leading_bits, keyed, within};
use super::scope::{any_of, family, not_l4proto, source_address};
use crate::nftables::expr::{
    Byteorder, Expr, Hash, Immediate, Lookup, Numgen, Payload, Register, Verdict,
};
use crate::table::Set;
use crate::table::layout::{branch_chain, ports_chain, range_chain};

/// Up to so many ranges are compared one by one.
const MAX_COMPARED: usize = 16;

/// The several ranges of a policy, and the names of their chains.
pub(super) struct Ranges<'a> {
    policy: &'a ResolvedPolicy,
    ports: &'a PortSet,
    branch: Option<&'a str>,
}

impl Ranges<'_> {
    fn goto(&self, range: PortRange) -> Verdict {
        Verdict::Goto(range_chain(&self.policy.name, self.branch, range))
    }
}

impl Program {
    /// Adds the chains of a policy with several ranges, for connections that get this address; the name of
    /// the one to go to. Policies that keep some addresses have a branch of chains for each.
    pub(super) fn spread(
        &mut self,
        policy: &ResolvedPolicy,
        ports: &PortSet,
        address: Address,
        branch: Option<&str>,
    ) -> String {
        for range in ports.ranges() {
            let name = range_chain(&policy.name, branch, *range);
            self.chain(&name);
            self.translations(policy, &name, &[], *range, address);
        }
        let chain = match branch {
            None => ports_chain(&policy.name),
            Some(branch) => branch_chain(&policy.name, branch),
        };
        self.chain(&chain);
        let ranges = Ranges { policy, ports, branch };
        self.keep(&ranges, &chain);
        self.pick(&ranges, &chain);
        chain
    }

    /// A permitted port stays in its range.
    fn keep(&mut self, ranges: &Ranges<'_>, chain: &str) {
        if !ranges.policy.flags.keep_permitted_ports() {
            return;
        }
        let all = ranges.ports.ranges().iter();
        let kept: Vec<_> = all
            .filter(|range| kept_range(ranges.ports, range.first()).is_some())
            .copied()
            .collect();
        if kept.len() <= MAX_COMPARED {
            for range in kept {
                for (mut exprs, port) in source_ports(ranges.policy) {
                    exprs.extend(within(&port.into(), range));
                    exprs.push(Immediate::verdict(ranges.goto(range)).into());
                    self.rule(chain, exprs);
                }
            }
            return;
        }
        // An interval map would miss for an instant of the commit that adds it.
        let mut by_len: BTreeMap<u32, Vec<(u16, Verdict)>> = BTreeMap::new();
        for range in kept {
            for (len, firsts) in by_leading_bits(&range.into()) {
                let verdicts = firsts.into_iter().map(|first| (first, ranges.goto(range)));
                by_len.entry(len).or_default().extend(verdicts);
            }
        }
        for (protocol, port) in source_ports(ranges.policy) {
            let port = port.into();
            for (len, verdicts) in &by_len {
                let verdicts = verdicts.iter().cloned();
                let map =
                    self.anonymous_set(|name| keyed(&port, Set::port_key_verdicts(name, verdicts)));
                let mut exprs = protocol.clone();
                exprs.extend(bits(&port, *len));
                exprs.push(Lookup::value(&map.name, Register::VERDICT).into());
                self.rule(chain, exprs);
            }
        }
    }

    fn pick(&mut self, all: &Ranges<'_>, chain: &str) {
        let Ranges { policy, ports, .. } = *all;
        let ranges = ports.ranges();
        match Distribution::over(ports, policy.spread_of_ranges()) {
            Some(Distribution::Hash) => {
                let in_scope = |family: &Family| policy.families.contains(*family);
                for of in [Family::Ipv4, Family::Ipv6].into_iter().filter(in_scope) {
                    let has_ports = policy.protocols.iter().any(Protocol::has_ports);
                    let mut protocols = policy.protocols.iter().filter(|p| p.family() == Some(of));
                    if let Some(icmp) = protocols.next() {
                        let mut exprs = any_of(icmp);
                        exprs.extend(source_hash(of, ports.count(), &Payload::ECHO_IDENTIFIER));
                        self.by_weight(all, chain, exprs);
                    }
                    if !has_ports {
                        continue;
                    }
                    // nft lists an address by name only where the rule matches its family.
                    let mut exprs = family(of).to_vec();
                    exprs.extend(source_hash(of, ports.count(), &Payload::SOURCE_PORT));
                    self.by_weight(all, chain, exprs);
                }
            }
            Some(Distribution::RoundRobin) => {
                let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
                self.one_each(all, chain, vec![Numgen::incremental(count).into()]);
            }
            // A single range has no such chain, and a virtual range no ranges to pick from.
            Some(Distribution::Weighted | Distribution::Remap) | None => {
                let draw = vec![Numgen::random(ports.count()).into()];
                self.by_weight(all, chain, draw);
            }
        }
        // The map has a verdict for each number, except for a packet in flight while a commit
        // replaces the policy: the kernel then evaluates the old rules with the new maps. That packet
        // must not be sent with its own port.
        if let Some(first) = ranges.first() {
            self.rule(chain, vec![Immediate::verdict(all.goto(*first)).into()]);
        }
    }

    /// Picks by a number below the count of ranges, which `number` loads into register 1.
    fn one_each(&mut self, ranges: &Ranges<'_>, chain: &str, mut number: Vec<Expr>) {
        let all = ranges.ports.ranges().iter();
        let verdicts: Vec<_> = all.map(|range| ranges.goto(*range)).collect();
        let map = self.anonymous_set(|name| Set::number_verdicts(name, &verdicts));
        number.push(Lookup::value(&map.name, Register::VERDICT).into());
        self.rule(chain, number);
    }

    /// Picks by a number below the count of all ports, which `number` loads into register 1.
    fn by_weight(&mut self, ranges: &Ranges<'_>, chain: &str, mut number: Vec<Expr>) {
        let all = ranges.ports.ranges();
        if all.iter().all(|range| range.count() == 1) {
            return self.one_each(ranges, chain, number);
        }
        let weights: Vec<_> =
            all.iter().map(|range| (range.count(), ranges.goto(*range))).collect();
        let map = self.anonymous_set(|name| Set::weighted_verdicts(name, &weights));
        number.push(Byteorder::TO_NETWORK.into());
        number.push(Lookup::value(&map.name, Register::VERDICT).into());
        self.rule(chain, number);
    }
}

/// The source ports of a policy's protocols and where they are: those of ICMP first, then all others.
fn source_ports(policy: &ResolvedPolicy) -> Vec<(Vec<Expr>, Payload)> {
    let icmp = policy.protocols.iter().filter(|protocol| !protocol.has_ports());
    let mut alternatives: Vec<_> =
        icmp.map(|protocol| (any_of(protocol), Payload::ECHO_IDENTIFIER)).collect();
    if policy.remap.is_none() && policy.protocols.iter().any(Protocol::has_ports) {
        let icmp = policy.protocols.iter().filter(|protocol| !protocol.has_ports());
        let others = icmp.flat_map(|protocol| not_l4proto(protocol.number())).collect();
        alternatives.push((others, Payload::SOURCE_PORT));
    }
    alternatives
}

/// A hash of source address and port, below `modulus`. The port is in the slot after the
/// address, as nft orders them.
fn source_hash(family: Family, modulus: u32, port: &Payload) -> [Expr; 3] {
    let (slot, len) = match family {
        Family::Ipv4 => (Register(13), 8),
        Family::Ipv6 => (Register::R3, 20),
    };
    [
        source_address(family, Register::R2),
        Payload { dreg: slot, ..port.clone() }.into(),
        Hash::jenkins(len, modulus, HASH_SEED).into(),
    ]
}
