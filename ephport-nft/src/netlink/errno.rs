//! Error numbers of system calls and of the kernel's answers.

use std::fmt;
use std::io;

/// An `errno`, positive, as errno(3) names it.
///
/// ```
/// use ephport_nft::Errno;
///
/// assert_eq!(Errno::EMFILE.to_string(), "EMFILE: Too many open files");
/// assert_eq!(std::io::Error::from(Errno::EPERM).kind(), std::io::ErrorKind::PermissionDenied);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// The error with this number.
    #[must_use]
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The error of an answer with this negative number; `None` for 0, success.
    pub(crate) fn from_answer(code: i32) -> Option<Self> {
        (code != 0).then(|| Self(code.saturating_neg()))
    }

    /// The error of a system call.
    pub(super) fn of_call(errno: nix::errno::Errno) -> Self {
        // The enum has the numbers of errno(3) as discriminants.
        Self(errno as i32)
    }
}

macro_rules! errnos {
    ($($name:ident,)*) => {
        #[allow(missing_docs, reason = "the names of errno(3)")]
        impl Errno {
            $( pub const $name: Self = Self(libc::$name); )*
        }
    };
}

errnos! {
    E2BIG, EACCES, EADDRINUSE, EAFNOSUPPORT, EAGAIN, EBADF, EBUSY, ECONNREFUSED, EEXIST, EFAULT, EINTR,
    EINVAL, EIO, EMFILE, EMSGSIZE, ENETUNREACH, ENFILE, ENOBUFS, ENODEV, ENOENT, ENOMEM, ENOPROTOOPT,
    ENOSPC, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ERANGE, ERESTART,
}

/// Its name and its description: "EPERM: Operation not permitted".
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::errno::Errno::from_raw(self.0) {
            nix::errno::Errno::UnknownErrno => write!(f, "errno {}", self.0),
            known => known.fmt(f),
        }
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_a_name_or_its_number() {
        assert_eq!(Errno::ENOENT.to_string(), "ENOENT: No such file or directory");
        // ENOTSUPP of the kernel's own include/linux/errno.h.
        assert_eq!(Errno::from_raw(524).to_string(), "errno 524");
        assert_eq!(Errno::from_answer(0), None);
        assert_eq!(Errno::from_answer(-1), Some(Errno::EPERM));
        assert_eq!(Errno::from_answer(i32::MIN), Some(Errno::from_raw(i32::MAX)));
    }
}
