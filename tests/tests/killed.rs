//! The binary killed at every system call of an apply: the kernel holds the old policy or the new.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::{env, fs, process, thread};

use ephport_nft::{Applied, Installed, Nftables, Ruleset};
use ephport_tests::tool::binary;
use ephport_tests::{Host, apply, compiled};

/// So many that reading and replacing them takes more than 300 system calls.
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

/// A file that vanishes with its value.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = env::temp_dir().join(format!("ephport-killed-{}-{name}", process::id()));
        fs::write(&path, text).expect("written");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Applies the file by the binary under strace, with these options. It has one thread.
fn traced(host: &Host, options: &[&str], log: &Path, policy: &Path) -> ExitStatus {
    let output = host.run(|| {
        Command::new("strace")
            .args(["-qq", "-o"])
            .arg(log)
            .args(options)
            .arg(binary())
            .arg("apply")
            .arg(policy)
            .output()
            .expect("strace; `tests/run` installs it")
    });
    output.status
}

/// A system call of the apply: its name, and the how many-th of this name it is.
type Point = (String, usize);

fn points(log: &str) -> Vec<Point> {
    let mut counts = HashMap::new();
    let names = log.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name);
    names
        .map(|name| {
            let count = counts.entry(name).or_insert(0);
            *count += 1;
            (name.into(), *count)
        })
        .collect()
}

/// What the kernel held after the kills.
#[derive(Debug, Default)]
struct Found {
    old: usize,
    new: usize,
}

/// Kills an apply of `new` over `old` on entering each of these calls, looks, and applies again.
fn kill_at(points: &[&Point], policy: &Path, old: &Ruleset, new: &Ruleset) -> Found {
    let host = Host::new("host").unwrap();
    let log = File::new(&format!("log-{:?}", thread::current().id()), "");
    let mut nft = host.run(Nftables::open).unwrap();
    let mut found = Found::default();
    for (call, count) in points {
        nft.apply(old).unwrap();
        let only = format!("trace={call}");
        let inject = format!("inject={call}:signal=SIGKILL:when={count}");
        let status = traced(&host, &["-e", &only, "-e", &inject], &log.0, policy);
        if status.signal() != Some(SIGKILL) {
            continue; // This time it needed fewer of them.
        }
        let Installed::Ours { ruleset, intact: true, .. } = nft.installed().unwrap() else {
            panic!("torn at {call} {count}");
        };
        let is_new = ruleset.essence() == new.essence();
        assert!(is_new || ruleset.essence() == old.essence(), "torn at {call} {count}");
        *(if is_new { &mut found.new } else { &mut found.old }) += 1;
        let again = if is_new { Applied::Unchanged } else { Applied::Updated };
        assert_eq!(nft.apply(new), Ok(again));
    }
    found
}

#[test]
fn killed_at_any_system_call_it_leaves_the_old_policy_or_the_new() {
    let (old, text) = (compiled(&document(2000)), document(10_000));
    let (new, policy) = (compiled(&text), File::new("policy.toml", &text));
    let (host, log) = (Host::new("host").unwrap(), File::new("log", ""));
    apply(&host, &old);
    assert!(traced(&host, &[], &log.0, &policy.0).success());
    let points = points(&fs::read_to_string(&log.0).expect("strace's log"));
    let found: Vec<_> = thread::scope(|scope| {
        let (points, policy, old, new) = (&points, &policy, &old, &new);
        let start = |first: usize| {
            let own: Vec<_> = points.iter().skip(first).step_by(THREADS).collect();
            scope.spawn(move || kill_at(&own, &policy.0, old, new))
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Each point is one system call of one run, killed on entering it: all of what lies between.
    let (old, new) = found.iter().fold((0, 0), |(o, n), f| (o + f.old, n + f.new));
    println!("{} calls; the old policy after {old} kills, the new after {new}", points.len());
    assert!(old + new >= 300 && old > 0 && new > 0, "{} calls: {found:?}", points.len());
}
