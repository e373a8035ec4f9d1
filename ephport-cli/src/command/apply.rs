//! `ephport-nft apply`

use ephport_nft::Client;

use super::{Failure, document, plan};
use crate::Exit;
use crate::advice::Advised;
use crate::args::ApplyArgs;
use crate::document::{Apply, ApplyResult, Level, VERSION, Warning};
use crate::output::Output;
use crate::render::Block;

pub(crate) fn run(args: ApplyArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let plan = plan(&document(args.source)?, output)?;
    let mut client = Client::open()?;
    let applied = if args.dry_run { client.dry_run(&plan)? } else { client.apply(&plan)? };
    // The kernel is as desired by now, whatever happens here.
    let others = client.interferences().unwrap_or_else(|error| {
        let message = format!("cannot read the rules of other tables: {}", Advised(&error));
        output.message(Level::Warning, "kernel", None, &message);
        Vec::new()
    });
    for other in &others {
        output.message(Level::Warning, other.name(), None, &other.to_string());
    }
    if let Some(error) = client.not_adopted() {
        let message = format!("open UDP connections of this host may be translated: {error}");
        output.message(Level::Warning, "open-connections", None, &message);
    }
    let result = ApplyResult::new(applied, args.dry_run);
    if args.output.json {
        let policies = plan.resolved.iter().map(Into::into).collect();
        let of_others = others.iter().map(|other| Warning::new(other.name(), None, other));
        let warnings = plan.warnings.iter().map(Into::into).chain(of_others).collect();
        let (version, dry_run) = (VERSION, args.dry_run);
        output.document(&Apply { version, result, dry_run, policies, warnings });
    } else {
        writeln!(output, "{} table inet ephport", result.name());
        for policy in &plan.resolved {
            writeln!(output, "\n{}", Block::policy(policy).lines().join("\n"));
        }
    }
    Ok(Exit::Success)
}
