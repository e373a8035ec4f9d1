//! README.md and docs/ show what the commands print, and their policies are policies.
//!
//! A console block is one command and its output; `policy.toml` in it is the last TOML block before.
//! `UPDATE_EXPECT=1` renews the output in the documents; review it with `git diff`.
//! The table's owner and fingerprint, which name a version, are skipped.

use std::env;
use std::path::{Path, PathBuf};

use ephport_core::Document;
use ephport_core::policy::keys::KEYS;
use ephport_tests::markdown::blocks;
use ephport_tests::{Host, PolicyFile, Texts, ephport_args, ephport_ok, host_with_uplink};

/// Path and text of README.md and of each file in docs.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).expect("docs");
    let mut paths: Vec<_> = docs.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.insert(0, root.join("README.md"));
    let page = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("its text");
        (path, text)
    };
    paths.into_iter().map(page).collect()
}

/// Splits at spaces, but not between double quotes.
fn words(line: &str) -> Vec<&str> {
    let pieces = line.split('"').enumerate();
    pieces
        .flat_map(|(i, piece)| match i % 2 {
            0 => piece.split_whitespace().collect(),
            _ => vec![piece],
        })
        .collect()
}

#[test]
fn shown_commands_print_the_shown_output() {
    let mut count = 0;
    for (path, page) in pages() {
        let (host, _peer) = host_with_uplink();
        let (mut policy, mut renewed) = (None, page.clone());
        for (language, block) in blocks(&page) {
            match language.as_str() {
                "toml" => policy = Some(PolicyFile::new(&block)),
                "console" => {
                    let (command, shown) = block.split_once('\n').expect("a command");
                    let line = command.strip_prefix("# ephport-nft ").expect("a command of ours");
                    let printed = printed(&host, line, policy.as_ref());
                    if env::var_os("UPDATE_EXPECT").is_some() {
                        let shown = format!("{command}\n{shown}```");
                        renewed = renewed.replace(&shown, &format!("{command}\n{printed}```"));
                    } else {
                        assert_eq!(printed, shown, "{}: {command}", path.display());
                    }
                    count += 1;
                }
                _ => {}
            }
        }
        if renewed != page {
            std::fs::write(&path, renewed).expect("written");
        }
    }
    assert!(count >= 15, "{count}");
}

fn printed(host: &Host, line: &str, policy: Option<&PolicyFile>) -> String {
    let words = words(line).into_iter().map(|word| match word {
        "policy.toml" => policy.expect("a policy before").path(),
        word => word,
    });
    let ended = ephport_args(host, words.collect::<Vec<_>>(), b"");
    assert_eq!(ended.err, "", "{line}");
    let is_owner = |line: &&str| *line == "\tcomment \"ephport-nft\"\n";
    let lines = ended.out.split_inclusive('\n').filter(|line| !is_owner(line));
    lines.map(unsigned).collect()
}

/// A line without the fingerprint in a rule's comment, and with an example of one elsewhere.
fn unsigned(line: &str) -> String {
    if let Some((before, _)) = line.split_once("fingerprint ") {
        return format!("{before}fingerprint 0123456789abcdef\n");
    }
    match line.split_once(" comment \"ephport-nft ") {
        Some((rule, _)) => format!("{rule}\n"),
        None => line.into(),
    }
}

#[test]
fn shown_policies_roundtrip() {
    let host = Host::new("host").unwrap();
    let mut count = 0;
    for (path, page) in pages() {
        // The file of blocks that the page shows.
        let csv = blocks(&page).into_iter().find(|(language, _)| language == "csv");
        let csv = csv.map(|(_, text)| text).unwrap_or_default();
        for (_, block) in blocks(&page).into_iter().filter(|(language, _)| language == "toml") {
            let file = PolicyFile::new(&whole(&block)).beside("blocks.csv", &csv);
            let printed = ephport_ok(&host, &format!("show --format toml {}", file.path()));
            let files = Texts(&[("blocks.csv", &csv)]);
            let parse = |text: &str| Document::read(text, &files).expect("a document");
            assert_eq!(parse(&printed), parse(&whole(&block)), "{}:\n{block}", path.display());
            count += 1;
        }
    }
    assert!(count >= 20, "{count}");
}

/// Lines of a policy with what they need around them.
fn whole(block: &str) -> String {
    if block.contains("[[policy]]") {
        return block.into();
    }
    let has_target = ["to-ports", "map-e", "blocks"].iter().any(|key| block.starts_with(key));
    let target = if has_target { "" } else { "to-ports = \"49152-61000\"\n" };
    format!("[[policy]]\nname = \"example\"\n{target}{block}")
}

#[test]
fn every_key_has_its_example() {
    let pages = pages();
    let (_, page) =
        pages.iter().find(|(path, _)| path.ends_with("policy.md")).expect("docs/policy.md");
    let examples: String = blocks(page).into_iter().map(|(_, block)| block).collect();
    for key in KEYS.map(|key| key.name) {
        assert!(examples.contains(&format!("\n{key} = ")) || examples.starts_with(key), "{key}");
    }
}
