//! `ephport-nft apply`

use ephport_nft::Client;

use super::{Failure, document, plan};
use crate::Exit;
use crate::args::ApplyArgs;
use crate::document::{Apply, ApplyResult, VERSION};
use crate::output::Output;
use crate::render::Block;

pub(crate) fn run(args: ApplyArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let plan = plan(&document(args.source)?, output)?;
    let mut client = Client::open()?;
    let applied = if args.dry_run { client.dry_run(&plan)? } else { client.apply(&plan)? };
    let result = ApplyResult::new(applied, args.dry_run);
    if args.output.json {
        let policies = plan.resolved.iter().map(Into::into).collect();
        output.document(&Apply { version: VERSION, result, dry_run: args.dry_run, policies });
    } else {
        writeln!(output, "{} table inet ephport", result.name());
        for policy in &plan.resolved {
            writeln!(output, "\n{}", Block::policy(policy).lines().join("\n"));
        }
    }
    Ok(Exit::Success)
}
