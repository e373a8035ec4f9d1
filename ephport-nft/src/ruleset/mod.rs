//! One table with all that is in it, as a value: what a policy compiles to, and what the kernel
//! says it has.

mod bytecode;
mod essence;
mod filled_set;
mod listing;
mod sets;
mod signature;

pub use bytecode::Bytecode;
pub use filled_set::FilledSet;
pub use listing::Listing;
pub(crate) use listing::{CHOICES, address_of, chain_words, element_words, rule_words};
pub use sets::SetName;
pub(crate) use sets::merged_networks;
pub(crate) use signature::is_ours;
pub use signature::{Digest, Signature};

use crate::object::{Chain, Rule, Table};
use crate::uapi::NFPROTO_INET;

/// The table that holds all of ephport's rules. Nothing outside it is ever changed.
pub const TABLE: &str = "ephport";

/// That table's family: IPv4 and IPv6 together.
pub const FAMILY: u8 = NFPROTO_INET;

/// A table with its chains, sets and rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The table.
    pub table: Table,
    /// Its chains, in the order of their creation.
    pub chains: Vec<Chain>,
    /// Its sets, with their elements.
    pub sets: Vec<FilledSet>,
    /// Its rules, chain by chain, each in order.
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// The rules of one chain.
    pub fn rules_of(&self, chain: &str) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }

    /// The set of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&FilledSet> {
        self.sets.iter().find(|filled| filled.set.name == name)
    }

    /// As text that `nft -f` loads.
    #[must_use]
    pub fn listing(&self) -> Listing<'_> {
        Listing(self)
    }

    /// As the instructions that `nft --debug=netlink` prints.
    #[must_use]
    pub fn bytecode(&self) -> Bytecode<'_> {
        Bytecode(self)
    }
}
