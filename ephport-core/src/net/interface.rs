//! Network interface names, and patterns of them.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::quoted;

/// The longest name in bytes: `IFNAMSIZ` (linux/if.h) less the closing NUL.
pub const MAX_NAME_LEN: usize = 15;

/// The name of the loopback interface in every network namespace (drivers/net/loopback.c).
const LOOPBACK: &str = "lo";

/// The name of a network interface, as the kernel's `dev_valid_name` accepts it: 1 to 15 bytes,
/// neither `.` nor `..`, without `/`, `:`, white space or control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Box<str>);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the loopback interface, which no policy touches.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        &*self.0 == LOOPBACK
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let text = checked(text)?;
        if text.contains('*') {
            return Err(InterfaceError::Wildcard { text: text.into() });
        }
        Ok(Self(text.into()))
    }
}

impl AsRef<str> for InterfaceName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Maps by names can be asked with a text.
impl Borrow<str> for InterfaceName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl TryFrom<&str> for InterfaceName {
    type Error = InterfaceError;

    fn try_from(text: &str) -> Result<Self, InterfaceError> {
        text.parse()
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceError;

    fn try_from(text: String) -> Result<Self, InterfaceError> {
        text.parse()
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.as_str().into()
    }
}

impl PartialEq<str> for InterfaceName {
    fn eq(&self, text: &str) -> bool {
        self.as_str() == text
    }
}

impl PartialEq<&str> for InterfaceName {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The beginning of interface names, 1 to 15 bytes: `wg` of the pattern `wg*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfacePrefix(Box<str>);

impl InterfacePrefix {
    /// The prefix, without the `*`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name of the loopback interface begins with it.
    #[must_use]
    pub fn covers_loopback(&self) -> bool {
        LOOPBACK.starts_with(&*self.0)
    }
}

/// One interface by name, or all whose name begins with a prefix (`wg*`), present or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfacePattern {
    /// Only this interface.
    Name(InterfaceName),
    /// Every interface whose name begins with this prefix.
    Prefix(InterfacePrefix),
}

impl InterfacePattern {
    /// Whether a policy cannot name this pattern, because it is a word for many interfaces.
    pub(crate) fn is_reserved(&self) -> bool {
        matches!(self, Self::Name(name) if is_reserved(name.as_str()))
    }

    /// Whether the pattern covers the interface `name`.
    #[must_use]
    pub fn matches(&self, name: &InterfaceName) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Prefix(prefix) => name.as_str().starts_with(prefix.as_str()),
        }
    }
}

impl From<InterfaceName> for InterfacePattern {
    fn from(name: InterfaceName) -> Self {
        Self::Name(name)
    }
}

/// A name, or a prefix followed by `*`.
impl FromStr for InterfacePattern {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        if is_reserved(text) {
            return Err(InterfaceError::Word { text: text.into() });
        }
        if text.starts_with('!') {
            return Err(InterfaceError::Negated { text: text.into() });
        }
        if text.ends_with('+') {
            return Err(InterfaceError::Plus { text: text.into() });
        }
        match text.strip_suffix('*') {
            Some("") => Err(InterfaceError::BareWildcard),
            Some(prefix) if prefix.contains('*') => {
                Err(InterfaceError::Wildcard { text: text.into() })
            }
            Some(prefix) => {
                checked(prefix).map(|prefix| Self::Prefix(InterfacePrefix(prefix.into())))
            }
            None => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Prefix(prefix) => write!(f, "{}*", prefix.as_str()),
        }
    }
}

impl fmt::Debug for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Whether the text means many interfaces where a policy names its output interfaces.
fn is_reserved(text: &str) -> bool {
    ["any", "uplinks"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Patterns of interfaces: at least one, each once, in the order in which they were given.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct InterfacePatterns(Vec<InterfacePattern>);

impl InterfacePatterns {
    /// The patterns; duplicates are removed.
    ///
    /// # Errors
    /// [`InterfaceError::NoPattern`] when there is none.
    pub fn new(
        patterns: impl IntoIterator<Item = InterfacePattern>,
    ) -> Result<Self, InterfaceError> {
        let mut seen = HashSet::new();
        let mut patterns: Vec<_> = patterns.into_iter().collect();
        patterns.retain(|pattern| seen.insert(pattern.clone()));
        if patterns.is_empty() { Err(InterfaceError::NoPattern) } else { Ok(Self(patterns)) }
    }

    /// The patterns.
    #[must_use]
    pub fn as_slice(&self) -> &[InterfacePattern] {
        &self.0
    }

    /// Each pattern.
    pub fn iter(&self) -> std::slice::Iter<'_, InterfacePattern> {
        self.0.iter()
    }

    /// Whether one of the patterns covers the interface `name`.
    #[must_use]
    pub fn matches(&self, name: &InterfaceName) -> bool {
        self.iter().any(|pattern| pattern.matches(name))
    }
}

impl From<InterfacePattern> for InterfacePatterns {
    fn from(pattern: InterfacePattern) -> Self {
        Self(vec![pattern])
    }
}

impl<'a> IntoIterator for &'a InterfacePatterns {
    type Item = &'a InterfacePattern;
    type IntoIter = std::slice::Iter<'a, InterfacePattern>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The names of a text, separated by commas, without the spaces around them. `\,` is a comma of a name.
pub(crate) fn split_names(text: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let c = match c {
            ',' => {
                names.push(String::new());
                continue;
            }
            '\\' => chars.next_if_eq(&',').unwrap_or(c),
            _ => c,
        };
        if let Some(name) = names.last_mut() {
            name.push(c);
        }
    }
    names.iter().map(|name| name.trim().to_owned()).collect()
}

/// Names and prefixes joined by commas: `eth0,wg*`; a comma of a name is `\,`.
impl FromStr for InterfacePatterns {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let patterns = split_names(text).into_iter().map(|pattern| pattern.parse());
        Self::new(patterns.collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for InterfacePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(|name| name.to_string().replace(',', "\\,")).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for InterfacePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// Output interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interfaces {
    /// Every interface except loopback.
    Any,
    /// The interfaces that one of the patterns covers, except loopback.
    Matching(InterfacePatterns),
}

impl Interfaces {
    /// Whether `name` is one of them; loopback never is.
    #[must_use]
    pub fn contains(&self, name: &InterfaceName) -> bool {
        let is_named = match self {
            Self::Any => true,
            Self::Matching(patterns) => patterns.matches(name),
        };
        is_named && !name.is_loopback()
    }
}

/// `any`, or names and prefixes joined by commas: `eth0,wg*`.
impl FromStr for Interfaces {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        match text.trim() {
            any if any.eq_ignore_ascii_case("any") => Ok(Self::Any),
            patterns => patterns.parse().map(Self::Matching),
        }
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Matching(patterns) => patterns.fmt(f),
        }
    }
}

/// `dev_valid_name` of net/core/dev.c; quotes and backslashes, which nft cannot print, are out too.
fn checked(text: &str) -> Result<&str, InterfaceError> {
    if text.is_empty() {
        return Err(InterfaceError::Empty);
    }
    if text.len() > MAX_NAME_LEN {
        return Err(InterfaceError::TooLong { text: text.into(), len: text.len() });
    }
    if text == "." || text == ".." {
        return Err(InterfaceError::Reserved { text: text.into() });
    }
    let forbidden =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '"' | '\\');
    match text.chars().find(|c| forbidden(*c)) {
        Some(found) => Err(InterfaceError::Forbidden { text: text.into(), found }),
        None => Ok(text),
    }
}

/// Why a text is not the name of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InterfaceError {
    /// A list without patterns.
    #[error("no interface is named: expected a name like eth0 or a prefix like wg*")]
    NoPattern,
    /// An empty name.
    #[error("empty interface name: expected a name like eth0 or a prefix like wg*")]
    Empty,
    /// More bytes than the kernel keeps.
    #[error(
        "interface name {} has {len} bytes: the kernel accepts at most {MAX_NAME_LEN}",
        quoted(text)
    )]
    TooLong {
        /// The text.
        text: Box<str>,
        /// Its length in bytes.
        len: usize,
    },
    /// `.` and `..` would be directories in sysfs.
    #[error("{} cannot be an interface name: expected a name like eth0", quoted(text))]
    Reserved {
        /// The text.
        text: Box<str>,
    },
    /// A character that no interface name can have.
    #[error("interface name {} contains {found:?}, which is not supported in a name", quoted(text))]
    Forbidden {
        /// The text.
        text: Box<str>,
        /// The first character at fault.
        found: char,
    },
    /// A word for many interfaces instead of a name.
    #[error(
        "{} is not a name here: expected the names of interfaces, or the word by itself",
        quoted(text)
    )]
    Word {
        /// The text.
        text: Box<str>,
    },
    /// A leading `!`, as in iptables.
    #[error(
        "{}: expected the interfaces to except in except-interfaces, without `!`",
        quoted(text)
    )]
    Negated {
        /// The text.
        text: Box<str>,
    },
    /// A trailing `+`, as in iptables.
    #[error("{}: expected a prefix with `*`, like wg*", quoted(text))]
    Plus {
        /// The text.
        text: Box<str>,
    },
    /// A `*` elsewhere than at the end of a pattern.
    #[error("{}: expected `*` only at the end of a prefix, like wg*", quoted(text))]
    Wildcard {
        /// The text.
        text: Box<str>,
    },
    /// Only `*`.
    #[error("`*` includes loopback: write `any` for every interface except loopback")]
    BareWildcard,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::errors;
    use expect_test::expect;

    #[test]
    fn errors_of_interfaces() {
        let errors = errors::<InterfacePattern>(&[
            "",
            "0123456789abcdef",
            "..",
            "a/b",
            "e 0",
            "w*g",
            "w*g*",
            "*",
            "eth+",
            "!lo",
            "any",
            "Uplinks",
            "a\u{1b}b",
        ]);
        expect![[r#"
            "" => empty interface name: expected a name like eth0 or a prefix like wg*
            "0123456789abcdef" => interface name `0123456789abcdef` has 16 bytes: the kernel accepts at most 15
            ".." => `..` cannot be an interface name: expected a name like eth0
            "a/b" => interface name `a/b` contains '/', which is not supported in a name
            "e 0" => interface name `e 0` contains ' ', which is not supported in a name
            "w*g" => `w*g`: expected `*` only at the end of a prefix, like wg*
            "w*g*" => `w*g*`: expected `*` only at the end of a prefix, like wg*
            "*" => `*` includes loopback: write `any` for every interface except loopback
            "eth+" => `eth+`: expected a prefix with `*`, like wg*
            "!lo" => `!lo`: expected the interfaces to except in except-interfaces, without `!`
            "any" => `any` is not a name here: expected the names of interfaces, or the word by itself
            "Uplinks" => `Uplinks` is not a name here: expected the names of interfaces, or the word by itself
            "a\u{1b}b" => interface name `a\u001bb` contains '\u{1b}', which is not supported in a name
        "#]].assert_eq(&errors);
        let none = InterfacePatterns::new([]).unwrap_err();
        assert_eq!(
            none.to_string(),
            "no interface is named: expected a name like eth0 or a prefix like wg*"
        );
    }

    #[test]
    fn names_are_those_of_the_kernel() {
        for text in ["0123456789abcde", "...", "e", "lo", "wg-home.7"] {
            let name: InterfaceName = text.parse().unwrap();
            assert_eq!((name.as_str(), name.is_loopback()), (text, text == "lo"));
            assert_eq!(format!("{name:?}"), format!("{text:?}"));
        }
        for text in [".", "..", "a:b", "a\tb", "a\u{7f}b", "a\"b", "a\\b", "éééééééé"] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn commas_separate_names_unless_escaped() {
        for (text, names) in [
            ("eth0, wg*", vec!["eth0", "wg*"]),
            (r"a\,b,c", vec!["a,b", "c"]),
            (r"\,", vec![","]),
            (r"a\,*", vec!["a,*"]),
        ] {
            let patterns: InterfacePatterns = text.parse().unwrap();
            let found: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            assert_eq!(found, names, "{text}");
            assert_eq!(patterns.to_string().parse(), Ok(patterns), "{text}");
        }
        for text in [r"a\b", r"a,", r"a\", ","] {
            assert!(text.parse::<InterfacePatterns>().is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_match_by_name_or_prefix() {
        let name = |text: &str| text.parse::<InterfaceName>().unwrap();
        let wg: InterfacePattern = "wg*".parse().unwrap();
        assert!(wg.matches(&name("wg")) && wg.matches(&name("wg-home")));
        assert!(!wg.matches(&name("w")));
        let eth0: InterfacePattern = "eth0".parse().unwrap();
        assert!(eth0.matches(&name("eth0")) && !eth0.matches(&name("eth01")));
        assert_eq!((wg.to_string(), eth0.to_string()), ("wg*".into(), "eth0".into()));
        assert_eq!(format!("{wg:?} {eth0:?}"), "\"wg*\" \"eth0\"");
    }
}
