//! `ephport-nft usage --openmetrics`.

use ephport_nft::client::State;

use super::Report;
use crate::metrics::{self, Metric};

impl Report<'_> {
    /// All metrics.
    pub(super) fn metrics(&self) -> String {
        let conntrack = metrics::conntrack(&self.statistics);
        metrics::text(self.policy_metrics().into_iter().chain(conntrack))
    }

    fn policy_metrics(&self) -> Vec<Metric> {
        let mut ports = metrics::ports();
        let help = "Connections in scope of the policy, by the place of their source port.";
        let mut connections = Metric::new("ephport_policy_connections", "gauge", help);
        let help = "Share of the ports in use to one destination, 0 to 1; the ten fullest.";
        let mut ratios = Metric::new("ephport_destination_port_usage_ratio", "gauge", help);
        let mut drops = metrics::enforced_drops();
        for (usage, installed, fullest) in self.policies() {
            let name = ("policy", usage.policy.name.as_str());
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
            metrics::build_info(),
            metrics::policy_info(self.policies().map(|(usage, ..)| usage.policy)),
            metrics::intact(self.state == State::Intact),
            ports,
            connections,
            ratios,
            drops,
        ]
    }
}
