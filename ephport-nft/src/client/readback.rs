//! Reading a table with its content.
//!
//! The kernel lists chains, sets and rules in several dumps, between which other processes may change
//! them; sometimes a dump is empty without a flag. So a table counts as read only when the generation
//! before and after is the same, no commit was in progress at first, and no object is repeated or skipped.

use std::collections::HashSet;
use std::hash::Hash;

use super::Client;
use super::beside::Beside;
use super::error::Error;
use super::verdict::{CommitResult, verdict};
use crate::log;
use crate::netlink::{
    CodecError, Errno, Header, NetlinkError, NfGenMsg, Transport, Writer, dump, exchange,
};
use crate::nftables::{
    Chain, CtTimeout, ElementList, Elements, Generation, Origin, Rule, SetSpec, Table,
    UnknownObject,
};
use crate::plan::transaction::Batch;
use crate::table::{Set, TableState};
use crate::uapi::{
    NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE, NFT_MSG_GETGEN, NFT_MSG_GETOBJ,
    NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, NFTA_RULE_CHAIN,
    NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NFTA_TABLE_NAME, NLM_F_ACK,
    NLM_F_DUMP, NLM_F_REQUEST,
};

/// Whether an object is listed twice, or skipped between two rules.
///
/// The kernel resumes a dump by the count of objects, which includes those that a pending transaction
/// prepared (`__nf_tables_dump_rules`): objects that are prepared in the meantime make it repeat, aborted
/// ones make it skip as many. The generation is the same before and after.
fn is_torn(ruleset: &TableState) -> bool {
    let mut last: Option<&Rule> = None;
    let is_misplaced = ruleset.rules.iter().any(|rule| {
        let before = last.replace(rule).filter(|before| before.chain == rule.chain);
        rule.position.is_some_and(|position| before.and_then(|rule| rule.handle) != Some(position))
    });
    has_doubles(ruleset.chains.iter().map(|chain| &chain.name))
        || has_doubles(ruleset.sets.iter().map(|filled| &filled.spec.name))
        || ruleset.sets.iter().any(|filled| filled.elements.has_doubles())
        || has_doubles(ruleset.rules.iter().filter_map(|rule| rule.handle))
        || has_doubles(ruleset.timeouts.iter().map(|object| &object.name))
        || is_misplaced
}

/// No objects where the kernel does not know their kind.
fn or_none<T>(objects: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
    match objects {
        Err(Error::NoNfTables) => Ok(Vec::new()),
        result => result,
    }
}

fn has_doubles<T: Hash + Eq>(mut items: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    items.any(|item| !seen.insert(item))
}

impl<T: Transport> Client<T> {
    /// The table with this family and name, if there is one, and the generation at which it was read.
    pub fn read_table(
        &mut self,
        family: u8,
        name: &str,
    ) -> Result<(Option<TableState>, Generation), Error> {
        self.settled(|nft| nft.read_once(family, name, None))
    }

    /// The same, beside a table, with which it shares what is equal.
    pub(super) fn read_beside(
        &mut self,
        beside: &TableState,
    ) -> Result<(Option<TableState>, Generation), Error> {
        let Table { family, name, .. } = &beside.table;
        self.settled(|nft| nft.read_once(*family, name, Some(beside)))
    }

    /// The result of `read` while the ruleset does not change, and its generation.
    pub(crate) fn settled<R>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<R, Error>,
    ) -> Result<(R, Generation), Error> {
        self.bounded(|client| client.settle(read))
    }

    fn settle<R>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<R, Error>,
    ) -> Result<(R, Generation), Error> {
        let max = self.bounds.tries;
        for tries in 0..max {
            self.check_limit()?;
            let before = self.generation()?;
            if self.is_complete(before)? {
                match read(self) {
                    Err(Error::Netlink(NetlinkError::Interrupted)) => {}
                    result => {
                        let found = result?;
                        if self.generation()? == before {
                            return Ok((found, before));
                        }
                    }
                }
            }
            log::retry(tries, "another process changes the ruleset");
            self.transport.backoff(tries);
        }
        Err(Error::Busy { tries: max })
    }

    /// Whether this generation is the last one, and all of its changes are visible.
    ///
    /// The kernel raises the number shortly before the changes take effect (`nf_tables_commit`); in
    /// between it lists the old ruleset, or some of each. But it processes batches one after another: an
    /// empty one changes nothing and waits for a commit in progress.
    fn is_complete(&mut self, generation: Generation) -> Result<bool, Error> {
        let nothing = Batch::default();
        let seq = self.next_seq();
        self.next_seq(); // of the batch's end
        let answers = exchange(&mut self.transport, &nothing.encode(seq, Some(generation))?)?;
        Ok(verdict(&nothing, seq, &answers)? != CommitResult::Outdated)
    }

    /// The current generation.
    pub fn generation(&mut self) -> Result<Generation, Error> {
        let mut generation = None;
        self.list(NFT_MSG_GETGEN, NLM_F_ACK, NFPROTO_UNSPEC, &[], |_, body| {
            generation = Some(Generation::decode(body)?);
            Ok(())
        })?;
        generation.ok_or(Error::NoNfTables)
    }

    /// The table without its content.
    pub(super) fn read_table_only(
        &mut self,
        family: u8,
        name: &str,
    ) -> Result<Option<Table>, Error> {
        let mut table = None;
        self.list(NFT_MSG_GETTABLE, NLM_F_DUMP, family, &[], |_, body| {
            if table.is_none() && Origin::peek(body)?.is(family, name) {
                table = Some(Table::decode(body)?);
            }
            Ok(())
        })?;
        Ok(table)
    }

    fn read_once(
        &mut self,
        family: u8,
        name: &str,
        beside: Option<&TableState>,
    ) -> Result<Option<TableState>, Error> {
        let Some(table) = self.read_table_only(family, name)? else { return Ok(None) };
        let mut unknown = Vec::new();
        let in_table = [(NFTA_TABLE_NAME, name)];
        let origin = Origin { family, table: name.as_bytes() };
        let chains = self.objects(NFT_MSG_GETCHAIN, origin, &[], &mut unknown, Chain::decode)?;
        let specs =
            self.objects(NFT_MSG_GETSET, origin, &in_table, &mut unknown, SetSpec::decode)?;
        let beside = beside.map(Beside::from).unwrap_or_default();
        let mut sets = Vec::new();
        for mut spec in specs {
            let names = [(NFTA_SET_ELEM_LIST_TABLE, name), (NFTA_SET_ELEM_LIST_SET, &*spec.name)];
            let mut elements = ElementList::default();
            self.each_object(
                (NFT_MSG_GETSETELEM, origin, &names),
                &mut unknown,
                Elements::decode,
                |message| {
                    elements.append(&message.elements);
                    spec.other.extend(message.other);
                },
            )?;
            sets.push(beside.set(Set { spec, elements: elements.sorted() }));
        }
        // Chain by chain: to resume a dump, the kernel passes over all rules before, in a time that
        // grows with the square of their count.
        let mut rules = Vec::new();
        for chain in &chains {
            let names = [(NFTA_RULE_TABLE, name), (NFTA_RULE_CHAIN, &*chain.name)];
            let mut known = beside.chain(&chain.name);
            let request = (NFT_MSG_GETRULE, origin, &names[..]);
            self.each_object(request, &mut unknown, Rule::decode, |rule| {
                rules.push(known.rule(rule));
            })?;
        }
        let message = NFT_MSG_GETOBJ;
        let timeouts = self.objects(message, origin, &in_table, &mut unknown, CtTimeout::decode);
        let message = NFT_MSG_GETFLOWTABLE;
        let none = |_: &[u8]| Err::<(), _>(());
        or_none(self.objects(message, origin, &in_table, &mut unknown, none))?;
        let timeouts = or_none(timeouts)?;
        unknown.sort();
        unknown.dedup();
        let state = TableState { table, chains, sets, rules, timeouts, unknown };
        if is_torn(&state) {
            return Err(NetlinkError::Interrupted.into());
        }
        Ok(Some(state))
    }

    /// The objects of one kind in a table. Those of other tables are skipped before they are decoded, and
    /// those that cannot be decoded are `unknown`.
    fn objects<O, E>(
        &mut self,
        message: u16,
        origin: Origin<'_>,
        names: &[(u16, &str)],
        unknown: &mut Vec<UnknownObject>,
        decode: impl for<'a> Fn(&'a [u8]) -> Result<O, E>,
    ) -> Result<Vec<O>, Error> {
        let mut objects = Vec::new();
        let request = (message, origin, names);
        self.each_object(request, unknown, decode, |object| objects.push(object))?;
        Ok(objects)
    }

    /// Calls `visit` with each of the objects as it arrives.
    fn each_object<O, E>(
        &mut self,
        (message, origin, names): (u16, Origin<'_>, &[(u16, &str)]),
        unknown: &mut Vec<UnknownObject>,
        decode: impl for<'a> Fn(&'a [u8]) -> Result<O, E>,
        mut visit: impl FnMut(O),
    ) -> Result<(), Error> {
        self.list(message, NLM_F_DUMP, origin.family, names, |answer, body| {
            if Origin::peek(body)? == origin {
                match decode(body) {
                    Ok(object) => visit(object),
                    Err(_) => unknown.push(UnknownObject::peek(answer & 0xff, body)?),
                }
            }
            Ok(())
        })
    }

    /// Requests the objects of one kind and calls `visit` with the message type and body of each.
    pub(crate) fn list(
        &mut self,
        message: u16,
        flags: u16,
        family: u8,
        names: &[(u16, &str)],
        visit: impl FnMut(u16, &[u8]) -> Result<(), CodecError>,
    ) -> Result<(), Error> {
        let seq = self.next_seq();
        let mut w = Writer::new();
        w.message(Header::nf_tables(message, NLM_F_REQUEST | flags, seq), |w| {
            w.raw(&NfGenMsg::new(family).to_bytes());
            for (attribute_type, name) in names {
                w.string(*attribute_type, name);
            }
        });
        let result = dump(&mut self.transport, &w.finish()?, seq, visit);
        result.map_err(|error| match error {
            NetlinkError::Rejected { errno: Errno::EPERM } => {
                Error::NotPermitted { task: "reading" }
            }
            NetlinkError::Rejected { errno: Errno::EOPNOTSUPP | Errno::EINVAL } => {
                Error::NoNfTables
            }
            // Another process deleted the object after it was listed.
            NetlinkError::Rejected { errno: Errno::ENOENT } if !names.is_empty() => {
                NetlinkError::Interrupted.into()
            }
            other => other.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use ephport_core::{Document, HostFacts};

    use super::*;
    use crate::compile;

    /// A table as the kernel lists it: each rule with its handle and that of the rule before it.
    fn listed() -> TableState {
        let document: Document = "[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\n\
                                  to-ports = \"1024-2047,3000-3999\"\n"
            .parse()
            .unwrap();
        let mut ruleset = compile(&document.resolve(&HostFacts::default()).unwrap()).unwrap();
        let mut last = std::collections::HashMap::new();
        for (rule, handle) in ruleset.rules.iter_mut().zip(1..) {
            rule.handle = Some(handle);
            rule.position = last.insert(rule.chain.clone(), handle);
        }
        ruleset
    }

    #[test]
    fn dump_with_duplicates_or_gaps_is_torn() {
        let tear = |tear: fn(&mut TableState)| {
            let mut ruleset = listed();
            tear(&mut ruleset);
            is_torn(&ruleset)
        };
        assert!(!tear(|_| {}));
        assert!(tear(|ruleset| drop(ruleset.rules.remove(0))));
        assert!(tear(|ruleset| drop(ruleset.rules.remove(1))));
        assert!(tear(|ruleset| ruleset.rules.extend(ruleset.rules.last().cloned())));
        assert!(tear(|ruleset| ruleset.chains.extend(ruleset.chains.last().cloned())));
        assert!(tear(|ruleset| ruleset.sets.extend(ruleset.sets.last().cloned())));
        assert!(tear(|ruleset| {
            let elements = &mut ruleset.sets[0].elements;
            elements.edit(|elements| elements.extend(elements.first().cloned()));
        }));
    }
}
