//! Transactions: batches of operations that the kernel commits whole or not at all.
//!
//! The kernel answers each operation that fails and those that request an acknowledgement; it drops a
//! batch with one failure although it acknowledged other operations. Only the last operation requests
//! an acknowledgement: success is that one and no failure.
//!
//! [`Client`](crate::Client) sends them. A program that has its own netlink client sends them itself, alone or
//! among operations of its own:
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PortRange};
//! use ephport_nft::plan::Batch;
//! use ephport_nft::{Plan, TableId};
//!
//! let range: PortRange = "49152-61000".parse()?;
//! let policy = Policy::to(range).build()?;
//! let id = TableId::new("mine", "my program")?;
//! let plan = Plan::new(&[policy], &HostFacts::with_uplinks(["eth0".parse()?]))?.in_table(&id)?;
//! // One datagram with the messages 7, 8, ...: the kernel acknowledges the last operation.
//! let datagram = Batch::replace(&plan.table).encode(7, None)?;
//! // Single messages, between a beginning and an end of the caller's own.
//! let messages = Batch::add(&plan.table).messages(8)?;
//! assert_eq!(messages.len(), plan.operations().len());
//! assert!(datagram.len() > messages.concat().len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::diff::changes;
use super::operation::Operation;
use crate::netlink::{CodecError, Header, NfGenMsg, Writer};
use crate::nftables::expr::ObjRef;
use crate::nftables::{Chain, CtTimeout, Generation, Rule, Table};
use crate::table::TableState;
use crate::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES,
    NFPROTO_UNSPEC, NLM_F_ACK, NLM_F_REQUEST,
};

/// Operations that are committed together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(Vec<Operation>);

impl FromIterator<Operation> for Batch {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Self(operations.into_iter().collect())
    }
}

impl Extend<Operation> for Batch {
    fn extend<I: IntoIterator<Item = Operation>>(&mut self, operations: I) {
        self.0.extend(operations);
    }
}

impl Batch {
    /// Adds the table and its content to a ruleset; what is in the table already stays. The names of its chains and
    /// sets must be free, and so must the numbers of its sets in the batch (NFTA_SET_ID, from 1).
    #[must_use]
    pub fn add(ruleset: &TableState) -> Self {
        let mut operations = vec![Operation::AddTable(ruleset.table.normalized())];
        operations.extend(Self::content(ruleset));
        Self(operations)
    }

    /// Replaces whatever table has the name of that of `ruleset`: no packet and no reader sees the table
    /// missing.
    #[must_use]
    pub fn replace(ruleset: &TableState) -> Self {
        let plain = Table::new(ruleset.table.family, &ruleset.table.name);
        // Deleting what does not exist is an error, adding what exists is not.
        let mut operations =
            vec![Operation::AddTable(plain.clone()), Operation::DeleteTable(plain)];
        operations.extend(Self::add(ruleset).0);
        Self(operations)
    }

    /// Adds what is in a table.
    fn content(ruleset: &TableState) -> Vec<Operation> {
        let mut operations = Vec::new();
        operations.extend(ruleset.chains.iter().map(Chain::unnumbered).map(Operation::AddChain));
        for (filled, id) in ruleset.sets.iter().zip(1..) {
            operations.extend(Operation::fill(filled, id));
        }
        let timeout = |object: &CtTimeout| CtTimeout { handle: None, ..object.clone() };
        operations.extend(ruleset.timeouts.iter().map(timeout).map(Operation::AddTimeout));
        let rule = |rule: &Rule| Rule { handle: None, position: None, ..rule.clone() };
        operations.extend(ruleset.rules.iter().map(rule).map(Operation::AppendRule));
        operations
    }

    /// The fewest changes; `None` where the table must be replaced.
    #[must_use]
    pub fn update(installed: &TableState, desired: &TableState) -> Option<Self> {
        changes(installed, desired).map(Self)
    }

    /// Deletes a table with its content.
    #[must_use]
    pub fn delete(table: &Table) -> Self {
        Self(vec![Operation::DeleteTable(Table::new(table.family, &table.name))])
    }

    /// The same changes by the owner of the table: a table that the batch makes is owned.
    #[must_use]
    pub(crate) fn owned(mut self) -> Self {
        let is_table = |operation: &&mut Operation| matches!(operation, Operation::AddTable(_));
        if let Some(Operation::AddTable(table)) = self.0.iter_mut().rev().find(is_table) {
            *table = table.owned();
        }
        self
    }

    /// The changes of `self`, after the ownership of an orphan is taken.
    #[must_use]
    pub(crate) fn adopting(mut self, orphan: &Table) -> Self {
        let table = Table { userdata: None, other: Vec::new(), ..orphan.owned() };
        self.0.insert(0, Operation::AddTable(table));
        self
    }

    /// Adds a table.
    pub(crate) fn of_table(table: Table) -> Self {
        Self(vec![Operation::AddTable(table)])
    }

    /// Adds a table with these timeouts and a rule that assigns them.
    pub(crate) fn of_timeout(table: Table, timeout: CtTimeout) -> Self {
        let chain = Chain::regular(table.family, &table.name, "probe");
        let assign = ObjRef::timeout(&timeout.name).into();
        let rule = Rule::new(table.family, &table.name, &chain.name, vec![assign]);
        Self(vec![
            Operation::AddTable(table),
            Operation::AddTimeout(timeout),
            Operation::AddChain(chain),
            Operation::AppendRule(rule),
        ])
    }

    /// The same changes, and the deletion of a table that does not exist: no kernel commits them.
    pub(crate) fn failing(mut self, absent: Table) -> Self {
        self.0.push(Operation::DeleteTable(absent));
        self
    }

    /// One datagram for a socket of NETLINK_NETFILTER: the beginning of a batch with the sequence number `seq`, the
    /// operations with those after it, and the end. The last operation requests an acknowledgement. With a
    /// `generation` the kernel refuses the batch (ERESTART) when another process changed the ruleset since.
    ///
    /// # Errors
    /// An attribute or a message that is too long for netlink.
    pub fn encode(&self, seq: u32, generation: Option<Generation>) -> Result<Vec<u8>, CodecError> {
        let body = NfGenMsg { family: NFPROTO_UNSPEC, resource: NFNL_SUBSYS_NFTABLES }.to_bytes();
        let mut w = Writer::new();
        let begin = Header { message_type: NFNL_MSG_BATCH_BEGIN, flags: NLM_F_REQUEST, seq };
        w.message(begin, |w| {
            w.raw(&body);
            if let Some(Generation(number)) = generation {
                w.u32_be(NFNL_BATCH_GENID, number);
            }
        });
        let last = seq.wrapping_add(self.len());
        for (operation, seq) in self.0.iter().zip(seq.wrapping_add(1)..) {
            let mut header = operation.header(seq);
            if seq == last {
                header.flags |= NLM_F_ACK;
            }
            w.message(header, |w| operation.encode(w));
        }
        let end = Header {
            message_type: NFNL_MSG_BATCH_END,
            flags: NLM_F_REQUEST,
            seq: last.wrapping_add(1),
        };
        w.message(end, |w| w.raw(&body));
        w.finish()
    }

    /// The messages of the operations, with the sequence numbers from `seq`, for a batch of the caller's own. None
    /// requests an acknowledgement: the kernel answers only those that fail.
    ///
    /// # Errors
    /// An attribute or a message that is too long for netlink.
    pub fn messages(&self, seq: u32) -> Result<Vec<Vec<u8>>, CodecError> {
        let numbered = self.0.iter().zip(0u32..);
        numbered.map(|(operation, at)| operation.message(seq.wrapping_add(at))).collect()
    }

    /// The operations, in order.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation> {
        self.0
    }

    /// The operations, in order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.0
    }

    /// The count of operations.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}
