//! The property of `meaning.rs` can fail: programs are changed in every place, one change at a time,
//! and the comparison with the policies must notice.

#[path = "../common/mod.rs"]
mod common;
mod forms;
mod mutants;
mod packets;
mod questions;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use common::compiled;
use ephport_core::Resolved;
use ephport_core::strategies::documents;
use ephport_nft::Ruleset;
use ephport_nft::compile::{ENFORCE, POSTROUTING};
use mutants::{Mutant, Site};
use packets::{Comparison, Leaf, Space, fault, leaves};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const PROGRAMS: usize = 50;
const MOST_LEAVES: usize = 400;
const MOST_RULES: usize = 10;

struct Subject {
    ruleset: Ruleset,
    policies: Vec<Resolved>,
    leaves: Vec<Leaf>,
}

/// Whether each rule of the base chains decides on some packets: of a rule that decides on none
/// nothing can be seen.
fn is_alive(ruleset: &Ruleset, leaves: &[Leaf]) -> bool {
    let trails = leaves.iter().flat_map(|leaf| &leaf.seen.outcomes);
    let decided: BTreeSet<_> = trails.filter_map(|outcome| outcome.trail.first()).collect();
    [POSTROUTING, ENFORCE].into_iter().all(|chain| {
        (0..ruleset.rules_of(chain).count()).all(|at| decided.contains(&(chain.to_string(), at)))
    })
}

/// Programs in which every form is: those that bring new ones, and some others.
fn subjects() -> Vec<Subject> {
    let mut runner = TestRunner::deterministic();
    let strategy = documents();
    let (mut subjects, mut missing) = (Vec::<Subject>::new(), forms::ALL.to_vec());
    let mut tried = 0;
    while subjects.len() < PROGRAMS {
        tried += 1;
        if tried > 20_000 { break }
        let document = strategy.new_tree(&mut runner).expect("a document").current();
        let Some((ruleset, policies)) = compiled(&document) else { continue };
        let is_new = missing.iter().any(|form| forms::has(&ruleset, *form));
        let room = PROGRAMS - subjects.len() - missing.len().min(PROGRAMS - subjects.len());
        if ruleset.rules.len() > MOST_RULES || !is_new && room == 0 {
            continue;
        }
        let Some(leaves) = leaves(&ruleset, MOST_LEAVES) else { continue };
        if !is_alive(&ruleset, &leaves) {
            continue;
        }
        for leaf in &leaves {
            assert_eq!(fault(&ruleset, &policies, leaf.kind, &leaf.values), None);
        }
        missing.retain(|form| !forms::has(&ruleset, *form));
        subjects.push(Subject { ruleset, policies, leaves });
    }
    println!("tried {tried}");
    assert!(missing.is_empty(), "no program has {:?}", missing.iter().map(|(name, _)| name).collect::<Vec<_>>());
    subjects
}

fn may_enter(ruleset: &Ruleset, leaf: &Leaf, rule: usize) -> (bool, bool) {
    let chain = &ruleset.rules[rule].chain;
    let index = ruleset.rules[..rule].iter().filter(|other| other.chain == *chain).count();
    let is_base = ["postrouting", "enforce"].contains(&chain.as_str());
    let mut enters = false;
    let mut touches = false;
    if is_base && leaf.kind.chain != chain || !is_base && leaf.kind.chain == "enforce" {
        return (false, false);
    }
    for outcome in &leaf.seen.outcomes {
        let place = outcome.trail.iter().find(|(at, _)| at == chain);
        touches |= place.is_some_and(|(_, at)| *at == index);
        enters |= match place {
            Some((_, at)) => *at >= index,
            None => is_base,
        };
    }
    (enters, touches)
}

#[derive(Default)]
struct Tally {
    killed: usize,
    survivors: Vec<String>,
    looked: usize,
}

fn tried(subject: &Subject) -> Tally {
    let Subject { ruleset, policies, leaves } = subject;
    let mut tally = Tally::default();
    let space = Space::of(ruleset);
    let disguised = packets::disguised(ruleset, leaves);
    let all = mutants::of(ruleset); eprintln!("{} mutants {} rules {} leaves {} disguised", all.len(), ruleset.rules.len(), leaves.len(), disguised.len());
    for mutant in all { let t1 = std::time::Instant::now();
        let rules: Vec<usize> = match mutant.site {
            Site::Rule(r) | Site::Expr(r, _) => vec![r],
            Site::Element(s, _) => {
                let name = &ruleset.sets[s].set.name;
                let looks = |rule: &ephport_nft::object::Rule| rule.exprs.iter().any(|e| matches!(e, ephport_nft::expr::Expr::Lookup(l) if l.set == *name));
                (0..ruleset.rules.len()).filter(|r| looks(&ruleset.rules[*r])).collect()
            }
        };
        let other = Space::of(&mutant.ruleset);
        let comparison = Comparison { was: ruleset, is: &mutant.ruleset, classes: packets::Classes::new(&space, &other) };
        let ranked = leaves.iter().map(|leaf| {
            let all: Vec<_> = rules.iter().map(|r| may_enter(ruleset, leaf, *r)).collect();
            (leaf, all.iter().any(|a| a.0), all.iter().any(|a| a.1))
        });
        let ranked: Vec<_> = ranked.collect();
        let first = ranked.iter().filter(|(_, _, t)| *t);
        let second = ranked.iter().filter(|(_, e, t)| *e && !*t);
        let mut looked = 0;
        let differs = |leaf: &&Leaf| packets::see(&mutant.ruleset, leaf.kind, &leaf.values).effect != leaf.seen.effect;
        let touching = ranked.iter().filter(|(_, _, t)| *t).map(|(leaf, ..)| *leaf);
        let probe = touching.chain(&disguised).find(differs).map(|leaf| (leaf.kind, leaf.values));
        let killer = probe.or_else(|| first.chain(second).find_map(|(leaf, ..)| {
            comparison.over(leaf, &mut |values, was, is| {
                looked += 1;
                (was.effect != is.effect).then(|| (leaf.kind, *values))
            })
        }));
        tally.looked += looked;
        if t1.elapsed().as_millis() > 200 { eprintln!("SLOW {:?} looked {looked} killed {} {}", t1.elapsed(), killer.is_some(), mutant.describe(ruleset)); }
        match killer {
            Some((kind, values)) => {
                assert!(fault(&mutant.ruleset, policies, kind, &values).is_some());
                tally.killed += 1;
            }
            None => tally.survivors.push(format!("{} exact {}", mutant.describe(ruleset), space.is_exact_with(&other))),
        }
    }
    tally
}

#[test]
fn no_change_of_a_program_goes_unnoticed() {
    let start = std::time::Instant::now();
    let subjects = subjects();
    let all: Vec<_> = subjects.iter().enumerate().map(|(i, s)| format!("=== {i} leaves {} moved {}\n{}", s.leaves.len(), s.leaves.iter().filter(|l| l.seen.effect != Ok(ephport_nft::interpret::Effect::Untouched)).count(), s.ruleset.listing())).collect();
    std::fs::write("/tmp/programs.txt", all.join("\n")).unwrap();
    println!("selected {:?} leaves {}", start.elapsed(), subjects.iter().map(|s| s.leaves.len()).sum::<usize>());
    let (mut killed, mut survivors, mut looked) = (0, Vec::new(), 0);
    for (i, subject) in subjects.iter().enumerate() {
        let t0 = std::time::Instant::now();
        let tally = tried(subject);
        eprintln!("{i}: {:?} rules {} leaves {} killed {} survive {} looked {}", t0.elapsed(), subject.ruleset.rules.len(), subject.leaves.len(), tally.killed, tally.survivors.len(), tally.looked);
        killed += tally.killed;
        looked += tally.looked;
        survivors.extend(tally.survivors.into_iter().map(|s| format!("{i}: {s}")));
    }
    println!("killed {killed} survivors {} looked {looked} {:?}", survivors.len(), start.elapsed());
    std::fs::write("/tmp/survivors.txt", survivors.join("\n")).unwrap();
    let all: Vec<_> = subjects.iter().enumerate().map(|(i, s)| format!("=== {i} leaves {}\n{}", s.leaves.len(), s.ruleset.listing())).collect();
    std::fs::write("/tmp/programs.txt", all.join("\n")).unwrap();
}
