//! Differences between the rules of a chain: which rule became which, and in what they differ.

use std::collections::HashMap;

use ephport_core::{Address, PortRange};

use super::{Attribute, Difference, Drift, Location, comment, missing, unexpected, unknown};
use crate::nftables::Rule;
use crate::nftables::expr::Expr;
use crate::nftables::value::{family_name, nat_flag_names, nfproto};
use crate::plan::sequence::longest_common;
use crate::syntax::{Argument, Decoded, NatStatement, Operand, Statement, decode, rule_to_nft};
use crate::table::layout::policy_of;
use crate::table::{Normalized, fingerprint_of};
use crate::uapi::{
    NFT_META_IIF, NFT_META_IIFNAME, NFT_META_IIFTYPE, NFT_META_L4PROTO, NFT_META_NFPROTO,
    NFT_META_OIF, NFT_META_OIFNAME, NFT_META_OIFTYPE,
};

/// The most places between two rules of the same stretch that are compared.
const WINDOW: usize = 8;

/// A rule that is not in both chains at the same place.
struct Candidate<'a> {
    rule: &'a Rule,
    /// The index in its chain.
    at: usize,
    /// The count of rules before it that are in both: a changed rule has the same in both chains.
    stretch: usize,
    bytes: Vec<u8>,
    table: &'a Normalized<'a>,
    statements: Vec<Decoded<'a>>,
}

impl Candidate<'_> {
    fn location(&self) -> Location {
        Location::rule(self.rule, self.at)
    }

    fn to_nft(&self) -> String {
        rule_to_nft(self.rule, self.table)
    }

    /// Whether it has at least half of the statements of the other.
    fn resembles(&self, other: &Self) -> bool {
        let has = |other: &&Decoded<'_>| self.statements.iter().any(|own| is_same(own, other));
        2 * other.statements.iter().filter(has).count() >= other.statements.len()
    }
}

/// Statements do the same; raw ones have the same expressions.
fn is_same(one: &Decoded<'_>, other: &Decoded<'_>) -> bool {
    matches!((&one.statement, &other.statement), (Statement::Counter(_), Statement::Counter(_)))
        || one.statement == other.statement
}

/// The differences between the rules of one chain.
pub(super) fn rules<'a>(
    found: &'a Normalized<'a>,
    expected: &'a Normalized<'a>,
    chain: &str,
) -> Vec<Drift> {
    let (old, new) = (found.rules_of(chain), expected.rules_of(chain));
    if old.is_empty() && !new.is_empty() {
        return vec![Location::chain(chain).differs((
            Attribute::Rules,
            None,
            Some(new.len().to_string()),
        ))];
    }
    let mut known = HashMap::new();
    let mut number = |rule: &&Rule, table: &Normalized<'_>| {
        let next = known.len();
        *known.entry(table.rule_bytes(rule)).or_insert(next)
    };
    let old_numbers: Vec<_> = old.iter().map(|rule| number(rule, found)).collect();
    let new_numbers: Vec<_> = new.iter().map(|rule| number(rule, expected)).collect();
    let (kept_old, kept_new): (Vec<_>, Vec<_>) =
        longest_common(&old_numbers, &new_numbers).into_iter().unzip();
    let mut old = candidates(old, &kept_old, found);
    let mut new = candidates(new, &kept_new, expected);
    let mut drifts = reordered(&mut old, &mut new);
    drifts.extend(changed(&mut old, &mut new));
    drifts.extend(new.iter().map(|rule| rule.location().differs(missing(rule.to_nft()))));
    drifts.extend(old.iter().map(|rule| rule.location().differs(unexpected(rule.to_nft()))));
    drifts
}

/// The rules whose indexes are not in `kept`, which is ascending.
fn candidates<'a>(
    rules: &[&'a Rule],
    kept: &[usize],
    table: &'a Normalized<'a>,
) -> Vec<Candidate<'a>> {
    let candidate = |(at, rule): (usize, &&'a Rule)| {
        let stretch = kept.binary_search(&at).err()?;
        let (bytes, statements) = (table.rule_bytes(rule), decode(rule, table));
        Some(Candidate { rule, at, stretch, bytes, table, statements })
    };
    rules.iter().enumerate().filter_map(candidate).collect()
}

/// Remove the rules that are in both chains at different places.
fn reordered(found: &mut Vec<Candidate<'_>>, expected: &mut Vec<Candidate<'_>>) -> Vec<Drift> {
    let mut places: HashMap<_, Vec<usize>> = HashMap::new();
    for rule in expected.iter().rev() {
        places.entry(rule.bytes.clone()).or_default().push(rule.at);
    }
    let (mut drifts, mut gone) = (Vec::new(), Vec::new());
    found.retain(|rule| {
        let Some(at) = places.get_mut(&rule.bytes).and_then(Vec::pop) else { return true };
        let (number, expected) = ((rule.at + 1).to_string(), (at + 1).to_string());
        drifts.push(rule.location().differs((Attribute::Position, Some(number), Some(expected))));
        gone.push(at);
        false
    });
    gone.sort_unstable();
    expected.retain(|rule| gone.binary_search(&rule.at).is_err());
    drifts
}

/// Remove the pairs of a rule and what became of it, those with the fewest differences first.
fn changed(found: &mut Vec<Candidate<'_>>, expected: &mut Vec<Candidate<'_>>) -> Vec<Drift> {
    let mut pairs = Vec::new();
    for (i, is) in found.iter().enumerate() {
        let first = expected.partition_point(|was| was.stretch < is.stretch);
        let place = i - found.partition_point(|other| other.stretch < is.stretch);
        let near = expected.iter().enumerate().skip(first + place.saturating_sub(WINDOW));
        let near =
            near.take_while(|(j, was)| was.stretch == is.stretch && *j <= first + place + WINDOW);
        for (j, was) in near.filter(|(_, was)| is.resembles(was)) {
            pairs.push((i, j, differences(is, was)));
        }
    }
    pairs.sort_by_key(|(_, _, differences)| differences.len());
    let mut paired = Vec::new();
    let (mut free_old, mut free_new) = (vec![true; found.len()], vec![true; expected.len()]);
    for (i, j, differences) in pairs {
        if let (Some(old @ true), Some(new @ true)) = (free_old.get_mut(i), free_new.get_mut(j)) {
            (*old, *new) = (false, false);
            paired.push((i, j, differences));
        }
    }
    paired.sort_by_key(|(i, ..)| *i);
    let mut drifts = Vec::new();
    for (i, j, changes) in paired {
        let (Some(is), Some(was)) = (found.get(i), expected.get(j)) else { continue };
        let policy = policy_of(was.rule).or(policy_of(is.rule));
        let chain = is.rule.chain.clone();
        let location = Location::Rule { chain, number: is.at + 1, policy };
        drifts.extend(changes.into_iter().map(|change| location.clone().differs(change)));
    }
    retain(found, &free_old);
    retain(expected, &free_new);
    drifts
}

fn retain<T>(items: &mut Vec<T>, flags: &[bool]) {
    let mut flags = flags.iter();
    items.retain(|_| flags.next() == Some(&true));
}

/// The differences between two rules that are not equal; at least one.
fn differences(found: &Candidate<'_>, expected: &Candidate<'_>) -> Vec<Difference> {
    let mut attributes: Vec<Attribute> = Vec::new();
    for decoded in expected.statements.iter().chain(&found.statements) {
        let attribute = attribute(decoded);
        if !attributes.contains(&attribute) {
            attributes.push(attribute);
        }
    }
    let mut changes: Vec<_> = attributes
        .into_iter()
        .flat_map(|attribute| {
            let is_for = |decoded: &&Decoded<'_>| self::attribute(decoded) == attribute;
            let found: Vec<_> = found.statements.iter().filter(is_for).collect();
            let expected: Vec<_> = expected.statements.iter().filter(is_for).collect();
            statements(attribute, &found, &expected)
        })
        .collect();
    let own = |rule: &Rule| rule.userdata.clone().filter(|_| fingerprint_of(rule).is_none());
    if own(found.rule) != own(expected.rule) {
        let text = |rule: &Rule| comment(rule.comment().filter(|_| own(rule).is_some()).as_ref());
        let (is, was) = (text(found.rule), text(expected.rule));
        changes.push(if is == was { unknown() } else { (Attribute::Comment, is, was) });
    }
    if found.rule.other != expected.rule.other {
        changes.push(unknown());
    }
    if changes.is_empty() {
        let (is, was) = match (found.to_nft(), expected.to_nft()) {
            (is, was) if is == was => (bytecode(&found.rule.exprs), bytecode(&expected.rule.exprs)),
            texts => texts,
        };
        changes.push((Attribute::Encoding, Some(is), Some(was)));
    }
    changes
}

fn bytecode(exprs: &[Expr]) -> String {
    let texts = exprs.iter().map(|expr| expr.normalized().to_string());
    texts.collect::<Vec<_>>().join(" ")
}

/// The differences between the statements for one attribute; empty if they are in the same order.
fn statements(
    attribute: Attribute,
    found: &[&Decoded<'_>],
    expected: &[&Decoded<'_>],
) -> Vec<Difference> {
    if found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| is_same(a, b)) {
        return Vec::new();
    }
    if let ([found], [expected]) = (found, expected)
        && let (Statement::Nat(found), Statement::Nat(expected)) =
            (&found.statement, &expected.statement)
    {
        return nat(found, expected);
    }
    let text = |statements: &[&Decoded<'_>]| {
        let text = |decoded: &&Decoded<'_>| {
            decoded.statement.to_nft().unwrap_or_else(|| bytecode(decoded.exprs))
        };
        let text = statements.iter().map(text).collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then(|| format!("`{text}`"))
    };
    vec![(attribute, text(found), text(expected))]
}

/// The attribute of a policy that a statement is for.
fn attribute(decoded: &Decoded<'_>) -> Attribute {
    match &decoded.statement {
        Statement::Counter(_) => Attribute::Counter,
        Statement::Object(_) => Attribute::Timeouts,
        Statement::Nat(_) | Statement::Write { .. } => Attribute::Translation,
        Statement::Verdict(_) | Statement::Vmap { .. } => Attribute::Verdict,
        Statement::Match { operand, .. } => of_operand(operand),
        Statement::Raw(exprs) => match exprs.last() {
            Some(Expr::Masq(_) | Expr::Nat(_)) => Attribute::Translation,
            _ => Attribute::Statements,
        },
    }
}

fn of_operand(operand: &Operand<'_>) -> Attribute {
    match operand {
        Operand::Meta(
            NFT_META_OIFNAME | NFT_META_OIFTYPE | NFT_META_OIF | NFT_META_IIFNAME
            | NFT_META_IIFTYPE,
        ) => Attribute::Interface,
        Operand::Meta(NFT_META_NFPROTO) => Attribute::Family,
        Operand::Meta(NFT_META_IIF) => Attribute::Origin,
        Operand::Meta(NFT_META_L4PROTO) => Attribute::Protocol,
        Operand::Address(field) if field.is_source => Attribute::Sources,
        Operand::Address(_) | Operand::Fib { .. } => Attribute::Destinations,
        Operand::Payload { offset: 0, len: 2, .. } => Attribute::SourcePorts,
        Operand::Masked(inner, _) => match **inner {
            Operand::Payload { .. } => Attribute::TcpFlags,
            ref inner => of_operand(inner),
        },
        Operand::Ct { .. } => Attribute::Connection,
        _ => Attribute::Statements,
    }
}

fn nat(found: &NatStatement<'_>, expected: &NatStatement<'_>) -> Vec<Difference> {
    let lost = lost_port_flag(found).filter(|_| !expected.ignores_ports);
    let different = |attribute, is: String, was: String| {
        (is != was).then_some((attribute, Some(is), Some(was)))
    };
    let flags = |nat: &NatStatement<'_>| match nat_flag_names(nat.flags) {
        names if names.is_empty() => "default".into(),
        names => names,
    };
    let family = |nat: &NatStatement<'_>| {
        let name = nat.family.and_then(|family| family_name(nfproto(family)));
        name.unwrap_or("any").to_string()
    };
    let changes = [
        lost,
        different(Attribute::Ports, ports(found), ports(expected)),
        different(Attribute::Address, address(found), address(expected)),
        different(Attribute::PortSelection, flags(found), flags(expected)),
    ];
    let changes: Vec<_> = changes.into_iter().flatten().collect();
    match different(Attribute::Family, family(found), family(expected)) {
        Some(family) if changes.is_empty() => vec![family],
        _ => changes,
    }
}

/// The fault of `masq` with ports that the kernel ignores.
pub(super) fn lost_port_flag(nat: &NatStatement<'_>) -> Option<Difference> {
    let text =
        || format!("cleared (the kernel ignores ports {}, although nft prints them)", ports(nat));
    nat.ignores_ports.then(|| (Attribute::PortRangeFlag, Some(text()), Some("set".into())))
}

fn ports(nat: &NatStatement<'_>) -> String {
    nat.ports.as_ref().map_or("any".into(), |ports| argument(ports, PortRange::to_string))
}

fn address(nat: &NatStatement<'_>) -> String {
    argument(&nat.address, Address::to_string)
}

fn argument<T>(argument: &Argument<'_, T>, text: impl Fn(&T) -> String) -> String {
    match argument {
        Argument::Value(value) => text(value),
        Argument::Map(ends) => match &ends[0] {
            Operand::Map { map, .. } if !map.is_anonymous() => format!("of map {}", map.name),
            _ => "of a map".into(),
        },
    }
}
