//! `ephport-nft remove`

use std::io::Write;

use ephport_nft::Client;
use serde_json::json;

use super::Failure;
use crate::Exit;
use crate::args::OutputArgs;

pub(crate) fn run(args: OutputArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let removed = Client::open()?.remove()?;
    let result = if removed { "removed" } else { "absent" };
    if args.json {
        writeln!(out, "{:#}", json!({ "result": result }))?;
    } else {
        writeln!(out, "{result} table inet ephport")?;
    }
    Ok(Exit::Success)
}
