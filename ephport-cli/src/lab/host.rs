//! A host: a network namespace that is kept by a file descriptor (network_namespaces(7)).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};

use super::error::{LabError, Restriction};

/// This thread's network namespace; `/proc/self` is that of the process's first thread.
const THIS_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A host with its own network. The host and its links vanish when the value is dropped.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: OwnedFd,
}

impl Host {
    /// A host whose only interface is loopback, which is up. The name is for messages only.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let host = Self { name: name.into(), namespace: new_namespace(name)? };
        // Addresses of links that are made later are usable at once.
        host.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        host.up("lo")?;
        Ok(host)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in a thread in this host's network, which processes that it starts inherit. Sockets
    /// that it opens remain in this network.
    ///
    /// # Panics
    /// When `work` panics, with the same payload; and when this process has dropped CAP_SYS_ADMIN since it
    /// made the host.
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

    /// Starts a thread in this host's network, like [`Host::run`], and returns at once. The namespace
    /// exists at least as long as the thread.
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

    /// Enables forwarding of IPv4 and IPv6.
    pub fn forward(&self) -> Result<(), LabError> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Sets `/proc/sys/{name}` of this host. The name must begin with `net/`: all others belong to the
    /// machine.
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

/// A thread makes the namespace and ends; after that only the descriptor keeps the namespace.
fn new_namespace(host: &str) -> Result<OwnedFd, LabError> {
    let made = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                    LabError::NoNetworkNamespace {
                        host: host.into(),
                        errno,
                        restriction: Restriction::here(),
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
            "cannot enter the network namespace of {host} ({errno}): this process dropped CAP_SYS_ADMIN"
        );
    }
}
