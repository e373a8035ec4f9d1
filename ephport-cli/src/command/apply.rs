//! `ephport-nft apply`

use std::thread;
use std::time::Duration;

use ephport_core::{Document, Protocol};
use ephport_nft::client::{OpenError, Undo, Undone};
use ephport_nft::sock_diag::SockDiagError;
use ephport_nft::{Applied, Client, Plan};

use super::{Failure, document, plan, refuse_if_guarded, warn_of_journal};
use crate::Exit;
use crate::advice::Advised;
use crate::args::ApplyArgs;
use crate::document::{Apply, ApplyResult, Confirmation, Level, VERSION, Warning};
use crate::journal::Journal;
use crate::output::Output;
use crate::render::Block;
use crate::trial::{self, End, Holder, Role, TrialError};

pub(crate) fn run(args: ApplyArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let document = document(args.source)?;
    let plan = plan(&document, output)?;
    let is_json = args.output.json;
    // What changes nothing is permitted beside a guard.
    if let Err(failure) = refuse_if_guarded()
        && !args.dry_run
        && Client::open()?.dry_run(&plan)? != Applied::Unchanged
    {
        return Err(failure);
    }
    let mut journal = args.journal.map(Journal::open).transpose()?;
    if let Some(seconds) = args.confirm {
        output.flush();
        return match trial::start()? {
            Role::Foreground(code) => Ok(Exit::from_code(code)),
            Role::Holder(holder) => {
                let journal = journal.as_mut().map(|journal| (journal, &document));
                try_out(&plan, holder, seconds, is_json, journal, output)
            }
        };
    }
    let mut client = Client::open()?;
    let applied = if args.dry_run { client.dry_run(&plan)? } else { client.apply(&plan)? };
    if let Some(journal) = &mut journal {
        warn_of_journal(journal.applied(&document), output);
    }
    let others = warnings(&mut client, &plan, output);
    let result = ApplyResult::new(applied, args.dry_run);
    if is_json {
        let dry_run = args.dry_run;
        output.document(&Apply { dry_run, ..report(&plan, others, result, None) });
    } else {
        print(&plan, result, output);
    }
    Ok(Exit::Success)
}

/// Warns of rules of other tables that make the policies void or assign timeouts too, and of connections that are not
/// considered. The kernel is as desired by now, whatever happens here.
fn warnings(client: &mut Client, plan: &Plan, output: &mut Output<'_>) -> Vec<Warning> {
    let others = client.interferences(&plan.facts).and_then(|mut others| {
        if !plan.table.timeouts.is_empty() {
            others.extend(client.timeout_conflicts(&plan.facts)?);
        }
        Ok(others)
    });
    let mut found = match others {
        Ok(others) => others.iter().map(|other| Warning::new(other.name(), None, other)).collect(),
        Err(error) => {
            let message = format!("cannot read the rules of other tables: {}", Advised(&error));
            vec![Warning::new("kernel", None, &message)]
        }
    };
    if let Some(error) = client.not_adopted() {
        let is_sctp = |error: &OpenError| {
            matches!(
                error,
                OpenError::Sockets(SockDiagError::NoModule { protocol: Protocol::Sctp })
            )
        };
        let matches_sctp =
            || plan.resolved.iter().any(|policy| policy.protocols.contains(Protocol::Sctp));
        let message = if is_sctp(error) {
            format!("open SCTP associations of this host may be translated or dropped: {error}")
        } else {
            format!("open UDP connections of this host may be translated: {error}")
        };
        if !is_sctp(error) || matches_sctp() {
            found.push(Warning::new("open-connections", None, &message));
        }
    }
    found.extend(ended(client).map(|message| Warning::new("ended-connections", None, &message)));
    for warning in &found {
        output.message(Level::Warning, warning.kind(), None, warning.message());
    }
    found
}

/// The connections that the last change ended, as a sentence.
pub(super) fn ended(client: &Client) -> Option<String> {
    let (_, ended) = client.renumbered();
    let connections = if ended == 1 { "connection" } else { "connections" };
    let message = format!("{ended} open {connections} ended: spread = remap sends other ports now");
    (ended > 0).then_some(message)
}

fn print(plan: &Plan, result: ApplyResult, output: &mut Output<'_>) {
    // One text: standard output is written line by line.
    let mut text = format!("{} table inet ephport", result.name());
    for policy in &plan.resolved {
        text.push_str("\n\n");
        text.push_str(&Block::policy(policy).lines().join("\n"));
    }
    writeln!(output, "{text}");
}

fn report(
    plan: &Plan,
    others: Vec<Warning>,
    result: ApplyResult,
    confirmation: Option<Confirmation>,
) -> Apply {
    let policies = plan.resolved.iter().map(Into::into).collect();
    let warnings = plan.warnings.iter().map(Into::into).chain(others).collect();
    Apply { version: VERSION, result, dry_run: false, confirmation, policies, warnings }
}

/// Apply, and undo it unless it is confirmed in time.
fn try_out(
    plan: &Plan,
    mut holder: Holder,
    seconds: u32,
    is_json: bool,
    mut journal: Option<(&mut Journal, &Document)>,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let mut client = Client::open()?;
    let (applied, undo) = client.apply_undoable(plan)?;
    if let Some((journal, document)) = &mut journal {
        warn_of_journal(journal.applied(document), output);
    }
    let others = warnings(&mut client, plan, output);
    let result = ApplyResult::new(applied, false);
    if !is_json {
        print(plan, result, output);
    }
    let confirmation = undo.map(|undo| {
        if !is_json {
            writeln!(
                output,
                "\nKeep it with Enter or `ephport-nft confirm` within {seconds} s; \
                 else it is undone."
            );
            output.flush();
        }
        let end = holder.wait(Duration::from_secs(seconds.into()), |user| {
            let message = format!("user {user} tried to confirm, and was refused");
            output.message(Level::Warning, "confirmation-refused", None, &message);
            output.flush();
        });
        conclude(&mut client, &undo, end, seconds)
    });
    let (confirmation, text) = confirmation.transpose()?.unzip();
    if let (Some(Confirmation::Undone), Some((journal, _))) = (confirmation, &mut journal) {
        warn_of_journal(journal.undone(), output);
    }
    if is_json {
        output.document(&report(plan, others, result, confirmation));
    } else if let Some(text) = text {
        writeln!(output, "{text}");
    }
    let stays = matches!(confirmation, None | Some(Confirmation::Confirmed));
    Ok(if stays { Exit::Success } else { Exit::Differs })
}

/// Keep or undo the change at the end of its trial.
fn conclude(
    client: &mut Client,
    undo: &Undo,
    end: End,
    seconds: u32,
) -> Result<(Confirmation, String), Failure> {
    const OTHER: &str = "another process changed the policy or removed it meanwhile";
    let reason = match end {
        End::Confirmed(asking) => {
            let is_installed = undo.is_installed(&client.installed()?);
            if let Some(asking) = asking {
                asking.answer(is_installed);
            }
            return Ok(if is_installed {
                (Confirmation::Confirmed, "confirmed: the policy stays".into())
            } else {
                (Confirmation::Superseded, format!("not confirmed: {OTHER}"))
            });
        }
        End::Timeout => format!("not confirmed within {seconds} s"),
        End::Signal(name) => format!("ended by {name}"),
        End::ForegroundEnded => "interrupted".into(),
    };
    Ok(match persistently(|| client.undo(undo)).map_err(TrialError::Undo)? {
        Undone::Restored => {
            (Confirmation::Undone, format!("{reason}: restored the table from before"))
        }
        Undone::Removed => {
            (Confirmation::Undone, format!("{reason}: removed the table, as there was none before"))
        }
        Undone::Superseded => {
            (Confirmation::Superseded, format!("{reason}: nothing is undone, because {OTHER}"))
        }
    })
}

/// The result of `undo`, tried up to five times with pauses of a second.
fn persistently<T, E>(mut undo: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut result = undo();
    for _ in 1..5 {
        if result.is_ok() {
            break;
        }
        thread::sleep(Duration::from_secs(1));
        result = undo();
    }
    result
}
