//! The table of keys in docs/policy.md is that of the program; `UPDATE_EXPECT=1` renews it.

use std::fmt::Write as _;
use std::path::Path;

use ephport_core::PortRange;
use ephport_core::policy::key::{Flag, Group, Key, Kind};
use ephport_core::policy::keys::KEYS;
use expect_test::expect_file;

const START: &str = "<!-- keys -->\n";
const END: &str = "<!-- end of keys -->\n";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    std::fs::read_to_string(path).expect("docs/policy.md")
}

fn flag(key: &Key) -> String {
    let short = key.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let alias = key.alias.map(|alias| format!(", `--{alias}`")).unwrap_or_default();
    match key.flag {
        Flag::Name(flag) => format!("{short}`--{flag}`{alias}"),
        Flag::Words => {
            let flags: Vec<_> = key.words.iter().map(|(word, _)| format!("`--{word}`")).collect();
            flags.join(", ")
        }
    }
}

fn default(key: &Key) -> String {
    match (key.group, key.default, key.kind) {
        (Group::Target, ..) => "one is required".into(),
        (Group::Name, ..) => "required".into(),
        (_, "", _) => key.unset.into(),
        (_, default, Kind::List) => {
            let items: Vec<_> = default.split(',').map(|item| format!("`{item}`")).collect();
            items.join(", ")
        }
        (_, default, _) => format!("`{default}`"),
    }
}

#[test]
fn table_lists_every_key() {
    let mut table =
        String::from("| key | flag | default | meaning | example |\n|---|---|---|---|---|\n");
    for key in &KEYS {
        let Key { name, help, example, .. } = key;
        let (flag, default) = (flag(key), default(key));
        writeln!(table, "| `{name}` | {flag} | {default} | {help} | `{example}` |")
            .expect("a line");
    }
    let page = page();
    let (before, rest) = page.split_once(START).expect("the start of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    expect_file!["../../docs/policy.md"].assert_eq(&format!("{before}{START}{table}{END}{after}"));
}

#[test]
fn named_ranges_are_listed() {
    let page = page();
    for (name, range) in PortRange::NAMED {
        assert!(page.contains(&format!("\n| `{name}` | {range} | ")), "{name}");
    }
}
