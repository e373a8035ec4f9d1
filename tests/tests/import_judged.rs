//! The import of iptables, judged by both iptables: what they accept and refuse, and the chain
//! after a list of commands.

use ephport_core::import::iptables::{Note, SkipReason};
use ephport_core::strategies::import::{iptables_commands, iptables_rules};
use ephport_core::{Family, Imported};
use ephport_tests::random::samples;
use ephport_tests::tool::tool;
use ephport_tests::{Host, is_long};
use proptest::strategy::Strategy as _;

/// How many rules, and how many lists of commands; five times as many in a long run.
const RULES: usize = 2000;
const SCRIPTS: usize = 60;

/// The two programs, which share their parser but not the interface to the kernel.
const PROGRAMS: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// Words as a shell reads them back.
fn quoted(words: &[String]) -> String {
    let words = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    words.collect::<Vec<_>>().join(" ")
}

/// What a shell script printed in an empty network namespace; the input and the output are short
/// enough for pipes.
fn printed(script: &str, input: &str) -> String {
    let host = Host::new("host").unwrap();
    tool(&host, "sh", &["-c", script], input).out
}

/// Whether a program accepts each rule, as the only one of its chain: after a rule that ends the
/// chain, iptables-legacy also accepts what POSTROUTING cannot have.
fn verdicts(program: &str, rules: &[Vec<String>]) -> Vec<bool> {
    let script = format!(
        "while IFS= read -r rule; do
           if eval \"{program} -w -t nat -A POSTROUTING $rule\" >/dev/null 2>&1; then
             echo accepted; {program} -w -t nat -F POSTROUTING
           else
             echo refused
           fi
         done"
    );
    let line = |rule: &Vec<String>| quoted(rule) + "\n";
    let verdicts = rules.chunks(1000).flat_map(|rules| {
        let printed = printed(&script, &rules.iter().map(line).collect::<String>());
        printed.lines().map(|verdict| verdict == "accepted").collect::<Vec<_>>()
    });
    verdicts.collect()
}

/// The rule with addresses of IPv6 for those of IPv4.
fn over_ipv6(rule: Vec<String>) -> Vec<String> {
    let address = |word: String| match word.as_str() {
        "10.1.0.0/16" => "2001:db8:1::/48".into(),
        "10.0.0.1,10.0.0.2" => "2001:db8::1,2001:db8::2".into(),
        "192.0.2.1" => "2001:db8::1".into(),
        "192.0.2.0/24" => "2001:db8::/32".into(),
        "10.0.0.0/8" => "fd00::/8".into(),
        "10.1.2.3/255.255.0.0" => "2001:db8::3/ffff:ffff::".into(),
        "10.0.0.0/255.0.255.0" => "2001:db8::/ffff::ffff".into(),
        "10/8" => "2001:db8::/129".into(),
        "0/0" => "::/0".into(),
        "10.0.0.1" => "fd00::1".into(),
        "10.0.0.1-10.0.0.5" => "fd00::1-fd00::5".into(),
        "1.2.3.4/33" => "2001:db8::4/129".into(),
        "256.1.1.1" => "2001:db8::12345".into(),
        "10.0.0.0/8,192.0.2.0/24" => "fd00::/8,2001:db8::/32".into(),
        "::1" => "192.0.2.1".into(),
        "192.0.2.1:1024-2047" => "[2001:db8::1]:1024-2047".into(),
        "192.0.2.1-192.0.2.9:5" => "[2001:db8::1-2001:db8::9]:5".into(),
        "192.0.2.1:5:6" => "[2001:db8::1]:5:6".into(),
        "icmp" => "icmpv6".into(),
        "--icmp-type" => "--icmpv6-type".into(),
        "8" => "128".into(),
        "-4" => "-6".into(),
        "-6" => "-4".into(),
        _ => word,
    };
    rule.into_iter().map(address).collect()
}

#[test]
fn import_accepts_and_refuses_like_both_iptables() {
    let count = if is_long() { RULES * 5 } else { RULES };
    judge("iptables", &samples(&iptables_rules(), count));
}

#[test]
fn import_accepts_and_refuses_like_both_ip6tables() {
    let count = if is_long() { RULES * 5 } else { RULES };
    judge("ip6tables", &samples(&iptables_rules().prop_map(over_ipv6), count));
}

/// Compares the verdicts of the import with those of both variants of a program.
fn judge(program: &str, rules: &[Vec<String>]) {
    let count = rules.len();
    let [nft, legacy] =
        ["nft", "legacy"].map(|variant| verdicts(&format!("{program}-{variant}"), rules));
    assert_eq!((nft.len(), legacy.len()), (count, count));
    let mut wrong = Vec::new();
    for ((rule, nft), legacy) in rules.iter().zip(&nft).zip(&legacy) {
        let command = [program, "-t", "nat", "-A", "POSTROUTING"].map(String::from);
        let imported = Imported::from_args(&[&command[..], rule].concat(), None);
        let refused = imported
            .skipped
            .iter()
            .find(|skipped| matches!(skipped.reason, SkipReason::Invalid(_)));
        // Where they differ, neither answer is wrong, but no message claims that iptables refuses.
        let is_wrong = (*nft || *legacy) == refused.is_some();
        if is_wrong {
            let reason = refused.map(|skipped| skipped.reason.to_string());
            wrong.push(format!("{}: nft {nft}, legacy {legacy}, {reason:?}", rule.join(" ")));
        }
    }
    let accepted = nft.iter().filter(|accepted| **accepted).count();
    assert!(accepted > count / 4 && accepted < count * 9 / 10, "{accepted} of {count} accepted");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The comments of the rules of POSTROUTING after each list of commands, each comment once.
fn chains(program: &str, scripts: &[Vec<Vec<String>>]) -> Vec<Vec<String>> {
    let script = format!(
        "while IFS= read -r line; do
           if [ -n \"$line\" ]; then
             eval \"{program} -w -t nat $line\" >/dev/null 2>&1
           else
             {program} -w -t nat -S POSTROUTING; echo END; {program} -w -t nat -F POSTROUTING
           fi
         done"
    );
    let lines = |commands: &Vec<Vec<String>>| {
        commands.iter().map(|words| quoted(words) + "\n").collect::<String>() + "\n"
    };
    let listed: String = scripts
        .chunks(10)
        .map(|scripts| printed(&script, &scripts.iter().map(lines).collect::<String>()))
        .collect();
    let chains = listed.split("END\n").map(|chain| {
        let mut comments = Vec::new();
        for line in chain.lines() {
            // The comment of the list's own comes first.
            let comment = line.split("--comment ").nth(1).and_then(|rest| rest.split(' ').next());
            comments.extend(comment.filter(|comment| !comments.contains(comment)));
        }
        comments.into_iter().map(String::from).collect()
    });
    chains.take(scripts.len()).collect()
}

/// What the import makes of a list of commands.
fn imported(script: &[Vec<String>]) -> Imported {
    let line = |words: &Vec<String>| format!("iptables -t nat {}", quoted(words));
    Imported::parse(script.iter().map(line).collect::<Vec<_>>().join("\n"), Some(Family::Ipv4))
}

/// The list without insertions after the end of the chain, which iptables refuses and the import
/// appends with a note.
fn without_past_end(mut script: Vec<Vec<String>>) -> Vec<Vec<String>> {
    loop {
        let past_end = imported(&script).notes.into_iter().find_map(|note| match note {
            Note::PastEnd { line, .. } => Some(line),
            _ => None,
        });
        let Some(line) = past_end else { return script };
        script.remove(line - 1);
    }
}

#[test]
fn imported_chain_equals_that_of_iptables() {
    let count = if is_long() { SCRIPTS * 5 } else { SCRIPTS };
    let scripts = samples(&iptables_commands(), count);
    let scripts: Vec<_> = scripts.into_iter().map(without_past_end).collect();
    let judges = PROGRAMS.map(|program| chains(program, &scripts));
    let mut compared = 0;
    for (at, script) in scripts.iter().enumerate() {
        let imported = imported(script);
        let names: Vec<_> =
            imported.policies.iter().map(|policy| policy.name().to_string()).collect();
        let names: Vec<_> = names.into_iter().filter(|name| name.starts_with('c')).collect();
        for (program, chains) in PROGRAMS.iter().zip(&judges) {
            let chain: Vec<_> =
                chains[at].iter().filter(|comment| names.contains(comment)).cloned().collect();
            assert_eq!(names, chain, "{program}: {script:?}\n{:#?}", imported.skipped);
        }
        compared += names.len();
    }
    assert!(compared > SCRIPTS, "{compared} policies compared");
}
