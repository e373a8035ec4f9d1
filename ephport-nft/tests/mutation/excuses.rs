//! Why a change of a program need not be noticed: it changes nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ephport_core::{Allowed, Families, Flow, Port, PortRange, Protocol, Resolved};
use ephport_nft::Ruleset;
use ephport_nft::compile::POSTROUTING;
use ephport_nft::expr::{
    Bitwise, Cmp, CmpOp, Ct, Data, Expr, Immediate, Lookup, Masq, Meta, Nat, Payload, Register,
    Verdict,
};
use ephport_nft::interpret::{Effect, effect};
use ephport_nft::object::datatype::INET_SERVICE;
use ephport_nft::object::{Element, Rule};
use ephport_nft::ruleset::FilledSet;
use ephport_nft::uapi::{
    NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_IPV4, NFPROTO_IPV6, NFT_META_IIF, NFT_META_L4PROTO,
    NFT_META_NFPROTO, NFT_META_OIFNAME, NFT_META_OIFTYPE, RTN_BROADCAST,
};

use crate::connections::Connections;
use crate::mutants::{Mutant, Site};

/// The name of a reason, by which survivors are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excuse {
    /// A counter counts, and decides nothing.
    Counter,
    /// `nat` takes ports from its registers whether the flags say so or not.
    ImpliedPorts,
    /// Without an upper address the lower one is meant, and a block has the same for both.
    OneAddress,
    /// The kernel turns round a range whose ends are.
    Turned,
    /// `masq` without ports, where it looks for them in 1024-65535 anyway.
    AnyPort,
    /// `nat` for one family only, in a policy for no other.
    OneFamily,
    /// A hash is as good from another seed.
    Seed,
    /// Host to network and network to host turn the same bytes.
    ByteOrder,
    /// A load of more bytes than are then compared.
    LongerLoad,
    /// A comparison that leaves out a byte that is always 0: the end of a name, or the high byte of
    /// a small number.
    ZeroByte,
    /// The condition holds for the same ports, of which 0 is none.
    SamePorts,
    /// The set has the same answer for all keys that come.
    SameKeys,
    /// Another set with the same answers.
    SameSet,
    /// The map keeps other ports, which the policy does not move.
    NotMoved,
    /// `accept` for `return` in a base chain, where both are the end.
    Accept,
    /// `jump` for `goto` into a chain from which nothing comes back.
    Jump,
    /// A bit that conntrack has no state for.
    NoState,
    /// nft wants the protocol named before ports are; the policy has no other.
    OneProtocol,
    /// nft wants the family named before an address is; the policy has no other.
    AskedFamily,
    /// There are two types of interface here, which differ in the low byte.
    TwoTypes,
    /// An IPv6 source where IPv4 has its time to live, protocol and checksum: they are none of ours.
    FamilyBySource,
    /// `nat` for one family passes over the other anyway.
    FamilyByNat,
    /// Conntrack knows no source of the other family.
    FamilyByConnection,
    /// Which sources are in scope, where all that have a block of ports are.
    OnlyBlocks,
    /// What guards against broadcasts, which IPv6 has none of, before policies for IPv6 alone.
    NoBroadcast,
    /// What the rule no longer decides, or now decides too, another rule of the chain decides by
    /// the same action.
    AnotherRule,
    /// What the rule no longer lets pass, or now lets pass too, nothing else in the chain takes.
    EndOfChain,
}

/// The reason why the comparison cannot notice this change, if the change itself tells.
pub fn excuse(ruleset: &Ruleset, policies: &[Resolved], mutant: &Mutant) -> Option<Excuse> {
    let excuse = match &mutant.site {
        Site::Expr { rule, expr, was, is } => {
            let (rule, at) = (&ruleset.rules[*rule], *expr);
            of_expr(ruleset, policies, rule, at, was, is.as_ref())
                .or_else(|| same_set(ruleset, was, is.as_ref()))
                .or_else(|| same_ports(rule, at, is.as_ref()))
        }
        Site::Element { set, .. } | Site::Set { set } => {
            let (was, is) = (&ruleset.sets[*set], &mutant.ruleset.sets[*set]);
            of_set(ruleset, policies, was, is)
        }
        Site::Rule { .. } => None,
    };
    excuse.or_else(|| no_broadcast(ruleset, policies, mutant))
}

/// The guard is to let pass what is for IPv4, of which nothing behind it speaks.
fn no_broadcast(ruleset: &Ruleset, policies: &[Resolved], mutant: &Mutant) -> Option<Excuse> {
    let (Site::Expr { rule, .. } | Site::Rule { rule }) = mutant.site else { return None };
    let [Expr::Fib(_), Expr::Cmp(cmp), _] = ruleset.rules[rule].exprs.as_slice() else {
        return None;
    };
    let guards = cmp.data.bytes()? == u32::from(RTN_BROADCAST).to_ne_bytes();
    let is_v6 = |policy: &Resolved| only_family(policy) == Some(NFPROTO_IPV6);
    (guards && policies.iter().all(is_v6)).then_some(Excuse::NoBroadcast)
}

/// The one family that a policy speaks of.
fn only_family(policy: &Resolved) -> Option<u8> {
    let sources: Vec<bool> = policy.sources.iter().map(|net| net.addr().is_ipv4()).collect();
    let blocks: Vec<bool> = match &policy.allowed {
        Allowed::Ports(_) => Vec::new(),
        Allowed::Blocks(blocks) => blocks.iter().map(|block| block.source.is_ipv4()).collect(),
    };
    let all = |v4: bool| {
        let is_only =
            |families: &[bool]| !families.is_empty() && families.iter().all(|is| *is == v4);
        is_only(&sources) || is_only(&blocks)
    };
    match policy.families {
        Families::Ipv4 => Some(NFPROTO_IPV4),
        Families::Ipv6 => Some(NFPROTO_IPV6),
        Families::Both if all(true) => Some(NFPROTO_IPV4),
        Families::Both if all(false) => Some(NFPROTO_IPV6),
        Families::Both => None,
    }
}

/// The policy whose rule it is: by its comment, or by the name of its chain.
fn policy_of<'p>(policies: &'p [Resolved], rule: &Rule) -> Option<&'p Resolved> {
    let name = match rule.comment() {
        Some(comment) => comment.as_str().to_string(),
        None => rule.chain.split('/').next()?.to_string(),
    };
    policies.iter().find(|policy| policy.name.as_str() == name)
}

fn of_expr(
    ruleset: &Ruleset,
    policies: &[Resolved],
    rule: &Rule,
    at: usize,
    was: &Expr,
    is: Option<&Expr>,
) -> Option<Excuse> {
    let policy = policy_of(policies, rule);
    match (was, is) {
        (Expr::Counter(_), None) => Some(Excuse::Counter),
        (Expr::Payload(_) | Expr::Lookup(_) | Expr::Cmp(_), _)
            if policy.is_some_and(|policy| only_blocks(policy, ruleset, rule, at, is)) =>
        {
            Some(Excuse::OnlyBlocks)
        }
        (Expr::Masq(was), Some(Expr::Masq(is))) => masq(policy?, was, is),
        (Expr::Nat(was), Some(Expr::Nat(is))) => nat(policy?, rule, was, is),
        (Expr::Hash(was), Some(Expr::Hash(is))) => {
            let seed = was.seed;
            let same = ephport_nft::expr::Hash { seed, ..is.clone() } == *was;
            (same && is.seed.is_some()).then_some(Excuse::Seed)
        }
        (Expr::Byteorder(was), Some(Expr::Byteorder(is))) => {
            let same = ephport_nft::expr::Byteorder { op: was.op, ..is.clone() } == *was;
            same.then_some(Excuse::ByteOrder)
        }
        (Expr::Payload(was), Some(Expr::Payload(is))) => {
            let same = Payload { len: was.len, ..is.clone() } == *was && is.len > was.len;
            // Or the next load covers the rest.
            let is_covered = matches!(rule.exprs.get(at + 1), Some(Expr::Payload(next))
                if was.dreg == Register::R2 && [Register(13), Register::R3].contains(&next.dreg));
            let is_compared = is_covered
                || matches!(
                    rule.exprs.get(at + 1),
                    Some(Expr::Cmp(_) | Expr::Lookup(_) | Expr::Range(_) | Expr::Bitwise(_))
                );
            (same && is_compared).then_some(Excuse::LongerLoad)
        }
        (Expr::Cmp(was), Some(Expr::Cmp(is))) if zero_byte(rule, at, was, is).is_some() => {
            zero_byte(rule, at, was, is)
        }
        (Expr::Cmp(was), None) if family_after_all(ruleset, rule, at, was).is_some() => {
            family_after_all(ruleset, rule, at, was)
        }
        (Expr::Bitwise(was), Some(Expr::Bitwise(is))) => no_state(rule, at, was, is),
        (Expr::Immediate(was), Some(Expr::Immediate(is))) => match (&was.data, &is.data) {
            (Data::Verdict(Verdict::Return), Data::Verdict(Verdict::Accept)) => {
                Some(Excuse::Accept)
            }
            (Data::Verdict(was), Data::Verdict(is)) => jump(was, is),
            _ => None,
        },
        (Expr::Meta(_) | Expr::Cmp(_), is) => asked(policy?, ruleset, rule, at, is.is_none()),
        _ => None,
    }
}

fn same_set(ruleset: &Ruleset, was: &Expr, is: Option<&Expr>) -> Option<Excuse> {
    let (Expr::Lookup(was), Expr::Lookup(is)) = (was, is?) else { return None };
    let renamed = Lookup { set: was.set.clone(), ..is.clone() };
    let [one, other] = [was, is].map(|lookup| ruleset.set(&lookup.set));
    let (one, other) = (one?, other?);
    let is_same = one.set.flags == other.set.flags && answers(one) == answers(other);
    (is_same && renamed == *was).then_some(Excuse::SameSet)
}

fn jump(was: &Verdict, is: &Verdict) -> Option<Excuse> {
    match (was, is) {
        (Verdict::Goto(was), Verdict::Jump(is)) if was == is => Some(Excuse::Jump),
        _ => None,
    }
}

fn masq(policy: &Resolved, was: &Masq, is: &Masq) -> Option<Excuse> {
    if (was.proto_min, was.proto_max) == (is.proto_min, is.proto_max) {
        let ephemeral = PortRange::EPHEMERAL.into();
        let drops_ports =
            (was.flags.unwrap_or(0) & !is.flags.unwrap_or(0)) & NF_NAT_RANGE_PROTO_SPECIFIED != 0;
        let is_any = policy.allowed.ports() == ephemeral && policy.moved.is_subset(&ephemeral);
        return (drops_ports && is_any).then_some(Excuse::AnyPort);
    }
    let turned = Masq { proto_min: was.proto_max, proto_max: was.proto_min, ..was.clone() };
    (*is == turned && was.proto_max.is_some()).then_some(Excuse::Turned)
}

fn nat(policy: &Resolved, rule: &Rule, was: &Nat, is: &Nat) -> Option<Excuse> {
    let turned = Nat { proto_min: was.proto_max, proto_max: was.proto_min, ..was.clone() };
    if *is == turned && was.proto_max.is_some() {
        return Some(Excuse::Turned);
    }
    let (min, max) = (was.addr_min, was.addr_max);
    let same = [(min, None), (min, min), (max, max)];
    let of = |(addr_min, addr_max)| Nat { addr_min, addr_max, ..was.clone() };
    if max.is_some() && same.map(of).contains(is) {
        return Some(Excuse::OneAddress);
    }
    if *is == (Nat { family: is.family, ..was.clone() }) && was.family != is.family {
        let guard: Expr = Cmp::new(CmpOp::Eq, &[u8::try_from(is.family).ok()?]).into();
        let family: Expr = Meta { key: NFT_META_NFPROTO, dreg: Register::R1 }.into();
        let is_guarded = rule.exprs.windows(2).any(|pair| *pair == [family.clone(), guard.clone()]);
        let only = only_family(policy).map(u32::from) == Some(is.family);
        return (only || is_guarded).then_some(Excuse::OneFamily);
    }
    if *is != (Nat { flags: is.flags, ..was.clone() }) {
        return None;
    }
    let implied = |flags: Option<u32>| Some(flags.unwrap_or(0) | NF_NAT_RANGE_PROTO_SPECIFIED);
    let is_same = was.proto_min.is_some() && implied(was.flags) == implied(is.flags);
    is_same.then_some(Excuse::ImpliedPorts)
}

/// A shorter comparison of a name with all of its closing NULs, or of a small number.
fn zero_byte(rule: &Rule, at: usize, was: &Cmp, is: &Cmp) -> Option<Excuse> {
    let (bytes, left) = (was.data.bytes()?, is.data.bytes()?);
    let loaded = rule.exprs.get(at.checked_sub(1)?)?;
    let is_type = matches!(loaded, Expr::Meta(meta) if meta.key == NFT_META_OIFTYPE);
    if is_type && left == &bytes[..1] && was.op == is.op {
        return Some(Excuse::TwoTypes);
    }
    let [shorter @ .., 0] = bytes else { return None };
    let is_small = match loaded {
        Expr::Meta(meta) => {
            meta.key == NFT_META_IIF || meta.key == NFT_META_OIFNAME && bytes.len() == 16
        }
        Expr::Fib(_) => true,
        Expr::Bitwise(_) => matches!(&rule.exprs[at - 2], Expr::Ct(ct) if *ct == Ct::STATE),
        _ => false,
    };
    (is_small && shorter == left && was.op == is.op).then_some(Excuse::ZeroByte)
}

/// The question for the family where what follows tells it too.
fn family_after_all(ruleset: &Ruleset, rule: &Rule, at: usize, cmp: &Cmp) -> Option<Excuse> {
    let asks = matches!(rule.exprs.get(at.checked_sub(1)?)?, Expr::Meta(meta) if meta.key == NFT_META_NFPROTO);
    let Some([family]) = cmp.data.bytes().filter(|_| asks) else { return None };
    let rest = &rule.exprs[at + 1..];
    let is_nat = |expr: &Expr| matches!(expr, Expr::Nat(nat) if nat.family == u32::from(*family));
    // Of several ranges each has its own `nat`.
    let goes_to_nat = rest.iter().any(|expr| match expr {
        Expr::Immediate(Immediate { data: Data::Verdict(Verdict::Goto(chain)), .. }) => {
            let own = chain.trim_end_matches("ports");
            let mut ranges = ruleset
                .rules
                .iter()
                .filter(|rule| rule.chain.starts_with(own) && rule.chain != *chain);
            ranges.all(|rule| rule.exprs.iter().any(is_nat))
        }
        _ => false,
    });
    if goes_to_nat || rest.iter().any(is_nat) {
        return Some(Excuse::FamilyByNat);
    }
    if rest.iter().any(|expr| {
        *expr == Ct::ORIGINAL_SOURCE_V4.into() || *expr == Ct::ORIGINAL_SOURCE_V6.into()
    }) {
        return Some(Excuse::FamilyByConnection);
    }
    // Bytes 8 to 11 of IPv4's header would have to be the first of an IPv6 address, of which the
    // second is the protocol.
    let v6 = |first: &[u8]| first.get(1).is_some_and(|byte| Protocol::from_number(*byte).is_none());
    let is_source = |load: &Payload| {
        (load.base, load.offset) == (Payload::IPV6_SOURCE.base, Payload::IPV6_SOURCE.offset)
    };
    let tells = rest.windows(2).any(|pair| match pair {
        [Expr::Payload(load), Expr::Cmp(source)] => {
            is_source(load) && source.op == CmpOp::Eq && source.data.bytes().is_some_and(v6)
        }
        [Expr::Payload(load), Expr::Lookup(lookup)] => {
            let keys = ruleset.set(&lookup.set).map(|filled| filled.elements.iter());
            let mut keys = keys.into_iter().flatten().filter_map(Element::key_bytes);
            is_source(load) && !lookup.is_inverted() && keys.all(|key| v6(key) || key == [0; 16])
        }
        _ => false,
    });
    (tells && *family == NFPROTO_IPV6).then_some(Excuse::FamilyBySource)
}

/// In the condition on the source, before the look for its block: the same for all that have one.
fn only_blocks(
    policy: &Resolved,
    ruleset: &Ruleset,
    rule: &Rule,
    at: usize,
    is: Option<&Expr>,
) -> bool {
    let Allowed::Blocks(blocks) = &policy.allowed else { return false };
    let of_source = [Payload::IPV4_SOURCE, Payload::IPV6_SOURCE];
    let loads = |expr: &Expr| {
        matches!(expr, Expr::Payload(load)
        if of_source.iter().any(|it| (it.base, it.offset) == (load.base, load.offset)))
    };
    let (start, map) = (rule.exprs.iter().position(loads), rule.exprs.iter().rposition(loads));
    let (Some(start), Some(map)) = (start, map) else { return false };
    if rule.chain != POSTROUTING || at < start || at > start + 1 || start + 1 >= map {
        return false;
    }
    let condition = &rule.exprs[start..=start + 1];
    let mut changed = condition.to_vec();
    match is {
        Some(is) => changed[at - start] = is.clone(),
        None => drop(changed.remove(at - start)),
    }
    let dropped = |condition: &[Expr], flow: &Flow| {
        let mut exprs = condition.to_vec();
        exprs.push(Immediate::verdict(Verdict::Drop).into());
        let rules = vec![Rule::new(1, "t", POSTROUTING, exprs)];
        effect(&Ruleset { rules, ..ruleset.clone() }, flow)
    };
    let is_v4 = condition.first() == Some(&Payload::IPV4_SOURCE.into())
        || matches!(&condition[0], Expr::Payload(load) if load.offset == Payload::IPV4_SOURCE.offset);
    let mut known = blocks.iter().filter(|block| block.source.is_ipv4() == is_v4);
    known.all(|block| {
        let to = if is_v4 { "203.0.113.9:2" } else { "[2001:db8:1:1::9]:2" };
        let to = to.parse().expect("an address");
        let from = SocketAddr::new(block.source, 1);
        let flow = Flow::new(Protocol::Udp, from, to, "a".parse().expect("a name"));
        let flow = flow.expect("a flow");
        dropped(condition, &flow) == dropped(&changed, &flow)
    })
}

/// States are bits 0 to 6 of a word in the order of the machine.
fn no_state(rule: &Rule, at: usize, was: &Bitwise, is: &Bitwise) -> Option<Excuse> {
    let loads_state =
        matches!(rule.exprs.get(at.checked_sub(1)?)?, Expr::Ct(ct) if *ct == Ct::STATE);
    let word = |data: &Data| data.bytes()?.try_into().ok().map(u32::from_ne_bytes);
    let changed = word(&was.mask)? ^ word(&is.mask)?;
    (loads_state && was.xor == is.xor && changed > 0x7f).then_some(Excuse::NoState)
}

/// A guard that only nft needs, in a chain of the policy's own.
fn asked(
    policy: &Resolved,
    ruleset: &Ruleset,
    rule: &Rule,
    at: usize,
    is_dropped: bool,
) -> Option<Excuse> {
    if !rule.chain.contains('/') {
        return None;
    }
    let loaded = rule.exprs[..=at].iter().rev().find_map(|expr| match expr {
        Expr::Meta(meta) => Some(meta.key),
        _ => None,
    });
    match loaded? {
        NFT_META_L4PROTO if policy.protocols.iter().count() == 1 => Some(Excuse::OneProtocol),
        NFT_META_NFPROTO if policy.families != Families::Both => Some(Excuse::AskedFamily),
        // The rule before took all of the other family.
        NFT_META_NFPROTO if is_dropped => {
            let asks_v4: [Expr; 2] = [
                Meta { key: NFT_META_NFPROTO, dreg: Register::R1 }.into(),
                Cmp::new(CmpOp::Eq, &[NFPROTO_IPV4]).into(),
            ];
            let earlier = ruleset.rules_of(&rule.chain).take_while(|earlier| *earlier != rule);
            let is_taken =
                earlier.filter(|earlier| earlier.exprs.starts_with(&asks_v4)).count() == 1;
            (is_taken && at == 1).then_some(Excuse::AskedFamily)
        }
        _ => None,
    }
}

/// The ports at which a condition on ports can change its mind: the ends of all ranges, and of all
/// high bytes.
fn telling_ports() -> impl Iterator<Item = u16> {
    (0..=u16::MAX).filter(|port| matches!(port & 0xff, 0 | 0xff))
}

/// The condition on the source port that a rule has around this expression, before and after, for
/// all ports that tell.
fn same_ports(rule: &Rule, at: usize, is: Option<&Expr>) -> Option<Excuse> {
    let start = rule.exprs[..=at].iter().rposition(|expr| *expr == Payload::SOURCE_PORT.into())?;
    let tests = rule.exprs[start + 1..].iter();
    let count = tests.take_while(|expr| matches!(expr, Expr::Cmp(_))).count();
    if count == 0 || at > start + count {
        return None;
    }
    let condition = &rule.exprs[start..=start + count];
    let mut changed = condition.to_vec();
    match is {
        Some(is) => changed[at - start] = is.clone(),
        None => drop(changed.remove(at - start)),
    }
    let own = condition.iter().filter_map(|expr| match expr {
        Expr::Cmp(cmp) => cmp.data.bytes()?.try_into().ok().map(u16::from_be_bytes),
        _ => None,
    });
    let near = own.flat_map(|port| [port.wrapping_sub(1), port, port.wrapping_add(1)]);
    let ports: BTreeSet<_> = telling_ports().chain(near).filter(|port| *port != 0).collect();
    let (was, is) = (holds(condition), holds(&changed));
    ports.into_iter().all(|port| was(port) == is(port)).then_some(Excuse::SamePorts)
}

/// Whether a condition holds for a source port, in any packet.
fn holds(condition: &[Expr]) -> impl Fn(u16) -> [Option<bool>; 2] {
    let mut ruleset = ephport_nft::compile(&[]).expect("an empty program");
    let mut exprs = condition.to_vec();
    exprs.push(Immediate::verdict(Verdict::Drop).into());
    ruleset.rules = vec![Rule::new(1, "t", POSTROUTING, exprs)];
    let flows =
        ["udp 192.0.2.1:1 -> 192.0.2.2:2 oif a", "udp 192.0.2.1:1 -> 192.0.2.2:65535 oif a"];
    let flows = flows.map(|flow| flow.parse::<Flow>().expect("a flow"));
    move |port| {
        let port = Port::new(port).expect("a port");
        flows.each_ref().map(|flow| {
            let flow = flow.clone().with_source_port(port);
            effect(&ruleset, &flow).ok().map(|effect| effect == Effect::Dropped)
        })
    }
}

/// What a set answers from each key on, up to the next.
fn answers(filled: &FilledSet) -> Vec<(Vec<u8>, Option<Element>)> {
    let plain = |element: &Element| Element { key: None, flags: None, ..element.clone() };
    let mut keys: Vec<_> = filled.elements.iter().filter_map(Element::key_bytes).collect();
    keys.sort_unstable();
    keys.dedup();
    let at = |key: &[u8]| {
        let here = filled.elements.iter().filter(|element| element.key_bytes() == Some(key));
        here.filter(|element| !element.is_end()).next_back().map(plain)
    };
    let mut answers: Vec<(Vec<u8>, Option<Element>)> = Vec::new();
    for key in keys {
        let answer = at(key);
        let before = answers.last().and_then(|(_, before)| before.clone());
        if answer != before {
            answers.push((key.to_vec(), answer));
        }
    }
    answers
}

fn of_set(
    ruleset: &Ruleset,
    policies: &[Resolved],
    was: &FilledSet,
    is: &FilledSet,
) -> Option<Excuse> {
    if !was.set.is_interval() || !is.set.is_interval() {
        let jumps = was.elements.iter().zip(&is.elements).filter(|(was, is)| was != is);
        let jumps = jumps.map(|(was, is)| match (&was.data, &is.data) {
            (Some(Data::Verdict(was)), Some(Data::Verdict(is))) => jump(was, is),
            _ => None,
        });
        return jumps.collect::<Option<Vec<_>>>()?.first().copied();
    }
    let jumpless = |filled: &FilledSet| {
        let mut filled = filled.clone();
        for element in &mut filled.elements {
            if let Some(Data::Verdict(Verdict::Jump(chain))) = &element.data {
                element.data = Some(Data::Verdict(Verdict::Goto(chain.clone())));
            }
        }
        filled
    };
    if jumpless(is) == jumpless(was) {
        return Some(Excuse::Jump);
    }
    let uses = |rule: &&Rule| {
        rule.exprs
            .iter()
            .any(|expr| matches!(expr, Expr::Lookup(Lookup { set, .. }) if *set == was.set.name))
    };
    let rule = ruleset.rules.iter().find(uses)?;
    let modulus = rule.exprs.iter().find_map(|expr| match expr {
        Expr::Numgen(numgen) => Some(numgen.modulus),
        Expr::Hash(hash) => Some(hash.modulus),
        _ => None,
    });
    let is_port = was.set.key_type == Some(INET_SERVICE);
    let (before, after) = (answers(was), answers(is));
    let answer = |answers: &[(Vec<u8>, Option<Element>)], key: &[u8]| {
        answers
            .iter()
            .rfind(|(from, _)| from.as_slice() <= key)
            .and_then(|(_, answer)| answer.clone())
    };
    // The first key that differs, and all others that might.
    let keys: BTreeSet<Vec<u8>> = if is_port {
        let keys = was.elements.iter().chain(&is.elements).filter_map(Element::key_bytes);
        let keys = keys.filter_map(|key| key.try_into().ok().map(u16::from_be_bytes));
        let near = keys.flat_map(|port| [port.wrapping_sub(1), port, port.wrapping_add(1)]);
        let ports = near.chain([1, u16::MAX]).filter(|port| *port != 0);
        ports.map(|port| port.to_be_bytes().to_vec()).collect()
    } else {
        let ends = before.iter().chain(&after).map(|(key, _)| key.clone());
        let below = modulus.map(|modulus| (modulus - 1).to_be_bytes().to_vec());
        let zero = vec![0; was.set.key_len? as usize];
        let within = |key: &Vec<u8>| below.as_ref().is_none_or(|below| key <= below);
        ends.chain([zero]).filter(within).collect()
    };
    let differing: Vec<_> =
        keys.iter().filter(|key| answer(&before, key) != answer(&after, key)).collect();
    if differing.is_empty() {
        return Some(Excuse::SameKeys);
    }
    let policy = policy_of(policies, rule)?;
    if let Allowed::Blocks(blocks) = &policy.allowed {
        let octets = blocks.iter().map(|block| match block.source {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        });
        let is_source = |expr: &Expr| {
            *expr == Payload::IPV4_SOURCE.into() || *expr == Payload::IPV6_SOURCE.into()
        };
        let asks = rule.exprs.windows(2).any(|pair| {
            matches!(pair, [load, Expr::Lookup(lookup)]
                if is_source(load) && lookup.set == was.set.name && lookup.dreg.is_none())
        });
        let len = was.set.key_len? as usize;
        let mut known = octets.filter(|octets| octets.len() == len);
        let all = known.all(|key| answer(&before, &key) == answer(&after, &key));
        return (asks && all && rule.chain == POSTROUTING).then_some(Excuse::OnlyBlocks);
    }
    let is_keep = is_port && was.set.is_map();
    let moved = |key: &&&Vec<u8>| {
        let port = <[u8; 2]>::try_from(key.as_slice()).ok().map(u16::from_be_bytes);
        port.and_then(|port| Port::new(port).ok()).is_some_and(|port| policy.moved.contains(port))
    };
    let is_ports = matches!(policy.allowed, Allowed::Ports(_));
    (is_keep && is_ports && !differing.iter().any(|key| moved(&key))).then_some(Excuse::NotMoved)
}

/// What a rule does with what it matches.
fn action(rule: &Rule) -> &[Expr] {
    let is_action = |expr: &Expr| match expr {
        Expr::Counter(_) | Expr::Immediate(_) | Expr::Masq(_) | Expr::Nat(_) => true,
        Expr::Lookup(lookup) => lookup.dreg.is_some(),
        _ => false,
    };
    let start = rule.exprs.iter().position(is_action).unwrap_or(rule.exprs.len());
    &rule.exprs[start..]
}

/// Whether all connections that take another way through the program meet the same action there, or
/// the same end.
pub fn elsewhere(ruleset: &Ruleset, connections: &Connections, mutant: &Mutant) -> Option<Excuse> {
    let is_enforcing = connections.is_enforcing(mutant);
    let uncounted = |expr: &&Expr| !matches!(expr, Expr::Counter(_));
    let met = |ruleset: &Ruleset, trail: &[(String, usize)]| -> Option<Vec<Expr>> {
        let (chain, at) = trail.last()?;
        let rule = ruleset.rules_of(chain).nth(*at)?;
        Some(action(rule).iter().filter(uncounted).cloned().collect())
    };
    let is_return = |actions: &Option<Vec<Expr>>| match actions {
        None => true,
        Some(exprs) => exprs.as_slice() == [Immediate::verdict(Verdict::Return).into()],
    };
    let (mut another, mut end) = (0, 0);
    for probe in connections.probes(mutant) {
        let before = probe.outcomes(ruleset, is_enforcing);
        let after = probe.outcomes(&mutant.ruleset, is_enforcing);
        if before.len() != after.len() {
            return None;
        }
        for (before, after) in before.iter().zip(&after) {
            if before.trail == after.trail {
                continue;
            }
            let (was, is) = (met(ruleset, &before.trail), met(&mutant.ruleset, &after.trail));
            if was == is {
                another += 1;
            } else if is_return(&was) && is_return(&is) {
                end += 1;
            } else {
                return None;
            }
        }
    }
    match (another, end) {
        (0, 0) => None,
        (_, 0) => Some(Excuse::AnotherRule),
        _ => Some(Excuse::EndOfChain),
    }
}
