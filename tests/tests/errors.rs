//! Every variant of every error occurs in a test, by its name or its message; and a run of all tests
//! makes each of them (`tests/coverage`).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::{env, fs};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, ItemEnum, LitStr};

const CRATES: [&str; 5] =
    ["ephport-core", "ephport-nft", "ephport-cli", "ephport-testkit", "tests"];

/// A Rust file of the workspace: its errors, and where it mentions variants.
struct Source {
    path: PathBuf,
    variants: Vec<Variant>,
    tests: Mentions,
    product: Mentions,
}

/// A variant of an enum that derives `Error`.
struct Variant {
    name: (String, String),
    /// The fixed parts of its message.
    message: Vec<String>,
    /// Whether `From` makes it: derived code has no counters.
    is_from: bool,
}

/// The paths of two segments, such as `PortError::Zero`, and the string literals of some code.
#[derive(Default)]
struct Mentions {
    paths: Vec<Mention>,
    literals: String,
}

struct Mention {
    name: (String, String),
    line: usize,
    is_pattern: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for part in CRATES {
        rust_files(&root().join(part), &mut files);
    }
    files.into_iter().map(source).collect()
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn source(path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).expect("a source");
    let file = syn::parse_file(&text).expect("Rust");
    let within = path.strip_prefix(root()).expect("a file of the workspace");
    let is_test = within.components().any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs");
    let mut source =
        Source { path, variants: vec![], tests: Mentions::default(), product: Mentions::default() };
    for item in file.items {
        let is_test =
            is_test || attributes(&item).iter().any(|attribute| is(attribute, "cfg", "test"));
        let mentions = if is_test { &mut source.tests } else { &mut source.product };
        mentions.collect(item.to_token_stream(), false);
        if let Item::Enum(item) = item {
            source.variants.extend(variants(&item));
        }
    }
    source
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether an attribute has this name and contains this word.
fn is(attribute: &Attribute, name: &str, word: &str) -> bool {
    let list = attribute.meta.require_list().ok().filter(|_| attribute.path().is_ident(name));
    list.is_some_and(|list| {
        list.tokens
            .clone()
            .into_iter()
            .any(|token| matches!(token, TokenTree::Ident(ident) if ident == word))
    })
}

fn variants(item: &ItemEnum) -> Vec<Variant> {
    let is_error = item.attrs.iter().any(|attribute| is(attribute, "derive", "Error"));
    let variants = item.variants.iter().filter(|_| is_error);
    variants
        .map(|variant| {
            let message = variant.attrs.iter().find(|attribute| attribute.path().is_ident("error"));
            let first = message.and_then(|message| {
                message.meta.require_list().ok()?.tokens.clone().into_iter().next()
            });
            let literal = first.and_then(|token| syn::parse2::<LitStr>(token.into()).ok());
            Variant {
                name: (item.ident.to_string(), variant.ident.to_string()),
                message: literal.map(|literal| fixed_parts(&literal.value())).unwrap_or_default(),
                is_from: variant.fields.iter().any(|field| {
                    field.attrs.iter().any(|attribute| attribute.path().is_ident("from"))
                }),
            }
        })
        .collect()
}

/// What of a format string is not between braces.
fn fixed_parts(format: &str) -> Vec<String> {
    let parts = format.split('{').filter_map(|part| part.split('}').next_back());
    parts.filter(|part| !part.is_empty()).map(String::from).collect()
}

impl Mentions {
    fn collect(&mut self, tokens: TokenStream, is_pattern: bool) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (i, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    // Not a block, after which `if` may begin the next statement.
                    let is_list = group.delimiter() != Delimiter::Brace;
                    let is_pattern = is_pattern
                        || is_list && ends_pattern(&tokens[i + 1..])
                        || is_matches(&tokens[..i]);
                    self.collect(group.stream(), is_pattern);
                }
                TokenTree::Literal(literal) => {
                    if let Ok(literal) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.literals += &literal.value();
                        self.literals.push('\n');
                    }
                }
                TokenTree::Ident(ident) => {
                    if let Some((second, rest)) = path_of(&tokens[i + 1..]) {
                        self.paths.push(Mention {
                            name: (ident.to_string(), second),
                            line: ident.span().start().line,
                            is_pattern: is_pattern || ends_pattern(rest),
                        });
                    }
                }
                TokenTree::Punct(_) => {}
            }
        }
    }

    fn names(&self, variant: &Variant) -> bool {
        self.paths.iter().any(|mention| mention.name == variant.name)
    }

    /// Whether the parts of the message follow one another, as in one message.
    fn contains_message(&self, parts: &[String]) -> bool {
        const FIXED: usize = 8;
        const BETWEEN: usize = 200;
        let Some(first) = parts.first() else { return false };
        let is_specific = parts.iter().map(String::len).sum::<usize>() >= FIXED;
        is_specific
            && self.literals.match_indices(first.as_str()).any(|(at, _)| {
                let mut rest = &self.literals[at + first.len()..];
                parts.iter().skip(1).all(|part| {
                    let found = rest.find(part.as_str()).filter(|found| *found <= BETWEEN);
                    rest = &rest[found.map_or(0, |found| found + part.len())..];
                    found.is_some()
                })
            })
    }
}

/// After the first segment of a path: the second one, and what follows it and its fields.
fn path_of(tokens: &[TokenTree]) -> Option<(String, &[TokenTree])> {
    match tokens {
        [TokenTree::Punct(a), TokenTree::Punct(b), TokenTree::Ident(second), rest @ ..]
            if a.as_char() == ':' && b.as_char() == ':' =>
        {
            let rest = if let [TokenTree::Group(_), rest @ ..] = rest { rest } else { rest };
            Some((second.to_string(), rest))
        }
        _ => None,
    }
}

/// Whether what precedes these tokens is a pattern: of a match arm, of `let`, or of alternatives.
fn ends_pattern(tokens: &[TokenTree]) -> bool {
    match tokens {
        [TokenTree::Punct(first), TokenTree::Punct(second), ..] if first.as_char() == '=' => {
            second.as_char() == '>' || first.spacing() == Spacing::Alone
        }
        [TokenTree::Punct(first), ..] => {
            ['=', '|'].contains(&first.as_char()) && first.spacing() == Spacing::Alone
        }
        [TokenTree::Ident(ident), ..] => ident == "if",
        _ => false,
    }
}

/// Whether the next group is the arguments of `matches!`.
fn is_matches(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [.., TokenTree::Ident(name), TokenTree::Punct(_)] if name == "matches")
}

#[test]
fn every_variant_occurs_in_a_test() {
    let sources = sources();
    let variants: Vec<_> = sources.iter().flat_map(|source| &source.variants).collect();
    assert!(variants.len() > 150, "{} variants", variants.len());
    let is_tested = |variant: &Variant| {
        sources.iter().any(|source| {
            source.tests.names(variant) || source.tests.contains_message(&variant.message)
        })
    };
    let missing = variants.iter().filter(|variant| !is_tested(variant));
    let missing: Vec<_> = missing.map(|variant| &variant.name).collect();
    assert!(missing.is_empty(), "in no test: {missing:#?}");
}

/// The lines of each file that were run, from a tracefile of lcov (geninfo(1)).
fn run_lines(lcov: &str) -> HashMap<PathBuf, BTreeSet<usize>> {
    let mut lines: HashMap<_, BTreeSet<_>> = HashMap::new();
    let mut file = PathBuf::new();
    for record in lcov.lines() {
        if let Some(path) = record.strip_prefix("SF:") {
            file = path.into();
        } else if let Some((line, count)) =
            record.strip_prefix("DA:").and_then(|data| data.split_once(','))
            && count != "0"
        {
            lines.entry(file.clone()).or_default().insert(line.parse().expect("a line"));
        }
    }
    lines
}

/// `tests/coverage` runs this.
#[test]
#[ignore = "needs the counts of a whole run: tests/coverage"]
fn every_variant_is_made_in_a_run() {
    let lcov = env::var_os("EPHPORT_LCOV").expect("EPHPORT_LCOV, a tracefile of lcov");
    let lines = run_lines(&fs::read_to_string(lcov).expect("the counts"));
    let sources = sources();
    let is_made = |home: &Source, variant: &Variant| {
        sources.iter().any(|source| {
            let own = ("Self".to_string(), variant.name.1.clone());
            let names = [Some(&variant.name), (source.path == home.path).then_some(&own)];
            source.product.paths.iter().any(|mention| {
                !mention.is_pattern
                    && names.contains(&Some(&mention.name))
                    && lines.get(&source.path).is_some_and(|lines| lines.contains(&mention.line))
            })
        })
    };
    let all =
        sources.iter().flat_map(|home| home.variants.iter().map(move |variant| (home, variant)));
    let all: Vec<_> = all.filter(|(_, variant)| !variant.is_from).collect();
    let missing = all.iter().filter(|(home, variant)| !is_made(home, variant));
    let missing: Vec<_> = missing.map(|(_, variant)| &variant.name).collect();
    println!("{} variants, {} of which were not made", all.len(), missing.len());
    assert!(missing.is_empty(), "never made: {missing:#?}");
}
