//! Lines and words, as a shell and iptables-restore cut them.

use super::Refusal;

/// The words of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split {
    Words(Vec<String>),
    Refused(Refusal),
}

/// Lines with their numbers; one that ends in a backslash goes on in the next.
pub(super) fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let (first, mut whole) = open.take().unwrap_or((number, String::new()));
        let is_comment = whole.is_empty() && line.trim_start().starts_with('#');
        match line.strip_suffix('\\').filter(|_| !is_comment) {
            Some(line) => {
                whole.push_str(line);
                open = Some((first, whole));
            }
            None => lines.push((first, whole + line)),
        }
    }
    lines.extend(open);
    lines
}

/// Cuts at white space outside of quotes. In a shell, a `#` begins a comment, and what the shell
/// would replace cannot be known here.
pub(super) fn split(text: &str, is_shell: bool) -> Split {
    let mut cutter = Cutter { chars: text.chars().peekable(), is_shell, expands: false };
    let mut words = Vec::new();
    while let Some(word) = cutter.word() {
        match word {
            Ok(word) if cutter.expands => {
                return Split::Refused(Refusal::Expansion { word: word.into() });
            }
            Ok(word) => words.push(word),
            Err(reason) => return Split::Refused(reason),
        }
    }
    Split::Words(words)
}

struct Cutter<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    is_shell: bool,
    /// Whether the word holds something that a shell would replace.
    expands: bool,
}

impl Cutter<'_> {
    fn word(&mut self) -> Option<Result<String, Refusal>> {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
        if self.is_shell && self.chars.peek() == Some(&'#') {
            return None;
        }
        self.chars.peek()?;
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(|c| !c.is_whitespace()) {
            let closed = match c {
                '\'' => self.single_quoted(&mut word),
                '"' => self.double_quoted(&mut word),
                '\\' => self.chars.next().map(|c| word.push(c)),
                c => {
                    self.push(c, &mut word);
                    Some(())
                }
            };
            if closed.is_none() {
                return Some(Err(Refusal::Quote));
            }
        }
        // A prompt copied from a page is no expansion.
        self.expands &= word != "$";
        Some(Ok(word))
    }

    fn push(&mut self, c: char, word: &mut String) {
        self.expands |= self.is_shell && matches!(c, '$' | '`');
        word.push(c);
    }

    fn single_quoted(&mut self, word: &mut String) -> Option<()> {
        loop {
            match self.chars.next()? {
                '\'' => return Some(()),
                c => word.push(c),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut String) -> Option<()> {
        loop {
            match self.chars.next()? {
                '"' => return Some(()),
                '\\' => match self.chars.next()? {
                    c @ ('"' | '\\' | '$' | '`' | '\'') => word.push(c),
                    c => word.extend(['\\', c]),
                },
                c => self.push(c, word),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        match split(text, true) {
            Split::Words(words) => words,
            Split::Refused(reason) => vec![reason.to_string()],
        }
    }

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(words("  a 'b c' \"d \\\" e\" f\\ g # h"), ["a", "b c", "d \" e", "f g"]);
        assert_eq!(words("$ a '$b' x#y ''"), ["$", "a", "$b", "x#y", ""]);
        assert_eq!(words("a 'b"), ["a quote is not closed: expected a closing one on the line"]);
        assert_eq!(words("a\\"), words("\"a"));
        assert_eq!(
            words("a \"$IF\" b"),
            ["`$IF` is for a shell to replace: expected the value itself"]
        );
        let dump = split("-o $x #y", false);
        assert_eq!(dump, Split::Words(["-o", "$x", "#y"].map(String::from).to_vec()));
    }

    #[test]
    fn lines_go_on_behind_a_backslash() {
        let lines = logical_lines("a \\\n b\n# c \\\nd\ne \\");
        let lines: Vec<_> = lines.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(lines, [(1, "a  b"), (3, "# c \\"), (4, "d"), (5, "e ")]);
    }
}
