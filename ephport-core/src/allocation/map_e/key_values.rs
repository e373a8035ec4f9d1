//! `key=value` pairs joined by commas, in any order.

use std::fmt::Display;
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::error::{KEYS, MapEError};
use crate::allocation::psid::PsidRule;

/// OpenWrt's names of the keys, as in `/tmp/map-*.rules` and as mapcalc reads them.
const OPENWRT: [(&str, &str); 11] = [
    ("ealen", "ea-len"),
    ("psidlen", "psid-len"),
    ("ipv6prefix", "ipv6-prefix"),
    ("ipv4prefix", "ipv4-prefix"),
    ("prefix6len", "prefix6len"),
    ("prefix4len", "prefix4len"),
    ("type", "type"),
    ("fmr", "fmr"),
    ("br", "br"),
    ("dmr", "dmr"),
    ("rule", "rule"),
];

/// Pairs of known keys, each at most once.
#[derive(Debug)]
pub(super) struct KeyValues<'a> {
    pairs: Vec<(&'static str, &'a str)>,
    is_openwrt: bool,
}

impl<'a> KeyValues<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, MapEError> {
        let rule = text.trim().strip_prefix("rule=");
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        let mut is_openwrt = rule.is_some();
        for pair in rule.unwrap_or(text).split(',').map(str::trim) {
            // OpenWrt writes `fmr` without a value.
            let Some((key, value)) = pair.split_once('=').or((pair == "fmr").then_some((pair, "")))
            else {
                return Err(MapEError::NotAPair { text: pair.into() });
            };
            let known = KEYS.into_iter().find(|known| *known == key);
            let openwrt = OPENWRT.iter().find(|(own, _)| *own == key).map(|(_, key)| *key);
            is_openwrt |= openwrt.is_some();
            let Some(key) = known.or(openwrt) else {
                return Err(MapEError::UnknownKey { key: key.into() });
            };
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(MapEError::Repeated { key: key.into() });
            }
            pairs.push((key, value));
        }
        Ok(Self { pairs, is_openwrt })
    }

    /// Whether the names of the keys are OpenWrt's.
    pub(super) fn is_openwrt(&self) -> bool {
        self.is_openwrt
    }

    /// Whether there is a part of a mapping rule.
    pub(super) fn has_rule(&self) -> bool {
        ["ipv6-prefix", "ipv4-prefix", "ea-len", "delegated"].into_iter().any(|key| self.has(key))
    }

    /// The offset of a text that names none: in mapcalc 0 for Lightweight 4over6.
    pub(super) fn default_offset(&self) -> u8 {
        if self.find("type") == Some("lw4o6") { 0 } else { PsidRule::DEFAULT_OFFSET }
    }

    pub(super) fn ipv6_prefix(&self) -> Result<Ipv6Net, MapEError> {
        const EXAMPLE: &str = "2001:db8::/40";
        if !self.has("prefix6len") {
            return self.prefix("ipv6-prefix", EXAMPLE);
        }
        let (address, len) = (self.value("ipv6-prefix")?, self.number("prefix6len", 128u8)?);
        parse_prefix("ipv6-prefix", &format!("{address}/{len}"), EXAMPLE)
    }

    pub(super) fn ipv4_prefix(&self) -> Result<Ipv4Net, MapEError> {
        const EXAMPLE: &str = "192.0.2.0/24";
        if !self.has("prefix4len") {
            return self.prefix("ipv4-prefix", EXAMPLE);
        }
        let (address, len) = (self.value("ipv4-prefix")?, self.number("prefix4len", 32u8)?);
        parse_prefix("ipv4-prefix", &format!("{address}/{len}"), EXAMPLE)
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

    /// A prefix; `example` is one.
    pub(super) fn prefix<T: FromStr>(
        &self,
        key: &'static str,
        example: &'static str,
    ) -> Result<T, MapEError> {
        parse_prefix(key, self.value(key)?, example)
    }

    fn value(&self, key: &'static str) -> Result<&'a str, MapEError> {
        self.find(key).ok_or(MapEError::Missing { key })
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(own, _)| *own == key).map(|(_, value)| *value)
    }
}

fn parse_prefix<T: FromStr>(
    key: &'static str,
    text: &str,
    example: &'static str,
) -> Result<T, MapEError> {
    text.parse().map_err(|_| MapEError::Prefix { key, text: text.into(), example })
}
