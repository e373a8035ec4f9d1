//! `ephport-nft show`

use std::io::Write;

use serde_json::json;

use super::{Failure, Request, document};
use crate::Exit;
use crate::args::{Format, ShowArgs};
use crate::render;

pub(crate) fn run(
    args: ShowArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let format = if args.json { Format::Json } else { args.format };
    let document = document(args.source)?;
    if format == Format::Toml {
        write!(out, "{}", document.to_toml())?;
        return Ok(Exit::Success);
    }
    let Request { policies, ruleset } = Request::new(&document, err)?;
    match format {
        Format::Bytecode => write!(out, "{}", ruleset.bytecode())?,
        Format::Json => {
            let policies = render::policies_json(&policies);
            let rules = render::rules_json(&ruleset);
            writeln!(out, "{:#}", json!({ "policies": policies, "rules": rules }))?;
        }
        Format::Nft | Format::Toml => write!(out, "{}", ruleset.to_nft())?,
    }
    Ok(Exit::Success)
}
