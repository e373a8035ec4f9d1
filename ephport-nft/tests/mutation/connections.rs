//! Connections aimed at one program: at the ends of all that it distinguishes.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ephport_core::{
    Allowed, Exits, Flow, InterfaceName, InterfacePattern, Port, PortSet, Protocol, Resolved,
    Segment,
};
use ephport_nft::Ruleset;
use ephport_nft::compile::ENFORCE;
use ephport_nft::expr::Expr;
use ephport_nft::interpret::{self, Outcome, Standing};
use ipnet::IpNet;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::common::{Meant, is_sound, let_out, program_lets_out};
use crate::mutants::{Mutant, Site};

/// Connections of no rule in particular, for each program.
const ANY: usize = 150;
/// IPv4, which alone has broadcasts.
const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const DESTINATION_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));

/// Connections in the scope of each policy.
const IN_SCOPE: usize = 60;

/// One connection, dimension by dimension.
#[derive(Clone, Debug)]
struct Point {
    out: InterfaceName,
    is_forwarded: bool,
    source: IpAddr,
    destination: IpAddr,
    is_broadcast: bool,
    protocol: Protocol,
    segment: Segment,
    sport: Port,
    dport: Port,
    leaving: Port,
    standing: Standing,
}

impl Point {
    fn flow(&self) -> Option<Flow> {
        let from = SocketAddr::new(self.source, self.sport.get());
        let to = SocketAddr::new(self.destination, self.dport.get());
        let flow = Flow::new(self.protocol, from, to, self.out.clone()).ok()?;
        let flow = flow.with_segment(self.segment);
        let flow = if self.is_broadcast { flow.with_broadcast() } else { flow };
        Some(if self.is_forwarded { flow.with_in_interface(name("eth0")) } else { flow })
    }
}

/// A connection, and what the policies mean by it.
pub struct Probe {
    pub flow: Flow,
    pub leaving: Port,
    pub standing: Standing,
    meant: Meant,
    lets_out: bool,
}

impl Probe {
    fn of(policies: &[Resolved], point: &Point) -> Option<Self> {
        let flow = point.flow()?;
        let (leaving, standing) = (point.leaving, point.standing);
        let meant = Meant::of(policies, &flow);
        let lets_out = let_out(policies, &flow, leaving, standing);
        Some(Self { flow, leaving, standing, meant, lets_out })
    }

    /// Whether a program does something else with it, before or after translation.
    fn tells_apart(&self, ruleset: &Ruleset, is_enforcing: bool) -> bool {
        if is_enforcing {
            let found = program_lets_out(ruleset, &self.flow, self.leaving, self.standing);
            return found != Some(self.lets_out);
        }
        self.meant.missed_by(ruleset, &self.flow).is_some()
    }

    /// How a program's chain can end for it.
    pub fn outcomes(&self, ruleset: &Ruleset, is_enforcing: bool) -> Vec<Outcome> {
        let ends = if is_enforcing {
            interpret::enforced(ruleset, &self.flow, self.leaving, self.standing)
        } else {
            interpret::outcomes(ruleset, &self.flow)
        };
        ends.unwrap_or_default()
    }
}

/// All that a program is tried with.
pub struct Connections {
    /// Of no rule in particular.
    pub pool: Vec<Probe>,
    /// Around those that a rule decides, by the rule's index in the ruleset.
    of_rule: HashMap<usize, Vec<Probe>>,
    ruleset: Ruleset,
}

impl Connections {
    /// `None` if some rule decides on none of them.
    pub fn of(ruleset: &Ruleset, policies: &[Resolved]) -> Option<Self> {
        let values = Values::of(policies);
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut points: Vec<_> = (0..ANY).map(|_| values.any(&mut rng)).collect();
        for policy in policies {
            points.extend((0..IN_SCOPE).map(|_| values.in_scope(policy, &mut rng)));
        }
        let pool: Vec<_> =
            points.into_iter().filter_map(|at| Some((Probe::of(policies, &at)?, at))).collect();
        let places = places(ruleset);
        let mut of_rule: HashMap<usize, Vec<Probe>> = HashMap::new();
        let mut special = Vec::new();
        let mut witnesses: HashMap<usize, &Point> = HashMap::new();
        for (probe, point) in &pool {
            for is_enforcing in [false, true] {
                for outcome in probe.outcomes(ruleset, is_enforcing) {
                    for place in &outcome.trail {
                        witnesses.entry(places[place]).or_insert(point);
                    }
                }
            }
        }
        if witnesses.len() < ruleset.rules.len() {
            return None;
        }
        for (rule, point) in witnesses {
            special.extend(values.special(point));
            let is_enforcing = ruleset.rules[rule].chain == ENFORCE;
            let around = values.around(point, is_enforcing).into_iter();
            of_rule.insert(rule, around.filter_map(|at| Probe::of(policies, &at)).collect());
        }
        let special = special.iter().filter_map(|point| Probe::of(policies, point));
        let pool = pool.into_iter().map(|(probe, _)| probe).chain(special).collect();
        let connections = Self { pool, of_rule, ruleset: ruleset.clone() };
        for is_enforcing in [false, true] {
            for probe in &connections.pool {
                let listing = ruleset.listing();
                assert!(!probe.tells_apart(ruleset, is_enforcing), "{}\n{listing}", probe.flow);
            }
        }
        Some(connections)
    }

    /// Whether the comparison notices the change by a connection around the changed rules.
    pub fn tell_apart(&self, mutant: &Mutant) -> bool {
        let is_enforcing = self.is_enforcing(mutant);
        let changed = match mutant.site {
            Site::Expr { rule, .. } => mutant.ruleset.rules.get(rule),
            _ => None,
        };
        changed.is_some_and(|rule| !is_sound(rule))
            || self.near(mutant).any(|probe| probe.tells_apart(&mutant.ruleset, is_enforcing))
    }

    /// Whether the comparison notices the change by any connection.
    pub fn tell_apart_at_last(&self, mutant: &Mutant) -> bool {
        let is_enforcing = self.is_enforcing(mutant);
        self.pool.iter().any(|probe| probe.tells_apart(&mutant.ruleset, is_enforcing))
    }

    /// Those around the changed rules.
    fn near(&self, mutant: &Mutant) -> impl Iterator<Item = &Probe> {
        let rules = self.rules(mutant);
        rules.into_iter().filter_map(|rule| self.of_rule.get(&rule)).flatten()
    }

    /// Those around the changed rules, and all others.
    pub fn probes(&self, mutant: &Mutant) -> impl Iterator<Item = &Probe> {
        self.near(mutant).chain(&self.pool)
    }

    /// The rules that a change concerns.
    pub fn rules(&self, mutant: &Mutant) -> Vec<usize> {
        let set = match mutant.site {
            Site::Expr { rule, .. } | Site::Rule { rule } => return vec![rule],
            Site::Element { set, .. } | Site::Set { set } => &self.ruleset.sets[set].set.name,
        };
        let uses = |expr: &Expr| matches!(expr, Expr::Lookup(lookup) if lookup.set == *set);
        let rules = self.ruleset.rules.iter().enumerate();
        rules.filter(|(_, rule)| rule.exprs.iter().any(uses)).map(|(rule, _)| rule).collect()
    }

    pub fn is_enforcing(&self, mutant: &Mutant) -> bool {
        self.rules(mutant).iter().any(|rule| self.ruleset.rules[*rule].chain == ENFORCE)
    }
}

/// The index in the ruleset of each rule, by its chain and place in it.
pub fn places(ruleset: &Ruleset) -> HashMap<(String, usize), usize> {
    let place = |(index, rule): (usize, &'_ ephport_nft::object::Rule)| {
        let at = ruleset.rules[..index].iter().filter(|other| other.chain == rule.chain).count();
        ((rule.chain.clone(), at), index)
    };
    ruleset.rules.iter().enumerate().map(place).collect()
}

/// What is worth trying in each dimension.
struct Values {
    outs: Vec<InterfaceName>,
    sources: Vec<IpAddr>,
    destinations: Vec<IpAddr>,
    ports: Vec<Port>,
    leaving: Vec<Port>,
}

fn name(text: &str) -> InterfaceName {
    text.parse().expect("a name")
}

fn port(number: u16) -> Port {
    Port::new(number).expect("a port")
}

fn pick<T: Clone>(values: &[T], rng: &mut TestRng) -> T {
    use proptest::prelude::Rng;
    let at = usize::try_from(rng.next_u32()).expect("32 bits") % values.len();
    values[at].clone()
}

impl Values {
    fn of(policies: &[Resolved]) -> Self {
        let mut outs: BTreeSet<_> = ["lo", "eth0", "zz0"].map(name).into();
        let (mut sources, mut destinations) = (BTreeSet::new(), BTreeSet::new());
        for text in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
            sources.insert(text.parse().expect("an address"));
        }
        let to = ["203.0.113.9", "198.51.100.9", "2001:db8:1:1::9", "224.0.0.251", "ff02::fb"];
        destinations.extend(to.map(|text| text.parse::<IpAddr>().expect("an address")));
        let (mut ports, mut leaving) = (BTreeSet::new(), BTreeSet::new());
        ports.extend([1, 512, 1023, 1024, 40_000, 65_535].map(port));
        for policy in policies {
            if let Exits::Matching(patterns) = &policy.egress {
                outs.extend(patterns.iter().flat_map(covered_and_not));
            }
            sources.extend(policy.sources.iter().flat_map(ends));
            destinations.extend(policy.except_destinations.iter().flat_map(ends));
            // A reply comes from where a connection went to.
            destinations.extend(policy.sources.iter().map(IpNet::network));
            match &policy.allowed {
                Allowed::Ports(allowed) => ports.extend(port_ends(allowed)),
                Allowed::Blocks(blocks) => {
                    for block in blocks.iter() {
                        sources.extend(around(block.source));
                        sources.extend(ends(&block.source.into()));
                        ports.extend(port_ends(&block.ports.into()));
                    }
                }
            }
            ports.extend(port_ends(&policy.moved));
            leaving.extend(port_ends(&policy.leaves));
        }
        leaving.insert(Port::MIN);
        Self {
            outs: outs.into_iter().collect(),
            sources: sources.into_iter().collect(),
            destinations: destinations.into_iter().collect(),
            ports: ports.into_iter().collect(),
            leaving: leaving.into_iter().collect(),
        }
    }

    fn any(&self, rng: &mut TestRng) -> Point {
        let source = pick(&self.sources, rng);
        let is_near = |to: &&IpAddr| to.is_ipv4() == source.is_ipv4();
        let destinations: Vec<_> = self.destinations.iter().filter(is_near).copied().collect();
        Point {
            out: pick(&self.outs, rng),
            is_forwarded: pick(&[true, false], rng),
            source,
            destination: pick(&destinations, rng),
            is_broadcast: pick(&[true, false, false, false, false, false], rng),
            protocol: pick(&Protocol::ALL, rng),
            segment: pick(&[Segment::Opening, Segment::Opening, Segment::MidStream], rng),
            sport: pick(&self.ports, rng),
            dport: pick(&[443, 53, 65_000].map(port), rng),
            leaving: pick(&self.leaving, rng),
            standing: pick(
                &[Standing::New, Standing::New, Standing::Reply, Standing::Invalid],
                rng,
            ),
        }
    }

    /// Mostly in the scope of a policy: some tries for each are enough.
    fn in_scope(&self, policy: &Resolved, rng: &mut TestRng) -> Point {
        let outs: Vec<_> =
            self.outs.iter().filter(|out| policy.egress.contains(out)).cloned().collect();
        let ports: Vec<_> =
            self.ports.iter().filter(|port| policy.moved.contains(**port)).copied().collect();
        let protocols: Vec<_> = policy.protocols.iter().collect();
        let mut point = self.any(rng);
        for _ in 0..40 {
            point = Point {
                out: pick(if outs.is_empty() { &self.outs } else { &outs }, rng),
                protocol: pick(&protocols, rng),
                ..self.any(rng)
            };
            if pick(&[true, true, true, false], rng) && !ports.is_empty() {
                point.sport = pick(&ports, rng);
            }
            if point.flow().is_some_and(|flow| policy.out_of_scope(&flow).is_none()) {
                break;
            }
        }
        point
    }

    /// What the guards at the beginning of a chain are for, where a rule behind them would take it.
    fn special(&self, point: &Point) -> Vec<Point> {
        let groups = self.destinations.iter().filter(|to| to.is_multicast());
        let groups = groups.map(|to| Point { destination: *to, ..point.clone() });
        let mut points: Vec<_> = groups.collect();
        points.push(Point { is_broadcast: true, ..point.clone() });
        let (source, destination) = (SOURCE_V4, DESTINATION_V4);
        points.push(Point { source, destination, is_broadcast: true, ..point.clone() });
        for leaving in &self.leaving {
            let leaving = *leaving;
            points.push(Point {
                leaving,
                standing: Standing::New,
                is_broadcast: true,
                ..point.clone()
            });
            for standing in [Standing::Reply, Standing::Invalid] {
                points.push(Point { leaving, standing, ..point.clone() });
            }
            let groups = self.destinations.iter().filter(|to| to.is_multicast());
            let standing = Standing::New;
            points.extend(groups.map(|to| Point {
                leaving,
                standing,
                destination: *to,
                ..point.clone()
            }));
        }
        points
    }

    /// It, and all that differ from it in one dimension.
    fn around(&self, point: &Point, is_enforcing: bool) -> Vec<Point> {
        let mut points = vec![point.clone()];
        let near = |value: &&IpAddr| value.is_ipv4() == point.source.is_ipv4();
        let (sources, destinations) =
            (self.sources.iter().filter(near), self.destinations.iter().filter(near));
        points.extend(self.outs.iter().map(|out| Point { out: out.clone(), ..point.clone() }));
        points.extend(sources.map(|source| Point { source: *source, ..point.clone() }));
        points.extend(destinations.map(|to| Point { destination: *to, ..point.clone() }));
        points.extend(Protocol::ALL.map(|protocol| Point { protocol, ..point.clone() }));
        // Of the other family.
        for source in self.sources.iter().filter(|source| !near(source)) {
            let to =
                self.destinations.iter().filter(|to| !near(to)).filter(|to| !to.is_multicast());
            points.extend(to.map(|to| Point {
                source: *source,
                destination: *to,
                is_broadcast: false,
                ..point.clone()
            }));
        }
        points.push(Point { is_forwarded: !point.is_forwarded, ..point.clone() });
        points.push(Point { is_broadcast: !point.is_broadcast, ..point.clone() });
        for segment in [Segment::Opening, Segment::MidStream] {
            points.push(Point { segment, ..point.clone() });
        }
        if is_enforcing {
            for standing in [Standing::New, Standing::Reply, Standing::Invalid] {
                points.push(Point { standing, ..point.clone() });
            }
            for (standing, leaving) in [Standing::New, Standing::Invalid]
                .into_iter()
                .flat_map(|standing| self.leaving.iter().map(move |leaving| (standing, *leaving)))
            {
                points.push(Point { standing, leaving, ..point.clone() });
            }
        } else {
            points.extend(self.ports.iter().map(|sport| Point { sport: *sport, ..point.clone() }));
        }
        points
    }
}

/// Names that a pattern covers, and some that are almost so.
fn covered_and_not(pattern: &InterfacePattern) -> Vec<InterfaceName> {
    let text = pattern.to_string();
    let stem = text.trim_end_matches('*');
    let shorter = &stem[..stem.len() - 1];
    let names = match pattern {
        InterfacePattern::Name(_) => vec![stem.to_string(), format!("{stem}x")],
        InterfacePattern::Prefix(_) => {
            vec![format!("{stem}0"), format!("{stem}y"), format!("{shorter}!")]
        }
    };
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// An address and those next to it.
fn around(address: IpAddr) -> Vec<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let number = v4.to_bits();
            [number, number.wrapping_add(1), number.wrapping_sub(1)]
                .map(|number| IpAddr::V4(number.into()))
                .into()
        }
        IpAddr::V6(v6) => {
            let number = v6.to_bits();
            [number, number.wrapping_add(1), number.wrapping_sub(1)]
                .map(|number| IpAddr::V6(number.into()))
                .into()
        }
    }
}

/// The ends of a network and what lies next to them; where it ends within a byte, also what
/// differs from it in one bit; and IPv6 addresses with its bytes where IPv4 has them.
fn ends(net: &IpNet) -> Vec<IpAddr> {
    let mut addresses = around(net.network());
    addresses.extend(around(net.broadcast()));
    if let IpAddr::V4(first) = net.network() {
        if !net.prefix_len().is_multiple_of(8) {
            addresses.extend((0..32).map(|bit| IpAddr::V4((first.to_bits() ^ 1 << bit).into())));
        }
        let number = u128::from(first.to_bits());
        let documentation = 0x2001_0db8u128 << 96;
        for more in [number << 32, 0] {
            addresses.push(IpAddr::V6((documentation | number << 64 | more | 1).into()));
        }
    }
    addresses
}

fn port_ends(ports: &PortSet) -> Vec<Port> {
    let ranges = ports.ranges().iter();
    let ends = ranges.flat_map(|range| {
        let (first, last) = (range.first(), range.last());
        [Some(first), Some(last), first.previous(), first.next(), last.previous(), last.next()]
    });
    ends.flatten().collect()
}
