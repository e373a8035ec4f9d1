//! `ephport-nft diff`

use std::io::Write;

use ephport_nft::{Client, Error, Installed};
use serde_json::json;
use similar::{ChangeTag, TextDiff};

use super::{Failure, Request, document};
use crate::Exit;
use crate::args::RequestArgs;
use crate::render;

pub(crate) fn run(
    args: RequestArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let desired = Request::new(&document(args.source)?, err)?.ruleset;
    let installed = Client::open()?.installed()?;
    let drifts = installed.drift(&desired)?;
    let is_same = drifts.is_empty();
    let before = match &installed {
        Installed::Absent => String::new(),
        Installed::Foreign(_) => return Err(Error::Foreign.into()),
        Installed::Ours { ruleset, .. } => ruleset.normalized().to_nft().to_string(),
    };
    let after = desired.normalized().to_nft().to_string();
    let diff = TextDiff::from_lines(&before, &after);
    if args.output.json {
        let lines = |tag| {
            let changes = diff.iter_all_changes().filter(|change| change.tag() == tag);
            changes.map(|change| change.value().trim().to_string()).collect::<Vec<_>>()
        };
        let (removed, added) = (lines(ChangeTag::Delete), lines(ChangeTag::Insert));
        let result = json!({
            "different": !is_same,
            "drift": render::drifts_json(&drifts),
            "removed": removed,
            "added": added,
        });
        writeln!(out, "{result:#}")?;
    } else {
        drifts.iter().try_for_each(|drift| writeln!(out, "{drift}"))?;
        write!(out, "{}", diff.unified_diff().header("installed", "policy"))?;
    }
    Ok(if is_same { Exit::Success } else { Exit::Differs })
}
