//! The binary is killed at every system call of an apply: the old policy or the new one is installed.

use std::os::unix::process::ExitStatusExt;
use std::thread;

use ephport_nft::{Applied, Client, Installed, TableState};
use ephport_tests::strace::{Point, inject, points, traced};
use ephport_tests::{Host, PolicyFile, apply, compiled};

/// Enough that reading and replacing them needs more than 300 system calls.
const POLICIES: u16 = 20;
const THREADS: usize = 4;
const SIGKILL: i32 = 9;

/// Policies of two ranges each, from `first` on.
fn document(first: u16) -> String {
    let policy = |i: u16| {
        let port = first + i * 100;
        format!(
            "[[policy]]\nname = \"p{i}\"\nout-interfaces = [\"eth{i}\"]\n\
             to-ports = \"{port}-{},{}-{}\"\n",
            port + 9,
            port + 20,
            port + 49
        )
    };
    (0..POLICIES).map(policy).collect()
}

/// The number of kills after which each policy was installed.
#[derive(Debug, Default)]
struct Found {
    old: usize,
    new: usize,
}

/// Kills an apply of `new` over `old` at the entry of each call, reads the table, and applies again.
fn kill_at(points: &[&Point], policy: &PolicyFile, old: &TableState, new: &TableState) -> Found {
    let host = Host::new("host").unwrap();
    let mut nft = host.run(Client::open).unwrap();
    let mut found = Found::default();
    for point @ (call, count) in points {
        nft.apply(old).unwrap();
        let [only, inject] = inject(point, "signal=SIGKILL");
        let killed = traced(&host, &[&only, &inject], &["apply", policy.path()]);
        if killed.output.status.signal() != Some(SIGKILL) {
            continue; // This run made fewer calls.
        }
        let Installed::Ours { ruleset, intact: true, .. } = nft.installed().unwrap() else {
            panic!("neither policy after {call} {count}");
        };
        let is_new = ruleset.normalized() == new.normalized();
        assert!(
            is_new || ruleset.normalized() == old.normalized(),
            "neither policy after {call} {count}"
        );
        *(if is_new { &mut found.new } else { &mut found.old }) += 1;
        let again = if is_new { Applied::Unchanged } else { Applied::Updated };
        assert_eq!(nft.apply(new), Ok(again));
    }
    found
}

#[test]
fn killed_apply_installs_old_or_new_policy() {
    let (old, text) = (compiled(&document(2000)), document(10_000));
    let (new, policy) = (compiled(&text), PolicyFile::new(&text));
    let host = Host::new("host").unwrap();
    apply(&host, &old);
    let whole = traced(&host, &[], &["apply", policy.path()]);
    assert!(whole.output.status.success(), "{whole:?}");
    let points = points(&whole.calls);
    let found: Vec<_> = thread::scope(|scope| {
        let (points, policy, old, new) = (&points, &policy, &old, &new);
        let start = |first: usize| {
            let own: Vec<_> = points.iter().skip(first).step_by(THREADS).collect();
            scope.spawn(move || kill_at(&own, policy, old, new))
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (old, new) = found.iter().fold((0, 0), |(o, n), f| (o + f.old, n + f.new));
    println!("{} calls; the old policy after {old} kills, the new after {new}", points.len());
    assert!(old + new >= 300 && old > 0 && new > 0, "{} calls: {found:?}", points.len());
}
