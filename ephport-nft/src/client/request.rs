//! Rejected requests, in the terms of an administrator.

use std::fmt;

use ephport_core::PolicyName;

use crate::nftables::{Elements, Rule};
use crate::plan::operation::Operation;
use crate::table::layout::policy_of;

/// A rejected request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// A whole transaction.
    Transaction,
    /// The addition of an object.
    Add(Object),
    /// The deletion of an object.
    Delete(Object),
    /// To delete all rules of the chain of this name.
    Flush(String),
}

/// An object of nf_tables.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// The table of this name.
    Table(String),
    /// The chain of this name.
    Chain(String),
    /// The set or map of this name.
    Set(String),
    /// Elements of a set or map.
    Elements {
        /// The count of elements.
        count: usize,
        /// The set's name.
        set: String,
    },
    /// The timeouts of this name.
    Timeout(String),
    /// A rule.
    Rule {
        /// The chain's name.
        chain: String,
        /// Its policy; none for rules that all policies share.
        policy: Option<PolicyName>,
        /// Its number, from 1, among the transaction's rules of its policy in its chain; of all rules in
        /// its chain if it has no policy.
        number: usize,
    },
}

impl Request {
    /// The operation at `index` of a transaction; the transaction itself when there is none.
    pub(super) fn at(operations: &[Operation], index: Option<usize>) -> Self {
        let Some(operation) = index.and_then(|index| operations.get(index)) else {
            return Self::Transaction;
        };
        let rule = |rule| {
            let before = operations.iter().take(index.unwrap_or_default());
            number(rule, before)
        };
        match operation {
            Operation::AddTable(table) => Self::Add(Object::Table(table.name.clone())),
            Operation::DeleteTable(table) => Self::Delete(Object::Table(table.name.clone())),
            Operation::AddChain(chain) => Self::Add(Object::Chain(chain.name.clone())),
            Operation::DeleteChain(chain) => Self::Delete(Object::Chain(chain.name.clone())),
            Operation::AddSet(set) => Self::Add(Object::Set(set.name.clone())),
            Operation::DeleteSet(set) => Self::Delete(Object::Set(set.name.clone())),
            Operation::AddElements(some) => Self::Add(elements(some)),
            Operation::DeleteElements(some) => Self::Delete(elements(some)),
            Operation::AppendRule(new) | Operation::InsertRule(new) => Self::Add(rule(new)),
            Operation::DeleteRule(old) => Self::Delete(rule(old)),
            Operation::FlushChain(chain) => Self::Flush(chain.name.clone()),
            Operation::AddTimeout(object) => Self::Add(Object::Timeout(object.name.clone())),
            Operation::DeleteTimeout(object) => Self::Delete(Object::Timeout(object.name.clone())),
        }
    }
}

fn elements(Elements { elements, set, .. }: &Elements) -> Object {
    Object::Elements { count: elements.len(), set: set.clone() }
}

fn number<'a>(rule: &Rule, before: impl Iterator<Item = &'a Operation>) -> Object {
    let policy = policy_of(rule);
    let is_alike = |other: &&Operation| match other {
        Operation::AppendRule(other) | Operation::InsertRule(other) => {
            let same_policy = policy.is_none() || policy_of(other) == policy;
            other.chain == rule.chain && same_policy
        }
        _ => false,
    };
    let number = before.filter(is_alike).count() + 1;
    Object::Rule { chain: rule.chain.clone(), policy, number }
}

/// As in "the kernel refused to ...".
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction => f.write_str("process a transaction"),
            Self::Add(Object::Elements { count, set }) => {
                write!(f, "add {count} elements to set {set}")
            }
            Self::Add(Object::Rule { chain, policy: Some(policy), number }) => {
                write!(f, "add rule {number} of policy {policy} to chain {chain}")
            }
            Self::Add(Object::Rule { chain, policy: None, number }) => {
                write!(f, "add rule {number} to chain {chain}")
            }
            Self::Add(object) => write!(f, "add {object}"),
            Self::Delete(object) => write!(f, "delete {object}"),
            Self::Flush(chain) => write!(f, "delete the rules of chain {chain}"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(f, "table {name}"),
            Self::Chain(name) => write!(f, "chain {name}"),
            Self::Set(name) => write!(f, "set {name}"),
            Self::Timeout(name) => write!(f, "ct timeout {name}"),
            Self::Elements { count, set } => write!(f, "{count} elements of set {set}"),
            Self::Rule { chain, .. } => write!(f, "a rule of chain {chain}"),
        }
    }
}
