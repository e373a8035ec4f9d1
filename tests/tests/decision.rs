//! Reference semantics, interpreter and kernel agree: random documents, random connections, real
//! packets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ephport_core::decision::{CtState, evaluate, permits};
use ephport_core::strategies::{port_ranges, port_sets, ports, protocols, selections};
use ephport_core::{
    Address, BlockTable, Document, Families, Flow, HostFacts, Origin, OutInterfaces, PickUp,
    Policy, PolicyName, PolicySpec, Port, PortRange, PortSet, Protocols, ResolvedPolicy, Scope,
    Target, Translation,
};
use ephport_nft::interpret::effect;
use ephport_nft::{TableState, compile};
use ephport_tests::random::samples;
use ephport_tests::tool::tool;
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, Protocol, ROUTER_V4, ROUTER_V6, Routed, Server, apply,
    connect_within, of_family, protocols_and_servers,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PORT: u16 = 443;
const DOCUMENTS: usize = 100;
const FLOWS: usize = 20;

/// How long an answer may take before the connection counts as dropped.
const TIMEOUT: Duration = Duration::from_millis(300);

fn nets() -> impl Strategy<Value = Vec<ipnet::IpNet>> {
    let nets = [
        "10.77.1.0/24",
        "10.77.1.2/32",
        "10.77.0.0/15",
        "203.0.113.0/24",
        "198.51.100.0/24",
        "2001:db8:1::/64",
        "2001:db8:2::/64",
        "2001:db8::/33",
    ];
    let some = vec(prop::sample::select(nets.to_vec()), 1..4)
        .prop_map(|nets| nets.iter().map(|net| net.parse().expect("a network")).collect());
    prop_oneof![3 => Just(Vec::new()), 1 => some]
}

/// Scopes that meet or miss the lab's only way out.
fn scopes() -> impl Strategy<Value = Scope> {
    let out_interfaces = ["any", "any", "wan0", "w*", "eth9,wan*", "lan0,eth9"];
    let out_interfaces = prop::sample::select(out_interfaces.to_vec())
        .prop_map(|text| text.parse::<OutInterfaces>().expect("an out_interfaces"));
    let both = Families::Both;
    let families = prop::sample::select(vec![both, both, both, Families::Ipv4, Families::Ipv6]);
    let protocols = prop_oneof![4 => Just(Protocols::DEFAULT), 1 => protocols()];
    let origins = [Origin::Both, Origin::Both, Origin::Local, Origin::Forwarded];
    let origin = prop::sample::select(origins.to_vec());
    (out_interfaces, families, protocols, nets(), nets(), origin).prop_map(
        |(out_interfaces, families, protocols, sources, except_destinations, origin)| {
            let mut scope = Scope::default();
            (scope.out_interfaces, scope.families) = (out_interfaces, families);
            (scope.protocols, scope.origin) = (Some(protocols), origin);
            (scope.sources, scope.except_destinations) = (sources, except_destinations);
            scope
        },
    )
}

fn targets() -> impl Strategy<Value = Target> {
    let blocks = [
        "10.77.1.0/29=64@1024-65535",
        "10.77.1.0/29=64@203.0.113.7:1024-65535",
        "2001:db8:1::/125=1000@49152-61000",
        "10.77.1.2 = 1024-2047\n2001:db8:2::1 = 5000-5063",
    ];
    let blocks = prop::sample::select(blocks.to_vec())
        .prop_map(|text| text.parse::<BlockTable>().expect("blocks").into());
    let ports = port_sets().prop_filter_map("empty", |set| (!set.is_empty()).then_some(set));
    prop_oneof![
        3 => port_ranges().prop_map(|range| Target::Ports(range.into())),
        3 => ports.prop_map(Target::Ports),
        2 => blocks,
    ]
}

/// Addresses that the router has.
fn addresses() -> impl Strategy<Value = Address> {
    let fixed = |text: &str| Address::Fixed(text.parse().expect("an address"));
    let all = [
        Address::Masquerade,
        Address::Masquerade,
        Address::Keep,
        fixed("203.0.113.7"),
        fixed("2001:db8:2::7"),
    ];
    prop::sample::select(all.to_vec())
}

fn policies() -> impl Strategy<Value = Policy> {
    let from = prop_oneof![
        2 => Just(PortSet::from(PortRange::EPHEMERAL)),
        1 => port_ranges().prop_map(PortSet::from),
        1 => port_sets(),
    ];
    let exempt = prop_oneof![3 => Just(PortSet::EMPTY), 1 => port_ranges().prop_map(PortSet::from)];
    let pick_up = prop::sample::select(vec![PickUp::Opening, PickUp::Any]);
    let enforce = prop::sample::select(vec![false, false, true]);
    let rest = (selections(), addresses(), pick_up, enforce);
    (scopes(), from, exempt, targets(), rest).prop_filter_map(
        "parts that do not fit",
        |(scope, source_ports, exempt, target, ((flags, spread), address, pick_up, enforce))| {
            let mut spec = PolicySpec::to(target);
            (spec.scope, spec.source_ports, spec.exempt) = (scope, source_ports, exempt);
            (spec.flags, spec.spread, spec.address) = (flags, spread, address);
            (spec.pick_up, spec.enforce) = (pick_up, enforce);
            Policy::new(spec).ok()
        },
    )
}

fn documents() -> impl Strategy<Value = Document> {
    let documents = vec(policies(), 1..4).prop_map(|policies| {
        let name = |i: usize| format!("p{i}").parse::<PolicyName>().expect("a name");
        let named = policies.iter().enumerate().map(|(i, policy)| {
            let mut policy = policy.clone();
            policy.rename(name(i));
            policy
        });
        Document::new(named.collect()).expect("names of their own")
    });
    documents.prop_filter("virtual ranges that fit", |document| {
        document.resolve(&HostFacts::default()).is_ok()
    })
}

/// A connection of the lab: over which way, forwarded or local, from which port; half of them from
/// the ends of a policy's ranges.
#[derive(Clone, Debug)]
struct Drawn {
    way: usize,
    is_forwarded: bool,
    port: Port,
    end: Option<prop::sample::Index>,
}

fn connections() -> impl Strategy<Value = Drawn> {
    (0..4usize, any::<bool>(), ports(), any::<Option<prop::sample::Index>>())
        .prop_map(|(way, is_forwarded, port, end)| Drawn { way, is_forwarded, port, end })
}

fn source_port(policies: &[ResolvedPolicy], drawn: &Drawn) -> Port {
    let ranges = policies.iter().flat_map(|policy| {
        let allowed = policy.permitted.ports();
        allowed.ranges().iter().chain(policy.translated.ranges()).copied().collect::<Vec<_>>()
    });
    let ends: Vec<_> = ranges.flat_map(|range| [range.first(), range.last()]).collect();
    drawn.end.as_ref().map_or(drawn.port, |end| *end.get(&ends))
}

/// Counts, to see that each case came up.
#[derive(Debug, Default)]
struct Seen {
    translated: u32,
    kept: u32,
    untouched: u32,
    dropped: u32,
}

fn core_protocol(protocol: Protocol) -> ephport_core::Protocol {
    match protocol {
        Protocol::Tcp => ephport_core::Protocol::Tcp,
        Protocol::Udp => ephport_core::Protocol::Udp,
    }
}

/// The address that a connection has in the end.
fn sent_address(translation: Option<&Translation>, source: IpAddr, router: IpAddr) -> IpAddr {
    match translation.map(|translation| translation.address) {
        Some(Address::Masquerade) => router,
        Some(Address::Fixed(fixed)) => fixed,
        _ => source,
    }
}

fn check(
    net: &Routed,
    (policies, ruleset): (&[ResolvedPolicy], &TableState),
    drawn: &Drawn,
    seen: &mut Seen,
) {
    let (protocol, server) = protocols_and_servers()[drawn.way];
    let port = source_port(policies, drawn);
    let host: &Host = if drawn.is_forwarded { &net.client } else { &net.router };
    let router = of_family(server, ROUTER_V4, ROUTER_V6);
    let source = if drawn.is_forwarded { of_family(server, CLIENT_V4, CLIENT_V6) } else { router };
    let (from, to) = (SocketAddr::new(source, port.get()), SocketAddr::new(server, PORT));
    let flow = Flow::new(core_protocol(protocol), from, to, "wan0".parse().unwrap()).unwrap();
    let flow =
        if drawn.is_forwarded { flow.with_in_interface("lan0".parse().unwrap()) } else { flow };

    let evaluation = evaluate(policies, &flow);
    let translation = evaluation.matched.as_ref().map(|matched| &matched.translation);
    let found = effect(ruleset, &flow).unwrap();
    assert_eq!(found, evaluation.effect(), "{flow}");
    let (possible, own): (PortSet, _) = match translation {
        Some(translation) => (translation.ports.clone(), translation.keep),
        None => (port.into(), Some(port)),
    };
    // An earlier connection's port must not collide with this one's.
    assert!(tool(&net.router, "conntrack", &["-F"], "").success);
    let result = host.run(|| connect_within(TIMEOUT, protocol, from, to));
    let Ok(connection) = result else {
        let drops = possible.ports().any(|port| !permits(policies, &flow, CtState::New, port));
        assert!(drops, "{flow} got no answer: {policies:#?}");
        seen.dropped += 1;
        return;
    };
    let left = Port::new(connection.seen.port()).unwrap();
    assert!(possible.contains(left), "{flow} left by {left}: {policies:#?}");
    assert!(own.is_none_or(|own| own == left), "{flow} left by {left}: {policies:#?}");
    assert!(permits(policies, &flow, CtState::New, left), "{flow} left by {left}: {policies:#?}");
    assert_eq!(connection.seen.ip(), sent_address(translation, source, router), "{flow}");
    match translation {
        Some(_) => seen.translated += 1,
        None => seen.untouched += 1,
    }
    seen.kept += u32::from(translation.is_some() && own.is_some());
}

#[test]
fn random_connections_match_the_reference_decision() {
    let net = Routed::new().unwrap();
    net.router.address("wan0", "203.0.113.7/24").unwrap();
    // The shorter prefix keeps it from being chosen for masquerade (RFC 6724 §5, rule 8).
    net.router.address("wan0", "2001:db8:2::7/60").unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let drawn = samples(&connections(), DOCUMENTS * FLOWS);
    let mut seen = Seen::default();
    for (document, drawn) in samples(&documents(), DOCUMENTS).iter().zip(drawn.chunks(FLOWS)) {
        let policies = document.resolve(&HostFacts::default()).unwrap();
        let ruleset = compile(&policies).unwrap();
        apply(&net.router, &ruleset);
        for drawn in drawn {
            check(&net, (&policies, &ruleset), drawn, &mut seen);
        }
    }
    let Seen { translated, kept, untouched, dropped } = seen;
    assert!(translated > 300 && kept > 50 && untouched > 300 && dropped > 50, "{seen:?}");
}
