//! Chains of other tables that select a source port before ephport's table does.
//!
//! Among the nat chains of postrouting, the first that binds a connection decides on its source address
//! and port. Only what decides on the order is read of other tables; all else is skipped.

use std::fmt;

use super::{Client, Error};
use crate::netlink::{CodecError, NfGenMsg, Reader, Transport};
use crate::uapi::{
    NF_INET_POST_ROUTING, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC,
    NFT_MSG_GETCHAIN, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE,
    NFTA_CHAIN_USE, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NLM_F_DUMP,
};

/// A nat chain of postrouting with rules, before the chain of ephport's table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EarlierNat {
    /// The family of its table: `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// The name of its table. Bytes that are not UTF-8 are replaced.
    pub table: String,
    /// The name of the chain.
    pub chain: String,
    /// The priority; lower ones come first.
    pub priority: i32,
}

impl fmt::Display for EarlierNat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, priority } = self;
        write!(
            f,
            "chain {chain} of table {family} {table} (nat, postrouting, priority {priority}) comes \
             before ephport's: connections that it translates keep the port that it selects"
        )
    }
}

impl<T: Transport> Client<T> {
    /// The nat chains of other tables that come before the client's table in postrouting, and have
    /// rules.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be read.
    pub fn earlier_nat(&mut self) -> Result<Vec<EarlierNat>, Error> {
        let (table, priority) = (self.table.name().to_string(), self.table.priority());
        let chains = self.settled(|client| {
            let mut chains = Vec::new();
            client.list(NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_UNSPEC, &[], |_, body| {
                chains.extend(nat_chain(body)?);
                Ok(())
            })?;
            Ok(chains)
        })?;
        let is_earlier = |chain: &EarlierNat| {
            let is_own = (chain.family, &chain.table) == ("inet", &table);
            !is_own && chain.priority < priority
        };
        Ok(chains.0.into_iter().filter(is_earlier).collect())
    }
}

/// The chain of an `NFT_MSG_NEWCHAIN`, if it is a nat chain of postrouting with rules.
fn nat_chain(body: &[u8]) -> Result<Option<EarlierNat>, CodecError> {
    let mut reader = Reader::new(body);
    let family = match NfGenMsg::decode(&mut reader)?.family {
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        NFPROTO_INET => "inet",
        _ => return Ok(None),
    };
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
    };
    let (mut table, mut chain, mut hook) = (String::new(), String::new(), None);
    let (mut is_nat, mut rules) = (false, 0);
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_CHAIN_TABLE => table = text(attr.value),
            NFTA_CHAIN_NAME => chain = text(attr.value),
            NFTA_CHAIN_TYPE => is_nat = text(attr.value) == "nat",
            NFTA_CHAIN_USE => rules = attr.u32_be()?,
            NFTA_CHAIN_HOOK => hook = Some(attr),
            _ => {}
        }
    }
    let Some(hook) = hook.filter(|_| is_nat && rules > 0) else { return Ok(None) };
    let (mut number, mut priority) = (None, 0);
    for attr in hook.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_HOOK_HOOKNUM => number = Some(attr.u32_be()?),
            NFTA_HOOK_PRIORITY => priority = attr.u32_be()?.cast_signed(),
            _ => {}
        }
    }
    let is_postrouting = number == Some(NF_INET_POST_ROUTING);
    Ok(is_postrouting.then_some(EarlierNat { family, table, chain, priority }))
}
