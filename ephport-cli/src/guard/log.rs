//! Log lines: `key=value` for people and journald, or one JSON object a line.

use serde_json::Value;

use crate::document::{LogLevel, LogLine, VERSION};
use crate::output::Output;
use crate::time::Time;

/// Writes log lines to standard error.
pub(crate) struct Log<'a, 'b> {
    output: &'a mut Output<'b>,
    is_json: bool,
}

impl<'a, 'b> Log<'a, 'b> {
    pub(crate) fn new(output: &'a mut Output<'b>, is_json: bool) -> Self {
        Self { output, is_json }
    }

    pub(crate) fn write(&mut self, line: &LogLine) {
        let text = if self.is_json { serde_json::to_string(line) } else { logfmt(line) };
        self.output.log(&text.unwrap_or_default());
    }
}

/// A line with the time, a level and an event.
pub(crate) fn line(level: LogLevel, event: &'static str) -> LogLine {
    LogLine {
        version: VERSION,
        time: Time::now().to_string(),
        level,
        event,
        cause: None,
        result: None,
        kind: None,
        policy: None,
        thread: None,
        thread_name: None,
        port_id: None,
        microseconds: None,
        restores: None,
        message: None,
    }
}

/// The keys with a value, as `key=value`.
fn logfmt(line: &LogLine) -> serde_json::Result<String> {
    let mut words = Vec::new();
    if let Value::Object(fields) = serde_json::to_value(line)? {
        let mut word = |key: &str| match fields.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => words.push(format!("{key}={}", quoted(text))),
            Some(value) => words.push(format!("{key}={value}")),
        };
        for key in LogLine::KEYS {
            word(key);
        }
    }
    Ok(words.join(" "))
}

/// The text; in quotes, as JSON writes it, if it is more than a word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_words_with_quotes_where_needed() {
        let line = LogLine {
            time: "2026-01-01T00:00:00.000000Z".into(),
            cause: Some("flush".into()),
            port_id: Some(7),
            message: Some("two \"words\"\n".into()),
            ..line(LogLevel::Warning, "restored")
        };
        assert_eq!(
            logfmt(&line).unwrap(),
            "time=2026-01-01T00:00:00.000000Z level=warning event=restored cause=flush port_id=7 \
             message=\"two \\\"words\\\"\\n\""
        );
    }

    #[test]
    fn every_key_is_printed() {
        let Value::Object(fields) = serde_json::to_value(line(LogLevel::Info, "started")).unwrap()
        else {
            panic!("an object");
        };
        let keys: Vec<_> =
            fields.keys().map(String::as_str).filter(|key| *key != "version").collect();
        let mut expected = LogLine::KEYS.to_vec();
        expected.sort_unstable();
        assert_eq!(keys.len(), expected.len());
        assert!(keys.iter().all(|key| expected.contains(key)), "{keys:?}");
    }
}
