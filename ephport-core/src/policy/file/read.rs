//! TOML as policies.
//!
//! The tree is walked by hand rather than by serde, so that each error has its place.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document_error::DocumentError;
use super::error::{Expected, PolicyFileError, PolicyFileErrorKind};
use super::source::Source;
use crate::policy::key::{Group, Key, Kind};
use crate::policy::keys::{self, KEYS};
use crate::policy::value::{Files, Input, InputError};
use crate::policy::{Policy, PolicySpec, Target};

/// A policy and the place of its name.
pub(super) struct Read {
    pub(super) policy: Policy,
    name_span: Range<usize>,
}

/// The policies of the text.
pub(super) fn read(text: &str, files: Option<&dyn Files>) -> Result<Vec<Read>, PolicyFileError> {
    let source = Source(text);
    let root = DeTable::parse(text).map_err(|error| source.syntax(&error))?;
    let root = root.get_ref();
    if let Some(key) = first_key(root, |key| key != "policy") {
        let name = key.get_ref().as_ref();
        let problem = match keys::find(name) {
            Some(key) => PolicyFileErrorKind::OutsidePolicy { key: key.name },
            None => PolicyFileErrorKind::UnknownTopKey { key: name.into() },
        };
        return Err(source.error(&key.span(), problem));
    }
    let Some(value) = root.get("policy") else {
        return Err(source.error(&(0..0), PolicyFileErrorKind::NoPolicy));
    };
    let fields = tables(source, value, files)?;
    if fields.is_empty() {
        return Err(source.error(&value.span(), PolicyFileErrorKind::NoPolicy));
    }
    fields.iter().map(Fields::policy).collect()
}

/// The error with the place of the policy at fault.
pub(super) fn locate(text: &str, policies: &[Read], error: DocumentError) -> PolicyFileError {
    let second = match &error {
        DocumentError::Duplicate { second, .. } => policies.get(*second),
        DocumentError::Empty => None,
    };
    let span = second.map_or(0..0, |read| read.name_span.clone());
    let found = Source(text).quote(&span);
    Source(text).error(&span, PolicyFileErrorKind::Document { found, error })
}

/// The first key, in order of the text, that is wrong.
fn first_key<'a, 'i>(
    table: &'a DeTable<'i>,
    is_wrong: impl Fn(&str) -> bool,
) -> Option<&'a Spanned<Cow<'i, str>>> {
    table.keys().filter(|key| is_wrong(key.get_ref())).min_by_key(|key| key.span().start)
}

fn tables<'a>(
    source: Source<'a>,
    value: &'a Spanned<DeValue<'a>>,
    files: Option<&'a dyn Files>,
) -> Result<Vec<Fields<'a>>, PolicyFileError> {
    let not_a_table = |value: &Spanned<DeValue<'_>>, name: Option<Box<str>>| {
        source.error(&value.span(), PolicyFileErrorKind::Table { name })
    };
    match value.get_ref() {
        DeValue::Array(tables) => tables
            .iter()
            .map(|value| {
                let table = value.get_ref().as_table().ok_or_else(|| not_a_table(value, None))?;
                Ok(Fields { source, files, table, span: value.span() })
            })
            .collect(),
        DeValue::Table(table) => {
            let mut named = table.iter().filter(|(_, value)| value.get_ref().is_table());
            let first = named.next();
            let (value, name) = first.map_or((value, None), |(name, value)| {
                (value, Some(name.get_ref().as_ref().into()))
            });
            Err(not_a_table(value, name))
        }
        _ => Err(not_a_table(value, None)),
    }
}

/// One `[[policy]]`.
struct Fields<'a> {
    source: Source<'a>,
    files: Option<&'a dyn Files>,
    table: &'a DeTable<'a>,
    /// The start of the policy.
    span: Range<usize>,
}

impl Fields<'_> {
    fn policy(&self) -> Result<Read, PolicyFileError> {
        self.check_keys()?;
        let mut spec = PolicySpec::to(Target::Local);
        let mut given = KEYS.iter().filter_map(|key| Some((key, self.table.get(key.name)?)));
        // The name is the first key, so that later messages can use it.
        given.try_for_each(|(key, value)| self.set(&mut spec, key, value))?;
        if !self.table.contains_key("name") {
            let found = self.source.quote(&self.span);
            return Err(self.source.error(&self.span, PolicyFileErrorKind::NoName { found }));
        }
        self.check_target(&spec)?;
        let (name, name_span) = (spec.name.clone(), self.value_span("name"));
        let policy = Policy::new(spec).map_err(|error| {
            let spans = error.keys().into_iter().filter(|key| self.table.contains_key(*key));
            let last = spans.map(|key| self.value_span(key)).max_by_key(|span| span.start);
            let problem = PolicyFileErrorKind::Policy { policy: name, error };
            self.source.error(&last.unwrap_or_else(|| self.span.clone()), problem)
        })?;
        Ok(Read { policy, name_span })
    }

    fn check_keys(&self) -> Result<(), PolicyFileError> {
        let Some(key) = first_key(self.table, |key| keys::find(key).is_none()) else {
            return Ok(());
        };
        let name = key.get_ref().as_ref();
        let near = keys::near(name).map(|key| key.name);
        let problem = PolicyFileErrorKind::UnknownKey { key: name.into(), near };
        Err(self.source.error(&key.span(), problem))
    }

    fn check_target(&self, spec: &PolicySpec) -> Result<(), PolicyFileError> {
        let is_given = |key: &&Key| key.group == Group::Target && self.table.contains_key(key.name);
        let mut targets = KEYS.iter().filter(is_given);
        let (span, problem) = match (targets.next(), targets.next()) {
            (Some(_), None) => return Ok(()),
            (None, _) => {
                let policy = spec.name.clone();
                (self.span.clone(), PolicyFileErrorKind::NoTarget { policy })
            }
            (Some(first), Some(second)) => {
                let (first, second) = (first.name, second.name);
                let span = self.value_span(second);
                let found = self.source.quote(&span);
                (span, PolicyFileErrorKind::TwoTargets { first, second, found })
            }
        };
        Err(self.source.error(&span, problem))
    }

    fn set(
        &self,
        spec: &mut PolicySpec,
        key: &'static Key,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), PolicyFileError> {
        let empty = || {
            let (key, found) = (key.name, self.source.quote(&value.span()));
            self.source.error(&value.span(), PolicyFileErrorKind::EmptyList { key, found })
        };
        let items = match (value.get_ref(), key.kind) {
            (DeValue::Array(items), Kind::Text | Kind::List) if items.is_empty() => {
                return Err(empty());
            }
            (DeValue::Array(items), Kind::Text | Kind::List) => items.iter().collect(),
            (DeValue::Table(pairs), Kind::Table) if pairs.is_empty() => return Err(empty()),
            (DeValue::Table(pairs), Kind::Table) => return self.set_table(spec, key, pairs),
            _ => vec![value],
        };
        let texts = items.iter().map(|item| text(key, item)).collect::<Option<Vec<_>>>();
        let Some(texts) = texts else {
            let wrong = items.iter().find(|item| text(key, item).is_none());
            return Err(self.wrong_type(key, wrong.map_or(value.span(), |item| item.span())));
        };
        let texts = texts.iter().map(Cow::as_ref).collect();
        let is_list = matches!(value.get_ref(), DeValue::Array(_));
        let input = if is_list { Input::list(texts) } else { Input::texts(texts) };
        key.set(spec, &input.with_files(self.files)).map_err(|InputError { item, error }| {
            let span = items.get(item).map_or_else(|| value.span(), |item| item.span());
            let (key, found) = (key.name, self.source.quote(&span));
            self.source.error(&span, PolicyFileErrorKind::Value { key, found, error })
        })
    }

    /// Sets a key to a table of names with numbers.
    fn set_table(
        &self,
        spec: &mut PolicySpec,
        key: &'static Key,
        pairs: &DeTable<'_>,
    ) -> Result<(), PolicyFileError> {
        let mut pairs: Vec<_> = pairs.iter().collect();
        pairs.sort_by_key(|(name, _)| name.span().start);
        let span = |(name, value): &(&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            name.span().start..value.span().end
        };
        let mut texts = Vec::new();
        for pair @ (name, value) in &pairs {
            let DeValue::Integer(number) = value.get_ref() else {
                return Err(self.wrong_type(key, span(pair)));
            };
            let number = match number.radix() {
                10 => number.as_str(),
                _ => return Err(self.wrong_type(key, span(pair))),
            };
            texts.push(format!("{}={number}", name.get_ref()));
        }
        let input = Input::list(texts.iter().map(String::as_str).collect());
        key.set(spec, &input).map_err(|InputError { item, error }| {
            let span = pairs.get(item).map_or(0..0, span);
            let (key, found) = (key.name, self.source.quote(&span));
            self.source.error(&span, PolicyFileErrorKind::Value { key, found, error })
        })
    }

    fn wrong_type(&self, key: &'static Key, span: Range<usize>) -> PolicyFileError {
        let expected = match key.kind {
            Kind::Switch => Expected::Flag,
            Kind::List => Expected::List(key.example),
            Kind::Text => Expected::String(key.example),
            Kind::Table => Expected::Table(key.example),
        };
        let (key, found) = (key.name, self.source.quote(&span));
        self.source.error(&span, PolicyFileErrorKind::Type { key, found, expected })
    }

    /// The place of the value; the start of the policy if there is none.
    fn value_span(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span)
    }
}

/// The text of a value; a number is a text too, and for a switch only true and false are.
fn text<'v>(key: &Key, value: &'v Spanned<DeValue<'_>>) -> Option<Cow<'v, str>> {
    match (value.get_ref(), key.kind) {
        (DeValue::String(text), Kind::Text | Kind::List | Kind::Table) => {
            Some(text.as_ref().into())
        }
        (DeValue::Integer(number), Kind::Text | Kind::List) => Some(match number.radix() {
            16 => format!("0x{}", number.as_str()).into(),
            10 => number.as_str().into(),
            _ => return None,
        }),
        (DeValue::Boolean(is_on), Kind::Switch) => Some(is_on.to_string().into()),
        _ => None,
    }
}
