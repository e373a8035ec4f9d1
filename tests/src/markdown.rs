//! The blocks, code spans and table rows of a page of Markdown.

use std::fs;
use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Language and text of each fenced block, in order.
#[must_use]
pub fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for event in parser(page) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                open = Some((language.to_string(), String::new()));
            }
            Event::Text(text) => {
                if let Some((_, block)) = &mut open {
                    block.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
            _ => {}
        }
    }
    blocks
}

/// Each code span, in order.
#[must_use]
pub fn code_spans(page: &str) -> Vec<String> {
    let code = |event| match event {
        Event::Code(code) => Some(code.to_string()),
        _ => None,
    };
    parser(page).filter_map(code).collect()
}

/// The code span that begins the first cell of each row of each table, in order.
#[must_use]
pub fn first_cells(page: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let mut is_first = false;
    for event in parser(page) {
        match event {
            Event::Start(Tag::TableRow) => is_first = true,
            Event::Code(code) if is_first => {
                cells.push(code.to_string());
                is_first = false;
            }
            Event::Text(_) | Event::End(TagEnd::TableCell) => is_first = false,
            _ => {}
        }
    }
    cells
}

/// The count of the tests that a page names as `FILE: TEST`, and those that do not exist. `FILE` is one of
/// `tests/tests`; `nft/FILE` and `core/FILE` are tests of these crates, `ephport-CRATE/FILE` is as it says, any
/// other path is in the source of ephport-nft.
///
/// # Panics
/// When there is no such file.
#[must_use]
pub fn missing_tests(root: &Path, page: &str) -> (usize, Vec<String>) {
    let spans = code_spans(page);
    let named: Vec<_> = spans.iter().filter_map(|span| span.split_once(": ")).collect();
    let is_missing = |(place, test): &&(&str, &str)| {
        let path = match place.split_once('/') {
            None => format!("tests/tests/{place}.rs"),
            Some((name @ ("nft" | "core"), file)) => format!("ephport-{name}/tests/{file}.rs"),
            Some((krate, _)) if krate.starts_with("ephport-") => format!("{place}.rs"),
            Some(_) => format!("ephport-nft/src/{place}.rs"),
        };
        let code = fs::read_to_string(root.join(&path)).expect(&path);
        !code.contains(&format!("fn {test}("))
    };
    let missing = named.iter().filter(is_missing);
    (named.len(), missing.map(|(place, test)| format!("{place}: {test}")).collect())
}

fn parser(page: &str) -> Parser<'_> {
    Parser::new_ext(page, Options::ENABLE_TABLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_spans_and_cells_are_found() {
        let page = "`a` b\n\n```console\n# x\ny `z`\n```\n\n| file | `c` |\n|---|---|\n| `d.rs` | `e` |\n| f | `g` |\n";
        assert_eq!(blocks(page), [("console".into(), "# x\ny `z`\n".into())]);
        assert_eq!(code_spans(page), ["a", "c", "d.rs", "e", "g"]);
        assert_eq!(first_cells(page), ["d.rs"]);
    }
}
