//! Drift is reported exactly where two tables differ, one sentence for each difference.

use ephport_core::strategies::documents;
use ephport_core::{Document, HostFacts};
use ephport_nft::nftables::expr::{Expr, Immediate, Verdict};
use ephport_nft::nftables::{Chain, Comment, Element, Rule};
use ephport_nft::plan::drift::{drift, evident};
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::{TableState, compile};
use expect_test::expect;
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

/// Change a table by hand: the kind of change and its places are random.
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
            let exprs = &mut pick(rules, at).filter(|rule| !rule.exprs.is_empty())?.exprs;
            let at = to.index(exprs.len());
            drop(exprs.remove(at));
        }
        4 => {
            let exprs = &mut pick(rules, at).filter(|rule| !rule.exprs.is_empty())?.exprs;
            let at = to.index(exprs.len());
            exprs.swap(0, at);
        }
        5 => pick(rules, at)?.userdata = Some(Comment::new("x y").to_userdata()),
        6 => {
            let verdict = Immediate::verdict(Verdict::Accept);
            pick(rules, at)?.exprs.push(verdict.into());
        }
        7 => pick(&mut ruleset.chains, at)?.policy = Some(0),
        8 => ruleset.chains.push(Chain::regular(FAMILY, TABLE, "x")),
        9 => {
            let elements = &mut pick(&mut ruleset.sets, at)?.elements;
            if !elements.is_empty() {
                let at = to.index(elements.len());
                elements.edit(|elements| drop(elements.remove(at)));
            }
        }
        10 => {
            let filled = pick(&mut ruleset.sets, at)?;
            let key = vec![1; usize::try_from(filled.spec.key_len?).ok()?];
            filled.elements.edit(|elements| elements.push(Element::new(key, None)));
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
    let is_same = installed.normalized() == desired.normalized()
        && installed.fingerprint() == desired.fingerprint();
    prop_assert_eq!(drifts.is_empty(), is_same, "{:?}\n{}", drifts, desired.to_nft());
    Ok(())
}

proptest! {
    #[test]
    fn only_different_tables_drift(
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
    fn every_change_by_hand_is_reported(
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

const MASQUERADE: &str = "to-ports = \"49152-61000\"\naddress = \"masquerade\"\n";
const UDP: &str = "protocols = [\"udp\"]\nout-interfaces = [\"eth0\"]\n";

/// The sentences for a table of this policy where the policy has been changed to `desired`.
fn changed(installed: &str, desired: &str) -> String {
    let desired = parsed(&format!("{UDP}{desired}"));
    sentences(&parsed(installed), &desired).join("\n") + "\n"
}

#[test]
fn policies_differ_in_attributes_of_policies() {
    let eth1 = "protocols = [\"udp\"]\nout-interfaces = [\"eth1\"]\n";
    let udplite = "protocols = [\"udplite\"]\nout-interfaces = [\"eth0\"]\n";
    let base = MASQUERADE;
    let cases = [
        format!("{eth1}{base}"),
        format!("{udplite}{base}"),
        format!("{UDP}to-ports = \"1024-2047\"\naddress = \"masquerade\"\n"),
        format!("{UDP}to-ports = \"1024\"\naddress = \"masquerade\"\n"),
        format!("{UDP}{base}random = true\npersistent = true\n"),
        format!("{UDP}to-ports = \"49152-61000\"\naddress = \"keep\"\n"),
        format!("{UDP}to-ports = \"49152-61000\"\norigin = \"local\"\n"),
        format!("{UDP}{base}source-ports = \"2000-2999\"\n"),
        format!("{UDP}{base}families = [\"ipv6\"]\n"),
        format!("{UDP}{base}origin = \"local\"\n"),
    ];
    let all: String = cases.iter().map(|installed| changed(installed, base)).collect();
    expect![[r#"
        policy p, rule 5 of postrouting: interface `oifname "eth1"`, expected `oifname "eth0"`
        policy p, rule 5 of postrouting: protocol `meta l4proto udplite`, expected `meta l4proto udp`
        policy p, rule 5 of postrouting: ports 1024-2047, expected 49152-61000
        policy p, rule 5 of postrouting: ports 1024, expected 49152-61000
        policy p, rule 5 of postrouting: port selection random,persistent, expected default
        policy p, rule 5 of postrouting: address keep, expected masquerade
        policy p, rule 5 of postrouting: translation none, expected `masquerade to :49152-61000`
        policy p, rule 5 of postrouting: origin `iif 0`, expected none
        policy p, rule 5 of postrouting: verdict `goto p/address`, expected none
        chain p/address belongs to no policy
        policy p, rule 5 of postrouting: source ports `th sport 2000-2999`, expected `th sport 1024-65535`
        policy p, rule 5 of postrouting: address family `meta nfproto ipv6`, expected none
        policy p, rule 5 of postrouting: origin `iif 0`, expected none
    "#]].assert_eq(&all);
    let others = format!("{UDP}{base}sources = [\"10.0.0.0/9\", \"192.0.2.0/24\"]\n");
    let sources = format!("{base}sources = [\"10.0.0.0/8\"]\n");
    expect![[r#"
        policy p, rule 5 of postrouting: sources `ip saddr 10.0.0.0/9`, expected `ip saddr 10.0.0.0/8`
        policy p, rule 6 of postrouting belongs to no policy: oifname "eth0" meta nfproto ipv4 ip saddr 192.0.2.0/24 meta l4proto udp th sport 1024-65535 counter packets 0 bytes 0 masquerade to :49152-61000
    "#]].assert_eq(&changed(&others, &sources));
}

#[test]
fn evident_drift_needs_no_policy() {
    let desired = parsed(&format!("{UDP}{MASQUERADE}enforce = true\n"));
    let mut installed = desired.clone();
    installed.table.flags = Some(1);
    installed.chains[1].hook.as_mut().unwrap().priority = -300;
    let masq = installed.rules.iter_mut().filter_map(|rule| rule.exprs.last_mut());
    let masq = masq.filter_map(|expr| if let Expr::Masq(masq) = expr { Some(masq) } else { None });
    masq.for_each(|masq| masq.flags = None);
    let reported: Vec<_> = evident(&installed).iter().map(ToString::to_string).collect();
    expect![[r#"
        the table: flags dormant (the kernel runs none of its rules), expected none
        policy p, rule 5 of postrouting: port range flag cleared (the kernel ignores ports 49152-61000, although nft prints them), expected set
        chain enforce: priority -300, expected 300
    "#]].assert_eq(&(reported.join("\n") + "\n"));
    assert_eq!(sentences(&installed, &desired), reported);
}

#[test]
fn other_rule_is_not_a_changed_rule() {
    let desired = parsed(&format!("{UDP}{MASQUERADE}"));
    let mut installed = desired.clone();
    let exprs = vec![Immediate::verdict(Verdict::Accept).into()];
    *installed.rules.last_mut().unwrap() = Rule::new(FAMILY, TABLE, "postrouting", exprs);
    expect![[r#"
        policy p, rule 5 of postrouting is missing: oifname "eth0" meta l4proto udp th sport 1024-65535 counter packets 0 bytes 0 masquerade to :49152-61000
        rule 5 of postrouting belongs to no policy: accept
    "#]].assert_eq(&(sentences(&installed, &desired).join("\n") + "\n"));
}

#[test]
fn fingerprint_is_reported_only_without_other_drift() {
    let desired = parsed(&format!("{UDP}{MASQUERADE}"));
    let mut installed = desired.clone();
    installed.rules[0].userdata = None;
    let reported = sentences(&installed, &desired);
    let [sentence] = &reported[..] else { panic!("{reported:?}") };
    let (before, _) = sentence.rsplit_once(' ').unwrap();
    assert_eq!(before, "the table: fingerprint none, expected ephport-nft 0.1.0");
    installed.chains.pop();
    assert_eq!(sentences(&installed, &desired).len(), 1);
}
