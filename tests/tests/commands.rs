//! Each command that installs, shows or compares policies, end to end on hosts of the lab.

use ephport_cli::Exit;
use ephport_tests::tool::{nft_load, ok};
use ephport_tests::{CommandOutput, Host, PolicyFile, ephport, ephport_ok, host_with_uplink};
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

const LINES: &str = "  builds: tcp,udp from 172.16.0.0/12 leaving by eth0: \
                     source ports 1024-65535 -> 49152-61000, enforced\n  \
                     subscribers: tcp,udp leaving by eth0, wg*: \
                     source ports 1024-65535 -> a block for each of 4 sources\n  \
                     rest: tcp,udp leaving by any interface but loopback: \
                     source ports 1024-65535 -> 1024-29999,32768-65535\n";

fn parsed(ended: &CommandOutput) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// A command with a file of three policies.
fn on_three(host: &Host, command: &str) -> CommandOutput {
    let file = PolicyFile::new(THREE);
    ephport(host, &format!("{command} {}", file.path()))
}

#[test]
fn a_file_of_policies_is_applied_in_its_order() {
    let (host, _peer) = host_with_uplink();
    let ended = on_three(&host, "apply");
    assert_eq!(
        (ended.exit, ended.out),
        (Exit::Success, format!("installed table inet ephport\n{LINES}"))
    );
    let absent = "warning: no interface matches `wg*` now; \
                  the policy will hold for it as soon as there is one\n";
    assert_eq!(ended.err, absent);
    // Whoever only looks gets the same warning.
    assert_eq!(on_three(&host, "diff").err, absent);
    let again = on_three(&host, "apply");
    assert_eq!(again.out, format!("unchanged table inet ephport\n{LINES}"));
    let status = ephport(&host, "status");
    assert_eq!(status.exit, Exit::Success);
    let place = |name: &str| status.out.find(&format!("comment \"{name}\"")).expect(name);
    assert!(place("builds") < place("subscribers") && place("subscribers") < place("rest"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
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
fn a_fault_in_a_file_has_its_place() {
    let (host, _peer) = host_with_uplink();
    let cases = [
        (
            "[[policy]]\nname = \"a\"\nto-ports = \"1024-\n",
            "3:18: `to-ports = \"1024-`: not TOML: invalid basic string, expected `\"`",
        ),
        (
            "[[policy]]\nname = \"a\"\nto-ports = \"0\"\n",
            "3:12: to-ports \"0\": port 0 is not a port: expected 1 to 65535",
        ),
        (
            "[[policy]]\nname = \"a\"\nto-ports = \"1\"\n[[policy]]\nname = \"a\"\nto-ports = \"2\"\n",
            "5:8: \"a\": policies 1 and 2 are both named `a`: expected a name of its own for each",
        ),
        ("", "1:1: there is no policy: expected at least one [[policy]]"),
    ];
    for (text, expected) in cases {
        let file = PolicyFile::new(text);
        let ended = ephport(&host, &format!("apply {}", file.path()));
        let expected = format!("error: {}:{expected}\n", file.path());
        assert_eq!((ended.exit, ended.err), (Exit::Failure, expected));
    }
    assert_eq!(ephport(&host, "status").out, "absent: there is no table inet ephport\n");
}

#[test]
fn the_policy_file_that_show_prints_is_the_same_policy() {
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
fn show_prints_every_format_without_touching_the_kernel() {
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
    assert_eq!(json["policies"][1]["blocks"], "10.0.0.0/30=64@1024-2047");
    let rule = &json["rules"][2];
    assert_eq!((&rule["chain"], &rule["policy"]), (&json!("postrouting"), &json!("builds")));
    assert!(nft.contains(rule["nft"].as_str().unwrap()));
    assert_eq!(ok(&host, "nft list ruleset"), "");
}

#[test]
fn apply_and_remove_speak_to_programs() {
    let (host, _peer) = host_with_uplink();
    let flags = "-p udp --to-ports 49152-61000 --enforce --json";
    let policy = json!({
        "name": "default", "protocols": ["udp"], "interfaces": ["eth0"],
        "ipv4": true, "ipv6": true, "sources": [], "except_destinations": [],
        "origin": "both", "source_ports": "1024-65535", "to_ports": "49152-61000",
        "blocks": null, "address": "masquerade", "random": false, "fully_random": false,
        "persistent": false, "per_source_stable": false, "pick_up": "opening", "enforce": true,
    });
    for (dry_run, result) in [(true, "installed"), (false, "installed"), (false, "unchanged")] {
        let more = if dry_run { "--dry-run" } else { "" };
        let ended = ephport(&host, &format!("apply {flags} {more}"));
        let expected = json!({ "result": result, "dry_run": dry_run, "policies": [policy] });
        assert_eq!((ended.exit, parsed(&ended)), (Exit::Success, expected));
    }
    for result in ["removed", "absent"] {
        let ended = ephport(&host, "remove --json");
        assert_eq!((ended.exit, parsed(&ended)), (Exit::Success, json!({ "result": result })));
    }
    assert_eq!(ephport_ok(&host, "remove"), "absent table inet ephport\n");
}

#[test]
fn status_speaks_to_programs() {
    let (host, _peer) = host_with_uplink();
    let status = || {
        let ended = ephport(&host, "status --json");
        (ended.exit, parsed(&ended))
    };
    let absent = json!({
        "state": "absent", "version": null, "compared_with": null, "drift": [], "rules": [],
    });
    assert_eq!(status(), (Exit::Differs, absent));
    ephport_ok(&host, "apply --to-ports 49152-61000 -p udp");
    let (exit, json) = status();
    assert_eq!((exit, &json["state"]), (Exit::Success, &json!("intact")));
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let rule = &json["rules"][2];
    assert_eq!((&rule["packets"], &rule["bytes"]), (&json!(0), &json!(0)));
    assert_eq!(rule["bytecode"][0], "[ meta load oifname => reg 1 ]");
    ok(&host, "nft flush chain inet ephport postrouting");
    let (exit, json) = status();
    assert_eq!(
        (exit, &json["state"], &json["rules"]),
        (Exit::Differs, &json!("drifted"), &json!([]))
    );
    let text = ephport(&host, "status");
    assert_eq!(text.exit, Exit::Differs);
    assert!(
        text.out.starts_with(
            "drifted: table inet ephport, without its fingerprint\n  \
             somebody changed it since; apply the policy again to mend it\n"
        ),
        "{}",
        text.out
    );
    ok(&host, "nft delete table inet ephport");
    ok(&host, "nft add table inet ephport");
    let foreign = json!({
        "state": "foreign", "version": null, "compared_with": null, "drift": [], "rules": [],
    });
    assert_eq!(status(), (Exit::Differs, foreign));
}

#[test]
fn status_says_which_rules_nft_cannot_list() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --blocks 10.0.0.0/30=64@1024-65535 -p udp");
    assert_eq!(
        ephport_ok(&host, "status").lines().last(),
        Some(
            "           0  # nft cannot list all of this rule: oifname \"eth0\" meta nfproto ipv4 \
             meta l4proto udp th sport 1024-65535 counter packets 0 bytes 0 \
             [ payload load 4b @ network header + 12 => reg 1 ] \
             [ lookup reg 1 set default/blocks4 dreg 1 ] \
             [ masq proto_min reg 1 proto_max reg 9 flags 0x2 ] comment \"default\""
        )
    );
    // Nor does nft, indeed.
    let listed = ephport_tests::tool::tool(&host, "nft", &["list", "ruleset"], "");
    assert!(!listed.out.contains("masquerade"), "{listed:?}");
}

#[test]
fn diff_tells_what_apply_would_change() {
    let (host, _peer) = host_with_uplink();
    let (old, new) = ("-p udp --to-ports 49152-61000", "-p udp --to-ports 1024-2047");
    let absent = ephport(&host, &format!("diff {old}"));
    assert_eq!(absent.exit, Exit::Differs);
    let missing = "the table: is missing\n--- installed\n+++ policy\n@@ ";
    assert!(absent.out.starts_with(missing), "{}", absent.out);
    assert!(absent.out.contains("\n+table inet ephport {\n"), "{}", absent.out);
    ephport_ok(&host, &format!("apply {old}"));
    let same = ephport(&host, &format!("diff {old}"));
    assert_eq!((same.exit, same.out.as_str()), (Exit::Success, ""));
    let same = ephport(&host, &format!("diff {old} --json"));
    let nothing = json!({ "different": false, "drift": [], "removed": [], "added": [] });
    assert_eq!((same.exit, parsed(&same)), (Exit::Success, nothing));

    let rule = |ports| {
        format!(
            "oifname \"eth0\" meta l4proto udp th sport 1024-65535 counter packets 0 bytes 0 \
             masquerade to :{ports} comment \"default\""
        )
    };
    let (removed, added) = (rule("49152-61000"), rule("1024-2047"));
    let different = ephport(&host, &format!("diff {new}"));
    assert_eq!(different.exit, Exit::Differs);
    let expected = format!("\n-\t\t{removed}\n+\t\t{added}\n \t}}\n }}\n");
    assert!(different.out.ends_with(&expected), "{}", different.out);
    let sentence =
        "policy default, rule 3 of postrouting: moves to ports 49152-61000, expected 1024-2047";
    assert_eq!(different.out.lines().next(), Some(sentence));
    let json = parsed(&ephport(&host, &format!("diff {new} --json")));
    assert_eq!(
        (&json["different"], &json["drift"][0]["message"]),
        (&json!(true), &json!(sentence))
    );
    assert_eq!((&json["removed"][1], &json["added"][1]), (&json!(removed), &json!(added)));
    // Only then does it change.
    assert_eq!(ephport(&host, &format!("diff {old}")).exit, Exit::Success);
}

#[test]
fn diff_does_not_compare_with_a_table_of_somebody_else() {
    let host = Host::new("host").unwrap();
    nft_load(&host, "table inet ephport {\n}");
    let ended = ephport(&host, "diff --to-ports 1024 -o any");
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failure, ""));
    assert!(ended.err.starts_with("error: table inet ephport exists but ephport did not make it"));
}
