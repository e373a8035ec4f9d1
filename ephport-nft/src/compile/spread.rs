//! Several ranges of ports: a chain for each, and one that picks among them.
//!
//! A connection that is sent into a full range fails though others have room, and the smaller the
//! ranges are the sooner one is full. So a range is never cut, equal ranges take turns, and unequal
//! ones are drawn by weight.

use ephport_core::decision::{HASH_SEED, kept_range};
use ephport_core::{Family, PortRange, PortSet, ResolvedPolicy};

use super::Program;
use super::scope::{family, protocol, source_address};
use super::translate::translate;
use crate::nftables::expr::{
    Byteorder, Expr, Hash, Immediate, Lookup, Numgen, Payload, Register, Verdict,
};
use crate::table::Set;
use crate::table::layout::{ports_chain, range_chain};

impl Program {
    /// Adds the chains of a policy with several ranges; the name of the one to go to.
    pub(super) fn spread(&mut self, policy: &ResolvedPolicy, ports: &PortSet) -> String {
        for range in ports.ranges() {
            let name = range_chain(&policy.name, *range);
            self.chain(&name);
            for known in policy.protocols.iter() {
                // nft asks for the protocol in each rule that names ports.
                let mut exprs = protocol(known).to_vec();
                exprs.extend(translate(*range, policy));
                self.rule(&name, exprs);
            }
        }
        let chain = ports_chain(&policy.name);
        self.chain(&chain);
        self.keep(policy, ports, &chain);
        self.pick(policy, ports, &chain);
        chain
    }

    /// A port that is allowed already stays in its range.
    fn keep(&mut self, policy: &ResolvedPolicy, ports: &PortSet, chain: &str) {
        let kept: Vec<_> = ports
            .ranges()
            .iter()
            .filter(|range| kept_range(ports, range.first()).is_some())
            .map(|range| (*range, goto(policy, *range)))
            .collect();
        if kept.is_empty() || !policy.flags.keep_permitted_ports() {
            return;
        }
        let map = self.anonymous_set(|name| Set::port_verdicts(name, &kept));
        let verdict = Lookup::value(&map.name, Register::VERDICT).into();
        self.rule(chain, vec![Payload::SOURCE_PORT.into(), verdict]);
    }

    fn pick(&mut self, policy: &ResolvedPolicy, ports: &PortSet, chain: &str) {
        let ranges = ports.ranges();
        let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
        let are_equal = ranges.windows(2).all(|pair| pair[0].count() == pair[1].count());
        if policy.per_source_stable {
            let in_scope = |family: &Family| policy.families.contains(*family);
            for of in [Family::Ipv4, Family::Ipv6].into_iter().filter(in_scope) {
                // nft lists an address by name where the rule itself says of which family it is.
                let mut exprs = family(of).to_vec();
                exprs.extend(source_hash(of, ports.count()));
                self.by_weight(policy, ranges, chain, exprs);
            }
        } else if are_equal {
            self.one_each(policy, ranges, chain, vec![Numgen::incremental(count).into()]);
        } else {
            let draw = vec![Numgen::random(ports.count()).into()];
            self.by_weight(policy, ranges, chain, draw);
        }
        // A map leads everywhere but for a packet that is under way while another policy takes its
        // place: the kernel takes the rules it began with, and the maps of now. It must not leave
        // by its own port.
        if let Some(first) = ranges.first() {
            self.rule(chain, vec![Immediate::verdict(goto(policy, *first)).into()]);
        }
    }

    /// Picks by a number below the count of ranges, which `number` leaves in register 1.
    fn one_each(
        &mut self,
        policy: &ResolvedPolicy,
        ranges: &[PortRange],
        chain: &str,
        mut number: Vec<Expr>,
    ) {
        let verdicts: Vec<_> = ranges.iter().map(|range| goto(policy, *range)).collect();
        let map = self.anonymous_set(|name| Set::number_verdicts(name, &verdicts));
        number.push(Lookup::value(&map.name, Register::VERDICT).into());
        self.rule(chain, number);
    }

    /// Picks by a number below the count of all ports, which `number` leaves in register 1.
    fn by_weight(
        &mut self,
        policy: &ResolvedPolicy,
        ranges: &[PortRange],
        chain: &str,
        mut number: Vec<Expr>,
    ) {
        if ranges.iter().all(|range| range.count() == 1) {
            return self.one_each(policy, ranges, chain, number);
        }
        let weights: Vec<_> =
            ranges.iter().map(|range| (range.count(), goto(policy, *range))).collect();
        let map = self.anonymous_set(|name| Set::weighted_verdicts(name, &weights));
        number.push(Byteorder::TO_NETWORK.into());
        number.push(Lookup::value(&map.name, Register::VERDICT).into());
        self.rule(chain, number);
    }
}

fn goto(policy: &ResolvedPolicy, range: PortRange) -> Verdict {
    Verdict::Goto(range_chain(&policy.name, range))
}

/// A hash of source address and port, below `modulus`. The port stands in the slot after the
/// address, as nft lays them out.
fn source_hash(family: Family, modulus: u32) -> [Expr; 3] {
    let (slot, len) = match family {
        Family::Ipv4 => (Register(13), 8),
        Family::Ipv6 => (Register::R3, 20),
    };
    [
        source_address(family, Register::R2),
        Payload { dreg: slot, ..Payload::SOURCE_PORT }.into(),
        Hash::jenkins(len, modulus, HASH_SEED).into(),
    ]
}
