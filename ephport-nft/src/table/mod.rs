//! One table with its chains, sets and rules: what policies compile to, and what is read back from the
//! kernel.

mod builders;
mod fingerprint;
mod id;
pub mod layout;
mod normalized;
mod set;

use ephport_core::{HostFacts, PortRange, PortSet, Protocol};

pub use builders::SetName;
pub(crate) use fingerprint::fingerprint_of;
pub use fingerprint::{ChangedFact, Checksum, FactChecksums, Fingerprint};
pub use id::{TableId, TableIdError};
pub use normalized::Normalized;
pub(crate) use set::KeyRange;
pub use set::{NormalizedSet, Set};

pub use crate::nftables::{
    Chain, Commit, CtTimeout, Element, ElementIter, ElementList, ElementRef, Elements, Generation,
    Rule, SetSpec, Table, UnknownObject,
};

/// A table with its chains, sets and rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// The table.
    pub table: Table,
    /// Its chains, in the order of their creation.
    pub chains: Vec<Chain>,
    /// Its sets, with their elements.
    pub sets: Vec<Set>,
    /// Its rules, chain by chain, each in order.
    pub rules: Vec<Rule>,
    /// Its timeouts of connections, which rules assign.
    pub timeouts: Vec<CtTimeout>,
    /// Objects that no policy compiles to. A table with one of them has drifted.
    pub unknown: Vec<UnknownObject>,
}

/// A table is its own state: what accepts a [`Plan`](crate::Plan) accepts a table too.
impl AsRef<TableState> for TableState {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl TableState {
    /// A table without chains, sets and rules.
    #[must_use]
    pub fn empty(table: Table) -> Self {
        let (chains, sets, rules) = (Vec::new(), Vec::new(), Vec::new());
        Self { table, chains, sets, rules, timeouts: Vec::new(), unknown: Vec::new() }
    }

    /// The ports on the wire whose packets get another port before conntrack sees them, and so before any service
    /// gets them (`spread = "remap"`).
    #[must_use]
    pub fn rewritten_ports(&self) -> PortSet {
        let maps = self.sets.iter().filter(|set| set.is_real_ports_map());
        maps.flat_map(Set::port_pairs).map(|(_, real)| PortRange::from(real)).collect()
    }

    /// Those of them on which services of this host listen, or that its other tables forward: nothing arrives there.
    #[must_use]
    pub fn services_on_rewritten_ports(&self, host: &HostFacts) -> PortSet {
        let listeners = host.service_ports(Protocol::Tcp).union(&host.service_ports(Protocol::Udp));
        listeners.union(&host.forwarded_ports).intersection(&self.rewritten_ports())
    }

    /// The rules of one chain.
    pub fn rules_of(&self, chain: &str) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }

    /// The timeouts of this name.
    #[must_use]
    pub fn timeout(&self, name: &str) -> Option<&CtTimeout> {
        self.timeouts.iter().find(|timeout| timeout.name == name)
    }

    /// The set of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|filled| filled.spec.name == name)
    }
}
