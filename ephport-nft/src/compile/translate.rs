//! What happens to a connection in scope.

use std::net::IpAddr;

use ephport_core::{Address, BlockTable, Family, PermittedPorts, Port, PortRange, ResolvedPolicy};

use super::Program;
use super::scope::{Packets, source_address};
use crate::nftables::expr::{Counter, Data, Expr, Immediate, Lookup, Masq, Nat, Register, Verdict};
use crate::nftables::{SetSpec, value};
use crate::table::{Set, SetName, layout};
use crate::uapi::{NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET};

/// The second 4-byte slot of register 1 (`NFT_REG32_01`), where a map leaves its second value.
const SECOND_SLOT: Register = Register(9);

impl Program {
    /// Counts the connection and sends it where its port is chosen.
    pub(super) fn action(
        &mut self,
        policy: &ResolvedPolicy,
        packets: &Packets<'_>,
        spread: Option<&str>,
    ) -> Vec<Expr> {
        let mut exprs = vec![Counter::default().into()];
        match (&policy.permitted, spread) {
            (PermittedPorts::Blocks(blocks), _) => {
                // One rule is for one family where the target is a table of blocks.
                let family = packets.family.unwrap_or(Family::Ipv4);
                exprs.extend(self.block(policy, blocks, family));
            }
            (PermittedPorts::Set(_), Some(chain)) => {
                exprs.push(Immediate::verdict(Verdict::Goto(chain.into())).into());
            }
            (PermittedPorts::Set(ports), None) => {
                let ranges = ports.ranges().iter();
                exprs.extend(ranges.flat_map(|range| translate(*range, policy)));
            }
        }
        exprs
    }

    /// Looks the source's block up; a source without one goes on to the next policy.
    fn block(&mut self, policy: &ResolvedPolicy, blocks: &BlockTable, family: Family) -> Vec<Expr> {
        let map = self.block_map(policy, blocks, family);
        let flags = NF_NAT_RANGE_PROTO_SPECIFIED | value::nat_flag_bits(policy.flags);
        let is_addressed = blocks.iter().next().is_some_and(|block| block.outside.is_some());
        let load =
            [source_address(family, Register::R1), Lookup::value(&map.name, Register::R1).into()];
        let (min, max) = (Some(Register::R1), Some(SECOND_SLOT));
        let nat: Vec<Expr> = if is_addressed {
            vec![Nat { flags: Some(flags), ..Nat::source_block(family) }.into()]
        } else {
            match policy.address {
                Address::Masquerade => {
                    vec![Masq { flags: Some(flags), proto_min: min, proto_max: max }.into()]
                }
                Address::Keep => {
                    let ports = Nat { proto_min: min, proto_max: max, ..Nat::source(NFPROTO_INET) };
                    vec![Nat { flags: Some(flags), ..ports }.into()]
                }
                Address::Fixed(address) => {
                    let addr_min = Some(Register::R2);
                    let ports = Nat {
                        proto_min: min,
                        proto_max: max,
                        ..Nat::source(value::nfproto(family))
                    };
                    let nat = Nat { addr_min, flags: Some(flags), ..ports };
                    vec![immediate_address(Register::R2, address), nat.into()]
                }
            }
        };
        load.into_iter().chain(nat).collect()
    }

    /// The policy's map for one family; all of its rules share it.
    fn block_map(
        &mut self,
        policy: &ResolvedPolicy,
        blocks: &BlockTable,
        family: Family,
    ) -> SetSpec {
        let name = layout::block_map(&policy.name, family);
        if let Some(known) = self.sets.iter().find(|filled| filled.spec.name == name) {
            return known.spec.clone();
        }
        let named = SetName::Named(&name);
        let is_addressed = blocks.iter().next().is_some_and(|block| block.outside.is_some());
        let filled = if is_addressed {
            let of = blocks.iter().filter_map(|b| Some((b.source, b.outside?, b.ports)));
            Set::source_blocks(named, family, of)
        } else {
            let of = blocks.iter().map(|block| (block.source, block.ports));
            Set::source_ports(named, family, of)
        };
        self.set(filled)
    }
}

/// Translates to one of the ports of `range`.
pub(super) fn translate(range: PortRange, policy: &ResolvedPolicy) -> Vec<Expr> {
    let (mut exprs, ports) = match policy.address {
        Address::Fixed(address) => {
            (vec![immediate_address(Register::R1, address)], [Register::R2, Register::R3])
        }
        Address::Masquerade | Address::Keep => (Vec::new(), [Register::R1, Register::R2]),
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
    exprs.push(match policy.address {
        Address::Masquerade => Masq { flags, proto_min: min, proto_max: max }.into(),
        Address::Keep => nat(NFPROTO_INET).into(),
        Address::Fixed(address) => {
            let addr_min = Some(Register::R1);
            Nat { addr_min, ..nat(value::nfproto(Family::of(address))) }.into()
        }
    });
    exprs
}

fn immediate_address(dreg: Register, address: IpAddr) -> Expr {
    Immediate { dreg, data: Data::Value(value::address_bytes(address)) }.into()
}

fn port(dreg: Register, port: Port) -> Expr {
    Immediate { dreg, data: Data::value(&value::port_bytes(port)) }.into()
}
