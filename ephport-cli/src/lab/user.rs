//! Private user namespaces, in which an ordinary user may make networks (user_namespaces(7)).

use std::fs;

use ephport_nft::uapi::{CAP_NET_ADMIN, CAP_SYS_ADMIN};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::error::{LabError, Restriction};

/// Whether this process may make networks without a user namespace.
#[must_use]
pub fn may_make_networks() -> bool {
    fs::read_to_string("/proc/thread-self/status").is_ok_and(|status| has_capabilities(&status))
}

fn has_capabilities(status: &str) -> bool {
    let needed = 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN;
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & needed == needed)
}

/// Makes this process root of a new user namespace, which it cannot leave.
///
/// The process must have one thread only. Files keep their owner.
pub fn enter_user_namespace() -> Result<(), LabError> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| unshare_error("unshare(CLONE_NEWUSER)", errno))?;
    for (file, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        fs::write(file, content).map_err(|error| {
            unshare_error(file, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        })?;
    }
    Ok(())
}

fn unshare_error(step: &'static str, errno: Errno) -> LabError {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if errno == Errno::EINVAL && threads > 1 {
        return LabError::ManyThreads { threads };
    }
    LabError::NoUserNamespace { step, errno, restriction: Restriction::here() }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn both_capabilities_are_needed() {
        let status =
            |mask: &str| format!("Name:\tx\nCapPrm:\tffffffff\nCapEff:\t{mask}\nCapBnd:\t0\n");
        assert!(has_capabilities(&status("000001ffffffffff")));
        assert!(has_capabilities(&status("0000000000201000")));
        assert!(!has_capabilities(&status("0000000000200000")));
        assert!(!has_capabilities(&status("0000000000001000")));
        assert!(!has_capabilities(&status("0000000000000000")));
        assert!(!has_capabilities(""));
    }

    #[test]
    fn process_with_many_threads_gets_its_error() {
        let second = thread::spawn(enter_user_namespace);
        let error = second.join().unwrap().unwrap_err();
        assert!(matches!(error, LabError::ManyThreads { threads: 2.. }), "{error}");
    }
}
