//! Errors of making a network.

use std::io;

use ephport_nft::netlink::NetlinkError;
use nix::errno::Errno;
use thiserror::Error;

/// An error of making a host, a link, a route or a server of the lab.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// The system forbids user namespaces.
    #[error(
        "cannot make a private user namespace: {step} failed ({errno}); {restriction}. \
         Or run as root with all capabilities: that changes nothing on this host either"
    )]
    NoUserNamespace {
        /// The step that failed.
        step: &'static str,
        /// The kernel's error.
        errno: Errno,
        /// The setting that forbids it, if one is known.
        restriction: Restriction,
    },
    /// A process with many threads cannot change its user namespace.
    #[error(
        "cannot make a private user namespace: this process has {threads} threads and the kernel \
         requires 1; make it before starting other threads"
    )]
    ManyThreads {
        /// The number of threads of this process.
        threads: usize,
    },
    /// The system forbids network namespaces.
    #[error("cannot make a network namespace for {host} ({errno}); {restriction}")]
    NoNetworkNamespace {
        /// The host.
        host: String,
        /// The kernel's error.
        errno: Errno,
        /// The setting that forbids it, if one is known.
        restriction: Restriction,
    },
    /// A file of /proc cannot be opened or written.
    #[error("{host} cannot use {path} ({source}); mount /proc, and let /proc/sys be written")]
    Proc {
        /// The host in whose namespace the file is.
        host: String,
        /// The path of the file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// Text that is not an address with a prefix length.
    #[error(
        "{host}: expected an address with a prefix length, such as 10.0.0.1/24 or fd00::1/64; found `{text}`"
    )]
    NotAnAddress {
        /// The host.
        host: String,
        /// The text.
        text: String,
    },
    /// Text that is not a route.
    #[error(
        "{host}: cannot read the route to `{destination}` via `{via}`: expected `default` or a block such \
         as 10.0.0.0/8, and a gateway of the same family"
    )]
    NotARoute {
        /// The host.
        host: String,
        /// The destination.
        destination: String,
        /// The gateway.
        via: String,
    },
    /// A link name that the host does not have.
    #[error("{host} has no link `{link}`; make it with Host::link first")]
    NoLink {
        /// The host.
        host: String,
        /// The link's name.
        link: String,
    },
    /// A link that does not come up.
    #[error(
        "{host}: `{link}` or an address of it did not come up within {seconds} s; \
         is its other end up?"
    )]
    LinkDown {
        /// The host.
        host: String,
        /// The link's name.
        link: String,
        /// The timeout in seconds.
        seconds: u64,
    },
    /// A request that the kernel refused.
    #[error("{host}: the kernel refused {object} ({errno}){}", detail(message.as_deref()))]
    Refused {
        /// The host.
        host: String,
        /// The object of the request.
        object: String,
        /// The kernel's error.
        errno: Errno,
        /// The kernel's message (extended acknowledgement), if it sent one.
        message: Option<String>,
    },
    /// A failure of the netlink socket.
    #[error("{host}: {source}")]
    Netlink {
        /// The host.
        host: String,
        /// The failure.
        source: NetlinkError,
    },
    /// A server that cannot listen.
    #[error("{host}: cannot serve {protocol} port {port} ({errno})")]
    Serve {
        /// The host.
        host: String,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
        /// The kernel's error.
        errno: Errno,
    },
}

fn detail(message: Option<&str>) -> String {
    message.map(|message| format!(": {message}")).unwrap_or_default()
}

/// The setting that forbids an ordinary user to make namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Restriction {
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
    /// None of the known settings.
    #[error(
        "no sysctl forbids it, so the container's seccomp profile, a security module or \
         the kernel's configuration does (CONFIG_USER_NS, CONFIG_NET_NS)"
    )]
    Unknown,
}

impl Restriction {
    /// Finds the setting that forbids namespaces; `read` returns the value of the file at a path.
    pub(super) fn find(read: impl Fn(&str) -> Option<String>) -> Self {
        [
            ("/proc/sys/user/max_user_namespaces", "0", Self::NoneAllowed),
            ("/proc/sys/user/max_net_namespaces", "0", Self::NoNetworks),
            ("/proc/sys/kernel/unprivileged_userns_clone", "0", Self::CloneSwitch),
            ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", Self::AppArmor),
        ]
        .into_iter()
        .find(|(path, forbidding, _)| read(path).is_some_and(|value| value.trim() == *forbidding))
        .map_or(Self::Unknown, |(_, _, found)| found)
    }

    /// The restriction of this system.
    pub(super) fn here() -> Self {
        Self::find(|path| std::fs::read_to_string(path).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(setting: &'static str, value: &'static str) -> Restriction {
        Restriction::find(|path| (path == setting).then(|| format!("{value}\n")))
    }

    #[test]
    fn message_names_the_forbidding_setting() {
        let cases = [
            ("/proc/sys/user/max_user_namespaces", "0", "5000", Restriction::NoneAllowed),
            ("/proc/sys/user/max_net_namespaces", "0", "5000", Restriction::NoNetworks),
            ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1", Restriction::CloneSwitch),
            (
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "0",
                Restriction::AppArmor,
            ),
        ];
        for (path, forbidding, allowing, expected) in cases {
            assert_eq!(with(path, forbidding), expected);
            assert_eq!(with(path, allowing), Restriction::Unknown);
            let sysctl = path.trim_start_matches("/proc/sys/").replace('/', ".");
            assert!(expected.to_string().starts_with(&format!("{sysctl} is {forbidding}, set it")));
        }
    }

    #[test]
    fn every_error_has_its_message() {
        let (host, link) = (|| "router".to_owned(), || "wan0".to_owned());
        let cases = [
            (
                LabError::NoUserNamespace {
                    step: "unshare(CLONE_NEWUSER)",
                    errno: Errno::ENOSPC,
                    restriction: Restriction::NoneAllowed,
                },
                "cannot make a private user namespace: unshare(CLONE_NEWUSER) failed (ENOSPC: No \
                 space left on device); user.max_user_namespaces is 0, set it with `sysctl -w \
                 user.max_user_namespaces=1000`. Or run as root with all \
                 capabilities: that changes nothing on this host either",
            ),
            (
                LabError::ManyThreads { threads: 3 },
                "cannot make a private user namespace: this process has 3 threads and the kernel \
                 requires 1; make it before starting other threads",
            ),
            (
                LabError::NoNetworkNamespace {
                    host: host(),
                    errno: Errno::EPERM,
                    restriction: Restriction::AppArmor,
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
                "router: expected an address with a prefix length, such as 10.0.0.1/24 or \
                 fd00::1/64; found `10.0.0.1`",
            ),
            (
                LabError::NotARoute {
                    host: host(),
                    destination: "default".into(),
                    via: "wan0".into(),
                },
                "router: cannot read the route to `default` via `wan0`: expected `default` or a block \
                 such as 10.0.0.0/8, and a gateway of the same family",
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
                    source: NetlinkError::Receive { errno: ephport_nft::Errno::EIO },
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
