//! What ends a wait: a deadline, or another thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::errno::Errno;
use super::transport::NetlinkError;

/// A handle with which one thread ends the waits of others. Its clones are one.
///
/// A [`Client`](crate::Client) ends its call with [`Error::Cancelled`](crate::Error::Cancelled);
/// [`Events`](crate::client::Events) end the iteration.
///
/// ```no_run
/// use ephport_nft::client::{Interrupt, Options};
///
/// let interrupt = Interrupt::new()?;
/// let events = Options::new().interrupted_by(&interrupt).events()?;
/// let watcher = std::thread::spawn(move || events.count());
/// interrupt.raise();
/// println!("{} events until now", watcher.join().unwrap_or_default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_raised: AtomicBool,
    fd: EventFd,
}

impl Interrupt {
    /// An interrupt that is not raised.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] with the error of eventfd(2): too many open files.
    pub fn new() -> Result<Self, NetlinkError> {
        let fd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| NetlinkError::Open { errno: Errno::of_call(errno) })?;
        Ok(Self(Arc::new(Inner { is_raised: AtomicBool::new(false), fd })))
    }

    /// End the current waits, and all later ones at once, until [`Interrupt::clear`].
    pub fn raise(&self) {
        self.0.is_raised.store(true, Ordering::SeqCst);
        let _ = self.0.fd.write(1); // fails only when the counter is at its maximum, and so readable
    }

    /// Let later waits wait again.
    pub fn clear(&self) {
        let _ = self.0.fd.read(); // fails only when it was not raised
        self.0.is_raised.store(false, Ordering::SeqCst);
    }

    /// Whether it is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.is_raised.load(Ordering::SeqCst)
    }
}

/// Readable while the interrupt is raised.
impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// What ends the waits of a socket, besides its own patience.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    /// The end of the time for them.
    pub until: Option<Instant>,
    /// The handle of another thread.
    pub interrupt: Option<Interrupt>,
}

impl Limit {
    /// Whether there is time left, and nobody interrupted.
    ///
    /// # Errors
    /// [`NetlinkError::Cancelled`], [`NetlinkError::DeadlineExceeded`].
    pub fn check(&self) -> Result<(), NetlinkError> {
        if self.interrupt.as_ref().is_some_and(Interrupt::is_raised) {
            return Err(NetlinkError::Cancelled);
        }
        if self.left(Duration::MAX).is_zero() {
            return Err(NetlinkError::DeadlineExceeded);
        }
        Ok(())
    }

    /// The time that is left of `time`.
    pub(super) fn left(&self, time: Duration) -> Duration {
        let now = Instant::now();
        self.until.map_or(time, |until| time.min(until.saturating_duration_since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupt_and_deadline_end_a_limit() {
        let interrupt = Interrupt::new().unwrap();
        let mut limit = Limit { until: None, interrupt: Some(interrupt.clone()) };
        assert_eq!(limit.check(), Ok(()));
        for _ in 0..2 {
            interrupt.raise();
        }
        assert_eq!(limit.check(), Err(NetlinkError::Cancelled));
        interrupt.clear();
        assert_eq!(limit.check(), Ok(()));
        limit.until = Some(Instant::now());
        assert_eq!(limit.check(), Err(NetlinkError::DeadlineExceeded));
    }
}
