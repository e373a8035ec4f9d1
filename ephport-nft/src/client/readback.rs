//! Reading a table with all that is in it.
//!
//! The kernel lists chains and rules in several answers, between which others may write; now and
//! then it lists nothing at all without a word. So the reading is bracketed by the generation: it
//! counts only when the generation before and after is the same.

use nix::errno::Errno;

use super::error::Error;
use super::transport::{NetlinkError, Transport, dump};
use super::{MAX_TRIES, Nftables};
use crate::object::{Chain, Generation, Rule, Table};
use crate::ruleset::Ruleset;
use crate::uapi::{
    NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE,
    NFTA_RULE_TABLE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
};
use crate::wire::{Header, NfGenMsg, WireError, Writer};

impl<T: Transport> Nftables<T> {
    /// The table of this family and name, if there is one, and the generation it was read at.
    pub fn read_table(
        &mut self,
        family: u8,
        name: &str,
    ) -> Result<(Option<Ruleset>, Generation), Error> {
        for _ in 0..MAX_TRIES {
            let before = self.generation()?;
            let ruleset = match self.read_once(family, name) {
                Err(Error::Netlink(NetlinkError::Interrupted)) => continue,
                result => result?,
            };
            if self.generation()? == before {
                return Ok((ruleset, before));
            }
        }
        Err(Error::Busy { tries: MAX_TRIES })
    }

    /// The number that every committed transaction raises.
    pub fn generation(&mut self) -> Result<Generation, Error> {
        let mut generation = None;
        self.list(NFT_MSG_GETGEN, NLM_F_ACK, NFPROTO_UNSPEC, None, |body| {
            generation = Some(Generation::read(body)?);
            Ok(())
        })?;
        generation.ok_or(Error::NoNfTables)
    }

    fn read_once(&mut self, family: u8, name: &str) -> Result<Option<Ruleset>, Error> {
        let mut table = None;
        self.list(NFT_MSG_GETTABLE, NLM_F_DUMP, family, None, |body| {
            table = table.take().or(Some(Table::read(body)?).filter(|table| table.name == name));
            Ok(())
        })?;
        let Some(table) = table else { return Ok(None) };
        let mut chains = Vec::new();
        self.list(NFT_MSG_GETCHAIN, NLM_F_DUMP, family, None, |body| {
            chains.extend(Some(Chain::read(body)?).filter(|chain| chain.table == name));
            Ok(())
        })?;
        let mut rules = Vec::new();
        self.list(NFT_MSG_GETRULE, NLM_F_DUMP, family, Some(name), |body| {
            rules.extend(Some(Rule::read(body)?).filter(|rule| rule.table == name));
            Ok(())
        })?;
        Ok(Some(Ruleset { table, chains, rules }))
    }

    /// Asks for objects of one kind and gives the body of each answer to `visit`.
    fn list(
        &mut self,
        message: u16,
        flags: u16,
        family: u8,
        table: Option<&str>,
        mut visit: impl FnMut(&[u8]) -> Result<(), WireError>,
    ) -> Result<(), Error> {
        let seq = self.next_seq();
        let mut w = Writer::new();
        w.message(Header::nf_tables(message, NLM_F_REQUEST | flags, seq), |w| {
            w.raw(&NfGenMsg::new(family).to_bytes());
            if let Some(table) = table {
                w.string(NFTA_RULE_TABLE, table);
            }
        });
        let result = dump(&mut self.transport, &w.finish()?, seq, |_, body| visit(body));
        result.map_err(|error| match error {
            NetlinkError::Refused { errno: Errno::EPERM } => {
                Error::NotPermitted { task: "read the ruleset" }
            }
            NetlinkError::Refused { errno: Errno::EOPNOTSUPP | Errno::EINVAL } => Error::NoNfTables,
            other => other.into(),
        })
    }
}
