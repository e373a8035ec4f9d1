//! `ephport-nft usage --openmetrics`: the exposition format that Prometheus and node_exporter read.
//!
//! The names are an interface: `docs/metrics.md` describes them.

use std::fmt::{self, Write as _};

use ephport_core::Protocol;
use ephport_nft::client::State;

use super::Report;
use crate::render;

/// One metric: its name, type and meaning, and a line for each of its values.
struct Metric {
    text: String,
    name: &'static str,
}

impl Metric {
    fn new(name: &'static str, metric_type: &str, help: &str) -> Self {
        Self { text: format!("# HELP {name} {help}\n# TYPE {name} {metric_type}\n"), name }
    }

    fn value(mut self, labels: &[(&str, &str)], value: impl fmt::Display) -> Self {
        let labels: Vec<_> =
            labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
        self
    }
}

/// A label's value, in which the format escapes three characters.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Report<'_> {
    /// All metrics.
    pub(super) fn metrics(&self) -> String {
        let metrics = [self.policy_metrics(), self.conntrack_metrics()].into_iter().flatten();
        let text: String = metrics.map(|metric| metric.text).collect();
        format!("{text}# EOF\n")
    }

    fn policy_metrics(&self) -> Vec<Metric> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let build = Metric::new("ephport_build_info", "gauge", "The version of ephport-nft; 1.");
        let intact = "Whether the table is the one that was applied: 1 or 0.";
        let is_intact = u8::from(self.state == State::Intact);
        let mut info = Metric::new("ephport_policy_info", "gauge", "The scope of each policy; 1.");
        let mut ports =
            Metric::new("ephport_policy_ports", "gauge", "Ports to which the policy translates.");
        let help = "Connections in scope of the policy, by the place of their source port.";
        let mut connections = Metric::new("ephport_policy_connections", "gauge", help);
        let help = "Share of the ports in use to one destination, 0 to 1; the ten fullest.";
        let mut ratios = Metric::new("ephport_destination_port_usage_ratio", "gauge", help);
        let mut drops = Metric::new(
            "ephport_enforced_drops_total",
            "counter",
            "Packets that enforcement dropped since the policy was installed.",
        );
        for (usage, installed, fullest) in self.policies() {
            let name = ("policy", usage.policy.name.as_str());
            let protocols: Vec<_> = usage.policy.protocols.iter().map(Protocol::name).collect();
            let interfaces = render::interfaces(&usage.policy.out_interfaces);
            let labels = [
                name,
                ("protocols", &protocols.join(",")),
                ("out_interfaces", &interfaces),
                ("enforce", if usage.policy.enforce { "true" } else { "false" }),
            ];
            info = info.value(&labels, 1);
            ports = ports.value(&[name], usage.ports.count());
            let places = [
                ("permitted", usage.connections),
                ("exempt", usage.exempt),
                ("outside", usage.outside),
            ];
            for (place, count) in places {
                connections = connections.value(&[name, ("source_port", place)], count);
            }
            for destination in fullest {
                let labels = [
                    name,
                    ("protocol", destination.protocol.name()),
                    ("address", &destination.destination.ip().to_string()),
                    ("port", &destination.destination.port().to_string()),
                    ("source", &destination.source.to_string()),
                    ("zone", &destination.zone.to_string()),
                ];
                ratios = ratios.value(&labels, destination.ratio());
            }
            if let Some(installed) = installed.filter(|installed| installed.enforces) {
                drops = drops.value(&[name], installed.drops);
            }
        }
        vec![
            build.value(&version, 1),
            info,
            Metric::new("ephport_policy_intact", "gauge", intact).value(&[], is_intact),
            ports,
            connections,
            ratios,
            drops,
        ]
    }

    fn conntrack_metrics(&self) -> Vec<Metric> {
        let help = "Connections that conntrack did not insert: no free port, or a duplicate.";
        let failed = Metric::new("ephport_conntrack_insert_failed_total", "counter", help);
        let help = "Connections in the connection tracking table.";
        let entries = Metric::new("ephport_conntrack_entries", "gauge", help);
        let help = "Connections that the table may contain.";
        let limit = Metric::new("ephport_conntrack_entries_limit", "gauge", help);
        let mut metrics = vec![
            failed.value(&[], self.statistics.insert_failed),
            entries.value(&[], self.statistics.entries),
        ];
        metrics.extend(self.statistics.max_entries.map(|max| limit.value(&[], max)));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let metric = Metric::new("a_b", "gauge", "Help.").value(&[("x", "a\"b\\c\nd")], 1.5);
        assert_eq!(
            metric.text,
            "# HELP a_b Help.\n# TYPE a_b gauge\na_b{x=\"a\\\"b\\\\c\\nd\"} 1.5\n"
        );
    }
}
