//! The objects of nf_tables, as one network namespace has them.

use std::sync::Arc;

use ephport_nft::Errno;
use ephport_nft::uapi::{
    NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP, NFT_TABLE_F_OWNER,
    NFT_TABLE_F_PERSIST,
};

/// The tables of one generation, in the order of their creation.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruleset {
    pub(super) tables: Vec<Arc<Table>>,
}

/// `struct nft_table`.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) family: u8,
    pub(super) name: Vec<u8>,
    pub(super) handle: u64,
    pub(super) flags: u32,
    /// The port id of the owner, where the flag `owner` is set.
    pub(super) owner: u32,
    /// Whether this transaction changed the flags: it may do so once.
    pub(super) is_updated: bool,
    /// Whether this transaction changed a chain, or deleted a base chain: then it cannot change the flags.
    pub(super) has_changed_chain: bool,
    pub(super) userdata: Option<Vec<u8>>,
    pub(super) chains: Vec<Chain>,
    pub(super) sets: Vec<Set>,
    pub(super) objects: Vec<Object>,
}

/// `struct nft_chain`.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) name: Vec<u8>,
    pub(super) handle: u64,
    pub(super) flags: u32,
    pub(super) base: Option<Base>,
    pub(super) userdata: Option<Vec<u8>>,
    pub(super) rules: Vec<Arc<Rule>>,
}

/// `struct nft_base_chain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) chain_type: ChainType,
    /// An `NF_*`.
    pub(super) policy: u32,
}

/// `enum nft_chain_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainType {
    Filter,
    Nat,
    Route,
}

/// `struct nft_rule`.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) handle: u64,
    /// The list of expressions as it is dumped.
    pub(super) expressions: Vec<u8>,
    pub(super) references: Vec<Reference>,
    pub(super) userdata: Option<Vec<u8>>,
}

/// What an expression uses or requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// It jumps or goes to a chain.
    Chain(Vec<u8>),
    /// It looks up a set.
    Set(Vec<u8>),
    /// It uses an object of this type.
    Object(u32, Vec<u8>),
    /// It translates addresses, in base chains of the type `nat` at one of these hooks (bits).
    Nat(u32),
}

/// `struct nft_set`.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) name: Vec<u8>,
    pub(super) handle: u64,
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_len: u32,
    pub(super) data_type: u32,
    pub(super) data_len: u32,
    /// The maximum count of elements; 0 is no limit.
    pub(super) size: u32,
    /// The content of `NFTA_SET_DESC`.
    pub(super) description: Option<Vec<u8>>,
    pub(super) userdata: Option<Vec<u8>>,
    /// Attributes that only nft reads: their type and value.
    pub(super) other: Vec<(u16, Vec<u8>)>,
    pub(super) elements: Arc<Vec<Element>>,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// `NFT_SET_ELEM_*`.
    pub(super) flags: u32,
    /// The content of `NFTA_SET_ELEM_DATA`.
    pub(super) data: Option<Vec<u8>>,
    /// The chain of its verdict.
    pub(super) chain: Option<Vec<u8>>,
    pub(super) userdata: Option<Vec<u8>>,
}

/// `struct nft_object`.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// An `NFT_OBJECT_*`.
    pub(super) kind: u32,
    pub(super) name: Vec<u8>,
    pub(super) handle: u64,
    /// The content of `NFTA_OBJ_DATA`.
    pub(super) data: Vec<u8>,
}

impl Ruleset {
    /// `nft_table_lookup`: the table, unless another socket owns it.
    pub(super) fn table(&self, family: u8, name: &[u8], port_id: u32) -> Result<usize, Errno> {
        let is_it = |table: &Arc<Table>| table.family == family && table.name == name;
        let at = self.tables.iter().position(is_it).ok_or(Errno::ENOENT)?;
        match self.tables.get(at) {
            Some(table) if table.is_owned_by_other(port_id) => Err(Errno::EPERM),
            _ => Ok(at),
        }
    }

    pub(super) fn get(&self, family: u8, name: &[u8]) -> Option<&Arc<Table>> {
        self.tables.iter().find(|table| table.family == family && table.name == name)
    }

    /// The table at this index, to be changed.
    pub(super) fn edit(&mut self, at: usize) -> Result<&mut Table, Errno> {
        self.tables.get_mut(at).map(Arc::make_mut).ok_or(Errno::ENOENT)
    }

    /// `nft_rcv_nl_event`: the socket is closed. Its tables go with it, or become orphans.
    pub(super) fn close(&mut self, port_id: u32) {
        self.tables
            .retain(|table| !table.is_owned_by(port_id) || table.flags & NFT_TABLE_F_PERSIST != 0);
        for table in &mut self.tables {
            if table.is_owned_by(port_id) {
                let table = Arc::make_mut(table);
                (table.flags, table.owner) = (table.flags & !NFT_TABLE_F_OWNER, 0);
            }
        }
    }
}

impl Table {
    fn is_owned_by(&self, port_id: u32) -> bool {
        self.flags & NFT_TABLE_F_OWNER != 0 && self.owner == port_id
    }

    pub(super) fn is_owned_by_other(&self, port_id: u32) -> bool {
        self.flags & NFT_TABLE_F_OWNER != 0 && self.owner != port_id
    }

    /// `nft_table_is_orphan`: its owner ended.
    pub(super) fn is_orphan(&self) -> bool {
        self.flags & (NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST) == NFT_TABLE_F_PERSIST
    }

    /// The count of its chains, sets and objects.
    pub(super) fn uses(&self) -> usize {
        self.chains.len() + self.sets.len() + self.objects.len()
    }

    pub(super) fn chain(&self, name: &[u8]) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    pub(super) fn set(&self, name: &[u8]) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    fn references(&self) -> impl Iterator<Item = &Reference> {
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.flat_map(|rule| &rule.references)
    }

    /// The count of rules and elements that jump or go to the chain.
    pub(super) fn jumps_to(&self, name: &[u8]) -> usize {
        let is_jump = |found: &&Reference| matches!(found, Reference::Chain(to) if to == name);
        let maps = self.sets.iter().filter(|set| set.is_verdict_map());
        let elements = maps.flat_map(|set| set.elements.iter());
        self.references().filter(is_jump).count()
            + elements.filter(|element| element.chain.as_deref() == Some(name)).count()
    }

    /// The count of expressions that look up the set.
    pub(super) fn lookups_of(&self, name: &[u8]) -> usize {
        let is_lookup = |found: &&Reference| matches!(found, Reference::Set(set) if set == name);
        self.references().filter(is_lookup).count()
    }

    /// The count of expressions that use the object.
    pub(super) fn uses_of(&self, object: &Object) -> usize {
        let is_use = |found: &&Reference| {
            matches!(found, Reference::Object(kind, name)
                if *kind == object.kind && *name == object.name)
        };
        self.references().filter(is_use).count()
    }

    /// Deletes the anonymous sets of these rules, which are deleted (`nf_tables_deactivate_set`).
    pub(super) fn drop_anonymous_sets(&mut self, rules: &[Arc<Rule>]) {
        for reference in rules.iter().flat_map(|rule| &rule.references) {
            if let Reference::Set(name) = reference {
                self.sets.retain(|set| set.name != *name || !set.has(NFT_SET_ANONYMOUS));
            }
        }
    }
}

impl Set {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn is_map(&self) -> bool {
        self.has(NFT_SET_MAP)
    }

    pub(super) fn is_interval(&self) -> bool {
        self.has(NFT_SET_INTERVAL)
    }

    pub(super) fn is_verdict_map(&self) -> bool {
        self.is_map() && self.data_type == ephport_nft::uapi::NFT_DATA_VERDICT
    }

    /// Whether its elements stay as they are while a rule uses it.
    pub(super) fn is_fixed_in_use(&self) -> bool {
        self.has(NFT_SET_ANONYMOUS | NFT_SET_CONSTANT)
    }
}
