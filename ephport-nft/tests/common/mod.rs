//! The program against the policies: what `meaning.rs` asks of every program, and `mutation.rs`
//! of programs that have been spoilt.
#![allow(dead_code, unreachable_pub)] // Each test uses a part.

use std::net::IpAddr;

use ephport_core::{
    Allowed, Cast, Choice, Decision, Document, Family, Flow, HostFacts, Port, Protocol, Resolved,
    decide, lets_out,
};
use ephport_nft::expr::{Cmp, CmpOp, Ct, Expr, Payload};
use ephport_nft::interpret::{self, By, Outcome, Standing};
use ephport_nft::object::Rule;
use ephport_nft::uapi::{
    NF_CT_STATE_INVALID_BIT, NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM,
    NF_NAT_RANGE_PROTO_RANDOM_FULLY, NFT_META_L4PROTO, NFT_PAYLOAD_TRANSPORT_HEADER,
};
use ephport_nft::{Ruleset, compile};
use ipnet::IpNet;

/// The program of a document, and its policies; `None` if it means nothing on this host.
pub fn compiled(document: &Document) -> Option<(Ruleset, Vec<Resolved>)> {
    let policies = document.resolve(&HostFacts::default()).ok()?;
    Some((compile(&policies).expect("a program"), policies))
}

/// What policies do with a connection, and by what draw.
#[derive(Clone, Debug)]
pub struct Meant {
    decision: Option<Decision>,
    draw: Option<By>,
    flags: u32,
}

impl Meant {
    pub fn of(policies: &[Resolved], flow: &Flow) -> Self {
        let winner = decide(policies, flow).winner;
        let draw = winner.as_ref().and_then(|winner| drawn(winner.policy, &winner.decision, flow));
        let flags = winner.as_ref().map_or(0, |winner| flags(winner.policy.choice));
        Self { decision: winner.map(|winner| winner.decision), draw, flags }
    }

    /// Why the program does something else, if it does.
    pub fn missed_by(&self, ruleset: &Ruleset, flow: &Flow) -> Option<String> {
        let miss = |found: &dyn std::fmt::Debug| {
            Some(format!("{flow}: meant {self:?}, program {found:?}"))
        };
        match interpret::effect(ruleset, flow) {
            Ok(effect) if effect.agrees_with(self.decision.as_ref()) => {}
            other => return miss(&other),
        }
        let outcomes = interpret::outcomes(ruleset, flow).expect("it had an effect");
        let mut translations = outcomes.iter().filter_map(|outcome| outcome.translation);
        let picks_so = translations.all(|translation| translation.flags == self.flags);
        if picks_so && self.draw_is_that_of(&outcomes) { None } else { miss(&outcomes) }
    }

    /// Each range has its share of the numbers.
    fn draw_is_that_of(&self, outcomes: &[Outcome]) -> bool {
        let Some(by) = &self.draw else {
            return outcomes.iter().all(|outcome| outcome.draw.is_none());
        };
        let shares: Option<Vec<_>> = outcomes
            .iter()
            .map(|outcome| {
                let draw = outcome.draw.as_ref().filter(|draw| draw.by == *by)?;
                let ports = outcome.translation?.ports?.count();
                Some((u64::from(draw.numbers), u64::from(draw.below), u64::from(ports)))
            })
            .collect();
        let Some(shares) = shares else { return false };
        let all: u64 = shares.iter().map(|(.., ports)| ports).sum();
        shares.iter().all(|(numbers, below, ports)| numbers * all == ports * below)
    }
}

fn flags(choice: Choice) -> u32 {
    u32::from(choice.random) * NF_NAT_RANGE_PROTO_RANDOM
        | u32::from(choice.fully_random) * NF_NAT_RANGE_PROTO_RANDOM_FULLY
        | u32::from(choice.persistent) * NF_NAT_RANGE_PERSISTENT
}

/// How one of several ranges is picked: by the source where that is asked for, in turn among
/// equal ones, else at random; not at all for a port that stays in its range.
fn drawn(policy: &Resolved, decision: &Decision, flow: &Flow) -> Option<By> {
    let (Allowed::Ports(_), Decision::Moved { ports, kept: None, .. }) =
        (&policy.allowed, decision)
    else {
        return None;
    };
    let ranges = ports.ranges();
    if ranges.len() == 1 {
        return None;
    }
    if policy.choice.per_source_stable {
        let mut bytes = match flow.source().ip() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bytes.extend(flow.source_port().get().to_be_bytes());
        bytes.extend([0; 2]); // The port has a register of four bytes.
        return Some(By::Hash(bytes));
    }
    let are_equal = ranges.iter().all(|range| range.count() == ranges[0].count());
    Some(if are_equal { By::Turn } else { By::Chance })
}

/// Whether policies let a packet out by a port.
pub fn let_out(policies: &[Resolved], flow: &Flow, leaving: Port, standing: Standing) -> bool {
    match standing {
        Standing::New => lets_out(policies, flow, leaving),
        // Its source port is one of a server of ours.
        Standing::Reply => true,
        Standing::Invalid => lets_invalid_out(policies, flow),
    }
}

/// The first policy decides that can tell the packet to be its own: an enforcing one by
/// interface, family and protocol, which are all that is sure of such a packet; another one by its
/// whole scope, unless that asks for the source before translation.
fn lets_invalid_out(policies: &[Resolved], flow: &Flow) -> bool {
    if flow.cast() != Cast::Unicast {
        return true;
    }
    let of_family = |net: &&IpNet| Family::of(net.addr()) == flow.family();
    let holds_all = |nets: &[IpNet]| nets.iter().filter(of_family).any(|net| net.prefix_len() == 0);
    let owner = policies.iter().find(|policy| {
        let Resolved { sources, except_destinations, .. } = policy;
        if policy.enforce {
            policy.egress.contains(flow.out_interface())
                && policy.families.contains(flow.family())
                && policy.protocols.contains(flow.protocol())
                && (sources.is_empty() || sources.iter().any(|net| of_family(&net)))
                && !holds_all(except_destinations)
        } else {
            policy.out_of_scope(flow).is_none() && (sources.is_empty() || holds_all(sources))
        }
    });
    owner.is_none_or(|policy| !policy.enforce)
}

/// Whether the program lets a packet out by a port; `None` if it has no answer.
pub fn program_lets_out(
    ruleset: &Ruleset,
    flow: &Flow,
    leaving: Port,
    standing: Standing,
) -> Option<bool> {
    let ends = interpret::enforced(ruleset, flow, leaving, standing).ok()?;
    Some(ends.iter().all(|outcome| !outcome.is_dropped))
}

/// Why program and policies do not agree on a connection, if they do not.
pub fn disagreement(
    ruleset: &Ruleset,
    policies: &[Resolved],
    flow: &Flow,
    leaving: Port,
) -> Option<String> {
    if let Some(why) = Meant::of(policies, flow).missed_by(ruleset, flow) {
        return Some(why);
    }
    let own = flow.source_port();
    let packets = [
        (leaving, Standing::New),
        (own, Standing::New),
        (leaving, Standing::Reply),
        (leaving, Standing::Invalid),
    ];
    for (port, standing) in packets {
        let meant = let_out(policies, flow, port, standing);
        let found = program_lets_out(ruleset, flow, port, standing);
        if found != Some(meant) {
            return Some(format!(
                "{flow}, {standing:?}, by {port}: let out {meant}, program {found:?}"
            ));
        }
    }
    None
}

/// What a flow, which has ports, one form of each segment and few states, cannot tell of a rule:
/// whether it asks for the protocol before it reads ports, since an ICMP echo has its number there;
/// whether it takes SYN without ACK, RST and FIN for an opening, whatever the other flags; and
/// whether it takes only that for invalid which conntrack cannot place.
pub fn is_sound(rule: &Rule) -> bool {
    rule.exprs.iter().enumerate().all(|(at, expr)| {
        let tests = rule.exprs[at + 1..].iter();
        let tests = tests.take_while(|expr| matches!(expr, Expr::Bitwise(_) | Expr::Cmp(_)));
        let tests: Vec<_> = tests.collect();
        match expr {
            Expr::Payload(load) if load.base == NFT_PAYLOAD_TRANSPORT_HEADER => {
                // A chain of the policy's own is only entered from where it was asked.
                let is_asked = rule.chain.contains('/') || asks_protocol(&rule.exprs[..at]);
                let is_opening = |flags: u8| flags & 0b1_0111 == 0b10;
                is_asked
                    && (!load.loads_same(&Payload::TCP_FLAGS)
                        || (0..=u8::MAX)
                            .all(|flags| goes_on(&tests, &[flags]) == Some(is_opening(flags))))
            }
            Expr::Ct(ct) if *ct == Ct::STATE => (0..7).all(|bit| {
                let state = 1u32 << bit;
                let is_invalid = state == NF_CT_STATE_INVALID_BIT;
                goes_on(&tests, &state.to_ne_bytes()) == Some(is_invalid)
            }),
            _ => true,
        }
    })
}

fn asks_protocol(exprs: &[Expr]) -> bool {
    let is_known = |cmp: &Cmp| match cmp.data.bytes() {
        Some([number]) => cmp.op == CmpOp::Eq && Protocol::from_number(*number).is_some(),
        _ => false,
    };
    exprs.windows(2).any(|pair| {
        matches!(pair, [Expr::Meta(meta), Expr::Cmp(cmp)]
            if meta.key == NFT_META_L4PROTO && meta.dreg == cmp.sreg && is_known(cmp))
    })
}

fn goes_on(tests: &[&Expr], loaded: &[u8]) -> Option<bool> {
    let mut bytes = loaded.to_vec();
    for test in tests {
        match test {
            Expr::Bitwise(bits) => {
                let parts = bytes.iter_mut().zip(bits.mask.bytes()?).zip(bits.xor.bytes()?);
                parts.for_each(|((byte, mask), xor)| *byte = *byte & mask ^ xor);
            }
            Expr::Cmp(cmp) => {
                let expected = cmp.data.bytes()?;
                let is_equal = bytes.get(..expected.len())? == expected;
                if is_equal != (cmp.op == CmpOp::Eq) {
                    return Some(false);
                }
            }
            _ => return None,
        }
    }
    Some(true)
}
