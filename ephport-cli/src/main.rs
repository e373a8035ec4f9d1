//! The binary `ephport-nft`.
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut input, mut out, mut err) =
        (io::stdin().lock(), io::stdout().lock(), io::stderr().lock());
    ephport_cli::run(std::env::args_os(), &mut input, &mut out, &mut err).into()
}
