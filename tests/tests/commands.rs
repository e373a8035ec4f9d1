//! The commands that install, show and compare policies, on hosts of the lab.
//!
//! Expected texts are snapshots: `UPDATE_EXPECT=1 cargo test -p ephport-tests --test commands`
//! renews them, and the review of the change is the test.

use ephport_cli::Exit;
use ephport_tests::tool::{nft_load, ok};
use ephport_tests::{CommandOutput, Host, PolicyFile, ephport, ephport_ok, host_with_uplink};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

const THREE: &str = r#"
[[policy]]
name = "builds"
sources = ["172.16.0.0/12"]
to-ports = "49152-61000"
enforce = true

[[policy]]
name = "subscribers"
out-interfaces = ["eth0", "wg*"]
blocks = "10.0.0.0/30=64@1024-2047"

[[policy]]
name = "rest"
out-interfaces = "any"
to-ports = "1024-65535"
except-ports = "30000-32767"
"#;

fn parsed(ended: &CommandOutput) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Checks the exit code, standard output and standard error of a command.
fn check(ended: &CommandOutput, exit: Exit, out: &Expect, err: &Expect) {
    assert_eq!(ended.exit, exit, "{ended:?}");
    out.assert_eq(&ended.out.lines().map(shortened).collect::<String>());
    err.assert_eq(&ended.err);
}

/// A line without the checksum of a table, and without the text of a rule: other tests check them.
fn shortened(line: &str) -> String {
    let line = match line.split_once("fingerprint ") {
        Some((before, _)) => format!("{before}fingerprint CHECKSUM"),
        None => line.into(),
    };
    match line.split_once("\t\t") {
        Some((sign, _)) => format!("{sign}\t\tRULE\n"),
        None => format!("{line}\n"),
    }
}

/// A command with a file of three policies.
fn on_three(host: &Host, command: &str) -> CommandOutput {
    let file = PolicyFile::new(THREE);
    ephport(host, &format!("{command} {}", file.path()))
}

#[test]
fn policies_of_a_file_are_applied_in_order() {
    let (host, _peer) = host_with_uplink();
    let absent = expect![[r#"
        warning: policy subscribers: no interface matches `wg*` now; the policy applies to it as soon as one does
    "#]];
    check(
        &on_three(&host, "apply"),
        Exit::Success,
        &expect![[r#"
            installed table inet ephport

            policy builds
              protocols         tcp, udp
              out-interfaces    eth0
              sources           172.16.0.0/12
              source ports      1024-65535 -> 49152-61000
              source address    auto: kept if valid outside, else masquerade
              enforcement       packets with other source ports are dropped
              open connections  those open when first enforced pass until they end

            policy subscribers
              protocols       tcp, udp, icmp
              out-interfaces  eth0, wg*
              source ports    1024-65535 -> a block for each of 4 sources
              source address  auto: kept if valid outside, else masquerade

            policy rest
              protocols       tcp, udp
              out-interfaces  any but loopback
              source ports    1024-65535 -> 1024-29999, 32768-65535
              source address  auto: kept if valid outside, else masquerade
        "#]],
        &absent,
    );
    // A command that only reads prints the same warning.
    assert!(on_three(&host, "diff").err.contains("no interface matches `wg*` now"));
    assert!(on_three(&host, "apply").out.starts_with("unchanged table inet ephport\n"));
    check(
        &ephport(&host, "status"),
        Exit::Success,
        &expect![[r#"
            intact: table inet ephport, ephport-nft 0.1.0, fingerprint CHECKSUM

            policy builds
              out-interfaces          eth0
              source ports            1024-65535 -> 49152-61000
              source address          auto: kept if valid outside, else masquerade
              enforcement             packets with other source ports are dropped
              translations attempted  0
              enforcement drops       0
              connections kept        none

            policy subscribers
              out-interfaces          eth0, wg*
              source ports            1024-65535 -> a block for each source
              source address          auto: kept if valid outside, else masquerade
              translations attempted  0

            policy rest
              out-interfaces          any but loopback
              source ports            1024-65535 -> 1024-29999, 32768-65535
              source address          auto: kept if valid outside, else masquerade
              translations attempted  0
        "#]],
        &expect![[""]],
    );
    let summary = on_three(&host, "show --format summary").out;
    assert_eq!(on_three(&host, "apply").out, format!("unchanged table inet ephport\n\n{summary}"));
}

#[test]
fn summaries_fit_80_columns() {
    let (host, _peer) = host_with_uplink();
    let sources: Vec<_> = (0..60).map(|i| format!("10.{i}.0.0/16")).collect();
    let flags = format!(
        "--map-e psid=52,psid-len=8,offset=6 -o any --source {} --except-destination {} --random \
         --fully-random --persistent --per-source-stable --enforce --pick-up any --ipv4 \
         --origin forwarded --address 203.0.113.7",
        sources.join(","),
        sources.join(",")
    );
    for command in ["show --format summary", "apply --dry-run", "apply", "status"] {
        let flags = if command == "status" { "" } else { &flags };
        let out = ephport_ok(&host, &format!("{command} {flags}"));
        for line in out.lines() {
            assert!(line.len() <= 80, "{command}: {line}");
        }
    }
}

#[test]
fn summary_names_the_form_of_blocks() {
    let (host, _peer) = host_with_uplink();
    let form = |blocks: &str| {
        let out = ephport_ok(&host, &format!("apply -p udp --dry-run --blocks {blocks}"));
        let (_, row) = out.split_once("->").unwrap();
        let (row, _) = row.split_once("source address").unwrap();
        format!("{}\n", row.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let forms = [
        "10.0.0.0/12=1008@192.0.2.0-192.0.66.0:1024-65535",
        "10.0.0.0/12=1009@192.0.2.0-192.0.68.0:1024-65535",
        "10.0.0.0/20=15@1024-65535",
    ];
    expect![[r#"
        a block for each of 1048576 sources (factored: 16384 outside addresses by the first bits of the source, 64 blocks by its last 6 bits)
        a block for each of 1048576 sources (sharded: 256 maps by the first 20 bits of the source)
        a block for each of 4096 sources
    "#]]
    .assert_eq(&forms.map(form).concat());
}

#[test]
fn summary_describes_every_condition() {
    let host = Host::new("host").unwrap();
    let flags = "-p tcp --sport 32768-61000 --exempt-sport 40000 --to 1024-2047,4096 --except 1500 \
                 -o eth0,wg* -s 10.0.0.0/8,192.0.2.7 --except-destination 198.51.100.0/24 \
                 --origin forwarded --ipv4 --random --fully-random --persistent \
                 --per-source-stable --address 192.0.2.1 --pick-up any --enforce";
    let out = ephport_ok(&host, &format!("show {flags} --format summary"));
    expect![[r#"
        policy default
          protocols         tcp
          families          ipv4
          out-interfaces    eth0, wg*
          origin            forwarded: not this host's sockets
          sources           10.0.0.0/8, 192.0.2.7/32
          not destinations  198.51.100.0/24
          source ports      32768-39999,40001-61000 -> 1024-1499, 1501-2047, 4096
          source address    becomes 192.0.2.1
          selection         random, fully-random, persistent, per-source-stable
          pick-up           any: open TCP connections are translated too
          enforcement       packets with other source ports are dropped
          open connections  those open when first enforced pass until they end
    "#]]
    .assert_eq(&out);
    let kept = ephport_ok(&host, "show --to 1024 -o any --address keep --format summary");
    assert!(kept.contains("  source address  keep: not changed\n"), "{kept}");
}

#[test]
fn missing_file_is_named() {
    let (host, _peer) = host_with_uplink();
    let message = |path: &str| {
        format!(
            "error: cannot read {path}: No such file or directory (os error 2); \
             write a policy there, or name the ports with --to-ports\n"
        )
    };
    for command in ["apply", "show", "diff"] {
        let ended = ephport(&host, command);
        assert_eq!((ended.exit, ended.err), (Exit::Failure, message("/etc/ephport/policy.toml")));
        let ended = ephport(&host, &format!("{command} /absent/policy.toml"));
        assert_eq!((ended.exit, ended.err), (Exit::Failure, message("/absent/policy.toml")));
    }
}

#[test]
fn errors_in_files_have_line_and_column() {
    let (host, _peer) = host_with_uplink();
    let cases = [
        (
            "[[policy]]\nname = \"a\"\nto-ports = \"1024-\n",
            expect![[r#"
            error: FILE:3:18: `to-ports = "1024-`: not TOML: invalid basic string, expected `"`
        "#]],
        ),
        (
            "[[policy]]\nname = \"a\"\nto-ports = \"0\"\n",
            expect![[r#"
            error: FILE:3:12: to-ports "0": port 0 is not a port: expected 1 to 65535
        "#]],
        ),
        (
            "[[policy]]\nname = \"a\"\nto-ports = \"1\"\n\
             [[policy]]\nname = \"a\"\nto-ports = \"2\"\n",
            expect![[r#"
                error: FILE:5:8: "a": policies 1 and 2 are both named `a`: expected a name of its own for each
            "#]],
        ),
        (
            "",
            expect![[r#"
            error: FILE:1:1: there is no policy: expected at least one [[policy]]
        "#]],
        ),
    ];
    for (text, expected) in cases {
        let file = PolicyFile::new(text);
        let ended = ephport(&host, &format!("apply {}", file.path()));
        assert_eq!(ended.exit, Exit::Failure);
        expected.assert_eq(&ended.err.replace(file.path(), "FILE"));
    }
    assert_eq!(ephport(&host, "status").out, "absent: there is no table inet ephport\n");
}

#[test]
fn endless_input_changes_nothing() {
    let (host, _peer) = host_with_uplink();
    let ended = ephport(&host, "apply /dev/zero");
    check(
        &ended,
        Exit::Failure,
        &expect![[""]],
        &expect![[r#"
        error: cannot read /dev/zero: longer than 256 MiB; write a policy there, or name the ports with --to-ports
    "#]],
    );
    assert_eq!(ok(&host, "nft list ruleset"), "");
}

#[test]
fn quoted_input_is_escaped_and_cut() {
    let host = Host::new("host").unwrap();
    let file = PolicyFile::new(&format!(
        "[[policy]]\nname = \"a\"\n\"\\u001b[31m\\u202e{}\" = 1\n",
        "x".repeat(1_000_000)
    ));
    let err = ephport(&host, &format!("show {}", file.path())).err;
    assert!(err.len() < 2_500 && !err.contains(['\u{1b}', '\u{202e}']), "{err}");
    let flag = format!("show --to-ports \u{1b}[31m{}", "x".repeat(1_000_000));
    let err = ephport(&host, &flag).err;
    assert!(err.len() < 2_500 && !err.contains('\u{1b}'), "{err}");
}

#[test]
fn shown_policy_file_is_the_same_policy() {
    let (host, _peer) = host_with_uplink();
    assert_eq!(on_three(&host, "apply").exit, Exit::Success);
    let printed = on_three(&host, "show --format toml").out;
    let file = PolicyFile::new(&printed);
    let again = ephport_ok(&host, &format!("apply {}", file.path()));
    assert!(again.starts_with("unchanged"), "{again}\n{printed}");
    // Nothing but policies is needed to print them: not even an uplink.
    let bare = Host::new("bare").unwrap();
    assert_eq!(ephport_ok(&bare, &format!("show --format toml {}", file.path())), printed);
    // Flags become a file too.
    let flags = "-p tcp --sport 32768-61000 --exempt-sport 40000 --to 1024-2047,4096 --except 1500 \
                 -o eth0,wg* -s 10.0.0.0/8,192.0.2.7 --except-destination 198.51.100.0/24 \
                 --origin forwarded --ipv4 --random --fully-random --persistent \
                 --per-source-stable --address 192.0.2.1 --pick-up any --enforce";
    ephport_ok(&host, &format!("apply {flags}"));
    let file = PolicyFile::new(&ephport_ok(&host, &format!("show {flags} --format toml")));
    let again = ephport_ok(&host, &format!("apply {}", file.path()));
    assert!(again.starts_with("unchanged"), "{again}");
}

#[test]
fn show_prints_every_format_without_changes() {
    let (host, _peer) = host_with_uplink();
    let nft = on_three(&host, "show").out;
    assert_eq!(on_three(&host, "show --format nft").out, nft);
    assert!(nft.starts_with("table inet ephport {\n\tcomment \"ephport-nft\"\n"), "{nft}");
    let bytecode = on_three(&host, "show --format bytecode").out;
    assert!(
        bytecode.contains("inet ephport postrouting\n  [ fib daddr type => reg 1 ]\n"),
        "{bytecode}"
    );
    let json = parsed(&on_three(&host, "show --format json"));
    assert_eq!(parsed(&on_three(&host, "show --json")), json);
    let names: Vec<_> = json["policies"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["builds", "subscribers", "rest"]);
    assert_eq!(json["policies"][1]["written"]["blocks"], "10.0.0.0/30=64@1024-2047");
    // Each rule of a policy names it, in the base chains and in its own.
    for rule in json["rules"].as_array().unwrap() {
        assert!(nft.contains(rule["nft"].as_str().unwrap()));
        let chain = rule["chain"].as_str().unwrap();
        if let Some((policy, _)) = chain.split_once('/') {
            assert_eq!(rule["policy"], policy);
        }
        let comment = rule["nft"].as_str().unwrap().split_once(" comment \"");
        let comment = comment.map(|(_, comment)| comment.trim_end_matches('"'));
        let policy = comment.filter(|comment| !comment.contains(' '));
        assert!(policy.is_none_or(|policy| rule["policy"] == policy), "{rule}");
    }
    assert_eq!(ok(&host, "nft list ruleset"), "");
}

#[test]
fn apply_and_remove_print_json() {
    let (host, _peer) = host_with_uplink();
    let flags = "-p udp --to-ports 49152-61000 --enforce --json";
    let shown = parsed(&ephport(&host, "show -p udp --to-ports 49152-61000 --enforce --json"));
    let policies = &shown["policies"];
    assert_eq!(policies[0]["to_ports"], json!([{ "first": 49_152, "last": 61_000 }]));
    let results =
        [(true, "would install"), (false, "installed"), (true, "unchanged"), (false, "unchanged")];
    for (dry_run, result) in results {
        let more = if dry_run { "--dry-run" } else { "" };
        let ended = ephport(&host, &format!("apply {flags} {more}"));
        let expected = json!({
            "version": 1, "result": result, "dry_run": dry_run, "confirmation": null,
            "policies": policies, "warnings": [],
        });
        assert_eq!((ended.exit, parsed(&ended)), (Exit::Success, expected));
    }
    for result in ["removed", "absent"] {
        let ended = ephport(&host, "remove --json");
        let expected = json!({ "version": 1, "result": result });
        assert_eq!((ended.exit, parsed(&ended)), (Exit::Success, expected));
    }
    assert_eq!(ephport_ok(&host, "remove"), "absent table inet ephport\n");
}

#[test]
fn status_prints_json() {
    let (host, _peer) = host_with_uplink();
    let status = || {
        let ended = ephport(&host, "status --json");
        (ended.exit, parsed(&ended))
    };
    let empty = |state| {
        json!({
            "version": 1, "state": state, "written_by": null, "fingerprint": null,
            "policy_file": null, "void": [], "outdated": [], "drift": [], "insert_failed": null, "policies": [], "rules": [],
        })
    };
    assert_eq!(status(), (Exit::Differs, empty("absent")));
    ephport_ok(&host, "apply --to-ports 49152-61000 -p udp");
    let (exit, json) = status();
    assert_eq!((exit, &json["state"]), (Exit::Success, &json!("intact")));
    assert_eq!(json["written_by"], env!("CARGO_PKG_VERSION"));
    let policy = json!([{
        "name": "default", "policy": null, "to_ports": [{ "first": 49_152, "last": 61_000 }],
        "enforces": false, "translations_attempted": 0, "enforcement_drops": 0,
        "open_connections": null,
    }]);
    assert_eq!(json["policies"], policy);
    let rules = json["rules"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["policy"] == "default").unwrap();
    assert_eq!((&rule["packets"], &rule["bytes"]), (&json!(0), &json!(0)));
    ok(&host, "nft flush table inet ephport");
    let (exit, json) = status();
    assert_eq!(
        (exit, &json["state"], &json["rules"]),
        (Exit::Differs, &json!("drifted"), &json!([]))
    );
    check(
        &ephport(&host, "status"),
        Exit::Differs,
        &expect![[r#"
        drifted: table inet ephport, without its fingerprint
          changed by another process; `ephport-nft apply` restores it
          to see all changes, name the policy: `ephport-nft diff FILE`
    "#]],
        &expect![[""]],
    );
    ok(&host, "nft delete table inet ephport");
    ok(&host, "nft add table inet ephport");
    assert_eq!(status(), (Exit::Differs, empty("foreign")));
}

#[test]
fn status_is_void_after_earlier_nat_chain() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --to-ports 49152-61000 -p udp");
    // Chains that come later, that have no rules, or that are no nat chains of postrouting.
    nft_load(
        &host,
        "table ip later {\n chain c {\n type nat hook postrouting priority 100;\n masquerade\n }\n}\n\
         table ip empty {\n chain c {\n type nat hook postrouting priority 0;\n }\n}\n\
         table inet other {\n chain c {\n type filter hook postrouting priority 0;\n counter\n }\n \
         chain d {\n type nat hook prerouting priority -100;\n counter\n }\n}\n",
    );
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
    nft_load(
        &host,
        "table ip first {\n chain c {\n type nat hook postrouting priority 50;\n masquerade\n }\n}\n",
    );
    check(
        &ephport(&host, "status"),
        Exit::Differs,
        &expect![[r#"
            void: table inet ephport, ephport-nft 0.1.0, fingerprint CHECKSUM
              chain c of table ip first (nat, postrouting, priority 50) comes before ephport's: connections that it translates keep the port that it selects

            policy default
              out-interfaces          eth0
              source ports            1024-65535 -> 49152-61000
              source address          auto: kept if valid outside, else masquerade
              translations attempted  0
        "#]],
        &expect![[""]],
    );
    let json = parsed(&ephport(&host, "status --json"));
    assert_eq!((&json["state"], &json["void"][0]["kind"]), (&json!("void"), &json!("earlier-nat")));
    ok(&host, "nft delete table ip first");
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
}

#[test]
fn status_counts_once_and_truly() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --to-ports 49152-61000 -p udp");
    // What the kernel counts: a rule's counter is set as traffic would.
    let listed = ok(&host, "nft list table inet ephport");
    let counted = listed.replacen("counter packets 0 bytes 0", "counter packets 7 bytes 420", 1);
    ok(&host, "nft delete table inet ephport");
    nft_load(&host, &counted);
    let out = ephport_ok(&host, "status --rules");
    assert!(out.contains("  translations attempted  7\n"), "{out}");
    assert_eq!(out.matches("counter packets 7 bytes 420").count(), 1, "{out}");
    assert_eq!(out.matches("packets 0 bytes 0").count(), 0, "{out}");
    let json = parsed(&ephport(&host, "status --json"));
    assert_eq!(json["policies"][0]["translations_attempted"], 7);
}

#[test]
fn status_marks_rules_that_nft_cannot_list() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --blocks 10.0.0.0/30=64@1024-65535 -p udp");
    let out = ephport_ok(&host, "status --rules");
    let last = out.lines().last().unwrap();
    assert!(last.contains("# nft cannot list all of this rule: "), "{out}");
    // Nor does nft, indeed.
    let listed = ephport_tests::tool::tool(&host, "nft", &["list", "ruleset"], "");
    assert!(!listed.out.contains("masquerade"), "{listed:?}");
}

#[test]
fn diff_shows_only_changes() {
    let (host, _peer) = host_with_uplink();
    let flags = "-p udp --address masquerade --to-ports";
    let (old, new) = (format!("{flags} 49152-61000"), format!("{flags} 1024-2047"));
    let absent = ephport(&host, &format!("diff {old}"));
    check(
        &absent,
        Exit::Differs,
        &expect![[r#"
            would install table inet ephport
              the table is missing

            policy default
              protocols       udp
              out-interfaces  eth0
              source ports    1024-65535 -> 49152-61000
              source address  masquerade: an address of the output interface

            --- installed
            +++ policy
            @@ -0,0 +1,11 @@
            +table inet ephport {
            +	comment "ephport-nft"
            +	chain postrouting {
            +		RULE
            +		RULE
            +		RULE
            +		RULE
            +		RULE
            +		RULE
            +	}
            +}
        "#]],
        &expect![[""]],
    );
    ephport_ok(&host, &format!("apply {old}"));
    let same = ephport(&host, &format!("diff {old}"));
    assert_eq!((same.exit, same.out.as_str()), (Exit::Success, ""));
    let same = ephport(&host, &format!("diff {old} --json"));
    let nothing = json!({
        "version": 1, "result": "unchanged", "differences": [], "removed": [], "added": [],
    });
    assert_eq!((same.exit, parsed(&same)), (Exit::Success, nothing));
    let different = ephport(&host, &format!("diff {new}"));
    check(
        &different,
        Exit::Differs,
        &expect![[r#"
            would update table inet ephport
              policy default, rule 5 of postrouting: ports 49152-61000, expected 1024-2047

            policy default
              protocols       udp
              out-interfaces  eth0
              source ports    1024-65535 -> 1024-2047
              source address  masquerade: an address of the output interface

            --- installed
            +++ policy
            @@ -9 +9 @@
            -		RULE
            +		RULE
        "#]],
        &expect![[""]],
    );
    let json = parsed(&ephport(&host, &format!("diff {new} --json")));
    assert_eq!(json["result"], "would update");
    let lines = |key: &str| json[key].as_array().unwrap().len();
    assert_eq!((lines("differences"), lines("removed"), lines("added")), (1, 1, 1), "{json:#}");
    // Nothing was changed.
    assert_eq!(ephport(&host, &format!("diff {old}")).exit, Exit::Success);
}

#[test]
fn diff_refuses_a_foreign_table() {
    let host = Host::new("host").unwrap();
    nft_load(&host, "table inet ephport {\n}");
    let ended = ephport(&host, "diff --to-ports 1024 -o any");
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failure, ""));
    assert!(ended.err.starts_with("error: table inet ephport exists and has another owner"));
}

#[test]
fn short_help_fits_a_screen() {
    let host = Host::new("host").unwrap();
    let commands = [
        "",
        "apply",
        "confirm",
        "remove",
        "status",
        "diff",
        "show",
        "explain",
        "usage",
        "doctor",
        "guard",
        "whose",
        "import",
        "demo",
        "schema",
        "man",
        "completions",
    ];
    for command in commands {
        let help = ephport_ok(&host, &format!("{command} -h"));
        let (lines, widest) = (help.lines().count(), help.lines().map(str::len).max().unwrap());
        assert!(lines <= 24 && widest <= 80, "{command}: {lines} lines, {widest}:\n{help}");
        assert!(help.contains("Exit codes"), "{help}");
        assert!(command.is_empty() || help.contains("Example"), "{help}");
    }
}

#[test]
fn messages_are_json_with_json() {
    let (host, _peer) = host_with_uplink();
    let cases = [
        ("apply --json --to-ports 0", Exit::Usage, "usage"),
        ("apply --json /absent", Exit::Failure, "file"),
        ("status --json --nonsense", Exit::Usage, "usage"),
        ("diff --json --to-ports local --except-ports 1-65535", Exit::Failure, "policy"),
    ];
    for (line, exit, kind) in cases {
        let ended = ephport(&host, line);
        let message: Value = serde_json::from_str(&ended.err).unwrap_or_else(|error| {
            panic!("{error}: {line}: {ended:?}");
        });
        assert_eq!((ended.exit, &message["kind"]), (exit, &json!(kind)), "{line}: {message}");
        assert_eq!(message["level"], "error");
    }
    let warned = ephport(&host, "apply --json --to-ports 1024 -o absent0 --dry-run");
    let message: Value = serde_json::from_str(&warned.err).unwrap();
    assert_eq!((&message["level"], &message["policy"]), (&json!("warning"), &json!("default")));
}
