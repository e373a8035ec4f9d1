//! Enforcement: the source ports with which a packet may be sent.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::flow::Flow;
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;
use crate::policy::scope::Ipsec;
use crate::policy::{ExpectedConnections, OpenConnections};
use crate::resolve::{PermittedPorts, ResolvedPolicy};

/// What conntrack knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum CtState {
    /// The first packet of a connection.
    New,
    /// A later packet, in the direction of the first.
    Established,
    /// A packet in the opposite direction: of a connection that began at the destination.
    Reply,
    /// A packet, in the direction of the first, of a connection that was open when enforcement was first
    /// applied.
    Open,
    /// A packet of a connection that a conntrack helper expected (`ct status expected`). NAT binds such
    /// a connection before any rule.
    Expected,
    /// A packet that conntrack cannot assign to a connection (`ct state invalid`). NAT skips it.
    Invalid,
    /// A packet that a rule excluded from conntrack (`notrack`), or a copy (`dup`). NAT skips it.
    Untracked,
}

impl CtState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::Established,
        Self::Reply,
        Self::Open,
        Self::Expected,
        Self::Invalid,
        Self::Untracked,
    ];

    /// The state of the packet that opens a connection with `flow`.
    #[must_use]
    pub fn first(flow: &Flow) -> Self {
        if flow.is_expected() { Self::Expected } else { Self::New }
    }

    /// Whether the packet belongs to a connection that conntrack knows.
    #[must_use]
    pub fn has_connection(self) -> bool {
        !matches!(self, Self::Invalid | Self::Untracked)
    }
}

/// The policy that decides whether a packet in `state` may be sent, if there is one. `flow` is the opening
/// packet of its connection; of a packet without a connection, the packet itself.
///
/// It is the first enforced policy with the packet in scope, whatever its source port, unless an earlier
/// policy that is not enforced could have translated the connection.
#[must_use]
pub fn enforcing_policy<'a>(
    policies: &'a [ResolvedPolicy],
    flow: &Flow,
    state: CtState,
) -> Option<&'a ResolvedPolicy> {
    if state == CtState::Reply {
        return None;
    }
    let could_translate = |policy: &ResolvedPolicy| {
        state.has_connection()
            && policy.translates(flow.protocol(), flow.source_port())
            && policy.has_block(flow.source().ip())
    };
    let mut in_scope = policies.iter().filter(|policy| policy.out_of_scope(flow).is_none());
    in_scope
        .find(|policy| policy.enforce || could_translate(policy))
        .filter(|policy| policy.enforce)
}

/// Whether a packet in `state` may be sent with the source port `sent`; for `flow` see
/// [`enforcing_policy`].
#[must_use]
pub fn permits(policies: &[ResolvedPolicy], flow: &Flow, state: CtState, sent: Port) -> bool {
    enforcing_policy(policies, flow, state)
        .is_none_or(|policy| policy.permitted_in(state, flow).contains(sent))
}

/// Whether a packet like `flow` in `state` may be sent that has an authentication header (AH, RFC 4302) in front of
/// its transport header. Its ports cannot be read: the first enforced policy with `ipsec = "match"` and the packet
/// in scope drops it.
#[must_use]
pub fn permits_authenticated(policies: &[ResolvedPolicy], flow: &Flow, state: CtState) -> bool {
    let drops = |policy: &ResolvedPolicy| {
        policy.enforce
            && policy.ipsec == Ipsec::Match
            && policy.authenticated_out_of_scope(flow).is_none()
    };
    state == CtState::Reply || !policies.iter().any(drops)
}

impl ResolvedPolicy {
    /// The source ports that a packet in `state` of a connection like `flow` may be sent with when the policy
    /// is enforced.
    #[must_use]
    pub fn permitted_in(&self, state: CtState, flow: &Flow) -> Cow<'_, PortSet> {
        let passes = match state {
            CtState::Expected => self.expected_connections == ExpectedConnections::Pass,
            CtState::Open => self.open_connections == OpenConnections::Keep,
            _ => false,
        };
        if passes {
            return Cow::Owned(PortRange::ALL.into());
        }
        self.permitted_source_ports(flow.protocol(), flow.source().ip())
    }

    /// The source ports that a connection from `source` may be sent with when the policy is enforced; of ICMP,
    /// the identifiers.
    #[must_use]
    pub fn permitted_source_ports(&self, protocol: Protocol, source: IpAddr) -> Cow<'_, PortSet> {
        let everyone = self.permitted_to_everyone(protocol);
        let PermittedPorts::Blocks(blocks) = &self.permitted else {
            return Cow::Borrowed(everyone);
        };
        match blocks.block_of(source) {
            Some(block) => Cow::Owned(everyone.union(&block.ports.into())),
            None => Cow::Borrowed(everyone),
        }
    }

    /// The part of these that every source has: with blocks, only the ports that are not translated.
    #[must_use]
    pub fn permitted_to_everyone(&self, protocol: Protocol) -> &PortSet {
        match (&self.permitted, protocol.has_ports()) {
            (PermittedPorts::Set(_), true) => &self.permitted_source_ports,
            (PermittedPorts::Set(ports), false) => ports,
            (PermittedPorts::Blocks(_), true) => &self.untranslated,
            (PermittedPorts::Blocks(_), false) => &PortSet::EMPTY,
        }
    }

    fn has_block(&self, source: IpAddr) -> bool {
        match &self.permitted {
            PermittedPorts::Set(_) => true,
            PermittedPorts::Blocks(blocks) => blocks.block_of(source).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostFacts;
    use crate::policy::file::Document;

    const FLOW: &str = "udp 10.0.0.1:5353 -> 192.0.2.1:80 oif eth0";

    fn permitted(document: &str, flow: &str, state: CtState, sent: u16) -> bool {
        let document: Document = document.parse().unwrap();
        let policies = document.resolve(&HostFacts::default()).unwrap();
        permits(&policies, &flow.parse().unwrap(), state, Port::new(sent).unwrap())
    }

    /// A policy for eth0 of these lines.
    fn policy(name: &str, lines: &str) -> String {
        format!("[[policy]]\nname = \"{name}\"\nout-interfaces = [\"eth0\"]\n{lines}\n")
    }

    fn enforced(lines: &str) -> String {
        policy("rest", &format!("to-ports = \"50000-50099\"\nenforce = true\n{lines}"))
    }

    #[test]
    fn packets_without_connection_are_judged_by_themselves() {
        let document = enforced(
            "sources = [\"10.0.0.0/8\"]\nexcept-destinations = [\"198.51.100.0/24\"]\n\
             exempt-source-ports = \"4500\"",
        );
        for state in [CtState::Invalid, CtState::Untracked] {
            assert!(!permitted(&document, FLOW, state, 5353));
            for sent in [53, 4500, 50_000] {
                assert!(permitted(&document, FLOW, state, sent), "{sent}");
            }
            for flow in [
                "udp 172.16.0.1:5353 -> 192.0.2.1:80 oif eth0",
                "udp 10.0.0.1:5353 -> 198.51.100.1:80 oif eth0",
                "udp 10.0.0.1:5353 -> 192.0.2.1:80 oif eth1",
                "udp 10.0.0.1:5353 -> 224.0.0.1:80 oif eth0",
                "udp 10.0.0.1:5353 -> 192.0.2.1:80 oif eth0 bridged",
                "sctp 10.0.0.1:5353 -> 192.0.2.1:80 oif eth0",
            ] {
                assert!(permitted(&document, flow, state, 5353), "{flow}");
            }
        }
    }

    #[test]
    fn unenforced_policies_shield_their_own_connections() {
        let dns = policy("dns", "to-ports = \"6000\"\nsource-ports = \"5353\"");
        let blocks = policy("dns", "blocks = [\"10.0.0.2=6000-6009\"]");
        let rest = enforced("");
        let other = "udp 10.0.0.1:5354 -> 192.0.2.1:80 oif eth0";
        for (first, flow, state, is_shielded) in [
            (&dns, FLOW, CtState::New, true),
            (&dns, FLOW, CtState::Established, true),
            (&dns, FLOW, CtState::Untracked, false),
            (&dns, FLOW, CtState::Invalid, false),
            (&dns, other, CtState::New, false),
            (&blocks, FLOW, CtState::New, false),
            (&blocks, "udp 10.0.0.2:1 -> 192.0.2.1:80 oif eth0", CtState::New, false),
            (&blocks, "udp 10.0.0.2:5353 -> 192.0.2.1:80 oif eth0", CtState::New, true),
        ] {
            let document = format!("{first}{rest}");
            assert_eq!(permitted(&document, flow, state, 7000), is_shielded, "{flow} {state:?}");
        }
    }

    #[test]
    fn sources_are_confined_to_their_blocks() {
        let document = policy(
            "blocks",
            "blocks = [\"10.0.0.1=2000-2009\", \"10.0.0.2=3000-3009\"]\nenforce = true\n\
             exempt-source-ports = \"4500\"",
        );
        let from = |source: &str| format!("udp {source}:5353 -> 192.0.2.1:80 oif eth0");
        for (source, sent, expected) in [
            ("10.0.0.1", 2009, true),
            ("10.0.0.1", 3000, false),
            ("10.0.0.2", 3000, true),
            ("10.0.0.3", 2000, false),
            ("10.0.0.3", 4500, true),
            ("10.0.0.3", 500, true),
        ] {
            for state in [CtState::New, CtState::Invalid] {
                assert_eq!(permitted(&document, &from(source), state, sent), expected, "{source}");
            }
        }
    }

    #[test]
    fn open_connections_pass_unless_they_are_dropped() {
        assert!(permitted(&enforced(""), FLOW, CtState::Open, 8080));
        assert!(!permitted(&enforced(""), FLOW, CtState::Established, 8080));
        let drops = enforced("open-connections = \"drop\"");
        assert!(!permitted(&drops, FLOW, CtState::Open, 8080));
        assert!(permitted(&drops, FLOW, CtState::Open, 50_001));
    }

    #[test]
    fn authentication_headers_pass_unless_ipsec_is_in_scope() {
        let permitted = |lines: &str, flow: &str, state| {
            let document: Document = enforced(lines).parse().unwrap();
            let policies = document.resolve(&HostFacts::default()).unwrap();
            permits_authenticated(&policies, &flow.parse().unwrap(), state)
        };
        let matching = "ipsec = \"match\"\nsources = [\"10.0.0.0/8\"]\nprotocols = [\"tcp\"]\ndestination-ports = \"443\"";
        for (lines, flow, state, expected) in [
            ("", FLOW, CtState::New, true),
            (matching, FLOW, CtState::New, false),
            (matching, FLOW, CtState::Untracked, false),
            (matching, FLOW, CtState::Reply, true),
            (matching, "udp 172.16.0.1:50000 -> 192.0.2.1:443 oif eth0", CtState::New, true),
            (matching, "tcp 10.0.0.1:50000 -> 192.0.2.1:443 oif eth1", CtState::New, true),
        ] {
            assert_eq!(permitted(lines, flow, state), expected, "{lines} {flow} {state:?}");
        }
    }

    #[test]
    fn replies_and_expected_connections_pass() {
        assert!(permitted(&enforced(""), FLOW, CtState::Reply, 8080));
        assert!(permitted(&enforced(""), FLOW, CtState::Expected, 35_001));
        let drops = enforced("expected-connections = \"drop\"");
        assert!(!permitted(&drops, FLOW, CtState::Expected, 35_001));
        assert!(permitted(&drops, FLOW, CtState::Expected, 50_001));
    }
}
