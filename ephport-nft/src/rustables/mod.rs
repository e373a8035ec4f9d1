//! Tables as values of the crate [rustables](https://docs.rs/rustables/0.9), for a tool that
//! uses it and sends them in its own batch (feature `rustables`).
//!
//! **Licence.** rustables is under the GPL, version 3 or later. ephport remains under its own terms,
//! but a program that is built with this feature contains both, and may be distributed only under
//! those of the GPL. So no default build has the feature, and neither has the binary
//! `ephport-nft`. Building it needs libclang and the kernel's headers, from Linux 5.10 on.
//!
//! **What it supports.** All that rustables 0.9 can express: masquerading to one range of
//! ports, translation to a single port at a kept or given address, enforcement for all sources, with
//! source ports that need no set of ranges. For anything else [`Values::of`] returns the reason
//! ([`Unsupported`]) and no values at all: rustables' own `Masquerade` has no ports, so a rule made
//! with it would permit any. The values here contain the ports.
//!
//! The table is to be deleted first, in the same batch:
//!
//! ```no_run
//! use ephport_core::{Address, Policy, PortRange};
//! use ephport_nft::rustables::Values;
//! use ephport_nft::{Plan, host};
//! use rustables::{Batch, MsgType};
//!
//! let range: PortRange = "49152-61000".parse()?;
//! let policy = Policy::to(range).address(Address::Masquerade).build()?;
//! let values = Values::of(&Plan::new(&[policy], &host::facts()?)?.table)?;
//! let mut batch = Batch::new();
//! batch.add(&values.table, MsgType::Add); // Deleting what does not exist is an error.
//! batch.add(&values.table, MsgType::Del);
//! values.add_to(&mut batch);
//! batch.send()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod expr;
mod set;
mod unsupported;

pub use unsupported::{Lack, Unsupported};

use ::rustables::set::SetElementList;
use ::rustables::{
    Batch, Chain, ChainPolicy, ChainType, Hook, MsgType, ProtocolFamily, Rule, Set, Table,
};

use crate::nftables;
use crate::nftables::expr::Expr;
use crate::table::layout::policy_of;
use crate::table::{self, TableState};
use crate::uapi::{NF_ACCEPT, NF_DROP};

/// A table as values of rustables.
#[derive(Debug)]
pub struct Values {
    /// The table.
    pub table: Table,
    /// Its chains, in the order of their creation.
    pub chains: Vec<Chain>,
    /// Its sets, without elements.
    pub sets: Vec<Set>,
    /// Their elements.
    pub elements: Vec<SetElementList>,
    /// Its rules, chain by chain, each in order.
    pub rules: Vec<Rule>,
}

impl Values {
    /// The values of all of `ruleset`, with counters at zero.
    ///
    /// # Errors
    /// A part that rustables cannot express: then there are no values at all.
    pub fn of(ruleset: &TableState) -> Result<Self, Unsupported> {
        let nftables::Table { family, name, flags, userdata, other, .. } =
            ruleset.table.normalized();
        let refused = |part| Unsupported::Object { object: "table", name: name.clone(), part };
        let family = ProtocolFamily::try_from(i32::from(family)).map_err(|_| refused("family"))?;
        if !other.is_empty() {
            return Err(refused("other attributes"));
        }
        let mut table = Table::new(family).with_name(&name);
        if let Some(flags) = flags {
            table.set_flags(flags);
        }
        if let Some(userdata) = userdata {
            table.set_userdata(userdata);
        }
        let (mut sets, mut elements) = (Vec::new(), Vec::new());
        for (filled, id) in ruleset.sets.iter().zip(1..) {
            let (set, lists) = set::set(filled, id, family).map_err(|lack| {
                let user = user_of(ruleset, filled);
                Unsupported::Set {
                    chain: user.map(|rule| rule.chain.clone()),
                    policy: user.and_then(policy_of),
                    set: filled.spec.name.clone(),
                    lack,
                }
            })?;
            sets.push(set);
            elements.extend(lists);
        }
        let chains = collect(&ruleset.chains, |of| chain(of, &table))?;
        let rules = collect(&ruleset.rules, |of| rule(of, &table))?;
        // The rules that assign timeouts are refused before.
        if let Some(nftables::CtTimeout { name, .. }) = ruleset.timeouts.first() {
            let (object, name) = (nftables::CtTimeout::NAME, name.clone());
            return Err(Unsupported::Object { object, name, part: "type" });
        }
        Ok(Self { table, chains, sets, elements, rules })
    }

    /// Adds all of them to a batch, in the order that the kernel requires. Rules are appended to their
    /// chains.
    pub fn add_to(&self, batch: &mut Batch) {
        batch.add(&self.table, MsgType::Add);
        self.chains.iter().for_each(|chain| batch.add(chain, MsgType::Add));
        self.sets.iter().for_each(|set| batch.add(set, MsgType::Add));
        self.elements.iter().for_each(|elements| batch.add(elements, MsgType::Add));
        self.rules.iter().for_each(|rule| batch.add(rule, MsgType::Add));
    }
}

fn collect<T, V>(
    of: &[T],
    value: impl Fn(&T) -> Result<V, Unsupported>,
) -> Result<Vec<V>, Unsupported> {
    of.iter().map(value).collect()
}

/// The first rule that uses a set.
fn user_of<'a>(ruleset: &'a TableState, filled: &table::Set) -> Option<&'a nftables::Rule> {
    let looks_it_up = |expr: &Expr| match expr {
        Expr::Lookup(lookup) => lookup.set == filled.spec.name,
        _ => false,
    };
    ruleset.rules.iter().find(|rule| rule.exprs.iter().any(looks_it_up))
}

fn chain(of: &nftables::Chain, table: &Table) -> Result<Chain, Unsupported> {
    let nftables::Chain { name, hook, policy, chain_type, flags, other, .. } = of.normalized();
    let refused = |part| Unsupported::Object { object: "chain", name: name.clone(), part };
    let mut chain = Chain::new(table).with_name(&name);
    if let Some(nftables::Hook { number, priority, .. }) = hook {
        let priority = priority.cast_unsigned();
        chain.set_hook(Hook::default().with_class(number).with_priority(priority));
    }
    if let Some(policy) = policy {
        chain.set_policy(match policy {
            NF_ACCEPT => ChainPolicy::Accept,
            NF_DROP => ChainPolicy::Drop,
            _ => return Err(refused("policy")),
        });
    }
    if let Some(chain_type) = chain_type {
        chain.set_type(match chain_type.as_str() {
            "filter" => ChainType::Filter,
            "nat" => ChainType::Nat,
            "route" => ChainType::Route,
            _ => return Err(refused("type")),
        });
    }
    if let Some(flags) = flags {
        chain.set_flags(flags);
    }
    if other.is_empty() { Ok(chain) } else { Err(refused("other attributes")) }
}

fn rule(of: &nftables::Rule, table: &Table) -> Result<Rule, Unsupported> {
    let nftables::Rule { chain, exprs, userdata, other, .. } = of.normalized();
    let refused = |part| Unsupported::Object { object: "rule", name: chain.clone(), part };
    if !other.is_empty() {
        return Err(refused("other attributes"));
    }
    let rule = Rule::new(&Chain::new(table).with_name(&chain));
    let mut rule = rule.map_err(|_| refused("chain"))?;
    for expr in &exprs {
        rule.add_expr(expr::expression(expr).map_err(|lack| Unsupported::Expression {
            policy: policy_of(of),
            chain: chain.clone(),
            expression: expr.to_string(),
            lack,
        })?);
    }
    if let Some(userdata) = userdata {
        rule.set_userdata(userdata);
    }
    Ok(rule)
}
