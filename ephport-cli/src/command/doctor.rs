//! `ephport-nft doctor`

mod files;
mod fix;

use std::path::{Path, PathBuf};

use ephport_core::{DefaultRoute, Document, Family, HostFacts, ResolveError};
use ephport_nft::client::Interference;
use ephport_nft::doctor::{Observed, conntrack, findings};
use ephport_nft::{Client, Installed, Plan, PlanError, host};

use super::status::services_in_set;
use super::{DEFAULT_FILE, Failure, read_document};
use crate::Exit;
use crate::advice::Advised;
use crate::args::{RequestArgs, SourceArgs};
use crate::document::{
    self, DoctorDocument, Finding, Level, NatChainDocument, UplinkDocument, VERSION, Warning,
};
use crate::lab::{Host, LabError};
use crate::output::Output;
use crate::render::{Block, wrapped};
use fix::finding;

pub(crate) fn run(args: RequestArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let (document, file) = source(args.source)?;
    let examination = Examination::of(document.as_ref(), file.as_deref())?;
    for warning in &examination.warnings {
        output.message(Level::Warning, warning.kind(), None, warning.message());
    }
    if args.output.json {
        output.document(&examination.document());
    } else {
        examination.print(output);
    }
    Ok(if examination.findings.is_empty() { Exit::Success } else { Exit::Differs })
}

/// The policies, unless none are named and the default file does not exist; and their file.
fn source(source: SourceArgs) -> Result<(Option<Document>, Option<PathBuf>), Failure> {
    if let Some(policy) = source.policy.policy() {
        return Ok((Some(policy.into()), None));
    }
    let is_named = source.file.is_some();
    let path = source.file.unwrap_or_else(|| DEFAULT_FILE.into());
    let is_read = is_named || path.exists();
    let document = is_read.then(|| read_document(path.clone())).transpose()?;
    Ok((document, Some(path)))
}

/// What was found.
struct Examination {
    facts: HostFacts,
    observed: Observed,
    has_owned_tables: Option<bool>,
    plan: Option<Plan>,
    findings: Vec<Finding>,
    /// What was not checked.
    warnings: Vec<Warning>,
}

impl Examination {
    fn of(document: Option<&Document>, file: Option<&Path>) -> Result<Self, Failure> {
        let mut client = Client::open()?;
        let installed = client.installed()?;
        let mut facts = host::facts().map_err(Failure::Host)?;
        let is_remapped =
            installed.table().is_some_and(|table| !table.rewritten_ports().is_empty());
        if is_remapped || document.is_some_and(Document::remaps) {
            client.read_forwards(&mut facts)?;
        }
        if let Some(document) = document {
            facts = client.complete(facts, document.policies());
        }
        let observed = Observed::read(&mut client)?;
        let (mut found, mut warnings) = (Vec::new(), Vec::new());
        let plan = match document.map(|document| Plan::new(document.policies(), &facts)) {
            None => None,
            Some(Ok(plan)) => Some(plan),
            Some(Err(error @ PlanError::Resolve { source: ResolveError::NoUplink, .. })) => {
                found.push(finding("no-uplink", None, &error));
                None
            }
            Some(Err(error)) => return Err(error.into()),
        };
        found.extend(table(&installed, plan.as_ref(), &facts));
        found.extend(client.interferences(&facts)?.iter().map(interference));
        match &plan {
            Some(plan) => {
                if !plan.table.timeouts.is_empty() {
                    let others = client.timeout_conflicts(&facts)?;
                    found.extend(others.iter().map(interference));
                }
                match kernel(plan) {
                    Ok(finding) => found.extend(finding),
                    Err(error) => warnings.push(not_checked(&error)),
                }
                found.extend(plan.warnings.iter().map(|warning| {
                    finding(warning.name(), Some(warning.policy().to_string()), warning)
                }));
                found.extend(findings(plan, &facts, &observed).iter().map(of_library));
            }
            None => found.extend(conntrack(&observed).iter().map(of_library)),
        }
        found.extend(files::writable(file));
        let has_owned_tables = client.owning().ok().map(|client| client.is_owner());
        Ok(Self { facts, observed, has_owned_tables, plan, findings: found, warnings })
    }

    fn print(&self, output: &mut Output<'_>) {
        writeln!(output, "{}", self.host().lines().join("\n"));
        match self.findings.len() {
            0 => writeln!(output, "\nno findings"),
            1 => writeln!(output, "\n1 finding"),
            count => writeln!(output, "\n{count} findings"),
        }
        for Finding { kind, message, fix, .. } in &self.findings {
            writeln!(output, "\n{kind}");
            let fix = format!("fix: {fix}");
            for line in wrapped(message, 76).into_iter().chain(wrapped(&fix, 76)) {
                writeln!(output, "  {line}");
            }
        }
    }

    /// What was looked at.
    fn host(&self) -> Block {
        let mut block = Block::new("host");
        let owned = match self.has_owned_tables {
            Some(true) => ", a guard can own the table",
            Some(false) => ", no tables that outlive their owner: a guard restores the table",
            None => "",
        };
        block.row("kernel", format!("Linux {}{owned}", release()));
        let mut uplinks: Vec<_> = self.facts.default_routes.iter().map(uplink).collect();
        uplinks.dedup();
        block.row("uplinks", listed(&uplinks));
        let own = self.facts.own_ports();
        block.row("own ports", own.map_or_else(|| "unknown".into(), |ports| ports.to_string()));
        let chains: Vec<_> = self.observed.nat_chains.iter().map(ToString::to_string).collect();
        block.row("NAT chains", listed(&chains));
        if let Some(statistics) = &self.observed.statistics {
            let max = statistics.max_entries.map(|max| format!(" of {max}")).unwrap_or_default();
            block.row("conntrack", format!("{}{max} entries", statistics.entries));
        }
        block.row("policies", listed(&self.policies()));
        block
    }

    fn policies(&self) -> Vec<String> {
        let policies = self.plan.iter().flat_map(|plan| &plan.resolved);
        policies.map(|policy| policy.name.to_string()).collect()
    }

    fn document(&self) -> DoctorDocument {
        let uplink = |route: &DefaultRoute| UplinkDocument {
            interface: route.interface.to_string(),
            family: match route.family {
                Family::Ipv4 => "ipv4".into(),
                Family::Ipv6 => "ipv6".into(),
            },
            table: route.table,
            vrf: route.vrf.as_ref().map(ToString::to_string),
        };
        let statistics = self.observed.statistics.as_ref();
        let chains = self.observed.nat_chains.iter().map(|chain| NatChainDocument {
            priority: chain.priority,
            family: chain.family.into(),
            table: chain.table.clone(),
            chain: chain.chain.clone(),
        });
        DoctorDocument {
            version: VERSION,
            kernel: release(),
            has_owned_tables: self.has_owned_tables,
            uplinks: self.facts.default_routes.iter().map(uplink).collect(),
            own_ports: self.facts.own_ports().map(|ports| document::ports(&ports)),
            nat_chains: chains.collect(),
            conntrack_entries: statistics.map(|statistics| statistics.entries),
            conntrack_max_entries: statistics.and_then(|statistics| statistics.max_entries),
            policies: self.policies(),
            findings: self.findings.clone(),
            warnings: self.warnings.clone(),
        }
    }
}

/// Whether the kernel installs the policies, tried in a network namespace of its own.
fn kernel(plan: &Plan) -> Result<Option<Finding>, LabError> {
    let host = Host::new("doctor")?;
    let error = host.run(|| Client::open()?.apply(plan)).err();
    Ok(error.map(|error| finding("kernel", None, &Advised(&error))))
}

fn not_checked(error: &LabError) -> Warning {
    let message = format!("not checked: whether the kernel accepts the policies: {error}");
    Warning::new("kernel-not-checked", None, &message)
}

/// What is wrong with the table itself.
fn table(installed: &Installed, plan: Option<&Plan>, facts: &HostFacts) -> Vec<Finding> {
    let state = match (installed, plan) {
        (Installed::Absent, Some(_)) => ("not-installed", "the policies are not installed"),
        (Installed::Foreign(_), _) => {
            ("foreign", "table inet ephport exists, but ephport did not make it")
        }
        (Installed::Ours { intact: false, .. }, _) => {
            ("drifted", "another process changed table inet ephport")
        }
        (Installed::Ours { .. }, Some(plan)) if !installed.is_from(&plan.table) => {
            ("not-installed", "other policies are installed than these, or for another host")
        }
        (Installed::Ours { fingerprint, ruleset, .. }, None) => {
            let changed = fingerprint.as_ref().map(|found| found.facts.changed(facts));
            let services = ruleset.services_on_rewritten_ports(facts);
            match changed {
                Some(changed) if !changed.is_empty() => (
                    "outdated",
                    "the host has other uplinks, ports or addresses than when the table was applied",
                ),
                _ if !services.is_empty() => {
                    return vec![finding("services-in-set", None, &services_in_set(&services))];
                }
                _ => return Vec::new(),
            }
        }
        (Installed::Absent, None) | (Installed::Ours { .. }, Some(_)) => return Vec::new(),
    };
    vec![finding(state.0, None, &state.1)]
}

fn interference(other: &Interference) -> Finding {
    finding(other.name(), None, other)
}

fn of_library(found: &ephport_nft::doctor::Finding) -> Finding {
    finding(found.name(), found.policy().map(ToString::to_string), found)
}

fn uplink(route: &DefaultRoute) -> String {
    match route.to_string() {
        plain if plain.is_empty() => route.interface.to_string(),
        other => format!("{} ({other})", route.interface),
    }
}

fn listed(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

/// The release of the kernel.
fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "unknown".into(), |release| release.trim().into())
}
