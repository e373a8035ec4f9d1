//! Values of keys: as they are written in a policy file or a flag, and as they are printed.

use std::fmt;
use std::io::{self, BufRead};
use std::str::FromStr;

#[cfg(feature = "json")]
use serde_json::json;
use thiserror::Error;

use crate::allocation::block_file::{self, BlockFileError};
use crate::allocation::blocks::BlockError;
use crate::allocation::explicit_blocks::ExplicitBlocks;
use crate::allocation::map_e::MapEError;
use crate::net::interface::{InterfaceError, InterfacePattern, split_names};
use crate::net::mark::{Mark, MarkError};
use crate::net::network::NetworkError;
use crate::net::port::PortError;
use crate::net::port_set::PortSet;
use crate::net::protocol::ProtocolError;
use crate::policy::name::NameError;
use crate::policy::timeouts::TimeoutError;
use crate::word::WordError;

/// Opens the files that policies name. This crate reads no file by itself.
pub trait Files: fmt::Debug {
    /// The file with this path; a relative one begins where the policies are written.
    ///
    /// # Errors
    /// Those of opening the file.
    fn open(&self, path: &str) -> io::Result<Box<dyn BufRead>>;
}

/// A value as it is written: the items of a list, or texts that may have several values each.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    items: Vec<&'a str>,
    is_list: bool,
    files: Option<&'a dyn Files>,
}

impl<'a> Input<'a> {
    /// The items of a list.
    #[must_use]
    pub fn list(items: Vec<&'a str>) -> Self {
        Self { items, is_list: true, files: None }
    }

    /// The texts of a flag that is repeated; commas separate the values of each.
    #[must_use]
    pub fn texts(items: Vec<&'a str>) -> Self {
        Self { items, is_list: false, files: None }
    }

    /// One text; commas separate its values.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self::texts(vec![text])
    }

    /// The same value, which may name files.
    #[must_use]
    pub fn with_files(self, files: Option<&'a dyn Files>) -> Self {
        Self { files, ..self }
    }

    /// The blocks of the file that the only item names.
    pub(super) fn blocks_file(&self) -> Result<ExplicitBlocks, InputError> {
        let [path] = self.items.as_slice() else {
            return Err(InputError::first(ValueError::Several));
        };
        let read = || {
            if path.chars().any(char::is_control) {
                return Err(BlockFileError::Path);
            }
            let files = self.files.ok_or(BlockFileError::NoFiles)?;
            let mut file = files.open(path).map_err(|error| block_file::read_error(&error))?;
            block_file::read(&mut file, path)
        };
        read().map_err(InputError::first)
    }

    /// The items.
    pub(super) fn items(&self) -> &[&'a str] {
        &self.items
    }

    /// The value of the only item.
    pub(super) fn one<T: FromStr>(&self) -> Result<T, InputError>
    where
        ValueError: From<T::Err>,
    {
        match self.items.as_slice() {
            [text] => text.trim().parse().map_err(InputError::first),
            _ => Err(InputError::first(ValueError::Several)),
        }
    }

    /// The values of all items; commas separate values within an item too.
    pub(super) fn each<T, E, C>(
        &self,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<C, InputError>
    where
        ValueError: From<E>,
        C: FromIterator<T>,
    {
        let texts = self.items.iter().enumerate();
        let parts =
            texts.flat_map(|(item, text)| text.split(',').map(move |part| (item, part.trim())));
        parts
            .map(|(item, part)| {
                parse(part).map_err(|error| InputError { item, error: error.into() })
            })
            .collect()
    }

    /// The interfaces of all items. An item of a list is one interface, whose name may contain commas; in other
    /// texts a comma separates interfaces, and `\,` is a comma of a name.
    pub(super) fn interfaces(&self) -> Result<Vec<InterfacePattern>, InputError> {
        let patterns = self.items.iter().enumerate().flat_map(|(item, text)| {
            let names = if self.is_list { vec![text.trim().into()] } else { split_names(text) };
            names.into_iter().map(move |name| {
                name.parse()
                    .map_err(|error: InterfaceError| InputError { item, error: error.into() })
            })
        });
        patterns.collect()
    }

    /// The ports of all items.
    pub(super) fn ports(&self) -> Result<PortSet, InputError> {
        let sets = self.items.iter().enumerate().map(|(item, text)| {
            text.parse().map_err(|error: PortError| InputError { item, error: error.into() })
        });
        sets.collect::<Result<Vec<PortSet>, _>>()
            .map(|sets| sets.iter().fold(PortSet::EMPTY, |all, set| all.union(set)))
    }

    /// Whether the only item is this word, in lower or upper case.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self.items.as_slice(), [text] if text.trim().eq_ignore_ascii_case(word))
    }
}

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputError {
    /// The index of the item.
    pub item: usize,
    /// The reason.
    pub error: ValueError,
}

impl InputError {
    pub(super) fn first(error: impl Into<ValueError>) -> Self {
        Self { item: 0, error: error.into() }
    }
}

/// Why a value of a policy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not a name for a policy.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not ports.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// Not a protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Not an interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Not a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Not a mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// Not MAP-E parameters.
    #[error(transparent)]
    MapE(#[from] MapEError),
    /// Not blocks of ports.
    #[error(transparent)]
    Blocks(#[from] BlockError),
    /// Not a file of blocks.
    #[error(transparent)]
    BlocksFile(#[from] BlockFileError),
    /// Not timeouts.
    #[error(transparent)]
    Timeouts(#[from] TimeoutError),
    /// Not one of a few words.
    #[error(transparent)]
    Word(#[from] WordError),
    /// A list for a key with one value.
    #[error("expected one value, not a list")]
    Several,
}

/// A value as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Switch(bool),
    Text(String),
    List(Vec<String>),
    Ports(PortSet),
    Mark(Mark),
    Table(Vec<(String, u32)>),
}

impl Value {
    #[expect(clippy::needless_pass_by_value, reason = "callers pass values that they make")]
    pub(super) fn text(value: impl ToString) -> Self {
        Self::Text(value.to_string())
    }

    pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(|item| item.to_string()).collect())
    }

    /// The value in TOML. No value contains control characters; only paths contain quotes and backslashes.
    pub(super) fn to_toml(&self) -> String {
        match self {
            Self::Switch(is_on) => is_on.to_string(),
            Self::Text(text) => {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            }
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Ports(ports) => format!("\"{ports}\""),
            Self::Mark(mark) => format!("\"{mark}\""),
            Self::Table(pairs) if pairs.is_empty() => "\"none\"".into(),
            Self::Table(pairs) => {
                let pairs: Vec<_> =
                    pairs.iter().map(|(name, number)| format!("{name} = {number}")).collect();
                format!("{{ {} }}", pairs.join(", "))
            }
        }
    }

    /// The value for programs: ranges and marks in numbers.
    #[cfg(feature = "json")]
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Switch(is_on) => json!(is_on),
            Self::Text(text) => json!(text),
            Self::List(items) => json!(items),
            Self::Ports(ports) => ports_json(ports),
            Self::Mark(mark) => json!({ "value": mark.value(), "mask": mark.mask() }),
            Self::Table(pairs) => {
                pairs.iter().map(|(name, number)| (name.clone(), json!(number))).collect()
            }
        }
    }
}

/// Ranges of ports in numbers: `[{"first": 1024, "last": 65535}]`.
#[cfg(feature = "json")]
#[must_use]
pub fn ports_json(ports: &PortSet) -> serde_json::Value {
    let range = |range: &crate::PortRange| json!({ "first": range.first().get(), "last": range.last().get() });
    ports.ranges().iter().map(range).collect()
}

/// The value in a message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(is_on) => is_on.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::List(items) => f.write_str(&items.join(",")),
            Self::Ports(ports) => ports.fmt(f),
            Self::Mark(mark) => mark.fmt(f),
            Self::Table(pairs) if pairs.is_empty() => f.write_str("none"),
            Self::Table(pairs) => {
                let pairs: Vec<_> =
                    pairs.iter().map(|(name, number)| format!("{name}={number}")).collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}
