//! Reading the table from the kernel, and changing it in one transaction.

mod beside;
mod error;
mod error_report;
mod events;
mod forwards;
mod installed;
mod interference;
mod location;
mod module;
mod open;
mod options;
mod owner;
mod readback;
mod remap;
mod request;
mod sockets;
mod status;
mod undo;
mod verdict;

pub use crate::netlink::{Interrupt, Limit, NamespaceError, Transport};
pub use error::{Cause, Error, Rejection};
pub use error_report::ErrorReport;
pub use events::{Event, Events};
pub use installed::Installed;
pub use interference::{Interference, InterferingEffect};
pub use location::{Item, RequestLocation};
pub use module::Module;
pub use open::OpenError;
pub use options::Options;
pub use request::{Object, Request};
pub use status::{Report, State, Status};
pub use undo::{Undo, Undone};

use installed::{classify, is_intact};
use options::Bounds;
use verdict::{CommitResult, verdict};

use crate::log;
use crate::netlink::{Namespace, NetlinkError, Socket, exchange};
use crate::nftables::{Generation, Table};
use crate::plan::transaction::Batch;
use crate::table::layout::{FAMILY, owner};
use crate::table::{TableId, TableState};

/// A handle on the nf_tables of one network namespace.
#[derive(Debug)]
pub struct Client<T = Socket> {
    transport: T,
    seq: u32,
    table: TableId,
    /// Whether the client owns the table.
    is_owner: bool,
    /// A connection to the kernel's sockets; without one, open connections are not considered.
    sockets: Option<Result<Socket, NetlinkError>>,
    not_adopted: Option<OpenError>,
    /// The connections whose translated port the last change replaced, and those that it ended.
    continued: usize,
    ended: usize,
    /// The network namespace of the transport; `None` for that of the calling thread.
    namespace: Option<Namespace>,
    bounds: Bounds,
    /// The generations that the last call began.
    generations: Vec<Generation>,
}

/// What [`Client::apply`] did, or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum Applied {
    /// The kernel's table is the desired one: nothing was changed.
    Unchanged,
    /// The table was added.
    Installed,
    /// Only the differences were changed: equal rules, sets and elements stayed, with their counters.
    Updated,
    /// The table was replaced in one transaction: the kernel cannot change all differences.
    Replaced,
}

impl<T: Transport> Client<T> {
    /// A client over `transport`. It does not consider connections that are open.
    pub fn with_transport(transport: T) -> Self {
        let table = TableId::default();
        Self {
            transport,
            seq: 0,
            table,
            is_owner: false,
            sockets: None,
            not_adopted: None,
            continued: 0,
            ended: 0,
            namespace: None,
            bounds: Bounds::default(),
            generations: Vec::new(),
        }
    }

    /// The same client for another table than the default one. It reads and changes only the table of this name, and
    /// only if its comment is this owner: any other is [`Installed::Foreign`]. Apply plans of the same table
    /// ([`Plan::in_table`](crate::Plan::in_table)).
    #[must_use]
    pub fn for_table(self, table: TableId) -> Self {
        Self { table, ..self }
    }

    /// The kernel's table with the client's table name.
    pub fn installed(&mut self) -> Result<Installed, Error> {
        Ok(self.snapshot()?.0)
    }

    /// The kernel's table with the client's table name. Sets that are those of `desired` share their elements with
    /// it, which halves the memory for large tables.
    pub fn installed_beside(&mut self, desired: &TableState) -> Result<Installed, Error> {
        self.check_table(desired)?;
        let (ruleset, _) = self.read_beside(desired)?;
        classify(ruleset, &self.table, is_intact)
    }

    /// The generations that the last [`apply`](Client::apply), [`restore`](Client::restore), [`undo`](Client::undo) or
    /// [`remove`](Client::remove) began, in order; none if it changed nothing. Events of these
    /// ([`Commit::generation`](crate::table::Commit)) are of own changes.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// Report what [`Client::apply`] would do now, and change nothing.
    ///
    /// # Errors
    /// [`Error::Foreign`] when the table is not ours to change, or that the kernel cannot be read.
    pub fn dry_run(&mut self, desired: &impl AsRef<TableState>) -> Result<Applied, Error> {
        let desired = desired.as_ref();
        self.check_table(desired)?;
        self.found_beside(desired)?.0.difference(desired)
    }

    /// Install `desired`, a [`Plan`](crate::Plan), with as few changes as possible. A second call changes
    /// nothing. Connections that are open when a policy is first installed continue, unless it has
    /// another value: an enforced policy is then installed in two transactions.
    ///
    /// # Errors
    /// [`Error`]; the kernel then has what it had before, except after [`Error::Unconfirmed`].
    pub fn apply(&mut self, desired: &impl AsRef<TableState>) -> Result<Applied, Error> {
        let desired = desired.as_ref();
        let _span = log::apply(desired);
        self.check_table(desired)?;
        self.changing(|client| {
            client.not_adopted = None;
            if client.sockets.is_none() {
                return client.install(desired);
            }
            client.install_around_connections(desired)
        })
    }

    /// Runs a call that changes the ruleset, unless it is a part of another one.
    fn changing<R>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if !self.is_in_call() {
            (self.continued, self.ended) = (0, 0);
            self.generations.clear();
        }
        self.bounded(call)
    }

    /// Install a table that was read back after [`apply`](Client::apply), in one transaction, with its
    /// counters and the connections that enforcement excepts. Connections that were opened while the table
    /// was absent are as any others: enforcement drops them if their port is not permitted. Nothing but the
    /// table is read, so that it is absent for as short as possible.
    ///
    /// # Errors
    /// [`Error`]; the kernel then has what it had before, except after [`Error::Unconfirmed`].
    pub fn restore(&mut self, table: &TableState) -> Result<Applied, Error> {
        self.check_table(table)?;
        self.changing(|client| {
            Ok(client.install_over(table, |_| true)?.unwrap_or(Applied::Unchanged))
        })
    }

    /// Install `desired` in one transaction over a table that `accepts` accepts; `None` if it does not.
    /// A table that is as desired is not asked about.
    fn install_over(
        &mut self,
        desired: &TableState,
        accepts: impl Fn(&Installed) -> bool,
    ) -> Result<Option<Applied>, Error> {
        let (mut may_update, mut is_update) = (true, false);
        let ownership = self.ownership();
        loop {
            let result = self.change(
                |nft| nft.found_beside(desired),
                |installed| {
                    let (applied, batch) = match installed.step(desired)? {
                        (Applied::Updated, _) if !may_update => {
                            (Applied::Replaced, Some(installed.replace(desired)))
                        }
                        step => step,
                    };
                    let (applied, batch) = ownership.take(installed, desired, applied, batch);
                    is_update = applied == Applied::Updated;
                    if batch.is_some() && !accepts(installed) {
                        return Ok((None, None));
                    }
                    Ok((Some(applied), batch))
                },
            );
            match result {
                // Some kernels refuse to delete a chain in the transaction that deletes the last rule
                // which jumps to it. All of them replace a table.
                Err(Error::Rejected(_) | Error::NoModule { .. }) if is_update => may_update = false,
                result => return result,
            }
        }
    }

    /// Deletes the table; `false` when there is none.
    ///
    /// # Errors
    /// [`Error`]; the kernel then has what it had before, except after [`Error::Unconfirmed`].
    pub fn remove(&mut self) -> Result<bool, Error> {
        self.changing(Self::remove_table)
    }

    fn remove_table(&mut self) -> Result<bool, Error> {
        let rewriting = self.leave_remapped()?;
        let deleted = self.delete_table();
        self.or_rewriting(rewriting.as_ref(), deleted)
    }

    /// Deletes the table, whatever its connections.
    fn delete_table(&mut self) -> Result<bool, Error> {
        // Its content is not read: that is slow for a large table.
        let id = self.table.clone();
        let table = |nft: &mut Self| nft.settled(|nft| nft.read_table_only(FAMILY, id.name()));
        self.change(table, |table| match table {
            None => Ok((false, None)),
            Some(table) if !id.owns(table) => Err(Error::Foreign { table: id.name().into() }),
            Some(table) => Ok((true, Some(Batch::delete(table)))),
        })
    }

    /// The result of `work` in the network namespace of the transport.
    fn in_its_namespace<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
        match &self.namespace {
            Some(namespace) => Ok(namespace.run(work)?),
            None => Ok(work()),
        }
    }

    /// Reads, decides, and commits the decision unless another process changed the ruleset in between.
    fn change<S, R>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<(S, Generation), Error>,
        mut decide: impl FnMut(&S) -> Result<(R, Option<Batch>), Error>,
    ) -> Result<R, Error> {
        let max = self.bounds.tries;
        for tries in 0..max {
            self.check_limit()?;
            let (held, generation) = read(self)?;
            let (result, batch) = decide(&held)?;
            let Some(batch) = batch else { return Ok(result) };
            let has_sent = self.has_sent();
            self.begin_transaction()?;
            match self.commit(&batch, generation).map_err(|error| self.name_owner(error))? {
                CommitResult::Committed => {
                    self.generations.push(generation.next());
                    return Ok(result);
                }
                CommitResult::Outdated => {
                    self.end_refused_transaction(has_sent);
                    log::retry(tries, "another process changed the ruleset");
                    self.transport.backoff(tries);
                }
                CommitResult::Unclear(error) => {
                    return self.verify(generation, error, read, decide).map(|()| result);
                }
            }
        }
        Err(Error::Busy { tries: max })
    }

    fn commit(&mut self, batch: &Batch, generation: Generation) -> Result<CommitResult, Error> {
        let seq = self.next_seq();
        self.seq = seq.wrapping_add(batch.len()).wrapping_add(1);
        let datagram = batch.encode(seq, Some(generation))?;
        match exchange(&mut self.transport, &datagram) {
            Ok(answers) => match verdict(batch, seq, &answers)? {
                // A batch whose end is lost is acknowledged and not committed. Only the generation
                // shows it.
                CommitResult::Committed
                    if self.generation().ok().is_none_or(|now| now == generation) =>
                {
                    Ok(CommitResult::Unclear(Error::Dropped))
                }
                outcome => Ok(outcome),
            },
            // The kernel did not receive it.
            Err(error @ (NetlinkError::Send { .. } | NetlinkError::TooLarge { .. })) => {
                Err(error.into())
            }
            // It did, and may have committed it: an answer that does not fit in the socket's buffer is
            // lost (ENOBUFS), the transaction is not.
            Err(error) => Ok(CommitResult::Unclear(error.into())),
        }
    }

    /// Checks whether a batch was committed whose answers were lost: then nothing is left to do. If the
    /// generation is still `before`, it was not, because of `error`.
    fn verify<S, R>(
        &mut self,
        before: Generation,
        error: Error,
        read: impl Fn(&mut Self) -> Result<(S, Generation), Error>,
        mut decide: impl FnMut(&S) -> Result<(R, Option<Batch>), Error>,
    ) -> Result<(), Error> {
        let (held, generation) = read(self).map_err(|_| Error::Unconfirmed)?;
        match decide(&held) {
            Ok((_, None)) => Ok(()),
            _ if generation == before => Err(error),
            _ => Err(Error::Unconfirmed),
        }
    }

    /// The table that is to become `desired`, with which it shares what is equal. It is compared with `desired`, so
    /// its checksum, which takes as long as all else, is not computed: it counts as intact.
    fn found_beside(&mut self, desired: &TableState) -> Result<(Installed, Generation), Error> {
        let (ruleset, generation) = self.read_beside(desired)?;
        Ok((classify(ruleset, &self.table, |_, _| Ok(true))?, generation))
    }

    fn snapshot(&mut self) -> Result<(Installed, Generation), Error> {
        let id = self.table.clone();
        let (ruleset, generation) = self.read_table(FAMILY, id.name())?;
        Ok((classify(ruleset, &id, is_intact)?, generation))
    }

    /// Refuses a state of another table, or of another owner.
    fn check_table(&self, desired: &TableState) -> Result<(), Error> {
        let Table { family, name, .. } = &desired.table;
        if *family != FAMILY || name != self.table.name() {
            let (table, expected) = (name.clone(), self.table.name().into());
            return Err(Error::OtherTable { table, expected });
        }
        let owner = owner(&desired.table);
        // User data of another form is the kernel's to judge.
        let is_other = |owner: &String| owner != self.table.owner();
        if owner.as_ref().map_or(desired.table.userdata.is_none(), is_other) {
            let table = name.clone();
            return Err(Error::OtherOwner { table, owner, expected: self.table.owner().into() });
        }
        Ok(())
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }
}
