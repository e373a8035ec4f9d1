//! Proptest strategies for the model, for the property tests of this crate and of others
//! (feature `proptest`).

pub mod allocation;
pub mod import;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::allocation::block_table::BlockTable;
use crate::allocation::map_e::MapE;
use crate::flow::{Flow, SourceType, TcpOpening};
use crate::host::HostFacts;
use crate::net::family::Families;
use crate::net::interface::{InterfaceName, InterfacePattern, InterfacePatterns};
use crate::net::mark::Mark;
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, Protocols};
use crate::policy::file::Document;
use crate::policy::scope::{Ipsec, Origin, OutInterfaces, Scope};
use crate::policy::selection::{Distribution, NatFlags};
use crate::policy::{
    Address, ExpectedConnections, OpenConnections, PickUp, Policy, PolicyName, PolicySpec, Target,
    Timeouts,
};

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

/// Two to five ranges of equal size, none of them next to another.
pub fn equal_ranges() -> impl Strategy<Value = PortSet> {
    (1..=1000u16, 2..=5u16, 1..=60_000u16).prop_filter_map(
        "past the end",
        |(size, count, first)| {
            let range = |i: u16| {
                let first = first.checked_add(i.checked_mul(size.checked_add(7)?)?)?;
                PortRange::new(
                    Port::new(first).ok()?,
                    Port::new(first.checked_add(size - 1)?).ok()?,
                )
                .ok()
            };
            (0..count).map(range).collect()
        },
    )
}

/// One of the protocols.
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

/// Any out_interfaces but the uplinks, which need facts of a host.
pub fn out_interfaces() -> impl Strategy<Value = OutInterfaces> {
    let interfaces = vec(interface_patterns(), 1..4).prop_filter_map("never", |patterns| {
        InterfacePatterns::new(patterns).map(OutInterfaces::Matching).ok()
    });
    prop_oneof![1 => Just(OutInterfaces::Any), 2 => interfaces]
}

/// Any flags of the kernel's NAT, and any distribution.
pub fn selections() -> impl Strategy<Value = (NatFlags, Option<Distribution>)> {
    let spread = prop::option::of(prop::sample::select(&Distribution::ALL[..]));
    (any::<(bool, bool, bool)>(), spread).prop_map(
        |((random, fully_random, persistent), spread)| {
            (NatFlags { random, fully_random, persistent }, spread)
        },
    )
}

/// One of a few networks around the addresses of [`flows`].
fn networks() -> impl Strategy<Value = IpNet> {
    prop::sample::select(vec![
        "192.0.2.0/24",
        "192.0.2.1/32",
        "192.0.2.2/31", // with the one before, a range that is no network
        "198.51.100.0/25",
        "203.0.113.9/32",
        "2001:db8::/48",
        "2001:db8::1/128",
        "2001:db8:1:1::/64",
        "0.0.0.0/0",
    ])
    .prop_filter_map("never", |net| net.parse().ok())
}

/// Up to three networks, mostly none.
fn network_lists() -> impl Strategy<Value = Vec<IpNet>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(networks(), 1..4)]
}

/// Any scope that does not depend on the host, without conditions on destinations, destination
/// ports, input interfaces, excepted interfaces and marks.
pub fn scopes() -> impl Strategy<Value = Scope> {
    let families = prop::sample::select(vec![Families::Both, Families::Ipv4, Families::Ipv6]);
    let origin = prop::sample::select(vec![Origin::Both, Origin::Local, Origin::Forwarded]);
    (
        out_interfaces(),
        families,
        prop::option::weighted(0.8, protocols()),
        network_lists(),
        network_lists(),
        origin,
    )
        .prop_map(
            |(out_interfaces, families, protocols, sources, except_destinations, origin)| Scope {
                out_interfaces,
                families,
                protocols,
                sources,
                except_destinations,
                origin,
                ..Scope::default()
            },
        )
}

/// Any scope that does not depend on the host.
pub fn wide_scopes() -> impl Strategy<Value = Scope> {
    let ports = prop_oneof![
        3 => Just(PortSet::from(PortRange::ALL)),
        2 => port_ranges().prop_map(PortSet::from),
        1 => vec(port_ranges(), 1..5).prop_map(PortSet::from_iter),
    ];
    let ipsec = prop::sample::select(Ipsec::ALL.to_vec());
    let mark = prop::option::of(marks());
    let rest = (interface_lists(), interface_lists(), network_lists(), ports, mark, ipsec);
    (scopes(), rest).prop_map(|(scope, rest)| {
        let (except_interfaces, in_interfaces, destinations, mut destination_ports, mark, ipsec) =
            rest;
        // ICMP has no ports.
        if scope.protocols.is_some_and(|some| !some.iter().all(Protocol::has_ports)) {
            destination_ports = PortRange::ALL.into();
        }
        Scope {
            except_interfaces,
            in_interfaces,
            destinations,
            destination_ports,
            mark,
            ipsec,
            ..scope
        }
    })
}

/// Up to two patterns, mostly none.
fn interface_lists() -> impl Strategy<Value = Vec<InterfacePattern>> {
    prop_oneof![3 => Just(Vec::new()), 1 => vec(interface_patterns(), 1..3)]
}

/// Any mark; those that [`wide_flows`] have come often.
pub fn marks() -> impl Strategy<Value = Mark> {
    let few = prop::sample::select(vec!["0x1", "0x1/0x1", "0/0xff", "0x100/0xff00"])
        .prop_filter_map("never", |text| text.parse().ok());
    let any = (any::<u32>(), any::<u32>())
        .prop_filter_map("mask 0", |(value, mask)| Mark::new(value & mask, mask).ok());
    prop_oneof![3 => few, 1 => any]
}

/// Any target that does not depend on the host; block tables have blocks for sources of [`flows`].
pub fn targets() -> impl Strategy<Value = Target> {
    let blocks = prop::sample::select(vec![
        "192.0.2.0/30=64@1024-65535",
        "192.0.2.0/30=64@203.0.113.1:1024-65535",
        "2001:db8::/126=1000@49152-61000",
        "192.0.2.1 = 1024-2047\n2001:db8::2 = 5000-5063",
    ])
    .prop_filter_map("never", |text| text.parse::<BlockTable>().ok().map(Target::from));
    // At most 15 ranges: a program has a chain for each.
    let map_es = prop::sample::select(vec![
        "psid=52,psid-len=8,offset=0",
        "psid=1,psid-len=4,offset=2",
        "psid=52,psid-len=8,offset=4",
    ])
    .prop_filter_map("never", |text| text.parse::<MapE>().ok().map(Target::from));
    prop_oneof![
        3 => port_ranges().prop_map(|range| Target::Ports(range.into())),
        3 => port_sets().prop_map(Target::Ports),
        1 => equal_ranges().prop_map(Target::Ports),
        1 => map_es,
        1 => blocks,
    ]
}

/// Any address.
pub fn addresses() -> impl Strategy<Value = Address> {
    prop_oneof![
        2 => Just(Address::Auto),
        2 => Just(Address::Masquerade),
        1 => Just(Address::Keep),
        1 => Just(Address::Fixed(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)))),
        1 => Just(Address::Fixed(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1)))),
    ]
}

/// Any policy with one of [`scopes`].
pub fn policies() -> impl Strategy<Value = Policy> {
    policies_with(scopes())
}

/// Any policy that does not depend on the host.
pub fn wide_policies() -> impl Strategy<Value = Policy> {
    specs().prop_filter_map("parts that do not fit", |spec| Policy::new(spec).ok())
}

/// Any parts of a policy that do not depend on the host; some do not fit together.
pub fn specs() -> impl Strategy<Value = PolicySpec> {
    let open = prop::sample::select(OpenConnections::ALL.to_vec());
    let expected = prop::sample::select(ExpectedConnections::ALL.to_vec());
    (specs_with(wide_scopes()), open, expected, timeouts()).prop_map(
        |(spec, open_connections, expected_connections, timeouts)| PolicySpec {
            timeouts,
            open_connections,
            expected_connections,
            ..spec
        },
    )
}

/// Any timeouts, mostly the default; for single ports those that [`ports`] has often.
pub fn timeouts() -> impl Strategy<Value = Option<Timeouts>> {
    let timers = [
        "udp-unreplied",
        "udp-replied",
        "tcp-syn-sent",
        "tcp-time-wait",
        "tcp-close",
        "udp-1-unreplied",
        "udp-2-replied",
        "udp-1024-unreplied",
        "udp-65535-replied",
    ];
    let timers = prop::sample::subsequence(timers.to_vec(), 0..=5);
    let some = (timers, 1..=Timeouts::MAX_SECONDS).prop_filter_map("never", |(timers, seconds)| {
        let timers = timers.iter().zip(0u32..);
        let each = timers.map(|(timer, at)| {
            Some((timer.parse().ok()?, (seconds + at / 2).min(Timeouts::MAX_SECONDS)))
        });
        Timeouts::new(each.collect::<Option<Vec<_>>>()?).ok()
    });
    prop::option::weighted(0.4, some)
}

fn policies_with(scopes: impl Strategy<Value = Scope>) -> impl Strategy<Value = Policy> {
    specs_with(scopes).prop_filter_map("parts that do not fit", |spec| Policy::new(spec).ok())
}

fn specs_with(scopes: impl Strategy<Value = Scope>) -> impl Strategy<Value = PolicySpec> {
    let source_ports = prop_oneof![
        3 => Just(PortSet::from(PortRange::EPHEMERAL)),
        3 => port_ranges().prop_map(PortSet::from),
        1 => port_sets(),
    ];
    let exempt = prop_oneof![3 => Just(PortSet::EMPTY), 1 => port_sets()];
    let except = prop_oneof![3 => Just(PortSet::EMPTY), 1 => port_ranges().prop_map(PortSet::from)];
    let pick_up = prop::sample::select(vec![PickUp::Opening, PickUp::Any]);
    let ports = (source_ports, exempt, targets(), except);
    let rest = (selections(), addresses(), pick_up, any::<bool>(), any::<bool>());
    (scopes, ports, rest).prop_map(|(scope, ports, rest)| {
        let (source_ports, exempt, target, except_ports) = ports;
        let ((flags, spread), address, pick_up, enforce, stable) = rest;
        let spec = PolicySpec {
            name: PolicyName::default(),
            scope,
            source_ports,
            exempt,
            target,
            except_ports,
            flags,
            spread,
            per_source_stable: stable && matches!(spread, None | Some(Distribution::Hash)),
            address,
            pick_up,
            timeouts: None,
            enforce,
            open_connections: OpenConnections::Keep,
            expected_connections: ExpectedConnections::Pass,
        };
        if spec.remaps() { remappable(spec) } else { spec }
    })
}

/// The same policy without what excludes [`Distribution::Remap`], mostly, with so few ports that all can be
/// tried.
pub fn remappable(spec: PolicySpec) -> PolicySpec {
    let few = |range: &PortRange| {
        let last = range.first().get().saturating_add(19).min(range.last().get());
        PortRange::new(range.first(), Port::new(last).ok()?).ok()
    };
    let target = match spec.target {
        Target::Ports(ports) => Target::Ports(ports.ranges().iter().filter_map(few).collect()),
        target => target,
    };
    let address = match spec.address {
        Address::Auto | Address::Keep => Address::Masquerade,
        address => address,
    };
    let (sources, in_interfaces, mark) = (Vec::new(), Vec::new(), None);
    let scope = Scope { sources, in_interfaces, mark, origin: Origin::Both, ..spec.scope };
    let source_ports = PortRange::ALL.into();
    let (exempt, except_ports) = (PortSet::EMPTY, PortSet::EMPTY);
    PolicySpec { scope, source_ports, exempt, target, except_ports, address, ..spec }
}

/// Any document of up to four of [`policies`].
pub fn documents() -> impl Strategy<Value = Document> {
    documents_of(policies())
}

/// Any document of up to four of [`wide_policies`].
pub fn wide_documents() -> impl Strategy<Value = Document> {
    documents_of(wide_policies())
}

fn documents_of(policies: impl Strategy<Value = Policy>) -> impl Strategy<Value = Document> {
    vec(policies, 1..5).prop_filter_map("never", |policies| {
        let named = policies.iter().zip('a'..).map(|(policy, letter)| {
            let name = format!("policy-{letter}").parse().ok()?;
            Policy::new(PolicySpec { name, ..policy.spec().clone() }).ok()
        });
        let document = Document::new(named.collect::<Option<_>>()?).ok()?;
        // Policies that remap exclude others with the same ports.
        document.resolve(&HostFacts::default()).ok().map(|_| document)
    })
}

/// Any opening packet between documentation addresses (RFC 5737, RFC 3849), groups and broadcast.
pub fn flows() -> impl Strategy<Value = Flow> {
    let pairs = prop::sample::select(vec![
        ("192.0.2.1", "203.0.113.9"),
        ("192.0.2.2", "198.51.100.9"),
        ("192.0.2.200", "198.51.100.200"),
        ("192.0.2.2", "224.0.0.251"),
        ("192.0.2.2", "255.255.255.255"),
        ("2001:db8::1", "2001:db8:0:1::9"),
        ("2001:db8::2", "2001:db8:1:1::9"),
        ("2001:db8::2", "ff02::fb"),
    ]);
    let ends = (pairs, ports(), ports()).prop_filter_map("never", |((from, to), sport, dport)| {
        let source = SocketAddr::new(from.parse().ok()?, sport.get());
        Some((source, SocketAddr::new(to.parse().ok()?, dport.get())))
    });
    let came_in = prop::option::of(interface_names());
    let segment = prop_oneof![3 => Just(TcpOpening::Opening), 1 => Just(TcpOpening::MidStream)];
    (protocol(), ends, interface_names(), came_in, segment).prop_filter_map(
        "never",
        |(protocol, (source, destination), out, came_in, segment)| {
            let flow = Flow::new(protocol, source, destination, out).ok()?.with_opening(segment);
            Some(match came_in {
                Some(name) => flow.with_in_interface(name),
                None => flow,
            })
        },
    )
}

/// Any of [`flows`], with marks, and with packets that IPsec will protect.
pub fn wide_flows() -> impl Strategy<Value = Flow> {
    let mark = prop::sample::select(vec![0, 0, 1, 0x101, 0xffff_ffff]);
    let own = SourceType::OutInterface;
    let source_type = [own, own, own, SourceType::OtherInterface, SourceType::NotLocal];
    let source_type = prop::sample::select(source_type.to_vec());
    let rest = (mark, prop::bool::weighted(0.2), source_type);
    (flows(), rest).prop_map(|(flow, (mark, is_ipsec, source_type))| {
        let flow = flow.with_mark(mark).with_source_type(source_type);
        if is_ipsec { flow.with_ipsec() } else { flow }
    })
}
