//! Waiting for all sources of changes at once.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Due, Guard};

/// The sources that have something to read.
pub(super) struct Ready {
    pub(super) commits: bool,
    pub(super) host: bool,
    pub(super) file: bool,
    pub(super) signal: bool,
    pub(super) asked: bool,
}

impl Guard<'_, '_> {
    /// Wait until a source has something to read or something is due.
    pub(super) fn wait(&self) -> Ready {
        let mut waiting = [
            self.events.as_fd(),
            self.changes.as_fd(),
            self.file.as_fd(),
            self.signals.as_fd(),
            self.presence.as_fd(),
        ]
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An error, such as EINTR, is no event: what is due is done, and the next call waits.
        let is_waited = poll(&mut waiting, self.due.timeout()).is_ok();
        let ready = waiting.map(|fd| is_waited && fd.any().unwrap_or(false));
        let [commits, host, file, signal, asked] = ready;
        Ready { commits, host, file, signal, asked }
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
