//! Why a network cannot be made.

use std::io;

use ephport_nft::netlink::NetlinkError;
use nix::errno::Errno;
use thiserror::Error;

/// Why a host, a link or a route of the lab cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// The system forbids user namespaces.
    #[error(
        "cannot make a private user namespace: {step} failed ({errno}); {because}. \
         Or run as root with all capabilities: that touches nothing of this host either"
    )]
    NoUserNamespace {
        /// The step that failed.
        step: &'static str,
        /// What the kernel said.
        errno: Errno,
        /// What forbids it, as far as the system tells.
        because: Forbidden,
    },
    /// A process with many threads cannot change its user namespace.
    #[error(
        "cannot make a private user namespace: this process has {threads} threads and the kernel \
         wants 1; ask for it before starting others"
    )]
    ManyThreads {
        /// How many there are.
        threads: usize,
    },
    /// The system gives no network namespace.
    #[error("cannot make a network namespace for {host} ({errno}); {because}")]
    NoNetworkNamespace {
        /// The host that was to have it.
        host: String,
        /// What the kernel said.
        errno: Errno,
        /// What forbids it, as far as the system tells.
        because: Forbidden,
    },
    /// A file of /proc cannot be opened or written.
    #[error("{host} cannot use {path} ({source}); mount /proc, and let /proc/sys be written")]
    Proc {
        /// The host in whose namespace it was tried.
        host: String,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not an address with a prefix length.
    #[error("{host}: `{text}` is no address with a prefix length, as 10.0.0.1/24 or fd00::1/64")]
    NotAnAddress {
        /// The host that was to have it.
        host: String,
        /// What was found.
        text: String,
    },
    /// Not a route.
    #[error(
        "{host}: no route to `{destination}` via `{via}`: expected `default` or a block as \
         10.0.0.0/8, and a gateway of the same family"
    )]
    NotARoute {
        /// The host that was to have it.
        host: String,
        /// Where to.
        destination: String,
        /// By which gateway.
        via: String,
    },
    /// No link of that name.
    #[error("{host} has no link `{link}`; make it with Host::link first")]
    NoLink {
        /// The host.
        host: String,
        /// The link's name.
        link: String,
    },
    /// A link whose other end does not come up.
    #[error(
        "{host}: `{link}` or an address of it did not come up within {seconds} s; \
         is its other end up?"
    )]
    LinkDown {
        /// The host.
        host: String,
        /// The link's name.
        link: String,
        /// How long it had.
        seconds: u64,
    },
    /// The kernel refused an object.
    #[error("{host}: the kernel refused {object} ({errno}){}", detail(message.as_deref()))]
    Refused {
        /// The host.
        host: String,
        /// What was to be made.
        object: String,
        /// What the kernel said.
        errno: Errno,
        /// Its own words, if any.
        message: Option<String>,
    },
    /// Speaking with the kernel failed.
    #[error("{host}: {source}")]
    Netlink {
        /// The host.
        host: String,
        /// Why.
        source: NetlinkError,
    },
    /// A server cannot listen.
    #[error("{host}: cannot serve {protocol} port {port} ({errno})")]
    Serve {
        /// The host.
        host: String,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
        /// What the kernel said.
        errno: Errno,
    },
}

fn detail(message: Option<&str>) -> String {
    message.map(|message| format!(": {message}")).unwrap_or_default()
}

/// What keeps an ordinary user from making namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Forbidden {
    /// `user.max_user_namespaces` is 0.
    #[error("user.max_user_namespaces is 0, set it with `sysctl -w user.max_user_namespaces=1000`")]
    NoneAllowed,
    /// `user.max_net_namespaces` is 0.
    #[error("user.max_net_namespaces is 0, set it with `sysctl -w user.max_net_namespaces=1000`")]
    NoNetworks,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's and Arch's kernels).
    #[error(
        "kernel.unprivileged_userns_clone is 0, \
         set it with `sysctl -w kernel.unprivileged_userns_clone=1`"
    )]
    CloneSwitch,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu from 23.10).
    #[error(
        "kernel.apparmor_restrict_unprivileged_userns is 1, \
         set it with `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
    )]
    AppArmor,
    /// No setting says so.
    #[error(
        "no sysctl forbids it, so the container's seccomp profile, a security module or \
         the kernel's configuration does (CONFIG_USER_NS, CONFIG_NET_NS)"
    )]
    Unnamed,
}

impl Forbidden {
    /// Looks through the system's settings, which `read` gives by their path.
    pub(super) fn find(read: impl Fn(&str) -> Option<String>) -> Self {
        [
            ("/proc/sys/user/max_user_namespaces", "0", Self::NoneAllowed),
            ("/proc/sys/user/max_net_namespaces", "0", Self::NoNetworks),
            ("/proc/sys/kernel/unprivileged_userns_clone", "0", Self::CloneSwitch),
            ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", Self::AppArmor),
        ]
        .into_iter()
        .find(|(path, forbidding, _)| read(path).is_some_and(|value| value.trim() == *forbidding))
        .map_or(Self::Unnamed, |(_, _, found)| found)
    }

    /// What this system's settings say.
    pub(super) fn here() -> Self {
        Self::find(|path| std::fs::read_to_string(path).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(setting: &'static str, value: &'static str) -> Forbidden {
        Forbidden::find(|path| (path == setting).then(|| format!("{value}\n")))
    }

    #[test]
    fn the_setting_that_forbids_is_named() {
        let cases = [
            ("/proc/sys/user/max_user_namespaces", "0", "5000", Forbidden::NoneAllowed),
            ("/proc/sys/user/max_net_namespaces", "0", "5000", Forbidden::NoNetworks),
            ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1", Forbidden::CloneSwitch),
            (
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "0",
                Forbidden::AppArmor,
            ),
        ];
        for (path, forbidding, allowing, expected) in cases {
            assert_eq!(with(path, forbidding), expected);
            assert_eq!(with(path, allowing), Forbidden::Unnamed);
            let sysctl = path.trim_start_matches("/proc/sys/").replace('/', ".");
            assert!(expected.to_string().starts_with(&format!("{sysctl} is {forbidding}, set it")));
        }
    }

    #[test]
    fn every_message_says_what_to_do() {
        let (host, link) = (|| "router".to_owned(), || "wan0".to_owned());
        let cases = [
            (
                LabError::NoUserNamespace {
                    step: "unshare(CLONE_NEWUSER)",
                    errno: Errno::ENOSPC,
                    because: Forbidden::NoneAllowed,
                },
                "cannot make a private user namespace: unshare(CLONE_NEWUSER) failed (ENOSPC: No \
                 space left on device); user.max_user_namespaces is 0, set it with `sysctl -w \
                 user.max_user_namespaces=1000`. Or run as root with all \
                 capabilities: that touches nothing of this host either",
            ),
            (
                LabError::ManyThreads { threads: 3 },
                "cannot make a private user namespace: this process has 3 threads and the kernel \
                 wants 1; ask for it before starting others",
            ),
            (
                LabError::NoNetworkNamespace {
                    host: host(),
                    errno: Errno::EPERM,
                    because: Forbidden::AppArmor,
                },
                "cannot make a network namespace for router (EPERM: Operation not permitted); \
                 kernel.apparmor_restrict_unprivileged_userns is 1, set it with `sysctl -w \
                 kernel.apparmor_restrict_unprivileged_userns=0`",
            ),
            (
                LabError::Proc {
                    host: host(),
                    path: "/proc/sys/net/ipv4/ip_forward".into(),
                    source: io::ErrorKind::PermissionDenied.into(),
                },
                "router cannot use /proc/sys/net/ipv4/ip_forward (permission denied); mount \
                 /proc, and let /proc/sys be written",
            ),
            (
                LabError::NotAnAddress { host: host(), text: "10.0.0.1".into() },
                "router: `10.0.0.1` is no address with a prefix length, as 10.0.0.1/24 or \
                 fd00::1/64",
            ),
            (
                LabError::NotARoute {
                    host: host(),
                    destination: "default".into(),
                    via: "wan0".into(),
                },
                "router: no route to `default` via `wan0`: expected `default` or a block as \
                 10.0.0.0/8, and a gateway of the same family",
            ),
            (
                LabError::NoLink { host: host(), link: link() },
                "router has no link `wan0`; make it with Host::link first",
            ),
            (
                LabError::LinkDown { host: host(), link: link(), seconds: 10 },
                "router: `wan0` or an address of it did not come up within 10 s; is its other end up?",
            ),
            (
                LabError::Refused {
                    host: host(),
                    object: "link wan0 up".into(),
                    errno: Errno::EEXIST,
                    message: Some("no".into()),
                },
                "router: the kernel refused link wan0 up (EEXIST: File exists): no",
            ),
            (
                LabError::Netlink {
                    host: host(),
                    source: NetlinkError::Receive { errno: Errno::EIO },
                },
                "router: cannot receive from netlink (EIO: I/O error)",
            ),
            (
                LabError::Serve {
                    host: host(),
                    protocol: "TCP",
                    port: 443,
                    errno: Errno::EADDRINUSE,
                },
                "router: cannot serve TCP port 443 (EADDRINUSE: Address already in use)",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }
}
