//! `ephport-nft man`

use super::Failure;
use crate::Exit;
use crate::args::{self, ManArgs};
use crate::output::Output;

pub(crate) fn run(args: ManArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let ManArgs { directory: path } = args;
    match clap_mangen::generate_to(args::command(), &path) {
        Ok(()) => writeln!(output, "wrote man pages to {}", path.display()),
        Err(source) => return Err(Failure::Write { path, source }),
    }
    Ok(Exit::Success)
}
