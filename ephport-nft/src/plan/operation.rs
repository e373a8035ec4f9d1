//! Operations: changes of the ruleset, each in one message.

use crate::netlink::{CodecError, Header, Writer};
use crate::nftables::{Chain, CtTimeout, Elements, Rule, SetSpec, Table};
use crate::table::Set;
use crate::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELOBJ, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST,
};

/// One change of the ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Adds a table, or does nothing when it exists.
    AddTable(Table),
    /// Deletes a table with its content.
    DeleteTable(Table),
    /// Adds a chain.
    AddChain(Chain),
    /// Adds a set or map without elements.
    AddSet(SetSpec),
    /// Adds elements to a set or map.
    AddElements(Elements),
    /// Adds a rule at the end of its chain.
    AppendRule(Rule),
    /// Adds a rule before the rule whose handle is its position.
    InsertRule(Rule),
    /// Deletes all rules of the chain.
    FlushChain(Chain),
    /// Deletes the rule with this handle.
    DeleteRule(Rule),
    /// Deletes a chain without rules and references.
    DeleteChain(Chain),
    /// Deletes a set that no rule uses.
    DeleteSet(SetSpec),
    /// Adds timeouts of connections.
    AddTimeout(CtTimeout),
    /// Deletes timeouts that no rule assigns.
    DeleteTimeout(CtTimeout),
    /// Deletes elements by their keys.
    DeleteElements(Elements),
}

impl Operation {
    /// The name of its table.
    pub(crate) fn table(&self) -> &str {
        match self {
            Self::AddTable(table) | Self::DeleteTable(table) => &table.name,
            Self::AddChain(chain) | Self::FlushChain(chain) | Self::DeleteChain(chain) => {
                &chain.table
            }
            Self::AddSet(set) | Self::DeleteSet(set) => &set.table,
            Self::AddElements(elements) | Self::DeleteElements(elements) => &elements.table,
            Self::AppendRule(rule) | Self::InsertRule(rule) | Self::DeleteRule(rule) => &rule.table,
            Self::AddTimeout(object) | Self::DeleteTimeout(object) => &object.table,
        }
    }

    pub(super) fn header(&self, seq: u32) -> Header {
        let (message, flags) = match self {
            Self::AddTable(_) => (NFT_MSG_NEWTABLE, NLM_F_CREATE),
            Self::DeleteTable(_) => (NFT_MSG_DELTABLE, 0),
            Self::AddChain(_) => (NFT_MSG_NEWCHAIN, NLM_F_CREATE),
            Self::AddSet(_) => (NFT_MSG_NEWSET, NLM_F_CREATE),
            Self::AddElements(_) => (NFT_MSG_NEWSETELEM, NLM_F_CREATE),
            Self::AppendRule(_) => (NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND),
            Self::InsertRule(_) => (NFT_MSG_NEWRULE, NLM_F_CREATE),
            Self::DeleteRule(_) | Self::FlushChain(_) => (NFT_MSG_DELRULE, 0),
            Self::DeleteChain(_) => (NFT_MSG_DELCHAIN, 0),
            Self::DeleteSet(_) => (NFT_MSG_DELSET, 0),
            Self::DeleteElements(_) => (NFT_MSG_DELSETELEM, 0),
            Self::AddTimeout(_) => (NFT_MSG_NEWOBJ, NLM_F_CREATE),
            Self::DeleteTimeout(_) => (NFT_MSG_DELOBJ, 0),
        };
        Header::nf_tables(message, NLM_F_REQUEST | flags, seq)
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::AddTable(table) | Self::DeleteTable(table) => table.encode(w),
            Self::AddChain(chain) => chain.encode(w),
            Self::AddSet(set) => set.encode(w),
            Self::AddElements(elements) | Self::DeleteElements(elements) => elements.encode(w),
            Self::AppendRule(rule) | Self::InsertRule(rule) => rule.encode(w),
            Self::AddTimeout(object) => object.encode(w),
            Self::DeleteTimeout(CtTimeout { family, table, name, .. }) => {
                CtTimeout::named(*family, table, name).encode(w);
            }
            Self::DeleteRule(rule) => Rule {
                handle: rule.handle,
                ..Rule::new(rule.family, &rule.table, &rule.chain, Vec::new())
            }
            .encode(w),
            // Without a handle, all rules of the chain are deleted.
            Self::FlushChain(Chain { family, table, name, .. }) => {
                Rule::new(*family, table, name, Vec::new()).encode(w);
            }
            Self::DeleteChain(Chain { family, table, name, .. }) => {
                Chain::regular(*family, table, name).encode(w);
            }
            Self::DeleteSet(SetSpec { family, table, name, .. }) => {
                SetSpec::new(*family, table, name).encode(w);
            }
        }
    }

    /// The operations that add a set, then its elements. The kernel requires a number in the transaction.
    pub(crate) fn fill(filled: &Set, id: u32) -> impl Iterator<Item = Self> {
        let set = SetSpec { id: Some(id), handle: None, ..filled.spec.clone() };
        let chunks = filled.chunks().into_iter();
        let chunks = chunks.map(move |chunk| Elements { set_id: Some(id), ..chunk });
        [Self::AddSet(set)].into_iter().chain(chunks.map(Self::AddElements))
    }

    /// Its message, with this sequence number.
    ///
    /// # Errors
    /// An attribute or a message that is too long for netlink.
    pub fn message(&self, seq: u32) -> Result<Vec<u8>, CodecError> {
        let mut w = Writer::new();
        w.message(self.header(seq), |w| self.encode(w));
        w.finish()
    }
}
