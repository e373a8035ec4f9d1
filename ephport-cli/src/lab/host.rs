//! A host: a network namespace that a file descriptor holds (network_namespaces(7)).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};

use super::error::{Forbidden, LabError};

/// This thread's network namespace; `/proc/self` would be that of the process's first thread.
const THIS_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A host with a network of its own. It and all its links vanish when the value does.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: OwnedFd,
}

impl Host {
    /// A host with nothing but its loopback interface, up. The name is for messages only.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let host = Self { name: name.into(), namespace: new_namespace(name)? };
        // Addresses are then usable at once. Only for links made from now on.
        host.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        host.up("lo")?;
        Ok(host)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside: in a thread whose network is this host's, as is that of any process it
    /// starts. What it opens stays this host's afterwards too.
    ///
    /// # Panics
    /// When `work` does, with the same payload; and if this process has given up the privilege
    /// with which it made the host.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.namespace.as_fd();
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(namespace, &self.name);
                    work()
                })
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread inside, as [`Host::run`] does, and lets it go on. The host lives at least
    /// as long as the thread.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, LabError> {
        let namespace =
            self.namespace.try_clone().map_err(|source| self.proc(THIS_NAMESPACE, source))?;
        let name = self.name.clone();
        Ok(thread::spawn(move || {
            enter(namespace.as_fd(), &name);
            work()
        }))
    }

    /// Lets packets pass through, of both families.
    pub fn forward(&self) -> Result<(), LabError> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Sets `/proc/sys/{name}` of this host. Names begin with `net/`: all others are the machine's.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        let path = format!("/proc/sys/{name}");
        if !name.starts_with("net/") || name.contains("..") {
            return Err(self.proc(&path, io::ErrorKind::PermissionDenied.into()));
        }
        self.run(|| fs::write(&path, value)).map_err(|source| self.proc(&path, source))
    }

    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn proc(&self, path: &str, source: io::Error) -> LabError {
        LabError::Proc { host: self.name.clone(), path: path.into(), source }
    }
}

/// A thread makes the namespace and ends; from then on only the descriptor holds it.
fn new_namespace(host: &str) -> Result<OwnedFd, LabError> {
    let made = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                    LabError::NoNetworkNamespace {
                        host: host.into(),
                        errno,
                        because: Forbidden::here(),
                    }
                })?;
                File::open(THIS_NAMESPACE).map_err(|source| LabError::Proc {
                    host: host.into(),
                    path: THIS_NAMESPACE.into(),
                    source,
                })
            })
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    });
    made.map(OwnedFd::from)
}

fn enter(namespace: BorrowedFd<'_>, host: &str) {
    if let Err(errno) = setns(namespace, CloneFlags::CLONE_NEWNET) {
        panic!(
            "cannot enter the network namespace of {host} ({errno}): CAP_SYS_ADMIN was given up"
        );
    }
}
