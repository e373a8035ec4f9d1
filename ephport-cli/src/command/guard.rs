//! `ephport-nft guard`

use std::time::Duration;

use super::{DEFAULT_FILE, Failure};
use crate::Exit;
use crate::args::GuardArgs;
use crate::guard::{Guard, Log, Settings};
use crate::output::Output;

pub(crate) fn run(args: GuardArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let GuardArgs { file, metrics, journal, no_owner, remove_at_exit, recheck, output: json } =
        args;
    let settings = Settings {
        file: file.unwrap_or_else(|| DEFAULT_FILE.into()),
        metrics,
        journal,
        may_own: !no_owner,
        removes: remove_at_exit,
        recheck: Duration::from_secs(recheck),
    };
    Guard::new(settings, Log::new(output, json.json))?.run()?;
    Ok(Exit::Success)
}
