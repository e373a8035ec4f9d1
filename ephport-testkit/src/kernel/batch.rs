//! Batches: messages that are committed together (`nfnetlink_rcv_batch`, `nf_tables_commit`).
//!
//! The kernel processes every message, also after one that failed, and answers all failures. It commits a
//! batch without failures whose end it has seen. A transaction that jumps too deep or translates in a wrong
//! chain is processed a second time, so that the failure is that of a message.

use std::collections::HashMap;
use std::sync::Arc;

use ephport_nft::Errno;
use ephport_nft::netlink::{Header, Message, Messages, NfGenMsg, Reader};
use ephport_nft::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES,
    NFT_MSG_DELCHAIN, NFT_MSG_DELOBJ, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NLM_F_ACK, NLM_F_REQUEST,
};

use super::request::{Answer, Failure, Request};
use super::ruleset::{Ruleset, Table};
use super::validate::validate;

/// The numbers that the kernel gave to objects. An aborted transaction gives none back.
#[derive(Clone, Debug, Default)]
pub(super) struct Handles {
    tables: u64,
    /// The last number in each table, by the table's.
    objects: HashMap<u64, u64>,
}

impl Handles {
    /// Numbers after those of this ruleset.
    pub(super) fn after(ruleset: &Ruleset) -> Self {
        let last = |table: &Arc<Table>| {
            let chains = table.chains.iter().map(|chain| chain.handle);
            let rules = table.chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.handle);
            let sets = table.sets.iter().map(|set| set.handle);
            let objects = table.objects.iter().map(|object| object.handle);
            chains.chain(rules).chain(sets).chain(objects).max().unwrap_or(0)
        };
        let tables = ruleset.tables.iter();
        Self {
            tables: tables.clone().map(|table| table.handle).max().unwrap_or(0),
            objects: tables.map(|table| (table.handle, last(table))).collect(),
        }
    }

    pub(super) fn next_table(&mut self) -> u64 {
        self.tables += 1;
        self.tables
    }

    pub(super) fn next_in(&mut self, table: u64) -> u64 {
        let last = self.objects.entry(table).or_default();
        *last += 1;
        *last
    }
}

/// A transaction in preparation: the next generation.
pub(super) struct Transaction<'a> {
    pub(super) ruleset: Ruleset,
    /// The port id of the socket that sends it.
    pub(super) port_id: u32,
    pub(super) handles: &'a mut Handles,
    /// The sets of this transaction: number, the table's handle, name.
    pub(super) set_ids: Vec<(u32, u64, Vec<u8>)>,
    /// New sets without names of their own that no rule has used: the table's handle, and the name.
    pub(super) unbound: Vec<(u64, Vec<u8>)>,
    /// `NFT_VALIDATE_DO`: each new rule is checked with all others.
    pub(super) validates: bool,
}

/// An acknowledgement: the request that it quotes, and its failure.
pub(super) type Ack = (Header, Option<Failure>);

/// The result of a batch.
#[derive(Debug, Default)]
pub(super) struct Processed {
    pub(super) acks: Vec<Ack>,
    /// The ruleset to commit, if the batch changes it.
    pub(super) commit: Option<Ruleset>,
}

/// Processes a datagram that begins with `NFNL_MSG_BATCH_BEGIN`. The operation with the index in `refused`,
/// from 0, fails with its error, whatever it is.
pub(super) fn process(
    ruleset: &Ruleset,
    generation: u32,
    handles: &mut Handles,
    port_id: u32,
    datagram: &[u8],
    refused: Option<(usize, Errno)>,
) -> Processed {
    let mut messages = Messages::new(datagram);
    let Some(Ok(begin)) = messages.next() else { return Processed::default() };
    let refuse = |errno: Errno| Processed {
        acks: vec![(begin.header, Some(errno.into()))],
        ..Processed::default()
    };
    match begin_of(begin) {
        Err(errno) => return refuse(errno),
        Ok(0) => {}
        Ok(asked) if asked == generation => {}
        Ok(_) => return refuse(Errno::ERESTART),
    }
    let mut run = |validates| {
        let transaction = Transaction {
            ruleset: ruleset.clone(),
            port_id,
            handles: &mut *handles,
            set_ids: Vec::new(),
            unbound: Vec::new(),
            validates,
        };
        run(transaction, begin.header, messages.clone(), refused)
    };
    match run(false) {
        (processed, true) => processed,
        (_, false) => run(true).0,
    }
}

/// The generation that the batch expects; 0 is any.
fn begin_of(begin: Message<'_>) -> Result<u32, Errno> {
    let mut reader = Reader::new(begin.body);
    let subsystem = NfGenMsg::decode(&mut reader).map_err(|_| Errno::EINVAL)?.resource;
    if subsystem != NFNL_SUBSYS_NFTABLES {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut generation = 0;
    for attr in reader.attrs() {
        let attr = attr.map_err(|_| Errno::EINVAL)?;
        if attr.attribute_type == NFNL_BATCH_GENID {
            generation = attr.u32_be().map_err(|_| Errno::ERANGE)?;
        }
    }
    Ok(generation)
}

/// Processes the messages once; whether all rules are valid, in all chains.
fn run(
    mut transaction: Transaction<'_>,
    begin: Header,
    messages: Messages<'_>,
    refused: Option<(usize, Errno)>,
) -> (Processed, bool) {
    let mut acks = Vec::new();
    if begin.flags & NLM_F_ACK != 0 {
        acks.push((begin, None));
    }
    let (mut has_failed, mut end, mut count) = (false, None, 0);
    let mut first = None;
    for message in messages {
        let Ok(message) = message else {
            // Nothing is answered, also of what was processed.
            (has_failed, acks) = (true, Vec::new());
            break;
        };
        if message.header.message_type == NFNL_MSG_BATCH_END {
            end = Some(message.header);
            break;
        }
        if message.header.message_type == NFNL_MSG_BATCH_BEGIN {
            (has_failed, acks) = (true, Vec::new());
            break;
        }
        first.get_or_insert(message.header);
        let forced = refused.filter(|(at, _)| *at == count).map(|(_, errno)| Err(errno.into()));
        let failure = forced.unwrap_or_else(|| transaction.operate(message)).err();
        has_failed |= failure.is_some();
        count += 1;
        if failure.is_some() || message.header.flags & NLM_F_ACK != 0 {
            acks.push((message.header, failure));
        }
    }
    // A batch that fails is not looked at as a whole.
    let is_valid = has_failed || transaction.validates || validate(&transaction.ruleset).is_ok();
    let is_committed = !has_failed && end.is_some() && is_valid;
    if is_committed && !transaction.unbound.is_empty() {
        // It quotes the message that follows the beginning.
        acks.insert(0, (first.unwrap_or(begin), Some(Errno::EINVAL.into())));
        return (Processed { acks, commit: None }, is_valid);
    }
    acks.extend(
        end.filter(|end| is_committed && end.flags & NLM_F_ACK != 0).map(|end| (end, None)),
    );
    let commit = (is_committed && count > 0).then(|| transaction.finish());
    (Processed { acks, commit }, is_valid)
}

impl Transaction<'_> {
    fn operate(&mut self, message: Message<'_>) -> Answer {
        let header = message.header;
        if header.flags & NLM_F_REQUEST == 0 {
            return Err(Errno::EINVAL.into());
        }
        let kind = header.nf_tables_message().ok_or(Errno::EINVAL)?;
        let request = Request::parse(message)?;
        match kind {
            NFT_MSG_NEWTABLE => self.new_table(&request),
            NFT_MSG_DELTABLE => self.delete_table(&request),
            NFT_MSG_NEWCHAIN => self.new_chain(&request),
            NFT_MSG_DELCHAIN => self.delete_chain(&request),
            NFT_MSG_NEWRULE => self.new_rule(&request),
            NFT_MSG_DELRULE => self.delete_rule(&request),
            NFT_MSG_NEWSET => self.new_set(&request),
            NFT_MSG_DELSET => self.delete_set(&request),
            NFT_MSG_NEWSETELEM => self.new_elements(&request),
            NFT_MSG_DELSETELEM => self.delete_elements(&request),
            NFT_MSG_NEWOBJ => self.new_object(&request),
            NFT_MSG_DELOBJ => self.delete_object(&request),
            // Requests that are answered outside of batches only, flowtables, and newer ones.
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// The index of the table that an attribute names.
    pub(super) fn table(&self, request: &Request<'_>, attribute: u16) -> Answer<usize> {
        let name = request.required_name(attribute)?;
        let found = self.ruleset.table(request.family, name, self.port_id);
        found.map_err(|errno| request.bad_attr(attribute, errno))
    }

    /// The generation to commit.
    fn finish(self) -> Ruleset {
        let mut ruleset = self.ruleset;
        for table in &mut ruleset.tables {
            if table.is_updated || table.has_changed_chain {
                let table = Arc::make_mut(table);
                (table.is_updated, table.has_changed_chain) = (false, false);
            }
        }
        ruleset
    }
}
