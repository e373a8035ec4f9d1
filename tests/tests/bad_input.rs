//! Bad input gets one clear error, and the kernel stays as it was.

use std::io::{self, ErrorKind, Write};
use std::process::Command;

use ephport_cli::Exit;
use ephport_core::policy::key::{Flag, Group, Key, Kind};
use ephport_core::policy::keys::KEYS;
use ephport_tests::tool::{binary, nft_load, ok, tool};
use ephport_tests::{CommandOutput, Host, PolicyFile, ephport, ephport_ok};

/// A host with a policy and another tool's table on it.
fn host() -> Host {
    let host = Host::new("host").unwrap();
    nft_load(&host, "table ip other {\n chain c {\n counter\n }\n}");
    ephport_ok(&host, "apply --to-ports 49152-61000 -o any");
    host
}

/// The first line of the error, without clap's own `error: `.
fn message(ended: &CommandOutput) -> &str {
    ended.err.lines().next().and_then(|line| line.strip_prefix("error: ")).unwrap_or(&ended.err)
}

#[test]
fn wrong_arguments_are_named_and_change_nothing() {
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
             unknown protocol `quic`: expected tcp, udp, udplite, sctp, icmp or icmpv6",
        ),
        (
            "apply -p dccp --to-ports 1024 -o any",
            "invalid value 'dccp' for '--protocol <PROTOCOLS>': \
             the kernel translates the address of dccp but not its ports: \
             expected tcp, udp, udplite, sctp, icmp or icmpv6",
        ),
        (
            "apply --to-ports 1024 -o eth/0",
            "invalid value 'eth/0' for '--out-interface <INTERFACES>': \
             interface name `eth/0` contains '/', which is not supported in a name",
        ),
        (
            "apply --to-ports 1024 -o a-name-of-17-byte",
            "invalid value 'a-name-of-17-byte' for '--out-interface <INTERFACES>': \
             interface name `a-name-of-17-byte` has 17 bytes: the kernel accepts at most 15",
        ),
        (
            "apply --to-ports 1024 -o *",
            "invalid value '*' for '--out-interface <INTERFACES>': \
             `*` includes loopback: write `any` for every interface except loopback",
        ),
        ("aply", "unrecognized subcommand 'aply'"),
    ];
    each_is_wrong_usage(&host, &cases);
    assert_eq!(ok(&host, "nft list ruleset"), before);
}

fn each_is_wrong_usage(host: &Host, cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let ended = ephport(host, line);
        assert_eq!((ended.exit, message(&ended)), (Exit::Usage, *expected), "{line}");
        assert_eq!(ended.out, "", "{line}");
    }
}

#[test]
fn contradictory_arguments_are_named() {
    let cases = [
        (
            "apply --to-ports 1024 --map-e psid=52,psid-len=8,offset=4",
            "the argument '--to-ports <PORTS>' cannot be used with '--map-e <PARAMETERS>'",
        ),
        (
            "apply --blocks 10.0.0.0/30=64@1024-2047 --to-ports local",
            "the argument '--blocks <BLOCKS>' cannot be used with '--to-ports <PORTS>'",
        ),
        (
            "apply policy.toml --to-ports 1024",
            "the argument '[FILE]' cannot be used with '--to-ports <PORTS>'",
        ),
        (
            "apply --to-ports 1024 -s 10.0.0.0/33",
            "invalid value '10.0.0.0/33' for '--source <CIDR>': `10.0.0.0/33` is not a network: \
             expected one like 10.0.0.0/8 or 2001:db8::/32, or an address",
        ),
        (
            "apply --to-ports 1024 --except-destination home",
            "invalid value 'home' for '--except-destination <CIDR>': `home` is not a network: \
             expected one like 10.0.0.0/8 or 2001:db8::/32, or an address",
        ),
        (
            "apply --to-ports 1024 --address 10.0.0",
            "invalid value '10.0.0' for '--address <ADDRESS>': \
             expected auto, masquerade, keep or an address like 192.0.2.1",
        ),
        (
            "apply --map-e psid=52",
            "invalid value 'psid=52' for '--map-e <PARAMETERS>': `psid-len` is missing: \
             expected psid=52,psid-len=8,offset=6, or \
             ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,\
             delegated=2001:db8:12:3400::/56",
        ),
        (
            "apply --blocks 10.0.0.0/30=600@1024-2047",
            "invalid value '10.0.0.0/30=600@1024-2047' for '--blocks <BLOCKS>': \
             4 sources need a block of 600 ports each, and there are 1: \
             expected blocks of at most 256 ports",
        ),
        (
            "apply --to-ports 1024 --origin here",
            "invalid value 'here' for '--origin <ORIGIN>': expected local, forwarded or both",
        ),
        (
            "apply --to-ports 1024 -s 10.0.0.0/8 -s 10.0.0.1/8",
            "invalid value '10.0.0.1/8' for '--source <CIDR>': 10.0.0.1/8 has bits after its \
             prefix: expected the network 10.0.0.0/8 or the address 10.0.0.1",
        ),
        (
            "show --to-ports 1024 --format nft --format json",
            "the argument '--format <FORMAT>' cannot be used multiple times",
        ),
    ];
    each_is_wrong_usage(&Host::new("host").unwrap(), &cases);
}

/// The flags under the headings of a policy in the help.
fn policy_flags(host: &Host) -> Vec<String> {
    let help = ephport_ok(host, "apply --help");
    let (_, policy) = help.split_once("\nPolicy: ").expect("the heading");
    // `  -p, --protocol <PROTOCOLS>` or `      --sport <PORTS>`
    let long = |line: &str| line.get(6..)?.strip_prefix("--").map(str::to_string);
    let name = |line: String| line.split(' ').next().expect("a name").to_string();
    policy.lines().filter_map(long).map(name).collect()
}

/// Each flag of a key with a value.
fn flags(key: &Key) -> Vec<(String, String)> {
    let value = match key.kind {
        Kind::Switch => String::new(),
        _ => key.example.replace(['"', '[', ']', ' '], ""),
    };
    match key.flag {
        Flag::Name(flag) => vec![(flag.into(), value)],
        Flag::Words => key.words.iter().map(|(word, _)| ((*word).into(), String::new())).collect(),
    }
}

#[test]
fn policy_flags_need_a_target_and_no_file() {
    let host = Host::new("host").unwrap();
    let mut shown = policy_flags(&host);
    let mut known: Vec<_> = KEYS.iter().flat_map(flags).map(|(flag, _)| flag).collect();
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known);
    for (key, (flag, value)) in
        KEYS.iter().flat_map(|key| flags(key).into_iter().map(move |f| (key, f)))
    {
        let ended = ephport(&host, &format!("apply policy.toml --{flag} {value}"));
        assert_eq!(ended.exit, Exit::Usage, "{flag}");
        let beside = format!("the argument '[FILE]' cannot be used with '--{flag}");
        assert!(message(&ended).starts_with(&beside), "{flag}: {}", ended.err);
        if key.group == Group::Target {
            continue;
        }
        let ended = ephport(&host, &format!("apply --{flag} {value}"));
        assert_eq!(ended.exit, Exit::Usage, "{flag}");
        let expected = "error: the following required arguments were not provided:\n  \
                        <--to-ports <PORTS>|--map-e <PARAMETERS>|--blocks <BLOCKS>|--blocks-file <FILE>>\n";
        assert!(ended.err.starts_with(expected), "{flag}: {}", ended.err);
    }
}

#[test]
fn bad_file_of_blocks_is_named_with_its_line() {
    let host = Host::new("host").unwrap();
    let policy = "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nblocks-file = \"b.csv\"\n";
    let good = "10.0.0.1,,1024,2047\n";
    let twice = "lines 1 and 2: 10.0.0.1=1024-2047 and 10.0.0.1=1-2 are for the same source: expected one \
                 block for each";
    for (csv, expected) in [
        (good.to_string() + "10.0.0.1,,1,2", twice),
        (
            good.to_string() + "10.0.0.2,,0,2",
            "line 2: first: port 0 is not a port: expected 1 to 65535",
        ),
    ] {
        let file = PolicyFile::new(policy).beside("b.csv", &csv);
        for command in ["apply", "apply --dry-run", "show", "diff", "whose 192.0.2.1:1024"] {
            let ended = ephport(&host, &format!("{command} {}", file.path()));
            let place = format!("error: {}:4:15: blocks-file \"b.csv\": ", file.path());
            assert_eq!((ended.exit, ended.err), (Exit::Failure, format!("{place}{expected}\n")));
        }
        let csv = file.path().replace("policy.toml", "b.csv");
        let ended = ephport(&host, &format!("apply -o any --blocks-file {csv}"));
        assert_eq!(ended.exit, Exit::Usage);
        let place = format!("invalid value '{csv}' for '--blocks-file <FILE>': ");
        assert_eq!(message(&ended), place + expected);
    }
    let absent = PolicyFile::new(policy);
    let ended = ephport(&host, &format!("apply {}", absent.path()));
    assert!(ended.err.contains("cannot read the file: No such file or directory"), "{}", ended.err);
    let excluded = PolicyFile::new(&format!("{policy}spread = \"hash\"\n")).beside("b.csv", good);
    let ended = ephport(&host, &format!("apply {}", excluded.path()));
    assert!(ended.err.contains("blocks-file and spread exclude each other"), "{}", ended.err);
    assert_eq!(ok(&host, "nft list ruleset"), "");
}

#[test]
fn contradictory_flags_are_wrong_usage() {
    let host = Host::new("host").unwrap();
    let cases = [
        (
            "--to-ports 1024-2047 --except-ports 1024-4095",
            "no ports left to permit: --to-ports minus --except-ports is empty",
        ),
        (
            "--to-ports 1024 --address 192.0.2.1 --ipv6",
            "--ipv4/--ipv6 ipv6 and --address 192.0.2.1 exclude each other: no connection can match \
             both",
        ),
        (
            "--blocks 10.0.0.0/30=64@1024-2047 --per-source-stable",
            "--blocks and --per-source-stable exclude each other: each source has one block",
        ),
    ];
    for (flags, expected) in cases {
        let ended = ephport(&host, &format!("apply -o any {flags}"));
        assert_eq!((ended.exit, message(&ended)), (Exit::Usage, expected), "{flags}");
    }
}

#[test]
fn lost_output_of_show_is_an_error_unless_unread() {
    struct Full(ErrorKind);
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let host = Host::new("host").unwrap();
    let full = "error: cannot write to standard output: no storage space\n";
    let cases =
        [(ErrorKind::StorageFull, Exit::Failure, full), (ErrorKind::BrokenPipe, Exit::Success, "")];
    for (kind, expected, message) in cases {
        let words = ["ephport-nft", "show", "--to-ports", "1024", "-o", "any"].map(Into::into);
        let mut err = Vec::new();
        let exit =
            host.run(|| ephport_cli::run(words, &mut io::empty(), &mut Full(kind), &mut err));
        assert_eq!((exit, String::from_utf8(err).unwrap().as_str()), (expected, message));
    }
}

#[test]
fn missing_route_socket_is_reported() {
    // With standard input closed and three files at most, none is left when the program runs.
    let output = Command::new("sh")
        .args(["-c", "exec <&-; ulimit -n 3; exec \"$0\" show --to-ports 1024"])
        .arg(binary())
        .output()
        .expect("a shell");
    let expected = "error: cannot read the interfaces and routes: cannot open a netlink socket \
                    (EMFILE: Too many open files): this process has too many open files; close some, \
                    or raise the limit with `ulimit -n`";
    let err = String::from_utf8_lossy(&output.stderr);
    // A program whose coverage is measured cannot write that either, and reports it.
    let err: Vec<_> = err.lines().filter(|line| !line.starts_with("LLVM Profile")).collect();
    assert_eq!((output.status.code(), err), (Some(1), vec![expected]));
}

#[test]
fn missing_uplink_error_names_the_flag() {
    let host = host();
    let before = ok(&host, "nft list ruleset");
    let ended = ephport(&host, "apply --to-ports 1024");
    assert_eq!(ended.exit, Exit::Failure);
    assert_eq!(
        message(&ended),
        "policy `default`: no uplink found: no interface has a default route; \
         name the interfaces, or use `any` for all of them"
    );
    assert_eq!(ok(&host, "nft list ruleset"), before);
}

#[test]
fn missing_interface_is_accepted_with_a_warning() {
    let host = Host::new("host").unwrap();
    let ended = ephport(&host, "apply --to-ports 1024 -o absent0");
    assert_eq!(ended.exit, Exit::Success);
    assert_eq!(
        ended.err,
        "warning: policy default: no interface matches `absent0` now; \
         the policy applies to it as soon as one does\n"
    );
}

#[test]
fn foreign_table_is_neither_replaced_nor_removed() {
    let host = Host::new("host").unwrap();
    nft_load(&host, "table inet ephport {\n comment \"mine\"\n chain c {\n counter\n }\n}");
    let before = ok(&host, "nft list ruleset");
    let expected = "table inet ephport exists and has another owner; look at it with \
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
fn missing_capability_is_named() {
    let host = host();
    let before = ok(&host, "nft list ruleset");
    for line in ["apply --to-ports 1024 -o any", "remove", "status"] {
        let ended = unprivileged(&host, line);
        let expected = "error: permission denied: reading the ruleset requires CAP_NET_ADMIN; run as \
                        root, or in a user and network namespace of your own\n";
        assert_eq!(ended, (1, String::new(), expected.into()), "{line}");
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

#[test]
fn a_dash_is_standard_input() {
    let host = host();
    let document =
        "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"49152-61000\"\n";
    for (command, input, code, text) in [
        ("show", document, 0, "masquerade to :49152-61000"),
        ("apply", document, 0, "policy a"),
        ("diff", document, 0, ""),
        ("apply", "[[policy]]", 1, "error: -:1:1: [[policy]]: the policy has no name"),
    ] {
        let printed = tool(&host, binary().to_str().unwrap(), &[command, "-"], input);
        assert_eq!(printed.success, code == 0, "{command}: {printed:?}");
        assert!(printed.out.contains(text) || printed.err.contains(text), "{command}: {printed:?}");
    }
}
