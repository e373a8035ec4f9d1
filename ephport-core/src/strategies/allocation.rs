//! Strategies for shared addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use crate::allocation::map_e::{BasicMappingRule, MapE};
use crate::allocation::psid::PsidRule;

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
