//! Transactions: a batch of operations that the kernel carries out whole or not at all.
//!
//! The kernel answers each operation that fails and, where asked, those that succeed; a batch with
//! one failure is dropped whole although other operations in it were acknowledged. We ask for one
//! acknowledgement, of the last operation: success is that one and no failure.

use nix::errno::Errno;

use super::attempt::Attempt;
use super::error::{Cause, Error, Refusal};
use super::module::Module;
use super::place::Place;
use crate::diff::changes;
use crate::object::{Chain, Elements, Generation, Rule, Set, Table};
use crate::ruleset::{FilledSet, Ruleset};
use crate::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES,
    NFPROTO_UNSPEC, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST,
};
use crate::wire::{Ack, Header, NfGenMsg, WireError, Writer};

/// One change of the ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds a table, or does nothing when it exists.
    AddTable(Table),
    /// Deletes a table with all that is in it.
    DeleteTable(Table),
    /// Adds a chain.
    AddChain(Chain),
    /// Adds a set or map without elements.
    AddSet(Set),
    /// Adds elements to a set or map.
    AddElements(Elements),
    /// Adds a rule at the end of its chain.
    AppendRule(Rule),
    /// Adds a rule before the one whose handle is its position.
    InsertRule(Rule),
    /// Deletes the rule with this one's handle.
    DeleteRule(Rule),
    /// Deletes a chain that has no rules any more, and to which none leads.
    DeleteChain(Chain),
    /// Deletes a set that no rule uses any more.
    DeleteSet(Set),
    /// Deletes elements by their keys.
    DeleteElements(Elements),
}

impl Operation {
    fn header(&self, seq: u32) -> Header {
        let (message, flags) = match self {
            Self::AddTable(_) => (NFT_MSG_NEWTABLE, NLM_F_CREATE),
            Self::DeleteTable(_) => (NFT_MSG_DELTABLE, 0),
            Self::AddChain(_) => (NFT_MSG_NEWCHAIN, NLM_F_CREATE),
            Self::AddSet(_) => (NFT_MSG_NEWSET, NLM_F_CREATE),
            Self::AddElements(_) => (NFT_MSG_NEWSETELEM, NLM_F_CREATE),
            Self::AppendRule(_) => (NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND),
            Self::InsertRule(_) => (NFT_MSG_NEWRULE, NLM_F_CREATE),
            Self::DeleteRule(_) => (NFT_MSG_DELRULE, 0),
            Self::DeleteChain(_) => (NFT_MSG_DELCHAIN, 0),
            Self::DeleteSet(_) => (NFT_MSG_DELSET, 0),
            Self::DeleteElements(_) => (NFT_MSG_DELSETELEM, 0),
        };
        Header::nf_tables(message, NLM_F_REQUEST | flags, seq)
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::AddTable(table) | Self::DeleteTable(table) => table.write(w),
            Self::AddChain(chain) => chain.write(w),
            Self::AddSet(set) => set.write(w),
            Self::AddElements(elements) | Self::DeleteElements(elements) => elements.write(w),
            Self::AppendRule(rule) | Self::InsertRule(rule) => rule.write(w),
            Self::DeleteRule(rule) => Rule {
                handle: rule.handle,
                ..Rule::new(rule.family, &rule.table, &rule.chain, Vec::new())
            }
            .write(w),
            Self::DeleteChain(Chain { family, table, name, .. }) => {
                Chain::regular(*family, table, name).write(w);
            }
            Self::DeleteSet(Set { family, table, name, .. }) => {
                Set::new(*family, table, name).write(w);
            }
        }
    }

    /// A set, then its elements. The kernel asks for a number in the transaction.
    pub(crate) fn fill(filled: &FilledSet, id: u32) -> impl Iterator<Item = Self> {
        let set = Set { id: Some(id), ..filled.set.clone() };
        let portions = filled.portions().into_iter();
        let portions = portions.map(move |portion| Elements { set_id: Some(id), ..portion });
        [Self::AddSet(set)].into_iter().chain(portions.map(Self::AddElements))
    }

    /// As one message.
    pub(super) fn message(&self, seq: u32) -> Result<Vec<u8>, WireError> {
        let mut w = Writer::new();
        w.message(self.header(seq), |w| self.write(w));
        w.finish()
    }
}

/// Operations that are carried out together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(Vec<Operation>);

impl Batch {
    /// Puts `ruleset` in the place of whatever stands under its table's name: no packet and no
    /// reader sees the table missing.
    #[must_use]
    pub fn replace(ruleset: &Ruleset) -> Self {
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
    pub fn update(installed: &Ruleset, desired: &Ruleset) -> Option<Self> {
        changes(installed, desired).map(Self)
    }

    /// Deletes a table with all that is in it.
    #[must_use]
    pub fn delete(table: &Table) -> Self {
        Self(vec![Operation::DeleteTable(Table::new(table.family, &table.name))])
    }

    /// As one datagram. The messages are numbered from `seq`, which the batch's beginning has; it
    /// holds only if the ruleset is still at `generation`.
    pub(super) fn encode(&self, seq: u32, generation: Generation) -> Result<Vec<u8>, WireError> {
        let body = NfGenMsg { family: NFPROTO_UNSPEC, resource: NFNL_SUBSYS_NFTABLES }.to_bytes();
        let mut w = Writer::new();
        let begin = Header { kind: NFNL_MSG_BATCH_BEGIN, flags: NLM_F_REQUEST, seq };
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
            w.message(header, |w| operation.write(w));
        }
        let end =
            Header { kind: NFNL_MSG_BATCH_END, flags: NLM_F_REQUEST, seq: last.wrapping_add(1) };
        w.message(end, |w| w.raw(&body));
        w.finish()
    }

    /// How many operations.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// What the kernel's answers to the batch that began at `seq` mean.
    pub(super) fn verdict(&self, seq: u32, answers: &[Ack]) -> Result<Outcome, Error> {
        // Others are late answers to earlier requests.
        let answers = answers.iter().filter(|ack| ack.seq.wrapping_sub(seq) <= self.len());
        // An operation that fails makes later ones fail: the first failure is the cause.
        let failures = answers.clone().filter(|ack| ack.errno.is_some());
        let Some(failure) = failures.min_by_key(|ack| ack.seq.wrapping_sub(seq)) else {
            let last = seq.wrapping_add(self.len());
            let confirmed = answers.clone().any(|ack| ack.seq == last);
            return Ok(if confirmed {
                Outcome::Committed
            } else {
                Outcome::Unclear(Error::Dropped)
            });
        };
        let index = failure.seq.wrapping_sub(seq).checked_sub(1);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let operation = index.and_then(|index| self.0.get(index));
        match (failure.errno.unwrap_or(Errno::UnknownErrno), operation) {
            (Errno::ERESTART, _) => Ok(Outcome::Outdated),
            // Without the privilege no operation is looked at.
            (Errno::EPERM, None) => Err(Error::NotPermitted { task: "change the ruleset" }),
            (Errno::EPERM, Some(_)) => Err(Error::Owned),
            (Errno::EOPNOTSUPP, None) => Err(Error::NoNfTables),
            (errno, _) => Err(self.refused(errno, index, failure)),
        }
    }

    fn refused(&self, errno: Errno, index: Option<usize>, failure: &Ack) -> Error {
        let attempt = Attempt::of(&self.0, index);
        let operation = index.and_then(|index| self.0.get(index));
        let message = operation.and_then(|operation| operation.message(failure.seq).ok());
        let place =
            failure.offset.zip(message).and_then(|(offset, message)| Place::at(offset, &message));
        let missing = operation.filter(|_| errno == Errno::ENOENT);
        match missing.and_then(|operation| Module::missing(operation, place.as_ref())) {
            Some(module) => Error::NoModule { attempt, module },
            None => Error::Refused(Box::new(Refusal {
                cause: Cause::of(&attempt, errno, place.as_ref()),
                attempt,
                errno,
                message: failure.message.clone(),
                offset: failure.offset,
                place,
            })),
        }
    }
}

/// What became of a batch that the kernel found no fault with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it was carried out.
    Committed,
    /// Nothing was: somebody else changed the ruleset since its generation was read.
    Outdated,
    /// Only the ruleset itself tells; the error holds if nothing was carried out.
    Unclear(Error),
}
