//! `ephport-nft remove`

use ephport_nft::Client;

use super::{Failure, refuse_if_guarded};
use crate::Exit;
use crate::args::OutputArgs;
use crate::document::{Remove, RemoveResult, VERSION};
use crate::output::Output;

pub(crate) fn run(args: OutputArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    refuse_if_guarded()?;
    let is_removed = Client::open()?.remove()?;
    if args.json {
        let result = if is_removed { RemoveResult::Removed } else { RemoveResult::Absent };
        output.document(&Remove { version: VERSION, result });
    } else {
        writeln!(output, "{} table inet ephport", if is_removed { "removed" } else { "absent" });
    }
    Ok(Exit::Success)
}
