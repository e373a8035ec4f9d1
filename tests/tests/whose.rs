//! Which source had a port: the policy's answer is what real connections get.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ephport_cli::Exit;
use ephport_tests::guard::{Guard, GuardedFile};
use ephport_tests::tool::{binary, ok};
use ephport_tests::{
    Host, PolicyFile, Protocol, Routed, SERVER_V4, Server, TempDir, connect, ephport, ephport_ok,
    host_with_uplink,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn answer_is_the_source_of_a_real_connection() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    let policy = "--blocks 10.77.1.0/24=200@1024-65535";
    ephport_ok(&net.router, &format!("apply {policy}"));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let seen = net.client.run(|| connect(protocol, 40_000, (SERVER_V4, 443))).unwrap().seen;
        let found = ephport_ok(&net.router, &format!("whose {seen} {policy}"));
        assert_eq!(found, "10.77.1.2  policy default: ports 1424-1623, tcp,udp,icmp\n");
    }
}

#[test]
fn addresses_and_policies_narrow_the_answer() {
    let file = PolicyFile::new(
        "[[policy]]\nname = \"a\"\nprotocols = [\"tcp\"]\n\
         blocks = \"10.0.0.0/30=100@203.0.113.8/31:1024-1223\"\n\
         [[policy]]\nname = \"b\"\nprotocols = [\"udp\"]\nblocks = \"10.0.1.0/30=50@1024-1223\"\n\
         [[policy]]\nname = \"c\"\nto-ports = \"40000-50000\"\n",
    );
    let host = Host::new("host").unwrap();
    let whose = |endpoint: &str| {
        let ended = ephport(&host, &format!("whose {endpoint} {}", file.path()));
        (ended.exit, ended.out)
    };
    let b = "10.0.1.1  policy b: ports 1074-1123, udp\n";
    let cases = [
        (
            "203.0.113.8:1100",
            Exit::Success,
            format!("10.0.0.0  policy a: ports 1024-1123, tcp\n{b}"),
        ),
        (
            "203.0.113.9:1100",
            Exit::Success,
            format!("10.0.0.2  policy a: ports 1024-1123, tcp\n{b}"),
        ),
        ("203.0.113.10:1100", Exit::Success, b.into()),
        (
            "203.0.113.8:40000",
            Exit::Differs,
            "no source: port 40000 of 203.0.113.8 is in no block\n".into(),
        ),
        (
            "[2001:db8::1]:1100",
            Exit::Differs,
            "no source: port 1100 of 2001:db8::1 is in no block\n".into(),
        ),
        (
            "203.0.113.8:0",
            Exit::Differs,
            "no source: port 0 of 203.0.113.8 is in no block\n".into(),
        ),
    ];
    for (endpoint, exit, out) in cases {
        assert_eq!(whose(endpoint), (exit, out), "{endpoint}");
    }
    assert_eq!(whose("203.0.113.8").0, Exit::Usage);
}

#[test]
fn policies_without_blocks_have_no_answer() {
    let host = Host::new("host").unwrap();
    let ended = ephport(&host, "whose 203.0.113.8:50000 --to-ports 49152-61000");
    let expected = "no source: no policy has blocks, so all sources share its ports\n";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Differs, expected));
}

#[test]
fn programs_get_numbers() {
    let host = Host::new("host").unwrap();
    let line = "whose 203.0.113.8:1100 --json --blocks 10.0.0.0/22=63@1024-65535";
    let document: Value = serde_json::from_str(&ephport_ok(&host, line)).unwrap();
    let source = json!({
        "policy": "default",
        "source": "10.0.0.1",
        "outside": null,
        "ports": [{ "first": 1087, "last": 1149 }],
        "protocols": ["tcp", "udp", "icmp"],
    });
    let asked = json!({ "address": "203.0.113.8", "port": 1100 });
    let expected =
        json!({ "version": 1, "sent_as": asked, "recorded_at": null, "sources": [source] });
    assert_eq!(document, expected);
}

#[test]
fn source_is_found_among_a_million() {
    let host = Host::new("host").unwrap();
    // 1,048,576 sources, 64 for each outside address.
    let line = "whose 198.51.10.0:1100 --blocks 10.0.0.0/12=1000@198.51.0.0/16:1024-65535";
    let expected = "10.2.128.0  policy default: ports 1024-2023, tcp,udp,icmp\n";
    assert_eq!(ephport_ok(&host, line), expected);
}

/// The time now, as `--at` reads it, after a pause so that no record has it.
fn now() -> String {
    std::thread::sleep(std::time::Duration::from_millis(20));
    let host = Host::new("clock").unwrap();
    let time = ok(&host, "date -u +%FT%T.%6NZ");
    std::thread::sleep(std::time::Duration::from_millis(20));
    time.trim().into()
}

#[test]
fn blocks_of_a_file_are_known() {
    let (host, _peer) = host_with_uplink();
    let policy = "[[policy]]\nname = \"a\"\nblocks-file = \"b\\\"\\\\.csv\"\n";
    let file = PolicyFile::new(policy)
        .beside("b\"\\.csv", "source,outside,first,last\n10.0.0.2,198.51.100.1,5000,5999\n");
    let path = file.path();
    let directory = TempDir::new();
    let journal = directory.path().join("journal");
    let journal = journal.to_str().unwrap();
    let line = format!("apply {path} --journal {journal}");
    assert!(ephport_ok(&host, &line).starts_with("installed"));
    assert!(ephport_ok(&host, &line).starts_with("unchanged"));
    let found = "10.0.0.2  policy a: ports 5000-5999, tcp,udp,icmp\n";
    assert_eq!(ephport_ok(&host, &format!("whose 198.51.100.1:5001 {path}")), found);
    assert_eq!(ephport_ok(&host, &format!("show --format toml {path}")), policy);
    let json = ephport_ok(&host, &format!("show --format json {path}"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let written = &json["policies"][0]["written"];
    assert_eq!((&written["blocks_file"], &written["blocks"]), (&"b\"\\.csv".into(), &().into()));
    // The journal answers without the file.
    let at = now();
    drop(file);
    let line = format!("whose 198.51.100.1:5001 --journal {journal} --at {at}");
    assert_eq!(ephport_ok(&host, &line), found);
}

#[test]
fn journal_answers_for_the_past() {
    let host = Host::new("host").unwrap();
    let directory = TempDir::new();
    let journal = directory.path().join("journal");
    let journal = journal.to_str().unwrap();
    let blocks = |source: &str| format!("--blocks {source}/30=64@1024-65535 -o any");
    let whose = |at: &str| {
        let ended =
            ephport(&host, &format!("whose 203.0.113.7:1100 --journal {journal} --at {at}"));
        (ended.exit, ended.out, ended.err)
    };
    assert!(whose("2026-01-01T00:00:00Z").2.contains("cannot use the journal"));
    let before = now();
    ephport_ok(&host, &format!("apply {} --journal {journal}", blocks("10.0.0.0")));
    let first = now();
    ephport_ok(&host, &format!("apply {} --journal {journal}", blocks("10.1.0.0")));
    let second = now();
    // What changes nothing is not recorded, and what is undone is.
    ephport_ok(&host, &format!("apply {} --journal {journal}", blocks("10.1.0.0")));
    let line = format!("apply {} --journal {journal} --confirm 1", blocks("10.2.0.0"));
    let mut command = std::process::Command::new(binary());
    command.args(line.split(' ')).stdin(std::process::Stdio::null());
    assert_eq!(host.run(|| command.output()).unwrap().status.code(), Some(3));
    let undone = now();
    ephport_ok(&host, &format!("remove --journal {journal}"));
    let removed = now();
    assert_eq!(fs::read_to_string(journal).unwrap().lines().count(), 5);
    let file = GuardedFile::new(
        "[[policy]]\nname = \"g\"\nout-interfaces = \"any\"\nblocks = \"10.3.0.0/30=64@1024-65535\"\n",
    );
    let guard = Guard::applied(&host, &file, &["--journal", journal, "--remove-at-exit"]);
    let guarded = now();
    guard.end(Signal::SIGTERM);
    let ended = now();
    // A line that a crash cut.
    fs::write(journal, fs::read_to_string(journal).unwrap() + "{ \"time").unwrap();
    let none = "no source: no policy was installed at that time\n".to_string();
    let of = |source: &str, policy: &str| {
        format!("{source}  policy {policy}: ports 1088-1151, tcp,udp,icmp\n")
    };
    for (at, exit, out) in [
        (before, Exit::Differs, none.clone()),
        (first, Exit::Success, of("10.0.0.1", "default")),
        (second, Exit::Success, of("10.1.0.1", "default")),
        (undone, Exit::Success, of("10.1.0.1", "default")),
        (removed, Exit::Differs, none.clone()),
        (guarded, Exit::Success, of("10.3.0.1", "g")),
        (ended, Exit::Differs, none),
    ] {
        let (found, printed, err) = whose(&at);
        assert_eq!((found, printed), (exit, out), "{at}");
        let warning = format!("warning: line 8 of {journal} is no record: it is skipped\n");
        assert_eq!(err, warning);
    }
    let mode = fs::metadata(journal).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(ephport(&host, "whose 203.0.113.7:1100 --journal x --at now").exit, Exit::Usage);
    assert_eq!(
        ephport(&host, "whose 203.0.113.7:1100 --at 2026-01-01T00:00:00Z").exit,
        Exit::Usage
    );
}

#[test]
fn journal_that_cannot_be_written_changes_nothing() {
    let host = Host::new("host").unwrap();
    let ended = ephport(&host, "apply --to-ports 2000-2999 -o any --journal /absent/journal");
    assert_eq!(ended.exit, Exit::Failure);
    assert!(ended.err.contains("cannot use the journal /absent/journal"), "{}", ended.err);
    assert_eq!(ok(&host, "nft list ruleset"), "");
    let ended = ephport(&host, "apply --to-ports 2000-2999 -o any --journal /dev/full");
    assert!(ended.err.contains("/dev/full: not a regular file"), "{}", ended.err);
    assert_eq!(ok(&host, "nft list ruleset"), "");
    // Without room for the line: the policy is installed by then.
    let directory = TempDir::new();
    let script =
        "trap '' XFSZ; ulimit -f 0; exec \"$0\" apply --to-ports 2000-2999 -o any --journal \"$1\"";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script]).arg(binary()).arg(directory.path().join("journal"));
    let ended = host.run(|| command.output()).unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{err}");
    assert!(err.starts_with("warning: cannot use the journal"), "{err}");
}
