//! `ephport-nft demo`: what a policy does to real packets, in a private network.
//!
//! A client of a router has the role of the container, the router that of its host. Both open
//! connections to a server on the far side, before and after a policy is installed on the router,
//! and the server reports the source ports. All hosts are private namespaces of this process
//! ([`lab`](crate::lab)): the demonstration needs no privilege and does not change the host.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use thiserror::Error;

use crate::lab::{
    Connection, Host, LabError, Protocol, Routed, SERVER_V4, SERVER_V6, Server, Source,
    TrafficError, connect, enter_user_namespace, may_make_networks,
};

/// The source ports that the policy of the demonstration permits.
pub const ALLOWED: RangeInclusive<u16> = 49_152..=61_000;

/// The count of connections that each host opens over each protocol and family.
const CONNECTIONS: usize = 16;

/// Source ports of the first of them; the kernel selects the others. None is permitted, so that the
/// policy always changes something.
const OUTSIDE: [u16; 4] = [1024, 20_000, 40_000, 65_535];

const PORT: u16 = 443;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// The style of the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Whether permitted ports are green and others red (ECMA-48).
    pub colour: bool,
}

/// A function that installs the policy on the host that it is called on, and returns its summary.
pub type Install<'a> = dyn Fn() -> Result<Vec<String>, Box<dyn Error + Send + Sync>> + Sync + 'a;

/// The source ports that the server saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Without the policy.
    pub before: Vec<Group>,
    /// With the policy; the same groups in the same order.
    pub after: Vec<Group>,
    /// Whether every connection had a permitted source port with the policy.
    pub all_inside: bool,
}

/// The connections of one host over one protocol and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The host that opened them.
    pub opener: Opener,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether they are IPv6 connections.
    pub ipv6: bool,
    /// The source ports that the server saw, ascending.
    pub ports: Vec<u16>,
}

/// A host that opens connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opener {
    /// The client, whose packets the router forwards.
    Container,
    /// The router itself.
    Host,
}

/// The reason why the demonstration failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The network cannot be made.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A connection failed.
    #[error("{when} the policy, from the {}: {source}", opener.name())]
    Traffic {
        /// `before` or `after`.
        when: &'static str,
        /// The host that opened it.
        opener: Opener,
        /// The cause.
        source: TrafficError,
    },
    /// The policy cannot be installed.
    #[error("cannot install the policy on the demo's own host: {0}")]
    Install(Box<dyn Error + Send + Sync>),
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Output(#[from] io::Error),
}

/// Run the demonstration and write the report to `out`. `install` is called on the router.
///
/// A process without the privilege to make networks becomes root of a new user namespace, and
/// remains there; it must have a single thread.
///
/// # Errors
/// [`DemoError`] when the network cannot be made, a connection fails, or `install` or `out` does.
pub fn run(out: &mut dyn Write, style: Style, install: &Install<'_>) -> Result<Summary, DemoError> {
    if !may_make_networks() {
        enter_user_namespace()?;
    }
    let net = Routed::new()?;
    let server = Server::start(&net.server, PORT)?;
    let (first, last) = ALLOWED.into_inner();
    writeln!(
        out,
        "A container and its host open {CONNECTIONS} connections each to a server.\n\
         Which of them are sent with a source port in {first}-{last}?\n"
    )?;
    let before = observe(&net, "before")?;
    let installed = net.router.run(install).map_err(DemoError::Install)?;
    let after = observe(&net, "after")?;
    drop(server);
    let all_inside = after.iter().all(|group| group.inside() == group.ports.len());
    let summary = Summary { before, after, all_inside };
    if !installed.is_empty() {
        writeln!(out, "The policy, on the host:")?;
        for line in installed {
            writeln!(out, "  {line}")?;
        }
        writeln!(out)?;
    }
    summary.write(out, style)?;
    Ok(summary)
}

fn observe(net: &Routed, when: &'static str) -> Result<Vec<Group>, DemoError> {
    let mut groups = Vec::new();
    for (opener, host) in [(Opener::Container, &net.client), (Opener::Host, &net.router)] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for server in [SERVER_V4, SERVER_V6] {
                let ports = ports_seen(host, protocol, SocketAddr::new(server, PORT))
                    .map_err(|source| DemoError::Traffic { when, opener, source })?;
                groups.push(Group { opener, protocol, ipv6: server.is_ipv6(), ports });
            }
        }
    }
    Ok(groups)
}

/// Open all connections before one ends: each needs another port.
fn ports_seen(
    host: &Host,
    protocol: Protocol,
    server: SocketAddr,
) -> Result<Vec<u16>, TrafficError> {
    let sources = OUTSIDE.map(Source::Port).into_iter().chain(std::iter::repeat(Source::Any));
    let open = host.run(|| {
        sources
            .take(CONNECTIONS)
            .map(|source| connect(protocol, source, server))
            .collect::<Result<Vec<Connection>, _>>()
    })?;
    let mut ports: Vec<_> = open.iter().map(|connection| connection.seen.port()).collect();
    ports.sort_unstable();
    Ok(ports)
}

impl Opener {
    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Host => "host",
        }
    }
}

impl Group {
    /// The count of permitted ports.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.ports.iter().filter(|port| ALLOWED.contains(port)).count()
    }

    /// Text like `3 of 16  (1024 to 65535)`, padded to one width.
    fn cell(&self, style: Style) -> String {
        let (inside, all) = (self.inside(), self.ports.len());
        let span = match self.ports.as_slice() {
            [first, .., last] => format!("({first} to {last})"),
            _ => String::new(),
        };
        let text = format!("{inside:>2} of {all}  {span:<16}");
        if !style.colour {
            return text;
        }
        let colour = if inside == all { GREEN } else { RED };
        format!("{colour}{text}{RESET}")
    }
}

impl Summary {
    fn write(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        writeln!(out, "{:22}{:28}with the policy", "", "without the policy")?;
        for (before, after) in self.before.iter().zip(&self.after) {
            let (opener, protocol) = (before.opener.name(), before.protocol);
            let family = if before.ipv6 { "IPv6" } else { "IPv4" };
            let line = format!(
                "  {opener:<10}{protocol} {family}  {}    {}",
                before.cell(style),
                after.cell(style)
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(out, "\n{}", self.verdict())
    }

    fn verdict(&self) -> String {
        let (first, last) = ALLOWED.into_inner();
        let count = |of: fn(&Group) -> usize| self.after.iter().map(of).sum::<usize>();
        let (inside, all) = (count(Group::inside), count(|group| group.ports.len()));
        if self.all_inside {
            format!(
                "With the policy all {all} connections were sent with a port in {first}-{last}."
            )
        } else {
            let outside = all - inside;
            format!(
                "With the policy {outside} of {all} connections were still sent with a port \
                 outside {first}-{last}."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(opener: Opener, ports: &[u16]) -> Group {
        Group { opener, protocol: Protocol::Tcp, ipv6: false, ports: ports.into() }
    }

    fn written(summary: &Summary, colour: bool) -> String {
        let mut out = Vec::new();
        summary.write(&mut out, Style { colour }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn table_is_aligned_and_has_a_verdict() {
        let summary = Summary {
            before: vec![
                group(Opener::Container, &[1024, 50_000, 65_535]),
                group(Opener::Host, &[49_152, 61_000]),
            ],
            after: vec![
                group(Opener::Container, &[49_152, 50_000, 61_000]),
                group(Opener::Host, &[49_152, 61_000]),
            ],
            all_inside: true,
        };
        let expected = "                      \
            without the policy          with the policy
  container TCP IPv4   1 of 3  (1024 to 65535)      3 of 3  (49152 to 61000)
  host      TCP IPv4   2 of 2  (49152 to 61000)     2 of 2  (49152 to 61000)

With the policy all 5 connections were sent with a port in 49152-61000.
";
        assert_eq!(written(&summary, false), expected);
        let coloured = written(&summary, true);
        assert_eq!((coloured.matches(GREEN).count(), coloured.matches(RED).count()), (3, 1));
    }

    #[test]
    fn verdict_reports_ports_outside() {
        let after = vec![group(Opener::Host, &[1024, 49_152, 61_001])];
        let summary = Summary { before: after.clone(), after, all_inside: false };
        assert!(written(&summary, false).ends_with(
            "\nWith the policy 2 of 3 connections were still sent with a port outside 49152-61000.\n"
        ));
    }

    #[test]
    fn messages_name_the_cause() {
        let to = "10.0.0.2:80".parse().unwrap();
        let refused =
            TrafficError::Failed { protocol: Protocol::Tcp, to, errno: nix::Error::ECONNREFUSED };
        let lab = || LabError::NotAnAddress { host: "router".into(), text: "10.0.0.1".into() };
        let cases = [
            (DemoError::Lab(lab()), lab().to_string()),
            (
                DemoError::Traffic { when: "before", opener: Opener::Container, source: refused },
                format!("before the policy, from the container: {refused}"),
            ),
            (
                DemoError::Install("no netlink".into()),
                "cannot install the policy on the demo's own host: no netlink".into(),
            ),
            (
                DemoError::Output(io::ErrorKind::BrokenPipe.into()),
                "cannot write the report: broken pipe".into(),
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn fixed_ports_are_not_permitted() {
        assert!(OUTSIDE.len() <= CONNECTIONS);
        assert!(OUTSIDE.iter().all(|port| !ALLOWED.contains(port)));
    }
}
