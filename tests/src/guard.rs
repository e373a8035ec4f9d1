//! A running `ephport-nft guard`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tool::binary;
use crate::{Host, TempDir};

/// The limit of each wait. What is waited for usually needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A guard on a host, with a policy file of its own. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    log: PathBuf,
}

/// The file of a guard, and the directory that it is in.
#[derive(Debug)]
pub struct GuardedFile(TempDir);

impl GuardedFile {
    /// A file with this text.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let file = Self(TempDir::new());
        file.write(text);
        file
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("policy.toml")
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// Replaces the file by one with this text.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, self.path()).expect("renamed");
    }
}

impl Guard {
    /// Starts it, and waits until it watches.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &Host, file: &GuardedFile, args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.arg("guard").arg(file.path()).args(args);
        let guard = Self::spawn(host, file, command);
        guard.wait_for("started", 1);
        guard
    }

    /// Starts it, and waits until a policy is applied.
    ///
    /// # Panics
    /// When none is.
    #[must_use]
    pub fn applied(host: &Host, file: &GuardedFile, args: &[&str]) -> Self {
        let guard = Self::start(host, file, args);
        guard.wait_for("event=applied", 1);
        guard
    }

    /// Starts a command that is, or becomes, a guard.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn spawn(host: &Host, file: &GuardedFile, mut command: Command) -> Self {
        let count = fs::read_dir(file.directory()).expect("a directory").count();
        let log = file.directory().join(format!("log{count}"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log"));
        let child = host.run(|| command.spawn()).expect("a process");
        Self { child, log }
    }

    /// What it has logged.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    /// Waits until `count` lines of its log contain `text`.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for(&self, text: &str, count: usize) {
        let found = || self.log().lines().filter(|line| line.contains(text)).count() >= count;
        wait_until(&format!("{count} times {text} in:\n"), found, || self.log());
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("sent");
    }

    /// Its process.
    ///
    /// # Panics
    /// When that is no process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a process id"))
    }

    /// Ends it by this signal.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        let status = self.child.wait().expect("its end");
        (status, self.log())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `is_reached`.
///
/// # Panics
/// When that is not so within 20 seconds.
pub fn wait_until(what: &str, is_reached: impl Fn() -> bool, details: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !is_reached() {
        assert!(Instant::now() < end, "{what} {}", details());
        thread::sleep(Duration::from_millis(2));
    }
}
