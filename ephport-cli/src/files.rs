//! The files that policies name.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use ephport_core::policy::value::Files;

/// Files by paths that begin in a directory.
#[derive(Debug, Default)]
pub(crate) struct FilesIn(PathBuf);

impl FilesIn {
    /// Paths that begin in the directory of a policy file.
    pub(crate) fn directory_of(file: &Path) -> Self {
        Self(file.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// The path from the working directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Files for FilesIn {
    fn open(&self, path: &str) -> io::Result<Box<dyn BufRead>> {
        Ok(Box::new(BufReader::with_capacity(1 << 16, File::open(self.path(path))?)))
    }
}
