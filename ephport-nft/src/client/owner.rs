//! Ownership of the table: the kernel lets no other process change it.
//!
//! A table with the flag `owner` belongs to one netlink socket (Linux 5.12). `nft flush ruleset` of another
//! process skips it. With the flag `persist` too (Linux 6.9), it stays when the socket is closed, whatever
//! ended its process, and the next owner adopts it with all of its counters. Without `persist` the kernel
//! deletes the table of a process that ends, and packets are sent with any port: so a table is owned only where
//! the kernel has both flags.

use ephport_core::{HostFacts, Policy, Protocol, Timeouts};

use super::request::{Object, Request};
use super::verdict::verdict;
use super::{Applied, Client, Error, Installed};
use crate::netlink::{Transport, exchange};
use crate::nftables::{CtTimeout, Table};
use crate::plan::transaction::Batch;
use crate::table::TableState;
use crate::table::layout::FAMILY;

/// A table that is never committed.
const PROBE: &str = "ephport/probe";

/// A table that never exists.
const ABSENT: &str = "ephport/absent";

impl<T: Transport> Client<T> {
    /// The same client, which owns the table from its next [`apply`](Client::apply) on; as it is where the
    /// kernel has no tables that outlive their owner ([`Client::is_owner`] is then false).
    ///
    /// The table is owned until the client is dropped, and stays. Another client may then change it.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be asked.
    pub fn owning(mut self) -> Result<Self, Error> {
        self.is_owner = self.can_own()?;
        Ok(self)
    }

    /// Whether the client owns its table from its next [`apply`](Client::apply) on, or since its last one.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.is_owner
    }

    /// Whether the kernel has tables that outlive their owner.
    fn can_own(&mut self) -> Result<bool, Error> {
        let table = Table::new(FAMILY, PROBE).owned();
        match self.try_out(Batch::of_table(table)) {
            Ok(()) => Ok(true),
            Err(Error::Rejected(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel can assign timeouts to connections (CONFIG_NF_CONNTRACK_TIMEOUT), for
    /// [`HostFacts::timeouts`](ephport_core::HostFacts::timeouts).
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be asked.
    pub fn knows_timeouts(&mut self) -> Result<bool, Error> {
        let timeouts = Timeouts::dns().groups(Protocol::Udp).swap_remove(0).1;
        let object = CtTimeout::new(FAMILY, PROBE, "probe", &timeouts);
        match self.try_out(Batch::of_timeout(Table::new(FAMILY, PROBE), object)) {
            Ok(()) => Ok(true),
            Err(Error::Rejected(_) | Error::NoModule { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The facts with those of the kernel on which the default of these policies depends, where it can be asked:
    /// whether it can assign timeouts.
    #[must_use]
    pub fn complete(&mut self, mut facts: HostFacts, policies: &[Policy]) -> HostFacts {
        let has_default = |policy: &Policy| {
            policy.spec().timeouts.is_none() && !policy.spec().timeouts().is_empty()
        };
        if policies.iter().any(has_default) {
            facts.timeouts = self.knows_timeouts().ok();
        }
        facts
    }

    /// Sends a transaction that no kernel commits: its last operation always fails.
    fn try_out(&mut self, batch: Batch) -> Result<(), Error> {
        let batch = batch.failing(Table::new(FAMILY, ABSENT));
        self.bounded(|client| client.send_failing(&batch))
    }

    fn send_failing(&mut self, batch: &Batch) -> Result<(), Error> {
        let max = self.bounds.tries;
        for tries in 0..max {
            self.check_limit()?;
            let generation = self.generation()?;
            let seq = self.next_seq();
            self.seq = seq.wrapping_add(batch.len()).wrapping_add(1);
            let answers = exchange(&mut self.transport, &batch.encode(seq, Some(generation))?)?;
            match verdict(batch, seq, &answers) {
                Err(Error::Rejected(rejection))
                    if rejection.request == Request::Delete(Object::Table(ABSENT.into())) =>
                {
                    return Ok(());
                }
                // Another process changed the ruleset: the kernel did not try the operations.
                Ok(_) => self.transport.backoff(tries),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Busy { tries: max })
    }

    pub(super) fn ownership(&self) -> Ownership {
        Ownership(self.is_owner.then(|| self.transport.port_id().unwrap_or_default()))
    }

    /// The error with the owner of the table, which the kernel does not name in it.
    pub(super) fn name_owner(&mut self, error: Error) -> Error {
        let Error::Owned { table, port_id: None } = error else { return error };
        let found = self.read_table_only(FAMILY, &table).ok().flatten();
        Error::Owned { table, port_id: found.and_then(|found| found.owner) }
    }
}

/// The port id of a client that owns its table.
#[derive(Clone, Copy)]
pub(super) struct Ownership(Option<u32>);

impl Ownership {
    /// The step to `desired` with which the client is the owner of the table.
    pub(super) fn take(
        self,
        installed: &Installed,
        desired: &TableState,
        applied: Applied,
        batch: Option<Batch>,
    ) -> (Applied, Option<Batch>) {
        let Some(port_id) = self.0 else { return (applied, batch) };
        let Installed::Ours { ruleset, .. } = installed else {
            return (applied, batch.map(Batch::owned));
        };
        let is_own = |table: &Table| table.owner == Some(port_id);
        match (applied, batch) {
            (Applied::Unchanged | Applied::Updated, batch) if is_own(&ruleset.table) => {
                (applied, batch)
            }
            (Applied::Unchanged | Applied::Updated, batch) if ruleset.table.is_orphan() => {
                (applied, Some(batch.unwrap_or_default().adopting(&ruleset.table)))
            }
            // A table without an owner cannot get one. The same table, with its counters, can replace it.
            (Applied::Unchanged, _) => (Applied::Replaced, Some(Batch::replace(ruleset).owned())),
            (Applied::Updated, _) => (Applied::Replaced, Some(installed.replace(desired).owned())),
            (_, batch) => (applied, batch.map(Batch::owned)),
        }
    }
}
