//! Apply a policy, and decide what to do after each error.
//!
//! As root: `cargo run -p ephport-nft --example apply -- 49152-61000`

use std::process::ExitCode;
use std::time::Duration;

use ephport_core::{Policy, PortSet};
use ephport_nft::client::{Options, State};
use ephport_nft::{Client, Error, Plan, host};

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The policy is installed.
    Nothing,
    /// The ruleset is as before, and the same call may succeed later.
    TryAgain(String),
    /// The ruleset is as before, and someone has to change something.
    Ask(String),
}

fn main() -> ExitCode {
    let ports = std::env::args().nth(1).unwrap_or_else(|| "49152-61000".into());
    match run(&ports) {
        Ok(Next::Nothing) => ExitCode::SUCCESS,
        Ok(Next::TryAgain(why)) => {
            eprintln!("{why}: try again");
            ExitCode::from(75) // EX_TEMPFAIL of sysexits.h
        }
        Ok(Next::Ask(what)) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Apply a policy that translates to `ports` on the uplinks of this host.
pub(crate) fn run(ports: &str) -> Result<Next, Box<dyn std::error::Error>> {
    let policy = Policy::to(ports.parse::<PortSet>()?).build()?;
    let plan = Plan::new(&[policy], &host::facts()?)?;
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    let mut client = Options::new().deadline(Duration::from_secs(5)).open()?;
    Ok(apply(&mut client, &plan))
}

/// Apply a plan, and decide by the result.
pub(crate) fn apply(client: &mut Client, plan: &Plan) -> Next {
    let error = match client.apply(plan) {
        Ok(applied) => {
            println!("{applied:?}");
            return Next::Nothing;
        }
        Err(error) => error,
    };
    match &error {
        // Only the ruleset shows whether the transaction was committed.
        Error::Unconfirmed => match client.status(plan) {
            Ok(status) if status.state == State::Intact && status.drift.is_empty() => Next::Nothing,
            _ => Next::TryAgain(error.to_string()),
        },
        // Other processes were faster, or the time was too short.
        Error::Busy { .. } | Error::DeadlineExceeded | Error::Cancelled | Error::Dropped => {
            Next::TryAgain(error.to_string())
        }
        // A sandbox or a missing capability.
        Error::NotPermitted { .. } => Next::Ask(format!("{error}: run it as root")),
        // The kernel lacks something. The error names it.
        Error::NoNfTables | Error::NoModule { .. } => Next::Ask(format!("{error}: modprobe it")),
        // The table belongs to another program: choose another name with `TableId`.
        Error::Foreign { table } => Next::Ask(format!("{error}: nft list table inet {table}")),
        // A guard keeps it, and restores what it is told to.
        Error::Owned { port_id, .. } => Next::Ask(format!("{error}: see process {port_id:?}")),
        // The kernel refused one operation: the rule, the attribute and the likely cause.
        Error::Rejected(rejection) => {
            let retry = rejection.cause == Some(ephport_nft::client::Cause::NoMemory);
            let text = error.to_string();
            if retry { Next::TryAgain(text) } else { Next::Ask(text) }
        }
        // All others, and those of later releases: sockets, conntrack, faults of this program.
        _ => Next::Ask(error.to_string()),
    }
}
