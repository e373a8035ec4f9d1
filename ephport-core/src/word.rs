//! Values that are one of a few words.

use thiserror::Error;

/// A text that is not one of a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}")]
pub struct WordError {
    /// The words.
    pub expected: &'static str,
}

/// Implements an enum of words: all of them in order, the name of each, and their list in messages.
macro_rules! words {
    ($type:ident, $expected:literal, $($name:ident = $word:literal),+) => {
        impl $type {
            /// All of them.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$name),+];

            /// Its word in policy files and flags.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::word::WordError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.into_iter().find(|word| word.name().eq_ignore_ascii_case(text));
                known.ok_or($crate::word::WordError { expected: $expected })
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::{Address, Origin, PickUp, WordError};

    #[test]
    fn each_keyword_parses_as_printed() {
        for origin in Origin::ALL {
            assert_eq!(origin.to_string().parse(), Ok(origin));
        }
        for pick_up in PickUp::ALL {
            assert_eq!(pick_up.to_string().parse(), Ok(pick_up));
        }
        assert_eq!("LOCAL".parse(), Ok(Origin::Local));
        for text in ["masquerade", "keep", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn errors_list_the_keywords() {
        let message = |error: Result<(), WordError>| error.unwrap_err().to_string();
        assert_eq!(
            message("here".parse::<Origin>().map(drop)),
            "expected local, forwarded or both"
        );
        assert_eq!(message("".parse::<PickUp>().map(drop)), "expected opening or any");
        assert_eq!(
            message("1.2.3".parse::<Address>().map(drop)),
            "expected auto, masquerade, keep or an address like 192.0.2.1"
        );
    }
}
