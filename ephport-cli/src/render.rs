//! Policies and rules as text for people and as JSON for programs.

use ephport_core::{Exits, Families, PickUp, Protocol, Resolved};
use ephport_nft::Ruleset;
use serde_json::{Value, json};

/// A policy in one line.
pub(crate) fn policy(policy: &Resolved) -> String {
    let Resolved { name, protocols, moved, .. } = policy;
    let allowed = policy.allowed.ports();
    let family = match policy.families {
        Families::Both => "",
        Families::Ipv4 => " over IPv4",
        Families::Ipv6 => " over IPv6",
    };
    let exits = exits(&policy.egress).join(", ");
    format!("{name}: {protocols}{family} leaving by {exits}: source ports {moved} -> {allowed}")
}

/// A policy for programs.
pub(crate) fn policy_json(policy: &Resolved) -> Value {
    json!({
        "name": policy.name.as_str(),
        "protocols": policy.protocols.iter().map(Protocol::name).collect::<Vec<_>>(),
        "interfaces": match &policy.egress {
            Exits::Any => Value::from("any"),
            Exits::Matching(_) => exits(&policy.egress).into(),
        },
        "ipv4": policy.families != Families::Ipv6,
        "ipv6": policy.families != Families::Ipv4,
        "source_ports": policy.moved.to_string(),
        "to_ports": policy.allowed.ports().to_string(),
        "random": policy.choice.random,
        "fully_random": policy.choice.fully_random,
        "persistent": policy.choice.persistent,
        "pick_up": if policy.pick_up == PickUp::Any { "any" } else { "opening" },
    })
}

/// Each rule for programs, with its counters if it has any.
pub(crate) fn rules_json(ruleset: &Ruleset) -> Vec<Value> {
    let rule = |rule: &ephport_nft::object::Rule| {
        let counter = rule.counter();
        json!({
            "chain": rule.chain,
            "policy": rule.comment().map(|comment| comment.as_str().to_string()),
            "nft": rule.essence().to_string(),
            "bytecode": rule.exprs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "packets": counter.map(|counter| counter.packets),
            "bytes": counter.map(|counter| counter.bytes),
        })
    };
    ruleset.rules.iter().map(rule).collect()
}

fn exits(exits: &Exits) -> Vec<String> {
    match exits {
        Exits::Any => vec!["any interface but loopback".into()],
        Exits::Matching(patterns) => patterns.iter().map(ToString::to_string).collect(),
    }
}
