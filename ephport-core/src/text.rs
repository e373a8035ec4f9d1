//! Text of others in messages: cut, and without control characters.

use std::fmt::{self, Write as _};

/// The most characters of a text that a message repeats.
const MAX_QUOTED: usize = 80;

/// The text between backticks, for a message: at most 80 characters, those that a terminal
/// does not print escaped.
///
/// ```
/// use ephport_core::quoted;
///
/// assert_eq!(quoted("eth0\x1b[31m").to_string(), "`eth0\\u001b[31m`");
/// assert!(quoted(&"a".repeat(1_000_000)).to_string().ends_with("aaa...`"));
/// ```
#[must_use]
pub fn quoted(text: &str) -> Quoted<'_> {
    Quoted { text, mark: "`", max: MAX_QUOTED }
}

/// The same without backticks.
#[must_use]
pub fn excerpt(text: &str) -> Quoted<'_> {
    Quoted { text, mark: "", max: MAX_QUOTED }
}

/// A text that is displayed cut and escaped; see [`quoted`].
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a> {
    text: &'a str,
    mark: &'static str,
    max: usize,
}

impl Quoted<'_> {
    /// At most `max` characters instead of 80.
    #[must_use]
    pub fn up_to(self, max: usize) -> Self {
        Self { max, ..self }
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mark)?;
        let mut chars = self.text.chars();
        for c in chars.by_ref().take(self.max) {
            match c {
                '"' | '\'' | '\\' => f.write_char(c)?,
                c if c.escape_debug().len() == 1 => f.write_char(c)?,
                c => write!(f, "\\u{:04x}", u32::from(c))?,
            }
        }
        let dots = if chars.next().is_some() { "..." } else { "" };
        write!(f, "{dots}{}", self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_escaped() {
        assert_eq!(quoted("a\"b\\'é").to_string(), "`a\"b\\'é`");
        assert_eq!(
            quoted("\u{1b}[2J\r\n\u{202e}").to_string(),
            "`\\u001b[2J\\u000d\\u000a\\u202e`"
        );
        assert_eq!(excerpt(&"é".repeat(80)).to_string(), "é".repeat(80));
        assert_eq!(excerpt(&"é".repeat(81)).to_string(), format!("{}...", "é".repeat(80)));
        assert_eq!(excerpt("abc").up_to(2).to_string(), "ab...");
    }
}
