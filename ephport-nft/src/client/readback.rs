//! Reading a table with all that is in it.
//!
//! The kernel lists chains, sets and rules in several answers, between which others may write; now and
//! then it lists nothing at all without a word. So the reading is bracketed by the generation: it
//! counts only when the generation before and after is the same, none was on its way at first, and
//! nothing is listed twice or passed over.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use nix::errno::Errno;

use super::error::Error;
use super::verdict::{CommitResult, verdict};
use super::{Client, MAX_TRIES};
use crate::netlink::{
    CodecError, Header, NetlinkError, NfGenMsg, Transport, Writer, dump, exchange,
};
use crate::nftables::{Chain, Element, Elements, Generation, Rule, SetSpec, Table};
use crate::plan::transaction::Batch;
use crate::table::{Set, TableState};
use crate::uapi::{
    NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE, NFT_MSG_GETSET,
    NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_TABLE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
};

/// Whether something is listed twice, or left out between two rules.
///
/// To go on with a list the kernel counts what it has listed, but counts what a transaction under way
/// has prepared too (`__nf_tables_dump_rules`): what is prepared in the meantime makes it repeat, what is
/// given up makes it pass over as many. The generation is the same before and after.
fn is_torn(ruleset: &TableState) -> bool {
    let keys = |filled: &Set| {
        let keyed = filled.elements.iter().filter(|element| element.other.is_empty());
        has_doubles(keyed.map(|element| (element.key_bytes(), element.is_end())))
    };
    let mut last = HashMap::new();
    let is_misplaced = ruleset.rules.iter().any(|rule| {
        let before = last.insert(rule.chain.as_str(), rule.handle).flatten();
        rule.position.is_some_and(|position| before != Some(position))
    });
    has_doubles(ruleset.chains.iter().map(|chain| &chain.name))
        || has_doubles(ruleset.sets.iter().map(|filled| &filled.spec.name))
        || ruleset.sets.iter().any(keys)
        || has_doubles(ruleset.rules.iter().filter_map(|rule| rule.handle))
        || is_misplaced
}

fn has_doubles<T: Hash + Eq>(mut items: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    items.any(|item| !seen.insert(item))
}

impl<T: Transport> Client<T> {
    /// The table of this family and name, if there is one, and the generation it was read at.
    pub fn read_table(
        &mut self,
        family: u8,
        name: &str,
    ) -> Result<(Option<TableState>, Generation), Error> {
        self.settled(|nft| nft.read_once(family, name))
    }

    /// What `read` gives while nobody writes, and the generation it was read at.
    pub(super) fn settled<R>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<R, Error>,
    ) -> Result<(R, Generation), Error> {
        for tries in 0..MAX_TRIES {
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
            self.transport.backoff(tries);
        }
        Err(Error::Busy { tries: MAX_TRIES })
    }

    /// Whether this generation is the last one, and all of its changes have been made.
    ///
    /// The kernel raises the number shortly before the changes take effect (`nf_tables_commit`), and
    /// lists what it held before, or some of each, to whoever asks in between. But it takes one batch
    /// after the other: one that is empty changes nothing, and waits for what is on its way.
    fn is_complete(&mut self, generation: Generation) -> Result<bool, Error> {
        let nothing = Batch::default();
        let seq = self.next_seq();
        self.next_seq(); // of the batch's end
        let answers = exchange(&mut self.transport, &nothing.encode(seq, generation)?)?;
        Ok(verdict(&nothing, seq, &answers)? != CommitResult::Outdated)
    }

    /// The number that every committed transaction raises.
    pub fn generation(&mut self) -> Result<Generation, Error> {
        let mut generation = None;
        self.list(NFT_MSG_GETGEN, NLM_F_ACK, NFPROTO_UNSPEC, &[], |body| {
            generation = Some(Generation::decode(body)?);
            Ok(())
        })?;
        generation.ok_or(Error::NoNfTables)
    }

    /// The table without what is in it.
    pub(super) fn read_table_only(
        &mut self,
        family: u8,
        name: &str,
    ) -> Result<Option<Table>, Error> {
        let mut table = None;
        self.list(NFT_MSG_GETTABLE, NLM_F_DUMP, family, &[], |body| {
            table = table.take().or(Some(Table::decode(body)?).filter(|table| table.name == name));
            Ok(())
        })?;
        Ok(table)
    }

    fn read_once(&mut self, family: u8, name: &str) -> Result<Option<TableState>, Error> {
        let Some(table) = self.read_table_only(family, name)? else { return Ok(None) };
        let mut chains = Vec::new();
        self.list(NFT_MSG_GETCHAIN, NLM_F_DUMP, family, &[], |body| {
            chains.extend(Some(Chain::decode(body)?).filter(|chain| chain.table == name));
            Ok(())
        })?;
        let sets = self.read_sets(family, name)?;
        let mut rules = Vec::new();
        self.list(NFT_MSG_GETRULE, NLM_F_DUMP, family, &[(NFTA_RULE_TABLE, name)], |body| {
            rules.extend(Some(Rule::decode(body)?).filter(|rule| rule.table == name));
            Ok(())
        })?;
        let ruleset = TableState { table, chains, sets, rules };
        if is_torn(&ruleset) {
            return Err(NetlinkError::Interrupted.into());
        }
        Ok(Some(ruleset))
    }

    fn read_sets(&mut self, family: u8, table: &str) -> Result<Vec<Set>, Error> {
        let mut sets = Vec::new();
        self.list(NFT_MSG_GETSET, NLM_F_DUMP, family, &[(NFTA_SET_TABLE, table)], |body| {
            sets.extend(Some(SetSpec::decode(body)?).filter(|set| set.table == table));
            Ok(())
        })?;
        let filled = sets.into_iter().map(|set| {
            let elements = self.read_elements(&set)?;
            Ok(Set { spec: set, elements })
        });
        filled.collect()
    }

    fn read_elements(&mut self, set: &SetSpec) -> Result<Vec<Element>, Error> {
        let names = [(NFTA_SET_ELEM_LIST_TABLE, &*set.table), (NFTA_SET_ELEM_LIST_SET, &*set.name)];
        let mut elements = Vec::new();
        self.list(NFT_MSG_GETSETELEM, NLM_F_DUMP, set.family, &names, |body| {
            elements.extend(Elements::decode(body)?.elements);
            Ok(())
        })?;
        Ok(elements)
    }

    /// Asks for objects of one kind and gives the body of each answer to `visit`.
    fn list(
        &mut self,
        message: u16,
        flags: u16,
        family: u8,
        names: &[(u16, &str)],
        mut visit: impl FnMut(&[u8]) -> Result<(), CodecError>,
    ) -> Result<(), Error> {
        let seq = self.next_seq();
        let mut w = Writer::new();
        w.message(Header::nf_tables(message, NLM_F_REQUEST | flags, seq), |w| {
            w.raw(&NfGenMsg::new(family).to_bytes());
            for (kind, name) in names {
                w.string(*kind, name);
            }
        });
        let result = dump(&mut self.transport, &w.finish()?, seq, |_, body| visit(body));
        result.map_err(|error| match error {
            NetlinkError::Refused { errno: Errno::EPERM } => {
                Error::NotPermitted { task: "read the ruleset" }
            }
            NetlinkError::Refused { errno: Errno::EOPNOTSUPP | Errno::EINVAL } => Error::NoNfTables,
            // Somebody took away what is asked for since it was listed.
            NetlinkError::Refused { errno: Errno::ENOENT } if !names.is_empty() => {
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

    /// As the kernel lists it: each rule has a number and that of the one before it.
    fn listed() -> TableState {
        let document: Document = "[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\n\
                                  to-ports = \"1024-2047,3000-3999\"\n"
            .parse()
            .unwrap();
        let mut ruleset = compile(&document.resolve(&HostFacts::default()).unwrap()).unwrap();
        let mut last = HashMap::new();
        for (rule, handle) in ruleset.rules.iter_mut().zip(1..) {
            rule.handle = Some(handle);
            rule.position = last.insert(rule.chain.clone(), handle);
        }
        ruleset
    }

    #[test]
    fn what_is_listed_twice_or_passed_over_is_torn() {
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
            elements.extend(elements.first().cloned());
        }));
    }
}
