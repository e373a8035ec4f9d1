//! Strategies for what is imported.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::import::nacl::{Action, Entry, NetworkAcl, Traffic};
use crate::strategies::port_ranges;

/// An ACL of a few entries in and around `10.0.0.8/29` and `2001:db8::8/125`; half of them let in at
/// the end what is not denied before.
pub fn network_acls() -> impl Strategy<Value = NetworkAcl> {
    (vec(entries(), 0..6), any::<bool>()).prop_map(|(mut entries, lets_in)| {
        let all =
            |remote| Entry { number: 32_766, remote, traffic: Traffic::All, action: Action::Allow };
        if lets_in {
            entries.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].map(all));
        }
        NetworkAcl::new("acl-1", entries)
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let action = prop::sample::select(vec![Action::Allow, Action::Deny]);
    (1..32_766u32, networks(), traffic(), action)
        .prop_map(|(number, remote, traffic, action)| Entry { number, remote, traffic, action })
}

fn networks() -> impl Strategy<Value = IpNet> {
    // Wide networks come as often as narrow ones, so that some ports are open to all.
    let host_bits = prop_oneof![1 => Just(32u8), 3 => 0..=3u8];
    (any::<bool>(), 6..18u8, host_bits).prop_map(|(is_v4, last, host_bits)| {
        if is_v4 {
            Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, last), 32 - host_bits).trunc().into()
        } else {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into());
            Ipv6Net::new_assert(address, 128 - host_bits).trunc().into()
        }
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let number = prop::sample::select(vec![1u8, 6, 6, 6, 17, 17]);
    let of_ports = (number, port_ranges())
        .prop_map(|(number, range)| Traffic::Protocol { number, ports: range.into() });
    prop_oneof![3 => Just(Traffic::All), 6 => of_ports, 1 => Just(Traffic::Unknown("x".into()))]
}
