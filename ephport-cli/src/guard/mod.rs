//! The guard: one thread that waits for changes of the ruleset, the host and the policy file, and keeps the
//! policies installed.
//!
//! Each source of changes is subscribed to before it is first read, and drained before it is read again: no
//! change is missed. What has no notifications is compared at each recheck.

mod file;
mod log;
mod metrics;
mod notify;
pub(crate) mod presence;
mod report;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ephport_core::{Document, ResolvedPolicy};
use ephport_nft::client::{Event, Events};
use ephport_nft::host::{self, Changes};
use ephport_nft::table::Commit;
use ephport_nft::{Applied, Client, Installed, Plan, TableState};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::command::Failure;
use crate::document::{ApplyResult, LogLevel, LogLine};
use crate::journal::Journal;
use file::WatchedFile;
pub(crate) use log::Log;
use log::line;
use notify::Notifier;
use presence::Presence;
use wait::Source;

/// The signals that the guard handles.
const SIGNALS: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// The time until a failed change is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Facts of the host are read for at most one part in so many of the time: links and routes of a large host
/// may change all the time.
const FACTS_SHARE: u32 = 10;

/// What a guard does.
pub(crate) struct Settings {
    pub(crate) file: PathBuf,
    /// Where metrics are written.
    pub(crate) metrics: Option<PathBuf>,
    /// Where the policies are recorded.
    pub(crate) journal: Option<PathBuf>,
    /// Whether the table may be owned.
    pub(crate) may_own: bool,
    /// Whether the table is removed at the end.
    pub(crate) removes: bool,
    /// How often all is compared that has no notifications.
    pub(crate) recheck: Duration,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    File,
    Policies,
    Restoration,
    Metrics,
    Journal,
}

/// What the guard has counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    restores: u64,
    reloads: u64,
    failed_reloads: u64,
}

/// When something is due.
struct Due {
    recheck: Instant,
    /// A failed change is tried again.
    retry: Option<Instant>,
    /// The host changed, and its facts are read at this time or later.
    facts: Option<Instant>,
    /// The earliest time to read facts.
    facts_allowed: Instant,
    watchdog: Option<Instant>,
    metrics: Option<Instant>,
}

/// What the guard keeps installed.
struct Kept {
    /// The policies on the host, for metrics.
    policies: Vec<ResolvedPolicy>,
    /// Their table as it was read back, with its counters and the connections that enforcement excepts.
    table: TableState,
}

/// A resident guard.
pub(crate) struct Guard<'a, 'b> {
    settings: Settings,
    client: Client,
    port_id: u32,
    events: Events,
    /// Whether the commit that is being received changes the table.
    is_touched: bool,
    changes: Changes,
    file: WatchedFile,
    signals: SignalFd,
    presence: Presence,
    notifier: Notifier,
    log: Log<'a, 'b>,
    journal: Option<Journal>,
    document: Document,
    kept: Option<Kept>,
    due: Due,
    counts: Counts,
    /// What is wrong now, each of which is reported once.
    problems: BTreeMap<Area, String>,
    /// The rules of other tables that were reported.
    interferences: BTreeSet<String>,
}

impl<'a, 'b> Guard<'a, 'b> {
    /// Subscribe to all changes, and read the policy file.
    pub(crate) fn new(settings: Settings, log: Log<'a, 'b>) -> Result<Self, Failure> {
        let start = |error: nix::Error| Failure::Guard(error.into());
        let handled: SigSet = SIGNALS.into_iter().collect();
        handled.thread_block().map_err(start)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&handled, flags).map_err(start)?;
        let presence = Presence::take().map_err(Failure::Guard)?;
        let Some(presence) = presence else { return Err(another()) };
        // The first netfilter socket of a process has the number of the process as its port id.
        let client = Client::open()?;
        let client = if settings.may_own { client.owning()? } else { client };
        let port_id = client.port_id()?;
        let events = Events::open()?;
        let changes = Changes::open().map_err(Failure::Host)?;
        let mut file = WatchedFile::new(settings.file.clone()).map_err(start)?;
        let document = file.read()?;
        let journal = settings.journal.clone().map(Journal::open).transpose()?;
        let notifier = Notifier::from_environment();
        let now = Instant::now();
        let due = Due {
            recheck: now + settings.recheck,
            retry: None,
            facts: None,
            facts_allowed: now,
            watchdog: notifier.watchdog.map(|time| now + time),
            metrics: Some(now),
        };
        Ok(Self {
            settings,
            client,
            port_id,
            events,
            is_touched: false,
            changes,
            file,
            signals,
            presence,
            notifier,
            log,
            journal,
            document,
            kept: None,
            due,
            counts: Counts::default(),
            problems: BTreeMap::new(),
            interferences: BTreeSet::new(),
        })
    }

    /// Keep the policies installed until a signal ends it.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let owner = if self.client.is_owner() {
            "owns table inet ephport"
        } else if self.settings.may_own {
            "restores table inet ephport after changes: this kernel has no tables that outlive their owner"
        } else {
            "restores table inet ephport after changes"
        };
        self.log.write(&LogLine { message: Some(owner.into()), ..line(LogLevel::Info, "started") });
        self.apply("start")?;
        self.notifier.ready(&self.status());
        loop {
            for source in self.wait() {
                match source {
                    Source::Commits => self.follow_commits(),
                    Source::Host => self.follow_host(),
                    Source::File => {
                        self.file.drain();
                        self.reload("file", false);
                    }
                    Source::Asked => self.presence.answer(),
                    Source::Signal => match self.signal() {
                        None => {}
                        Some(Signal::SIGHUP) => self.reload("signal", true),
                        Some(signal) => return self.stop(signal),
                    },
                }
            }
            self.do_what_is_due();
        }
    }

    /// Read the facts of the host again, as soon as that is allowed.
    fn follow_host(&mut self) {
        if self.changes.take().unwrap_or(true) {
            let at = self.due.facts_allowed;
            self.due.facts.get_or_insert(at);
        }
    }

    fn signal(&self) -> Option<Signal> {
        let signal = self.signals.read_signal().ok()??;
        Signal::try_from(i32::try_from(signal.ssi_signo).ok()?).ok()
    }

    fn stop(mut self, signal: Signal) -> Result<(), Failure> {
        self.notifier.stopping();
        let result = if self.settings.removes { self.client.remove().map(drop) } else { Ok(()) };
        let removes = self.settings.removes && result.is_ok();
        let recorded = self.journal.as_mut().filter(|_| removes).map(Journal::removed);
        self.report_journal(signal.as_str(), recorded, "the table is removed");
        let message = if self.settings.removes { "removed the table" } else { "the policy stays" };
        let cause = Some(signal.as_str().into());
        let message = result.is_ok().then(|| message.into());
        self.log.write(&LogLine { cause, message, ..line(LogLevel::Info, "stopped") });
        Ok(result?)
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(self.due.watchdog) {
            self.notifier.alive();
            self.due.watchdog = self.notifier.watchdog.map(|time| now + time);
        }
        if is_due(self.due.facts) {
            self.due.facts = None;
            self.follow("host");
        }
        if is_due(self.due.retry) {
            self.due.retry = None;
            self.follow("host");
            self.restore(None);
        }
        if self.due.recheck <= now {
            self.due.recheck = now + self.settings.recheck;
            self.recheck();
        }
        if is_due(self.due.metrics) {
            self.due.metrics = None;
            self.write_metrics();
        }
    }

    /// Compare all that has no notifications: sysctls, the file if its directory cannot be watched, and the
    /// rules of other tables; and read the counters.
    fn recheck(&mut self) {
        self.reload("recheck", false);
        self.follow("recheck");
        self.restore(None);
        self.report_interferences();
        self.due.metrics = Some(Instant::now());
    }

    /// Read the file, and apply it if it is another one, or if it is wanted anyway.
    fn reload(&mut self, cause: &str, is_wanted: bool) {
        let read = if is_wanted {
            self.notifier.reloading();
            Some(self.file.read())
        } else {
            self.file.read_if_changed()
        };
        match read {
            None => return,
            Some(Ok(document)) => {
                self.document = document;
                self.problems.remove(&Area::File);
                self.counts.reloads += 1;
                self.follow(cause);
            }
            Some(Err(failure)) => {
                self.counts.failed_reloads += 1;
                self.problems.remove(&Area::File); // Each bad file is reported.
                self.fail(Area::File, cause, &failure, "the former policy stays");
            }
        }
        self.due.metrics = Some(Instant::now());
        self.notifier.ready(&self.status());
    }

    /// Apply the policies to the host as it is now; a failure is tried again.
    fn follow(&mut self, cause: &str) {
        match self.apply(cause) {
            Ok(()) => drop(self.problems.remove(&Area::Policies)),
            Err(failure) => {
                self.fail(Area::Policies, cause, &failure, "what was installed stays");
            }
        }
    }

    /// Install the policies as this host has them now. Without an uplink there is nothing to install yet,
    /// which is no failure at the start.
    fn apply(&mut self, cause: &str) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut facts = host::facts().map_err(Failure::Host)?;
        if self.document.remaps() {
            self.client.read_forwards(&mut facts)?;
        }
        let facts = self.client.complete(facts, self.document.policies());
        self.due.facts_allowed = Instant::now() + begin.elapsed() * FACTS_SHARE;
        let plan = match Plan::new(self.document.policies(), &facts).map_err(Failure::from) {
            Err(failure) if cause == "start" && failure.is_no_uplink() => {
                self.fail(
                    Area::Policies,
                    cause,
                    &failure,
                    "it is tried again when the routes change",
                );
                return Ok(());
            }
            plan => plan?,
        };
        let same = |kept: &Kept| kept.table.fingerprint() == plan.table.fingerprint();
        let is_kept = self.kept.as_ref().is_some_and(same);
        if is_kept && ["host", "recheck"].contains(&cause) {
            return Ok(());
        }
        let applied = self.client.apply(&plan)?;
        let table = self.read_back(plan.table)?;
        self.kept = Some(Kept { policies: plan.resolved, table });
        let recorded = self.journal.as_mut().map(|journal| journal.applied(&self.document));
        self.report_journal(cause, recorded, "the policy is applied");
        self.log.write(&LogLine {
            cause: Some(cause.into()),
            result: Some(ApplyResult::new(applied, false).name()),
            microseconds: Some(micros(begin.elapsed())),
            ..line(LogLevel::Info, "applied")
        });
        for warning in &plan.warnings {
            let kind = Some(warning.name().into());
            let policy = Some(warning.policy().to_string());
            let message = Some(warning.to_string());
            self.log.write(&LogLine { kind, policy, message, ..line(LogLevel::Warning, "policy") });
        }
        self.report_interferences();
        self.due.metrics = Some(Instant::now());
        self.notifier.status(&self.status());
        Ok(())
    }

    /// The table as the kernel has it now, if it is this one.
    fn read_back(&mut self, desired: TableState) -> Result<TableState, Failure> {
        let installed = self.client.installed_beside(&desired)?;
        let is_same = installed.is_from(&desired);
        Ok(match installed {
            Installed::Ours { ruleset, intact: true, .. } if is_same => ruleset,
            _ => desired,
        })
    }

    /// Receive the changes of the ruleset: after one by another process, restore the table.
    fn follow_commits(&mut self) {
        let mut author = None;
        let mut is_changed = false;
        while let Some(event) = self.events.next_within(Duration::ZERO) {
            match event {
                Ok(Event::OtherTable { .. }) => {}
                Ok(Event::Generation(commit)) => {
                    let is_touched = std::mem::take(&mut self.is_touched);
                    if is_touched && commit.port_id != self.port_id {
                        is_changed = true;
                        author = Some(commit);
                    }
                }
                Ok(Event::Lost) | Err(_) => is_changed = true,
                Ok(_) => self.is_touched = true,
            }
        }
        if is_changed {
            self.restore(author);
        }
    }

    /// Install the table that is kept, if the kernel has another one.
    fn restore(&mut self, author: Option<Commit>) {
        let Some(kept) = &self.kept else { return };
        let begin = Instant::now();
        match self.client.restore(&kept.table) {
            Ok(Applied::Unchanged) => {}
            Ok(applied) => {
                self.counts.restores += 1;
                let (thread, thread_name) =
                    author.as_ref().map_or((None, None), |of| (of.thread, of.thread_name.clone()));
                self.log.write(&LogLine {
                    result: Some(ApplyResult::new(applied, false).name()),
                    thread,
                    thread_name,
                    port_id: author.map(|author| author.port_id),
                    microseconds: Some(micros(begin.elapsed())),
                    restores: Some(self.counts.restores),
                    ..line(LogLevel::Warning, "restored")
                });
                self.due.metrics.get_or_insert(begin + RETRY);
                self.notifier.status(&self.status());
            }
            Err(error) => {
                let failure = Failure::from(error);
                self.fail(Area::Restoration, "commit", &failure, "the table is not restored");
                return;
            }
        }
        self.problems.remove(&Area::Restoration);
        // With the counters of now, which the next restoration continues.
        if let Some(Kept { policies, table }) = self.kept.take() {
            let table = match self.read_back(table.clone()) {
                Ok(table) => table,
                Err(_) => table,
            };
            self.kept = Some(Kept { policies, table });
        }
    }
}

/// Another guard runs; it may have ended just now.
fn another() -> Failure {
    presence::running().map_or_else(
        || Failure::Guard(std::io::ErrorKind::AddrInUse.into()),
        |guard| Failure::Guarded { guard },
    )
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}
