//! `ephport-nft show`

use std::io::Write;

use serde_json::json;

use super::{Failure, Request};
use crate::Exit;
use crate::args::{Format, ShowArgs};
use crate::render;

pub(crate) fn run(
    args: ShowArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let format = if args.json { Format::Json } else { args.format };
    let Request { policy, ruleset } = Request::new(&args.policy.policy()?, err)?;
    match format {
        Format::Nft => write!(out, "{}", ruleset.listing())?,
        Format::Bytecode => write!(out, "{}", ruleset.bytecode())?,
        Format::Json => {
            let policies = [render::policy_json(&policy)];
            let rules = render::rules_json(&ruleset);
            writeln!(out, "{:#}", json!({ "policies": policies, "rules": rules }))?;
        }
    }
    Ok(Exit::Success)
}
