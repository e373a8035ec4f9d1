//! The kernel's side: reading the table, and changing it in one transaction.

mod error;
mod events;
mod location;
mod module;
mod readback;
mod request;
mod status;
mod verdict;

pub use error::{Cause, Error, Refusal};
pub use events::{Event, Events};
pub use location::{Item, RequestLocation};
pub use module::Module;
pub use request::{Object, Request};
pub use status::{State, Status};

use verdict::{CommitResult, verdict};

use crate::netlink::{NetlinkError, Socket, Transport, exchange};
use crate::nftables::{Generation, Table};
use crate::plan::drift::{Drift, absent, drift};
use crate::plan::transaction::Batch;
use crate::table::layout::{FAMILY, TableId};
use crate::table::{Fingerprint, TableState};

/// How often a change is tried anew when somebody else changed the ruleset in between.
///
/// Each time at least one other succeeded, so that many who write at once all get their turn; the
/// bound only ends a war that nobody can win.
const MAX_TRIES: u32 = 128;

/// A handle on the nf_tables of one network namespace.
#[derive(Debug)]
pub struct Client<T = Socket> {
    transport: T,
    seq: u32,
    table: TableId,
}

/// What stands in the kernel under the name `inet ephport`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing.
    Absent,
    /// A table that ephport did not make.
    Foreign(TableState),
    /// A table that ephport made.
    Ours {
        /// All that is in it now.
        ruleset: TableState,
        /// What it was when it was signed; none if the fingerprint is gone.
        fingerprint: Option<Fingerprint>,
        /// Whether it still is what was signed.
        intact: bool,
    },
}

/// What [`Client::apply`] did, or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The kernel held it already; nothing was changed.
    Unchanged,
    /// There was no table before.
    Installed,
    /// Another policy's table, or a changed one, was made the desired one; what is in both stayed.
    Updated,
    /// The same by another table in its place: the kernel cannot change all that differs.
    Replaced,
}

impl Client<Socket> {
    /// The nf_tables of this thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self::with_transport(Socket::netfilter()?))
    }
}

impl<T: Transport> Client<T> {
    /// Speaks over `transport`.
    pub fn with_transport(transport: T) -> Self {
        Self { transport, seq: 0, table: TableId::default() }
    }

    /// The same client for another table than the default one.
    #[must_use]
    pub fn for_table(self, table: TableId) -> Self {
        Self { table, ..self }
    }

    /// What stands in the kernel under our table's name.
    pub fn installed(&mut self) -> Result<Installed, Error> {
        Ok(self.snapshot()?.0)
    }

    /// Report what [`Client::apply`] would do now, and change nothing.
    ///
    /// # Errors
    /// [`Error::Foreign`] when the table is not ours to change, or that the kernel cannot be read.
    pub fn dry_run(&mut self, desired: &impl AsRef<TableState>) -> Result<Applied, Error> {
        self.installed()?.difference(desired.as_ref())
    }

    /// Install `desired`, a [`Plan`](crate::Plan), in one transaction with as few changes as
    /// possible. A second call changes nothing.
    ///
    /// # Errors
    /// [`Error`]; the kernel then has what it had before, except after [`Error::Unconfirmed`].
    pub fn apply(&mut self, desired: &impl AsRef<TableState>) -> Result<Applied, Error> {
        let desired = desired.as_ref();
        self.check_table(desired)?;
        let mut is_update = false;
        let result = self.change(Self::snapshot, |installed| {
            let step = installed.step(desired)?;
            is_update = step.0 == Applied::Updated;
            Ok(step)
        });
        match result {
            // Some kernels refuse to delete a chain in the transaction that deletes the last rule
            // which leads to it. All of them take another table in the place of the old one.
            Err(Error::Refused(_) | Error::NoModule { .. }) if is_update => {
                self.change(Self::snapshot, |installed| match installed.step(desired)? {
                    (Applied::Updated, _) => Ok((Applied::Replaced, Some(Batch::replace(desired)))),
                    step => Ok(step),
                })
            }
            result => result,
        }
    }

    /// Takes our table away; `false` when there is none.
    pub fn remove(&mut self) -> Result<bool, Error> {
        // What is in it need not be read, which takes long for a large one.
        let id = self.table.clone();
        let table = |nft: &mut Self| nft.settled(|nft| nft.read_table_only(FAMILY, id.name()));
        self.change(table, |table| match table {
            None => Ok((false, None)),
            Some(table) if !id.owns(table) => Err(Error::Foreign),
            Some(table) => Ok((true, Some(Batch::delete(table)))),
        })
    }

    /// Reads, decides, and commits what was decided if nobody else wrote in between.
    fn change<S, R>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<(S, Generation), Error>,
        mut decide: impl FnMut(&S) -> Result<(R, Option<Batch>), Error>,
    ) -> Result<R, Error> {
        for tries in 0..MAX_TRIES {
            let (held, generation) = read(self)?;
            let (result, batch) = decide(&held)?;
            let Some(batch) = batch else { return Ok(result) };
            match self.commit(&batch, generation)? {
                CommitResult::Committed => return Ok(result),
                CommitResult::Outdated => self.transport.backoff(tries),
                CommitResult::Unclear(error) => {
                    return self.verify(generation, error, read, decide).map(|()| result);
                }
            }
        }
        Err(Error::Busy { tries: MAX_TRIES })
    }

    fn commit(&mut self, batch: &Batch, generation: Generation) -> Result<CommitResult, Error> {
        let seq = self.next_seq();
        self.seq = seq.wrapping_add(batch.len()).wrapping_add(1);
        let datagram = batch.encode(seq, generation)?;
        match exchange(&mut self.transport, &datagram) {
            Ok(answers) => match verdict(batch, seq, &answers)? {
                // A batch whose end the kernel does not get is acknowledged and forgotten. Only the
                // generation tells.
                CommitResult::Committed
                    if self.generation().ok().is_none_or(|now| now == generation) =>
                {
                    Ok(CommitResult::Unclear(Error::Dropped))
                }
                outcome => Ok(outcome),
            },
            // The kernel never got it.
            Err(error @ (NetlinkError::Send { .. } | NetlinkError::TooLarge { .. })) => {
                Err(error.into())
            }
            // It did, and may have carried it out: an answer that does not fit the socket's buffer
            // is lost (ENOBUFS), and the transaction still holds.
            Err(error) => Ok(CommitResult::Unclear(error.into())),
        }
    }

    /// Looks whether a batch was carried out whose answers were lost: then nothing is left to do.
    /// If nobody has written since `before`, it was not, and `error` says why.
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

    fn snapshot(&mut self) -> Result<(Installed, Generation), Error> {
        let id = self.table.clone();
        let (ruleset, generation) = self.read_table(FAMILY, id.name())?;
        Ok((classify(ruleset, &id)?, generation))
    }

    /// Another table than ours is never changed, whoever made it.
    fn check_table(&self, desired: &TableState) -> Result<(), Error> {
        let Table { family, name, .. } = &desired.table;
        if *family == FAMILY && name == self.table.name() {
            return Ok(());
        }
        Err(Error::OtherTable { table: name.clone(), expected: self.table.name().into() })
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }
}

fn classify(ruleset: Option<TableState>, id: &TableId) -> Result<Installed, Error> {
    let Some(ruleset) = ruleset else { return Ok(Installed::Absent) };
    if !id.owns(&ruleset.table) {
        return Ok(Installed::Foreign(ruleset));
    }
    let fingerprint = ruleset.fingerprint();
    let checksum = ruleset.checksum()?;
    let intact = fingerprint.as_ref().is_some_and(|fingerprint| fingerprint.checksum == checksum);
    Ok(Installed::Ours { ruleset, fingerprint, intact })
}

impl Installed {
    /// What it takes to make the kernel hold `desired` instead.
    ///
    /// # Errors
    /// [`Error::Foreign`] when the table is not ours to change.
    pub fn difference(&self, desired: &TableState) -> Result<Applied, Error> {
        self.step(desired).map(|(applied, _)| applied)
    }

    /// The same, with the transaction that does it.
    fn step(&self, desired: &TableState) -> Result<(Applied, Option<Batch>), Error> {
        let ruleset = match self {
            Self::Absent => return Ok((Applied::Installed, Some(Batch::replace(desired)))),
            Self::Foreign(_) => return Err(Error::Foreign),
            Self::Ours { ruleset, .. } => ruleset,
        };
        let checksum = |table: &TableState| table.fingerprint().map(|found| found.checksum);
        let is_signed = checksum(ruleset) == checksum(desired);
        if is_signed && ruleset.normalized() == desired.normalized() {
            return Ok((Applied::Unchanged, None));
        }
        Ok(match Batch::update(ruleset, desired) {
            Some(batch) => (Applied::Updated, Some(batch)),
            None => (Applied::Replaced, Some(Batch::replace(desired))),
        })
    }

    /// In what it differs from `desired`; nothing if, and only if, [`Installed::difference`] is
    /// [`Applied::Unchanged`].
    ///
    /// # Errors
    /// [`Error::Foreign`] when the table is not ours to change.
    pub fn drift(&self, desired: &TableState) -> Result<Vec<Drift>, Error> {
        match self {
            Self::Absent => Ok(vec![absent()]),
            Self::Foreign(_) => Err(Error::Foreign),
            Self::Ours { ruleset, .. } => Ok(drift(ruleset, desired)),
        }
    }
}
