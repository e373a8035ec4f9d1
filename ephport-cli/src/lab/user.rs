//! Private user namespaces: how one who is not root may make networks (user_namespaces(7)).

use std::fs;

use ephport_nft::uapi::{CAP_NET_ADMIN, CAP_SYS_ADMIN};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::error::{Forbidden, LabError};

/// Whether this process already may make networks, and needs no user namespace for it.
#[must_use]
pub fn may_make_networks() -> bool {
    fs::read_to_string("/proc/thread-self/status").is_ok_and(|status| may(&status))
}

fn may(status: &str) -> bool {
    let needed = 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN;
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & needed == needed)
}

/// Makes this process the root of a user namespace of its own; it cannot go back.
///
/// The process must have one thread only. The user's own files stay the user's own.
pub fn enter_user_namespace() -> Result<(), LabError> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| refusal("unshare(CLONE_NEWUSER)", errno))?;
    for (file, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        fs::write(file, content).map_err(|error| {
            refusal(file, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        })?;
    }
    Ok(())
}

fn refusal(step: &'static str, errno: Errno) -> LabError {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if errno == Errno::EINVAL && threads > 1 {
        return LabError::ManyThreads { threads };
    }
    LabError::NoUserNamespace { step, errno, because: Forbidden::here() }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn both_capabilities_are_needed() {
        let status =
            |mask: &str| format!("Name:\tx\nCapPrm:\tffffffff\nCapEff:\t{mask}\nCapBnd:\t0\n");
        assert!(may(&status("000001ffffffffff")));
        assert!(may(&status("0000000000201000")));
        assert!(!may(&status("0000000000200000")));
        assert!(!may(&status("0000000000001000")));
        assert!(!may(&status("0000000000000000")));
        assert!(!may(""));
    }

    #[test]
    fn a_process_of_many_threads_is_told_so() {
        let second = thread::spawn(enter_user_namespace);
        let error = second.join().unwrap().unwrap_err();
        assert!(matches!(error, LabError::ManyThreads { threads: 2.. }), "{error}");
    }
}
