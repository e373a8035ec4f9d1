//! From policies to the program that the kernel runs.
//!
//! Connections are translated in the base chain `postrouting`, before every other known tool: each
//! policy has one rule there for each way out, family and protocol of its scope. Several ranges
//! of ports have a chain each, and a chain of the policy's own to pick one of them. Enforcing
//! policies have their rules in a second base chain, which sees the ports after translation.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PolicySpec, Target};
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let host = HostFacts { uplinks: vec!["eth0".parse()?], ..HostFacts::default() };
//! let ruleset = ephport_nft::compile(&[policy.resolve(&host)?])?;
//! assert!(ruleset.to_nft().to_string().contains(
//!     "oifname \"eth0\" meta l4proto udp th sport 1024-65535 \
//!      counter packets 0 bytes 0 masquerade to :49152-61000 comment \"default\""
//! ));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod enforce;
mod networks;
mod scope;
mod spread;
mod translate;

use ephport_core::{OpenConnections, PermittedPorts, PolicyName, PortRange, ResolvedPolicy};
use thiserror::Error;

use crate::netlink::CodecError;
use crate::nftables::expr::{Cmp, CmpOp, Expr, Fib, Immediate, Verdict};
use crate::nftables::{Chain, Comment, Hook, Rule, SetSpec, Table};
use crate::table::layout::{FAMILY, POSTROUTING, PRIORITY, TABLE};
use crate::table::{Set, SetName, TableState};
use crate::uapi::{NF_ACCEPT, NF_INET_POST_ROUTING, RTN_BROADCAST, RTN_MULTICAST};

use scope::{Packets, Source};

/// The table that does what `policies` say, the first that speaks of a connection before the next.
pub fn compile(policies: &[ResolvedPolicy]) -> Result<TableState, CompileError> {
    let mut program = Program::default();
    program.base_chain(POSTROUTING, "nat", PRIORITY);
    for (i, policy) in policies.iter().enumerate() {
        if policies[..i].iter().any(|earlier| earlier.name == policy.name) {
            return Err(CompileError::SameName { name: policy.name.clone() });
        }
        if let Some(key) = not_compiled(policy) {
            return Err(CompileError::NotCompiled { name: policy.name.clone(), key });
        }
        program.policy(policy);
    }
    program.enforce(policies);
    Ok(program.finish().signed()?)
}

/// The first key of the policy that the program could not express.
fn not_compiled(policy: &ResolvedPolicy) -> Option<&'static str> {
    let keys = [
        ("destinations", !policy.destinations.is_empty()),
        ("destination-ports", policy.destination_ports != PortRange::ALL.into()),
        ("in-interfaces", !policy.in_interfaces.is_empty()),
        ("except-interfaces", !policy.except_interfaces.is_empty()),
        ("mark", policy.mark.is_some()),
        ("open-connections", policy.open_connections == OpenConnections::Drop),
    ];
    keys.into_iter().find(|(_, is_used)| *is_used).map(|(key, _)| key)
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
    /// A key that rules cannot express yet.
    #[error("policy {name}: {key} cannot be compiled to rules yet: omit it")]
    NotCompiled {
        /// The name of the policy.
        name: PolicyName,
        /// The key, as in policy files.
        key: &'static str,
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
    rules: Vec<Rule>,
    anonymous_sets: u32,
}

impl Program {
    fn finish(self) -> TableState {
        let Self { chains, sets, mut rules, .. } = self;
        // Chain by chain, as the kernel lists them.
        rules.sort_by_key(|rule| chains.iter().position(|chain| chain.name == rule.chain));
        TableState { chains, sets, rules, ..TableState::empty(Table::new(FAMILY, TABLE)) }
    }

    /// A base chain of postrouting that leaves groups and whole networks alone.
    fn base_chain(&mut self, name: &str, chain_type: &str, priority: i32) {
        self.chains.push(Chain {
            hook: Some(Hook::new(NF_INET_POST_ROUTING, priority)),
            policy: Some(NF_ACCEPT),
            chain_type: Some(chain_type.into()),
            ..Chain::regular(FAMILY, TABLE, name)
        });
        for address_type in [RTN_MULTICAST, RTN_BROADCAST] {
            let exprs = vec![
                Fib::DESTINATION_TYPE.into(),
                Cmp::new(CmpOp::Eq, &u32::from(address_type).to_ne_bytes()).into(),
                Immediate::verdict(Verdict::Return).into(),
            ];
            self.rule(name, exprs);
        }
    }

    fn chain(&mut self, name: &str) {
        self.chains.push(Chain::regular(FAMILY, TABLE, name));
    }

    fn rule(&mut self, chain: &str, exprs: Vec<Expr>) {
        self.rules.push(Rule::new(FAMILY, TABLE, chain, exprs));
    }

    /// A rule of a base chain, which is where an admin looks for the policy's name.
    fn rule_of(&mut self, policy: &ResolvedPolicy, chain: &str, exprs: Vec<Expr>) {
        let comment = Comment::new(policy.name.as_str());
        self.rules.push(Rule::new(FAMILY, TABLE, chain, exprs).with_comment(&comment));
    }

    /// Adds the set that `fill` makes for one rule.
    fn anonymous_set(&mut self, fill: impl FnOnce(SetName<'static>) -> Set) -> SetSpec {
        let name = SetName::Anonymous(self.anonymous_sets);
        self.anonymous_sets += 1;
        self.set(fill(name))
    }

    fn set(&mut self, filled: Set) -> SetSpec {
        let set = filled.spec.clone();
        self.sets.push(filled);
        set
    }

    fn policy(&mut self, policy: &ResolvedPolicy) {
        let spread = match &policy.permitted {
            PermittedPorts::Set(ports) if ports.ranges().len() > 1 => {
                Some(self.spread(policy, ports))
            }
            _ => None,
        };
        for packets in Packets::of(policy).into_iter().filter(|packets| packets.have_ports(policy))
        {
            for protocol in policy.protocols.iter() {
                let Some(mut exprs) = self.scope(policy, &packets, Source::Packet) else {
                    continue;
                };
                exprs.extend(scope::protocol(protocol));
                exprs.extend(scope::opening(protocol, policy.pick_up));
                exprs.extend(self.source_ports(&policy.translated));
                exprs.extend(self.action(policy, &packets, spread.as_deref()));
                self.rule_of(policy, POSTROUTING, exprs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ephport_core::{Document, HostFacts};

    use super::*;

    #[test]
    fn keys_that_rules_cannot_express_are_refused() {
        for (key, value) in [
            ("destinations", "[\"192.0.2.0/24\"]"),
            ("destination-ports", "\"443\""),
            ("in-interfaces", "[\"docker0\"]"),
            ("except-interfaces", "[\"wg0\"]"),
            ("mark", "\"0x1/0xff\""),
            ("open-connections", "\"drop\""),
        ] {
            let text = format!(
                "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"1024\"\n\
                 {key} = {value}"
            );
            let document: Document = text.parse().unwrap();
            let policies = document.resolve(&HostFacts::default()).unwrap();
            let name = "a".parse().unwrap();
            assert_eq!(compile(&policies), Err(CompileError::NotCompiled { name, key }));
        }
    }
}
