//! What the scenarios in `tests/` share.
//!
//! They make their own networks (see [`ephport_cli::lab`]) and need the privilege to: run them as
//! root, or as any user under `unshare -Ur`. Nothing of the machine's own network is touched.
#![forbid(unsafe_code)]

pub mod random;
pub mod tool;

use std::env;
use std::net::{IpAddr, SocketAddr};

pub use ephport_cli::lab::*;
use ephport_cli::{Exit, run};
use ephport_core::{Document, HostFacts};
use ephport_nft::{Applied, Installed, Nftables, Ruleset, compile};

/// Both protocols over both families: the server's addresses of [`Routed`].
#[must_use]
pub fn ways() -> [(Protocol, IpAddr); 4] {
    [
        (Protocol::Tcp, SERVER_V4),
        (Protocol::Tcp, SERVER_V6),
        (Protocol::Udp, SERVER_V4),
        (Protocol::Udp, SERVER_V6),
    ]
}

/// The one of the two that is of the same family as `like`.
#[must_use]
pub fn of_family(like: IpAddr, v4: IpAddr, v6: IpAddr) -> IpAddr {
    if like.is_ipv4() { v4 } else { v6 }
}

/// What the server saw of a new connection from `host`.
///
/// # Panics
/// When there is no connection.
#[must_use]
pub fn seen(
    host: &Host,
    protocol: Protocol,
    from: impl Into<Source>,
    to: SocketAddr,
) -> SocketAddr {
    let from = from.into();
    host.run(|| connect(protocol, from, to)).expect("a connection").seen
}

/// How a command line of `ephport-nft` ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

/// Runs a command line of `ephport-nft` on `host`, in this process. Words are split at spaces.
///
/// # Panics
/// When it prints something else than UTF-8.
#[must_use]
pub fn ephport(host: &Host, line: &str) -> Ended {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = ["ephport-nft"].into_iter().chain(line.split_whitespace()).map(Into::into);
    let exit = host.run(|| run(words, &mut out, &mut err));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { exit, out: text(out), err: text(err) }
}

/// The same, which must succeed; what it printed on standard output.
///
/// # Panics
/// When it fails.
pub fn ephport_ok(host: &Host, line: &str) -> String {
    let ended = ephport(host, line);
    assert_eq!(ended.exit, Exit::Success, "{line}: {}", ended.err);
    ended.out
}

/// Applies a ruleset on `host`.
///
/// # Panics
/// When the kernel refuses it.
pub fn apply(host: &Host, ruleset: &Ruleset) -> Applied {
    host.run(|| Nftables::open().and_then(|mut nft| nft.apply(ruleset))).expect("applied")
}

/// What stands in the kernel of `host` under our table's name.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn installed(host: &Host) -> Installed {
    host.run(|| Nftables::open().and_then(|mut nft| nft.installed())).expect("read")
}

/// A policy file, compiled. It names its interfaces: it knows of no host.
///
/// # Panics
/// When it is wrong.
#[must_use]
pub fn compiled(toml: &str) -> Ruleset {
    let document: Document = toml.parse().expect("a document");
    compile(&document.resolve(&HostFacts::default()).expect("resolved")).expect("compiled")
}

/// Whether `tests/run --long` runs: then the scenarios that can go on for longer do.
#[must_use]
pub fn is_long() -> bool {
    env::var_os("EPHPORT_LONG").is_some()
}
