//! What the scenarios in `tests/` share.
//!
//! They make their own networks (see [`ephport_cli::lab`]) and need the privilege to: run them as
//! root, or as any user under `unshare -Ur`. Nothing of the machine's own network is touched.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

pub use ephport_cli::lab::*;

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
