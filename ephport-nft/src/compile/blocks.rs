//! The block of each source.
//!
//! | form | used for | program |
//! |---|---|---|
//! | flat | few sources | one map from the source to its block |
//! | factored | plans in which the low bits of a source select its block, and the rest its outside address | one map for each part |
//! | sharded | other tables | a verdict map from the prefix of a source to the chain with the map of this prefix |
//!
//! The kernel walks a set from its start for each 32 KiB of a dump, so that many small sets are read much faster
//! than a large one.

use std::net::IpAddr;

use ephport_core::{
    Address, Block, BlockPlan, BlockTable, Family, PermittedPorts, Protocol, ResolvedPolicy,
};

use super::Program;
use super::networks::{self, Of, Source};
use super::scope::{family, l4proto, source_address, unconnected};
use super::translate::{branch, immediate_address};
use crate::nftables::expr::{Bitwise, Cmp, CmpOp, Expr, Lookup, Masq, Nat, Register, Verdict};
use crate::nftables::{SetSpec, value};
use crate::table::{Set, SetName, layout};
use crate::uapi::{NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET};

/// The second 4-byte slot of register 1 (`NFT_REG32_01`), where a map writes its second value.
const SECOND_SLOT: Register = Register(9);

/// The most sources of one map.
pub(super) const MAX_FLAT: usize = 16_384;

/// A shard has on average at least this part of the most that it may have: chains must not outweigh elements.
const MIN_SHARE: usize = 256;

/// The form of a table of blocks for one family.
enum Form<'a> {
    Flat,
    /// The plan, and the number of low bits that select the block.
    Factored(&'a BlockPlan, u32),
    /// The length of the prefix that selects the shard.
    Sharded(u8),
}

impl<'a> Form<'a> {
    fn of(blocks: &'a BlockTable, family: Family, max_flat: usize) -> Self {
        if blocks.count_of(family) <= max_flat as u128 {
            return Self::Flat;
        }
        if let BlockTable::Plan(plan) = blocks
            && let Some(low_bits) = plan.factored_bits()
        {
            return Self::Factored(plan, low_bits);
        }
        shard_prefix(blocks, family, max_flat / 4).map_or(Self::Flat, Self::Sharded)
    }
}

/// The form of a table of blocks in the kernel, and why; empty for one map of few sources.
#[must_use]
pub fn describe(blocks: &BlockTable) -> String {
    let families = [Family::Ipv4, Family::Ipv6].into_iter();
    let large = families.filter(|family| blocks.count_of(*family) > MAX_FLAT as u128);
    let forms = large.map(|family| match Form::of(blocks, family, MAX_FLAT) {
        Form::Factored(plan, low_bits) => format!(
            "factored: {} outside addresses by the first bits of the source, {} blocks by its last {low_bits} bits",
            plan.sources().count() >> low_bits,
            plan.sources_per_address(),
        ),
        Form::Sharded(len) => format!(
            "sharded: {} maps by the first {len} bits of the source",
            by_prefix(blocks, family, len).count()
        ),
        Form::Flat => "one map: the sources are too far apart for several".into(),
    });
    forms.collect::<Vec<_>>().join("; ")
}

impl Program {
    /// Whether the blocks of a family are in shards.
    pub(super) fn is_sharded(&self, blocks: &BlockTable, family: Family) -> bool {
        matches!(Form::of(blocks, family, self.max_flat), Form::Sharded(_))
    }

    /// Looks the block of the source up, assigns timeouts and translates to it; the next policy decides on a
    /// source without one.
    pub(super) fn block(
        &mut self,
        policy: &ResolvedPolicy,
        family: Family,
        address: Address,
        assign: Option<&Expr>,
    ) -> Vec<Expr> {
        let PermittedPorts::Blocks(blocks) = &policy.permitted else { return Vec::new() };
        let assign = assign.cloned();
        let load = source_address(family, Register::R1);
        match Form::of(blocks, family, self.max_flat) {
            Form::Flat => {
                let name = layout::block_map(&policy.name, family);
                let map = self.known(&name, |name| block_map(name, family, blocks.iter(), blocks));
                let lookup = Lookup::value(&map.name, Register::R1).into();
                let nat = nat(policy, blocks, family, address);
                [load, lookup].into_iter().chain(assign).chain(nat).collect()
            }
            Form::Factored(plan, low_bits) => {
                let [parts @ .., nat] = self.factored(policy, family, plan, low_bits);
                parts.into_iter().chain(assign).chain([nat]).collect()
            }
            Form::Sharded(len) => {
                let map = self.shards(policy, blocks, family, len, address);
                vec![load, prefix(family, len), Lookup::value(&map.name, Register::VERDICT).into()]
            }
        }
    }

    /// The set with this name; all rules of the policy share it.
    fn known(&mut self, name: &str, fill: impl FnOnce(SetName<'_>) -> Set) -> SetSpec {
        if let Some(known) = self.blocks.get(name) {
            return known.clone();
        }
        let spec = self.set(fill(SetName::Named(name)));
        self.blocks.insert(name.into(), spec.clone());
        spec
    }

    /// The high bits of the source select its outside address, the low bits its ports.
    fn factored(
        &mut self,
        policy: &ResolvedPolicy,
        family: Family,
        plan: &BlockPlan,
        low_bits: u32,
    ) -> [Expr; 7] {
        let addresses = layout::address_map(&policy.name, family);
        let addresses = self
            .known(&addresses, |name| Set::source_addresses(name, family, plan.first_sources()));
        let ports = layout::block_map(&policy.name, family);
        let ports = self.known(&ports, |name| Set::source_ports(name, family, low_parts(plan)));
        let high =
            Bitwise { sreg: Register::R2, dreg: Register::R2, ..high_bits(family, low_bits) };
        let flags = NF_NAT_RANGE_PROTO_SPECIFIED | value::nat_flag_bits(policy.flags);
        let nat = Nat {
            addr_min: Some(Register::R2),
            proto_min: Some(Register::R1),
            proto_max: Some(SECOND_SLOT),
            flags: Some(flags),
            ..Nat::source(value::nfproto(family))
        };
        [
            source_address(family, Register::R2),
            high.into(),
            Lookup { sreg: Register::R2, ..Lookup::value(&addresses.name, Register::R2) }.into(),
            source_address(family, Register::R1),
            low_part(family, low_bits),
            Lookup::value(&ports.name, Register::R1).into(),
            nat.into(),
        ]
    }

    /// The verdict map of the shards, after the chain and the map of each are added.
    fn shards(
        &mut self,
        policy: &ResolvedPolicy,
        blocks: &BlockTable,
        family: Family,
        len: u8,
        address: Address,
    ) -> SetSpec {
        let all = layout::block_map(&policy.name, family);
        // The chains differ by what happens to the address, the maps do not.
        let chains = format!("{all}/{}", branch(address));
        if let Some(known) = self.blocks.get(&chains) {
            return known.clone();
        }
        let mut verdicts = Vec::new();
        for shard in by_prefix(blocks, family, len) {
            let Some(first) = shard.first() else { continue };
            let chain = layout::shard(&chains, first.source, len);
            verdicts.push((masked(first.source, len), Verdict::Jump(chain.clone())));
            let map = layout::shard(&all, first.source, len);
            let map = self.known(&map, |name| block_map(name, family, shard.into_iter(), blocks));
            self.chain(&chain);
            for known in policy.protocols.iter().filter(|known| known.is_of(family)) {
                let rest = self.rest(policy, known);
                for (ports, assign) in rest {
                    let mut exprs = l4proto(known.number()).to_vec();
                    exprs.extend(ports);
                    exprs.extend(self::family(family));
                    exprs.push(source_address(family, Register::R1));
                    exprs.push(Lookup::value(&map.name, Register::R1).into());
                    exprs.extend(assign);
                    exprs.extend(nat(policy, blocks, family, address));
                    self.rule(&chain, exprs);
                }
            }
        }
        self.known(&chains, |name| Set::source_verdicts(name, family, verdicts))
    }

    /// The timeouts that the chain of a shard assigns, by conditions of which the first that matches decides; the
    /// last always does: the base chain has matched the scope.
    fn rest(
        &mut self,
        policy: &ResolvedPolicy,
        protocol: Protocol,
    ) -> Vec<(Vec<Expr>, Option<Expr>)> {
        let mut groups = self.timeout_groups(policy, protocol);
        let last = groups.pop().and_then(|(_, assign)| assign);
        let mut all = Vec::new();
        for (ports, assign) in groups {
            let conditions = self.destination_ports(&ports).into_iter();
            all.extend(conditions.map(|condition| (condition, assign.clone())));
        }
        all.push((Vec::new(), last));
        all
    }

    /// Matches packets whose source has a block, with the verdict on this block.
    pub(super) fn by_source(
        &mut self,
        policy: &ResolvedPolicy,
        family: Family,
        source: Source,
        verdict: &dyn Fn(&Block) -> Verdict,
    ) -> Vec<Expr> {
        let PermittedPorts::Blocks(blocks) = &policy.permitted else { return Vec::new() };
        let name = layout::enforce_map(&policy.name, family);
        let load = networks::address(Of::Source(source), family);
        let lookup = |map: &SetSpec| Lookup::value(&map.name, Register::VERDICT).into();
        match Form::of(blocks, family, self.max_flat) {
            Form::Flat => {
                let all = blocks.iter().map(|block| (block.source, verdict(&block)));
                let map = self.known(&name, |name| Set::source_verdicts(name, family, all));
                vec![load, lookup(&map)]
            }
            Form::Factored(plan, low_bits) => {
                let sources = plan.sources();
                let of_plan = plan.iter().take(plan.sources_per_address());
                let all = of_plan.map(|block| (low(block.source, low_bits), verdict(&block)));
                let map = self.known(&name, |name| Set::source_verdicts(name, family, all));
                let ends = [(CmpOp::Gte, sources.first()), (CmpOp::Lte, sources.last())];
                let ends = ends.map(|(op, end)| Cmp::new(op, &value::address_bytes(end)).into());
                let [first, last] = ends;
                vec![load.clone(), first, last, load, low_part(family, low_bits), lookup(&map)]
            }
            Form::Sharded(len) => {
                let map = self.verdict_shards(policy, blocks, family, len, verdict);
                vec![load, prefix(family, len), lookup(&map)]
            }
        }
    }

    /// The verdict map of the shards of an enforcing chain.
    fn verdict_shards(
        &mut self,
        policy: &ResolvedPolicy,
        blocks: &BlockTable,
        family: Family,
        len: u8,
        verdict: &dyn Fn(&Block) -> Verdict,
    ) -> SetSpec {
        let all = layout::enforce_map(&policy.name, family);
        if let Some(known) = self.blocks.get(&all) {
            return known.clone();
        }
        let mut verdicts = Vec::new();
        for shard in by_prefix(blocks, family, len) {
            let Some(first) = shard.first() else { continue };
            let name = layout::shard(&all, first.source, len);
            verdicts.push((masked(first.source, len), Verdict::Jump(name.clone())));
            // What returns from here would reach the next rule, not the end of the base chain.
            let verdict = |block: &Block| match verdict(block) {
                Verdict::Return => Verdict::Accept,
                other => other,
            };
            let of_shard = shard.iter().map(|block| (block.source, verdict(block)));
            let map = self.known(&name, |name| Set::source_verdicts(name, family, of_shard));
            self.chain(&name);
            for (state, source) in
                [(Vec::new(), Source::Connection), (unconnected().to_vec(), Source::Packet)]
            {
                let mut exprs = state;
                exprs.extend(self::family(family));
                exprs.push(networks::address(Of::Source(source), family));
                exprs.push(Lookup::value(&map.name, Register::VERDICT).into());
                self.rule(&name, exprs);
            }
        }
        self.known(&all, |name| Set::source_verdicts(name, family, verdicts))
    }
}

/// Translates to the block that a map loaded into the registers from 1.
fn nat(
    policy: &ResolvedPolicy,
    blocks: &BlockTable,
    family: Family,
    address: Address,
) -> Vec<Expr> {
    let flags = Some(NF_NAT_RANGE_PROTO_SPECIFIED | value::nat_flag_bits(policy.flags));
    if blocks.has_outside() {
        return vec![Nat { flags, ..Nat::source_block(family) }.into()];
    }
    let (proto_min, proto_max) = (Some(Register::R1), Some(SECOND_SLOT));
    match address {
        Address::Keep => {
            vec![Nat { proto_min, proto_max, flags, ..Nat::source(NFPROTO_INET) }.into()]
        }
        Address::Fixed(address) => {
            let addr_min = Some(Register::R2);
            let to = Nat::source(value::nfproto(family));
            let nat = Nat { addr_min, proto_min, proto_max, flags, ..to };
            vec![immediate_address(Register::R2, address), nat.into()]
        }
        // Masquerade: the rules before decide what `auto` is.
        Address::Masquerade | Address::Auto => {
            vec![Masq { flags, proto_min, proto_max }.into()]
        }
    }
}

/// The map of these blocks.
fn block_map(
    name: SetName<'_>,
    family: Family,
    blocks: impl Iterator<Item = Block>,
    table: &BlockTable,
) -> Set {
    if table.has_outside() {
        let of = blocks.filter_map(|block| Some((block.source, block.outside?, block.ports)));
        Set::source_blocks(name, family, of)
    } else {
        Set::source_ports(name, family, blocks.map(|block| (block.source, block.ports)))
    }
}

/// The ports of each block of one outside address, by the low part of its sources.
fn low_parts(plan: &BlockPlan) -> impl Iterator<Item = (IpAddr, ephport_core::PortRange)> {
    let low_bits = plan.factored_bits().unwrap_or(0);
    let of_address = plan.iter().take(plan.sources_per_address());
    of_address.map(move |block| (low(block.source, low_bits), block.ports))
}

/// Keeps the bits above the low ones, in register 1.
fn high_bits(family: Family, low_bits: u32) -> Bitwise {
    let len = u32::try_from(value::address_len(family) * 8).unwrap_or(u32::MAX) - low_bits;
    Bitwise::mask(&networks::mask(family, u8::try_from(len).unwrap_or(u8::MAX)))
}

/// Keeps the low bits of the address in register 1.
fn low_part(family: Family, low_bits: u32) -> Expr {
    let Bitwise { mask, .. } = high_bits(family, low_bits);
    let inverted: Vec<u8> = mask.bytes().unwrap_or_default().iter().map(|byte| !byte).collect();
    Bitwise::mask(&inverted).into()
}

/// Keeps the prefix of the address in register 1.
fn prefix(family: Family, len: u8) -> Expr {
    Bitwise::mask(&networks::mask(family, len)).into()
}

/// The low bits of an address.
fn low(address: IpAddr, low_bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(own) => IpAddr::V4((own.to_bits() & ((1 << low_bits) - 1)).into()),
        IpAddr::V6(own) => IpAddr::V6((own.to_bits() & ((1 << low_bits) - 1)).into()),
    }
}

/// The first address of the network of this length around an address.
fn masked(address: IpAddr, len: u8) -> IpAddr {
    ipnet::IpNet::new(address, len).map_or(address, |network| network.network())
}

/// The shortest prefix with which no shard has more than `max` sources; `None` if the shards would be too many.
fn shard_prefix(blocks: &BlockTable, family: Family, max: usize) -> Option<u8> {
    let sources: Vec<_> = blocks.iter_of(family).map(|block| aligned(block.source)).collect();
    let common = |a: &u128, b: &u128| (a ^ b).leading_zeros();
    let crowded = sources.iter().zip(sources.iter().skip(max.max(1)));
    let len = crowded.map(|(a, b)| common(a, b) + 1).max()?;
    let next = sources.iter().zip(sources.iter().skip(1));
    let shards = 1 + next.filter(|(a, b)| common(a, b) < len).count();
    (shards * max.div_ceil(MIN_SHARE) <= sources.len()).then(|| u8::try_from(len).ok()).flatten()
}

/// The blocks of each prefix, by source.
fn by_prefix(
    blocks: &BlockTable,
    family: Family,
    len: u8,
) -> impl Iterator<Item = Vec<Block>> + '_ {
    let mut blocks = blocks.iter_of(family).peekable();
    std::iter::from_fn(move || {
        let first = blocks.next()?;
        let prefix = masked(first.source, len);
        let mut shard = vec![first];
        while let Some(block) = blocks.next_if(|block| masked(block.source, len) == prefix) {
            shard.push(block);
        }
        Some(shard)
    })
}

/// The address as a number with its first bit in front.
fn aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}
