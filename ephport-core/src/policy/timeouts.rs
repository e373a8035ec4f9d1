//! Timeouts: the seconds after which conntrack forgets the connections of a policy.
//!
//! An entry of conntrack occupies its port until its timeout ends. In a small set of ports, short timeouts give
//! ports back sooner. RFC 4787 permits less than two minutes only for destination ports below 1024, by the
//! application of that port (REQ-5a).
//!
//! ```
//! use ephport_core::{Port, Protocol, Timeouts};
//!
//! let timeouts: Timeouts = "udp-53-unreplied=2,udp-53-replied=2,tcp-time-wait=10".parse()?;
//! let dns = timeouts.of(Protocol::Udp, Some(Port::new(53)?));
//! assert_eq!(dns.to_string(), "unreplied 2 s, replied 2 s");
//! assert!(timeouts.of(Protocol::Udp, Some(Port::new(443)?)).is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;
use crate::text::{excerpt, quoted};

/// A state of a connection in which it has a timeout of its own, as nft names it in `ct timeout` objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum TimeoutState {
    /// UDP: no reply arrived, or the last packet was sent in the first two seconds.
    Unreplied,
    /// UDP: both sides have sent packets for more than two seconds.
    Replied,
    /// TCP: the opening segment has no reply.
    SynSent,
    /// TCP: both sides have closed the connection.
    TimeWait,
    /// TCP: one side has reset the connection.
    Close,
}

impl TimeoutState {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Unreplied, Self::Replied, Self::SynSent, Self::TimeWait, Self::Close];

    /// The protocol whose connections have the state.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Unreplied | Self::Replied => Protocol::Udp,
            Self::SynSent | Self::TimeWait | Self::Close => Protocol::Tcp,
        }
    }

    /// Its name in nft.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
            Self::SynSent => "syn_sent",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
        }
    }
}

/// A state, of the connections to one destination port or to all. Written `udp-unreplied`, `udp-53-unreplied`
/// or `tcp-time-wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    /// The destination port; only UDP has timers of one.
    pub port: Option<Port>,
    /// The state.
    pub state: TimeoutState,
}

impl Timer {
    /// Whether connections of the protocol to one of these ports have it.
    #[must_use]
    pub fn applies_to(self, protocol: Protocol, ports: &PortSet) -> bool {
        self.state.protocol() == protocol && self.port.is_none_or(|port| ports.contains(port))
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.state.protocol().name())?;
        self.port.map_or(Ok(()), |port| write!(f, "-{port}"))?;
        write!(f, "-{}", self.state.name().replace('_', "-"))
    }
}

impl FromStr for Timer {
    type Err = TimeoutError;

    fn from_str(text: &str) -> Result<Self, TimeoutError> {
        let unknown = || TimeoutError::Name { text: text.into() };
        let plain = text.to_ascii_lowercase().replace('_', "-");
        let (protocol, rest) = plain.split_once('-').ok_or_else(unknown)?;
        let port = rest.split_once('-').and_then(|(port, state)| Some((port.parse().ok()?, state)));
        let (port, state) = port.map_or((None, rest), |(port, state)| (Some(port), state));
        let is_named = |known: &TimeoutState| {
            known.name().replace('_', "-") == state && known.protocol().name() == protocol
        };
        let state = TimeoutState::ALL.into_iter().find(is_named).ok_or_else(unknown)?;
        if port.is_some() && state.protocol() != Protocol::Udp {
            return Err(unknown());
        }
        Ok(Self { port, state })
    }
}

/// The timeouts of a policy, in seconds. Connections in other states have those of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts(BTreeMap<Timer, u32>);

impl Timeouts {
    /// The longest timeout, in seconds: five days, the longest that the kernel has by default (that of
    /// established TCP connections).
    pub const MAX_SECONDS: u32 = 432_000;

    /// The seconds until a DNS query's entry ends: with 240 ports, 200 queries in 3 seconds to one resolver are
    /// answered. A reply that takes longer is lost; resolvers ask again after that.
    const DNS_SECONDS: u32 = 2;

    /// The default with MAP-E: short timeouts for DNS, as RFC 4787 REQ-5a permits, and those of the host for all
    /// else.
    #[must_use]
    pub fn dns() -> Self {
        let timer = |state| Timer { port: Port::new(53).ok(), state };
        let states = [TimeoutState::Unreplied, TimeoutState::Replied];
        Self(states.map(|state| (timer(state), Self::DNS_SECONDS)).into())
    }

    /// The timeouts of these timers, in seconds.
    ///
    /// # Errors
    /// [`TimeoutError`] for a timer that comes twice, or seconds that are not 1 to
    /// [`MAX_SECONDS`](Self::MAX_SECONDS).
    pub fn new(timers: impl IntoIterator<Item = (Timer, u32)>) -> Result<Self, TimeoutError> {
        let mut all = Self::default();
        timers.into_iter().try_for_each(|(timer, seconds)| all.insert(timer, seconds))?;
        Ok(all)
    }

    /// Adds `NAME=SECONDS`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), TimeoutError> {
        let unwritten = || TimeoutError::Form { text: text.into() };
        let (name, seconds) = text.split_once('=').ok_or_else(unwritten)?;
        let timer: Timer = name.trim().parse()?;
        let seconds = seconds.trim();
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        let number = seconds.parse().ok().filter(|_| is_number);
        let number = number.ok_or_else(|| TimeoutError::Seconds { timer, text: seconds.into() })?;
        self.insert(timer, number)
    }

    fn insert(&mut self, timer: Timer, seconds: u32) -> Result<(), TimeoutError> {
        if !(1..=Self::MAX_SECONDS).contains(&seconds) {
            return Err(TimeoutError::Seconds { timer, text: seconds.to_string().into() });
        }
        match self.0.insert(timer, seconds) {
            None => Ok(()),
            Some(_) => Err(TimeoutError::Twice { timer }),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The timers, each with its seconds.
    pub fn iter(&self) -> impl Iterator<Item = (Timer, u32)> {
        self.0.iter().map(|(timer, seconds)| (*timer, *seconds))
    }

    /// The timeouts of connections of the protocol to this destination port.
    #[must_use]
    pub fn of(&self, protocol: Protocol, port: Option<Port>) -> ConnectionTimeouts {
        let of_port = |state| {
            let of_one = port.and_then(|port| self.0.get(&Timer { port: Some(port), state }));
            let seconds = of_one.or_else(|| self.0.get(&Timer { port: None, state }))?;
            Some((state, *seconds))
        };
        let states = TimeoutState::ALL.into_iter().filter(|state| state.protocol() == protocol);
        ConnectionTimeouts(states.filter_map(of_port).collect())
    }

    /// The timeouts of connections of the protocol by their destination ports: first those of single ports,
    /// then, for all ports, those of the others; the first group with a port decides.
    #[must_use]
    pub fn groups(&self, protocol: Protocol) -> Vec<(PortSet, ConnectionTimeouts)> {
        let mut groups: Vec<(PortSet, ConnectionTimeouts)> = Vec::new();
        let timers = self.0.keys().filter(|timer| timer.state.protocol() == protocol);
        let single: PortSet = timers.filter_map(|timer| timer.port).map(PortRange::from).collect();
        for port in single.ports() {
            let timeouts = self.of(protocol, Some(port));
            match groups.iter_mut().find(|(_, known)| *known == timeouts) {
                Some((ports, _)) => *ports = ports.union(&port.into()),
                None => groups.push((port.into(), timeouts)),
            }
        }
        groups.push((PortRange::ALL.into(), self.of(protocol, None)));
        groups
    }
}

/// `NAME=SECONDS`, separated by commas, or `none`.
impl FromStr for Timeouts {
    type Err = TimeoutError;

    fn from_str(text: &str) -> Result<Self, TimeoutError> {
        let mut all = Self::default();
        if !text.trim().eq_ignore_ascii_case("none") {
            text.split(',').try_for_each(|part| all.add(part.trim()))?;
        }
        Ok(all)
    }
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let parts: Vec<_> =
            self.iter().map(|(timer, seconds)| format!("{timer}={seconds}")).collect();
        f.write_str(&parts.join(","))
    }
}

/// The timeouts of one connection that are not those of the host: states, each with its seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "BTreeMap<TimeoutState, u32>", into = "BTreeMap<TimeoutState, u32>")
)]
pub struct ConnectionTimeouts(Vec<(TimeoutState, u32)>);

impl ConnectionTimeouts {
    /// The timeouts of these states, which are of one protocol, in seconds.
    pub fn new(states: impl IntoIterator<Item = (TimeoutState, u32)>) -> Self {
        let states: BTreeMap<_, _> = states.into_iter().collect();
        Self(states.into_iter().collect())
    }

    /// Whether all are those of the host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The protocol; `None` if all are those of the host.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.0.first().map(|(state, _)| state.protocol())
    }

    /// The states, each with its seconds.
    #[must_use]
    pub fn states(&self) -> &[(TimeoutState, u32)] {
        &self.0
    }
}

impl From<BTreeMap<TimeoutState, u32>> for ConnectionTimeouts {
    fn from(states: BTreeMap<TimeoutState, u32>) -> Self {
        Self::new(states)
    }
}

impl From<ConnectionTimeouts> for BTreeMap<TimeoutState, u32> {
    fn from(timeouts: ConnectionTimeouts) -> Self {
        timeouts.0.into_iter().collect()
    }
}

/// `unreplied 2 s, replied 2 s`.
impl fmt::Display for ConnectionTimeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> =
            self.0.iter().map(|(state, seconds)| format!("{} {seconds} s", state.name())).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Why a text is no timeout.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimeoutError {
    /// Not a name and seconds.
    #[error("{}: expected NAME=SECONDS, like udp-53-unreplied=2, or none", quoted(text))]
    Form {
        /// The text.
        text: Box<str>,
    },
    /// Not the name of a timer.
    #[error(
        "unknown timeout {}: expected udp-unreplied, udp-replied, these for one destination port like \
         udp-53-unreplied, tcp-syn-sent, tcp-time-wait or tcp-close",
        quoted(text)
    )]
    Name {
        /// The name.
        text: Box<str>,
    },
    /// Not a number of seconds.
    #[error("{timer}: expected 1 to {} seconds, not {}", Timeouts::MAX_SECONDS, excerpt(text))]
    Seconds {
        /// The timer.
        timer: Timer,
        /// The value.
        text: Box<str>,
    },
    /// A timer that comes twice.
    #[error("{timer} comes twice: expected one value")]
    Twice {
        /// The timer.
        timer: Timer,
    },
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::allocation::map_e::MapE;
    use crate::host::HostFacts;
    use crate::policy::host_warnings::host_warnings;
    use crate::policy::value::ValueError;
    use crate::policy::warning::{Warning, warnings};
    use crate::policy::{Policy, PolicyError, PolicySpec, Target};

    fn parsed(text: &str) -> Timeouts {
        text.parse().unwrap()
    }

    #[test]
    fn timeouts_parse_as_printed() {
        let all = "udp-unreplied=20,udp-replied=100,tcp-syn-sent=15,tcp-time-wait=5,tcp-close=3,\
                   udp-53-unreplied=2,udp-53-replied=4";
        assert_eq!(parsed(all).to_string(), all);
        assert_eq!(parsed("None"), Timeouts::default());
        assert_eq!(parsed("TCP-time_wait = 5").to_string(), "tcp-time-wait=5");
        assert_eq!(Timeouts::dns().to_string(), "udp-53-unreplied=2,udp-53-replied=2");
        assert_eq!(Timeouts::new(parsed(all).iter()), Ok(parsed(all)));
    }

    #[test]
    fn single_ports_come_before_all_ports() {
        let timeouts = parsed(
            "udp-unreplied=20,udp-53-unreplied=2,udp-53-replied=2,udp-123-unreplied=2,\
             udp-123-replied=2,udp-500-replied=9,tcp-close=3",
        );
        let groups = |protocol| {
            let groups = timeouts.groups(protocol).into_iter();
            groups.map(|(ports, of)| format!("{ports}: {of}")).collect::<Vec<_>>()
        };
        let udp = [
            "53,123: unreplied 2 s, replied 2 s",
            "500: unreplied 20 s, replied 9 s",
            "1-65535: unreplied 20 s",
        ];
        assert_eq!(groups(Protocol::Udp), udp);
        assert_eq!(groups(Protocol::Tcp), ["1-65535: close 3 s"]);
        assert_eq!(groups(Protocol::Icmp), ["1-65535: "]);
    }

    #[test]
    fn timeouts_without_effect_are_warned_of() {
        let range: PortRange = "49152-61000".parse().unwrap();
        let policy = |target: Target, timeouts: &[&str]| {
            let policy = Policy::to(target).out_any().protocols(["udp"]);
            policy.with("destination-ports", ["53"]).with("timeouts", timeouts).build()
        };
        let timeouts = ["udp-53-replied=2", "udp-54-replied=2", "tcp-close=3"];
        let unused: Vec<_> = warnings(&[policy(range.into(), &timeouts).unwrap()])
            .iter()
            .map(|warning| match warning {
                Warning::UnusedTimeout { timer, .. } => timer.to_string(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(unused, ["tcp-close", "udp-54-replied"]);
        let wrong = policy(range.into(), &["x"]).unwrap_err();
        assert!(matches!(
            wrong,
            PolicyError::Value { error: ValueError::Timeouts(TimeoutError::Form { .. }), .. }
        ));
        let map_e: MapE = "psid=52,psid-len=8,offset=4".parse().unwrap();
        let spec = PolicySpec::to(map_e);
        let host = HostFacts { timeouts: Some(false), ..HostFacts::default() };
        let policies = [Policy::new(spec.clone()).unwrap()];
        let found = host_warnings(&policies, &host);
        assert!(matches!(&found[..], [Warning::NoTimeouts { .. }]), "{found:?}");
        let own = PolicySpec { timeouts: Some(Timeouts::dns()), ..spec };
        assert_eq!(host_warnings(&[Policy::new(own).unwrap()], &host), []);
    }

    #[test]
    fn errors_name_what_is_accepted() {
        let texts = [
            "",
            "udp-53-unreplied",
            "udp=3",
            "sctp-close=3",
            "tcp-80-close=3",
            "udp-0-replied=3",
            "udp-replied=0",
            "udp-replied=432001",
            "udp-replied=+3",
            "tcp-close=-1",
            "tcp-close=3,tcp-close=4",
        ];
        let messages = texts.map(|text| text.parse::<Timeouts>().unwrap_err().to_string());
        expect![[r#"
            ``: expected NAME=SECONDS, like udp-53-unreplied=2, or none
            `udp-53-unreplied`: expected NAME=SECONDS, like udp-53-unreplied=2, or none
            unknown timeout `udp`: expected udp-unreplied, udp-replied, these for one destination port like udp-53-unreplied, tcp-syn-sent, tcp-time-wait or tcp-close
            unknown timeout `sctp-close`: expected udp-unreplied, udp-replied, these for one destination port like udp-53-unreplied, tcp-syn-sent, tcp-time-wait or tcp-close
            unknown timeout `tcp-80-close`: expected udp-unreplied, udp-replied, these for one destination port like udp-53-unreplied, tcp-syn-sent, tcp-time-wait or tcp-close
            unknown timeout `udp-0-replied`: expected udp-unreplied, udp-replied, these for one destination port like udp-53-unreplied, tcp-syn-sent, tcp-time-wait or tcp-close
            udp-replied: expected 1 to 432000 seconds, not 0
            udp-replied: expected 1 to 432000 seconds, not 432001
            udp-replied: expected 1 to 432000 seconds, not +3
            tcp-close: expected 1 to 432000 seconds, not -1
            tcp-close comes twice: expected one value"#]].assert_eq(&messages.join("\n"));
    }
}
