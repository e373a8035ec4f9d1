//! The same packets through four routers with the same policy: as ephport applies it, as nft loads
//! what `show` prints, and in the syntax of `iptables-nft` and `iptables-legacy`. All are sent alike.

use std::net::{IpAddr, SocketAddr};

use ephport_core::strategies::{port_ranges, ports};
use ephport_core::{Port, PortRange, PortSet};
use ephport_tests::random::samples;
use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::{CLIENT_V4, Protocol, ROUTER_V4, Routed, SERVER_V4, Server, ephport_ok, seen};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

const PORT: u16 = 443;
const POLICIES: usize = 40;
const FLOWS: usize = 6;
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// A policy that all four express; iptables only with one range.
#[derive(Clone, Debug)]
struct Policy {
    protocols: Vec<Protocol>,
    source: Option<IpNet>,
    sport: PortRange,
    to: PortSet,
    is_random: bool,
    address: Option<IpAddr>,
}

fn policies() -> impl Strategy<Value = Policy> {
    let both = vec![Protocol::Tcp, Protocol::Udp];
    let protocols = select(vec![both[..1].to_vec(), both[1..].to_vec(), both.clone(), both]);
    let nets = ["10.77.1.0/24", "10.77.1.2/32", "203.0.113.0/24", "10.99.0.0/16"];
    let source = option::weighted(0.4, select(nets.map(|net| net.parse().unwrap()).to_vec()));
    let wide = "1024-65535".parse::<PortRange>().unwrap();
    let sport = prop_oneof![Just(wide), port_ranges()];
    let to = prop_oneof![
        3 => port_ranges().prop_map(PortSet::from),
        1 => vec(port_ranges(), 2..4).prop_map(|ranges| ranges.into_iter().collect()),
    ];
    let address = option::weighted(0.3, Just("203.0.113.7".parse().unwrap()));
    (protocols, source, sport, to, prop::bool::weighted(0.3), address).prop_map(
        |(protocols, source, sport, to, is_random, address)| Policy {
            protocols,
            source,
            sport,
            to,
            is_random,
            address,
        },
    )
}

impl Policy {
    fn protocol_names(&self) -> Vec<String> {
        self.protocols.iter().map(|protocol| protocol.to_string().to_lowercase()).collect()
    }

    /// For `apply` and `show`.
    fn flags(&self) -> String {
        let Self { sport, to, .. } = self;
        let protocols = self.protocol_names().join(",");
        let source = self.source.map(|net| format!("-s {net}")).unwrap_or_default();
        let random = if self.is_random { "--random" } else { "" };
        let address = self.address.map(|to| format!("--address {to}")).unwrap_or_default();
        format!(
            "-p {protocols} --ipv4 -o wan0 {source} --sport {sport} --to-ports {to} {random} \
             {address} --pick-up any"
        )
    }

    /// One rule for each protocol.
    fn iptables(&self) -> Vec<String> {
        let [to] = self.to.ranges() else { return Vec::new() };
        let (first, last) = (self.sport.first(), self.sport.last());
        let source = self.source.map(|net| format!("-s {net}")).unwrap_or_default();
        let target = self.address.map_or_else(
            || format!("MASQUERADE --to-ports {to}"),
            |address| format!("SNAT --to-source {address}:{to}"),
        );
        let random = if self.is_random { "--random" } else { "" };
        let rule = |protocol: &String| {
            format!(
                "-t nat -A POSTROUTING -o wan0 {source} -p {protocol} -m {protocol} \
                 --sport {first}:{last} -j {target} {random}"
            )
        };
        self.protocol_names().iter().map(rule).collect()
    }

    fn translates(&self, protocol: Protocol, from: SocketAddr) -> bool {
        self.protocols.contains(&protocol)
            && self.source.is_none_or(|net| net.contains(&from.ip()))
            && (self.sport.first().get()..=self.sport.last().get()).contains(&from.port())
    }

    /// The one source that a connection must be sent with; none where several are right.
    fn only(&self, protocol: Protocol, from: SocketAddr) -> Option<SocketAddr> {
        if !self.translates(protocol, from) {
            return Some(from);
        }
        let is_kept = !self.is_random && self.to.contains(Port::new(from.port()).unwrap());
        let only = match self.to.ranges() {
            [range] if range.first() == range.last() => range.first().get(),
            [_] if is_kept => from.port(),
            _ => return None,
        };
        Some(SocketAddr::new(self.leaving_address(), only))
    }

    /// Whether a translated connection may be sent with this source.
    fn allows(&self, left: SocketAddr) -> bool {
        left.ip() == self.leaving_address() && self.to.contains(Port::new(left.port()).unwrap())
    }

    fn leaving_address(&self) -> IpAddr {
        self.address.unwrap_or(ROUTER_V4)
    }
}

/// One lab for each judge.
struct Judge {
    name: &'static str,
    net: Routed,
    _server: Server,
}

impl Judge {
    fn new(name: &'static str) -> Self {
        let net = Routed::new().unwrap();
        net.router.address("wan0", "203.0.113.7/24").unwrap();
        let server = Server::start(&net.server, PORT).unwrap();
        Self { name, net, _server: server }
    }

    /// Replaces the policy; whether the judge can express it.
    fn install(&self, policy: &Policy) -> bool {
        let router = &self.net.router;
        match self.name {
            "ephport" => {
                ephport_ok(router, &format!("apply {}", policy.flags()));
            }
            "nft" => {
                let shown = ephport_ok(router, &format!("show {}", policy.flags()));
                nft_load(router, &format!("flush ruleset\n{shown}"));
            }
            program => {
                ok(router, &format!("{program} -t nat -F POSTROUTING"));
                for rule in policy.iptables() {
                    ok(router, &format!("{program} {rule}"));
                }
                return !policy.iptables().is_empty();
            }
        }
        true
    }

    /// The source that a connection is sent with.
    fn seen(&self, protocol: Protocol, from: SocketAddr) -> SocketAddr {
        // An earlier connection's port must not collide with this one's.
        assert!(tool(&self.net.router, "conntrack", &["-F"], "").success);
        let host = if from.ip() == CLIENT_V4 { &self.net.client } else { &self.net.router };
        seen(host, protocol, from, SocketAddr::new(SERVER_V4, PORT))
    }
}

#[test]
fn nft_and_both_iptables_send_the_same() {
    let judges = ["ephport", "nft", "iptables-nft", "iptables-legacy"].map(Judge::new);
    let mut drawn = samples(&ports(), POLICIES * FLOWS).into_iter();
    // How many flows have one right source, and several; by the number of judges.
    let mut counts = [[0; 2]; 5];
    for policy in samples(&policies(), POLICIES) {
        let able: Vec<_> = judges.iter().filter(|judge| judge.install(&policy)).collect();
        let to = policy.to.ranges()[0];
        let ends = [to.first(), to.last(), policy.sport.first(), policy.sport.last()];
        let from =
            drawn.by_ref().take(FLOWS).chain(ends).zip([CLIENT_V4, ROUTER_V4].iter().cycle());
        for ((port, address), protocol) in from.flat_map(|from| PROTOCOLS.map(|p| (from, p))) {
            let from = SocketAddr::new(*address, port.get());
            let only = policy.only(protocol, from);
            for judge in &able {
                let left = judge.seen(protocol, from);
                let is_right = only.map_or_else(|| policy.allows(left), |only| only == left);
                let name = judge.name;
                assert!(is_right, "{name}: {protocol} {from} left by {left}: {policy:?}");
            }
            counts[able.len()][usize::from(only.is_none())] += 1;
        }
    }
    let [_, _, two, _, four] = counts;
    println!("with one right source and with several: two judges {two:?}, four judges {four:?}");
    assert!(two.iter().chain(&four).all(|count| *count > 20), "{counts:?}");
}
