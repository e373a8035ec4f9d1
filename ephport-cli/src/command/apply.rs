//! `ephport-nft apply`

use std::io::Write;

use ephport_nft::{Applied, Client};
use serde_json::json;

use super::{Failure, Request, document};
use crate::Exit;
use crate::args::ApplyArgs;
use crate::render;

pub(crate) fn run(
    args: ApplyArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let request = Request::new(&document(args.source)?, err)?;
    let mut nftables = Client::open()?;
    let applied = if args.dry_run {
        nftables.plan(&request.ruleset)?
    } else {
        nftables.apply(&request.ruleset)?
    };
    if args.output.json {
        let result = json!({
            "result": word(applied, false),
            "dry_run": args.dry_run,
            "policies": render::policies_json(&request.policies),
        });
        writeln!(out, "{result:#}")?;
    } else {
        writeln!(out, "{} table inet ephport", word(applied, args.dry_run))?;
        for policy in &request.policies {
            writeln!(out, "  {}", render::policy(policy))?;
        }
    }
    Ok(Exit::Success)
}

fn word(applied: Applied, dry_run: bool) -> &'static str {
    match (applied, dry_run) {
        (Applied::Unchanged, _) => "unchanged",
        (Applied::Installed, false) => "installed",
        (Applied::Installed, true) => "would install",
        (Applied::Updated, false) => "updated",
        (Applied::Updated, true) => "would update",
        (Applied::Replaced, false) => "replaced",
        (Applied::Replaced, true) => "would replace",
    }
}
