//! The binary under strace, which lists its system calls, and makes them fail or kill it.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Output};

use crate::Host;
use crate::tool::binary;

/// A run of the binary.
#[derive(Debug)]
pub struct Traced {
    /// How it ended, and what it printed.
    pub output: Output,
    /// Its system calls, a line each.
    pub calls: String,
}

/// Runs `ephport-nft` with these words on `host` under strace with these options.
///
/// # Panics
/// When strace is not installed.
#[must_use]
pub fn traced(host: &Host, options: &[&str], words: &[&str]) -> Traced {
    let log = crate::TempDir::new();
    let log = log.path().join("calls");
    let output = host.run(|| {
        Command::new("strace")
            .args(["-qq", "-o"])
            .arg(&log)
            .args(options)
            .arg(binary())
            .args(words)
            .output()
            .expect("strace; `tests/run` installs it")
    });
    Traced { output, calls: fs::read_to_string(&log).expect("strace's log") }
}

/// A system call of a run: its name, and the how many-th of this name it is.
pub type Point = (String, usize);

/// The system calls of a run, in order.
#[must_use]
pub fn points(calls: &str) -> Vec<Point> {
    let mut counts = HashMap::new();
    let names = calls.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name);
    names
        .map(|name| {
            let count = counts.entry(name).or_insert(0);
            *count += 1;
            (name.into(), *count)
        })
        .collect()
}

/// strace's options for what happens at one system call: `signal=SIGKILL`, `error=ENOBUFS`.
#[must_use]
pub fn inject((call, count): &Point, what: &str) -> [String; 2] {
    [format!("--trace={call}"), format!("--inject={call}:{what}:when={count}")]
}
