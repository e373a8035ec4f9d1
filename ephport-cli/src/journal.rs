//! The journal: one file, to which each policy that is applied is appended with its time.
//!
//! A line is a JSON object. A crash can cut the last one; it is skipped.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ephport_core::Document;

use crate::command::Failure;
use crate::document::{JournalEvent, JournalLine, VERSION};
use crate::time::Time;

/// The policies that were installed, from each time to the next. `None` if none were.
#[derive(Debug, Default)]
pub(crate) struct History {
    states: Vec<(String, Option<String>)>,
    /// The numbers of the lines that are no records.
    pub(crate) skipped: Vec<usize>,
    is_cut: bool,
}

impl History {
    /// Read a journal.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let read = || {
            let file = File::open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
            }
            Self::of(BufReader::new(file))
        };
        read().map_err(|source| failure(path, source))
    }

    fn of(mut reader: impl BufRead) -> io::Result<Self> {
        let mut history = Self::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            history.is_cut = line.last() != Some(&b'\n');
            match serde_json::from_slice(&line) {
                Ok(record) => history.add(record),
                Err(_) => history.skipped.push(number),
            }
        }
        Ok(history)
    }

    fn add(&mut self, JournalLine { time, event, policies, .. }: JournalLine) {
        let state = match event {
            JournalEvent::Applied => policies,
            JournalEvent::Removed => None,
            // What was installed before the last record.
            JournalEvent::Undone => {
                let before = self.states.len().checked_sub(2);
                before.and_then(|index| self.states.get(index)?.1.clone())
            }
        };
        self.states.push((time, state));
    }

    /// The policies that were installed at this time, with the time of their record; `None` if none were.
    pub(crate) fn at(&self, time: Time) -> Option<(&str, &str)> {
        let time = time.to_string();
        let (since, state) = self.states.iter().rev().find(|(since, _)| *since <= time)?;
        Some((since, state.as_deref()?))
    }

    fn last(&self) -> Option<&str> {
        self.states.last()?.1.as_deref()
    }
}

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    history: History,
}

impl Journal {
    /// Open a journal, or begin one, which only its owner can read.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Failure> {
        let history = match History::read(&path) {
            Err(Failure::Journal { source, .. }) if source.kind() == ErrorKind::NotFound => {
                History::default()
            }
            history => history?,
        };
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(&path);
        let file = file.map_err(|source| failure(&path, source))?;
        Ok(Self { path, file, history })
    }

    /// Record that these policies are installed, unless the last record has them.
    pub(crate) fn applied(&mut self, document: &Document) -> Result<(), Failure> {
        // The files of blocks may be others when the journal is read.
        let text = document.without_files().to_toml();
        if self.history.last() == Some(&text) {
            return Ok(());
        }
        self.write(JournalEvent::Applied, Some(text))
    }

    /// Record that what was recorded last is undone.
    pub(crate) fn undone(&mut self) -> Result<(), Failure> {
        self.write(JournalEvent::Undone, None)
    }

    /// Record that nothing is installed, unless the last record is that.
    pub(crate) fn removed(&mut self) -> Result<(), Failure> {
        if self.history.last().is_none() {
            return Ok(());
        }
        self.write(JournalEvent::Removed, None)
    }

    fn write(&mut self, event: JournalEvent, policies: Option<String>) -> Result<(), Failure> {
        let time = Time::now().to_string();
        let record = JournalLine { version: VERSION, time, event, policies };
        let result = self.append(&record);
        self.history.add(record);
        result.map_err(|source| failure(&self.path, source))
    }

    /// In one call: lines of several processes do not mix.
    fn append(&mut self, record: &JournalLine) -> io::Result<()> {
        let start = if std::mem::take(&mut self.history.is_cut) { "\n" } else { "" };
        let line = format!("{start}{}\n", serde_json::to_string(record)?);
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()
    }
}

fn failure(path: &Path, source: io::Error) -> Failure {
    Failure::Journal { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str, event: &str, policies: Option<&str>) -> String {
        let line = serde_json::json!({
            "version": 1, "time": time, "event": event, "policies": policies
        });
        format!("{line}\n")
    }

    #[test]
    fn history_is_the_state_at_each_time() {
        let lines = [
            line("2026-01-01T00:00:00.000000Z", "applied", Some("a")),
            "no record\n".into(),
            line("2026-01-02T00:00:00.000000Z", "applied", Some("b")),
            line("2026-01-03T00:00:00.000000Z", "undone", None),
            line("2026-01-04T00:00:00.000000Z", "removed", None),
            line("2026-01-05T00:00:00.000000Z", "applied", Some("c")),
            "{ \"time\": \"2026-01-06".into(),
        ];
        let history = History::of(lines.concat().as_bytes()).unwrap();
        assert_eq!((history.skipped.as_slice(), history.is_cut), (&[2, 7][..], true));
        for (time, expected) in [
            ("2025-12-31T23:59:59Z", None),
            ("2026-01-01T00:00:00Z", Some("a")),
            ("2026-01-02T12:00:00Z", Some("b")),
            ("2026-01-03T00:00:00Z", Some("a")),
            ("2026-01-04T01:00:00+01:00", None),
            ("2026-02-01T00:00:00Z", Some("c")),
        ] {
            let found = history.at(Time::parse(time).unwrap()).map(|(_, policies)| policies);
            assert_eq!(found, expected, "{time}");
        }
    }
}
