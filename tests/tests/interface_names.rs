//! Interface names of every form that the kernel accepts: each is expressed or refused by name, never skipped
//! in silence.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use ephport_cli::Exit;
use ephport_tests::random::samples;
use ephport_tests::tool::ok;
use ephport_tests::{CommandOutput, Host, PolicyFile, ephport, ephport_ok};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// The names tried; the kernel refuses some of them.
const COUNT: usize = 150;

/// 1 to 15 bytes: any that the kernel may accept, and words and signs with a meaning for ephport or nft.
fn names() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        "any",
        "uplinks",
        "ANY",
        "*",
        "lo*",
        "eth*",
        "eth+",
        "!eth0",
        "eth0,eth1",
        "a\"b",
        "a\\b",
        "\\*",
        "a*b",
        "lo0",
        "none",
        "-",
        "--",
        "-o",
        "a b",
        "@set",
        "$var",
        "#c",
        "{a}",
        "a;b",
        "a|b",
        "'a'",
        "é",
        "ü\u{300}",
        "日本",
        "\u{202e}abc",
        "a\u{a0}b",
        "eth0.100",
        "0",
        "1-2",
        "a=b",
        "[a]",
        "...",
        "a\u{7f}",
    ]);
    let byte = prop_oneof![4 => 33..=126u8, 1 => 1..=255u8];
    let special = select(b"\"\\*+!@#$;,{}[]()<>|&'`~^?=%-_.".to_vec());
    prop_oneof![
        2 => words.prop_map(|word| word.as_bytes().to_vec()),
        2 => vec(byte, 1..=15),
        2 => vec(prop_oneof![special, 97..=122u8], 1..=15),
        1 => "[a-zé日]{1,5}".prop_map(String::into_bytes),
    ]
    .prop_map(|mut name| {
        name.truncate(15);
        name
    })
}

fn ip(host: &Host, words: &[&[u8]]) -> bool {
    host.run(|| {
        let words = words.iter().map(|word| OsStr::from_bytes(word));
        Command::new("ip").args(words).output().expect("ip").status.success()
    })
}

/// The table, as nft lists it.
fn listed(host: &Host) -> String {
    ok(host, "nft list table inet ephport")
}

/// The name as a string of TOML.
fn toml(name: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", name.chars().map(escape).collect::<String>())
}

/// Whether the message names the interface, escaped in one of the ways of messages.
fn is_named(ended: &CommandOutput, name: &[u8]) -> bool {
    let ascii = name.escape_ascii().to_string();
    let text = String::from_utf8_lossy(name);
    let unicode: String = text
        .chars()
        .map(|c| {
            if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) {
                format!("\\u{:04x}", u32::from(c))
            } else {
                c.into()
            }
        })
        .collect();
    let unicode_toml = unicode.replace('"', "\\\"");
    [ascii.as_str(), &text, &unicode, &unicode_toml].iter().any(|name| ended.err.contains(name))
}

fn check_uplink(host: &Host, name: &[u8]) -> bool {
    let ended = ephport(host, "apply --to-ports 49152-61000");
    if ended.exit == Exit::Success {
        let text = std::str::from_utf8(name).expect("an expressible name");
        assert!(listed(host).contains(&format!("oifname \"{text}\"")), "{}", listed(host));
        assert_eq!(ephport(host, "status").exit, Exit::Success);
        ephport_ok(host, "remove");
    } else {
        assert!(is_named(&ended, name), "{:?}: {}", name.escape_ascii().to_string(), ended.err);
        assert_eq!(ok(host, "nft list ruleset"), "");
    }
    ended.exit == Exit::Success
}

fn check_key(host: &Host, key: &str, nft: &str, name: &str) -> bool {
    let interfaces = if key == "in-interfaces" { "out-interfaces = \"any\"\n" } else { "" };
    let file = PolicyFile::new(&format!(
        "[[policy]]\nname = \"a\"\nto-ports = \"49152-61000\"\n{interfaces}{key} = [{}]\n",
        toml(name)
    ));
    let ended = ephport(host, &format!("apply {}", file.path()));
    if ended.exit == Exit::Success {
        let is_word = ["any", "uplinks"].contains(&name.to_ascii_lowercase().as_str());
        let listed = listed(host);
        let has = |name: &str| listed.contains(&format!("{nft} \"{name}\""));
        // nft lists a prefix with its asterisk.
        assert!(is_word || has(name), "{name:?}: {listed}");
        assert!(!ended.err.contains("no interface matches"), "{name:?}: {}", ended.err);
        assert_eq!(ephport(host, "status").exit, Exit::Success, "{name:?}");
        ephport_ok(host, "remove");
    } else {
        assert!(is_named(&ended, name.as_bytes()), "{key} {name:?}: {}", ended.err);
        assert_eq!(ok(host, "nft list ruleset"), "");
    }
    ended.exit == Exit::Success
}

#[test]
fn interface_names_are_expressed_or_refused_by_name() {
    let host = Host::new("host").unwrap();
    let (mut created, mut uplinks, mut keys, mut refused) = (0, 0, 0, 0);
    for name in samples(&names(), COUNT) {
        let link: [&[u8]; 9] =
            [b"link", b"add", b"name", &name, b"type", b"veth", b"peer", b"name", b"peer0"];
        if name.contains(&0) || !ip(&host, &link) {
            continue;
        }
        created += 1;
        assert!(ip(&host, &[b"link", b"set", b"dev", &name, b"up"]));
        ok(&host, "ip link set peer0 up");
        assert!(ip(&host, &[b"route", b"add", b"default", b"dev", &name]));
        uplinks += usize::from(check_uplink(&host, &name));
        match std::str::from_utf8(&name) {
            Ok(text) => {
                let out = check_key(&host, "out-interfaces", "oifname", text);
                let input = check_key(&host, "in-interfaces", "iifname", text);
                keys += usize::from(out) + usize::from(input);
                refused += usize::from(!out) + usize::from(!input);
            }
            // A policy file is UTF-8.
            Err(_) => refused += 1,
        }
        ok(&host, "ip link del peer0");
    }
    assert!(created > COUNT / 2, "{created} created");
    assert!(uplinks > 10 && uplinks < created, "{uplinks} of {created} uplinks");
    assert!(keys > 20 && refused > 20, "{keys} expressed, {refused} refused");
}

/// In flags and in one text of a file a comma separates names, and `\,` is a comma of a name.
#[test]
fn commas_of_names_are_expressed_in_lists_and_flags() {
    let host = Host::new("host").unwrap();
    ok(&host, "ip link add a,b type veth peer name wg,");
    let file = |value: &str| {
        PolicyFile::new(&format!(
            "[[policy]]\nname = \"a\"\nto-ports = \"49152-61000\"\nout-interfaces = {value}\n"
        ))
    };
    let policy = "apply --to-ports 49152-61000";
    let [list, text, both] = [r#"["a,b", "wg,*"]"#, r#"'a\,b,wg\,*'"#, r#"["a,wg"]"#].map(file);
    for line in [
        format!("apply {}", list.path()),
        format!("apply {}", text.path()),
        format!(r"{policy} --name a -o a\,b -o wg\,*"),
        format!(r"{policy} --name a -o a\,b,wg\,*"),
    ] {
        let ended = ephport(&host, &line);
        assert_eq!((ended.exit, ended.err.as_str()), (Exit::Success, ""), "{line}");
        let listed = listed(&host);
        assert!(
            ["a,b", "wg,*"].iter().all(|name| listed.contains(&format!("\"{name}\""))),
            "{listed}"
        );
        // The file that `show` prints is the same policy.
        let shown = ephport_ok(&host, &line.replacen("apply", "show --format toml", 1));
        let shown = PolicyFile::new(&shown);
        assert_eq!(ephport(&host, &format!("diff {}", shown.path())).exit, Exit::Success, "{line}");
    }
    ephport_ok(&host, "remove");
    let ended = ephport(&host, &format!("apply {}", both.path()));
    assert!(ended.err.contains("no interface matches `a,wg` now"), "{}", ended.err);
    assert!(ended.err.contains("The comma is a part of its name"), "{}", ended.err);
}
