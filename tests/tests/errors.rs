//! Every variant of every error comes up in a test: its message stands there, pinned; or its name,
//! where it only hands on another error. And a run of all tests makes each of them come about.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A variant of an error, as the sources define it.
struct Variant {
    /// `PortError::Zero`.
    name: String,
    /// The fixed parts of its message.
    message: Vec<String>,
    /// Whether it is made by `From`, behind a question mark.
    is_handed_on: bool,
}

const CRATES: [&str; 4] = ["ephport-core", "ephport-nft", "ephport-cli", "tests"];

/// All Rust files of the workspace, with their text.
fn workspace() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    CRATES.iter().flat_map(|part| sources(&root.join(part))).collect()
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
            found.push((path, text));
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
    let is_handed_on = text.lines().take(2).any(|line| line.contains("(#[from] "));
    let literal = text.trim_start().strip_prefix('"').unwrap_or_default().replace("\\\"", "\u{1}");
    let literal = literal.split('"').next().unwrap_or_default().replace('\u{1}', "\"");
    let message = literal.split('{').filter_map(|part| part.split('}').next_back());
    let message = message.filter(|part| !part.is_empty()).map(String::from).collect();
    Variant { name: format!("{error}::{name}"), message, is_handed_on }
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

/// Whether the text names it: `Error::Wire` is not `NetlinkError::Wire`, nor `Error::WireLost`.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    })
}

#[test]
fn every_variant_of_every_error_comes_up_in_a_test() {
    let sources = workspace();
    let tested: String = sources.iter().map(|(path, text)| tests(path, &joined(text))).collect();
    let variants: Vec<_> = sources.iter().flat_map(|(_, text)| variants(&joined(text))).collect();
    assert!(variants.len() > 150, "{} variants", variants.len());
    let is_tested =
        |variant: &&Variant| names(&tested, &variant.name) || says(&tested, &variant.message);
    let missing = variants.iter().filter(|variant| !is_tested(variant));
    let missing: Vec<_> = missing.map(|variant| variant.name.as_str()).collect();
    assert!(missing.is_empty(), "in no test: {missing:#?}");
}

/// How often each line of each file was run, as lcov writes it (geninfo(1)).
fn counts(lcov: &str) -> HashMap<PathBuf, HashMap<usize, u64>> {
    let mut counts: HashMap<_, HashMap<_, _>> = HashMap::new();
    let mut file = PathBuf::new();
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = path.into();
        } else if let Some(line) = line.strip_prefix("DA:") {
            let (at, count) = line.split_once(',').expect("a line and its count");
            let at = at.parse().expect("a line");
            let count: u64 = count.parse().expect("a count");
            *counts.entry(file.clone()).or_default().entry(at).or_default() += count;
        }
    }
    counts
}

/// Whether a line makes what is called so, and does not only look whether something is that.
fn makes(line: &str, name: &str) -> bool {
    let (before, after) = line.split_once(name).unwrap_or_default();
    let looks = after.contains("=>") || ["matches!(", "if let "].iter().any(|w| before.contains(w));
    names(line, name) && !looks
}

/// `tests/coverage` runs this. What `From` makes is not counted: derived code has no counters.
#[test]
#[ignore = "needs the counts of a whole run: tests/coverage"]
fn every_variant_of_every_error_comes_about() {
    let lcov = env::var_os("EPHPORT_LCOV").expect("EPHPORT_LCOV, a file of lcov's");
    let counts = counts(&fs::read_to_string(lcov).expect("the counts"));
    let sources = workspace();
    let comes_about = |variant: &Variant, home: &Path| {
        let in_its_file = variant.name.split_once("::").map_or("", |(_, name)| name);
        sources.iter().any(|(path, text)| {
            let own = (path == home).then(|| format!("Self::{in_its_file}"));
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            counts.get(path).is_some_and(|counts| {
                (1..).zip(product.lines()).any(|(at, line)| {
                    let is_run = counts.get(&at).is_some_and(|count| *count > 0);
                    is_run
                        && [Some(&variant.name), own.as_ref()]
                            .into_iter()
                            .flatten()
                            .any(|name| makes(line, name))
                })
            })
        })
    };
    let all = sources.iter().flat_map(|(path, text)| {
        variants(&joined(text)).into_iter().map(move |variant| (path, variant))
    });
    let made: Vec<_> = all.filter(|(_, variant)| !variant.is_handed_on).collect();
    let missing = made.iter().filter(|(home, variant)| !comes_about(variant, home));
    let missing: Vec<_> = missing.map(|(_, variant)| variant.name.as_str()).collect();
    println!("{} variants, {} of which did not come about", made.len(), missing.len());
    assert!(missing.is_empty(), "never made: {missing:#?}");
}
