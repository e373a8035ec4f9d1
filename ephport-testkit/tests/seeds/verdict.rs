//! What the client said, against what the kernel has.

use ephport_nft::client::{State, Status, Undone};
use ephport_nft::table::layout::TABLE;
use ephport_nft::{Applied, Client, Error, Installed, Plan, TableState};
use ephport_testkit::Kernel;
use ephport_testkit::kernel::Commit;

/// What the client is asked to do.
#[derive(Clone, Copy)]
pub(crate) enum Task {
    Apply(&'static Plan),
    DryRun(&'static Plan),
    Status(&'static Plan),
    Remove,
    ApplyUndoable(&'static Plan),
    Undo,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Apply(_) => "apply",
            Self::DryRun(_) => "dry_run",
            Self::Status(_) => "status",
            Self::Remove => "remove",
            Self::ApplyUndoable(_) => "apply_undoable",
            Self::Undo => "undo",
        })
    }
}

/// The kernel before a call of the client, and each commit during it.
pub(crate) struct Seen {
    before: Kernel,
    commits: Vec<Commit>,
    /// The client's.
    port_id: u32,
}

/// A wrong verdict, in words.
pub(crate) type Said = Result<(), String>;

fn expect(is_true: bool, what: impl FnOnce() -> String) -> Said {
    if is_true { Ok(()) } else { Err(what()) }
}

/// Whether a table is that of a plan, with its fingerprint.
fn is_whole(installed: &Installed, table: &TableState) -> bool {
    let Installed::Ours { ruleset, fingerprint, intact: true } = installed else { return false };
    let checksum = fingerprint.as_ref().map(|fingerprint| fingerprint.checksum);
    ruleset.normalized() == table.normalized()
        && checksum == table.fingerprint().map(|fingerprint| fingerprint.checksum)
}

/// The table of a kernel, as a client without faults reads it.
fn installed(kernel: &Kernel) -> Installed {
    Client::with_transport(kernel.socket()).installed().expect("no fault")
}

impl Seen {
    pub(crate) fn new(before: Kernel, commits: Vec<Commit>, port_id: u32) -> Self {
        Self { before, commits, port_id }
    }

    /// The states of the kernel, the first before the call.
    pub(crate) fn states(&self) -> Vec<Kernel> {
        let commits = self.commits.iter().map(Commit::kernel);
        [self.before.snapshot()].into_iter().chain(commits).collect()
    }

    fn any(&self, is_it: impl Fn(&Installed) -> bool) -> bool {
        self.states().iter().any(|state| is_it(&installed(state)))
    }

    /// The client's own commits: the state before and after each.
    fn own(&self) -> Vec<(Installed, Installed)> {
        let states = self.states();
        let steps = self.commits.iter().zip(states.iter().zip(states.iter().skip(1)));
        let own = steps.filter(|(commit, _)| commit.port_id == self.port_id);
        own.map(|(_, (before, after))| (installed(before), installed(after))).collect()
    }

    pub(crate) fn applied(&self, plan: &Plan, result: &Result<Applied, Error>) -> Said {
        let own = self.own();
        let is_right = match (result, own.as_slice()) {
            (Ok(Applied::Unchanged), []) => self.any(|table| is_whole(table, &plan.table)),
            (Ok(Applied::Unchanged), _) => false,
            (Ok(applied), [(before, after)]) => {
                let was_absent = *before == Installed::Absent;
                is_whole(after, &plan.table) && was_absent == (*applied == Applied::Installed)
            }
            // The answers were lost, and another process installed the same.
            (Ok(_), []) => self.any(|table| is_whole(table, &plan.table)),
            (Err(Error::Unconfirmed), []) => true,
            (Err(Error::Unconfirmed), [(_, after)]) => is_whole(after, &plan.table),
            (Err(error), []) => return self.refused(error),
            _ => false,
        };
        expect(is_right, || self.described(result))
    }

    pub(crate) fn would_apply(&self, plan: &Plan, result: &Result<Applied, Error>) -> Said {
        self.nothing_done()?;
        let would = match result {
            Err(error) => return self.refused(error),
            Ok(would) => would,
        };
        let is_right = self.any(|table| match (table, would) {
            (Installed::Absent, Applied::Installed) => true,
            (Installed::Ours { .. }, Applied::Unchanged) => is_whole(table, &plan.table),
            (Installed::Ours { .. }, Applied::Updated | Applied::Replaced) => {
                !is_whole(table, &plan.table)
            }
            _ => false,
        });
        expect(is_right, || format!("said it would be {would:?}"))
    }

    pub(crate) fn status(&self, result: &Result<Status, Error>) -> Said {
        self.nothing_done()?;
        let status = match result {
            Err(error) => return self.refused(error),
            Ok(status) => status,
        };
        let is_right = self.any(|table| {
            let is_state = matches!(
                (table, status.state),
                (Installed::Absent, State::Absent)
                    | (Installed::Foreign(_), State::Foreign)
                    | (Installed::Ours { intact: true, .. }, State::Intact)
                    | (Installed::Ours { intact: false, .. }, State::Drifted)
            );
            is_state && *table == status.installed
        });
        expect(is_right, || format!("said {:?}", status.state))
    }

    pub(crate) fn removed(&self, result: &Result<bool, Error>) -> Said {
        let own = self.own();
        let is_absent = |table: &Installed| *table == Installed::Absent;
        let is_right = match (result, own.as_slice()) {
            (Ok(_), []) => self.any(is_absent),
            (Ok(true) | Err(Error::Unconfirmed), [(before, after)]) => {
                !is_absent(before) && is_absent(after)
            }
            (Err(Error::Unconfirmed), []) => true,
            (Err(error), []) => return self.refused(error),
            _ => false,
        };
        expect(is_right, || self.described(result))
    }

    /// `before` are the states during the apply that is undone: the table of one of them is restored.
    pub(crate) fn undone(&self, before: &[Kernel], result: &Result<Undone, Error>) -> Said {
        let own = self.own();
        let before: Vec<_> = before.iter().map(installed).collect();
        // Of a counter, quota and the like only the name is known.
        let known = |installed: &Installed| {
            let table = installed.table().cloned();
            table.map(|table| TableState { unknown: Vec::new(), ..table })
        };
        let is_restored = |found: &Installed| {
            let found = known(found);
            let found = found.as_ref().map(TableState::normalized);
            before.iter().any(|before| known(before).as_ref().map(TableState::normalized) == found)
        };
        let is_right = match (result, own.as_slice()) {
            (Ok(Undone::Superseded), own) => own.is_empty(),
            (Ok(_), []) => self.any(is_restored),
            (Ok(_) | Err(Error::Unconfirmed), [(_, after)]) => is_restored(after),
            (Err(Error::Unconfirmed), []) => true,
            (Err(error), []) => return self.refused(error),
            _ => false,
        };
        expect(is_right, || self.described(result))
    }

    /// What was said, and each state with its author.
    fn described(&self, result: &impl std::fmt::Debug) -> String {
        let author = |commit: &Commit| if commit.port_id == self.port_id { "own" } else { "other" };
        let authors = ["before"].into_iter().chain(self.commits.iter().map(author));
        let states = authors.zip(self.states()).map(|(author, state)| match installed(&state) {
            Installed::Absent => format!("{author}: no table"),
            Installed::Foreign(_) => format!("{author}: a foreign table"),
            Installed::Ours { ruleset, intact, .. } => {
                format!("{author}: intact {intact}\n{}", ruleset.to_nft())
            }
        });
        format!("said {result:?}\n{}", states.collect::<Vec<_>>().join("\n"))
    }

    fn nothing_done(&self) -> Said {
        expect(self.own().is_empty(), || "changed the kernel".into())
    }

    /// The client did nothing, and what its error says of the kernel is so.
    fn refused(&self, error: &Error) -> Said {
        let is_right = match error {
            Error::Foreign { table } => {
                table == TABLE && self.any(|table| matches!(table, Installed::Foreign(_)))
            }
            Error::Owned { .. } => self.any(|table| {
                table
                    .table()
                    .is_some_and(|table| table.table.owner.is_some_and(|id| id != self.port_id))
            }),
            Error::NotPermitted { .. } | Error::Encoding(_) | Error::OtherTable { .. } => false,
            _ => true,
        };
        expect(is_right, || format!("said {error:?}"))
    }
}
