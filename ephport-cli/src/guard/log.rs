//! Log lines: `key=value` for people and journald, or one JSON object a line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::document::{LogLevel, LogLine, VERSION};
use crate::output::Output;

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
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LogLine {
        version: VERSION,
        time: utc(time),
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

/// The time since 1970 as RFC 3339 writes it.
fn utc(time: Duration) -> String {
    let (days, seconds) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
        time.subsec_micros()
    )
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01. The years of the
/// computation begin in March, so that the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    const FROM_MARCH_0000: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + FROM_MARCH_0000;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        // `date -u -d @SECONDS +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), text);
        }
    }

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
