//! The reference semantics against the kernel: random policies, random connections, real packets.

use std::net::SocketAddr;

use ephport_core::strategies::{choices, port_ranges, ports, protocols};
use ephport_core::{
    Decision, Egress, Families, Flow, HostFacts, PickUp, Policy, PolicySpec, Port, PortRange,
    Protocols, Scope, Target,
};
use ephport_nft::compile;
use ephport_tests::random::samples;
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, Protocol, ROUTER_V4, ROUTER_V6, Routed, Server, apply, connect,
    of_family, ways,
};
use proptest::prelude::*;

const PORT: u16 = 443;
const POLICIES: usize = 40;
const FLOWS: usize = 25;

/// Policies whose scope meets or misses the lab's only way out.
fn policies() -> impl Strategy<Value = Policy> {
    let egress = ["any", "any", "wan0", "w*", "eth9,wan*", "lan0,lo"];
    let egress = prop::sample::select(egress.to_vec())
        .prop_map(|text| text.parse::<Egress>().expect("an egress"));
    let both = Families::Both;
    let families = prop::sample::select(vec![both, both, both, Families::Ipv4, Families::Ipv6]);
    let pick_up = prop::sample::select(vec![PickUp::Opening, PickUp::Any]);
    let from = prop_oneof![2 => Just(PortRange::EPHEMERAL), 1 => port_ranges()];
    let protocols = prop_oneof![2 => Just(Protocols::DEFAULT), 1 => protocols()];
    let scope = (egress, families, protocols);
    (scope, from, port_ranges(), choices(), pick_up).prop_map(
        |(scope, from, to, choice, pick_up)| {
            let (egress, families, protocols) = scope;
            Policy::new(PolicySpec {
                scope: Scope { egress, families, protocols, ..Scope::default() },
                source_ports: from.into(),
                choice,
                pick_up,
                ..PolicySpec::to(Target::Ports(to.into()))
            })
            .expect("parts that fit")
        },
    )
}

/// A connection of the lab: over which way, forwarded or local, from which port; half of them from
/// the ends of the policy's ranges.
fn connections() -> impl Strategy<Value = (usize, bool, Port, u8)> {
    (0..4usize, any::<bool>(), ports(), 0..8u8)
}

fn source_port(policy: &Policy, drawn: Port, how: u8) -> Port {
    let Target::Ports(to) = &policy.target else { unreachable!("only ports are drawn") };
    let (from, to) = (policy.source_ports.ranges()[0], to.ranges()[0]);
    match how {
        0 => from.first(),
        1 => from.last(),
        2 => to.first(),
        3 => to.last(),
        _ => drawn,
    }
}

fn core_protocol(protocol: Protocol) -> ephport_core::Protocol {
    match protocol {
        Protocol::Tcp => ephport_core::Protocol::Tcp,
        Protocol::Udp => ephport_core::Protocol::Udp,
    }
}

#[test]
fn a_thousand_random_connections() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let drawn = samples(&connections(), POLICIES * FLOWS);
    let (mut moved, mut kept, mut untouched) = (0, 0, 0);
    for (policy, drawn) in samples(&policies(), POLICIES).iter().zip(drawn.chunks(FLOWS)) {
        let resolved = policy.resolve(&HostFacts::default()).unwrap();
        apply(&net.router, &compile(std::slice::from_ref(&resolved)).unwrap());
        for (way, forwarded, port, how) in drawn {
            let (protocol, server) = ways()[*way];
            let port = source_port(policy, *port, *how);
            let host: &Host = if *forwarded { &net.client } else { &net.router };
            let router = of_family(server, ROUTER_V4, ROUTER_V6);
            let source = if *forwarded { of_family(server, CLIENT_V4, CLIENT_V6) } else { router };
            let source = SocketAddr::new(source, port.get());
            let to = SocketAddr::new(server, PORT);
            let flow =
                Flow::new(core_protocol(protocol), source, to, "wan0".parse().unwrap()).unwrap();
            // An earlier connection's port must not stand in the way of this one's.
            forget(&net.router);
            let seen = host.run(|| connect(protocol, port.get(), to)).expect("a connection").seen;
            match resolved.decide(&flow) {
                Decision::Moved { ports, kept: own, .. } => {
                    let seen_port = Port::new(seen.port()).unwrap();
                    assert!(ports.contains(seen_port), "{flow} {policy:?}: {seen}");
                    assert!(own.is_none_or(|own| own == seen_port), "{flow} {policy:?}: {seen}");
                    assert_eq!(seen.ip(), router);
                    moved += 1;
                    kept += u32::from(own.is_some());
                }
                Decision::Untouched(_) => {
                    assert_eq!(seen, source, "{flow} {policy:?}");
                    untouched += 1;
                }
            }
        }
    }
    assert!(moved > 100 && kept > 10 && untouched > 100, "{moved} {kept} {untouched}");
}

/// Forgets all connections.
fn forget(router: &Host) {
    // It says on standard error how many.
    let printed = ephport_tests::tool::tool(router, "conntrack", &["-F"], "");
    assert!(printed.success, "{printed:?}");
}
