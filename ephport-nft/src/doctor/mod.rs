//! What disturbs policies on a host, beside what their [`Plan`] warns of and the rules that
//! [`Client::interferences`](crate::Client::interferences) finds. Nothing is changed.
//!
//! ```no_run
//! use ephport_nft::{Client, Plan, doctor, host};
//!
//! # fn example(plan: &Plan) -> Result<(), Box<dyn std::error::Error>> {
//! let observed = doctor::Observed::read(&mut Client::open()?)?;
//! for finding in doctor::findings(plan, &host::facts()?, &observed) {
//!     println!("{finding}");
//! }
//! # Ok(())
//! # }
//! ```

mod finding;
mod observed;

use std::collections::BTreeSet;

pub use finding::Finding;
pub use observed::{NatChain, Object, Observed};

use ephport_core::{
    HostFacts, Ipsec, Origin, OutInterfaces, PermittedPorts, Port, PortRange, PortSet, Protocol,
    ResolvedPolicy, TimeoutState, Warning,
};

use crate::Plan;

/// The ports of Kubernetes' services of type NodePort, unless its API server is told otherwise.
const NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// A connection tracking table with more entries than this share drops connections soon, in percent.
const NEARLY_FULL: u64 = 80;

/// The fewest new connections to one destination, per second, that a policy should serve.
const FEW_CONNECTIONS: u32 = 10;

/// What disturbs the policies of `plan`, or connection tracking, on the host with these facts.
#[must_use]
pub fn findings(plan: &Plan, host: &HostFacts, observed: &Observed) -> Vec<Finding> {
    let mut findings = uplinks(plan);
    for policy in &plan.resolved {
        findings.extend(of_ports(policy, host, observed));
        findings.extend(fixed_ports(policy, plan, host));
        findings.extend(slow_reuse(policy, observed));
        findings.extend(ipsec(policy, observed));
    }
    let enforced = plan.resolved.iter().find(|policy| policy.enforce);
    if let Some(policy) = enforced {
        let tables = observed.flowtables.iter().cloned();
        findings.extend(
            tables.map(|flowtable| Finding::Flowtable { policy: policy.name.clone(), flowtable }),
        );
    }
    findings.extend(observed.helpers.iter().cloned().map(|helper| Finding::Helper { helper }));
    findings.extend(conntrack(observed));
    findings
}

/// What disturbs connection tracking, whatever the policies.
#[must_use]
pub fn conntrack(observed: &Observed) -> Vec<Finding> {
    let Some(statistics) = &observed.statistics else { return Vec::new() };
    let mut findings = Vec::new();
    if let Some(max) = statistics.max_entries {
        let entries = statistics.entries;
        if u64::from(entries) * 100 > u64::from(max) * NEARLY_FULL {
            findings.push(Finding::ConntrackFull { entries, max });
        }
    }
    if statistics.insert_failed > 0 {
        findings.push(Finding::InsertFailed { count: statistics.insert_failed });
    }
    if statistics.early_drop > 0 {
        findings.push(Finding::EarlyDrops { count: statistics.early_drop });
    }
    findings
}

/// Uplinks by other routes than those of the main table, such as that of a VPN, each once.
fn uplinks(plan: &Plan) -> Vec<Finding> {
    let is_of_uplinks = |policy: &&ResolvedPolicy| {
        policy.policy.spec().scope.out_interfaces == OutInterfaces::Uplinks
    };
    let policies = plan.resolved.iter().filter(is_of_uplinks);
    let routes: BTreeSet<_> = policies.flat_map(|policy| &policy.default_routes).collect();
    let has_main = |route: &ephport_core::DefaultRoute| {
        routes
            .iter()
            .any(|other| other.interface == route.interface && other.to_string().is_empty())
    };
    let other = routes.iter().filter(|route| !route.to_string().is_empty() && !has_main(route));
    other.map(|route| Finding::OtherUplink { route: (**route).clone() }).collect()
}

/// Permitted ports that something else on the host needs.
fn of_ports(policy: &ResolvedPolicy, host: &HostFacts, observed: &Observed) -> Vec<Finding> {
    let permitted = policy.permitted.ports();
    let mut findings = Vec::new();
    let reserved = permitted.intersection(&host.reserved_ports);
    if !reserved.is_empty() {
        findings.push(Finding::ReservedPorts { policy: policy.name.clone(), ports: reserved });
    }
    let (first, last) = NODE_PORTS;
    let node_ports = Port::new(first).ok().zip(Port::new(last).ok());
    let node_ports = node_ports.and_then(|(first, last)| PortRange::new(first, last).ok());
    let node_ports = node_ports.filter(|_| observed.is_kubernetes).map(PortSet::from);
    let node_ports = node_ports.map(|ports| permitted.intersection(&ports));
    if let Some(ports) = node_ports.filter(|ports| !ports.is_empty()) {
        findings.push(Finding::NodePorts { policy: policy.name.clone(), ports });
    }
    findings
}

/// The ports of UDP servers of this host from which it cannot open connections unchanged. Those that the
/// plan warns of, and those that the kernel selected, are none.
fn fixed_ports(policy: &ResolvedPolicy, plan: &Plan, host: &HostFacts) -> Option<Finding> {
    if policy.origin == Origin::Forwarded || !policy.protocols.contains(Protocol::Udp) {
        return None;
    }
    let warned = plan.warnings.iter().filter_map(|warning| match warning {
        Warning::ServerPort { port, .. } => Some(PortRange::from(*port)),
        _ => None,
    });
    let mut known: PortSet = warned.collect();
    if let Some(local) = host.local_ports {
        known = known.union(&PortSet::from(local));
    }
    let ports = host.udp_listeners.intersection(&policy.translated);
    let ports = ports.difference(&policy.permitted.ports()).difference(&known);
    (!ports.is_empty()).then(|| Finding::FixedPorts { policy: policy.name.clone(), ports })
}

/// Few ports with a long timeout of UDP connections: RFC 4787 REQ-5.
fn slow_reuse(policy: &ResolvedPolicy, observed: &Observed) -> Option<Finding> {
    let own = policy.timeouts.of(Protocol::Udp, None);
    let own = own.states().iter().find(|(state, _)| *state == TimeoutState::Unreplied);
    let seconds = own.map(|(_, seconds)| *seconds).or(observed.udp_timeout);
    let (PermittedPorts::Set(ports), Some(seconds)) = (&policy.permitted, seconds) else {
        return None;
    };
    let rate = ports.count() / seconds.max(1);
    (policy.protocols.contains(Protocol::Udp) && rate < FEW_CONNECTIONS)
        .then(|| Finding::SlowReuse { policy: policy.name.clone(), ports: ports.count(), seconds })
}

/// Connections that IPsec protects, and that the policy translates.
fn ipsec(policy: &ResolvedPolicy, observed: &Observed) -> Option<Finding> {
    let count = observed.ipsec_policies.filter(|count| *count > 0)?;
    (policy.ipsec == Ipsec::Match)
        .then(|| Finding::TranslatedIpsec { policy: policy.name.clone(), count })
}
