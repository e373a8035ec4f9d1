//! Waiting for all sources of changes at once.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Due, Guard};

/// A source of changes, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The ruleset.
    Commits,
    /// Links, addresses and routes.
    Host,
    /// The policy file.
    File,
    /// A signal.
    Signal,
    /// Another command that asks whether a guard runs.
    Asked,
}

impl Guard<'_, '_> {
    /// Wait until a source has something to read or something is due.
    pub(super) fn wait(&self) -> Vec<Source> {
        let sources = [
            (Source::Commits, self.events.as_fd()),
            (Source::Host, self.changes.as_fd()),
            (Source::File, self.file.as_fd()),
            (Source::Signal, self.signals.as_fd()),
            (Source::Asked, self.presence.as_fd()),
        ];
        let mut waiting = sources.map(|(_, fd)| PollFd::new(fd, PollFlags::POLLIN));
        // An error, such as EINTR, is no event: what is due is done, and the next call waits.
        if poll(&mut waiting, self.due.timeout()).is_err() {
            return Vec::new();
        }
        let both = sources.iter().zip(&waiting);
        let ready = both.filter(|(_, fd)| fd.any().unwrap_or(false));
        ready.map(|((source, _), _)| *source).collect()
    }
}

impl Due {
    fn timeout(&self) -> PollTimeout {
        let times = [self.retry, self.facts, self.watchdog, self.metrics];
        let next = times.into_iter().flatten().fold(self.recheck, Instant::min);
        // Whole milliseconds, rounded up: less than one would be none.
        let left = next.saturating_duration_since(Instant::now());
        let left = if left.is_zero() { left } else { left + Duration::from_nanos(999_999) };
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }
}
