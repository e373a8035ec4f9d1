//! The values of one policy by their keys, each with its place.

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{KEYS, Source, first_key};
use crate::policy::file::error::{Expected, PolicyFileError, PolicyFileErrorKind, ValueError};

/// One `[[policy]]`.
pub(super) struct Fields<'a> {
    pub(super) source: Source<'a>,
    pub(super) table: &'a DeTable<'a>,
    /// Where the policy begins.
    pub(super) span: Range<usize>,
}

/// A string of the file.
pub(super) struct Item<'a> {
    pub(super) text: &'a str,
    pub(super) span: Range<usize>,
}

impl<'a> Fields<'a> {
    pub(super) fn check_keys(&self) -> Result<(), PolicyFileError> {
        let Some(key) = first_key(self.table, |key| !KEYS.contains(&key)) else {
            return Ok(());
        };
        let problem = PolicyFileErrorKind::UnknownKey { key: key.get_ref().as_ref().into() };
        Err(self.source.error(&key.span(), problem))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value stands; where the policy begins, when there is none.
    pub(super) fn value_span(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span)
    }

    pub(super) fn name_span(&self) -> Range<usize> {
        self.value_span("name")
    }

    /// Whether the value is a string of which `holds`.
    pub(super) fn string_if(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        self.table.get(key).and_then(|value| value.get_ref().as_str()).is_some_and(holds)
    }

    pub(super) fn is_list(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_array())
    }

    pub(super) fn string(
        &self,
        key: &'static str,
        example: &'static str,
    ) -> Result<Option<Item<'a>>, PolicyFileError> {
        let value = self.table.get(key);
        value.map(|value| self.item(key, value, Expected::String(example))).transpose()
    }

    /// The string, which is there.
    pub(super) fn typed_string(
        &self,
        key: &'static str,
        expected: Expected,
    ) -> Result<Item<'a>, PolicyFileError> {
        let value = self.table.get(key);
        let value = value.ok_or_else(|| self.not(key, &self.span, expected))?;
        self.item(key, value, expected)
    }

    /// The strings of a list that is not empty.
    pub(super) fn list(
        &self,
        key: &'static str,
        expected: Expected,
    ) -> Result<Option<Vec<Item<'a>>>, PolicyFileError> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        let span = value.span();
        let list = value.get_ref().as_array().ok_or_else(|| self.not(key, &span, expected))?;
        if list.is_empty() {
            let found = self.source.quote(&span);
            return Err(self.source.error(&span, PolicyFileErrorKind::EmptyList { key, found }));
        }
        list.iter().map(|value| self.item(key, value, expected)).collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, PolicyFileError> {
        let Some(value) = self.table.get(key) else {
            return Ok(false);
        };
        let flag = value.get_ref().as_bool();
        flag.ok_or_else(|| self.not(key, &value.span(), Expected::Flag))
    }

    /// The value in a string, if there is one.
    pub(super) fn parsed_string<T: FromStr>(
        &self,
        key: &'static str,
        example: &'static str,
    ) -> Result<Option<T>, PolicyFileError>
    where
        ValueError: From<T::Err>,
    {
        let item = self.string(key, example)?;
        item.map(|item| self.parsed(key, &item)).transpose()
    }

    pub(super) fn parsed<T: FromStr>(
        &self,
        key: &'static str,
        item: &Item<'_>,
    ) -> Result<T, PolicyFileError>
    where
        ValueError: From<T::Err>,
    {
        item.text.parse().map_err(|error: T::Err| self.wrong(key, &item.span, error))
    }

    pub(super) fn wrong(
        &self,
        key: &'static str,
        span: &Range<usize>,
        error: impl Into<ValueError>,
    ) -> PolicyFileError {
        let (found, error) = (self.source.quote(span), error.into());
        self.source.error(span, PolicyFileErrorKind::Value { key, found, error })
    }

    fn not(&self, key: &'static str, span: &Range<usize>, expected: Expected) -> PolicyFileError {
        let found = self.source.quote(span);
        self.source.error(span, PolicyFileErrorKind::Type { key, found, expected })
    }

    fn item(
        &self,
        key: &'static str,
        value: &'a Spanned<DeValue<'a>>,
        expected: Expected,
    ) -> Result<Item<'a>, PolicyFileError> {
        let span = value.span();
        match value.get_ref().as_str() {
            Some(text) => Ok(Item { text, span }),
            None => Err(self.not(key, &span, expected)),
        }
    }
}
