//! The property of `meaning.rs` can fail. Programs are changed in every place, one change at a time,
//! and the comparison with the policies must notice: there is a packet for which it fails. A change
//! that it does not notice is shown to be none, over every kind of packet that the program or
//! the changed one distinguishes, and has a reason with a name.

mod forms;
mod mutants;
mod packets;
mod questions;
mod reasons;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ephport_core::strategies::documents;
use ephport_core::{Distribution, Document, Effect, Policy, ResolvedPolicy};
use ephport_nft::TableState;
use ephport_nft::fuzz::compiled;
use ephport_nft::nftables::Chain;
use ephport_nft::table::layout::{ENFORCE, POSTROUTING};
use mutants::Mutant;
use packets::{Comparison, Leaf, Space, disguised, fault, leaves, see};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use reasons::{Reason, place, reason};

const PROGRAMS: usize = 50;

/// Small ones, which have all forms too; those that bring no new form are smaller still.
const MOST_RULES: usize = 10;
const FEW_RULES: usize = 6;
const MOST_LEAVES: usize = 200;

/// So many are looked through for them.
const DOCUMENTS: usize = 20_000;

/// Documents of forms that generated ones seldom have.
const RARE: [&str; 3] = [
    "protocols = [\"udp\"]\nsource-ports = \"2000,2005,2010,2015\"\nto-ports = \"4000-4999\"\naddress = \"masquerade\"",
    "protocols = [\"icmp\"]\nto-ports = \"2000-2999\"\naddress = \"masquerade\"",
    "protocols = [\"icmpv6\"]\nto-ports = \"2000-2999,4000-4999\"\naddress = \"masquerade\"",
];

/// A program, its policies, and every kind of packet that it distinguishes.
struct Subject {
    ruleset: TableState,
    policies: Vec<ResolvedPolicy>,
    leaves: Vec<Leaf>,
}

impl Subject {
    /// If it is not too large, and each rule decides on some packets, but for the last of a spread:
    /// changes of a rule that decides on none are none.
    fn new((ruleset, policies): (TableState, Vec<ResolvedPolicy>)) -> Option<Self> {
        let leaves = leaves(&ruleset, MOST_LEAVES)?;
        let outcomes = leaves.iter().flat_map(|leaf| &leaf.seen.outcomes);
        let decided: BTreeSet<_> = outcomes.flat_map(|outcome| &outcome.trail).collect();
        let is_decided = (0..ruleset.rules.len()).all(|rule| {
            let is_goto = ruleset.rules[rule].exprs.len() == 1;
            is_goto || decided.contains(&place(&ruleset, rule))
        });
        let does_something = |chain: &Chain| {
            let own = leaves.iter().filter(|leaf| leaf.kind.chain == chain.name);
            own.into_iter().any(|leaf| leaf.seen.effect != Ok(Effect::Untouched))
        };
        let mut bases = ruleset.chains.iter().filter(|chain| chain.hook.is_some());
        let is_live = is_decided && bases.all(does_something);
        is_live.then_some(Self { ruleset, policies, leaves })
    }
}

/// Programs in which every form is: those that bring a new one, and some others.
fn subjects() -> Vec<Subject> {
    let mut runner = TestRunner::deterministic();
    let strategy = documents();
    let (mut subjects, mut missing) = (Vec::<Subject>::new(), forms::ALL.to_vec());
    let rare = RARE.iter().map(|keys| {
        let text = format!("[[policy]]\nname = \"rare\"\nout-interfaces = [\"eth0\"]\n{keys}\n");
        text.parse().expect("a document")
    });
    let mut generate = || strategy.new_tree(&mut runner).expect("a document").current();
    let generated = std::iter::repeat_with(&mut generate).take(DOCUMENTS);
    for document in rare.chain(generated) {
        let document: Document = document;
        // The packets that rewritten ports need are those of `meaning.rs`.
        let is_remap = |policy: &Policy| policy.spec().spread == Some(Distribution::Remap);
        if document.policies().iter().any(is_remap) {
            continue;
        }
        let Some(program) = compiled(&document) else { continue };
        let is_new = missing.iter().any(|form| forms::has(&program.0, *form));
        let most = if is_new { MOST_RULES } else { FEW_RULES };
        let is_full = subjects.len() + missing.len() >= PROGRAMS && !is_new;
        if is_full || program.0.rules.len() > most {
            continue;
        }
        let Some(subject) = Subject::new(program) else { continue };
        missing.retain(|form| !forms::has(&subject.ruleset, *form));
        subjects.push(subject);
        if subjects.len() == PROGRAMS {
            break;
        }
    }
    let missing: Vec<_> = missing.iter().map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "no program has {missing:?}");
    subjects
}

/// Whether a packet of this kind may come to a rule, and whether the rule decides on it.
fn comes_to(ruleset: &TableState, leaf: &Leaf, rule: usize) -> (bool, bool) {
    let (chain, index) = place(ruleset, rule);
    let is_base = [POSTROUTING, ENFORCE].contains(&chain.as_str());
    if is_base && leaf.kind.chain != chain {
        return (false, false);
    }
    let (mut comes, mut decides) = (false, false);
    for outcome in &leaf.seen.outcomes {
        let place = outcome.trail.iter().find(|(other, _)| *other == chain);
        // One that is not translated may have come to the end of any chain.
        let is_left = outcome.target.is_none() && !outcome.trail.is_empty();
        comes |= place.map_or(is_base || is_left, |(_, at)| *at >= index);
        decides |= place.is_some_and(|(_, at)| *at == index);
    }
    (comes, decides)
}

/// The kinds of packets that come to a changed rule, those that it decides on first.
fn concerned<'a>(subject: &'a Subject, mutant: &Mutant) -> Vec<&'a Leaf> {
    let rules = mutant.rules(&subject.ruleset);
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for leaf in &subject.leaves {
        let all = rules.iter().map(|rule| comes_to(&subject.ruleset, leaf, *rule));
        match all.fold((false, false), |all, one| (all.0 | one.0, all.1 | one.1)) {
            (_, true) => near.push(leaf),
            (true, _) => far.push(leaf),
            _ => {}
        }
    }
    near.extend(far);
    near
}

/// What became of changed programs.
#[derive(Default)]
struct Tally {
    killed: usize,
    equivalent: BTreeMap<Reason, usize>,
    unexplained: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.killed += other.killed;
        for (reason, count) in other.equivalent {
            *self.equivalent.entry(reason).or_default() += count;
        }
        self.unexplained.extend(other.unexplained);
    }
}

fn tried(subject: &Subject) -> Tally {
    let Subject { ruleset, policies, leaves } = subject;
    for leaf in leaves {
        let fault = fault(ruleset, policies, leaf.kind, &leaf.values);
        assert_eq!(fault, None, "{}", ruleset.to_nft());
    }
    let (mut tally, space) = (Tally::default(), Space::of(ruleset));
    let disguised = disguised(ruleset, leaves);
    for mutant in mutants::of(ruleset) {
        let concerned = concerned(subject, &mutant);
        // Mostly one that is known already does, as it is or in disguise.
        let differs =
            |leaf: &&Leaf| see(&mutant.ruleset, leaf.kind, &leaf.values).effect != leaf.seen.effect;
        let known = concerned.iter().copied().chain(&disguised).find(differs);
        let comparison = Comparison::new(ruleset, &mutant.ruleset, &space);
        let witness = known.map(|leaf| (leaf.kind, leaf.values)).or_else(|| {
            concerned.iter().find_map(|leaf| {
                comparison.over(leaf, &mut |values, was, is| {
                    (was.effect != is.effect).then_some((leaf.kind, *values))
                })
            })
        });
        if let Some((kind, values)) = witness {
            let found = fault(&mutant.ruleset, policies, kind, &values);
            assert!(found.is_some(), "not noticed: {}", mutant.describe(ruleset));
            tally.killed += 1;
            continue;
        }
        if let Some(reason) = reason(leaves, &mutant, &comparison) {
            *tally.equivalent.entry(reason).or_default() += 1;
        } else {
            let what = mutant.describe(ruleset);
            tally.unexplained.push(format!("{what}\n{}", ruleset.to_nft()));
        }
    }
    tally
}

#[test]
fn every_change_of_a_program_is_noticed_or_is_none() {
    let subjects = subjects();
    let (mut tally, next) = (Tally::default(), AtomicUsize::new(0));
    thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            while let Some(subject) = subjects.get(next.fetch_add(1, Ordering::Relaxed)) {
                tally.add(tried(subject));
            }
            tally
        };
        let halves = [scope.spawn(work), scope.spawn(work)];
        for half in halves {
            tally.add(half.join().expect("a tally"));
        }
    });
    let Tally { killed, equivalent, unexplained } = tally;
    let all = killed + equivalent.values().sum::<usize>() + unexplained.len();
    println!("{} programs, {all} changes, {killed} noticed", subjects.len());
    for (reason, count) in &equivalent {
        println!("{count:6} {reason:?}: {}", reason.sentence());
    }
    let some: Vec<_> = unexplained.iter().take(12).map(String::as_str).collect();
    assert!(some.is_empty(), "{} unexplained:\n{}", unexplained.len(), some.join("\n"));
    assert_eq!(subjects.len(), PROGRAMS);
    assert!(killed > 0);
}
