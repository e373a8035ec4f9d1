//! Names of policies.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use thiserror::Error;

use crate::text::quoted;

/// The longest name in bytes: a rule's comment with it remains readable.
pub const MAX_NAME_LEN: usize = 32;

/// The name of a policy in comments, chains and messages: a letter, then letters, digits, `_`, `-` and
/// `.`, at most 32 bytes, so that nft reads it as an identifier. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PolicyName {
    /// The name of a policy for which no name is given: `default`.
    fn default() -> Self {
        static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| "default".into());
        Self(DEFAULT.clone())
    }
}

impl FromStr for PolicyName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=MAX_NAME_LEN).contains(&text.len());
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_identifier =
            text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if fits && starts_well && is_identifier {
            Ok(Self(text.into()))
        } else {
            Err(NameError { text: text.into() })
        }
    }
}

impl AsRef<str> for PolicyName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Maps by names can be asked with a text.
impl Borrow<str> for PolicyName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl TryFrom<&str> for PolicyName {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for PolicyName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.as_str().into()
    }
}

impl PartialEq<str> for PolicyName {
    fn eq(&self, text: &str) -> bool {
        self.as_str() == text
    }
}

impl PartialEq<&str> for PolicyName {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A text that is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{} is not the name of a policy: expected a letter, then letters, digits, `_`, `-` or `.`, at \
     most {MAX_NAME_LEN} in all",
    quoted(text)
)]
pub struct NameError {
    /// The text.
    pub text: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers_of_nft() {
        for name in ["default", "builds", "a", "A-b_c.9", &"x".repeat(32)] {
            let parsed = name.parse::<PolicyName>().unwrap();
            assert_eq!((parsed.as_str(), parsed.to_string().as_str()), (name, name));
            assert_eq!(format!("{parsed:?}"), format!("{name:?}"));
        }
        for name in ["", "9a", "-a", "a b", "a\"b", "é", &"x".repeat(33)] {
            assert!(name.parse::<PolicyName>().is_err(), "{name}");
        }
    }
}
