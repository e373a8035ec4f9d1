//! The one place for `unsafe`: socket options of netlink that no safe library names.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

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
