//! Differences are told exactly where there are some, and each kind has its sentence.

use ephport_core::strategies::documents;
use ephport_core::{Document, HostFacts};
use ephport_nft::nftables::expr::{Expr, Immediate, Verdict};
use ephport_nft::nftables::{Chain, Comment, Element, Rule};
use ephport_nft::plan::drift::{Aspect, Change, Drift, Place, drift, evident};
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::table::{Checksum, Fingerprint};
use ephport_nft::{TableState, compile};
use proptest::prelude::*;
use proptest::sample::Index;

fn compiled(document: &Document) -> Option<TableState> {
    let policies = document.resolve(&HostFacts::default()).ok()?;
    Some(compile(&policies).expect("a program"))
}

fn parsed(policy: &str) -> TableState {
    let text = format!("[[policy]]\nname = \"p\"\n{policy}");
    compiled(&text.parse().expect("a document")).expect("resolved")
}

/// What somebody may do to a table, at a place and of a kind that are drawn.
fn tamper(ruleset: &mut TableState, kind: u8, at: Index, to: Index) -> Option<()> {
    fn pick<T>(of: &mut [T], at: Index) -> Option<&mut T> {
        if of.is_empty() { None } else { Some(at.get_mut(of)) }
    }
    let rules = &mut ruleset.rules;
    match kind {
        0 => drop(rules.remove(at.index(rules.len()))),
        1 => rules.insert(to.index(rules.len()), at.get(rules).clone()),
        2 => {
            let rule = rules.remove(at.index(rules.len()));
            rules.insert(to.index(rules.len() + 1), rule);
        }
        3 => {
            let exprs = &mut pick(rules, at)?.exprs;
            drop(exprs.remove(to.index(exprs.len())));
        }
        4 => {
            let exprs = &mut pick(rules, at)?.exprs;
            let at = to.index(exprs.len());
            exprs.swap(0, at);
        }
        5 => pick(rules, at)?.userdata = Some(Comment::new("x").to_userdata()),
        6 => {
            let verdict = Immediate::verdict(Verdict::Accept);
            pick(rules, at)?.exprs.push(verdict.into());
        }
        7 => pick(&mut ruleset.chains, at)?.policy = Some(0),
        8 => ruleset.chains.push(Chain::regular(FAMILY, TABLE, "x")),
        9 => {
            let elements = &mut pick(&mut ruleset.sets, at)?.elements;
            drop(elements.remove(to.index(elements.len())));
        }
        10 => {
            let filled = pick(&mut ruleset.sets, at)?;
            let key = vec![1; usize::try_from(filled.spec.key_len?).ok()?];
            filled.elements.push(Element::new(key, None));
        }
        11 => {
            let spec = &mut pick(&mut ruleset.sets, at)?.spec;
            *spec = spec.clone().with_size(Some(9999));
        }
        12 => ruleset.table.flags = Some(1),
        _ => pick(&mut ruleset.chains, at)?.hook.as_mut()?.priority += 1,
    }
    Some(())
}

fn check(installed: &TableState, desired: &TableState) -> Result<(), TestCaseError> {
    let drifts = drift(installed, desired);
    let is_same = installed.normalized() == desired.normalized();
    prop_assert_eq!(drifts.is_empty(), is_same, "{:?}\n{}", drifts, desired.to_nft());
    Ok(())
}

proptest! {
    #[test]
    fn nothing_drifts_from_itself_and_each_other_document_does(
        first in documents(), second in documents()
    ) {
        let (Some(first), Some(second)) = (compiled(&first), compiled(&second)) else {
            return Ok(());
        };
        prop_assert_eq!(drift(&first, &first), []);
        prop_assert_eq!(evident(&first), []);
        check(&first, &second)?;
    }

    #[test]
    fn whatever_somebody_does_is_told(
        document in documents(),
        deeds in prop::collection::vec((0..14u8, any::<Index>(), any::<Index>()), 1..4),
    ) {
        let Some(desired) = compiled(&document) else { return Ok(()) };
        let mut installed = desired.clone();
        for (kind, at, to) in deeds {
            if !installed.rules.is_empty() {
                tamper(&mut installed, kind, at, to);
            }
        }
        check(&installed, &desired)?;
        check(&desired, &installed)?;
    }
}

fn sentences(installed: &TableState, desired: &TableState) -> Vec<String> {
    drift(installed, desired).iter().map(ToString::to_string).collect()
}

const UDP: &str = "protocols = [\"udp\"]\nout-interfaces = [\"eth0\"]\n";

#[test]
fn two_policies_differ_in_the_policys_own_terms() {
    let base = "to-ports = \"49152-61000\"\n";
    let desired = parsed(&format!("{UDP}{base}"));
    let cases = [
        (
            "protocols = [\"udp\"]\nout-interfaces = [\"eth1\"]\n",
            base,
            "interface `oifname \"eth1\"`, expected `oifname \"eth0\"`",
        ),
        (
            "protocols = [\"udplite\"]\nout-interfaces = [\"eth0\"]\n",
            base,
            "protocol `meta l4proto udplite`, expected `meta l4proto udp`",
        ),
        (UDP, "to-ports = \"1024-2047\"\n", "moves to ports 1024-2047, expected 49152-61000"),
        (UDP, "to-ports = \"1024\"\n", "moves to ports 1024, expected 49152-61000"),
        (
            UDP,
            "to-ports = \"49152-61000\"\nrandom = true\npersistent = true\n",
            "picks ports random,persistent, expected by default",
        ),
        (
            UDP,
            "to-ports = \"49152-61000\"\naddress = \"keep\"\n",
            "makes the source address itself, expected the interface's",
        ),
        (
            UDP,
            "to-ports = \"49152-61000\"\nsource-ports = \"2000-2999\"\n",
            "source ports `th sport 2000-2999`, expected `th sport 1024-65535`",
        ),
        (
            UDP,
            "to-ports = \"49152-61000\"\nfamilies = [\"ipv6\"]\n",
            "address family `meta nfproto ipv6`, expected none",
        ),
        (UDP, "to-ports = \"49152-61000\"\norigin = \"local\"\n", "origin `iif 0`, expected none"),
    ];
    for (scope, target, sentence) in cases {
        let expected = format!("policy p, rule 3 of postrouting: {sentence}");
        assert_eq!(sentences(&parsed(&format!("{scope}{target}")), &desired), [expected]);
    }
    let sources = parsed(&format!("{UDP}{base}sources = [\"10.0.0.0/8\"]\n"));
    let others = parsed(&format!("{UDP}{base}sources = [\"10.0.0.0/9\", \"192.0.2.0/24\"]\n"));
    assert_eq!(
        sentences(&others, &sources),
        ["policy p, rule 3 of postrouting: sources `ip saddr { 10.0.0.0/9, \
          192.0.2.0/24 }`, expected `ip saddr 10.0.0.0/8`"]
    );
}

#[test]
fn what_no_policy_makes_is_evident() {
    let desired = parsed(&format!("{UDP}to-ports = \"49152-61000\"\nenforce = true\n"));
    let mut installed = desired.clone();
    installed.table.flags = Some(1);
    installed.chains[1].hook.as_mut().unwrap().priority = -300;
    let Some(Expr::Masq(masq)) = installed.rules[2].exprs.last_mut() else { panic!("no masq") };
    masq.flags = None;
    let expected = [
        "the table: is dormant: the kernel runs none of its rules",
        "policy p, rule 3 of postrouting: lost its port range flag: the kernel ignores its ports \
         49152-61000, though nft lists them",
        "chain enforce: has priority -300, expected 110",
    ];
    let told: Vec<_> = evident(&installed).iter().map(ToString::to_string).collect();
    assert_eq!(told, expected);
    assert_eq!(sentences(&installed, &desired), expected);
}

#[test]
fn a_rule_that_is_another_is_not_taken_for_a_changed_one() {
    let desired = parsed(&format!("{UDP}to-ports = \"49152-61000\"\n"));
    let mut installed = desired.clone();
    let exprs = vec![Immediate::verdict(Verdict::Accept).into()];
    installed.rules[2] = Rule::new(FAMILY, TABLE, "postrouting", exprs);
    assert_eq!(
        sentences(&installed, &desired),
        [
            "policy p, rule 3 of postrouting: is missing: oifname \"eth0\" meta l4proto udp \
             th sport 1024-65535 counter packets 0 bytes 0 masquerade to :49152-61000",
            "rule 3 of postrouting: is not the policy's: accept",
        ]
    );
}

#[test]
fn another_signature_alone_is_told() {
    let desired = parsed(&format!("{UDP}to-ports = \"49152-61000\"\n"));
    let mut installed = desired.clone();
    installed.rules[0].userdata = None;
    assert_eq!(sentences(&installed, &desired), ["rule 1 of postrouting: lost the fingerprint"]);
}

#[test]
fn every_change_has_its_sentence() {
    let rule = || "counter".to_string();
    let (found, expected) = (rule, || "accept".to_string());
    let fingerprint =
        |checksum| Fingerprint { version: "0.1.0".into(), checksum: Checksum(checksum) };
    let statement = |aspect, found: &str, expected: &str| Change::StatementChanged {
        aspect,
        found: found.into(),
        expected: expected.into(),
    };
    let elements = |count: u32| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
    let cases = [
        (Change::Removed, "removed", "is missing"),
        (Change::Added, "added", "is not the policy's"),
        (Change::Dormant, "dormant", "is dormant: the kernel runs none of its rules"),
        (
            Change::TableFlags { found: 2, expected: 0 },
            "table-flags",
            "has the flags 0x2, expected 0x0",
        ),
        (
            Change::ChainPriority { found: 100, expected: 90 },
            "chain-priority",
            "has priority 100, expected 90",
        ),
        (
            Change::ChainChanged { found: found(), expected: expected() },
            "chain-changed",
            "is `counter`, expected `accept`",
        ),
        (Change::Emptied { rules: 4 }, "emptied", "lost all of its 4 rules"),
        (Change::RuleRemoved { rule: rule() }, "rule-removed", "is missing: counter"),
        (Change::RuleAdded { rule: rule() }, "rule-added", "is not the policy's: counter"),
        (Change::Moved { expected: 3 }, "moved", "is out of order, expected as rule 3"),
        (
            Change::LostPortFlag { ports: "1-2".into() },
            "lost-port-flag",
            "lost its port range flag: the kernel ignores its ports 1-2, though nft lists them",
        ),
        (
            Change::PortsChanged { found: "1-2".into(), expected: "3".into() },
            "ports-changed",
            "moves to ports 1-2, expected 3",
        ),
        (
            Change::ChoiceChanged { found: String::new(), expected: "random".into() },
            "choice-changed",
            "picks ports by default, expected random",
        ),
        (
            Change::AddressChanged { found: "192.0.2.1".into(), expected: "itself".into() },
            "address-changed",
            "makes the source address 192.0.2.1, expected itself",
        ),
        (
            statement(Aspect::Verdict, "drop", "accept"),
            "statement-changed",
            "verdict `drop`, expected `accept`",
        ),
        (
            statement(Aspect::Counter, "", "counter"),
            "statement-changed",
            "counter none, expected `counter`",
        ),
        (
            statement(Aspect::Connection, "ct state new", ""),
            "statement-changed",
            "connection `ct state new`, expected none",
        ),
        (
            Change::ProgramChanged { found: found(), expected: expected() },
            "program-changed",
            "is `counter`, expected `accept`",
        ),
        (
            Change::CommentChanged { found: None, expected: Some("p".into()) },
            "comment-changed",
            "has no comment, expected the comment \"p\"",
        ),
        (
            Change::FingerprintChanged { found: Some(fingerprint(1)), expected: fingerprint(2) },
            "fingerprint-changed",
            "has the fingerprint `ephport-nft 0.1.0 0000000000000001`, \
             expected `ephport-nft 0.1.0 0000000000000002`",
        ),
        (
            Change::FingerprintChanged { found: None, expected: fingerprint(2) },
            "fingerprint-changed",
            "lost the fingerprint",
        ),
        (
            Change::SetElements { missing: elements(5), extra: elements(1) },
            "set-elements",
            "lacks 0, 1, 2 and 2 more and should not have 0",
        ),
        (Change::SetChanged, "set-changed", "has other keys, values, flags or another size"),
        (Change::Unnamed, "unnamed", "differs in what ephport has no name for"),
    ];
    for (change, name, sentence) in cases {
        assert_eq!((change.name(), change.to_string().as_str()), (name, sentence));
    }
}

#[test]
fn a_sentence_begins_with_its_place() {
    let at = |place| Drift { place, change: Change::Removed }.to_string();
    assert_eq!(at(Place::Table), "the table: is missing");
    assert_eq!(at(Place::Chain { chain: "enforce".into() }), "chain enforce: is missing");
    assert_eq!(at(Place::Set { set: "p/blocks4".into() }), "set p/blocks4: is missing");
}
