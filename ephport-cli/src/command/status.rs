//! `ephport-nft status`
//!
//! The fingerprint in the table shows that the table was changed; only the policy shows what was
//! changed. The table is compared with the policy file if it was applied from it. A file that was
//! edited since would make its edits look like changes of the table.

use std::collections::HashSet;
use std::path::Path;

use ephport_core::{Address, HostFacts, PortSet, ResolveError};
use ephport_nft::client::{Interference, State};
use ephport_nft::conntrack::Statistics;
use ephport_nft::table::ChangedFact;
use ephport_nft::{
    Client, Installed, InstalledPolicy, Plan, PlanError, Status, TableState, Warning, host,
};

use super::{DEFAULT_FILE, Failure, plan_on, read_document};
use crate::Exit;
use crate::args::StatusArgs;
use crate::document::{self, Level, OpenConnections, PolicyStatus, Reason, VERSION, ports, rules};
use crate::output::Output;
use crate::render::Block;

pub(crate) fn run(args: &StatusArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let mut client = Client::open()?;
    let installed = client.installed()?;
    let mut facts = host::facts().map_err(Failure::Host)?;
    if installed.table().is_some_and(|table| !table.rewritten_ports().is_empty()) {
        client.read_forwards(&mut facts)?;
    }
    let policy = policy(&installed, &facts, output);
    let plan = policy.plan();
    let status = installed.status(plan.map(|plan| &plan.table));
    let report = Report {
        void: void(&status, &facts, client.interferences(&facts)?),
        outdated: outdated(&status, &policy, &facts),
        tracked: tracked(&status, &mut client, output),
        insert_failed: insert_failed(&status),
        status: &status,
        policy: &policy,
    };
    warn_of_timeouts(&status, &mut client, &facts, output)?;
    if plan.is_none() {
        for warning in &absent_addresses(&status, &facts) {
            output.warn(warning);
        }
    }
    if args.output.json {
        output.document(&report.document());
    } else {
        report.print(args.rules, output);
    }
    let is_effective = report.state() == document::State::Intact;
    Ok(if is_effective { Exit::Success } else { Exit::Differs })
}

/// Warns of rules of other tables that assign timeouts to connections, as the installed table does.
fn warn_of_timeouts(
    status: &Status,
    client: &mut Client,
    facts: &HostFacts,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    if let Installed::Ours { ruleset: table, .. } = &status.installed
        && !table.timeouts.is_empty()
    {
        for other in client.timeout_conflicts(facts)? {
            output.message(Level::Warning, other.name(), None, &other.to_string());
        }
    }
    Ok(())
}

/// The connections that found no free port, if the table is installed and conntrack counts them.
fn insert_failed(status: &Status) -> Option<u64> {
    if !matches!(status.installed, Installed::Ours { .. }) {
        return None;
    }
    Statistics::read().ok().map(|statistics| statistics.insert_failed)
}

/// The connections that conntrack knows, if the table excepts any from enforcement.
fn tracked(status: &Status, client: &mut Client, output: &mut Output<'_>) -> Option<HashSet<u32>> {
    let policies = status.installed.table().map(TableState::policies).unwrap_or_default();
    let is_excepted = |policy: &InstalledPolicy| {
        policy.open_connections.as_ref().is_some_and(|ids| !ids.is_empty())
    };
    if !policies.iter().any(is_excepted) {
        return Some(HashSet::new());
    }
    match client.tracked_ids() {
        Ok(ids) => Some(ids),
        Err(error) => {
            let message = format!("excepted connections that ended are counted too: {error}");
            output.message(Level::Warning, "open-connections", None, &message);
            None
        }
    }
}

/// The reasons why an intact table has no effect.
fn void(status: &Status, facts: &HostFacts, others: Vec<Interference>) -> Vec<Reason> {
    if status.state != State::Intact {
        return Vec::new();
    }
    let mut reasons: Vec<_> =
        others.into_iter().map(|other| Reason::new(other.name(), &other)).collect();
    let needs_uplinks = status.facts().is_some_and(|facts| facts.has_uplinks());
    if needs_uplinks && facts.uplinks.is_empty() {
        let message = "no interface has a default route, and a policy applies to the uplinks";
        reasons.push(Reason::new("no-uplink", &message));
    }
    reasons
}

/// The facts of the host that are not those for which an intact table was applied.
fn outdated(status: &Status, policy: &Policy, facts: &HostFacts) -> Vec<Reason> {
    // The policy makes the same table of both.
    if status.state != State::Intact || policy.plan().is_some() {
        return Vec::new();
    }
    let changed = status.facts().map(|then| then.changed(facts)).unwrap_or_default();
    let reason = |fact: ChangedFact| match fact {
        ChangedFact::Uplinks if facts.uplinks.is_empty() => None,
        ChangedFact::Uplinks => Some(differs("uplinks-changed", "the uplinks", &facts.uplinks)),
        ChangedFact::LocalPorts => {
            Some(differs("local-ports-changed", "the host's own ports", &facts.own_ports()))
        }
        ChangedFact::KeptSources => Some(differs(
            "kept-sources-changed",
            "the addresses that `auto` keeps on every output interface",
            &facts.kept_sources,
        )),
        _ => None,
    };
    let mut reasons: Vec<_> = changed.into_iter().filter_map(reason).collect();
    let table = status.installed.table();
    let services = table.map(|table| table.services_on_rewritten_ports(facts));
    let services = services.filter(|services| !services.is_empty());
    reasons.extend(services.map(|ports| Reason::new("services-in-set", &services_in_set(&ports))));
    reasons
}

/// The message about services on ports that the table rewrites.
pub(super) fn services_in_set(ports: &PortSet) -> String {
    format!(
        "services of this host, or those that it forwards to, are on ports {ports}, which spread = remap \
         rewrites: no packet reaches them; apply the policy again, which excludes these ports"
    )
}

fn differs<'a, T: ToString + 'a>(
    kind: &str,
    what: &str,
    now: impl IntoIterator<Item = &'a T>,
) -> Reason {
    let now: Vec<_> = now.into_iter().map(ToString::to_string).collect();
    let now = if now.is_empty() { "none".into() } else { now.join(", ") };
    Reason::new(
        kind,
        &format!(
            "{what} are now {now}, and were others when the table was applied; apply it again"
        ),
    )
}

/// The addresses that connections get and that no interface has.
fn absent_addresses(status: &Status, facts: &HostFacts) -> Vec<Warning> {
    let Installed::Ours { ruleset: table, .. } = &status.installed else { return Vec::new() };
    let mut warnings = Vec::new();
    for InstalledPolicy { name, addresses, .. } in table.policies() {
        for address in addresses {
            if let Address::Fixed(address) = address
                && !facts.has_address(address)
            {
                warnings.push(Warning::NoAddress { policy: name.clone(), address });
            }
        }
    }
    warnings
}

/// The policy to compare with.
#[expect(clippy::large_enum_variant, reason = "there is one value")]
enum Policy {
    /// There is no policy file that can be read.
    Unknown,
    /// The policy file is not what was applied.
    Other,
    /// The policy file needs an uplink, and there is none.
    NoUplink,
    /// The policy file, which is what was applied.
    File(Plan),
}

impl Policy {
    fn plan(&self) -> Option<&Plan> {
        match self {
            Self::File(plan) => Some(plan),
            Self::Unknown | Self::Other | Self::NoUplink => None,
        }
    }
}

fn policy(installed: &Installed, facts: &HostFacts, output: &mut Output<'_>) -> Policy {
    let Installed::Ours { fingerprint, .. } = installed else { return Policy::Unknown };
    if !Path::new(DEFAULT_FILE).exists() {
        return Policy::Unknown;
    }
    match read_document(DEFAULT_FILE.into()).and_then(|document| plan_on(&document, facts, output))
    {
        // Without a fingerprint, nothing contradicts the file.
        Ok(plan) if fingerprint.is_none() || installed.is_from(&plan.table) => Policy::File(plan),
        Ok(_) => Policy::Other,
        Err(Failure::Plan(PlanError::Resolve { source: ResolveError::NoUplink, .. })) => {
            Policy::NoUplink
        }
        Err(failure) => {
            let message = format!("nothing to compare with: {failure}");
            output.message(Level::Warning, failure.kind(), None, &message);
            Policy::Unknown
        }
    }
}

struct Report<'a> {
    status: &'a Status,
    policy: &'a Policy,
    void: Vec<Reason>,
    outdated: Vec<Reason>,
    /// The numbers of the connections that conntrack knows; `None` if they cannot be read.
    tracked: Option<HashSet<u32>>,
    /// The connections that conntrack could not insert.
    insert_failed: Option<u64>,
}

impl Report<'_> {
    fn state(&self) -> document::State {
        match self.status.state {
            State::Absent => document::State::Absent,
            State::Foreign => document::State::Foreign,
            State::Intact if !self.void.is_empty() => document::State::Void,
            State::Intact if !self.outdated.is_empty() => document::State::Outdated,
            State::Intact => document::State::Intact,
            _ => document::State::Drifted,
        }
    }

    fn print(&self, with_rules: bool, output: &mut Output<'_>) {
        writeln!(output, "{}: {}", self.state().name(), self.table());
        let reasons = self.void.iter().chain(&self.outdated);
        reasons.for_each(|reason| writeln!(output, "  {}", reason.message));
        if self.status.state == State::Drifted {
            self.print_drift(output);
        }
        let Installed::Ours { ruleset: table, .. } = &self.status.installed else { return };
        if let Some(count) = self.insert_failed.filter(|count| *count > 0) {
            writeln!(
                output,
                "  insert failures: {count} in the network namespace: no free port, or a duplicate"
            );
        }
        for installed in table.policies() {
            let resolved = self.policy.plan().map(|plan| plan.resolved.as_slice());
            let resolved = resolved.unwrap_or_default();
            let policy = resolved.iter().find(|policy| policy.name == installed.name);
            let mut block =
                policy.map_or_else(|| Block::installed_policy(&installed), Block::policy);
            block.row("translations attempted", installed.attempts.to_string());
            if installed.enforces {
                block.row("enforcement drops", installed.drops.to_string());
                if let Some(OpenConnections { excepted, open }) = self.open_connections(&installed)
                {
                    block.row(
                        "connections kept",
                        match open {
                            _ if excepted == 0 => "none".into(),
                            None => format!("{excepted} when first enforced"),
                            Some(open) => format!("{open} open of {excepted} when first enforced"),
                        },
                    );
                }
            }
            writeln!(output, "\n{}", block.lines().join("\n"));
        }
        if with_rules {
            print_rules(table, output);
        }
    }

    /// The connections that were open when enforcement was first applied.
    fn open_connections(&self, installed: &InstalledPolicy) -> Option<OpenConnections> {
        let ids = installed.open_connections.as_ref()?;
        let is_open = |ids: &[u32], tracked: &HashSet<u32>| {
            ids.iter().filter(|id| tracked.contains(id)).count()
        };
        let open = self.tracked.as_ref().map(|tracked| is_open(ids, tracked));
        Some(OpenConnections { excepted: ids.len(), open })
    }

    /// The table in one line.
    fn table(&self) -> String {
        match &self.status.installed {
            Installed::Absent => "there is no table inet ephport".into(),
            Installed::Foreign(_) => {
                "table inet ephport exists, but ephport did not make it".into()
            }
            Installed::Ours { fingerprint: Some(fingerprint), .. } => format!(
                "table inet ephport, ephport-nft {}, fingerprint {}",
                fingerprint.version, fingerprint.checksum
            ),
            Installed::Ours { fingerprint: None, .. } => {
                "table inet ephport, without its fingerprint".into()
            }
        }
    }

    fn print_drift(&self, output: &mut Output<'_>) {
        const NAME: &str = "to see all changes, name the policy: `ephport-nft diff FILE`";
        writeln!(output, "  changed by another process; `ephport-nft apply` restores it");
        match self.policy {
            Policy::Unknown | Policy::NoUplink => writeln!(output, "  {NAME}"),
            Policy::Other => {
                writeln!(output, "  {DEFAULT_FILE} is not what was applied;\n  {NAME}");
            }
            Policy::File(_) => writeln!(output, "  compared with {DEFAULT_FILE}:"),
        }
        self.status.drift.iter().for_each(|drift| writeln!(output, "  {drift}"));
    }

    fn document(&self) -> document::Status {
        let Self { status, policy, .. } = self;
        let fingerprint = match &status.installed {
            Installed::Ours { fingerprint, .. } => fingerprint.as_ref(),
            _ => None,
        };
        let table = status.installed.table();
        document::Status {
            version: VERSION,
            state: self.state(),
            written_by: fingerprint.map(|fingerprint| fingerprint.version.clone()),
            fingerprint: fingerprint.map(|fingerprint| fingerprint.checksum.to_string()),
            policy_file: matches!(policy, Policy::File(_)).then(|| DEFAULT_FILE.into()),
            void: self.void.clone(),
            outdated: self.outdated.clone(),
            drift: status.drift.iter().map(Into::into).collect(),
            insert_failed: self.insert_failed,
            policies: table.map(|table| self.policies(table)).unwrap_or_default(),
            rules: table.map(rules).unwrap_or_default(),
        }
    }

    fn policies(&self, table: &TableState) -> Vec<PolicyStatus> {
        let resolved = self.policy.plan().map(|plan| plan.resolved.as_slice()).unwrap_or_default();
        let status = |installed: InstalledPolicy| PolicyStatus {
            policy: resolved.iter().find(|policy| policy.name == installed.name).map(Into::into),
            name: installed.name.to_string(),
            to_ports: ports(&installed.to_ports),
            enforces: installed.enforces,
            translations_attempted: installed.attempts,
            enforcement_drops: installed.drops,
            open_connections: self.open_connections(&installed),
        };
        table.policies().into_iter().map(status).collect()
    }
}

/// The rules, chain by chain, as nft lists them.
fn print_rules(table: &TableState, output: &mut Output<'_>) {
    let listings = table.rule_listings();
    let mut chain = "";
    for (rule, listing) in table.rules.iter().zip(listings) {
        if rule.chain != chain {
            chain = &rule.chain;
            writeln!(output, "\nchain {chain}");
        }
        writeln!(output, "  {listing}");
    }
}
