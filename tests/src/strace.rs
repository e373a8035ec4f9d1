//! The binary under strace, which records its system calls, makes them fail, or kills it.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Output};

use crate::Host;
use crate::tool::binary;

/// A run of the binary.
#[derive(Debug)]
pub struct Traced {
    /// Exit status and output.
    pub output: Output,
    /// Its system calls, one per line.
    pub calls: String,
}

/// Runs `ephport-nft` with these arguments on `host` under strace with these options.
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

/// A system call of a run: its name and its number among the calls of this name, from 1.
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

/// strace's options for a fault at one system call: `signal=SIGKILL`, `error=ENOBUFS`.
#[must_use]
pub fn inject((call, count): &Point, what: &str) -> [String; 2] {
    [format!("--trace={call}"), format!("--inject={call}:{what}:when={count}")]
}
