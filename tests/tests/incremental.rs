//! Applying another document changes no more than what differs.

use ephport_core::strategies::documents;
use ephport_core::{Document, HostFacts};
use ephport_nft::plan::diff::changes;
use ephport_nft::{Applied, Client, Installed, TableState, compile};
use ephport_tests::random::samples;
use ephport_tests::tool::ok;
use ephport_tests::{Host, Protocol, Routed, SERVER_V4, Server, apply, ephport_ok, seen};

fn compiled(document: &Document) -> TableState {
    compile(&document.resolve(&HostFacts::default()).unwrap()).unwrap()
}

/// The table on `host`, which must be ours and intact.
fn installed(host: &Host) -> TableState {
    match host.run(|| Client::open()?.installed()).unwrap() {
        Installed::Ours { ruleset, intact: true, .. } => ruleset,
        Installed::Ours { ruleset, .. } => panic!("drifted: {}", ruleset.normalized().to_nft()),
        Installed::Absent | Installed::Foreign(_) => panic!("not there"),
    }
}

#[test]
fn every_document_follows_every_other() {
    let host = Host::new("host").unwrap();
    let mut incremental = 0;
    let mut last: Option<TableState> = None;
    for document in samples(&documents(), 150) {
        let desired = compiled(&document);
        let expected = last.as_ref().is_some_and(|last| last.normalized() == desired.normalized());
        let before = last.is_some().then(|| installed(&host));
        let is_incremental = before.is_some_and(|old| changes(&old, &desired).is_some());
        incremental += u32::from(is_incremental);
        let applied = apply(&host, &desired);
        assert_eq!(applied == Applied::Unchanged, expected);
        // A kernel may refuse an update; then the table is replaced.
        assert!(applied != Applied::Updated || is_incremental, "{applied:?}");
        let is_held = installed(&host).normalized() == desired.normalized();
        assert!(is_held, "{}", desired.to_nft());
        assert_eq!(apply(&host, &desired), Applied::Unchanged);
        last = Some(desired);
    }
    assert!(incremental > 100, "{incremental} of 149 without replacing the table");
}

/// The handles of all chains, sets and rules.
fn handles(ruleset: &TableState) -> Vec<u64> {
    let chains = ruleset.chains.iter().filter_map(|chain| chain.handle);
    let sets = ruleset.sets.iter().filter_map(|filled| filled.spec.handle);
    chains.chain(sets).chain(ruleset.rules.iter().filter_map(|rule| rule.handle)).collect()
}

#[test]
fn counters_of_untouched_rules_survive() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    ephport_ok(&net.router, "apply --to-ports 49152-61000 -p udp");
    let _ = seen(&net.client, Protocol::Udp, 40_000, (SERVER_V4, 443).into());
    let before = installed(&net.router);
    ephport_ok(&net.router, "apply --to-ports 49152-61000 -p tcp,udp");
    let after = installed(&net.router);
    let counted = |ruleset: &TableState| {
        ruleset.rules.iter().filter_map(|rule| rule.counter()).map(|c| c.packets).sum::<u64>()
    };
    assert_eq!((counted(&before), counted(&after)), (1, 1));
    // Every rule is still there, except the rule with the fingerprint.
    let (old, new) = (handles(&before), handles(&after));
    assert_eq!(old.iter().filter(|handle| !new.contains(handle)).count(), 1);
}

#[test]
fn only_manual_changes_are_restored() {
    let host = Host::new("host").unwrap();
    let line = "apply --to-ports 1024-2047,4096-5119 -o any";
    ephport_ok(&host, line);
    let before = installed(&host);
    let rules = ok(&host, "nft -a list chain inet ephport postrouting");
    let handle =
        rules.lines().find_map(|l| l.contains("udp").then(|| l.rsplit(' ').next())).flatten();
    ok(&host, &format!("nft delete rule inet ephport postrouting handle {}", handle.unwrap()));
    ok(&host, "nft add rule inet ephport postrouting counter accept");
    assert!(ephport_ok(&host, line).starts_with("updated"));
    let after = installed(&host);
    assert_eq!(after.normalized(), before.normalized());
    let lost = handles(&before).into_iter().filter(|handle| !handles(&after).contains(handle));
    assert_eq!(lost.count(), 1);
}
