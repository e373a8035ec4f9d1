//! Lines of a text, and what people write around a command: bullets, prompts, quotes, keys.

use std::borrow::Cow;

/// A line, with those that a backslash joins to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The number of its first line, from 1.
    pub(super) number: usize,
    /// The text without the backslashes; bytes that are not UTF-8 are replaced.
    pub(super) text: Cow<'a, str>,
}

/// The lines that are not blank.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut lines = (1..).zip(text.split(|byte| *byte == b'\n').map(without_mark));
    std::iter::from_fn(move || {
        let (number, first) = lines.find(|(_, line)| !line.trim_ascii().is_empty())?;
        let mut text = String::from_utf8_lossy(without_return(first));
        let is_comment = text.trim_start().starts_with('#');
        while !is_comment && text.ends_with('\\') {
            let text = text.to_mut();
            text.pop();
            let Some((_, next)) = lines.next() else { break };
            text.push_str(&String::from_utf8_lossy(without_return(next)));
        }
        Some(Line { number, text })
    })
}

/// The line without a byte order mark, with which a file may begin: several files may be one text.
fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a backslash is followed by spaces only, so that it does not join the next line.
pub(super) fn has_space_after_backslash(text: &str) -> bool {
    text.ends_with([' ', '\t']) && text.trim_end().ends_with('\\')
}

/// The keys of wg-quick, ifupdown and systemd before a command that runs at the start.
const START_KEYS: [&str; 9] = [
    "PreUp",
    "PostUp",
    "pre-up",
    "post-up",
    "up",
    "ExecStartPre",
    "ExecStart",
    "ExecStartPost",
    "RUN",
];

/// The keys before a command that runs at the stop.
const STOP_KEYS: [&str; 7] =
    ["PreDown", "PostDown", "pre-down", "post-down", "down", "ExecStop", "ExecStopPost"];

impl<'a> Line<'a> {
    /// The command without bullets, numbers, prompts, quotes around all of it, and the keys of other
    /// programs; `Err` with the key if that runs it at the stop.
    pub(super) fn plain(&self) -> Result<Cow<'a, str>, Box<str>> {
        match &self.text {
            Cow::Borrowed(text) => plain(text).map(Cow::Borrowed).map_err(Into::into),
            Cow::Owned(text) => plain(text).map(|text| text.to_owned().into()).map_err(Into::into),
        }
    }

    /// Whether it may contain a source translation.
    pub(super) fn is_translation(&self) -> bool {
        self.text.contains("MASQUERADE") || self.text.contains("SNAT")
    }
}

fn plain(text: &str) -> Result<&str, &str> {
    let mut text = text.trim();
    loop {
        let (word, rest) = first_word(text);
        let key = word.trim_end_matches(['=', ':']);
        let value = rest.trim_start().strip_prefix('=').unwrap_or(rest).trim_start();
        if let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.contains(' '))
            && (START_KEYS.contains(&key) || STOP_KEYS.contains(&key))
        {
            if STOP_KEYS.contains(&key) {
                return Err(key);
            }
            text = value.trim_start_matches(['-', '+', '!', '@', ':']).trim_start();
        } else if STOP_KEYS.contains(&key) && !rest.is_empty() {
            return Err(key);
        } else if START_KEYS.contains(&key) && !rest.is_empty() {
            text = value;
        } else if !rest.is_empty() && is_decoration(word) {
            text = rest.trim_start();
        } else if let Some(rest) = bracketed_prompt(text) {
            text = rest;
        } else if let Some(inner) = unquoted(text) {
            text = inner.trim();
        } else {
            return Ok(text);
        }
    }
}

fn first_word(text: &str) -> (&str, &str) {
    text.find(char::is_whitespace).map_or((text, ""), |at| text.split_at(at))
}

/// Whether a first word is a bullet, a number, a prompt or a key of YAML.
fn is_decoration(word: &str) -> bool {
    let is_number = |number: &str| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    matches!(word, "-" | "*" | "+" | "•" | "[#]" | "+)" | "|")
        || word.strip_suffix(['.', ')']).is_some_and(is_number)
        || word.strip_suffix(':').is_some_and(|key| !key.is_empty() && !key.contains(':'))
        || (word.ends_with(['$', '#', '%', '>'])
            && !word.starts_with(['#', '<', '-'])
            && !word.contains('='))
}

/// What follows a prompt like `[root@host ~]#`.
fn bracketed_prompt(text: &str) -> Option<&str> {
    let (inside, rest) = text.strip_prefix('[')?.split_once(']')?;
    let rest = rest.strip_prefix(['#', '$', '%'])?;
    inside.contains('@').then(|| rest.trim_start())
}

/// What a pair of quotes around all of the text contains, a comma or a stop after it aside.
fn unquoted(text: &str) -> Option<&str> {
    let text = text.strip_suffix([',', '.', ';']).unwrap_or(text);
    let quote = text.chars().next().filter(|c| matches!(c, '`' | '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let is_one = !inner.is_empty() && !inner.replace("\\\"", "").contains(quote);
    is_one.then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(text: &str) -> Vec<(usize, String)> {
        lines(text.as_bytes()).map(|line| (line.number, line.text.into_owned())).collect()
    }

    #[test]
    fn backslash_joins_the_next_line() {
        let expected = [(1, "a  b"), (3, "# c \\"), (4, "d"), (5, "e ")];
        let expected = expected.map(|(line, text)| (line, text.to_owned()));
        assert_eq!(numbered("a \\\n b\n# c \\\nd\ne \\"), expected);
        assert_eq!(
            numbered("a \\\r\n b\r\n\n \n\u{feff}\n\u{feff}# c"),
            [(1, "a  b".into()), (6, "# c".into())]
        );
        assert_eq!(numbered("\u{feff}# a"), [(1, "# a".into())]);
        assert!(has_space_after_backslash("a \\ ") && !has_space_after_backslash("a \\"));
    }

    #[test]
    fn decoration_is_taken_away() {
        let command = "iptables -t nat -A POSTROUTING";
        for before in [
            "",
            "  ",
            "- ",
            "* ",
            "+ ",
            "1. ",
            "12) ",
            "> ",
            "$ ",
            "% ",
            "[#] ",
            "- $ ",
            "root@h:~# ",
            "[root@h ~]# ",
            "[u@h dir]$ ",
            "h# ",
            "PostUp = ",
            "PostUp=",
            "post-up ",
            "    up ",
            "ExecStart=",
            "ExecStart=-",
            "ExecStartPost=+",
            "RUN ",
            "run: ",
            "- run: ",
            "  - cmd: ",
            "| ",
        ] {
            assert_eq!(plain(&format!("{before}{command}")), Ok(command), "{before}");
        }
        for (open, close) in
            [("`", "`"), ("- `", "`."), ("\"", "\","), ("- '", "'"), ("run: \"", "\"")]
        {
            assert_eq!(plain(&format!("{open}{command}{close}")), Ok(command), "{open}");
        }
        for (key, between) in
            [("PostDown", " = "), ("PostDown", "="), ("down", " "), ("ExecStop", "=")]
        {
            assert_eq!(plain(&format!("{key}{between}{command}")), Err(key));
        }
        for kept in ["-A POSTROUTING", "[0:0] -A POSTROUTING", "*nat", "# a", "a 'b c'", "'a' 'b'"]
        {
            assert_eq!(plain(kept), Ok(kept));
        }
    }
}
