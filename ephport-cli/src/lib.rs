//! The command line of ephport: arguments become a request, the library does it, the result is
//! printed. The binary `ephport-nft` calls [`run`].
//!
//! [`lab`] makes whole networks inside this process, out of private namespaces; [`demo`] shows in
//! one of them what a policy does to real packets. Neither needs privileges, and neither touches
//! the host.
#![forbid(unsafe_code)]

mod args;
mod command;
pub mod demo;
pub mod lab;
mod policy_args;
mod render;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use command::Failure;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or as it should be.
    Success,
    /// 1: it failed; the kernel is as it was.
    Failure,
    /// 2: the arguments are wrong.
    Usage,
    /// 3: done, and the answer is "no": drifted, absent, different.
    Differs,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Differs => Self::from(3),
        }
    }
}

/// Runs one command line, the program's name first: reads `input` where the command asks for it, and
/// prints to `out` and `err`.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return usage(&error, out, err),
    };
    let result = match args.command {
        Command::Apply(args) => command::apply::run(args, out, err),
        Command::Remove(args) => command::remove::run(args, out),
        Command::Status(args) => command::status::run(args, out, err),
        Command::Diff(args) => command::diff::run(args, out, err),
        Command::Explain(args) => command::explain::run(args, out, err),
        Command::Import(args) => command::import::run(args, input, out, err),
        Command::Show(args) => command::show::run(args, out, err),
        Command::Demo(args) => command::demo::run(args, out),
    };
    result.unwrap_or_else(|failure| fail(&failure, err))
}

/// What clap has to say: help and version are not errors.
fn usage(error: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    if error.use_stderr() {
        let _ = write!(err, "{error}");
        return Exit::Usage;
    }
    let _ = write!(out, "{error}");
    Exit::Success
}

fn fail(failure: &Failure, err: &mut dyn Write) -> Exit {
    // A reader that has enough, like `head`, is not an error.
    if !failure.is_broken_pipe() {
        let _ = writeln!(err, "error: {failure}");
    }
    Exit::Failure
}
