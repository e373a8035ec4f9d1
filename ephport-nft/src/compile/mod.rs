//! From policies to the program that the kernel runs.
//!
//! Connections are translated in the base chain `postrouting`, before every other known tool: each
//! policy has one rule there for each family and protocol of its scope; the names of its output interfaces
//! are one set, and each prefix has a rule of its own. Several ranges
//! of ports have a chain each, and a chain of the policy's own to pick one of them; an address that
//! depends on the source, too. Destination ports with timeouts of their own have rules before those for all ports. Enforcing
//! policies have their rules in a second base chain, which sees the ports after translation.
//!
//! ```
//! use ephport_core::{Address, HostFacts, Policy, PortRange};
//!
//! let range: PortRange = "49152-61000".parse()?;
//! let policy = Policy::to(range).address(Address::Masquerade).build()?;
//! let host = HostFacts::with_uplinks(["eth0".parse()?]);
//! let ruleset = ephport_nft::Plan::new(&[policy], &host)?.table;
//! assert!(ruleset.to_nft().to_string().contains(
//!     "oifname \"eth0\" meta l4proto udp th sport 1024-65535 \
//!      counter packets 0 bytes 0 masquerade to :49152-61000 comment \"default\""
//! ));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blocks;
mod enforce;
mod networks;
mod parts;
mod ports;
mod remap;
mod scope;
mod spread;
mod timeouts;
mod translate;

use std::collections::{HashMap, HashSet};

use ephport_core::{Ipsec, PolicyName, Protocol, ResolvedPolicy};
use thiserror::Error;

use crate::netlink::CodecError;
use crate::nftables::expr::{Expr, Payload};
use crate::nftables::{Chain, Comment, CtTimeout, Hook, Rule, SetSpec, Table};
use crate::table::layout::{FAMILY, POSTROUTING, PRIORITY, TABLE};
use crate::table::{Set, SetName, TableState};
use crate::uapi::{NF_ACCEPT, NF_INET_POST_ROUTING};

pub use blocks::describe as describe_blocks;
use networks::Source;
use scope::Packets;
use timeouts::Group;
use translate::Action;

/// The table that does what `policies` mean; the first that matches a connection decides.
pub fn compile(policies: &[ResolvedPolicy]) -> Result<TableState, CompileError> {
    compile_split(policies, blocks::MAX_FLAT, parts::MIN_PART)
}

/// The same table, but with a single map only for tables of at most `max_flat` blocks, and base chains in parts of at
/// least `min_part` rules.
pub fn compile_split(
    policies: &[ResolvedPolicy],
    max_flat: usize,
    min_part: usize,
) -> Result<TableState, CompileError> {
    let guards_ipsec = policies.iter().all(|policy| policy.ipsec == Ipsec::Skip);
    let mut program = Program { guards_ipsec, max_flat, ..Program::default() };
    program.base_chain(POSTROUTING, "nat", PRIORITY);
    program.guards(POSTROUTING);
    let mut names = HashSet::new();
    for policy in policies {
        if !names.insert(&policy.name) {
            return Err(CompileError::SameName { name: policy.name.clone() });
        }
        program.policy(policy);
    }
    program.remap(policies);
    program.enforce(policies);
    Ok(program.finish(min_part).signed_for(policies)?)
}

/// Why policies make no program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Chains are named after policies.
    #[error("two policies are called {name}: give each a name of its own")]
    SameName {
        /// That name.
        name: PolicyName,
    },
    /// A rule is too long for netlink.
    #[error("the policies cannot be encoded: {0}")]
    Wire(#[from] CodecError),
}

/// The table as it grows.
#[derive(Default)]
struct Program {
    chains: Vec<Chain>,
    sets: Vec<Set>,
    /// The indexes of the sets, by name.
    set_places: HashMap<String, usize>,
    rules: Vec<Rule>,
    timeouts: Vec<CtTimeout>,
    anonymous_sets: u32,
    /// The anonymous sets that a rule uses.
    bound_sets: HashSet<String>,
    /// Whether packets that IPsec will protect are in no policy's scope.
    guards_ipsec: bool,
    /// The most sources of one map of blocks.
    max_flat: usize,
    /// The maps of blocks, by name.
    blocks: HashMap<String, SetSpec>,
}

impl Program {
    fn finish(self, min_part: usize) -> TableState {
        let Self { mut chains, mut sets, mut rules, timeouts, bound_sets, .. } = self;
        // A condition that no packet meets has no rule, but may have made a set.
        sets.retain(|set| !set.spec.is_anonymous() || bound_sets.contains(&set.spec.name));
        // Chain by chain, as the kernel lists them.
        let order: HashMap<_, _> =
            chains.iter().zip(0..).map(|(chain, at)| (chain.name.as_str(), at)).collect();
        rules.sort_by_cached_key(|rule: &Rule| {
            order.get(rule.chain.as_str()).copied().unwrap_or(usize::MAX)
        });
        drop(order);
        let rules = parts::parted(&mut chains, rules, min_part);
        let empty = TableState::empty(Table::new(FAMILY, TABLE));
        TableState { chains, sets, rules, timeouts, ..empty }
    }

    /// A base chain of postrouting.
    fn base_chain(&mut self, name: &str, chain_type: &str, priority: i32) {
        self.base_chain_at(name, chain_type, NF_INET_POST_ROUTING, priority);
    }

    fn base_chain_at(&mut self, name: &str, chain_type: &str, hook: u32, priority: i32) {
        self.chains.push(Chain {
            hook: Some(Hook::new(hook, priority)),
            policy: Some(NF_ACCEPT),
            chain_type: Some(chain_type.into()),
            ..Chain::regular(FAMILY, TABLE, name)
        });
    }

    fn chain(&mut self, name: &str) {
        self.chains.push(Chain::regular(FAMILY, TABLE, name));
    }

    fn rule(&mut self, chain: &str, exprs: Vec<Expr>) {
        let exprs = self.with_own_sets(exprs);
        self.rules.push(Rule::new(FAMILY, TABLE, chain, exprs));
    }

    /// A rule of a base chain, which is where an admin looks for the policy's name.
    fn rule_of(&mut self, policy: &ResolvedPolicy, chain: &str, exprs: Vec<Expr>) {
        let comment = Comment::new(policy.name.as_str());
        let exprs = self.with_own_sets(exprs);
        self.rules.push(Rule::new(FAMILY, TABLE, chain, exprs).with_comment(&comment));
    }

    /// The same expressions with anonymous sets that no rule before them uses: each belongs to one rule.
    fn with_own_sets(&mut self, mut exprs: Vec<Expr>) -> Vec<Expr> {
        for expr in &mut exprs {
            let Expr::Lookup(lookup) = expr else { continue };
            let at = self.set_places.get(&lookup.set);
            let Some(set) = at.and_then(|at| self.sets.get(*at)) else { continue };
            if set.spec.is_anonymous() && !self.bound_sets.insert(lookup.set.clone()) {
                let mut copy = set.clone();
                let prefix = if copy.spec.is_map() { "__map" } else { "__set" };
                copy.spec.name = format!("{prefix}{}", self.anonymous_sets);
                self.anonymous_sets += 1;
                lookup.set.clone_from(&copy.spec.name);
                self.bound_sets.insert(lookup.set.clone());
                self.set(copy);
            }
        }
        exprs
    }

    /// Adds the set that `fill` makes for one rule.
    fn anonymous_set(&mut self, fill: impl FnOnce(SetName<'static>) -> Set) -> SetSpec {
        let name = SetName::Anonymous(self.anonymous_sets);
        self.anonymous_sets += 1;
        self.set(fill(name))
    }

    fn set(&mut self, filled: Set) -> SetSpec {
        let set = filled.spec.clone();
        self.set_places.insert(set.name.clone(), self.sets.len());
        self.sets.push(filled);
        set
    }

    fn policy(&mut self, policy: &ResolvedPolicy) {
        let all = self.action(policy);
        let identifiers = self.identifiers(policy);
        for packets in Packets::of(policy).iter().filter(|packets| packets.have_ports(policy)) {
            for protocol in policy.protocols.iter() {
                let Some(packets) = packets.of_protocol(protocol) else { continue };
                let action = identifiers.as_ref().filter(|_| !protocol.has_ports());
                let action = action.unwrap_or(&all);
                for group in self.base_groups(policy, &packets, protocol) {
                    self.group(policy, &packets, protocol, (&group, action));
                }
            }
        }
    }

    /// The rules of a policy for some destination ports.
    fn group(
        &mut self,
        policy: &ResolvedPolicy,
        packets: &Packets<'_>,
        protocol: Protocol,
        ((ports, assign), action): (&Group, &Action),
    ) {
        let mut conditions = vec![
            self.scope(policy, packets, Source::Packet),
            vec![scope::protocol(protocol)],
            vec![scope::opening(protocol, policy.pick_up)],
        ];
        if protocol.has_ports() {
            conditions.push(self.destination_ports(ports));
            conditions.push(self.ports(&Payload::SOURCE_PORT.into(), &policy.translated));
        }
        for exprs in scope::product(conditions) {
            for end in self.ends(policy, packets, action, assign.as_ref()) {
                self.rule_of(policy, POSTROUTING, [exprs.as_slice(), &end].concat());
            }
        }
    }
}
