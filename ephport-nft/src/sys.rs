//! The one place for `unsafe`: what no safe library names of sockets, and fork.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{ForkResult, fork};

use crate::uapi::{SIOCGSKNS, SOL_NETLINK};

/// Sets an option of level `SOL_NETLINK`.
pub(crate) fn set_netlink_option(
    socket: BorrowedFd<'_>,
    option: c_int,
    value: c_int,
) -> nix::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open for as long as it is borrowed; `value` is a live c_int of `len`
    // bytes, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), SOL_NETLINK, option, (&raw const value).cast(), len)
    };
    Errno::result(result).map(drop)
}

/// The value of an option of level `SOL_SOCKET` that is a number.
pub(crate) fn socket_option(socket: BorrowedFd<'_>, option: c_int) -> nix::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most `len` bytes
    // to `value`, and their count to `len`; both live until it returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    Errno::result(result).map(|_| value)
}

/// The network namespace of a socket.
pub(crate) fn socket_namespace(socket: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    // SAFETY: the descriptor is open for as long as it is borrowed; this request has no argument.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    // SAFETY: the descriptor is new, and nothing else has it.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
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
