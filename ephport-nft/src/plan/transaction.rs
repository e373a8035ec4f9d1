//! Transactions: a batch of operations that the kernel carries out whole or not at all.
//!
//! The kernel answers each operation that fails and, where asked, those that succeed; a batch with
//! one failure is dropped whole although other operations in it were acknowledged. We ask for one
//! acknowledgement, of the last operation: success is that one and no failure.

use super::diff::changes;
use super::operation::Operation;
use crate::netlink::{CodecError, Header, NfGenMsg, Writer};
use crate::nftables::{Generation, Table};
use crate::table::TableState;
use crate::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES,
    NFPROTO_UNSPEC, NLM_F_ACK, NLM_F_REQUEST,
};

/// Operations that are carried out together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(Vec<Operation>);

impl Batch {
    /// Puts `ruleset` in the place of whatever stands under its table's name: no packet and no
    /// reader sees the table missing.
    #[must_use]
    pub fn replace(ruleset: &TableState) -> Self {
        let plain = Table::new(ruleset.table.family, &ruleset.table.name);
        // Deleting what does not exist is an error, adding what exists is not.
        let mut operations = vec![
            Operation::AddTable(plain.clone()),
            Operation::DeleteTable(plain),
            Operation::AddTable(ruleset.table.clone()),
        ];
        operations.extend(ruleset.chains.iter().cloned().map(Operation::AddChain));
        for (filled, id) in ruleset.sets.iter().zip(1..) {
            operations.extend(Operation::fill(filled, id));
        }
        operations.extend(ruleset.rules.iter().cloned().map(Operation::AppendRule));
        Self(operations)
    }

    /// Changes as little as can be; `None` where the table must be replaced.
    #[must_use]
    pub fn update(installed: &TableState, desired: &TableState) -> Option<Self> {
        changes(installed, desired).map(Self)
    }

    /// Deletes a table with all that is in it.
    #[must_use]
    pub fn delete(table: &Table) -> Self {
        Self(vec![Operation::DeleteTable(Table::new(table.family, &table.name))])
    }

    /// As one datagram. The messages are numbered from `seq`, which the batch's beginning has; it
    /// holds only if the ruleset is still at `generation`.
    pub(crate) fn encode(&self, seq: u32, generation: Generation) -> Result<Vec<u8>, CodecError> {
        let body = NfGenMsg { family: NFPROTO_UNSPEC, resource: NFNL_SUBSYS_NFTABLES }.to_bytes();
        let mut w = Writer::new();
        let begin = Header { message_type: NFNL_MSG_BATCH_BEGIN, flags: NLM_F_REQUEST, seq };
        w.message(begin, |w| {
            w.raw(&body);
            w.u32_be(NFNL_BATCH_GENID, generation.0);
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
