//! A rule's program as its statements, each with what it is about, and in what two of them differ.

use super::change::{Aspect, Change};
use crate::nftables::Rule;
use crate::nftables::expr::{Data, Expr, Immediate, Lookup, Masq, Nat, Payload, Register};
use crate::syntax::{CHOICES, address_of, rule_words};
use crate::table::Set;
use crate::uapi::{
    NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_IPV4, NFPROTO_IPV6, NFT_CT_SRC_IP,
    NFT_CT_SRC_IP6, NFT_META_IIF, NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_META_OIF,
    NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_PAYLOAD_NETWORK_HEADER,
};

/// A rule without what only names it, statement by statement.
pub(super) struct Program {
    pub(super) rule: Rule,
    statements: Vec<Statement>,
}

/// Some loads and what uses them.
#[derive(Clone, PartialEq)]
struct Statement {
    aspect: Aspect,
    exprs: Vec<Expr>,
    /// In nft's words, with all that is in its anonymous sets.
    words: String,
}

impl Program {
    /// The sets are the essences of those of its table.
    pub(super) fn of(rule: &Rule, sets: &[Set]) -> Self {
        let rule = Rule { userdata: None, ..rule.normalized() };
        let family = family(&rule.exprs);
        let mut statements: Vec<Statement> = Vec::new();
        for exprs in split(&rule.exprs) {
            // nft has words for addresses only where the family is known.
            let alone = Rule::new(family.unwrap_or(rule.family), &rule.table, &rule.chain, exprs);
            let words = rule_words(&alone, sets);
            let exprs = anonymised(alone.exprs, sets);
            statements.push(Statement { aspect: aspect(&exprs), exprs, words });
        }
        Self { rule, statements }
    }

    fn about(&self, aspect: Aspect) -> Vec<&Statement> {
        self.statements.iter().filter(|statement| statement.aspect == aspect).collect()
    }

    /// Whether it says at least half of what the other says.
    pub(super) fn resembles(&self, other: &Self) -> bool {
        let is_said = |statement: &&Statement| self.statements.contains(statement);
        2 * other.statements.iter().filter(is_said).count() >= other.statements.len()
    }

    /// Of which aspects there are statements, in their order.
    fn aspects(&self) -> impl Iterator<Item = Aspect> {
        self.statements.iter().map(|statement| statement.aspect)
    }
}

/// The family that the rule asks for.
fn family(exprs: &[Expr]) -> Option<u8> {
    exprs.windows(2).find_map(|pair| match pair {
        [Expr::Meta(meta), Expr::Cmp(cmp)] if meta.key == NFT_META_NFPROTO => {
            match cmp.data.bytes()? {
                [family @ (NFPROTO_IPV4 | NFPROTO_IPV6)] => Some(*family),
                _ => None,
            }
        }
        _ => None,
    })
}

/// An anonymous set is what is in it, and that is in the statement's words.
fn anonymised(mut exprs: Vec<Expr>, sets: &[Set]) -> Vec<Expr> {
    let is_anonymous = |lookup: &Lookup| {
        sets.iter().any(|filled| filled.spec.is_anonymous() && filled.spec.name == lookup.set)
    };
    for expr in &mut exprs {
        match expr {
            Expr::Lookup(lookup) if is_anonymous(lookup) => lookup.set.clear(),
            _ => {}
        }
    }
    exprs
}

/// A statement ends with the expression that uses what was loaded; a range has two of these.
fn split(exprs: &[Expr]) -> Vec<Vec<Expr>> {
    let mut statements: Vec<Vec<Expr>> = Vec::new();
    let mut loads = Vec::new();
    for expr in exprs {
        match (expr, statements.last_mut()) {
            (Expr::Cmp(_), Some(last))
                if loads.is_empty() && matches!(last.last(), Some(Expr::Cmp(_))) =>
            {
                last.push(expr.clone());
            }
            _ => {
                loads.push(expr.clone());
                if ends(expr) {
                    statements.push(std::mem::take(&mut loads));
                }
            }
        }
    }
    if !loads.is_empty() {
        statements.push(loads);
    }
    statements
}

fn ends(expr: &Expr) -> bool {
    match expr {
        Expr::Lookup(lookup) => lookup.dreg.is_none_or(|dreg| dreg == Register::VERDICT),
        Expr::Immediate(immediate) => matches!(immediate.data, Data::Verdict(_)),
        Expr::Cmp(_)
        | Expr::Range(_)
        | Expr::Counter(_)
        | Expr::Masq(_)
        | Expr::Nat(_)
        | Expr::Opaque(_) => true,
        _ => false,
    }
}

fn aspect(exprs: &[Expr]) -> Aspect {
    match exprs.last() {
        Some(Expr::Masq(_) | Expr::Nat(_)) => return Aspect::Translation,
        Some(Expr::Counter(_)) => return Aspect::Counter,
        Some(
            Expr::Immediate(Immediate { data: Data::Verdict(_), .. })
            | Expr::Lookup(Lookup { dreg: Some(_), .. }),
        ) => return Aspect::Verdict,
        _ => {}
    }
    match exprs.first() {
        Some(Expr::Meta(meta)) => match meta.key {
            NFT_META_OIFNAME | NFT_META_OIFTYPE | NFT_META_OIF => Aspect::Interface,
            NFT_META_NFPROTO => Aspect::Family,
            NFT_META_IIF => Aspect::Origin,
            NFT_META_L4PROTO => Aspect::Protocol,
            _ => Aspect::Other,
        },
        Some(Expr::Payload(load)) if load.base == NFT_PAYLOAD_NETWORK_HEADER => {
            let sources = [Payload::IPV4_SOURCE.offset, Payload::IPV6_SOURCE.offset];
            if sources.contains(&load.offset) { Aspect::Sources } else { Aspect::Destinations }
        }
        Some(Expr::Payload(load)) if load.loads_same(&Payload::SOURCE_PORT) => Aspect::SourcePorts,
        Some(Expr::Payload(load)) if load.loads_same(&Payload::TCP_FLAGS) => Aspect::TcpFlags,
        Some(Expr::Ct(ct)) if [NFT_CT_SRC_IP, NFT_CT_SRC_IP6].contains(&ct.key) => Aspect::Sources,
        Some(Expr::Ct(_)) => Aspect::Connection,
        Some(Expr::Fib(_)) => Aspect::Destinations,
        _ => Aspect::Other,
    }
}

/// In what the one does otherwise than the other should; nothing if only the order differs.
pub(super) fn changes(found: &Program, expected: &Program) -> Vec<Change> {
    let mut aspects = Vec::new();
    for aspect in expected.aspects().chain(found.aspects()) {
        if !aspects.contains(&aspect) {
            aspects.push(aspect);
        }
    }
    let differing = aspects.into_iter().map(|a| (a, found.about(a), expected.about(a)));
    differing
        .filter(|(_, is, was)| is != was)
        .flat_map(|(a, is, was)| change(a, &is, &was))
        .collect()
}

fn change(aspect: Aspect, is: &[&Statement], was: &[&Statement]) -> Vec<Change> {
    if let ([is], [was]) = (is, was)
        && let Some((is, was)) = translation(&is.exprs).zip(translation(&was.exprs))
    {
        let changes = is.changes(&was);
        if !changes.is_empty() {
            return changes;
        }
    }
    let words = |statements: &[&Statement]| {
        statements.iter().map(|statement| statement.words.as_str()).collect::<Vec<_>>().join(" ")
    };
    vec![Change::StatementChanged { aspect, found: words(is), expected: words(was) }]
}

/// What becomes of address and port.
struct Translation {
    ports: String,
    heeds_ports: bool,
    address: String,
    choice: String,
}

fn translation(exprs: &[Expr]) -> Option<Translation> {
    let (expr, loads) = exprs.split_last()?;
    Some(match expr {
        Expr::Masq(Masq { flags, proto_min, proto_max }) => Translation {
            ports: ports(loads, *proto_min, *proto_max),
            heeds_ports: proto_min.is_none()
                || flags.unwrap_or(0) & NF_NAT_RANGE_PROTO_SPECIFIED != 0,
            address: "the interface's".into(),
            choice: choice(flags.unwrap_or(0)),
        },
        Expr::Nat(Nat { flags, addr_min, proto_min, proto_max, .. }) => Translation {
            ports: ports(loads, *proto_min, *proto_max),
            heeds_ports: true,
            address: addr_min.map_or("itself".into(), |register| address(loads, register)),
            choice: choice(flags.unwrap_or(0)),
        },
        _ => return None,
    })
}

impl Translation {
    fn changes(&self, expected: &Self) -> Vec<Change> {
        let flag = (expected.heeds_ports && !self.heeds_ports)
            .then(|| Change::LostPortFlag { ports: self.ports.clone() });
        let pair = |is: &String, was: &String| (is != was).then(|| (is.clone(), was.clone()));
        let ports = pair(&self.ports, &expected.ports)
            .map(|(found, expected)| Change::PortsChanged { found, expected });
        let address = pair(&self.address, &expected.address)
            .map(|(found, expected)| Change::AddressChanged { found, expected });
        let choice = pair(&self.choice, &expected.choice)
            .map(|(found, expected)| Change::ChoiceChanged { found, expected });
        [flag, ports, address, choice].into_iter().flatten().collect()
    }
}

/// What was loaded into a register: bytes, or the value of a map.
fn loaded(loads: &[Expr], register: Register) -> Option<&Expr> {
    loads.iter().rev().find(|expr| match expr {
        Expr::Immediate(immediate) => immediate.dreg == register,
        Expr::Lookup(lookup) => lookup.dreg == Some(register),
        _ => false,
    })
}

fn ports(loads: &[Expr], min: Option<Register>, max: Option<Register>) -> String {
    let Some(min) = min else { return "any".into() };
    match (port(loads, min), max.map_or(port(loads, min), |max| port(loads, max))) {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low}-{high}"),
        _ => mapped(loads),
    }
}

fn port(loads: &[Expr], register: Register) -> Option<u16> {
    let Expr::Immediate(immediate) = loaded(loads, register)? else { return None };
    immediate.data.bytes()?.try_into().ok().map(u16::from_be_bytes)
}

fn address(loads: &[Expr], register: Register) -> String {
    match loaded(loads, register) {
        Some(Expr::Immediate(Immediate { data, .. })) => address_words(data),
        _ => mapped(loads),
    }
}

fn mapped(loads: &[Expr]) -> String {
    let map = loads.iter().rev().find_map(|expr| match expr {
        Expr::Lookup(lookup) => Some(format!("of map {}", lookup.set)),
        _ => None,
    });
    map.unwrap_or_else(|| "unknown".into())
}

fn address_words(data: &Data) -> String {
    let address = data.bytes().and_then(address_of);
    address.map_or_else(|| data.to_string(), |address| address.to_string())
}

/// The ways to pick a port, as nft writes them.
fn choice(flags: u32) -> String {
    let implied = NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED;
    let unknown = CHOICES.iter().fold(flags & !implied, |flags, (flag, _)| flags & !flag);
    let set = CHOICES.iter().filter(|(flag, _)| flags & flag != 0);
    let mut words: Vec<_> = set.map(|(_, name)| (*name).to_string()).collect();
    if unknown != 0 {
        words.push(format!("{unknown:#x}"));
    }
    words.join(",")
}
