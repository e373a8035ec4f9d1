//! The guarantee: packets that would be sent with another source port are dropped and counted.
//!
//! The chain is the last of postrouting that sees a packet. It looks at the port first, so that packets with
//! a permitted port cost no more. Like the policies themselves, the first with a packet in its scope decides
//! on it; a policy that is not enforced decides only on connections that it could have translated.
//!
//! A drop is not conditional on ports: fragments and truncated packets have none.

use ephport_core::{
    Block, ExpectedConnections, Ipsec, OpenConnections, PermittedPorts, PortRange, PortSet,
    Protocol, Protocols, ResolvedPolicy,
};

use super::Program;
use super::networks::Source;
use super::ports::within;
use super::scope::{
    Packets, any_of, family, is_local, l4proto, product, protocol, source_port, unconnected,
};
use crate::nftables::expr::{
    Bitwise, Cmp, CmpOp, Counter, Ct, Expr, Fib, Immediate, Lookup, Meta, Payload, Register, Rt,
    Verdict,
};
use crate::table::Set;
use crate::table::layout::{self, ENFORCE, ENFORCE_PRIORITY};
use crate::uapi::{
    IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY, IPPROTO_AH, IPS_CONFIRMED, IPS_EXPECTED, IPS_SRC_NAT,
    NFT_META_OIFKIND, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST,
};

impl Program {
    /// Adds the enforcing chains, if a policy asks for them.
    pub(super) fn enforce(&mut self, policies: &[ResolvedPolicy]) {
        let Some(last) = policies.iter().rposition(|policy| policy.enforce) else { return };
        let policies = &policies[..=last];
        self.base_chain(ENFORCE, "filter", ENFORCE_PRIORITY);
        for known in protocols(policies).iter() {
            let common = common_ports(policies, known);
            let mut alternatives = self.ports(&source_port(known).into(), &common);
            // The ports that connections are translated to are mostly the highest.
            alternatives.reverse();
            for ports in alternatives {
                let exprs =
                    any_of(known).into_iter().chain(ports).chain([verdict(Verdict::Return)]);
                self.rule(ENFORCE, exprs.collect());
            }
        }
        // Packets of connections that began at the destination have the port of a server here.
        let replies = [Ct::DIRECTION.into(), Cmp::new(CmpOp::Eq, &[IP_CT_DIR_REPLY]).into()];
        self.rule(ENFORCE, replies.into_iter().chain([verdict(Verdict::Return)]).collect());
        self.guards(ENFORCE);
        // A packet to a VRF device passes again, with its real output interface.
        let vrf = Cmp::new(CmpOp::Eq, b"vrf\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let oifkind = Meta { key: NFT_META_OIFKIND, dreg: Register::R1 };
        self.rule(ENFORCE, vec![oifkind.into(), vrf.into(), verdict(Verdict::Return)]);
        for policy in policies {
            if policy.enforce {
                self.enforced(policy, policies);
            } else {
                self.shielded(policy);
            }
        }
    }

    /// Bridged frames, the packets of transparent-proxy sockets, groups and whole networks are in no scope.
    pub(super) fn guards(&mut self, chain: &str) {
        let is = |fib: Fib, op, address_type: u8| -> [Expr; 2] {
            [fib.into(), Cmp::new(op, &u32::from(address_type).to_ne_bytes()).into()]
        };
        let groups = is(Fib::DESTINATION_TYPE, CmpOp::Eq, RTN_MULTICAST).to_vec();
        let networks = is(Fib::DESTINATION_TYPE_OUT, CmpOp::Eq, RTN_BROADCAST).to_vec();
        let mut guards = vec![groups, networks];
        let foreign = is(Fib::SOURCE_TYPE, CmpOp::Neq, RTN_LOCAL);
        // After translation, a packet of this host can have any source.
        let untranslated = Bitwise::mask(&IPS_SRC_NAT.to_ne_bytes());
        let untranslated =
            vec![Ct::STATUS.into(), untranslated.into(), Cmp::new(CmpOp::Eq, &[0; 4]).into()];
        let states = match chain {
            ENFORCE => vec![untranslated, unconnected().into()],
            _ => vec![Vec::new()],
        };
        for state in states {
            guards.push(is_local(true).into_iter().chain(state).chain(foreign.clone()).collect());
        }
        for mut exprs in guards {
            exprs.push(verdict(Verdict::Return));
            self.rule(chain, exprs);
        }
        if self.guards_ipsec {
            self.rule(
                chain,
                vec![Rt::IPSEC.into(), Cmp::new(CmpOp::Eq, &[1]).into(), verdict(Verdict::Return)],
            );
        }
    }

    /// Connections that a policy which is not enforced could have translated are left to it.
    fn shielded(&mut self, policy: &ResolvedPolicy) {
        for packets in Packets::of(policy).iter().filter(|packets| packets.have_ports(policy)) {
            for known in policy.protocols.iter() {
                let Some(packets) = packets.of_protocol(known) else { continue };
                let scope = self.scope(policy, &packets, Source::Connection);
                let mut conditions = vec![scope, vec![protocol(known)]];
                if known.has_ports() {
                    conditions.push(self.destination_ports(&policy.destination_ports));
                    let source = Ct::ORIGINAL_SOURCE_PORT.into();
                    conditions.push(self.ports(&source, &policy.translated));
                } else {
                    // A packet without a connection has no direction.
                    let original = Cmp::new(CmpOp::Eq, &[IP_CT_DIR_ORIGINAL]);
                    conditions.push(vec![vec![Ct::DIRECTION.into(), original.into()]]);
                }
                for mut exprs in product(conditions) {
                    match (&policy.permitted, packets.family) {
                        (PermittedPorts::Blocks(_), Some(family)) => exprs.extend(self.by_source(
                            policy,
                            family,
                            Source::Connection,
                            &|_| Verdict::Return,
                        )),
                        _ => exprs.push(verdict(Verdict::Return)),
                    }
                    self.rule_of(policy, ENFORCE, exprs);
                }
            }
        }
    }

    /// Sends the packets in an enforced policy's scope to a chain of its own.
    fn enforced(&mut self, policy: &ResolvedPolicy, policies: &[ResolvedPolicy]) {
        let chain = layout::enforce_chain(&policy.name);
        self.chain(&chain);
        for packets in Packets::of(policy) {
            let mut scopes = vec![(Vec::new(), Source::Connection)];
            if !policy.sources.is_empty() {
                scopes.push((unconnected().to_vec(), Source::Packet));
            }
            for (state, source) in scopes {
                let of_scope = |program: &mut Self, packets: &Packets<'_>, rest: &[Expr]| {
                    for scope in program.scope(policy, packets, source) {
                        let exprs = [state.as_slice(), &scope, rest].concat();
                        program.rule_of(policy, ENFORCE, exprs);
                    }
                };
                for known in policy.protocols.iter() {
                    let Some(packets) = packets.of_protocol(known) else { continue };
                    let jump = Immediate::verdict(Verdict::Jump(chain.clone())).into();
                    of_scope(self, &packets, &[protocol(known), vec![jump]].concat());
                }
                if policy.ipsec == Ipsec::Match {
                    let ah = l4proto(IPPROTO_AH);
                    of_scope(self, &packets, &[ah.as_slice(), &counted(Verdict::Drop)].concat());
                }
            }
        }
        self.permitted(policy, &chain, policies);
        self.rule(&chain, counted(Verdict::Drop).into());
    }

    /// What an enforced policy lets pass: to the next policy, or out.
    fn permitted(&mut self, policy: &ResolvedPolicy, chain: &str, policies: &[ResolvedPolicy]) {
        let elsewhere = PortSet::from(PortRange::ALL).difference(&policy.destination_ports);
        let by_port = |ports: &[Expr], known, then| -> Vec<Expr> {
            any_of(known).into_iter().chain(ports.iter().cloned()).chain([verdict(then)]).collect()
        };
        for known in policy.protocols.iter() {
            for range in elsewhere.ranges() {
                let ports = within(&Payload::DESTINATION_PORT.into(), *range);
                self.rule(chain, by_port(&ports, known, Verdict::Return));
            }
            let everyone = policy.permitted_to_everyone(known);
            if !everyone.is_subset(&common_ports(policies, known)) {
                for ports in self.ports(&source_port(known).into(), everyone) {
                    self.rule(chain, by_port(&ports, known, Verdict::Accept));
                }
            }
        }
        if policy.expected_connections == ExpectedConnections::Pass {
            let expected = Bitwise::mask(&IPS_EXPECTED.to_ne_bytes());
            let mut exprs =
                vec![Ct::STATUS.into(), expected.into(), Cmp::new(CmpOp::Neq, &[0; 4]).into()];
            exprs.extend(counted(Verdict::Accept));
            self.rule(chain, exprs);
        }
        if policy.open_connections == OpenConnections::Keep {
            let set = self.set(Set::connections(&layout::open_set(&policy.name)));
            // A later connection can get the same number, but its first packet is not confirmed.
            let confirmed = Bitwise::mask(&IPS_CONFIRMED.to_ne_bytes());
            let mut exprs =
                vec![Ct::STATUS.into(), confirmed.into(), Cmp::new(CmpOp::Neq, &[0; 4]).into()];
            exprs.extend([Ct::ID.into(), Lookup::within(&set.name).into()]);
            exprs.extend(counted(Verdict::Accept));
            self.rule(chain, exprs);
        }
        if matches!(policy.permitted, PermittedPorts::Blocks(_)) {
            self.blocks(policy, chain);
        }
    }

    /// Each source has the chain of its own block.
    ///
    /// A packet in flight while a commit changes the map is evaluated by the old rules with the new elements, and
    /// finds the chain of a new block empty. So the map jumps: what returns from there is dropped.
    fn blocks(&mut self, policy: &ResolvedPolicy, chain: &str) {
        let PermittedPorts::Blocks(blocks) = &policy.permitted else { return };
        for range in blocks.port_ranges() {
            let name = layout::enforce_block_chain(&policy.name, range);
            self.chain(&name);
            for known in policy.protocols.iter() {
                let ports = within(&source_port(known).into(), range);
                let exprs =
                    any_of(known).into_iter().chain(ports).chain([verdict(Verdict::Accept)]);
                self.rule(&name, exprs.collect());
            }
            self.rule(&name, counted(Verdict::Drop).into());
        }
        for family in policy.families.iter() {
            if blocks.count_of(family) == 0 {
                continue;
            }
            let jump = |block: &Block| {
                Verdict::Jump(layout::enforce_block_chain(&policy.name, block.ports))
            };
            for (state, source) in
                [(Vec::new(), Source::Connection), (unconnected().to_vec(), Source::Packet)]
            {
                let exprs = state.into_iter().chain(self::family(family));
                let verdict = self.by_source(policy, family, source, &jump);
                self.rule(chain, exprs.chain(verdict).collect());
            }
        }
    }
}

/// The ports that every enforced policy permits to every source; of ICMP, the identifiers.
fn common_ports(policies: &[ResolvedPolicy], protocol: Protocol) -> PortSet {
    let enforced = policies.iter().filter(|policy| policy.enforce);
    enforced.fold(PortRange::ALL.into(), |common: PortSet, policy| {
        common.intersection(policy.permitted_to_everyone(protocol))
    })
}

/// The protocols of the enforced policies.
fn protocols(policies: &[ResolvedPolicy]) -> Protocols {
    let enforced = policies.iter().filter(|policy| policy.enforce);
    enforced.flat_map(|policy| policy.protocols.iter()).collect()
}

fn verdict(verdict: Verdict) -> Expr {
    Immediate::verdict(verdict).into()
}

fn counted(then: Verdict) -> [Expr; 2] {
    [Counter::default().into(), verdict(then)]
}
