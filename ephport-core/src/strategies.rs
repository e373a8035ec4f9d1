//! Proptest strategies for the model, for the property tests of this crate and of others
//! (feature `proptest`).

pub mod allocation;
pub mod import;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::flow::{Flow, Segment};
use crate::interface::{InterfaceName, InterfacePattern};
use crate::policy::{Choice, PickUp, Policy, PolicyName, PolicySpec, Target};
use crate::port::{Port, PortRange};
use crate::port_set::PortSet;
use crate::protocol::{Protocol, Protocols};
use crate::scope::{Egress, Families, Scope};

/// Any port; the ends of the privileged, the ephemeral and the whole range come often.
pub fn ports() -> impl Strategy<Value = Port> {
    let edges = prop::sample::select(vec![1u16, 2, 1023, 1024, 1025, 32768, 65534, 65535]);
    prop_oneof![1 => edges, 4 => 1..=u16::MAX].prop_filter_map("port 0", |n| Port::new(n).ok())
}

/// Any range; single ports and short ranges come often.
pub fn port_ranges() -> impl Strategy<Value = PortRange> {
    let between = |a: Port, b: Port| PortRange::new(a.min(b), a.max(b)).ok();
    let any = (ports(), ports()).prop_filter_map("never", move |(a, b)| between(a, b));
    let short = (ports(), 0..64u16).prop_filter_map("never", |(first, more)| {
        let last = Port::new(first.get().saturating_add(more)).ok()?;
        PortRange::new(first, last).ok()
    });
    prop_oneof![any, short]
}

/// Any set, the empty one included, of up to a dozen ranges.
pub fn port_sets() -> impl Strategy<Value = PortSet> {
    vec(port_ranges(), 0..12).prop_map(PortSet::from_iter)
}

/// One of the four protocols.
pub fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(Protocol::ALL.to_vec())
}

/// Any set of protocols that is not empty.
pub fn protocols() -> impl Strategy<Value = Protocols> {
    prop::sample::subsequence(Protocol::ALL.to_vec(), 1..=4).prop_map(Protocols::from_iter)
}

/// One of a few interface names, so that policies and flows meet; loopback is among them.
pub fn interface_names() -> impl Strategy<Value = InterfaceName> {
    prop::sample::select(vec!["eth0", "eth1", "wg0", "wg-home", "lo", "a"])
        .prop_filter_map("never", |name| name.parse().ok())
}

/// One of a few patterns over [`interface_names`].
pub fn interface_patterns() -> impl Strategy<Value = InterfacePattern> {
    prop::sample::select(vec!["eth0", "eth1", "wg0", "wg*", "e*", "absent0"])
        .prop_filter_map("never", |pattern| pattern.parse().ok())
}

/// Any egress but the uplinks, which need facts of a host.
pub fn egress() -> impl Strategy<Value = Egress> {
    let interfaces = vec(interface_patterns(), 1..4).prop_map(|mut patterns| {
        patterns.sort();
        patterns.dedup();
        Egress::Interfaces(patterns)
    });
    prop_oneof![1 => Just(Egress::Any), 2 => interfaces]
}

/// Any choice of NAT flags.
pub fn choices() -> impl Strategy<Value = Choice> {
    any::<(bool, bool, bool)>().prop_map(|(random, fully_random, persistent)| Choice {
        random,
        fully_random,
        persistent,
    })
}

/// Any scope that does not depend on the host.
pub fn scopes() -> impl Strategy<Value = Scope> {
    let families = prop::sample::select(vec![Families::Both, Families::Ipv4, Families::Ipv6]);
    (egress(), families, protocols()).prop_map(|(egress, families, protocols)| Scope {
        egress,
        families,
        protocols,
    })
}

/// Any policy that does not depend on the host.
pub fn policies() -> impl Strategy<Value = Policy> {
    let pick_up = prop::sample::select(vec![PickUp::Opening, PickUp::Any]);
    (scopes(), port_ranges(), port_ranges(), choices(), pick_up).prop_filter_map(
        "never",
        |(scope, from, to, choice, pick_up)| {
            Policy::new(PolicySpec {
                name: PolicyName::default(),
                scope,
                source_ports: from.into(),
                target: Target::Range(to),
                choice,
                pick_up,
            })
            .ok()
        },
    )
}

/// Any opening packet between documentation addresses (RFC 5737, RFC 3849), groups and broadcast.
pub fn flows() -> impl Strategy<Value = Flow> {
    let v4 = prop::sample::select(vec![
        (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(203, 0, 113, 9)),
        (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(198, 51, 100, 9)),
        (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(224, 0, 0, 251)),
        (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::BROADCAST),
    ])
    .prop_map(|(a, b)| (IpAddr::V4(a), IpAddr::V4(b)));
    let v6 = prop::sample::select(vec![
        (
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 9),
        ),
        (
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
        ),
    ])
    .prop_map(|(a, b)| (IpAddr::V6(a), IpAddr::V6(b)));
    let segment = prop_oneof![3 => Just(Segment::Opening), 1 => Just(Segment::MidStream)];
    (protocol(), prop_oneof![v4, v6], ports(), ports(), interface_names(), segment).prop_filter_map(
        "never",
        |(protocol, (from, to), sport, dport, out, segment)| {
            let source = SocketAddr::new(from, sport.get());
            let destination = SocketAddr::new(to, dport.get());
            Flow::new(protocol, source, destination, out)
                .ok()
                .map(|flow| flow.with_segment(segment))
        },
    )
}
