//! Packet marks (`meta mark`): a 32-bit number that other rules attach to a packet on this host.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::quoted;

/// The marks whose bits under a mask have one value.
///
/// ```
/// use ephport_core::Mark;
///
/// let mark: Mark = "0x1/0xff".parse()?;
/// assert!(mark.matches(0x1201) && !mark.matches(0x12));
/// # Ok::<(), ephport_core::MarkError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    value: u32,
    mask: u32,
}

impl Mark {
    /// The marks that are `value` under `mask`.
    ///
    /// # Errors
    /// [`MarkError`] when no mark is one of these, or every mark.
    pub const fn new(value: u32, mask: u32) -> Result<Self, MarkError> {
        if mask == 0 {
            return Err(MarkError::MaskZero);
        }
        if value & !mask != 0 {
            return Err(MarkError::OutsideMask { value, mask });
        }
        Ok(Self { value, mask })
    }

    /// The value of the bits under the mask.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.value
    }

    /// The mask; not 0.
    #[must_use]
    pub const fn mask(self) -> u32 {
        self.mask
    }

    /// Whether a packet with the mark `mark` is meant; a packet without a mark has 0.
    #[must_use]
    pub const fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

/// Only this mark, all 32 bits of it.
impl From<u32> for Mark {
    fn from(value: u32) -> Self {
        Self { value, mask: u32::MAX }
    }
}

/// `0x1/0xff`, or `0x1` for all 32 bits; numbers are decimal or, after `0x`, hexadecimal.
impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        match text.split_once('/') {
            Some((value, mask)) => Self::new(number(value.trim())?, number(mask.trim())?),
            None => Self::new(number(text.trim())?, u32::MAX),
        }
    }
}

/// A 32-bit number in decimal or, after `0x`, in hexadecimal.
pub(crate) fn number(text: &str) -> Result<u32, MarkError> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let parsed = match hex {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse(),
        _ => return Err(MarkError::NotANumber { text: text.into() }),
    };
    parsed.map_err(|_| MarkError::NotANumber { text: text.into() })
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            u32::MAX => write!(f, "{:#x}", self.value),
            mask => write!(f, "{:#x}/{mask:#x}", self.value),
        }
    }
}

/// Why a text or two numbers are not a mark.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MarkError {
    /// Not a 32-bit number.
    #[error(
        "{} is not a mark: expected a 32-bit number, like 0x1, or 0x1/0xff with a mask",
        quoted(text)
    )]
    NotANumber {
        /// The text.
        text: Box<str>,
    },
    /// A mask of 0.
    #[error("mask 0 matches every packet: omit the mark, or use a mask like 0xff")]
    MaskZero,
    /// A value with bits that the mask does not have.
    #[error("{value:#x}/{mask:#x} matches no packet: the value has bits outside the mask")]
    OutsideMask {
        /// The value.
        value: u32,
        /// The mask.
        mask: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::errors;
    use expect_test::expect;

    #[test]
    fn marks_print_and_parse() {
        for (text, printed) in [
            ("0x1/0xff", "0x1/0xff"),
            ("16", "0x10"),
            ("0/1", "0x0/0x1"),
            ("0XfF / 255", "0xff/0xff"),
        ] {
            let mark: Mark = text.parse().unwrap();
            assert_eq!(mark.to_string(), printed);
            assert_eq!(printed.parse(), Ok(mark));
        }
    }

    #[test]
    fn errors_of_marks() {
        let errors = errors::<Mark>(&["", "0x", "0x100000000", "0/0", "0x101/0xff"]);
        expect![[r#"
            "" => `` is not a mark: expected a 32-bit number, like 0x1, or 0x1/0xff with a mask
            "0x" => `0x` is not a mark: expected a 32-bit number, like 0x1, or 0x1/0xff with a mask
            "0x100000000" => `0x100000000` is not a mark: expected a 32-bit number, like 0x1, or 0x1/0xff with a mask
            "0/0" => mask 0 matches every packet: omit the mark, or use a mask like 0xff
            "0x101/0xff" => 0x101/0xff matches no packet: the value has bits outside the mask
        "#]].assert_eq(&errors);
    }
}
