//! Output of a command. What happens to it never changes what the command did.
//!
//! A write that fails stops no command: the first failure is kept, and reported at the end. The
//! verdict of a command whose only effect is its output, like `show`, is then a failure. A closed
//! pipe is not a failure: its reader has what it wanted.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write};

use ephport_nft::Warning;
use serde::Serialize;

use crate::Exit;
use crate::document::{Level, Message};

/// The longest message, in characters. A longer one is cut in its middle: it quotes input.
const MAX_MESSAGE: usize = 2_000;

/// Standard output and standard error of one command.
pub(crate) struct Output<'a> {
    out: Sink<'a>,
    err: Sink<'a>,
    json: bool,
}

impl<'a> Output<'a> {
    /// Messages are JSON, one object a line, if `json`.
    pub(crate) fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, json: bool) -> Self {
        Self { out: Sink::new(out), err: Sink::new(err), json }
    }

    /// Print to standard output, with control characters escaped.
    pub(crate) fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(text);
    }

    /// Whether standard output cannot be written any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.out.failure.is_some()
    }

    /// Write what is buffered of standard output.
    pub(crate) fn flush(&mut self) {
        self.out.flush_all();
    }

    /// Print a JSON document to standard output.
    pub(crate) fn document(&mut self, document: &impl Serialize) {
        match serde_json::to_string_pretty(document) {
            Ok(text) => writeln!(self, "{text}"),
            Err(error) => self.out.failure = self.out.failure.take().or(Some(error.into())),
        }
    }

    /// Print a warning to standard error.
    pub(crate) fn warn(&mut self, warning: &Warning) {
        let policy = Some(warning.policy().to_string());
        self.message(Level::Warning, warning.name(), policy, &warning.to_string());
    }

    /// Print a message to standard error.
    pub(crate) fn message(
        &mut self,
        level: Level,
        kind: &str,
        policy: Option<String>,
        message: &str,
    ) {
        let message = cut(message);
        let _ = if self.json {
            let message = Message::new(level, kind, policy, &message);
            serde_json::to_string(&message).map(|text| writeln!(self.err, "{text}")).is_ok()
        } else {
            writeln!(self.err, "{}: {message}", level.name()).is_ok()
        };
    }

    /// Print a line to standard error, at once.
    pub(crate) fn log(&mut self, line: &str) {
        let _ = writeln!(self.err, "{line}");
        self.err.flush_all();
    }

    /// Standard output and standard error, both without failures.
    pub(crate) fn streams(&mut self) -> (&mut dyn Write, &mut dyn Write) {
        (&mut self.out, &mut self.err)
    }

    /// Standard output as it is, for text with colours.
    pub(crate) fn colours(&mut self) -> &mut dyn Write {
        self.out.is_raw = true;
        &mut self.out
    }

    /// Flush, report the first failure of standard output, and give the command's exit code.
    pub(crate) fn finish(mut self, exit: Exit, output_is_all: bool) -> Exit {
        self.out.flush_all();
        let failure = self.out.failure.take().filter(|error| !is_closed(error));
        let exit = match failure {
            None => exit,
            Some(error) => {
                let message = format!("cannot write to standard output: {error}");
                let (level, exit) = if output_is_all && exit == Exit::Success {
                    (Level::Error, Exit::Failure)
                } else {
                    (Level::Warning, exit)
                };
                self.message(level, "output", None, &message);
                exit
            }
        };
        self.err.flush_all();
        exit
    }
}

/// Whether nobody reads any more.
fn is_closed(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

/// A stream that never fails: it keeps its first error, and then discards what is written.
struct Sink<'a> {
    stream: &'a mut dyn Write,
    failure: Option<io::Error>,
    /// Whether control characters are written as they are.
    is_raw: bool,
}

impl<'a> Sink<'a> {
    fn new(stream: &'a mut dyn Write) -> Self {
        Self { stream, failure: None, is_raw: false }
    }

    fn flush_all(&mut self) {
        if self.failure.is_none() {
            self.failure = self.stream.flush().err();
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failure.is_none() {
            let result = if self.is_raw {
                self.stream.write_all(bytes)
            } else {
                let text = String::from_utf8_lossy(bytes);
                self.stream.write_all(escaped(&text).as_bytes())
            };
            self.failure = result.err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_all();
        Ok(())
    }
}

/// Text in which each control character but newline and tab, and each that turns the direction of
/// writing, is `\u` with four hexadecimal digits: as JSON and TOML write it.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped.into()
}

fn is_hidden(character: char) -> bool {
    let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (character.is_control() && !matches!(character, '\n' | '\t'))
}

/// The message with at most [`MAX_MESSAGE`] characters: its start and its end.
fn cut(message: &str) -> Cow<'_, str> {
    let count = message.chars().count();
    if count <= MAX_MESSAGE {
        return message.into();
    }
    let half = MAX_MESSAGE / 2;
    let start: String = message.chars().take(half).collect();
    let end: String = message.chars().skip(count - half).collect();
    format!("{start} [{} characters] {end}", count - 2 * half).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that fails.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn control_characters_are_escaped_once() {
        let cases = [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[31mred\r", "\\u001b[31mred\\u000d"),
            ("\u{9b}31m \u{202e}evil\u{7f}\0", "\\u009b31m \\u202eevil\\u007f\\u0000"),
        ];
        for (text, expected) in cases {
            assert_eq!(escaped(text), expected);
            assert_eq!(escaped(expected), expected);
        }
    }

    #[test]
    fn long_messages_keep_start_and_end() {
        let message = format!("start {} end", "x".repeat(1_000_000));
        let shown = cut(&message);
        assert!(shown.starts_with("start xxx") && shown.ends_with("xxx end"), "{shown}");
        assert!(shown.chars().count() < MAX_MESSAGE + 40);
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn failures_of_streams_keep_the_verdict() {
        for exit in [Exit::Success, Exit::Differs, Exit::Failure] {
            for kind in [ErrorKind::BrokenPipe, ErrorKind::StorageFull] {
                let (mut out, mut err) = (Failing(kind), Failing(kind));
                let mut output = Output::new(&mut out, &mut err, false);
                writeln!(output, "text");
                output.message(Level::Warning, "kind", None, "text");
                assert_eq!(output.finish(exit, false), exit);
            }
        }
    }

    #[test]
    fn lost_output_fails_a_command_of_output_only() {
        let exit = |kind| {
            let (mut out, mut err) = (Failing(kind), Vec::new());
            let mut output = Output::new(&mut out, &mut err, false);
            writeln!(output, "text");
            (output.finish(Exit::Success, true), String::from_utf8(err).unwrap())
        };
        assert_eq!(exit(ErrorKind::BrokenPipe), (Exit::Success, String::new()));
        let message = "error: cannot write to standard output: no storage space\n";
        assert_eq!(exit(ErrorKind::StorageFull), (Exit::Failure, message.into()));
    }

    #[test]
    fn messages_are_json_where_asked() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output::new(&mut out, &mut err, true);
        output.message(Level::Error, "file", None, "bad \u{1b} text");
        output.finish(Exit::Failure, false);
        let message: serde_json::Value = serde_json::from_slice(&err).unwrap();
        assert_eq!(message["message"], "bad \u{1b} text");
        assert_eq!((&message["level"], &message["kind"]), (&"error".into(), &"file".into()));
    }
}
