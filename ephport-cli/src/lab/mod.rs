//! Networks of several hosts inside one process.
//!
//! A [`Host`] is a network namespace that exists as long as one file descriptor: it vanishes when its
//! value is dropped, also on a panic or a kill, and is invisible to the machine's own network. rtnetlink
//! creates links, addresses and routes; no other program is needed. [`Routed`] is the network for most
//! questions about source ports:
//!
//! ```text
//!   client eth0 ───────────── lan0 router wan0 ───────────── eth0 server
//!   10.77.1.2           10.77.1.1   203.0.113.1           203.0.113.9
//!   2001:db8:1::2   2001:db8:1::1   2001:db8:2::1       2001:db8:2::9
//! ```
//!
//! The client represents a container and the router its host, whose uplink is `wan0`. Each has routes
//! to all others, so that connections also work without NAT. A [`Server`] reports the source that it
//! saw, and [`connect`] returns it:
//!
//! ```no_run
//! use ephport_cli::lab::{Protocol, Routed, SERVER_V4, Server, connect};
//!
//! let net = Routed::new()?;
//! let _server = Server::start(&net.server, 443)?;
//! let connection = net.client.run(|| connect(Protocol::Tcp, 40_000, (SERVER_V4, 443)));
//! assert_eq!(connection?.seen, "10.77.1.2:40000".parse()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod host;
mod link;
mod server;
mod traffic;
mod user;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use error::{LabError, Restriction};
pub use host::Host;
pub use server::Server;
pub use traffic::{Connection, Protocol, Source, TrafficError, connect, connect_within};
pub use user::{enter_user_namespace, may_make_networks};

/// The client's addresses in [`Routed`].
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
/// See [`CLIENT_V4`].
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
/// The addresses of the router's uplink in [`Routed`].
pub const ROUTER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// See [`ROUTER_V4`].
pub const ROUTER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1));
/// The server's addresses in [`Routed`].
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
/// See [`SERVER_V4`].
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9));

/// A client, a router and a server, as drawn [above](self).
#[derive(Debug)]
pub struct Routed {
    /// The client, whose packets the router forwards.
    pub client: Host,
    /// The router, with `lan0` to the client and the uplink `wan0` to the server.
    pub router: Host,
    /// The server.
    pub server: Host,
}

impl Routed {
    /// Builds the network; every address in it is usable on return.
    pub fn new() -> Result<Self, LabError> {
        let client = Host::new("client")?;
        let router = Host::new("router")?;
        let server = Host::new("server")?;
        router.forward()?;
        client.link("eth0", &router, "lan0")?;
        router.link("wan0", &server, "eth0")?;
        for (host, link, addresses) in [
            (&client, "eth0", ["10.77.1.2/24", "2001:db8:1::2/64"]),
            (&router, "lan0", ["10.77.1.1/24", "2001:db8:1::1/64"]),
            (&router, "wan0", ["203.0.113.1/24", "2001:db8:2::1/64"]),
            (&server, "eth0", ["203.0.113.9/24", "2001:db8:2::9/64"]),
        ] {
            for address in addresses {
                host.address(link, address)?;
            }
        }
        for (host, destination, via) in [
            (&client, "default", "10.77.1.1"),
            (&client, "default", "2001:db8:1::1"),
            (&router, "default", "203.0.113.9"),
            (&router, "default", "2001:db8:2::9"),
            (&server, "10.77.1.0/24", "203.0.113.1"),
            (&server, "2001:db8:1::/64", "2001:db8:2::1"),
        ] {
            host.route(destination, via)?;
        }
        Ok(Self { client, router, server })
    }
}
