//! Exit codes follow the kernel: a stream that cannot be written changes neither what a command
//! does nor its verdict.

use std::fs::File;
use std::io::pipe;
use std::process::{Command, Stdio};

use ephport_tests::tool::{binary, ok};
use ephport_tests::{Host, PolicyFile, ephport_ok, host_with_uplink};

/// What happens to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Read,
    Closed,
    Full,
    ClosedPipe,
}

const FATES: [Fate; 3] = [Fate::Closed, Fate::Full, Fate::ClosedPipe];

/// The text of a redirection in a shell, and the stream that the shell inherits.
fn stream(fate: Fate, number: u8) -> (String, Stdio) {
    let redirection = if fate == Fate::Closed { format!("{number}>&-") } else { String::new() };
    let stdio = match fate {
        Fate::Read | Fate::Closed => Stdio::null(),
        Fate::Full => File::options().write(true).open("/dev/full").expect("/dev/full").into(),
        Fate::ClosedPipe => {
            let (reader, writer) = pipe().expect("a pipe");
            drop(reader);
            writer.into()
        }
    };
    (redirection, stdio)
}

/// The exit code of a command line, and the ruleset after it.
fn run(host: &Host, line: &str, out: Fate, err: Fate) -> (Option<i32>, String) {
    let ((closes_out, stdout), (closes_err, stderr)) = (stream(out, 1), stream(err, 2));
    let script = format!("exec \"$0\" {line} {closes_out} {closes_err}");
    let status = host.run(|| {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(binary());
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).status().expect("a shell")
    });
    (status.code(), ok(host, "nft list table inet ephport"))
}

/// Installs the policy from which each command starts, and keeps a later table that shows when
/// ours is removed.
fn prepare(host: &Host) {
    ephport_ok(host, "apply --to-ports 49152-61000 -o any");
}

/// Checks a command line with each fate of each stream against the fate of a stream that is read.
fn check(host: &Host, line: &str, output_is_all: bool) {
    prepare(host);
    let expected = run(host, line, Fate::Read, Fate::Read);
    for fate in FATES {
        for (out, err) in [(fate, Fate::Read), (Fate::Read, fate), (fate, fate)] {
            prepare(host);
            let (code, ruleset) = run(host, line, out, err);
            let lost = output_is_all && out == Fate::Full && expected.0 == Some(0);
            let expected_code = if lost { Some(1) } else { expected.0 };
            assert_eq!((code, &ruleset), (expected_code, &expected.1), "{line}: {out:?} {err:?}");
        }
    }
}

#[test]
fn verdicts_and_changes_survive_lost_streams() {
    let (host, _peer) = host_with_uplink();
    let bad = PolicyFile::new("[[policy]]\nname = 1\n");
    let cases = [
        ("apply --to-ports 2000-2999 -o any", Some(0)),
        ("apply --to-ports 2000-2999 -o absent0", Some(0)),
        ("apply --to-ports 2000-2999 -o absent0 --json", Some(0)),
        ("apply --to-ports 2000-2999 -o any --dry-run", Some(0)),
        (&format!("apply {}", bad.path()), Some(1)),
        ("apply --to-ports 0", Some(2)),
        ("status", Some(0)),
        ("status --json", Some(0)),
        ("diff --to-ports 49152-61000 -o any", Some(0)),
        ("diff --to-ports 2000-2999 -o absent0", Some(3)),
        (
            "explain --to-ports 2000-2999 -o any \
             --flow 'udp 10.0.0.7:40000 -> 203.0.113.9:53 oif eth0'",
            Some(0),
        ),
        (
            "explain --json --to-ports 2000-2999 -o any \
             --flow 'udp 10.0.0.7:40000 -> 203.0.113.9:53 oif eth0'",
            Some(0),
        ),
        ("diff --to-ports 49152-61000 -o any --json", Some(0)),
        ("diff --to-ports 2000-2999 -o any --json", Some(3)),
        ("confirm --json", Some(3)),
        ("status --rules", Some(0)),
        ("usage --to-ports 49152-61000 -o any", Some(0)),
        ("usage --to-ports 49152-61000 -o any --json", Some(0)),
        ("usage --outside --to-ports 49152-61000 -o any", Some(0)),
        ("doctor --to-ports 49152-61000 -o any", Some(0)),
        ("doctor --to-ports 49152-61000 -o absent0 --json", Some(3)),
        ("whose 192.0.2.2:1100 --blocks 10.0.0.0/30=64@1024-2047 -o any", Some(0)),
        ("whose 192.0.2.2:1 --blocks 10.0.0.0/30=64@1024-2047 -o any --json", Some(3)),
    ];
    for (line, code) in cases {
        prepare(&host);
        assert_eq!(run(&host, line, Fate::Read, Fate::Read).0, code, "{line}");
        check(&host, line, false);
    }
}

#[test]
fn drifted_verdict_survives_lost_streams() {
    let host = Host::new("host").unwrap();
    prepare(&host);
    ok(&host, "nft flush chain inet ephport postrouting");
    let before = ok(&host, "nft list table inet ephport");
    for line in ["status", "status --json", "diff --to-ports 49152-61000 -o any"] {
        for fate in FATES {
            for (out, err) in [(fate, Fate::Read), (Fate::Read, fate), (fate, fate)] {
                let ended = run(&host, line, out, err);
                assert_eq!(ended, (Some(3), before.clone()), "{line}: {out:?} {err:?}");
            }
        }
    }
}

/// A new command is to be added to this file.
#[test]
fn every_command_loses_its_streams() {
    let help = ephport_ok(&Host::new("host").unwrap(), "--help");
    let (_, commands) = help.split_once("Commands:\n").expect("the commands");
    let names = commands.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next());
    let own = include_str!("streams.rs");
    let is_run = |name: &str| {
        own.contains(&format!("\"{name} ")) || own.contains(&format!("\\\"$0\\\" {name} "))
    };
    let missing: Vec<_> = names.filter(|name| *name != "help" && !is_run(name)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn output_only_commands_fail_on_lost_output() {
    let (host, _peer) = host_with_uplink();
    let acls = PolicyFile::new(
        r#"{ "NetworkAcls": [ { "NetworkAclId": "acl-1", "Entries": [ { "CidrBlock": "0.0.0.0/0",
             "Egress": false, "Protocol": "-1", "RuleAction": "allow", "RuleNumber": 1 } ] } ] }"#,
    );
    let nacl = format!("import nacl <{}", acls.path());
    let nacl_json = format!("import nacl --json <{}", acls.path());
    let lines = [
        "show --to-ports 2000-2999 -o any",
        "show --to-ports 2000-2999 -o absent0 --json",
        "show --to-ports 2000-2999 -o any --format toml",
        "show --to-ports 2000-2999 -o any --format summary",
        &nacl,
        &nacl_json,
        "import map-e psid=52,psid-len=8,offset=6 --json",
        "import iptables",
        "schema policy-file",
        "import map-e psid=52,psid-len=8,offset=6",
        "import iptables -- iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 2000",
        "schema status",
        "--help",
    ];
    for line in lines {
        check(&host, line, true);
    }
}

#[test]
fn removal_survives_lost_streams() {
    let (host, _peer) = host_with_uplink();
    for fate in FATES {
        for (out, err) in [(fate, Fate::Read), (Fate::Read, fate), (fate, fate)] {
            ephport_ok(&host, "apply --to-ports 49152-61000 -o any");
            let ((closes_out, stdout), (closes_err, stderr)) = (stream(out, 1), stream(err, 2));
            let script = format!("exec \"$0\" remove {closes_out} {closes_err}");
            let status = host.run(|| {
                let mut command = Command::new("sh");
                command.args(["-c", &script]).arg(binary());
                command.stdout(stdout).stderr(stderr).status().expect("a shell")
            });
            assert_eq!(status.code(), Some(0), "{out:?} {err:?}");
            assert_eq!(ok(&host, "nft list ruleset"), "", "{out:?} {err:?}");
        }
    }
}

#[test]
fn demo_survives_lost_streams() {
    let host = Host::new("host").unwrap();
    for fate in FATES {
        for (out, err) in [(fate, Fate::Read), (Fate::Read, fate)] {
            let ((closes_out, stdout), (closes_err, stderr)) = (stream(out, 1), stream(err, 2));
            let script = format!("exec \"$0\" demo {closes_out} {closes_err}");
            let status = host.run(|| {
                let mut command = Command::new("sh");
                command.args(["-c", &script]).arg(binary());
                command.stdout(stdout).stderr(stderr).status().expect("a shell")
            });
            assert_eq!(status.code(), Some(0), "{out:?} {err:?}");
        }
    }
}

#[test]
fn guard_survives_lost_streams() {
    let host = Host::new("host").unwrap();
    let policy = PolicyFile::new(
        "[[policy]]\nname = \"a\"\nto-ports = \"2000-2999\"\nout-interfaces = \"any\"\n",
    );
    for fate in FATES {
        for (out, err) in [(fate, Fate::Read), (Fate::Read, fate), (fate, fate)] {
            let ((closes_out, stdout), (closes_err, stderr)) = (stream(out, 1), stream(err, 2));
            let path = policy.path();
            // It ends when the table is installed.
            let script = format!(
                "\"$0\" guard {path} --no-owner {closes_out} {closes_err} & \
                 for i in $(seq 2000); do nft list table inet ephport 2>&1 | grep -q 2000-2999 && break; \
                 sleep 0.01; done; kill $!; wait $!"
            );
            let status = host.run(|| {
                let mut command = Command::new("sh");
                command.args(["-c", &script]).arg(binary());
                command.stdout(stdout).stderr(stderr).status().expect("a shell")
            });
            assert_eq!(status.code(), Some(0), "{out:?} {err:?}");
            assert!(ok(&host, "nft list table inet ephport").contains("2000-2999"));
            ephport_ok(&host, "remove");
        }
    }
}
