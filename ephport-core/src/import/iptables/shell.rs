//! Words and commands, as a shell and as iptables-restore cut a line.

use std::borrow::Cow;

use super::reason::Invalid;

/// One command of a line of shell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Simple<'a> {
    pub(super) words: Vec<Cow<'a, str>>,
    /// The first word with something that a shell would replace.
    pub(super) expansion: Option<Box<str>>,
    /// What ends it.
    pub(super) end: End,
}

/// What ends a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// The end of the line, `;`, `&` or a parenthesis.
    #[default]
    List,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `|`
    Pipe,
}

/// The words of a line of a dump: only `"` quotes, and a backslash escapes within.
pub(super) fn dump_words(text: &str) -> Result<Vec<Cow<'_, str>>, Invalid> {
    if !text.contains('"') {
        return Ok(text.split_whitespace().map(Cow::Borrowed).collect());
    }
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let (mut word, mut is_word) = (String::new(), false);
        while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
            is_word = true;
            if c == '"' {
                loop {
                    match chars.next().ok_or(Invalid::Quote)? {
                        '"' => break,
                        '\\' => word.push(chars.next().ok_or(Invalid::Quote)?),
                        c => word.push(c),
                    }
                }
            } else {
                word.push(c);
            }
        }
        words.extend(is_word.then_some(Cow::Owned(word)));
    }
    Ok(words)
}

/// The commands of a line of shell, without redirections and the comment.
pub(super) fn commands(text: &str) -> Result<Vec<Simple<'_>>, Invalid> {
    if !text.contains(['\'', '"', '\\', '$', '`', ';', '&', '|', '(', ')', '<', '>', '#']) {
        let words = text.split_whitespace().map(Cow::Borrowed).collect();
        return Ok(vec![Simple { words, ..Simple::default() }]);
    }
    let mut cutter = Cutter {
        chars: text.chars().peekable(),
        commands: Vec::new(),
        command: Simple::default(),
        is_redirected: false,
    };
    cutter.cut()?;
    Ok(cutter.commands)
}

/// A word that is being read.
#[derive(Default)]
struct Word {
    text: String,
    is_quoted: bool,
    /// Whether it has something that a shell would replace.
    expands: bool,
}

struct Cutter<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    commands: Vec<Simple<'a>>,
    command: Simple<'a>,
    /// Whether the next word is the file of a redirection.
    is_redirected: bool,
}

impl Cutter<'_> {
    fn cut(&mut self) -> Result<(), Invalid> {
        loop {
            while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
            match self.chars.peek() {
                None | Some('#') => break,
                Some(';' | '&' | '|' | '(' | ')' | '<' | '>') => self.operator(),
                Some(_) => {
                    let word = self.word()?;
                    self.push(word);
                }
            }
        }
        self.end(End::List);
        Ok(())
    }

    fn push(&mut self, word: Word) {
        let is_number = !word.is_quoted && word.text.chars().all(|c| c.is_ascii_digit());
        let is_descriptor = is_number && matches!(self.chars.peek(), Some('<' | '>'));
        if is_descriptor || std::mem::take(&mut self.is_redirected) {
            return;
        }
        if word.expands && self.command.expansion.is_none() {
            self.command.expansion = Some(word.text.as_str().into());
        }
        self.command.words.push(Cow::Owned(word.text));
    }

    fn end(&mut self, end: End) {
        let command = std::mem::take(&mut self.command);
        self.is_redirected = false;
        if !command.words.is_empty() {
            self.commands.push(Simple { end, ..command });
        } else if let Some(last) = self.commands.last_mut().filter(|_| end != End::List) {
            last.end = end;
        }
    }

    fn operator(&mut self) {
        let first = self.chars.next();
        let is_redirection = matches!(first, Some('<' | '>'))
            || (first == Some('&') && self.chars.peek() == Some(&'>'));
        if is_redirection {
            while self.chars.next_if(|c| matches!(c, '<' | '>' | '&' | '|' | '-')).is_some() {}
            self.is_redirected = true;
            return;
        }
        let is_doubled = first.is_some_and(|c| c != '(' && self.chars.next_if_eq(&c).is_some());
        self.end(match (first, is_doubled) {
            (Some('&'), true) => End::And,
            (Some('|'), true) => End::Or,
            (Some('|'), false) => End::Pipe,
            _ => End::List,
        });
    }

    fn word(&mut self) -> Result<Word, Invalid> {
        let mut word = Word::default();
        let is_part =
            |c: &char| !c.is_whitespace() && !matches!(c, ';' | '&' | '|' | '(' | ')' | '<' | '>');
        while let Some(c) = self.chars.next_if(is_part) {
            match c {
                '\'' => self.single_quoted(&mut word)?,
                '"' => self.double_quoted(&mut word)?,
                '\\' => word.text.push(self.chars.next().ok_or(Invalid::Quote)?),
                c => push_unquoted(c, &mut word),
            }
        }
        Ok(word)
    }

    fn single_quoted(&mut self, word: &mut Word) -> Result<(), Invalid> {
        word.is_quoted = true;
        loop {
            match self.chars.next().ok_or(Invalid::Quote)? {
                '\'' => return Ok(()),
                c => word.text.push(c),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), Invalid> {
        word.is_quoted = true;
        loop {
            match self.chars.next().ok_or(Invalid::Quote)? {
                '"' => return Ok(()),
                '\\' => match self.chars.next().ok_or(Invalid::Quote)? {
                    c @ ('"' | '\\' | '$' | '`') => word.text.push(c),
                    c => word.text.extend(['\\', c]),
                },
                c => push_unquoted(c, word),
            }
        }
    }
}

fn push_unquoted(c: char, word: &mut Word) {
    word.expands |= matches!(c, '$' | '`');
    word.text.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        match commands(text) {
            Ok(commands) => commands
                .into_iter()
                .flat_map(|command| {
                    let end = match command.end {
                        End::List => None,
                        end => Some(format!("{end:?}")),
                    };
                    let words = command.words.into_iter().map(Cow::into_owned);
                    words.chain(command.expansion.map(String::from)).chain(end).collect::<Vec<_>>()
                })
                .collect(),
            Err(invalid) => vec![invalid.to_string()],
        }
    }

    #[test]
    fn arguments_split_as_in_a_shell() {
        assert_eq!(words("  a 'b c' \"d \\\" e\" f\\ g # h"), ["a", "b c", "d \" e", "f g"]);
        assert_eq!(words("a '$b' x#y ''"), ["a", "$b", "x#y", ""]);
        assert_eq!(words("a 'b"), ["a quote is not closed: expected a closing one on the line"]);
        assert_eq!(words("a\\"), words("\"a"));
        assert_eq!(words("a \"$IF\" b"), ["a", "$IF", "b", "$IF"]);
        assert_eq!(words("a \"b\\'c\""), ["a", "b\\'c"]);
    }

    #[test]
    fn commands_end_at_operators() {
        assert_eq!(
            words("a b||c&&d;e|f&g"),
            ["a", "b", "Or", "c", "And", "d", "e", "Pipe", "f", "g"]
        );
        assert_eq!(words("a &&"), ["a", "And"]);
        assert_eq!(words("(a; b) || c"), ["a", "b", "Or", "c"]);
        assert_eq!(words("case x) a;; esac"), ["case", "x", "a", "esac"]);
    }

    #[test]
    fn redirections_are_not_arguments() {
        for text in
            ["a b 2>/dev/null", "a >f b", "a b 2>&1", "a b &>/dev/null", "a b <<EOF", "a 2>> f b"]
        {
            assert_eq!(words(text), ["a", "b"], "{text}");
        }
        assert_eq!(words("a 9-9 >f;b"), ["a", "9-9", "b"]);
    }

    #[test]
    fn dump_arguments_use_only_double_quotes() {
        let cut = |text| dump_words(text).map(|words| words.join("|"));
        assert_eq!(cut("-o $x #y"), Ok("-o|$x|#y".into()));
        assert_eq!(cut("a \"b \\\" ' c\" it's \"\""), Ok("a|b \" ' c|it's|".into()));
        assert_eq!(cut("a \"b"), Err(Invalid::Quote));
    }
}
