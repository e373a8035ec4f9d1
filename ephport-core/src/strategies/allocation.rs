//! Strategies for shared addresses: port sets, plans and tables of blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use crate::allocation::block_table::BlockTable;
use crate::allocation::blocks::{Block, BlockPlan};
use crate::allocation::explicit_blocks::ExplicitBlocks;
use crate::allocation::map_e::{BasicMappingRule, MapE};
use crate::allocation::psid::PsidRule;
use crate::net::address_range::AddressRange;
use crate::strategies::{port_ranges, port_sets};

/// Any port set that a PSID names.
pub fn psid_rules() -> impl Strategy<Value = PsidRule> {
    (0..=15u8, 0..=16u8, any::<u16>()).prop_filter_map("no port", |(offset, len, psid)| {
        let len = len.min(16 - offset);
        let psid = u32::from(psid) & ((1 << len) - 1);
        PsidRule::new(offset, len, u16::try_from(psid).ok()?).ok()
    })
}

/// Any rule, with EA bits or with a PSID of its own.
pub fn basic_mapping_rules() -> impl Strategy<Value = BasicMappingRule> {
    let ipv6_prefixes = || {
        (any::<u128>(), 0..=64u8)
            .prop_map(|(bits, len)| Ipv6Net::new_assert(Ipv6Addr::from(bits), len))
    };
    let ipv4_prefixes = (any::<u32>(), 0..=32u8)
        .prop_map(|(bits, len)| Ipv4Net::new_assert(Ipv4Addr::from(bits), len));
    let embedded = (ipv6_prefixes(), ipv4_prefixes, 0..=48u8, 0..=15u8)
        .prop_filter_map("too long a PSID", |(ipv6, ipv4, ea_len, offset)| {
            BasicMappingRule::new(ipv6, ipv4, ea_len, offset).ok()
        });
    let provisioned =
        (ipv6_prefixes(), any::<u32>(), psid_rules()).prop_map(|(ipv6, address, psid)| {
            BasicMappingRule::provisioned(ipv6, address.into(), psid)
        });
    prop_oneof![2 => embedded, 1 => provisioned]
}

/// Any source of MAP-E ports.
pub fn map_es() -> impl Strategy<Value = MapE> {
    let allocations = (basic_mapping_rules(), any::<u128>(), 0..=8u8).prop_filter_map(
        "only port 0",
        |(rule, bits, more)| {
            let prefix = rule.ipv6_prefix();
            let address = u128::from(prefix.network()) | bits & u128::from(prefix.hostmask());
            let len = prefix.prefix_len() + rule.ea_len() + more;
            let delegated = Ipv6Net::new(Ipv6Addr::from(address), len).ok()?;
            rule.for_prefix(delegated).ok().map(MapE::Allocation)
        },
    );
    prop_oneof![psid_rules().prop_map(MapE::Psid), allocations]
}

/// Any range of addresses; short ones and whole networks come often.
pub fn address_ranges() -> impl Strategy<Value = AddressRange> {
    let v4 = (any::<u32>(), any::<u32>())
        .prop_map(|(a, b)| (IpAddr::from(Ipv4Addr::from(a)), Ipv4Addr::from(b).into()));
    let v6 = (any::<u128>(), any::<u128>())
        .prop_map(|(a, b)| (IpAddr::from(Ipv6Addr::from(a)), Ipv6Addr::from(b).into()));
    let pairs = prop_oneof![v4, v6].prop_filter_map("never", |(a, b): (IpAddr, IpAddr)| {
        AddressRange::new(a.min(b), a.max(b)).ok()
    });
    let networks = prop_oneof![
        (any::<u32>(), 0..=32u8)
            .prop_map(|(bits, len)| IpNet::V4(Ipv4Net::new_assert(bits.into(), len))),
        (any::<u128>(), 0..=128u8)
            .prop_map(|(bits, len)| IpNet::V6(Ipv6Net::new_assert(bits.into(), len))),
    ];
    prop_oneof![pairs, networks.prop_map(AddressRange::from), short_ranges(300)]
}

/// A range of at most `most` addresses.
fn short_ranges(most: u32) -> impl Strategy<Value = AddressRange> {
    (any::<bool>(), any::<u128>(), 0..most).prop_filter_map(
        "past the end",
        |(is_v4, bits, more)| {
            let (first, last) = if is_v4 {
                let first = u32::try_from(bits >> 96).ok()?;
                (Ipv4Addr::from(first).into(), Ipv4Addr::from(first.checked_add(more)?).into())
            } else {
                let last = bits.checked_add(more.into())?;
                (IpAddr::from(Ipv6Addr::from(bits)), Ipv6Addr::from(last).into())
            };
            AddressRange::new(first, last).ok()
        },
    )
}

/// Any plan of blocks for at most 300 sources, with and without outside addresses.
pub fn block_plans() -> impl Strategy<Value = BlockPlan> {
    let outside = prop::option::of(short_ranges(20));
    let size = prop_oneof![1..100u16, 1..=u16::MAX];
    (short_ranges(300), size, outside, port_sets()).prop_filter_map(
        "too few blocks",
        |(sources, size, outside, ports)| {
            let outside = outside.filter(|range| range.family() == sources.family());
            BlockPlan::new(sources, size, outside, ports).ok()
        },
    )
}

/// Any table of blocks.
pub fn block_tables() -> impl Strategy<Value = BlockTable> {
    let lines = prop::collection::vec((any::<u32>(), port_ranges()), 1..20);
    let explicit = lines.prop_filter_map("overlap", |lines| {
        // Each source has its own outside address, so no two blocks overlap.
        let block = |(i, (source, ports)): (u32, (u32, _))| Block {
            source: Ipv4Addr::from(source).into(),
            outside: Some(Ipv4Addr::from_bits(0xc633_6401 + i).into()),
            ports,
        };
        ExplicitBlocks::new((0..).zip(lines).map(block).collect()).ok()
    });
    prop_oneof![block_plans().prop_map(BlockTable::Plan), explicit.prop_map(BlockTable::Explicit)]
}
