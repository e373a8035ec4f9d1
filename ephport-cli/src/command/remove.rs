//! `ephport-nft remove`

use ephport_nft::Client;

use super::apply::ended;
use super::{Failure, refuse_if_guarded, warn_of_journal};
use crate::Exit;
use crate::args::RemoveArgs;
use crate::document::{Level, Remove, RemoveResult, VERSION};
use crate::journal::Journal;
use crate::output::Output;

pub(crate) fn run(args: RemoveArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    refuse_if_guarded()?;
    let journal = args.journal.map(Journal::open).transpose()?;
    let mut client = Client::open()?;
    let is_removed = client.remove()?;
    if let Some(message) = ended(&client) {
        output.message(Level::Warning, "ended-connections", None, &message);
    }
    if let Some(mut journal) = journal {
        warn_of_journal(journal.removed(), output);
    }
    if args.output.json {
        let result = if is_removed { RemoveResult::Removed } else { RemoveResult::Absent };
        output.document(&Remove { version: VERSION, result });
    } else {
        writeln!(output, "{} table inet ephport", if is_removed { "removed" } else { "absent" });
    }
    Ok(Exit::Success)
}
