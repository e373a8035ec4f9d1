//! Policies as TOML.
//!
//! Names, networks, ports and interfaces hold neither quotes nor backslashes nor control characters,
//! so that nothing needs an escape.

use std::fmt::{Display, Write as _};

use crate::allocation::block_table::BlockTable;
use crate::net::family::Families;
use crate::policy::scope::{OutInterfaces, Scope};
use crate::policy::{Policy, PolicySpec, Target};

/// The policies, an empty line between two of them.
pub(super) fn print(policies: &[Policy]) -> String {
    let tables: Vec<_> = policies.iter().map(table).collect();
    tables.join("\n")
}

fn table(policy: &Policy) -> String {
    let usual = PolicySpec::to(policy.target.clone());
    let mut lines = Lines(String::from("[[policy]]\n"));
    lines.string("name", &policy.name);
    scope(&mut lines, &policy.scope);
    if policy.source_ports != usual.source_ports {
        lines.string("source-ports", &policy.source_ports);
    }
    if !policy.exempt.is_empty() {
        lines.string("exempt-source-ports", &policy.exempt);
    }
    target(&mut lines, &policy.target);
    if !policy.except_ports.is_empty() {
        lines.string("except-ports", &policy.except_ports);
    }
    lines.flag("random", policy.flags.random);
    lines.flag("fully-random", policy.flags.fully_random);
    lines.flag("persistent", policy.flags.persistent);
    lines.flag("per-source-stable", policy.per_source_stable);
    if policy.address != usual.address {
        lines.string("address", policy.address);
    }
    if policy.pick_up != usual.pick_up {
        lines.string("pick-up", policy.pick_up);
    }
    lines.flag("enforce", policy.enforce);
    if policy.open_connections != usual.open_connections {
        lines.string("open-connections", policy.open_connections);
    }
    lines.0
}

fn scope(lines: &mut Lines, scope: &Scope) {
    let usual = Scope::default();
    if scope.protocols != usual.protocols {
        lines.list("protocols", scope.protocols.iter());
    }
    match &scope.out_interfaces {
        OutInterfaces::Uplinks => {}
        OutInterfaces::Any => lines.string("out-interfaces", "any"),
        OutInterfaces::Matching(patterns) => lines.list("out-interfaces", patterns),
    }
    lines.list_if_any("except-interfaces", &scope.except_interfaces);
    lines.list_if_any("in-interfaces", &scope.in_interfaces);
    lines.list_if_any("sources", &scope.sources);
    lines.list_if_any("destinations", &scope.destinations);
    lines.list_if_any("except-destinations", &scope.except_destinations);
    if scope.destination_ports != usual.destination_ports {
        lines.string("destination-ports", &scope.destination_ports);
    }
    if scope.origin != usual.origin {
        lines.string("origin", scope.origin);
    }
    match scope.families {
        Families::Both => {}
        Families::Ipv4 => lines.list("families", ["ipv4"]),
        Families::Ipv6 => lines.list("families", ["ipv6"]),
    }
    if let Some(mark) = scope.mark {
        lines.string("mark", mark);
    }
    if scope.ipsec != usual.ipsec {
        lines.string("ipsec", scope.ipsec);
    }
}

fn target(lines: &mut Lines, target: &Target) {
    match target {
        Target::Ports(ports) => lines.string("to-ports", ports),
        Target::Local => lines.string("to-ports", "local"),
        Target::Blocks(BlockTable::Plan(plan)) => lines.string("blocks", plan),
        Target::Blocks(table @ BlockTable::Explicit(_)) => lines.list("blocks", table),
    }
}

/// Lines of `key = value`.
struct Lines(String);

impl Lines {
    fn string(&mut self, key: &str, value: impl Display) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.0, "{key} = \"{value}\"");
    }

    fn list<T: Display>(&mut self, key: &str, items: impl IntoIterator<Item = T>) {
        let items: Vec<_> = items.into_iter().map(|item| format!("\"{item}\"")).collect();
        let _ = writeln!(self.0, "{key} = [{}]", items.join(", "));
    }

    fn list_if_any<T: Display>(&mut self, key: &str, items: &[T]) {
        if !items.is_empty() {
            self.list(key, items);
        }
    }

    /// Flags are false unless said otherwise.
    fn flag(&mut self, key: &str, value: bool) {
        if value {
            let _ = writeln!(self.0, "{key} = true");
        }
    }
}
