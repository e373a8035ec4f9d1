//! `key=value` pairs joined by commas, in any order.

use std::fmt::Display;
use std::str::FromStr;

use crate::allocation::map_e::MapEError;

/// Pairs of known keys, each at most once.
#[derive(Debug)]
pub(super) struct KeyValues<'a>(Vec<(&'a str, &'a str)>);

impl<'a> KeyValues<'a> {
    /// Every key that a text may have.
    pub(super) const KNOWN: [&'static str; 7] =
        ["psid", "psid-len", "offset", "ipv6-prefix", "ipv4-prefix", "ea-len", "delegated"];

    pub(super) fn parse(text: &'a str) -> Result<Self, MapEError> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in text.split(',').map(str::trim) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(MapEError::NotAPair { text: pair.into() });
            };
            if !Self::KNOWN.contains(&key) {
                return Err(MapEError::UnknownKey { key: key.into() });
            }
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(MapEError::Repeated { key: key.into() });
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// A number up to `max`, in decimal or after `0x` in hexadecimal.
    pub(super) fn number<T>(&self, key: &'static str, max: T) -> Result<T, MapEError>
    where
        T: TryFrom<u64> + PartialOrd + Display + Copy,
    {
        let text = self.value(key)?;
        let parsed = match text.strip_prefix("0x") {
            Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(hex, 16).ok()
            }
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        let number = parsed.and_then(|n: u64| T::try_from(n).ok()).filter(|n| *n <= max);
        let max = max.to_string().into();
        number.ok_or_else(|| MapEError::Number { key, text: text.into(), max })
    }

    /// A prefix; `example` is what one looks like.
    pub(super) fn prefix<T: FromStr>(
        &self,
        key: &'static str,
        example: &'static str,
    ) -> Result<T, MapEError> {
        let text = self.value(key)?;
        text.parse().map_err(|_| MapEError::Prefix { key, text: text.into(), example })
    }

    fn value(&self, key: &'static str) -> Result<&'a str, MapEError> {
        self.find(key).ok_or(MapEError::Missing { key })
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(own, _)| *own == key).map(|(_, value)| *value)
    }
}
