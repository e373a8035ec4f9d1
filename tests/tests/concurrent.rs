//! Concurrent appliers: each succeeds, and the installed table is always exactly one of their policies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ephport_nft::{Client, Error, Installed, TableState};
use ephport_tests::tool::ok;
use ephport_tests::{Host, apply, compiled, installed};

const APPLIERS: u16 = 32;

/// Documents of several ranges, so that each has rules, chains and sets that differ.
fn documents() -> Vec<TableState> {
    let document = |i: u16| {
        let first = 1024 + i * 1000;
        compiled(&format!(
            "[[policy]]\nname = \"p{i}\"\nout-interfaces = \"any\"\n\
             to-ports = \"{first}-{},{}-{}\"\n",
            first + 99,
            first + 200,
            first + 399,
        ))
    };
    (0..APPLIERS).map(document).collect()
}

/// Applies one document repeatedly; returns the number of successes.
fn keep_applying(document: &TableState, is_over: &AtomicBool) -> Result<u32, Error> {
    let mut nft = Client::open()?;
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        nft.apply(document)?;
        times += 1;
    }
    Ok(times)
}

fn is_one_of(found: &Installed, documents: &[TableState]) -> bool {
    let Installed::Ours { ruleset, intact: true, .. } = found else { return false };
    documents.iter().any(|document| document.normalized() == ruleset.normalized())
}

fn describe(found: &Installed) -> String {
    match found {
        Installed::Ours { ruleset, intact, .. } => {
            format!("intact: {intact}\n{}", ruleset.to_nft())
        }
        other => format!("{other:?}"),
    }
}

/// Reads the table repeatedly; returns the number of reads, or the first table that is not one of the documents.
fn keep_reading(documents: &[TableState], is_over: &AtomicBool) -> Result<u32, String> {
    let mut nft = Client::open().map_err(|error| error.to_string())?;
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        let found = nft.installed().map_err(|error| error.to_string())?;
        if !is_one_of(&found, documents) {
            return Err(format!("after {times}: {}", describe(&found)));
        }
        times += 1;
    }
    Ok(times)
}

#[test]
fn concurrent_appliers_never_mix_their_policies() {
    let (host, documents, is_over) =
        (Host::new("host").unwrap(), documents(), AtomicBool::new(false));
    let duration = Duration::from_secs(30);
    apply(&host, &documents[0]);
    let (applied, read) = thread::scope(|scope| {
        let (host, is_over) = (&host, &is_over);
        let start = |document| scope.spawn(move || host.run(|| keep_applying(document, is_over)));
        let appliers: Vec<_> = documents.iter().map(start).collect();
        let reader = scope.spawn(|| host.run(|| keep_reading(&documents, is_over)));
        let end = Instant::now() + duration;
        while Instant::now() < end {
            thread::park_timeout(end.saturating_duration_since(Instant::now()));
        }
        is_over.store(true, Ordering::Relaxed);
        let applied: Vec<_> = appliers.into_iter().map(|thread| thread.join().unwrap()).collect();
        (applied, reader.join().unwrap())
    });
    for times in &applied {
        assert!(matches!(times, Ok(1..)), "{applied:?}");
    }
    assert!(matches!(read, Ok(1..)), "{}", read.unwrap_err());
    // The rules are equal in order and number, and there is no other table.
    assert!(is_one_of(&installed(&host), &documents));
    assert_eq!(ok(&host, "nft list tables"), "table inet ephport\n");
    println!("applied {applied:?}, read {read:?}");
}
