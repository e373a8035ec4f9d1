//! Properties of an import for generated rules: earlier rules that win are named with the policies that they shadow,
//! and the family is right or reported as assumed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::*;
use crate::net::family::Families;
use crate::policy::PolicyName;

/// One value of each option of a rule, with the values of packets that match it, by index.
type Choice = (&'static str, &'static [usize]);

/// tcp, udp and sctp.
const PROTOCOLS: [Choice; 4] =
    [("-p tcp", &[0]), ("-p udp", &[1]), ("-p sctp", &[2]), ("-p tcp", &[0])];
/// eth0, eth1 and wg0.
const INTERFACES: [Choice; 5] = [
    ("", &[0, 1, 2]),
    ("-o eth0", &[0]),
    ("-o eth+", &[0, 1]),
    ("-o wg0", &[2]),
    ("! -o eth0", &[1, 2]),
];
/// 10.0.0.1, 10.1.0.1 and 192.0.2.1.
const SOURCES: [Choice; 5] = [
    ("", &[0, 1, 2]),
    ("-s 10.0.0.0/8", &[0, 1]),
    ("-s 10.1.0.0/16", &[1]),
    ("-s 192.0.2.1", &[2]),
    ("-s 10.0.0.0/16", &[0]),
];
/// 198.51.100.1 and 203.0.113.1.
const DESTINATIONS: [Choice; 4] = [
    ("", &[0, 1]),
    ("-d 198.51.100.0/24", &[0]),
    ("! -d 198.51.100.0/24", &[1]),
    ("-d 203.0.113.1", &[1]),
];
/// Source ports 100, 2000 and 50000.
const PORTS: [Choice; 4] = [
    ("", &[0, 1, 2]),
    ("--sport 100", &[0]),
    ("--sport 1000:65535", &[1, 2]),
    ("--sport 50000", &[2]),
];

/// What a rule does with its packets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// It becomes a policy.
    Policy,
    /// It is skipped, and no rule after it gets the packets.
    Wins,
    /// The rules after it get the packets.
    Passes,
}

const TARGETS: [(&str, Does); 9] = [
    ("-j MASQUERADE --to-ports 3000-3999", Does::Policy),
    ("-j MASQUERADE --to-ports 3000-3999 --random", Does::Policy),
    ("-j SNAT --to-source 192.0.2.9:3000-3999", Does::Policy),
    ("-j MASQUERADE", Does::Wins),
    ("-j SNAT --to-source 192.0.2.9", Does::Wins),
    ("-j ACCEPT", Does::Wins),
    ("-m addrtype --src-type LOCAL -j MASQUERADE --to-ports 4000-4999", Does::Wins),
    ("-j LOG", Does::Passes),
    ("-j MARK --set-mark 1", Does::Passes),
];

#[derive(Clone, Debug)]
struct Rule {
    options: [Choice; 5],
    target: (&'static str, Does),
}

impl Rule {
    fn text(&self, number: usize) -> String {
        let options: Vec<_> = self.options.iter().map(|(text, _)| *text).collect();
        format!("{} -m comment --comment p{number} {}", options.join(" "), self.target.0)
    }

    /// Whether a packet matches both rules.
    fn meets(&self, other: &Self) -> bool {
        let pairs = self.options.iter().zip(&other.options);
        pairs.into_iter().all(|((_, a), (_, b))| a.iter().any(|value| b.contains(value)))
    }

    /// Whether the rule has no exception: those are not compared.
    fn is_plain(&self) -> bool {
        self.options.iter().all(|(text, _)| !text.contains('!'))
    }
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let options = (
        select(&PROTOCOLS[..]),
        select(&INTERFACES[..]),
        select(&SOURCES[..]),
        select(&DESTINATIONS[..]),
        select(&PORTS[..]),
    );
    let rule = (options, select(&TARGETS[..]))
        .prop_map(|((a, b, c, d, e), target)| Rule { options: [a, b, c, d, e], target });
    prop::collection::vec(rule, 1..7)
}

/// The rules as a dump, or as commands that insert the last one first.
fn written(rules: &[Rule], are_inserted: bool) -> String {
    let rules = rules.iter().enumerate().map(|(number, rule)| rule.text(number));
    if are_inserted {
        let lines: Vec<_> =
            rules.map(|rule| format!("iptables -t nat -I POSTROUTING {rule}")).collect();
        return lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    }
    let lines: Vec<_> = rules.map(|rule| format!("-A POSTROUTING {rule}")).collect();
    format!("*nat\n{}\nCOMMIT\n", lines.join("\n"))
}

/// The number of the rule of a policy.
fn number_of(name: &PolicyName) -> Option<usize> {
    name.as_str().strip_prefix('p')?.parse().ok()
}

proptest! {
    /// Each rule that wins names the policies after it that get none of some packets, and no others.
    #[test]
    fn earlier_rules_that_win_name_what_they_shadow(rules in rules(), are_inserted: bool) {
        let text = written(&rules, are_inserted);
        let imported = Imported::parse(&text, Some(Family::Ipv4));
        for (at, rule) in rules.iter().enumerate() {
            let is_own = |skipped: &&Skipped| skipped.rule.contains(&format!("--comment p{at} "));
            let skipped: Vec<_> = imported.skipped.iter().filter(is_own).collect();
            match rule.target.1 {
                Does::Policy => prop_assert!(skipped.is_empty(), "{skipped:?}"),
                Does::Passes => {
                    prop_assert!(skipped.iter().all(|line| line.shadows.policies.is_empty()), "{skipped:?}");
                }
                Does::Wins => {
                    let [skipped] = skipped.as_slice() else { panic!("{at}: {skipped:?}\n{text}") };
                    let named: BTreeSet<_> =
                        skipped.shadows.policies.iter().filter_map(number_of).collect();
                    let after = rules.iter().enumerate().skip(at + 1);
                    for (number, policy) in after.filter(|(_, rule)| rule.target.1 == Does::Policy) {
                        let is_exact = rule.is_plain() && policy.is_plain();
                        let (is_named, is_shadowed) = (named.contains(&number), rule.meets(policy));
                        prop_assert!(is_named || !is_shadowed, "{at} over {number}: {skipped}\n{text}");
                        prop_assert!(!is_named || is_shadowed || !is_exact, "{at} over {number}: {skipped}\n{text}");
                    }
                    prop_assert!(named.iter().all(|number| *number > at), "{skipped}\n{text}");
                }
            }
        }
    }
}

/// Headers of dumps, with the family that they name.
const HEADERS: [(&str, Option<Family>); 9] = [
    ("# Generated by iptables-save v1.8.9 on Mon", Some(Family::Ipv4)),
    ("# Generated by iptables-nft-save v1.8.9 on Mon", Some(Family::Ipv4)),
    ("# Generated by ip6tables-save v1.8.9 on Mon", Some(Family::Ipv6)),
    ("# Generated by ip6tables-legacy-save v1.8.9 on Mon", Some(Family::Ipv6)),
    ("\u{feff}# Generated by ip6tables-nft-save v1.8.9 on Mon", Some(Family::Ipv6)),
    ("# Generated by xtables-save v1.8.2 on Mon", None),
    ("# Generated by hand", None),
    ("", None),
    ("", None),
];

/// Conditions of rules, with the family that they name.
const EVIDENCE: [(&str, Option<Family>); 7] = [
    ("", None),
    ("-o eth0", None),
    ("-s 10.0.0.0/8", Some(Family::Ipv4)),
    ("-d 192.0.2.1/32", Some(Family::Ipv4)),
    ("-s fd00::/8", Some(Family::Ipv6)),
    ("-d 2001:db8::1/128", Some(Family::Ipv6)),
    ("-s ::/0", Some(Family::Ipv6)),
];

#[derive(Clone, Debug)]
struct Section {
    header: (&'static str, Option<Family>),
    rules: Vec<(&'static str, Option<Family>)>,
}

impl Section {
    fn family(&self) -> Option<Family> {
        let evidence: BTreeSet<_> = self.rules.iter().filter_map(|(_, family)| *family).collect();
        let only = if evidence.len() == 1 { evidence.first().copied() } else { None };
        self.header.1.or(only)
    }
}

fn sections() -> impl Strategy<Value = Vec<Section>> {
    let rules = prop::collection::vec(select(&EVIDENCE[..]), 1..5);
    let section =
        (select(&HEADERS[..]), rules).prop_map(|(header, rules)| Section { header, rules });
    prop::collection::vec(section, 1..4)
}

proptest! {
    /// The family of each policy is named: by the header of its dump, the addresses of the dump or of its rule, or the
    /// flag; else it is IPv4, and a note reports that. A rule with addresses of the other family is no policy.
    #[test]
    fn families_are_named_or_said_to_be_assumed(
        sections in sections(),
        flag in select(vec![None, None, Some(Family::Ipv4), Some(Family::Ipv6)]),
    ) {
        let (mut text, mut number) = (String::new(), 0);
        let mut expected = Vec::new();
        for section in &sections {
            writeln!(text, "{}\n*nat", section.header.0).unwrap();
            for (condition, own) in &section.rules {
                let family = section.family().or(*own).or(flag);
                let line = text.lines().count() + 1;
                writeln!(
                    text,
                    "-A POSTROUTING -p tcp {condition} -m comment --comment r{number} -j MASQUERADE --to-ports 9"
                ).unwrap();
                expected.push((line, format!("r{number}"), family, *own));
                number += 1;
            }
            text += "COMMIT\n";
        }
        let imported = Imported::parse(&text, flag);
        let assumed = |line: usize| imported.notes.iter().any(|note| {
            matches!(note, Note::AssumedFamily { first, last } if (*first..=*last).contains(&line))
        });
        for (line, name, family, own) in expected {
            let policy = imported.policies.iter().find(|policy| policy.name().as_str() == name);
            let used = family.unwrap_or(Family::Ipv4);
            prop_assert!(family.is_some() || assumed(line), "line {line}: no note\n{text}");
            if let Some(policy) = policy {
                let families = policy.spec().scope.families;
                prop_assert_eq!(families, Families::from(used), "line {}\n{}", line, text);
                prop_assert!(own.is_none_or(|own| own == used), "line {line}\n{text}");
            } else {
                prop_assert!(own.is_some_and(|own| own != used), "line {line} is no policy\n{text}");
                prop_assert!(imported.skipped.iter().any(|skipped| skipped.line == line), "{text}");
            }
        }
        let is_assumed = imported.notes.iter().any(|note| matches!(note, Note::AssumedFamily { .. }));
        prop_assert!(!is_assumed || flag.is_none() && sections.iter().any(|section| section.family().is_none()));
    }
}
