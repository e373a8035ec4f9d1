//! Helpers of the tests.

use std::fmt::{Debug, Display};
use std::str::FromStr;

/// The error of each text, one a line, for a snapshot.
///
/// # Panics
/// When a text is a value.
pub(crate) fn errors<T>(texts: &[&str]) -> String
where
    T: FromStr<Err: Display> + Debug,
{
    let error = |text: &&str| match text.parse::<T>() {
        Ok(value) => panic!("{text:?} is {value:?}"),
        Err(error) => format!("{text:?} => {error}\n"),
    };
    texts.iter().map(error).collect()
}
