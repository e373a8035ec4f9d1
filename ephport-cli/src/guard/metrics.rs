//! The metrics file. It has no metrics of connections, which `usage --openmetrics` prints: to read all of
//! them needs time in which nothing is restored.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ephport_core::PermittedPorts;
use ephport_nft::conntrack::Statistics;
use ephport_nft::{Installed, TableState};

use super::{Area, Guard, Kept};
use crate::command::Failure;
use crate::metrics::{self, Metric};

impl Guard<'_, '_> {
    /// Write the metrics file, if there is one.
    pub(super) fn write_metrics(&mut self) {
        let Some(path) = self.settings.metrics.clone() else { return };
        let text = self.metrics();
        match replace(&path, &text) {
            Ok(()) => drop(self.problems.remove(&Area::Metrics)),
            Err(source) => {
                let failure = Failure::Write { path, source };
                self.fail(Area::Metrics, "metrics", &failure, "the former metrics stay");
            }
        }
    }

    fn metrics(&mut self) -> String {
        let installed = self.client.installed().unwrap_or(Installed::Absent);
        let is_intact = matches!(installed, Installed::Ours { intact: true, .. });
        let policies = self.kept.as_ref().map(|Kept { policies, .. }| policies.as_slice());
        let policies = policies.unwrap_or_default();
        let (mut ports, mut drops) = (metrics::ports(), metrics::enforced_drops());
        for policy in policies {
            let count = match &policy.permitted {
                PermittedPorts::Set(ports) => ports.count(),
                PermittedPorts::Blocks(blocks) => blocks.ports().count(),
            };
            ports = ports.value(&[("policy", policy.name.as_str())], count);
        }
        let found = installed.table().filter(|_| is_intact).map(TableState::policies);
        for policy in found.unwrap_or_default().iter().filter(|policy| policy.enforces) {
            drops = drops.value(&[("policy", policy.name.as_str())], policy.drops);
        }
        let mut all = vec![
            metrics::build_info(),
            metrics::policy_info(policies),
            metrics::intact(is_intact && self.kept.is_some()),
            ports,
            drops,
        ];
        all.extend(self.guard_metrics());
        all.extend(Statistics::read().iter().flat_map(metrics::conntrack));
        metrics::text(all)
    }

    fn guard_metrics(&self) -> [Metric; 3] {
        let help = "How often the guard restored the table.";
        let restores = Metric::new("ephport_restores_total", "counter", help);
        let help = "How often the guard read a new policy file, by the result.";
        let reloads = Metric::new("ephport_reloads_total", "counter", help);
        let help = "Whether the guard owns the table: 1 or 0.";
        let owner = Metric::new("ephport_table_owned", "gauge", help);
        [
            restores.value(&[], self.counts.restores),
            reloads
                .value(&[("result", "success")], self.counts.reloads)
                .value(&[("result", "failure")], self.counts.failed_reloads),
            owner.value(&[], u8::from(self.client.is_owner())),
        ]
    }
}

/// Replace a file in one step: a reader sees the former text or this one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&new, path)
}
