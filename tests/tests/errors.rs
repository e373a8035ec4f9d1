//! Every variant of every error comes up in a test: its message stands there, pinned; or its name,
//! where it only hands on another error.

use std::fs;
use std::path::{Path, PathBuf};

/// A variant of an error, as the sources define it.
struct Variant {
    /// `PortError::Zero`.
    name: String,
    /// The fixed parts of its message.
    message: Vec<String>,
}

/// All Rust files below a directory, with their text.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let paths = fs::read_dir(directory).expect("a directory");
    let mut found = Vec::new();
    for path in paths.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            found.push((path, joined(&text)));
        }
    }
    found
}

/// The text with each literal on one line, however long.
fn joined(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_string();
    lines.fold(first, |whole, line| whole + line.trim_start())
}

/// What of a source is a test.
fn tests(path: &Path, text: &str) -> String {
    let is_test = path.components().any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs");
    let start = if is_test { Some(0) } else { text.find("#[cfg(test)]") };
    start.map_or(String::new(), |start| text[start..].replace("\\\"", "\""))
}

/// The variants of the errors that a source defines.
fn variants(text: &str) -> Vec<Variant> {
    let mut variants = Vec::new();
    for item in text.split("#[derive(").skip(1) {
        let Some((header, body)) = item.split_once(" {\n") else { continue };
        let (derived, header) = header.split_once(")]").unwrap_or_default();
        let Some((_, error)) = header.rsplit_once("enum ") else { continue };
        if derived.ends_with("Error") {
            let body = body.split("\n}\n").next().unwrap_or_default();
            variants.extend(body.split("#[error(").skip(1).map(|text| variant(error, text)));
        }
    }
    variants
}

/// The variant behind an attribute.
fn variant(error: &str, text: &str) -> Variant {
    let is_name = |line: &&str| line.starts_with(|c: char| c.is_ascii_uppercase());
    let name = text.lines().filter_map(|line| line.strip_prefix("    ")).find(is_name);
    let name = name.and_then(|name| name.split([' ', ',', '(']).next()).expect("a name");
    let literal = text.trim_start().strip_prefix('"').unwrap_or_default().replace("\\\"", "\u{1}");
    let literal = literal.split('"').next().unwrap_or_default().replace('\u{1}', "\"");
    let message = literal.split('{').filter_map(|part| part.split('}').next_back());
    let message = message.filter(|part| !part.is_empty()).map(String::from).collect();
    Variant { name: format!("{error}::{name}"), message }
}

/// Whether the parts stand in the text one after another, as in one message.
fn says(text: &str, parts: &[String]) -> bool {
    const FIXED: usize = 8;
    const BETWEEN: usize = 200;
    let Some(first) = parts.first() else { return false };
    let is_telling = parts.iter().map(String::len).sum::<usize>() >= FIXED;
    is_telling
        && text.match_indices(first.as_str()).any(|(at, _)| {
            let mut rest = &text[at + first.len()..];
            parts.iter().skip(1).all(|part| {
                let found = rest.find(part.as_str()).filter(|found| *found <= BETWEEN);
                rest = &rest[found.map_or(0, |found| found + part.len())..];
                found.is_some()
            })
        })
}

#[test]
fn every_variant_of_every_error_comes_up_in_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let parts = ["ephport-core", "ephport-nft", "ephport-cli", "tests"];
    let sources: Vec<_> = parts.iter().flat_map(|part| sources(&root.join(part))).collect();
    let tested: String = sources.iter().map(|(path, text)| tests(path, text)).collect();
    let variants: Vec<_> = sources.iter().flat_map(|(_, text)| variants(text)).collect();
    assert!(variants.len() > 150, "{} variants", variants.len());
    let is_tested =
        |variant: &&Variant| tested.contains(&variant.name) || says(&tested, &variant.message);
    let missing = variants.iter().filter(|variant| !is_tested(variant));
    let missing: Vec<_> = missing.map(|variant| variant.name.as_str()).collect();
    assert!(missing.is_empty(), "in no test: {missing:#?}");
}
