//! Policies as text for people: one block a policy, no line longer than 80 columns unless a single
//! word of the user is.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ephport_core::{
    Address, Distribution, Families, Interfaces, Ipsec, OpenConnections, Origin, PermittedPorts,
    PickUp, PortRange, PortSet, Protocol, ResolvedPolicy, Target,
};

use ephport_nft::InstalledPolicy;
use ephport_nft::compile::describe_blocks;

const COLUMNS: usize = 80;

/// The most ranges that a summary lists.
const MAX_RANGES: usize = 8;

/// A heading with rows of a label and a value.
pub(crate) struct Block {
    heading: String,
    rows: Vec<(&'static str, String)>,
}

impl Block {
    pub(crate) fn new(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), rows: Vec::new() }
    }

    /// The summary of a policy.
    pub(crate) fn policy(policy: &ResolvedPolicy) -> Self {
        let mut block = Self::new(format!("policy {}", policy.name));
        block.rows = rows(policy);
        block
    }

    /// The summary of a policy whose source is unknown, from its rules.
    pub(crate) fn installed_policy(policy: &InstalledPolicy) -> Self {
        let mut block = Self::new(format!("policy {}", policy.name));
        let listed_or = |list: &[String], none: &str| match list {
            [] => none.to_string(),
            list => listed(list),
        };
        block.row("out-interfaces", listed_or(&policy.out_interfaces, "any but loopback"));
        let to_ports = if policy.has_blocks {
            "a block for each source".into()
        } else if policy.to_ports.is_empty() {
            "none: no rule translates".into()
        } else {
            ranges(&policy.to_ports)
        };
        let source_ports = listed_or(&policy.source_ports, "any");
        block.row("source ports", format!("{source_ports} -> {to_ports}"));
        for new in &policy.addresses {
            block.row("source address", address(*new));
        }
        if !policy.timeouts.is_empty() {
            block.row("timeouts", policy.timeouts.join("; "));
        }
        if policy.enforces {
            block.row("enforcement", "packets with other source ports are dropped");
        }
        block
    }

    /// Add a row.
    pub(crate) fn row(&mut self, label: &'static str, value: impl Into<String>) {
        self.rows.push((label, value.into()));
    }

    /// The lines of the block.
    pub(crate) fn lines(&self) -> Vec<String> {
        let width = self.rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let mut lines = vec![self.heading.clone()];
        for (label, value) in &self.rows {
            let mut label = *label;
            for part in wrapped(value, COLUMNS.saturating_sub(width + 4)) {
                lines.push(format!("  {label:width$}  {part}"));
                label = "";
            }
        }
        lines
    }
}

fn rows(policy: &ResolvedPolicy) -> Vec<(&'static str, String)> {
    let mut rows = scope(policy);
    rows.push(("source ports", format!("{} -> {}", policy.translated, target(policy))));
    rows.push(("source address", address(policy.address)));
    let flags = [
        (policy.flags.random, "random"),
        (policy.flags.fully_random, "fully-random"),
        (policy.flags.persistent, "persistent"),
        (policy.spread == Some(Distribution::RoundRobin), "round-robin"),
        (policy.spread == Some(Distribution::Weighted), "weighted"),
        (policy.spread == Some(Distribution::Hash), "per-source-stable"),
        (policy.spread == Some(Distribution::Remap), "remap"),
    ];
    let flags = listed(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name));
    if !flags.is_empty() {
        rows.push(("selection", flags));
    }
    if let Some(remap) = &policy.remap {
        let range = format!("{}, rewritten to the ports of the set", remap.virtual_range());
        rows.push(("virtual range", range));
    }
    if policy.pick_up == PickUp::Any {
        rows.push(("pick-up", "any: open TCP connections are translated too".into()));
    }
    if !policy.timeouts.is_empty() {
        rows.push(("timeouts", timeouts(policy)));
    }
    if policy.enforce {
        rows.push(("enforcement", "packets with other source ports are dropped".into()));
        let open = match policy.open_connections {
            OpenConnections::Drop => "dropped too",
            OpenConnections::Keep => "those open when first enforced pass until they end",
        };
        rows.push(("open connections", open.into()));
    }
    rows
}

/// The conditions that differ from the default, and those that have none.
fn scope(policy: &ResolvedPolicy) -> Vec<(&'static str, String)> {
    let mut rows = vec![("protocols", listed(policy.protocols.iter().map(Protocol::name)))];
    match policy.families {
        Families::Both => {}
        Families::Ipv4 => rows.push(("families", "ipv4".into())),
        Families::Ipv6 => rows.push(("families", "ipv6".into())),
    }
    rows.push(("out-interfaces", out_interfaces(policy)));
    match policy.origin {
        Origin::Both => {}
        Origin::Local => rows.push(("origin", "local: this host's sockets".into())),
        Origin::Forwarded => rows.push(("origin", "forwarded: not this host's sockets".into())),
    }
    let is_any_port = policy.destination_ports == PortRange::ALL.into();
    let conditions = [
        ("not out-interfaces", listed(&policy.except_interfaces)),
        ("in-interfaces", listed(&policy.in_interfaces)),
        ("sources", listed(&policy.sources)),
        ("destinations", listed(&policy.destinations)),
        ("not destinations", listed(&policy.except_destinations)),
        (
            "destination ports",
            listed(policy.destination_ports.ranges().iter().skip(usize::from(is_any_port))),
        ),
        ("mark", listed(policy.mark)),
    ];
    rows.extend(conditions.into_iter().filter(|(_, value)| !value.is_empty()));
    if policy.ipsec == Ipsec::Match {
        rows.push(("ipsec", "match: packets that IPsec protects too".into()));
    }
    rows
}

/// The permitted ports, as they were written and as they are on this host.
fn target(policy: &ResolvedPolicy) -> String {
    let ports = match &policy.permitted {
        PermittedPorts::Blocks(blocks) => {
            let form = match describe_blocks(blocks) {
                form if form.is_empty() => form,
                form => format!(" ({form})"),
            };
            return format!("a block for each of {} sources{form}", blocks.count());
        }
        PermittedPorts::Set(ports) => ranges(ports),
    };
    match &policy.policy.spec().target {
        Target::MapE(map_e) => format!("MAP-E {map_e}: {ports}"),
        Target::Local => format!("local: {ports}"),
        Target::Ports(_) | Target::Blocks(_) => ports,
    }
}

/// Ranges, or the count and first of many.
fn ranges(ports: &PortSet) -> String {
    let ranges = ports.ranges();
    if ranges.len() <= MAX_RANGES {
        return listed(ranges);
    }
    let some = listed(ranges.iter().take(3));
    format!("{} ports in {} ranges: {some}, ...", ports.count(), ranges.len())
}

/// The timeouts, in seconds.
fn timeouts(policy: &ResolvedPolicy) -> String {
    let timers = policy.timeouts.iter();
    listed(timers.map(|(timer, seconds)| format!("{timer} {seconds} s")))
}

/// What happens to the source address.
pub(crate) fn address(address: Address) -> String {
    match address {
        Address::Masquerade => "masquerade: an address of the output interface".into(),
        Address::Keep => "keep: not changed".into(),
        Address::Fixed(address) => format!("becomes {address}"),
        Address::Auto => "auto: kept if valid outside, else masquerade".into(),
    }
}

/// A destination; that of ICMP has no port.
pub(crate) fn destination(protocol: Protocol, destination: SocketAddr) -> String {
    if protocol.has_ports() { destination.to_string() } else { destination.ip().to_string() }
}

pub(crate) fn interfaces(interfaces: &Interfaces) -> String {
    match interfaces {
        Interfaces::Any => "any but loopback".into(),
        Interfaces::Matching(patterns) => listed(patterns),
    }
}

/// The output interfaces; uplinks with what differs from a default route of the main table.
fn out_interfaces(policy: &ResolvedPolicy) -> String {
    let Interfaces::Matching(patterns) = &policy.out_interfaces else {
        return interfaces(&policy.out_interfaces);
    };
    let named = patterns.iter().map(|pattern| {
        let routes = policy.default_routes.iter();
        let routes = routes.filter(|route| pattern.matches(&route.interface));
        let reasons: BTreeSet<_> = routes.map(ToString::to_string).collect();
        if reasons.is_empty() || reasons.contains("") {
            return pattern.to_string();
        }
        format!("{pattern} ({})", listed(&reasons))
    });
    listed(named)
}

fn listed(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Text in lines of at most `width` characters, broken at spaces.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut()
            && (line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width)
        {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        lines.push(word.into());
    }
    lines
}
