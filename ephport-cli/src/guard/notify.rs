//! Messages to the service manager (sd_notify(3)), by the standard library: they are one datagram of text
//! each, which is no reason for a dependency.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The service manager, if one waits for messages.
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often the service manager expects a sign of life, halved.
    pub(crate) watchdog: Option<Duration>,
}

impl Notifier {
    /// The service manager that the variables NOTIFY_SOCKET and WATCHDOG_USEC name.
    pub(crate) fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours =
            number("WATCHDOG_PID").is_none_or(|process| process == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| is_ours && *time > 1);
        Self { socket, watchdog: watchdog.map(|time| Duration::from_micros(time / 2)) }
    }

    /// Report that the policy is kept, after the start and after a reload, with a line for
    /// `systemctl status`.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// Report the start of a reload.
    pub(crate) fn reloading(&self) {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let time = time.unwrap_or_default().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={time}"));
    }

    /// Report a new line for `systemctl status`.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", line(status)));
    }

    /// Report a sign of life.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Report the end.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// A message that cannot be sent changes nothing.
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// A path, or with `@` an abstract name.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

/// The first line of a text.
fn line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let path = address(OsStr::new("/run/notify")).unwrap();
        assert_eq!(path.as_pathname(), Some("/run/notify".as_ref()));
        assert_eq!(address(OsStr::new("@a")).unwrap().as_abstract_name(), Some(&b"a"[..]));
        assert!(address(OsStr::new("vsock:1")).is_none());
        assert_eq!(line("one\nREADY=1"), "one");
    }
}
