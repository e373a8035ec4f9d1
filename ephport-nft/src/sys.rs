//! The one place for `unsafe`: what no safe library names of netlink sockets, and fork.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{ForkResult, fork};

use crate::uapi::SOL_NETLINK;

/// Switches an option of level `SOL_NETLINK` on.
pub(crate) fn enable_netlink_option(socket: BorrowedFd<'_>, option: c_int) -> nix::Result<()> {
    let on: c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open for as long as it is borrowed; `on` is a live c_int of `len`
    // bytes, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), SOL_NETLINK, option, (&raw const on).cast(), len)
    };
    Errno::result(result).map(drop)
}

/// A socket to a netlink family, closed on exec.
pub(crate) fn netlink_socket(protocol: c_int) -> nix::Result<OwnedFd> {
    // SAFETY: the call has no pointers.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    // SAFETY: the descriptor is new, and nothing else has it.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a second process that continues where this one does.
///
/// # Errors
/// `EBUSY` if this process has several threads: the child would have only the calling one, and the locks of
/// all. The error of `/proc` if they cannot be counted. Otherwise the error of fork.
pub fn fork_single_threaded() -> nix::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|error| error.raw_os_error().map_or(Errno::EBUSY, Errno::from_raw))?;
    if threads.count() != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: this process has no other thread, so that the child is a whole copy of it: each lock and
    // each structure of the allocator is as the calling thread sees it.
    unsafe { fork() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_threads_cannot_fork() {
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || receiver.recv());
            assert_eq!(fork_single_threaded().map(|_| ()), Err(Errno::EBUSY));
            drop(sender);
        });
    }
}
