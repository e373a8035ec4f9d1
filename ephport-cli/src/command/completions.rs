//! `ephport-nft completions`

use crate::Exit;
use crate::args::{self, CompletionsArgs};
use crate::output::Output;

pub(crate) fn run(args: CompletionsArgs, output: &mut Output<'_>) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "ephport-nft", &mut script);
    // In a script for bash, clap_complete 4.6 reads the hyphen of the program's name for a subcommand in the
    // labels, and not where it sets them: it would complete no flag.
    let script = String::from_utf8_lossy(&script).replace("ephport__subcmd__nft", "ephport__nft");
    write!(output, "{script}");
    Exit::Success
}
