//! The reason why a change has no effect on any packet.

use ephport_core::Effect;
use ephport_nft::TableState;
use ephport_nft::nftables::Rule;
use ephport_nft::nftables::expr::{Data, Expr, Lookup, Nat, Opaque, Register, Verdict};
use ephport_nft::table::Set;

use crate::mutants::{Mutant, Site};
use crate::packets::{Comparison, Leaf, Seen, equal, see};

/// The reasons, in the order in which they are asked for: only where every kind of packet has the
/// same effect with and without the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    Unreached,
    Counter,
    FilledIn,
    SameSet,
    SameVerdict,
    OneAddress,
    UnreadBytes,
    OtherBytes,
    SureAlready,
    AnotherRule,
    EndOfChain,
}

impl Reason {
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Unreached => {
                "no packet reaches the rule: it is for one that is in flight while the program is \
                 replaced"
            }
            Self::Counter => "only the values of a counter differ",
            Self::FilledIn => "the kernel adds the removed value itself",
            Self::SameSet => "the other set has the same elements",
            Self::SameVerdict => {
                "accept and return both end a base chain; jump to a chain without return is goto"
            }
            Self::OneAddress => "without a highest address nat uses only the lowest",
            Self::UnreadBytes => "NAT reads two bytes of a register of four",
            Self::OtherBytes => "the rule makes the same decision for every packet, by other bytes",
            Self::SureAlready => "an earlier match decided it: every packet passes the same rules",
            Self::AnotherRule => "packets pass another rule, which does the same",
            Self::EndOfChain => "packets pass other rules, and none of them acts on the packet",
        }
    }
}

/// The reason for a change that makes no difference, if there is one.
pub(crate) fn reason(
    leaves: &[Leaf],
    mutant: &Mutant,
    comparison: &Comparison<'_>,
) -> Option<Reason> {
    let was = comparison.was;
    let rules = mutant.rules(was);
    if rules.iter().all(|rule| is_unreached(was, leaves, *rule)) {
        return Some(Reason::Unreached);
    }
    let structural = match mutant.site {
        Site::Rule(_) => None,
        Site::Expr(r, e) => {
            let is = mutant.ruleset.rules[r].exprs.get(e);
            let is_dropped = mutant.ruleset.rules[r].exprs.len() < was.rules[r].exprs.len();
            of_expr(was, &was.rules[r], e, is.filter(|_| !is_dropped))
        }
        Site::Element(s, e) => of_element(&was.sets[s], &mutant.ruleset.sets[s], e),
    };
    structural.or_else(|| of_ways(leaves, mutant, comparison))
}

/// Whether no packet is affected when the rule cannot be run.
fn is_unreached(was: &TableState, leaves: &[Leaf], rule: usize) -> bool {
    let mut trap = was.clone();
    trap.rules[rule].exprs = vec![Opaque::new("trap".into(), None).into()].into();
    leaves.iter().all(|leaf| see(&trap, leaf.kind, &leaf.values).effect == leaf.seen.effect)
}

fn of_expr(ruleset: &TableState, rule: &Rule, at: usize, is: Option<&Expr>) -> Option<Reason> {
    match (&rule.exprs[at], is) {
        (Expr::Counter(_), None | Some(Expr::Counter(_))) => Some(Reason::Counter),
        (Expr::Bitwise(was), Some(Expr::Bitwise(is))) if is.op.is_none() => {
            let mut is = is.clone();
            is.op = was.op;
            (is == *was).then_some(Reason::FilledIn)
        }
        (Expr::Nat(was), Some(Expr::Nat(is))) if is.addr_max != was.addr_max => {
            let lowest = [None, was.addr_min, Some(Register(8))];
            lowest.contains(&is.addr_max).then_some(Reason::OneAddress)
        }
        (was, Some(is)) if was.normalized() == is.normalized() => Some(Reason::FilledIn),
        (Expr::Lookup(was), Some(Expr::Lookup(is))) if is.set != was.set => {
            let [old, new] = [was, is].map(|lookup| Some(&ruleset.set(&lookup.set)?.elements));
            let same_registers = Lookup { set: was.set.clone(), ..*is.clone() } == **was;
            (old == new && same_registers).then_some(Reason::SameSet)
        }
        (Expr::Immediate(was), Some(Expr::Immediate(is))) => {
            let is_base = ruleset.chains.iter().any(|c| c.name == rule.chain && c.hook.is_some());
            match (&was.data, &is.data) {
                (Data::Verdict(was), Data::Verdict(is)) if is_same(was, is, is_base) => {
                    Some(Reason::SameVerdict)
                }
                (Data::Value(was), Data::Value(is)) if was.starts_with(is) => {
                    was[is.len()..].iter().all(|byte| *byte == 0).then_some(Reason::FilledIn)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_same(was: &Verdict, is: &Verdict, is_base: bool) -> bool {
    match (was, is) {
        (Verdict::Return, Verdict::Accept) => is_base,
        (Verdict::Goto(was), Verdict::Jump(is)) => was == is,
        _ => false,
    }
}

fn of_element(was: &Set, is: &Set, at: usize) -> Option<Reason> {
    if was.normalized() == is.normalized() {
        return Some(Reason::FilledIn);
    }
    let [old, new] = [was, is].map(|filled| filled.elements.iter().nth(at)?.data());
    let (old, new) = (old?, new.filter(|_| was.elements.len() == is.elements.len())?);
    let (old, new) = (old.bytes()?, new.bytes()?);
    // Ports are at the end of each half.
    let half = old.len() / 2;
    let is_unread = |i: usize| i % half >= half - 2;
    let mut changed = (0..old.len()).filter(|i| old.get(*i) != new.get(*i));
    (old.len() == new.len() && changed.all(is_unread)).then_some(Reason::UnreadBytes)
}

/// Whether packets go other ways.
fn of_ways(leaves: &[Leaf], mutant: &Mutant, comparison: &Comparison<'_>) -> Option<Reason> {
    let (mut is_same, mut by_rules) = (true, true);
    let unlike = leaves.iter().find_map(|leaf| {
        comparison.over(leaf, &mut |_, was, is| {
            let (old, new) = (ways(was), shifted(ways(is), mutant, comparison.was));
            if old == new {
                return None;
            }
            is_same = false;
            let (old, new) = (actions(was, comparison.was), actions(is, &mutant.ruleset));
            if old == new {
                return None;
            }
            by_rules = false;
            let is_let_pass = |seen: &Seen| seen.effect == Ok(Effect::Untouched);
            (!is_let_pass(was) || !is_let_pass(is)).then_some(())
        })
    });
    if unlike.is_some() {
        return None;
    }
    match (is_same, by_rules) {
        (true, _) if is_condition(mutant, comparison.was) => Some(match mutant.site {
            Site::Expr(r, _) if by_itself(comparison.was, r, &mutant.ruleset) => Reason::OtherBytes,
            _ => Reason::SureAlready,
        }),
        (true, _) => None,
        (false, true) => Some(Reason::AnotherRule),
        (false, false) => Some(Reason::EndOfChain),
    }
}

/// The rules on the way to an outcome.
type Way = Vec<(String, usize)>;

fn ways(seen: &Seen) -> Vec<Way> {
    seen.outcomes.iter().map(|outcome| outcome.trail.clone()).collect()
}

/// With the places that rules had before one was omitted.
fn shifted(mut ways: Vec<Way>, mutant: &Mutant, ruleset: &TableState) -> Vec<Way> {
    if let Site::Rule(r) = mutant.site {
        let (chain, index) = place(ruleset, r);
        for (at, i) in ways.iter_mut().flatten() {
            *i += usize::from(*at == chain && *i >= index);
        }
    }
    ways
}

/// The chain of a rule, and its place in it.
pub(crate) fn place(ruleset: &TableState, rule: usize) -> (String, usize) {
    let chain = &ruleset.rules[rule].chain;
    let before = ruleset.rules[..rule].iter().filter(|other| other.chain == *chain);
    (chain.clone(), before.count())
}

/// What the rules do that decide.
fn actions(seen: &Seen, ruleset: &TableState) -> Vec<Option<Vec<Expr>>> {
    ways(seen).iter().map(|way| way.last().map(|at| action(ruleset, at))).collect()
}

/// What a rule does with the packets that it is for.
fn action(ruleset: &TableState, (chain, index): &(String, usize)) -> Vec<Expr> {
    let rule = ruleset.rules_of(chain).nth(*index).expect("a rule");
    let counter = rule.exprs.iter().position(|expr| matches!(expr, Expr::Counter(_)));
    let first = counter.map_or_else(
        || rule.exprs.iter().position(|expr| !asks(expr)).unwrap_or(rule.exprs.len()),
        |at| at + 1,
    );
    rule.exprs[first..].to_vec()
}

fn asks(expr: &Expr) -> bool {
    match expr {
        Expr::Lookup(lookup) => lookup.dreg.is_none(),
        other => {
            let actions = ["counter", "hash", "immediate", "masq", "nat", "numgen"];
            !actions.contains(&other.name())
        }
    }
}

/// Whether the change is in what is asked.
fn is_condition(mutant: &Mutant, was: &TableState) -> bool {
    match mutant.site {
        Site::Rule(_) => false,
        Site::Expr(r, e) => match (&was.rules[r].exprs[e], mutant.ruleset.rules[r].exprs.get(e)) {
            // It passes over packets of another family.
            (Expr::Nat(was), Some(Expr::Nat(is))) => {
                Nat { family: was.family, ..*is.clone() } == **was
            }
            (was, _) => asks(was),
        },
        Site::Element(..) => true,
    }
}

/// Whether the rule, without the others of its chain, does the same with every packet.
fn by_itself(was: &TableState, rule: usize, is: &TableState) -> bool {
    let only = |ruleset: &TableState| {
        let mut ruleset = ruleset.clone();
        let chain = ruleset.rules[rule].chain.clone();
        let mut at = 0;
        ruleset.rules.retain(|other| {
            at += 1;
            at - 1 == rule || other.chain != chain
        });
        ruleset
    };
    let (was, is) = (only(was), only(is));
    crate::packets::leaves(&was, usize::MAX).is_some_and(|leaves| equal(&was, &is, &leaves))
}
