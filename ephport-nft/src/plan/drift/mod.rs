//! In what the installed table differs from the one that a policy makes, in the policy's terms.
//!
//! The table holds a checksum of what was applied, not a copy: *that* it drifted it says by itself,
//! *what* drifted only the policy can. A record in the user data of each rule could not: a lost rule
//! takes its record along, a record of all the others has no room (`NFT_USERDATA_MAXLEN` is 256
//! bytes), and nft drops what it does not know when a listing is loaded again. So differences are
//! those to the policy; without one, [`evident`] finds what no policy ever makes.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PolicySpec, Target};
//! use ephport_nft::{compile};
//! use ephport_nft::plan::drift;
//!
//! let host = HostFacts { uplinks: vec!["eth0".parse()?], ..HostFacts::default() };
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let desired = compile(&[policy.resolve(&host)?])?;
//! let mut installed = desired.clone();
//! installed.rules.pop();
//! let drifts = drift::drift(&installed, &desired);
//! assert_eq!(
//!     drifts[0].to_string(),
//!     "policy default, rule 4 of postrouting: is missing: oifname \"eth0\" meta l4proto udp \
//!      th sport 1024-65535 counter packets 0 bytes 0 masquerade to :49152-61000"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod change;
mod rules;
mod sets;
mod statements;

use std::fmt;

use ephport_core::PolicyName;

pub use change::{Aspect, Change};

use crate::nftables::expr::Expr;
use crate::nftables::{Chain, Hook, Rule, Table, UnknownObject};
use crate::plan::diff::named;
use crate::syntax::chain_words;
use crate::table::TableState;
use crate::table::layout::{ENFORCE, ENFORCE_PRIORITY, POSTROUTING, PRIORITY, policy_of};
use crate::uapi::{NF_ACCEPT, NF_NAT_RANGE_PROTO_SPECIFIED, NFT_TABLE_F_DORMANT};

/// One difference between the installed table and the one that a policy makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Where.
    pub place: Place,
    /// What.
    pub change: Change,
}

/// Where a difference is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The table itself.
    Table,
    /// A chain.
    Chain {
        /// Its name.
        chain: String,
    },
    /// A named set or map.
    Set {
        /// Its name.
        set: String,
    },
    /// An object that no policy compiles to.
    Object(UnknownObject),
    /// A rule.
    Rule {
        /// Its chain's name.
        chain: String,
        /// Its number in the chain, from 1, as the kernel has it; of a missing rule, as the policy
        /// has it.
        number: usize,
        /// The policy that it is of, if it is of one.
        policy: Option<PolicyName>,
    },
}

impl Place {
    fn rule(rule: &Rule, at: usize) -> Self {
        Self::Rule { chain: rule.chain.clone(), number: at + 1, policy: policy_of(rule) }
    }

    fn with(self, change: Change) -> Drift {
        Drift { place: self, change }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => f.write_str("the table"),
            Self::Chain { chain } => write!(f, "chain {chain}"),
            Self::Set { set } => write!(f, "set {set}"),
            Self::Object(object) => object.fmt(f),
            Self::Rule { chain, number, policy: Some(policy) } => {
                write!(f, "policy {policy}, rule {number} of {chain}")
            }
            Self::Rule { chain, number, policy: None } => write!(f, "rule {number} of {chain}"),
        }
    }
}

/// One sentence.
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.change)
    }
}

/// All differences: none if, and only if, the two have the same [essence](TableState::normalized).
///
/// A chain that is missing or too many stands for its rules too.
#[must_use]
pub fn drift(installed: &TableState, desired: &TableState) -> Vec<Drift> {
    let mut drifts: Vec<_> =
        table(&installed.table, &desired.table).map(|change| Place::Table.with(change)).collect();
    for after in &desired.chains {
        let place = Place::Chain { chain: after.name.clone() };
        match installed.chains.iter().find(|chain| chain.name == after.name) {
            None => drifts.push(place.with(Change::Removed)),
            Some(before) => {
                drifts.extend(chain(before, after).map(|change| place.clone().with(change)));
                drifts.extend(rules::rules(installed, desired, &after.name));
            }
        }
    }
    let is_added = |chain: &&Chain| desired.chains.iter().all(|known| known.name != chain.name);
    let added = installed.chains.iter().filter(is_added);
    drifts
        .extend(added.map(|chain| Place::Chain { chain: chain.name.clone() }.with(Change::Added)));
    for after in named(desired) {
        let place = Place::Set { set: after.spec.name.clone() };
        match installed.set(&after.spec.name) {
            None => drifts.push(place.with(Change::Removed)),
            Some(before) => {
                drifts.extend(sets::set(before, after).map(|change| place.with(change)));
            }
        }
    }
    let added = named(installed).filter(|filled| desired.set(&filled.spec.name).is_none());
    drifts.extend(
        added.map(|filled| Place::Set { set: filled.spec.name.clone() }.with(Change::Added)),
    );
    let only_in = |one: &TableState, other: &TableState, change: Change| {
        let only = one.unknown.iter().filter(|object| !other.unknown.contains(object)).cloned();
        only.map(|object| Place::Object(object).with(change.clone())).collect::<Vec<_>>()
    };
    drifts.extend(only_in(desired, installed, Change::Removed));
    drifts.extend(only_in(installed, desired, Change::Added));
    without_consequences(drifts)
}

/// Another fingerprint follows from any other difference between two policies.
fn without_consequences(mut drifts: Vec<Drift>) -> Vec<Drift> {
    let is_own = |drift: &Drift| !matches!(drift.change, Change::FingerprintChanged { .. });
    if drifts.iter().any(is_own) {
        drifts.retain(is_own);
    }
    drifts
}

/// The differences that the table itself shows: what no policy makes, whatever it says.
#[must_use]
pub fn evident(installed: &TableState) -> Vec<Drift> {
    let mut mended = installed.clone();
    mended.unknown.clear();
    let flags = installed.table.flags.map(|flags| flags & !NFT_TABLE_F_DORMANT);
    mended.table.flags = flags.filter(|flags| *flags != 0);
    for chain in &mut mended.chains {
        let (kind, priority) = match chain.name.as_str() {
            POSTROUTING => ("nat", PRIORITY),
            ENFORCE => ("filter", ENFORCE_PRIORITY),
            _ => continue,
        };
        chain.chain_type = Some(kind.into());
        chain.policy = Some(NF_ACCEPT);
        chain.hook = chain.hook.take().map(|hook| Hook { priority, ..hook });
    }
    for expr in mended.rules.iter_mut().flat_map(|rule| &mut rule.exprs) {
        match expr {
            Expr::Masq(masq) if masq.ignores_its_ports() => {
                masq.flags = Some(masq.flags.unwrap_or(0) | NF_NAT_RANGE_PROTO_SPECIFIED);
            }
            _ => {}
        }
    }
    drift(installed, &mended)
}

fn table(installed: &Table, desired: &Table) -> impl Iterator<Item = Change> {
    let (found, expected) = (installed.normalized(), desired.normalized());
    let (is, was) = (found.flags.unwrap_or(0), expected.flags.unwrap_or(0));
    let text = |table: &Table| table.comment().map(|comment| comment.as_str().to_string());
    let flags = match (is ^ was, is & NFT_TABLE_F_DORMANT) {
        (0, _) => None,
        (NFT_TABLE_F_DORMANT, NFT_TABLE_F_DORMANT) => Some(Change::Dormant),
        _ => Some(Change::TableFlags { found: is, expected: was }),
    };
    let comment = (found.userdata != expected.userdata)
        .then(|| Change::CommentChanged { found: text(&found), expected: text(&expected) });
    let same = Table { flags: found.flags, userdata: found.userdata.clone(), ..expected };
    let unnamed = (found != same).then_some(Change::Unnamed);
    [flags, comment, unnamed].into_iter().flatten()
}

fn chain(installed: &Chain, desired: &Chain) -> impl Iterator<Item = Change> {
    let (found, expected) = (installed.normalized(), desired.normalized());
    let priority = match (&found.hook, &expected.hook) {
        (Some(is), Some(was)) if is.priority != was.priority => {
            Some(Change::ChainPriority { found: is.priority, expected: was.priority })
        }
        _ => None,
    };
    // With the priority as it should be, is the rest?
    let hook = match (found.hook.clone(), &expected.hook) {
        (Some(is), Some(was)) => Some(Hook { priority: was.priority, ..is }),
        (is, _) => is,
    };
    let found = Chain { hook, ..found };
    let (is, was) = (chain_words(&found), chain_words(&expected));
    let rest = match found == expected {
        true => None,
        false if is == was => Some(Change::Unnamed),
        false => Some(Change::ChainChanged { found: is, expected: was }),
    };
    priority.into_iter().chain(rest)
}
