//! The property of `meaning.rs` can fail: programs are spoilt in every place, one change at a time,
//! and the comparison with the policies must notice. What it does not notice must be no change,
//! for a reason that has a name and is checked ([`excuses::Excuse`]).

#[path = "../common/mod.rs"]
mod common;
mod connections;
mod excuses;
mod mutants;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use common::compiled;
use connections::Connections;
use ephport_core::Resolved;
use ephport_core::strategies::documents;
use ephport_nft::Ruleset;
use ephport_nft::compile::ENFORCE;
use ephport_nft::expr::{Data, Expr, Verdict};
use excuses::Excuse;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const PROGRAMS: usize = 50;
/// How many of them need not bring new forms.
const OTHERS: usize = 16;

/// Small ones, so that each change can be tried with many connections.
const MAX_RULES: usize = 11;

/// Documents that are looked through for small programs with new forms.
const DOCUMENTS: usize = 6_000;

/// What a program is made of, as far as the compiler has different forms.
fn forms(ruleset: &Ruleset) -> BTreeSet<String> {
    let sets = ruleset.sets.iter().map(|filled| {
        let set = &filled.set;
        let is_named = !set.is_anonymous();
        format!("set {:?} {:?} {} {is_named}", set.key_type, set.data_type, set.is_interval())
    });
    let exprs = ruleset.rules.iter().flat_map(|rule| &rule.exprs).map(|expr| match expr {
        Expr::Meta(meta) => format!("meta {}", meta.key),
        Expr::Ct(ct) => format!("ct {}", ct.key),
        Expr::Cmp(cmp) => format!("cmp {:?}", cmp.op),
        Expr::Payload(load) => format!("payload {} {} {}", load.base, load.offset, load.len),
        Expr::Numgen(numgen) => format!("numgen {}", numgen.kind),
        Expr::Lookup(lookup) => format!("lookup {:?} {:?}", lookup.dreg, lookup.flags),
        Expr::Masq(masq) => format!("masq {:?} {:?}", masq.flags, masq.proto_max),
        Expr::Nat(nat) => format!("nat {} {:?} {:?}", nat.family, nat.addr_min, nat.proto_max),
        Expr::Immediate(immediate) => match &immediate.data {
            Data::Verdict(Verdict::Goto(_)) => "goto".into(),
            Data::Verdict(verdict) => verdict.to_string(),
            Data::Value(bytes) => format!("immediate {} {}", immediate.dreg, bytes.len()),
        },
        other => other.name().into(),
    });
    exprs.chain(sets).collect()
}

/// A program, its policies and connections aimed at it.
struct Subject {
    ruleset: Ruleset,
    policies: Vec<Resolved>,
    connections: Connections,
}

impl Subject {
    /// Only programs of which every rule decides on some connection: a change in another rule is
    /// none.
    fn new((ruleset, policies): (Ruleset, Vec<Resolved>)) -> Option<Self> {
        let connections = Connections::of(&ruleset, &policies)?;
        Some(Self { ruleset, policies, connections })
    }
}

/// Programs with all forms among them: those that bring new ones, and some others.
fn subjects() -> Vec<Subject> {
    let mut runner = TestRunner::deterministic();
    let mut known = BTreeSet::new();
    let (mut subjects, mut others) = (Vec::new(), 0);
    let strategy = documents();
    for _ in 0..DOCUMENTS {
        let document = strategy.new_tree(&mut runner).expect("a document").current();
        let Some(program) = compiled(&document).filter(|(it, _)| it.rules.len() <= MAX_RULES)
        else {
            continue;
        };
        let forms = forms(&program.0);
        // Some policies hold no packet at all, and nothing stands behind the guards.
        let translates =
            forms.iter().any(|form| form.starts_with("masq") || form.starts_with("nat"));
        let has_enforce = program.0.chains.iter().any(|chain| chain.name == ENFORCE);
        if !translates || has_enforce && !forms.contains("drop") {
            continue;
        }
        let is_new = !forms.is_subset(&known);
        if !is_new && others == OTHERS {
            continue;
        }
        let Some(subject) = Subject::new(program) else { continue };
        known.extend(forms);
        others += usize::from(!is_new);
        subjects.push(subject);
    }
    let names: BTreeSet<_> = known.iter().filter_map(|form| form.split(' ').next()).collect();
    for needed in [
        "bitwise",
        "byteorder",
        "cmp",
        "counter",
        "ct",
        "drop",
        "fib",
        "goto",
        "hash",
        "immediate",
        "lookup",
        "masq",
        "meta",
        "nat",
        "numgen",
        "payload",
        "return",
    ] {
        assert!(names.contains(needed), "no program has {needed}");
    }
    assert!(subjects.len() >= PROGRAMS, "{}", subjects.len());
    subjects.truncate(PROGRAMS);
    subjects
}

/// What became of mutants.
#[derive(Default)]
struct Tally {
    killed: usize,
    excused: BTreeMap<Excuse, usize>,
    unexplained: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.killed += other.killed;
        for (excuse, count) in other.excused {
            *self.excused.entry(excuse).or_default() += count;
        }
        self.unexplained.extend(other.unexplained);
    }
}

fn tried(Subject { ruleset, policies, connections }: &Subject) -> Tally {
    let mut tally = Tally::default();
    for mutant in mutants::of(ruleset) {
        if connections.tell_apart(&mutant) {
            tally.killed += 1;
        } else if let Some(excuse) = excuses::excuse(ruleset, policies, &mutant) {
            *tally.excused.entry(excuse).or_default() += 1;
        } else if connections.tell_apart_at_last(&mutant) {
            tally.killed += 1;
        } else if let Some(excuse) = excuses::elsewhere(ruleset, connections, &mutant) {
            *tally.excused.entry(excuse).or_default() += 1;
        } else {
            tally.unexplained.push(format!("{}\n{}", mutant.what, ruleset.listing()));
        }
    }
    tally
}

#[test]
fn no_change_of_a_program_goes_unnoticed() {
    let programs = subjects();
    let mut tally = Tally::default();
    let (odd, even): (Vec<_>, Vec<_>) = programs.iter().enumerate().partition(|(i, _)| i % 2 == 1);
    thread::scope(|scope| {
        let halves = [odd, even].map(|half| {
            scope.spawn(move || {
                let mut tally = Tally::default();
                for (_, subject) in half {
                    tally.add(tried(subject));
                }
                tally
            })
        });
        for half in halves {
            tally.add(half.join().expect("a tally"));
        }
    });
    let excused: usize = tally.excused.values().sum();
    let all = tally.killed + excused + tally.unexplained.len();
    println!("{} programs, {all} mutants, {} killed", programs.len(), tally.killed);
    for (excuse, count) in &tally.excused {
        println!("{count:6} {excuse:?}");
    }
    let some: Vec<_> = tally.unexplained.iter().take(12).map(String::as_str).collect();
    assert!(some.is_empty(), "{} unexplained:\n{}", tally.unexplained.len(), some.join("\n"));
}
