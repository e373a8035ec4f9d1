//! What happens to a connection in scope.

use std::collections::HashMap;
use std::net::IpAddr;

use ephport_core::{
    Address, Families, Family, Origin, PermittedPorts, Port, PortRange, PortSet, Protocol,
    ResolvedPolicy,
};
use ipnet::IpNet;

use super::Program;
use super::networks::{Of, Source};
use super::scope::{Packets, family, is_local, l4proto};
use crate::nftables::expr::{
    Cmp, CmpOp, Counter, Data, Expr, Fib, Immediate, Masq, Nat, Register, Verdict,
};
use crate::nftables::value;
use crate::table::layout;
use crate::uapi::{NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, RTN_LOCAL};

/// The source address after translation, by conditions of which the first that matches decides; the last
/// always matches.
type Cases = Vec<(Vec<Expr>, Address)>;

/// What the rules of the base chain do with the connections of a policy.
pub(super) enum Action {
    /// They translate to one range.
    Range(PortRange, Address),
    /// They send them to a chain.
    Goto(String),
    /// They translate to the block of the source, by family.
    Blocks(HashMap<Family, Cases>),
}

impl Program {
    /// The action of a policy, after its chains are added.
    pub(super) fn action(&mut self, policy: &ResolvedPolicy) -> Action {
        let ports = match &policy.permitted {
            PermittedPorts::Set(ports) => ports,
            PermittedPorts::Blocks(_) => {
                let families = policy.families.iter();
                let each = families.map(|family| (family, self.cases(policy, family.into())));
                return Action::Blocks(each.collect());
            }
        };
        if let Some(remap) = &policy.remap {
            return Action::Goto(self.virtual_range(policy, remap));
        }
        match (self.cases(policy, policy.families).as_slice(), ports.ranges()) {
            ([(_, address)], [range]) => Action::Range(*range, *address),
            ([(_, address)], _) => Action::Goto(self.spread(policy, ports, *address, None)),
            (cases, _) => Action::Goto(self.by_address(policy, ports, cases)),
        }
    }

    /// The action for echo requests, where it is another one: identifiers have no virtual range.
    pub(super) fn identifiers(&mut self, policy: &ResolvedPolicy) -> Option<Action> {
        let has_identifiers = policy.protocols.iter().any(|known| !known.has_ports());
        let (PermittedPorts::Set(ports), Some(_), true) =
            (&policy.permitted, &policy.remap, has_identifiers)
        else {
            return None;
        };
        Some(Action::Goto(self.spread(policy, ports, policy.address, None)))
    }

    fn cases(&mut self, policy: &ResolvedPolicy, families: Families) -> Cases {
        match (&policy.permitted, policy.address) {
            (PermittedPorts::Blocks(blocks), _) if blocks.has_outside() => {
                vec![(Vec::new(), policy.address)]
            }
            (_, Address::Auto) => self.auto(policy, families),
            (_, address @ (Address::Masquerade | Address::Keep | Address::Fixed(_))) => {
                vec![(Vec::new(), address)]
            }
        }
    }

    /// Adds the chain that keeps the source addresses that are valid outside and masquerades the rest.
    ///
    /// It translates to a single range itself where an address has one condition: a chain more is one more
    /// dump to read the table back.
    fn by_address(
        &mut self,
        policy: &ResolvedPolicy,
        ports: &PortSet,
        cases: &[(Vec<Expr>, Address)],
    ) -> String {
        let chain = layout::address_chain(&policy.name);
        self.chain(&chain);
        let range = if let [range] = ports.ranges() { Some(*range) } else { None };
        let mut branches = Vec::new();
        for (condition, address) in cases {
            let is_only = cases.iter().filter(|(_, other)| other == address).count() == 1;
            if let Some(range) = range.filter(|_| is_only) {
                self.translations(policy, &chain, condition, range, *address);
                continue;
            }
            let to = layout::branch_chain(&policy.name, branch(*address));
            let goto = Immediate::verdict(Verdict::Goto(to)).into();
            self.rule(&chain, condition.iter().cloned().chain([goto]).collect());
            if !branches.contains(address) {
                branches.push(*address);
            }
        }
        for address in branches {
            let branch = branch(address);
            let Some(range) = range else {
                self.spread(policy, ports, address, Some(branch));
                continue;
            };
            let name = layout::branch_chain(&policy.name, branch);
            self.chain(&name);
            self.translations(policy, &name, &[], range, address);
        }
        chain
    }

    /// What happens to the source address under [`Address::Auto`]: the first condition that matches
    /// decides, and the last always does. Sources that the policy does not match have none.
    fn auto(&mut self, policy: &ResolvedPolicy, families: Families) -> Cases {
        let has_local = policy.origin != Origin::Forwarded && policy.in_interfaces.is_empty();
        let has_forwarded = policy.origin != Origin::Local;
        let mut conditions = Vec::new();
        if has_local {
            // The rule itself matches the origin if it is the only one.
            let local = if has_forwarded { is_local(true).to_vec() } else { Vec::new() };
            let own = Cmp::new(CmpOp::Eq, &u32::from(RTN_LOCAL).to_ne_bytes());
            let own = [Fib::SOURCE_TYPE_OUT.into(), own.into()];
            conditions.push(([local.as_slice(), &own].concat(), Address::Keep));
            let sources = &policy.sources;
            let in_scope = |address: &&IpAddr| {
                sources.is_empty() || sources.iter().any(|network| network.contains(*address))
            };
            let kept = policy.kept_sources.iter().filter(in_scope).copied().map(IpNet::from);
            let kept: Vec<_> = kept.collect();
            for (family, inside) in self.each_inside(families, &kept) {
                conditions.push(([local.as_slice(), &family, &inside].concat(), Address::Keep));
            }
            conditions.push((local, Address::Masquerade));
        }
        if has_forwarded {
            let (private, is_all) = policy.private_sources();
            for network in private {
                for (family, inside) in self.each_inside(families, &[network]) {
                    conditions.push(([family.as_slice(), &inside].concat(), Address::Masquerade));
                }
            }
            let rest = if is_all { Address::Masquerade } else { Address::Keep };
            conditions.push((Vec::new(), rest));
        }
        without_conditions(&mut conditions);
        conditions
    }

    /// For each family, alternatives of which one matches if the source is in one of the networks.
    fn each_inside(&mut self, families: Families, nets: &[IpNet]) -> Vec<([Expr; 2], Vec<Expr>)> {
        let mut all = Vec::new();
        for family in families.iter() {
            let inside = self.inside(Of::Source(Source::Packet), family, nets);
            all.extend(inside.into_iter().map(|inside| (self::family(family), inside)));
        }
        all
    }

    /// Translates what meets a condition. One rule a protocol: nft asks for the protocol in each rule that
    /// names ports.
    pub(super) fn translations(
        &mut self,
        policy: &ResolvedPolicy,
        chain: &str,
        condition: &[Expr],
        range: PortRange,
        address: Address,
    ) {
        // With a virtual range, only echo requests are here.
        let is_here = |known: &Protocol| policy.remap.is_none() || !known.has_ports();
        for known in policy.protocols.iter().filter(is_here) {
            let protocol = l4proto(known.number());
            let exprs = [condition, &protocol, &translate(range, policy, address)].concat();
            self.rule(chain, exprs);
        }
    }

    /// The end of a rule of the base chain: it assigns timeouts, counts the connection and does the action.
    /// There is one, or one for each condition on the source.
    pub(super) fn ends(
        &mut self,
        policy: &ResolvedPolicy,
        packets: &Packets<'_>,
        action: &Action,
        assign: Option<&Expr>,
    ) -> Vec<Vec<Expr>> {
        let counter = || Counter::default().into();
        let start = || assign.cloned().into_iter().chain([counter()]);
        match action {
            Action::Blocks(by_family) => {
                // One rule is for one family where the target is a table of blocks.
                let family = packets.family.unwrap_or(Family::Ipv4);
                let cases = by_family.get(&family).into_iter().flatten();
                let each = cases.map(|(condition, address)| {
                    let block = self.block(policy, family, *address, assign);
                    condition.iter().cloned().chain([counter()]).chain(block).collect()
                });
                each.collect()
            }
            Action::Goto(chain) => {
                let goto = Immediate::verdict(Verdict::Goto(chain.clone())).into();
                vec![start().chain([goto]).collect()]
            }
            Action::Range(range, address) => {
                vec![start().chain(translate(*range, policy, *address)).collect()]
            }
        }
    }
}

/// Translates to one of the ports of `range`.
pub(super) fn translate(range: PortRange, policy: &ResolvedPolicy, address: Address) -> Vec<Expr> {
    let (mut exprs, ports) = match address {
        Address::Fixed(address) => {
            (vec![immediate_address(Register::R1, address)], [Register::R2, Register::R3])
        }
        Address::Auto | Address::Masquerade | Address::Keep => {
            (Vec::new(), [Register::R1, Register::R2])
        }
    };
    let [low, high] = ports;
    exprs.push(port(low, range.first()));
    let (min, mut max) = (Some(low), None);
    if range.first() != range.last() {
        exprs.push(port(high, range.last()));
        max = Some(high);
    }
    let flags = Some(NF_NAT_RANGE_PROTO_SPECIFIED | value::nat_flag_bits(policy.flags));
    let nat = |family| Nat { proto_min: min, proto_max: max, flags, ..Nat::source(family) };
    exprs.push(match address {
        Address::Keep => nat(NFPROTO_INET).into(),
        Address::Fixed(address) => {
            let addr_min = Some(Register::R1);
            Nat { addr_min, ..nat(value::nfproto(Family::of(address))) }.into()
        }
        // Masquerade: the chain before decides what `auto` is.
        Address::Masquerade | Address::Auto => {
            Masq { flags, proto_min: min, proto_max: max }.into()
        }
    });
    exprs
}

/// Removes what the last of the alternatives decides in the same way: it needs no condition.
fn without_conditions(alternatives: &mut Cases) {
    let Some((_, last)) = alternatives.pop() else { return };
    while alternatives.pop_if(|(_, address)| *address == last).is_some() {}
    alternatives.push((Vec::new(), last));
}

/// The name of the chains for connections with this address.
pub(super) fn branch(address: Address) -> &'static str {
    match address {
        Address::Keep => "keep",
        Address::Auto | Address::Masquerade | Address::Fixed(_) => "masquerade",
    }
}

pub(super) fn immediate_address(dreg: Register, address: IpAddr) -> Expr {
    Immediate { dreg, data: Data::value(&value::address_bytes(address)) }.into()
}

fn port(dreg: Register, port: Port) -> Expr {
    Immediate { dreg, data: Data::value(&value::port_bytes(port)) }.into()
}
