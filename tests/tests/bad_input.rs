//! Bad input gets one clear error, and the kernel stays as it was.

use std::process::Command;

use ephport_cli::Exit;
use ephport_tests::tool::{binary, nft_load, ok};
use ephport_tests::{Ended, Host, ephport, ephport_ok};

/// A host with a policy and somebody else's table on it.
fn host() -> Host {
    let host = Host::new("host").unwrap();
    nft_load(&host, "table ip other {\n chain c {\n counter\n }\n}");
    ephport_ok(&host, "apply --to-ports 49152-61000 -o any");
    host
}

/// The first line of the error, without clap's own `error: `.
fn message(ended: &Ended) -> &str {
    ended.err.lines().next().and_then(|line| line.strip_prefix("error: ")).unwrap_or(&ended.err)
}

#[test]
fn every_wrong_argument_has_its_message_and_changes_nothing() {
    let host = host();
    let before = ok(&host, "nft list ruleset");
    let cases = [
        (
            "apply --to-ports 0 -o any",
            "invalid value '0' for '--to-ports <PORTS>': port 0 is not a port: expected 1 to 65535",
        ),
        (
            "apply --to-ports 1024-65536 -o any",
            "invalid value '1024-65536' for '--to-ports <PORTS>': \
             port 65536 is too large: expected 1 to 65535",
        ),
        (
            "apply --to-ports 61000-49152 -o any",
            "invalid value '61000-49152' for '--to-ports <PORTS>': \
             range 61000-49152 is reversed: write 49152-61000",
        ),
        (
            "apply --to-ports= -o any",
            "invalid value '' for '--to-ports <PORTS>': \
             empty port range: expected PORT or FIRST-LAST, like 49152-61000",
        ),
        (
            "apply --to-ports abc -o any",
            "invalid value 'abc' for '--to-ports <PORTS>': \
             `abc` is not a port: expected a number from 1 to 65535",
        ),
        (
            "apply --sport 70000 --to-ports 1024 -o any",
            "invalid value '70000' for '--sport <PORTS>': \
             port 70000 is too large: expected 1 to 65535",
        ),
        (
            "apply -p quic --to-ports 1024 -o any",
            "invalid value 'quic' for '--protocol <PROTOCOLS>': \
             unknown protocol `quic`: expected tcp, udp, udplite or sctp",
        ),
        (
            "apply -p dccp --to-ports 1024 -o any",
            "invalid value 'dccp' for '--protocol <PROTOCOLS>': \
             the kernel translates the address of dccp but not its ports: \
             expected tcp, udp, udplite or sctp",
        ),
        (
            "apply --to-ports 1024 -o eth/0",
            "invalid value 'eth/0' for '--out-interface <INTERFACES>': \
             interface name `eth/0` contains '/', which the kernel forbids in a name",
        ),
        (
            "apply --to-ports 1024 -o a-name-of-17-byte",
            "invalid value 'a-name-of-17-byte' for '--out-interface <INTERFACES>': \
             interface name `a-name-of-17-byte` has 17 bytes: the kernel takes at most 15",
        ),
        (
            "apply --to-ports 1024 -o *",
            "invalid value '*' for '--out-interface <INTERFACES>': \
             `*` alone would include loopback: write `any` for every interface but loopback",
        ),
        ("apply", "the following required arguments were not provided:"),
        ("aply", "unrecognized subcommand 'aply'"),
    ];
    for (line, expected) in cases {
        let ended = ephport(&host, line);
        assert_eq!((ended.exit, message(&ended)), (Exit::Usage, expected), "{line}");
        assert_eq!(ended.out, "", "{line}");
    }
    assert_eq!(ok(&host, "nft list ruleset"), before);
}

#[test]
fn without_an_uplink_it_says_what_to_name() {
    let host = host();
    let before = ok(&host, "nft list ruleset");
    let ended = ephport(&host, "apply --to-ports 1024");
    assert_eq!(ended.exit, Exit::Failure);
    assert_eq!(
        message(&ended),
        "no uplink found: no interface holds a default route; \
         name the interfaces with `-o eth0`, or take all of them with `-o any`"
    );
    assert_eq!(ok(&host, "nft list ruleset"), before);
}

#[test]
fn an_interface_that_does_not_exist_is_taken_with_a_warning() {
    let host = Host::new("host").unwrap();
    let ended = ephport(&host, "apply --to-ports 1024 -o absent0,lo");
    assert_eq!(ended.exit, Exit::Success);
    assert_eq!(
        ended.err,
        "warning: no interface matches `absent0` now; \
         the policy will hold for it as soon as there is one\n"
    );
}

#[test]
fn a_table_made_by_hand_is_neither_replaced_nor_removed() {
    let host = Host::new("host").unwrap();
    nft_load(&host, "table inet ephport {\n comment \"mine\"\n chain c {\n counter\n }\n}");
    let before = ok(&host, "nft list ruleset");
    let expected = "table inet ephport exists but ephport did not make it: look at it with \
                    `nft list table inet ephport`, and rename or delete it";
    for line in ["apply --to-ports 1024 -o any", "apply --to-ports 1024 -o any --dry-run", "remove"]
    {
        let ended = ephport(&host, line);
        assert_eq!((ended.exit, message(&ended)), (Exit::Failure, expected), "{line}");
    }
    let ended = ephport(&host, "status");
    assert_eq!(ended.exit, Exit::Differs);
    assert_eq!(ended.out, "foreign: table inet ephport exists, but ephport did not make it\n");
    assert_eq!(ok(&host, "nft list ruleset"), before);
}

#[test]
fn without_the_capability_it_says_which_one() {
    let host = host();
    let before = ok(&host, "nft list ruleset");
    let lines = [("apply --to-ports 1024 -o any", "read"), ("remove", "read"), ("status", "read")];
    for (line, task) in lines {
        let ended = unprivileged(&host, line);
        let expected = format!(
            "error: the kernel asks for CAP_NET_ADMIN to {task} the ruleset: run as root, \
             or in a user and network namespace of your own\n"
        );
        assert_eq!(ended, (1, String::new(), expected), "{line}");
    }
    // What only shows needs none.
    let (code, out, err) = unprivileged(&host, "show --to-ports 1024 -o any");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("table inet ephport {\n"), "{out}");
    assert_eq!(ok(&host, "nft list ruleset"), before);
}

/// Runs the binary on `host` without any capability: exit code and output.
fn unprivileged(host: &Host, line: &str) -> (i32, String, String) {
    let output = host.run(|| {
        Command::new("setpriv")
            .args(["--securebits", "+noroot", "--bounding-set", "-all", "--inh-caps", "-all"])
            .arg(binary())
            .args(line.split_whitespace())
            .output()
            .expect("setpriv, of util-linux")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("a code"), text(&output.stdout), text(&output.stderr))
}
