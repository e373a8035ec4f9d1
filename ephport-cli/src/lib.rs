//! The command line of ephport: arguments become a request, the libraries carry it out, the result
//! is printed. The binary `ephport-nft` calls [`run`].
//!
//! [`lab`] makes whole networks inside this process, out of private namespaces; [`demo`] shows in
//! one of them what a policy does to real packets. Neither needs privileges, and neither changes
//! the host.
#![forbid(unsafe_code)]

mod advice;
mod args;
mod colour;
mod command;
pub mod demo;
mod document;
mod files;
mod guard;
mod journal;
pub mod lab;
mod metrics;
mod output;
mod policy_args;
mod render;
mod time;
mod trial;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;

use args::Command;
use command::Failure;
use document::Level;
use output::Output;

/// The exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: success, or the answer is "yes".
    Success,
    /// 1: failure; the kernel is as it was.
    Failure,
    /// 2: the arguments are wrong.
    Usage,
    /// 3: success, and the answer is "no": drifted, absent, void, different.
    Differs,
}

impl Exit {
    const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Usage, Self::Differs];

    /// Its number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Differs => 3,
        }
    }

    /// The exit code with this number; failure for any other.
    fn from_code(code: i32) -> Self {
        let found = Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code);
        found.unwrap_or(Self::Failure)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Run one command line, whose first word is the program's name. Commands that read standard input
/// read `input`; results go to `out`, messages to `err`.
///
/// A stream that cannot be written does not change what the command does to the kernel, nor its
/// verdict.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let args: Vec<_> = args.into_iter().collect();
    let is_json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let mut output = Output::new(out, err, is_json);
    let (command, colour) = match args::parse(args) {
        Ok(args) => (args.command, args.color),
        Err(error) => {
            let exit = usage(&error, &mut output);
            return output.finish(exit, true);
        }
    };
    // The output of these commands is all that they do.
    let output_is_all = matches!(
        command,
        Command::Show(_) | Command::Import(_) | Command::Schema(_) | Command::Completions(_)
    );
    let result = match command {
        Command::Apply(args) => command::apply::run(args, &mut output),
        Command::Confirm(args) => command::confirm::run(args, &mut output),
        Command::Remove(args) => command::remove::run(args, &mut output),
        Command::Status(args) => command::status::run(&args, &mut output),
        Command::Doctor(args) => command::doctor::run(args, &mut output),
        Command::Guard(args) => command::guard::run(args, &mut output),
        Command::Diff(args) => command::diff::run(args, &mut output),
        Command::Explain(args) => command::explain::run(args, &mut output),
        Command::Import(args) => command::import::run(args, input, &mut output),
        Command::Show(args) => command::show::run(args, &mut output),
        Command::Usage(args) => command::usage::run(args, &mut output),
        Command::Whose(args) => command::whose::run(args, &mut output),
        Command::Demo(args) => command::demo::run(args, colour, &mut output),
        Command::Man(args) => command::man::run(args, &mut output),
        Command::Completions(args) => Ok(command::completions::run(args, &mut output)),
        Command::Schema(args) => Ok(command::schema::run(args, &mut output)),
    };
    let exit = result.unwrap_or_else(|failure| fail(&failure, &mut output));
    output.finish(exit, output_is_all)
}

/// Print a message of clap: help and version are not errors.
fn usage(error: &clap::Error, output: &mut Output<'_>) -> Exit {
    let text = error.to_string();
    if !error.use_stderr() {
        write!(output, "{text}");
        return Exit::Success;
    }
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    output.message(Level::Error, "usage", None, message.trim_end());
    Exit::Usage
}

fn fail(failure: &Failure, output: &mut Output<'_>) -> Exit {
    output.message(Level::Error, failure.kind(), None, &failure.to_string());
    Exit::Failure
}
