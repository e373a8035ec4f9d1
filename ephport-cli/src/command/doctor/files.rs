//! Files that decide on the policy and that others than root can write.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::fix::finding;
use crate::document::Finding;

/// Where systemd and packages have units.
const UNITS: [&str; 3] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];

/// The names of our units.
const NAMES: [&str; 2] = ["ephport.service", "ephport-guard.service"];

/// A finding for each file that others than root can write, or can replace in its directory.
pub(super) fn writable(policy: Option<&Path>) -> Vec<Finding> {
    let units = UNITS.iter().flat_map(|directory| {
        let directory = Path::new(directory);
        NAMES.iter().map(|name| directory.join(name))
    });
    let files = policy.map(Path::to_path_buf).into_iter().chain(units);
    files.filter_map(|path| writable_part(&path)).collect()
}

/// The file, or the nearest of its directories, that others than root can write.
fn writable_part(path: &Path) -> Option<Finding> {
    let path = fs::canonicalize(path).ok()?;
    let part: PathBuf = path.ancestors().find(|part| is_writable(part)).map(Into::into)?;
    let message = if part == path {
        format!("others than root can write {}", path.display())
    } else {
        format!("others than root can write {}, and so replace {}", part.display(), path.display())
    };
    Some(finding("writable-file", None, &message))
}

/// Whether others than root can write a file, or replace what is in a directory: in one with the sticky bit
/// only the owner of a file can.
fn is_writable(part: &Path) -> bool {
    const STICKY: u32 = 0o1000;
    let is_others = |metadata: Metadata| {
        let is_shared = metadata.mode() & 0o022 != 0;
        let is_sticky = metadata.is_dir() && metadata.mode() & STICKY != 0;
        let is_roots = metadata.uid() == 0 || is_unmapped(metadata.uid());
        !is_roots || is_shared && !is_sticky
    };
    fs::metadata(part).is_ok_and(is_others)
}

/// Whether a user namespace hides the owner of a file, who is root of another namespace or nobody.
fn is_unmapped(uid: u32) -> bool {
    /// The sysctl `kernel.overflowuid`, by default.
    const OVERFLOW: u32 = 65_534;
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    uid == OVERFLOW && !is_whole
}
