//! Network namespaces (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use thiserror::Error;

use super::errno::Errno;

/// This thread's network namespace; `/proc/self` is that of the process's first thread.
const THIS: &str = "/proc/thread-self/ns/net";

/// A network namespace, which exists at least as long as this value.
///
/// ```no_run
/// use ephport_nft::{Client, Namespace, Plan, host};
///
/// # fn example(policies: &[ephport_core::Policy]) -> Result<(), Box<dyn std::error::Error>> {
/// let namespace = Namespace::open("/run/netns/blue")?;
/// let facts = namespace.run(host::facts)??;
/// Client::in_namespace(&namespace)?.apply(&Plan::new(policies, &facts)?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Namespace(OwnedFd);

/// The reason why a network namespace cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// Its file cannot be opened.
    #[error("cannot open the network namespace {} ({errno})", path.display())]
    Open {
        /// The file: `/run/netns/NAME`, `/proc/PID/ns/net`.
        path: PathBuf,
        /// The error of open(2).
        errno: Errno,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter the network namespace ({errno}){}", enter_cause(*errno))]
    Enter {
        /// The error of setns(2).
        errno: Errno,
    },
    /// No thread can be started that enters the namespace, or no descriptor of it made.
    #[error("cannot start a thread for the network namespace, or copy its descriptor ({errno})")]
    Thread {
        /// The error of pthread_create(3) or fcntl(2).
        errno: Errno,
    },
    /// The namespace of a socket cannot be found.
    #[error("cannot find the network namespace of the socket ({errno})")]
    OfSocket {
        /// The error of ioctl(2) with SIOCGSKNS, which needs CAP_NET_ADMIN in that namespace.
        errno: Errno,
    },
}

fn enter_cause(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => {
            ": it requires CAP_SYS_ADMIN, in the user namespace of this process and in that of the network \
             namespace"
        }
        Errno::EINVAL => ": expected a file such as /run/netns/NAME or /proc/PID/ns/net",
        _ => "",
    }
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl Namespace {
    /// The namespace of this thread.
    ///
    /// # Errors
    /// [`NamespaceError::Open`] where `/proc` is not mounted.
    pub fn current() -> Result<Self, NamespaceError> {
        Self::open(THIS)
    }

    /// The namespace of this file: `/run/netns/NAME` of ip-netns(8), `/proc/PID/ns/net` of a process.
    ///
    /// # Errors
    /// [`NamespaceError::Open`]. Whether the file is a network namespace shows when it is entered.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NamespaceError> {
        let path = path.as_ref();
        let file = File::open(path)
            .map_err(|error| NamespaceError::Open { path: path.into(), errno: errno_of(&error) })?;
        Ok(Self(file.into()))
    }

    /// The same namespace by another descriptor.
    pub(crate) fn try_clone(&self) -> Result<Self, NamespaceError> {
        let clone = self.0.try_clone();
        clone.map(Self).map_err(|error| NamespaceError::Thread { errno: errno_of(&error) })
    }

    /// Run `work` in this namespace: sockets that it opens remain there. It runs in a thread of its own that
    /// ends with it, so that no other thread of the process ever leaves its namespace; it runs in the calling thread
    /// if that is in this namespace already, which needs no privilege.
    ///
    /// To enter needs CAP_SYS_ADMIN in the user namespace of the process and in that of the network namespace.
    ///
    /// # Errors
    /// [`NamespaceError`] when the namespace cannot be entered; `work` is then not run.
    ///
    /// # Panics
    /// When `work` panics, with the same payload.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, NamespaceError> {
        if self.is_current() {
            return Ok(work());
        }
        thread::scope(|scope| {
            let entered = || {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| NamespaceError::Enter { errno: Errno::of_call(errno) })?;
                Ok(work())
            };
            let thread = thread::Builder::new()
                .spawn_scoped(scope, entered)
                .map_err(|error| NamespaceError::Thread { errno: errno_of(&error) })?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Whether this is the calling thread's namespace.
    fn is_current(&self) -> bool {
        let Ok(current) = Self::current() else { return false };
        let id = |fd: BorrowedFd<'_>| fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
        id(current.as_fd()).is_some_and(|current| id(self.as_fd()) == Some(current))
    }
}

/// A descriptor of a file such as `/proc/PID/ns/net`.
impl From<OwnedFd> for Namespace {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_call_and_need() {
        let missing = Namespace::open("/nowhere/net").unwrap_err();
        assert!(matches!(missing, NamespaceError::Open { .. }));
        let none = Namespace::open("/dev/null").unwrap().run(|| ()).unwrap_err();
        let errors = [
            missing,
            none,
            NamespaceError::Enter { errno: Errno::EPERM },
            NamespaceError::Thread { errno: Errno::EAGAIN },
            NamespaceError::OfSocket { errno: Errno::EPERM },
        ];
        let messages = errors.map(|error| error.to_string());
        expect_test::expect![[r#"
            cannot open the network namespace /nowhere/net (ENOENT: No such file or directory)
            cannot enter the network namespace (EINVAL: Invalid argument): expected a file such as /run/netns/NAME or /proc/PID/ns/net
            cannot enter the network namespace (EPERM: Operation not permitted): it requires CAP_SYS_ADMIN, in the user namespace of this process and in that of the network namespace
            cannot start a thread for the network namespace, or copy its descriptor (EAGAIN: Try again)
            cannot find the network namespace of the socket (EPERM: Operation not permitted)"#]]
        .assert_eq(&messages.join("\n"));
    }

    #[test]
    fn the_own_namespace_needs_no_other_thread() {
        let thread = std::thread::current().id();
        let namespace = Namespace::current().unwrap();
        assert_eq!(namespace.run(|| std::thread::current().id()), Ok(thread));
    }
}
