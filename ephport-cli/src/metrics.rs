//! Metrics in the exposition format that Prometheus and node_exporter read.
//!
//! The names are an interface: `docs/metrics.md` describes them.

use std::fmt::{self, Write as _};

use ephport_core::{Protocol, ResolvedPolicy};
use ephport_nft::conntrack::Statistics;

use crate::render;

/// One metric: its name, type and meaning, and a line for each of its values.
pub(crate) struct Metric {
    text: String,
    name: &'static str,
}

impl Metric {
    pub(crate) fn new(name: &'static str, metric_type: &str, help: &str) -> Self {
        Self { text: format!("# HELP {name} {help}\n# TYPE {name} {metric_type}\n"), name }
    }

    pub(crate) fn value(mut self, labels: &[(&str, &str)], value: impl fmt::Display) -> Self {
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

/// The text of all metrics.
pub(crate) fn text(metrics: impl IntoIterator<Item = Metric>) -> String {
    let text: String = metrics.into_iter().map(|metric| metric.text).collect();
    format!("{text}# EOF\n")
}

pub(crate) fn build_info() -> Metric {
    Metric::new("ephport_build_info", "gauge", "The version of ephport-nft; 1.")
        .value(&[("version", env!("CARGO_PKG_VERSION"))], 1)
}

pub(crate) fn intact(is_intact: bool) -> Metric {
    let help = "Whether the table is the one that was applied: 1 or 0.";
    Metric::new("ephport_policy_intact", "gauge", help).value(&[], u8::from(is_intact))
}

/// The scope of each policy.
pub(crate) fn policy_info<'a>(policies: impl IntoIterator<Item = &'a ResolvedPolicy>) -> Metric {
    let mut info = Metric::new("ephport_policy_info", "gauge", "The scope of each policy; 1.");
    for policy in policies {
        let protocols: Vec<_> = policy.protocols.iter().map(Protocol::name).collect();
        let interfaces = render::interfaces(&policy.out_interfaces);
        let labels = [
            ("policy", policy.name.as_str()),
            ("protocols", &protocols.join(",")),
            ("out_interfaces", &interfaces),
            ("enforce", if policy.enforce { "true" } else { "false" }),
        ];
        info = info.value(&labels, 1);
    }
    info
}

pub(crate) fn ports() -> Metric {
    Metric::new("ephport_policy_ports", "gauge", "Ports to which the policy translates.")
}

pub(crate) fn enforced_drops() -> Metric {
    let help = "Packets that enforcement dropped since the policy was installed.";
    Metric::new("ephport_enforced_drops_total", "counter", help)
}

/// The state of connection tracking.
pub(crate) fn conntrack(statistics: &Statistics) -> Vec<Metric> {
    let help = "Connections that conntrack did not insert: no free port, or a duplicate.";
    let failed = Metric::new("ephport_conntrack_insert_failed_total", "counter", help);
    let help = "Connections in the connection tracking table.";
    let entries = Metric::new("ephport_conntrack_entries", "gauge", help);
    let help = "Connections that the table may contain.";
    let limit = Metric::new("ephport_conntrack_entries_limit", "gauge", help);
    let mut metrics =
        vec![failed.value(&[], statistics.insert_failed), entries.value(&[], statistics.entries)];
    metrics.extend(statistics.max_entries.map(|max| limit.value(&[], max)));
    metrics
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
