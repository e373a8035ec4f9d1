//! The policy file and its changes (inotify(7)).

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ephport_core::policy::value::Files;
use ephport_core::{Document, PolicyFileError};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::command::{Failure, read_text};
use crate::files::FilesIn;

/// The device, inode, length and times of a file in nanoseconds: they are others after it was written.
type Stamp = (u64, u64, u64, [i64; 4]);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    Some((found.dev(), found.ino(), found.len(), times))
}

/// A policy file that is watched, with the files that its policies name.
#[derive(Debug)]
pub(super) struct WatchedFile {
    path: PathBuf,
    inotify: Inotify,
    /// The text when it was last read, or the error.
    last: Result<String, String>,
    /// The files that the policies name, as they were when they were last read.
    named: Vec<(PathBuf, Option<Stamp>)>,
}

impl WatchedFile {
    /// Watch `path`, whether it exists or not.
    pub(super) fn new(path: PathBuf) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { path, inotify, last: Err(String::new()), named: Vec::new() })
    }

    /// Watch the directory of each file, in which editors rename a new file over it, and that of the file
    /// that a symbolic link leads to. A directory that is watched already stays so.
    fn watch(&self) {
        self.watch_file(&self.path);
        self.named.iter().for_each(|(path, _)| self.watch_file(path));
    }

    fn watch_file(&self, path: &Path) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        let target = fs::canonicalize(path).ok();
        for path in [Some(path.to_path_buf()), target].into_iter().flatten() {
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

    /// The policies, if a file is another than the last one.
    pub(super) fn read_if_changed(&mut self) -> Option<Result<Document, Failure>> {
        self.watch();
        let text = File::open(&self.path).and_then(|mut file| read_text(&mut file));
        let is_unchanged = |(path, last): &(PathBuf, Option<Stamp>)| stamp(path) == *last;
        let is_same = self.named.iter().all(is_unchanged);
        let is_same = is_same
            && match (&text, &self.last) {
                (Ok(text), Ok(last)) => text == last,
                (Err(error), Err(last)) => error.to_string() == *last,
                _ => false,
            };
        (!is_same).then(|| self.parse(text))
    }

    fn parse(&mut self, text: io::Result<String>) -> Result<Document, Failure> {
        let path = self.path.clone();
        let result = match &text {
            Ok(text) => self.policies(text).map_err(|source| Failure::File { path, source }),
            Err(error) => Err(Failure::NoFile {
                path,
                source: io::Error::new(error.kind(), error.to_string()),
            }),
        };
        self.last = text.map_err(|error| error.to_string());
        result
    }

    fn policies(&mut self, text: &str) -> Result<Document, PolicyFileError> {
        let files = Following {
            watched: self,
            directory: FilesIn::directory_of(&self.path),
            opened: RefCell::default(),
        };
        let result = Document::read(text, &files);
        self.named = files.opened.into_inner();
        result
    }
}

/// Watches each file that policies name before it is opened.
#[derive(Debug)]
struct Following<'a> {
    watched: &'a WatchedFile,
    directory: FilesIn,
    opened: RefCell<Vec<(PathBuf, Option<Stamp>)>>,
}

impl Files for Following<'_> {
    fn open(&self, path: &str) -> io::Result<Box<dyn BufRead>> {
        let from_here = self.directory.path(path);
        self.watched.watch_file(&from_here);
        let stamp = stamp(&from_here);
        self.opened.borrow_mut().push((from_here, stamp));
        self.directory.open(path)
    }
}

impl AsFd for WatchedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
