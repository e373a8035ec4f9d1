//! Parts of several documents.

use std::collections::BTreeMap;

use ephport_core::{
    DefaultRoute, Distribution, Families, Interfaces, PermittedPorts, PolicyName, PortSet,
    Protocol, ResolvedPolicy,
};
use ephport_nft::nftables::Rule;
use ephport_nft::plan::drift::Location;
use ephport_nft::table::layout::policy_of;
use ephport_nft::{Drift, TableState};
use schemars::JsonSchema;
use serde::Serialize;

use super::policy_file;

/// A range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct PortRange {
    /// The first port.
    first: u16,
    /// The last port; not less than `first`.
    last: u16,
}

/// The ranges of a set, ascending.
pub(crate) fn ports(ports: &PortSet) -> Vec<PortRange> {
    let range = |range: &ephport_core::PortRange| PortRange {
        first: range.first().get(),
        last: range.last().get(),
    };
    ports.ranges().iter().map(range).collect()
}

/// A policy on this host.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(clippy::struct_excessive_bools)] // They are keys of a policy.
pub(crate) struct PolicyDocument {
    /// The name.
    name: String,
    /// The keys of the policy file as they were written, with `_` for `-`. The other members are
    /// their meaning on this host.
    #[schemars(schema_with = "policy_file::written")]
    written: serde_json::Value,
    /// The transport protocols.
    protocols: Vec<String>,
    /// The output interfaces: names, and prefixes like `wg*`; null is every interface but loopback.
    out_interfaces: Option<Vec<String>>,
    /// The default routes that make the output interfaces uplinks; none if the policy names interfaces.
    uplinks: Vec<UplinkDocument>,
    /// The output interfaces out of scope.
    except_interfaces: Vec<String>,
    /// The input interfaces; none is all, and this host.
    in_interfaces: Vec<String>,
    /// The address families: `ipv4`, `ipv6` or both.
    families: Vec<String>,
    /// The source networks; none is all.
    sources: Vec<String>,
    /// The destination networks; none is all.
    destinations: Vec<String>,
    /// The destination networks out of scope.
    except_destinations: Vec<String>,
    /// The destination ports.
    destination_ports: Vec<PortRange>,
    /// The mark of the packets; null is any.
    mark: Option<PacketMark>,
    /// Packets that IPsec protects: `skip` or `match`.
    ipsec: String,
    /// Where connections begin: `local`, `forwarded` or `both`.
    origin: String,
    /// The source ports that are translated.
    source_ports: Vec<PortRange>,
    /// The source ports that connections are translated to.
    to_ports: Vec<PortRange>,
    /// The source ports that enforcement permits.
    permitted_source_ports: Vec<PortRange>,
    /// `auto`, `masquerade`, `keep` or the new source address.
    address: String,
    /// Whether a random port is selected even where a port could be kept.
    random: bool,
    /// Whether a random port is selected, never by a hash.
    fully_random: bool,
    /// Whether a client gets the same address for each connection.
    persistent: bool,
    /// Whether a source gets the same range for each destination.
    per_source_stable: bool,
    /// The distribution over several ranges: `round-robin`, `weighted`, `hash` or `remap`; null if there is one
    /// range, or a block for each source.
    spread: Option<String>,
    /// With `remap`, the range to which conntrack translates.
    virtual_range: Option<PortRange>,
    /// The TCP packets that a connection can start with: `opening` or `any`.
    pick_up: String,
    /// The timeouts of translated connections that are not those of the host, in seconds, like
    /// `{"udp-53-replied": 2}`.
    timeouts: BTreeMap<String, u32>,
    /// Whether packets with other source ports are dropped.
    enforce: bool,
    /// Enforcement on connections that were open when the policy was applied: `keep` or `drop`.
    open_connections: String,
    /// Enforcement on connections that a conntrack helper expected: `pass` or `drop`.
    expected_connections: String,
    /// The addresses of this host that `address = "auto"` keeps although the output interface does not have
    /// them.
    kept_sources: Vec<String>,
}

/// A default route that makes an interface an uplink.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UplinkDocument {
    /// The interface.
    interface: String,
    /// The number of the routing table; 254 is the main table.
    table: u32,
    /// `ipv4` or `ipv6`.
    family: String,
    /// The VRF device of the table.
    vrf: Option<String>,
    /// Whether it is two routes to half of all addresses each.
    halves: bool,
}

impl From<&DefaultRoute> for UplinkDocument {
    fn from(route: &DefaultRoute) -> Self {
        let DefaultRoute { interface, table, family, vrf, halves, .. } = route;
        Self {
            interface: interface.to_string(),
            table: *table,
            family: family_names((*family).into()).concat(),
            vrf: vrf.as_ref().map(ToString::to_string),
            halves: *halves,
        }
    }
}

/// The mark of a packet.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PacketMark {
    /// The value of the bits in `mask`.
    value: u32,
    /// The bits that are compared.
    mask: u32,
}

impl From<&ResolvedPolicy> for PolicyDocument {
    fn from(policy: &ResolvedPolicy) -> Self {
        // The test `every_key_of_a_policy_is_in_the_document` asks for each new field.
        let ResolvedPolicy {
            policy: written,
            name,
            out_interfaces,
            default_routes,
            except_interfaces,
            in_interfaces,
            families,
            protocols,
            sources,
            destinations,
            except_destinations,
            destination_ports,
            origin,
            mark,
            ipsec,
            translated,
            permitted,
            permitted_source_ports,
            flags,
            spread,
            remap,
            address,
            kept_sources,
            pick_up,
            timeouts,
            enforce,
            open_connections,
            expected_connections,
            ..
        } = policy;
        Self {
            name: name.to_string(),
            written: written.to_json(),
            protocols: protocols.iter().map(Protocol::name).map(Into::into).collect(),
            out_interfaces: match out_interfaces {
                Interfaces::Any => None,
                Interfaces::Matching(patterns) => Some(texts(patterns.iter())),
            },
            uplinks: default_routes.iter().map(Into::into).collect(),
            except_interfaces: texts(except_interfaces),
            in_interfaces: texts(in_interfaces),
            families: family_names(*families),
            sources: texts(sources),
            destinations: texts(destinations),
            except_destinations: texts(except_destinations),
            destination_ports: ports(destination_ports),
            origin: origin.name().into(),
            mark: mark.map(|mark| PacketMark { value: mark.value(), mask: mark.mask() }),
            ipsec: ipsec.name().into(),
            source_ports: ports(translated),
            to_ports: ports(&permitted.ports()),
            permitted_source_ports: ports(permitted_source_ports),
            address: address.to_string(),
            random: flags.random,
            fully_random: flags.fully_random,
            persistent: flags.persistent,
            per_source_stable: *spread == Some(Distribution::Hash),
            spread: distribution(permitted, *spread),
            virtual_range: remap
                .as_ref()
                .and_then(|remap| ports(&remap.virtual_range().into()).pop()),
            pick_up: pick_up.name().into(),
            timeouts: timeouts
                .iter()
                .map(|(timer, seconds)| (timer.to_string(), seconds))
                .collect(),
            enforce: *enforce,
            open_connections: open_connections.name().into(),
            expected_connections: expected_connections.name().into(),
            kept_sources: texts(kept_sources),
        }
    }
}

/// The distribution over the permitted ports.
fn distribution(permitted: &PermittedPorts, chosen: Option<Distribution>) -> Option<String> {
    match permitted {
        PermittedPorts::Set(ports) => Distribution::over(ports, chosen),
        PermittedPorts::Blocks(_) => None,
    }
    .map(|distribution| distribution.name().into())
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn family_names(families: Families) -> Vec<String> {
    let names: &[&str] = match families {
        Families::Both => &["ipv4", "ipv6"],
        Families::Ipv4 => &["ipv4"],
        Families::Ipv6 => &["ipv6"],
    };
    names.iter().map(ToString::to_string).collect()
}

/// A policy in the installed table.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyStatus {
    /// The name.
    pub(crate) name: String,
    /// The policy, if the table was applied from a policy that is known.
    pub(crate) policy: Option<PolicyDocument>,
    /// The source ports that the rules translate connections to; empty for blocks.
    pub(crate) to_ports: Vec<PortRange>,
    /// Whether the rules drop packets with other source ports.
    pub(crate) enforces: bool,
    /// The count of connections that the kernel attempted to translate.
    pub(crate) translations_attempted: u64,
    /// The count of packets that enforcement dropped.
    pub(crate) enforcement_drops: u64,
    /// The connections that were open when enforcement was first applied; null if the policy excepts
    /// none.
    pub(crate) open_connections: Option<OpenConnections>,
}

/// Connections that enforcement lets pass with any source port until they end.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OpenConnections {
    /// The count of connections when enforcement was first applied.
    pub(crate) excepted: usize,
    /// The count of those that did not end since; null if conntrack's table cannot be read.
    pub(crate) open: Option<usize>,
}

/// A rule.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RuleDocument {
    /// The name of its chain.
    chain: String,
    /// The policy that it belongs to; null for rules of no policy.
    policy: Option<String>,
    /// The rule in nft's syntax.
    nft: String,
    /// The rule's expressions, as `nft --debug=netlink` prints them.
    bytecode: Vec<String>,
    /// The packet count of its counter.
    packets: Option<u64>,
    /// The byte count of its counter.
    bytes: Option<u64>,
}

/// The rules of a table, chain by chain.
pub(crate) fn rules(table: &TableState) -> Vec<RuleDocument> {
    let rule = |(rule, nft): (&Rule, String)| {
        let counter = rule.counter();
        RuleDocument {
            chain: rule.chain.clone(),
            policy: policy_of(rule).as_ref().map(PolicyName::to_string),
            nft,
            bytecode: rule.exprs.iter().map(ToString::to_string).collect(),
            packets: counter.map(|counter| counter.packets),
            bytes: counter.map(|counter| counter.bytes),
        }
    };
    table.rules.iter().zip(table.rule_listings()).map(rule).collect()
}

/// One difference between the installed table and what was applied, or is desired.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Difference {
    /// The chain that differs, or the chain of the rule that differs.
    chain: Option<String>,
    /// The set or map that differs.
    set: Option<String>,
    /// The number of the rule in its chain, from 1.
    rule: Option<usize>,
    /// The policy of the rule.
    policy: Option<String>,
    /// The attribute that differs; `object` for one that is missing or belongs to no policy.
    attribute: String,
    /// The value in the kernel.
    found: Option<String>,
    /// The value that the policy has.
    expected: Option<String>,
    /// The difference as a sentence.
    message: String,
}

impl From<&Drift> for Difference {
    fn from(drift: &Drift) -> Self {
        let (mut chain, mut set, mut rule, mut policy) = (None, None, None, None);
        match &drift.location {
            Location::Chain { chain: name } => chain = Some(name.clone()),
            Location::Set { set: name } => set = Some(name.clone()),
            Location::Rule { chain: name, number, policy: owner } => {
                (chain, rule) = (Some(name.clone()), Some(*number));
                policy = owner.as_ref().map(PolicyName::to_string);
            }
            _ => {}
        }
        Self {
            chain,
            set,
            rule,
            policy,
            attribute: drift.attribute.name().into(),
            found: drift.found.clone(),
            expected: drift.expected.clone(),
            message: drift.to_string(),
        }
    }
}

/// A rule that a packet passes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Step {
    /// The name of the chain.
    chain: String,
    /// The number of the rule in the chain, from 1.
    rule: usize,
}

impl From<&ephport_nft::plan::Step> for Step {
    fn from(step: &ephport_nft::plan::Step) -> Self {
        Self { chain: step.chain.clone(), rule: step.rule }
    }
}

#[cfg(test)]
mod tests {
    use ephport_core::policy::keys::KEYS;
    use ephport_core::{HostFacts, Policy, PortRange};

    use super::*;

    #[test]
    fn every_key_of_a_policy_is_in_the_document() {
        let policy = Policy::to(PortRange::EPHEMERAL).build().unwrap();
        let host = HostFacts::with_uplinks(["eth0".parse().unwrap()]);
        let document = PolicyDocument::from(&policy.resolve(&host).unwrap());
        let document = serde_json::to_value(document).unwrap();
        // `to_ports` and `source_ports` are the ports that remain on this host.
        let computed = ["exempt-source-ports", "map-e", "blocks", "blocks-file", "except-ports"];
        for key in KEYS.iter().filter(|key| !computed.contains(&key.name)) {
            assert!(document.get(key.name.replace('-', "_")).is_some(), "{}", key.name);
        }
    }
}
