//! The policy file and its changes (inotify(7)).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use ephport_core::Document;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::command::{Failure, read_text};

/// A policy file that is watched.
pub(super) struct WatchedFile {
    path: PathBuf,
    inotify: Inotify,
    /// The text when it was last read, or the error.
    last: Result<String, String>,
}

impl WatchedFile {
    /// Watch `path`, whether it exists or not.
    pub(super) fn new(path: PathBuf) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { path, inotify, last: Err(String::new()) })
    }

    /// Watch the directory of the file, in which editors rename a new file over it, and that of the file
    /// that a symbolic link leads to. A directory that is watched already stays so.
    fn watch(&self) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        let target = fs::canonicalize(&self.path).ok();
        for path in [Some(self.path.clone()), target].into_iter().flatten() {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            // Without a watch the file is compared at each recheck.
            let _ = self.inotify.add_watch(parent.unwrap_or(Path::new(".")), flags);
        }
    }

    /// Forget the notifications so far.
    pub(super) fn drain(&self) {
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }

    /// The policies.
    pub(super) fn read(&mut self) -> Result<Document, Failure> {
        self.watch();
        let text = File::open(&self.path).and_then(|mut file| read_text(&mut file));
        self.parse(text)
    }

    /// The policies, if the text is another than the last one.
    pub(super) fn read_if_changed(&mut self) -> Option<Result<Document, Failure>> {
        self.watch();
        let text = File::open(&self.path).and_then(|mut file| read_text(&mut file));
        let is_same = match (&text, &self.last) {
            (Ok(text), Ok(last)) => text == last,
            (Err(error), Err(last)) => error.to_string() == *last,
            _ => false,
        };
        (!is_same).then(|| self.parse(text))
    }

    fn parse(&mut self, text: io::Result<String>) -> Result<Document, Failure> {
        let path = || self.path.clone();
        let result = match &text {
            Ok(text) => text.parse().map_err(|source| Failure::File { path: path(), source }),
            Err(error) => Err(Failure::NoFile {
                path: path(),
                source: io::Error::new(error.kind(), error.to_string()),
            }),
        };
        self.last = text.map_err(|error| error.to_string());
        result
    }
}

impl AsFd for WatchedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
