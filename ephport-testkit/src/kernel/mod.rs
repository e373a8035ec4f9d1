//! A fake kernel: nf_tables of one network namespace, in memory.
//!
//! It is a state machine with the kernel's own nouns, and under each the functions of nf_tables_api.c that it
//! follows: generations, batches that are committed whole or not at all, acknowledgements with the offset of
//! the fault, dumps in slices, tables with an owner. A [`Socket`] is a
//! [`Transport`](ephport_nft::client::Transport) to it. Nothing waits and nothing is random unless a seed
//! says so: the same calls have the same answers.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PortRange};
//! use ephport_nft::{Applied, Client, Plan};
//! use ephport_testkit::Kernel;
//!
//! let kernel = Kernel::new();
//! let range: PortRange = "49152-61000".parse()?;
//! let policy = Policy::to(range).out(["eth0"]).build()?;
//! let plan = Plan::new(&[policy], &HostFacts::default())?;
//! let mut client = Client::with_transport(kernel.socket());
//! assert_eq!(client.apply(&plan)?, Applied::Installed);
//! assert_eq!(client.apply(&plan)?, Applied::Unchanged);
//! assert_eq!(kernel.table("ephport").map(|table| table.chains.len()), Some(plan.table.chains.len()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not have: packets, counters that count, flowtables, chains of netdev and bridge tables, the
//! renaming of chains, timeouts of elements, concatenated ranges, the change of a set's size, and the check of
//! each expression's registers. It answers as Linux 6.18 does: `tests/tests/fake_kernel.rs` compares them.

mod batch;
mod chains;
mod dump;
mod elements;
mod faults;
mod objects;
mod request;
mod rules;
mod ruleset;
mod sets;
mod socket;
mod tables;
mod validate;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ephport_nft::Errno;
use ephport_nft::TableState;
use ephport_nft::client::Client;
use ephport_nft::table::layout::FAMILY;

pub use faults::{Fault, Faults};
pub use socket::Socket;

use batch::{Handles, Processed};
use dump::Moment;
use ruleset::Ruleset;

// linux/netlink.h and linux/netfilter/nf_tables.h, what ephport itself does not use.
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_NONREC: u16 = 0x100;
const NFTA_CHAIN_USERDATA: u16 = 12;
const NFTA_SET_POLICY: u16 = 8;
const NFTA_SET_TIMEOUT: u16 = 11;
const NFTA_SET_GC_INTERVAL: u16 = 12;

/// nf_tables of one network namespace. Copies are the same namespace.
#[derive(Clone, Debug)]
pub struct Kernel(Arc<Mutex<State>>);

impl Default for Kernel {
    fn default() -> Self {
        Self::of(Ruleset::default())
    }
}

/// A committed transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The generation that it began.
    pub generation: u32,
    /// The port id of the socket that sent it; 0 for the kernel itself, when a socket with tables was closed.
    pub port_id: u32,
    ruleset: Ruleset,
}

#[derive(Debug, Default)]
struct State {
    ruleset: Ruleset,
    /// Rises whenever another ruleset is visible.
    version: u64,
    generation: u32,
    handles: Handles,
    /// A commit that has raised the generation, and whose changes are not visible yet.
    pending: Option<Pending>,
    commits: Vec<Commit>,
    sockets: u32,
    struck: Vec<Fault>,
}

/// A commit under way.
#[derive(Debug)]
struct Pending {
    ruleset: Ruleset,
    /// The count of calls until it is done.
    left: u32,
}

impl Kernel {
    /// A namespace without tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new socket, with a port id of its own.
    #[must_use]
    pub fn socket(&self) -> Socket {
        let mut state = self.lock();
        state.sockets += 1;
        Socket::new(self.clone(), 1000 + state.sockets)
    }

    /// The table of the family `inet` with this name, as a client without faults reads it.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<TableState> {
        let (table, _) = Client::with_transport(self.socket()).read_table(FAMILY, name).ok()?;
        table
    }

    /// The number of the current generation.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.lock().generation
    }

    /// The transactions that were committed since the last call, in order.
    #[must_use]
    pub fn take_commits(&self) -> Vec<Commit> {
        std::mem::take(&mut self.lock().commits)
    }

    /// The faults that struck since the last call, in order.
    #[must_use]
    pub fn take_faults(&self) -> Vec<Fault> {
        std::mem::take(&mut self.lock().struck)
    }

    /// A namespace of its own with the same tables.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut state = self.lock();
        state.finish();
        Self::of(state.ruleset.clone())
    }

    /// Another process commits the transaction of this datagram, which takes `calls` more calls of any
    /// sockets: meanwhile the generation is the new one, and the old ruleset is listed. A batch waits for it.
    pub fn commit_slowly(&self, datagram: &[u8], calls: u32) {
        let mut state = self.lock();
        let before = state.ruleset.clone();
        state.receive(0, datagram, None);
        let after = std::mem::replace(&mut state.ruleset, before);
        state.pending = Some(Pending { ruleset: after, left: calls });
    }

    fn of(ruleset: Ruleset) -> Self {
        let handles = Handles::after(&ruleset);
        let state = State { ruleset, handles, generation: 1, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commit {
    /// The namespace after this commit.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        Kernel::of(self.ruleset.clone())
    }
}

impl State {
    fn now(&self) -> Moment<'_> {
        Moment { ruleset: &self.ruleset, version: self.version, generation: self.generation }
    }

    /// A call passes.
    fn tick(&mut self) {
        match &mut self.pending {
            Some(Pending { left: 0, .. }) => self.finish(),
            Some(pending) => pending.left -= 1,
            None => {}
        }
    }

    /// Makes the changes of a commit under way visible.
    fn finish(&mut self) {
        if let Some(Pending { ruleset, .. }) = self.pending.take() {
            self.ruleset = ruleset;
            self.version += 1;
        }
    }

    /// Processes a batch of the socket with this port id.
    fn receive(
        &mut self,
        port_id: u32,
        datagram: &[u8],
        refused: Option<(usize, Errno)>,
    ) -> Vec<batch::Ack> {
        self.finish();
        let (handles, ruleset) = (&mut self.handles, &self.ruleset);
        let processed =
            batch::process(ruleset, self.generation, handles, port_id, datagram, refused);
        let Processed { acks, commit } = processed;
        if let Some(ruleset) = commit {
            self.commit(port_id, ruleset);
        }
        acks
    }

    fn commit(&mut self, port_id: u32, ruleset: Ruleset) {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.version += 1;
        self.ruleset = ruleset;
        let (generation, ruleset) = (self.generation, self.ruleset.clone());
        self.commits.push(Commit { generation, port_id, ruleset });
    }

    /// A socket is closed.
    fn close(&mut self, port_id: u32) {
        self.finish();
        let mut ruleset = self.ruleset.clone();
        let is_owner = |ruleset: &Ruleset| {
            ruleset.tables.iter().filter(|table| table.owner == port_id).count()
        };
        if is_owner(&ruleset) > 0 {
            ruleset.close(port_id);
            self.commit(0, ruleset);
        }
    }
}
