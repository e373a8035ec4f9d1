//! Policies as an installed table has them: scope, ports and counters, from the decoded rules.

use std::collections::BTreeMap;

use ephport_core::{Address, PolicyName, PortRange, PortSet, Protocol};

use super::nat::Argument;
use super::operand::Operand;
use super::statement::{Decoded, Statement, decode};
use crate::nftables::expr::{Payload, Verdict};
use crate::nftables::{CtTimeout, Rule};
use crate::table::layout::{open_set, policy_of, real_ports_map, translates};
use crate::table::{Normalized, Set, TableState};
use crate::uapi::NFT_META_OIFNAME;

/// The rules of one policy in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct InstalledPolicy {
    /// The name.
    pub name: PolicyName,
    /// The output interfaces, as nft prints them; none is any.
    pub out_interfaces: Vec<String>,
    /// The source ports that are translated, as nft prints them; none is any.
    pub source_ports: Vec<String>,
    /// The ports to which connections are translated; empty for blocks.
    pub to_ports: PortSet,
    /// Whether each source has its own block of ports.
    pub has_blocks: bool,
    /// The source addresses after translation, except those of blocks.
    pub addresses: Vec<Address>,
    /// The timeouts that are not those of the host, like `udp to 53: unreplied 2 s`.
    pub timeouts: Vec<String>,
    /// Whether packets with other source ports are dropped.
    pub enforces: bool,
    /// The count of connections that the kernel attempted to translate. An attempt fails when all
    /// ports are in use.
    pub attempts: u64,
    /// The count of packets that enforcement dropped.
    pub drops: u64,
    /// The numbers of the connections that were open when enforcement was first applied: they pass with any
    /// port until they end. `None` if the policy excepts none.
    pub open_connections: Option<Vec<u32>>,
}

impl TableState {
    /// The policies, in order of their first rules.
    #[must_use]
    pub fn policies(&self) -> Vec<InstalledPolicy> {
        let table = self.normalized();
        let mut indices = BTreeMap::new();
        let mut policies: Vec<InstalledPolicy> = Vec::new();
        let mut ranges: Vec<Vec<PortRange>> = Vec::new();
        for rule in &self.rules {
            let Some(name) = policy_of(rule) else { continue };
            let index = *indices.entry(name.clone()).or_insert_with(|| {
                let open_connections = self.open_connections(&open_set(&name));
                policies.push(InstalledPolicy { open_connections, ..InstalledPolicy::new(name) });
                ranges.push(Vec::new());
                policies.len() - 1
            });
            if let (Some(policy), Some(ranges)) = (policies.get_mut(index), ranges.get_mut(index)) {
                policy.add(rule, &table, ranges);
            }
        }
        for (policy, ranges) in policies.iter_mut().zip(ranges) {
            policy.to_ports = ranges.into_iter().collect();
            policy.merge_addresses();
            if let Some(map) = self.set(&real_ports_map(&policy.name)) {
                policy.to_ports = remapped(&policy.to_ports, map);
            }
        }
        policies
    }
}

/// The ports with the values of a map in place of its keys.
fn remapped(ports: &PortSet, map: &Set) -> PortSet {
    let (keys, values): (Vec<PortRange>, Vec<PortRange>) =
        map.port_pairs().map(|(key, value)| (PortRange::from(key), PortRange::from(value))).unzip();
    ports.difference(&keys.into_iter().collect()).union(&values.into_iter().collect())
}

impl InstalledPolicy {
    fn new(name: PolicyName) -> Self {
        Self {
            name,
            out_interfaces: Vec::new(),
            source_ports: Vec::new(),
            to_ports: PortSet::EMPTY,
            has_blocks: false,
            addresses: Vec::new(),
            timeouts: Vec::new(),
            enforces: false,
            attempts: 0,
            drops: 0,
            open_connections: None,
        }
    }

    /// Adds what a rule does, and the ports that it translates to.
    fn add(&mut self, rule: &Rule, table: &Normalized<'_>, ranges: &mut Vec<PortRange>) {
        let packets = rule.counter().map_or(0, |counter| counter.packets);
        if translates(&rule.chain) {
            self.attempts = self.attempts.saturating_add(packets);
        }
        let mut destination_ports = None;
        for Decoded { statement, .. } in decode(rule, table) {
            if let Statement::Match { operand, is_inverted: false, .. } = &statement
                && *operand == destination_port()
            {
                destination_ports = statement.to_nft();
            }
            match &statement {
                Statement::Object(object) => {
                    if let Some(object) = table.timeout(&object.name) {
                        let text = timeouts(object, destination_ports.as_deref());
                        add(&mut self.timeouts, text);
                    }
                }
                Statement::Match { operand, is_inverted: false, .. } => {
                    self.add_match(rule, operand, &statement);
                }
                Statement::Nat(nat) => {
                    match &nat.ports {
                        Some(Argument::Value(range)) => ranges.push(*range),
                        Some(Argument::Map(_)) => self.has_blocks = true,
                        None => {}
                    }
                    if let Argument::Value(address) = nat.address {
                        add(&mut self.addresses, address);
                    }
                }
                Statement::Verdict(Verdict::Drop) => {
                    self.enforces = true;
                    self.drops = self.drops.saturating_add(packets);
                }
                _ => {}
            }
        }
    }

    /// A policy that keeps some addresses and masquerades others has the address `auto`.
    fn merge_addresses(&mut self) {
        let of_auto = [Address::Keep, Address::Masquerade];
        if of_auto.iter().all(|address| self.addresses.contains(address)) {
            self.addresses.retain(|address| !of_auto.contains(address));
            self.addresses.push(Address::Auto);
        }
    }

    fn add_match(&mut self, rule: &Rule, operand: &Operand<'_>, statement: &Statement<'_>) {
        let (list, prefix) = match operand {
            Operand::Meta(NFT_META_OIFNAME) => (&mut self.out_interfaces, "oifname "),
            Operand::Payload { base, offset: 0, len: 2 }
                if *base == Payload::SOURCE_PORT.base && translates(&rule.chain) =>
            {
                (&mut self.source_ports, "th sport ")
            }
            _ => return,
        };
        if let Some(text) = statement.to_nft() {
            let value = text.strip_prefix(prefix).unwrap_or(&text);
            let value = value.trim_matches(|c| matches!(c, '{' | '}' | ' ' | '"'));
            add(list, value.replace('"', ""));
        }
    }
}

fn destination_port() -> Operand<'static> {
    let Payload { base, offset, len, .. } = Payload::DESTINATION_PORT;
    Operand::Payload { base, offset, len }
}

/// The timeouts of an object, for these destination ports as nft prints them.
fn timeouts(object: &CtTimeout, ports: Option<&str>) -> String {
    let protocol = object.protocol().map_or("unknown", Protocol::name);
    let ports = ports.map(|text| text.trim_start_matches("th dport "));
    let ports = ports.map(|text| format!(" to {}", text.trim_matches(['{', '}', ' '])));
    format!("{protocol}{}: {}", ports.unwrap_or_default(), object.timeouts())
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use ephport_core::{Document, HostFacts};

    use super::*;
    use crate::Plan;

    fn policies(text: &str) -> Vec<InstalledPolicy> {
        let document: Document = text.parse().unwrap();
        Plan::new(document.policies(), &HostFacts::default()).unwrap().table.policies()
    }

    #[test]
    fn policies_of_a_table_have_scope_and_ports() {
        let found = policies(
            r#"
            [[policy]]
            name = "one"
            out-interfaces = ["eth0", "wg*"]
            to-ports = "49152-61000"
            enforce = true

            [[policy]]
            name = "two"
            out-interfaces = "any"
            source-ports = "2000-2999,4000"
            to-ports = "1024-2047,4096-5119"
            address = "192.0.2.1"

            [[policy]]
            name = "four"
            out-interfaces = ["eth2"]
            to-ports = "20000-20009,30000-30009"
            spread = "remap"
            address = "masquerade"
            enforce = true

            [[policy]]
            name = "three"
            out-interfaces = ["eth1"]
            blocks = "10.0.0.0/30=64@1024-2047"
            "#,
        );
        let [one, two, four, three] = found.as_slice() else { panic!("{found:#?}") };
        assert_eq!((one.name.as_str(), one.to_ports.to_string()), ("one", "49152-61000".into()));
        assert_eq!(one.out_interfaces, ["eth0", "wg*"]);
        assert_eq!(one.source_ports, ["1024-65535"]);
        assert_eq!((&*one.addresses, one.enforces), (&[Address::Auto][..], true));
        assert_eq!(two.to_ports.to_string(), "1024-2047,4096-5119");
        assert_eq!(two.source_ports.join(", "), "2000-2999, 4000");
        assert_eq!(two.addresses, [Address::Fixed("192.0.2.1".parse().unwrap())]);
        assert_eq!(one.open_connections.as_deref(), Some(&[][..]));
        assert!(two.open_connections.is_none());
        assert!(!two.enforces && !two.has_blocks && two.out_interfaces.is_empty());
        assert_eq!(four.to_ports.to_string(), "20000-20009,30000-30009");
        assert!(four.enforces);
        assert!(three.has_blocks && three.to_ports.is_empty());
    }
}
