//! Trials: a process of its own keeps the undo of an `apply` until it is confirmed.
//!
//! The holder has its own session, so that the death of a terminal does not reach it. The process
//! in the foreground waits for it; its death, whatever its cause, ends the trial. `ephport-nft
//! confirm` finds the holder by an abstract socket, which belongs to the network namespace and
//! vanishes with the holder.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use ephport_nft::sys::fork_single_threaded;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, geteuid, read, setsid};
use thiserror::Error;

use crate::advice::Advised;

/// The name of the holder's socket.
const NAME: &[u8] = b"ephport-nft/confirm";

/// The signals that end a trial.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// The reason why a trial or its confirmation failed.
#[derive(Debug, Error)]
pub(crate) enum TrialError {
    #[error(
        "another `apply --confirm` waits in this network namespace; confirm it with \
         `ephport-nft confirm`, or wait until it ends"
    )]
    Taken,
    #[error("cannot start the process that keeps the undo: {0}; nothing is changed")]
    Start(#[source] io::Error),
    #[error(
        "the process that keeps the undo was killed: the new policy may be installed and \
         is not undone; look with `ephport-nft status`"
    )]
    Killed,
    #[error(
        "the new policy is not confirmed and cannot be undone: {}; apply the former one, or remove it \
         with `ephport-nft remove`",
        Advised(.0)
    )]
    Undo(ephport_nft::Error),
    #[error(
        "the waiting `apply --confirm` refused: only root and the user that started it \
         may confirm"
    )]
    Refused,
    #[error("cannot ask the waiting `apply --confirm`: {0}")]
    Ask(#[source] io::Error),
}

/// The part of a process in a trial.
pub(crate) enum Role {
    /// It applies, waits and undoes.
    Holder(Holder),
    /// It has waited for the holder, which ended with this exit code.
    Foreground(i32),
}

/// Continues in two processes, of which only the holder does something; the other one returns when
/// the holder has ended.
pub(crate) fn start() -> Result<Role, TrialError> {
    let listener = listen()?;
    let (ours, other) = UnixStream::pair().map_err(TrialError::Start)?;
    match fork_single_threaded().map_err(|errno| TrialError::Start(errno.into()))? {
        ForkResult::Child => {
            drop(ours);
            Holder::new(listener, other).map(Role::Holder).map_err(TrialError::Start)
        }
        ForkResult::Parent { child } => {
            drop((listener, other));
            attend(ours);
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => Ok(Role::Foreground(code)),
                _ => Err(TrialError::Killed),
            }
        }
    }
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

fn listen() -> Result<UnixListener, TrialError> {
    let listener = address().and_then(|address| UnixListener::bind_addr(&address));
    listener.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => TrialError::Taken,
        _ => TrialError::Start(error),
    })
}

/// Forwards Enter to the holder until that ends.
fn attend(mut holder: UnixStream) {
    let stdin = io::stdin();
    let mut is_attended = stdin.is_terminal();
    loop {
        let mut waiting = vec![PollFd::new(holder.as_fd(), PollFlags::POLLIN)];
        if is_attended {
            waiting.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let (has_ended, is_typed) = (is_ready(waiting.first()), is_ready(waiting.get(1)));
        if has_ended {
            return;
        }
        // A terminal delivers whole lines. At the end of its input, `confirm` can still confirm.
        if is_typed && read(&stdin, &mut [0; 4096]).is_ok_and(|count| count > 0) {
            // This fails only if the holder has ended: its output shows whether the policy stays.
            let _ = holder.write_all(b"\n");
        } else if is_typed {
            is_attended = false;
        }
    }
}

fn is_ready(waiting: Option<&PollFd<'_>>) -> bool {
    waiting.and_then(PollFd::any).unwrap_or(false)
}

/// The end of a trial.
#[derive(Debug)]
pub(crate) enum End {
    /// It is confirmed; by a process that waits for the answer, or by Enter.
    Confirmed(Option<Asking>),
    /// No confirmation came in time.
    Timeout,
    /// A signal to the holder.
    Signal(&'static str),
    /// The process in the foreground ended: Ctrl-C, a signal, or its terminal was closed.
    ForegroundEnded,
}

/// The process that keeps the undo.
pub(crate) struct Holder {
    listener: UnixListener,
    foreground: UnixStream,
    signals: SignalFd,
}

impl Holder {
    fn new(listener: UnixListener, foreground: UnixStream) -> io::Result<Self> {
        setsid()?;
        let ending: SigSet = ENDING.into_iter().collect();
        ending.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { listener, foreground, signals: SignalFd::with_flags(&ending, flags)? })
    }

    /// Wait for at most `time`; `refused` gets the user of each process that may not confirm.
    pub(crate) fn wait(&mut self, time: Duration, mut refused: impl FnMut(u32)) -> End {
        let end = Instant::now() + time;
        loop {
            // Whole milliseconds, rounded up: less than one would be none.
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return End::Timeout;
            }
            let timeout = PollTimeout::try_from(left + Duration::from_nanos(999_999));
            let mut waiting =
                [self.listener.as_fd(), self.foreground.as_fd(), self.signals.as_fd()]
                    .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            if poll(&mut waiting, timeout.unwrap_or(PollTimeout::MAX)).is_err() {
                continue; // EINTR
            }
            let [asks, foreground, signal] = waiting.map(|fd| is_ready(Some(&fd)));
            if foreground {
                let is_enter = matches!(self.foreground.read(&mut [0]), Ok(1));
                return if is_enter { End::Confirmed(None) } else { End::ForegroundEnded };
            }
            if signal && let Ok(Some(signal)) = self.signals.read_signal() {
                return End::Signal(name(signal.ssi_signo));
            }
            match asks.then(|| self.accept()).flatten() {
                Some(Ok(asking)) => return End::Confirmed(Some(asking)),
                Some(Err(user)) => refused(user),
                None => {}
            }
        }
    }

    /// A process of root or of this user; the user of any other.
    fn accept(&self) -> Option<Result<Asking, u32>> {
        let (stream, _) = self.listener.accept().ok()?;
        let user = getsockopt(&stream, PeerCredentials).ok()?.uid();
        let may = user == 0 || user == geteuid().as_raw();
        Some(if may { Ok(Asking(stream)) } else { Err(user) })
    }
}

fn name(number: u32) -> &'static str {
    let signal = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
    signal.map_or("a signal", Signal::as_str)
}

/// A process that confirms and waits for the answer.
#[derive(Debug)]
pub(crate) struct Asking(UnixStream);

impl Asking {
    /// Report whether the policies of the trial are installed; it may have ended.
    pub(crate) fn answer(mut self, is_installed: bool) {
        let _ = self.0.write_all(if is_installed { CONFIRMED } else { SUPERSEDED });
    }
}

const CONFIRMED: &[u8] = b"confirmed\n";
const SUPERSEDED: &[u8] = b"superseded\n";

/// Confirm the trial of this network namespace: whether its policies are installed, `None` if there
/// is no trial.
pub(crate) fn confirm() -> Result<Option<bool>, TrialError> {
    let address = address().map_err(TrialError::Ask)?;
    let stream = match UnixStream::connect_addr(&address) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(TrialError::Ask(error)),
    };
    let mut answer = Vec::new();
    let room = CONFIRMED.len().max(SUPERSEDED.len());
    let read = BufReader::new(stream.take(room as u64)).read_until(b'\n', &mut answer);
    match answer.as_slice() {
        CONFIRMED => Ok(Some(true)),
        SUPERSEDED => Ok(Some(false)),
        _ => Err(read.map_or_else(TrialError::Ask, |_| TrialError::Refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_message() {
        let error = || io::Error::from(Errno::EBUSY);
        let cases = [
            (
                TrialError::Taken,
                "another `apply --confirm` waits in this network namespace; confirm it with \
                 `ephport-nft confirm`, or wait until it ends",
            ),
            (
                TrialError::Start(error()),
                "cannot start the process that keeps the undo: Device or resource busy \
                 (os error 16); nothing is changed",
            ),
            (
                TrialError::Killed,
                "the process that keeps the undo was killed: the new policy may be installed \
                 and is not undone; look with `ephport-nft status`",
            ),
            (
                TrialError::Undo(ephport_nft::Error::Dropped),
                "the new policy is not confirmed and cannot be undone: the kernel did not commit \
                 the transaction and gave no reason; try again; apply the former one, or remove it \
                 with `ephport-nft remove`",
            ),
            (
                TrialError::Refused,
                "the waiting `apply --confirm` refused: only root and the user that started \
                 it may confirm",
            ),
            (
                TrialError::Ask(error()),
                "cannot ask the waiting `apply --confirm`: Device or resource busy (os error 16)",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn signals_are_named() {
        assert_eq!((name(15), name(0)), ("SIGTERM", "a signal"));
    }
}
