//! Policies and rules as text for people and as JSON for programs.

use ephport_core::{
    Address, Families, Interfaces, Origin, PermittedPorts, PolicyName, Protocol, ResolvedPolicy,
};
use ephport_nft::nftables::Rule;
use ephport_nft::plan::drift::Place;
use ephport_nft::{Drift, TableState};
use ipnet::IpNet;
use serde_json::{Value, json};

/// A policy in one line.
pub(crate) fn policy(policy: &ResolvedPolicy) -> String {
    let ResolvedPolicy { name, protocols, translated, .. } = policy;
    let family = match policy.families {
        Families::Both => "",
        Families::Ipv4 => " over IPv4",
        Families::Ipv6 => " over IPv6",
    };
    let origin = match policy.origin {
        Origin::Both => "",
        Origin::Local => " from this host",
        Origin::Forwarded => " from behind this host",
    };
    let sources = listed(" from ", &policy.sources);
    let excepted = listed(" but not to ", &policy.except_destinations);
    let exits = exits(&policy.out_interfaces).join(", ");
    let target = match &policy.permitted {
        PermittedPorts::Set(ports) => ports.to_string(),
        PermittedPorts::Blocks(blocks) => format!("a block for each of {} sources", blocks.count()),
    };
    let enforced = if policy.enforce { ", enforced" } else { "" };
    format!(
        "{name}: {protocols}{family}{origin}{sources}{excepted} leaving by {exits}: \
         source ports {translated} -> {target}{enforced}"
    )
}

/// What becomes of the source address.
pub(crate) fn address(address: Address) -> String {
    match address {
        Address::Masquerade => "masqueraded".into(),
        Address::Keep => "the address stays".into(),
        Address::Fixed(address) => format!("the address becomes {address}"),
    }
}

/// Policies for programs.
pub(crate) fn policies_json(policies: &[ResolvedPolicy]) -> Vec<Value> {
    policies.iter().map(policy_json).collect()
}

fn policy_json(policy: &ResolvedPolicy) -> Value {
    let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "name": policy.name.as_str(),
        "protocols": policy.protocols.iter().map(Protocol::name).collect::<Vec<_>>(),
        "interfaces": match &policy.out_interfaces {
            Interfaces::Any => Value::from("any"),
            Interfaces::Matching(_) => exits(&policy.out_interfaces).into(),
        },
        "ipv4": policy.families != Families::Ipv6,
        "ipv6": policy.families != Families::Ipv4,
        "sources": texts(&policy.sources),
        "except_destinations": texts(&policy.except_destinations),
        "origin": policy.origin.name(),
        "source_ports": policy.translated.to_string(),
        "to_ports": policy.permitted.ports().to_string(),
        "blocks": match &policy.permitted {
            PermittedPorts::Set(_) => Value::Null,
            PermittedPorts::Blocks(blocks) => blocks.to_string().into(),
        },
        "address": policy.address.to_string(),
        "random": policy.flags.random,
        "fully_random": policy.flags.fully_random,
        "persistent": policy.flags.persistent,
        "per_source_stable": policy.per_source_stable,
        "pick_up": policy.pick_up.name(),
        "enforce": policy.enforce,
    })
}

/// Each rule in nft's words, in the order of `rules`, with counters at zero.
pub(crate) fn listings(ruleset: &TableState) -> Vec<String> {
    let rules = ruleset.rules.iter().map(Rule::normalized).collect();
    TableState { rules, ..ruleset.clone() }.rule_listings()
}

/// Each rule for programs, with its counters if it has any.
pub(crate) fn rules_json(ruleset: &TableState) -> Vec<Value> {
    let json = |(rule, listing): (&Rule, String)| {
        let counter = rule.counter();
        json!({
            "chain": rule.chain,
            "policy": rule.comment().map(|comment| comment.as_str().to_string()),
            "nft": listing,
            "bytecode": rule.exprs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "packets": counter.map(|counter| counter.packets),
            "bytes": counter.map(|counter| counter.bytes),
        })
    };
    let listings = listings(ruleset);
    ruleset.rules.iter().zip(listings).map(json).collect()
}

/// Each difference for programs.
pub(crate) fn drifts_json(drifts: &[Drift]) -> Vec<Value> {
    drifts.iter().map(drift_json).collect()
}

fn drift_json(drift: &Drift) -> Value {
    let (mut chain, mut set, mut rule, mut policy) = (None, None, None, None);
    match &drift.place {
        Place::Chain { chain: name } => chain = Some(name),
        Place::Set { set: name } => set = Some(name),
        Place::Rule { chain: name, number, policy: of } => {
            (chain, rule, policy) = (Some(name), Some(number), of.as_ref());
        }
        _ => {}
    }
    json!({
        "chain": chain,
        "set": set,
        "rule": rule,
        "policy": policy.map(PolicyName::as_str),
        "change": drift.change.name(),
        "message": drift.to_string(),
    })
}

fn exits(exits: &Interfaces) -> Vec<String> {
    match exits {
        Interfaces::Any => vec!["any interface but loopback".into()],
        Interfaces::Matching(patterns) => patterns.iter().map(ToString::to_string).collect(),
    }
}

fn listed(before: &str, nets: &[IpNet]) -> String {
    if nets.is_empty() {
        return String::new();
    }
    let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
    format!("{before}{}", nets.join(", "))
}
