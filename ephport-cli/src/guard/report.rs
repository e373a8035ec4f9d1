//! What the guard reports: log lines, and its status for the service manager.

use std::collections::BTreeSet;
use std::time::Instant;

use ephport_nft::host;

use super::log::line;
use super::{Area, Guard, RETRY};
use crate::advice::Advised;
use crate::command::Failure;
use crate::document::{LogLevel, LogLine};

impl Guard<'_, '_> {
    /// Report a failure, once, and try again later what may succeed then.
    pub(super) fn fail(&mut self, area: Area, cause: &str, failure: &Failure, consequence: &str) {
        if matches!(failure, Failure::Kernel(_) | Failure::Host(_)) {
            self.due.retry = Some(Instant::now() + RETRY);
        }
        let message = failure.to_string();
        if self.problems.get(&area) == Some(&message) {
            return;
        }
        self.log.write(&LogLine {
            cause: Some(cause.into()),
            kind: Some(failure.kind().into()),
            message: Some(format!("{failure}; {consequence}")),
            ..line(LogLevel::Error, "failed")
        });
        self.problems.insert(area, message);
        self.notifier.status(&self.status());
    }

    pub(super) fn report_journal(
        &mut self,
        cause: &str,
        recorded: Option<Result<(), Failure>>,
        consequence: &str,
    ) {
        match recorded {
            None => {}
            Some(Ok(())) => drop(self.problems.remove(&Area::Journal)),
            Some(Err(failure)) => self.fail(Area::Journal, cause, &failure, consequence),
        }
    }

    /// Report new rules of other tables that make the policies void or change their timeouts.
    pub(super) fn report_interferences(&mut self) {
        // Without facts, rules are reported that concern only servers of this host.
        let facts = host::facts().unwrap_or_default();
        let has_timeouts = self.kept.as_ref().is_some_and(|kept| !kept.table.timeouts.is_empty());
        let others = self.client.interferences(&facts).and_then(|mut others| {
            if has_timeouts {
                others.extend(self.client.timeout_conflicts(&facts)?);
            }
            Ok(others)
        });
        let others = match others {
            Ok(others) => others,
            Err(error) => {
                let message = Some(format!("cannot read other tables: {}", Advised(&error)));
                self.log.write(&LogLine { message, ..line(LogLevel::Warning, "kernel") });
                return;
            }
        };
        let mut found = BTreeSet::new();
        for other in others {
            let message = other.to_string();
            if !self.interferences.contains(&message) {
                let (kind, message) = (Some(other.name().into()), Some(message.clone()));
                let event = line(LogLevel::Warning, "interference");
                self.log.write(&LogLine { kind, message, ..event });
            }
            found.insert(message);
        }
        self.interferences = found;
    }

    /// One line for `systemctl status`.
    pub(super) fn status(&self) -> String {
        let count = self.kept.as_ref().map_or(0, |kept| kept.policies.len());
        let restores = self.counts.restores;
        let installed = format!("{count} policies installed, {restores} times restored");
        self.problems.values().fold(installed, |text, problem| format!("{text}; {problem}"))
    }
}
