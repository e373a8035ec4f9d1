//! The text of a policy file, and places in it.

use std::ops::Range;

use super::error::{Expected, PolicyFileError, PolicyFileErrorKind};
use crate::policy::key::Kind;
use crate::policy::keys;
use crate::text::excerpt;

/// The text of a policy file.
#[derive(Clone, Copy)]
pub(super) struct Source<'a>(pub(super) &'a str);

impl<'a> Source<'a> {
    /// The error of the TOML reader, or the value without quotes that caused it.
    pub(super) fn syntax(self, error: &toml::de::Error) -> PolicyFileError {
        let span = error.span().unwrap_or(0..0);
        if let Some(error) = self.unquoted(span.start) {
            return error;
        }
        let found = match self.quote(&span) {
            empty if empty.is_empty() => self.line_of(span.start).trim().into(),
            found => found,
        };
        let message = error.message().replace('\n', ": ").into();
        self.error(&span, PolicyFileErrorKind::Syntax { found, message })
    }

    /// The error of a value without quotes, if that is what the line of this place has.
    fn unquoted(self, place: usize) -> Option<PolicyFileError> {
        let line = self.line_of(place);
        let (name, rest) = line.split_once('=')?;
        let key = keys::find(name.trim())?;
        let value = rest.split('#').next().unwrap_or(rest).trim();
        if value.is_empty() || value.contains(['"', '\'', '{', '=']) {
            return None;
        }
        let start = self.line_start(place) + line.find(value)?;
        if key.kind == Kind::Switch {
            let (key, found) = (key.name, excerpt(value).to_string().into());
            let problem = PolicyFileErrorKind::Type { key, found, expected: Expected::Flag };
            return Some(self.error(&(start..start), problem));
        }
        let list = value.strip_prefix('[').map(|list| list.strip_suffix(']').unwrap_or(list));
        let quoted = |item: &str| format!("\"{}\"", excerpt(item.trim()));
        let suggestion = match list {
            Some(list) => {
                let items = list.split(',').filter(|item| !item.trim().is_empty());
                format!("{} = [{}]", key.name, items.map(quoted).collect::<Vec<_>>().join(", "))
            }
            None => format!("{} = {}", key.name, quoted(value)),
        };
        let problem =
            PolicyFileErrorKind::Unquoted { found: value.into(), suggestion: suggestion.into() };
        Some(self.error(&(start..start), problem))
    }

    pub(super) fn error(
        self,
        span: &Range<usize>,
        problem: PolicyFileErrorKind,
    ) -> PolicyFileError {
        let before = self.0.get(..span.start).unwrap_or(self.0);
        let last_line = before.rsplit('\n').next().unwrap_or(before);
        let line = before.matches('\n').count() + 1;
        PolicyFileError { line, column: last_line.chars().count() + 1, problem: Box::new(problem) }
    }

    /// The text there, cut to what fits in a message.
    pub(super) fn quote(self, span: &Range<usize>) -> Box<str> {
        let text = self.0.get(span.clone()).unwrap_or("");
        let first_line = text.lines().next().unwrap_or("");
        let dots = if first_line.len() < text.trim_end().len() { "..." } else { "" };
        format!("{}{dots}", excerpt(first_line)).into()
    }

    fn line_start(self, place: usize) -> usize {
        self.0.get(..place).and_then(|before| before.rfind('\n')).map_or(0, |i| i + 1)
    }

    fn line_of(self, place: usize) -> &'a str {
        self.0.get(self.line_start(place)..).and_then(|rest| rest.lines().next()).unwrap_or("")
    }
}
