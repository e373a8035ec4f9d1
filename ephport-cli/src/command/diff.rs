//! `ephport-nft diff`

use std::collections::BTreeSet;

use ephport_core::PolicyName;
use ephport_nft::plan::drift::Location;
use ephport_nft::{Applied, Client, Drift, Installed, Plan, TableState};
use similar::{ChangeTag, TextDiff};

use super::{Failure, document, plan};
use crate::Exit;
use crate::args::RequestArgs;
use crate::document::{ApplyResult, Diff, VERSION};
use crate::output::Output;
use crate::render::Block;

pub(crate) fn run(args: RequestArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let plan = plan(&document(args.source)?, output)?;
    let installed = Client::open()?.installed()?;
    let applied = installed.difference(&plan.table)?;
    let drift = installed.drift(&plan.table)?;
    let (before, after) =
        (installed.table().map(listing).unwrap_or_default(), listing(&plan.table));
    let diff = TextDiff::from_lines(&before, &after);
    let result = ApplyResult::new(applied, true);
    if args.output.json {
        let lines = |tag| {
            let changes = diff.iter_all_changes().filter(|change| change.tag() == tag);
            changes.map(|change| change.value().trim().to_string()).collect()
        };
        output.document(&Diff {
            version: VERSION,
            result,
            differences: drift.iter().map(Into::into).collect(),
            removed: lines(ChangeTag::Delete),
            added: lines(ChangeTag::Insert),
        });
    } else if applied != Applied::Unchanged {
        writeln!(output, "{} table inet ephport", result.name());
        for drift in &drift {
            writeln!(output, "  {drift}");
        }
        for block in changed(&plan, &installed, &drift) {
            writeln!(output, "\n{}", block.lines().join("\n"));
        }
        let mut lines = diff.unified_diff();
        write!(output, "\n{}", lines.context_radius(0).header("installed", "policy"));
    }
    Ok(if applied == Applied::Unchanged { Exit::Success } else { Exit::Differs })
}

/// The table in nft's syntax without its fingerprint, which differs whenever anything does.
fn listing(table: &TableState) -> String {
    table.normalized().to_nft().to_string()
}

/// The summaries of the policies that differ.
fn changed(plan: &Plan, installed: &Installed, drift: &[Drift]) -> Vec<Block> {
    let of_rules = drift.iter().filter_map(|drift| match &drift.location {
        Location::Rule { policy, .. } => policy.as_ref(),
        _ => None,
    });
    let named: BTreeSet<&PolicyName> = of_rules.collect();
    let is_absent = matches!(installed, Installed::Absent);
    let policies = plan.resolved.iter();
    let changed = policies.filter(|policy| is_absent || named.contains(&policy.name));
    changed.map(Block::policy).collect()
}
