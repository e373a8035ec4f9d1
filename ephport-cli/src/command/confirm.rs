//! `ephport-nft confirm`

use super::Failure;
use crate::Exit;
use crate::args::OutputArgs;
use crate::document::{Confirm, ConfirmResult, VERSION};
use crate::output::Output;
use crate::trial;

pub(crate) fn run(args: OutputArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let result = match trial::confirm()? {
        Some(true) => ConfirmResult::Confirmed,
        Some(false) => ConfirmResult::Superseded,
        None => ConfirmResult::None,
    };
    if args.json {
        output.document(&Confirm { version: VERSION, result });
    } else {
        let text = match result {
            ConfirmResult::Confirmed => "confirmed: the policy stays",
            ConfirmResult::Superseded => {
                "not confirmed: another process changed the policy or removed it"
            }
            ConfirmResult::None => "nothing to confirm: no `apply --confirm` waits",
        };
        writeln!(output, "{text}");
    }
    Ok(if result == ConfirmResult::Confirmed { Exit::Success } else { Exit::Differs })
}
