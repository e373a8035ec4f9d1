//! The body of each fuzz target runs on each input of its corpus.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ephport_core::fuzz::TARGETS as TEXTS;
use ephport_nft::fuzz::TARGETS as BYTES;

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The entries of a directory of `fuzz`, without extensions.
fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(directory)).expect("a directory");
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.expect("an entry").path())).collect()
}

/// The corpus of a target, which must not be empty.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(fuzz().join("corpus").join(target)).expect("a directory");
    let inputs = entries.map(|entry| fs::read(entry.expect("an entry").path()).expect("a file"));
    let inputs: Vec<_> = inputs.collect();
    assert!(!inputs.is_empty(), "{target}");
    inputs
}

#[test]
fn every_body_has_a_target_and_a_corpus() {
    let bodies = TEXTS.map(|(name, _)| name).into_iter().chain(BYTES.map(|(name, _)| name));
    let bodies: BTreeSet<_> = bodies.map(String::from).collect();
    assert_eq!(names("fuzz_targets"), bodies);
    assert_eq!(names("corpus"), bodies);
}

#[test]
fn every_input_satisfies_its_property() {
    for (target, body) in TEXTS {
        for input in inputs(target) {
            str::from_utf8(&input).into_iter().for_each(body);
        }
    }
    for (target, body) in BYTES {
        for input in inputs(target) {
            body(&input);
        }
    }
}
