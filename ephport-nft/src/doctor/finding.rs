//! Findings, each as a sentence.

use ephport_core::{DefaultRoute, PolicyName, PortSet};
use thiserror::Error;

use super::Object;

/// Something that disturbs a policy or connection tracking.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Finding {
    /// An uplink by another route than a default route of the main table.
    #[error(
        "interface {} is an uplink, because of a default route ({route}): policies for the uplinks apply \
         to it",
        route.interface
    )]
    OtherUplink {
        /// The route.
        route: DefaultRoute,
    },
    /// Permitted ports that the host reserves.
    #[error(
        "policy {policy}: connections get the ports {ports}, which net.ipv4.ip_local_reserved_ports \
         reserves"
    )]
    ReservedPorts {
        /// The policy.
        policy: PolicyName,
        /// The ports.
        ports: PortSet,
    },
    /// Permitted ports that Kubernetes publishes services by.
    #[error(
        "policy {policy}: connections get the ports {ports}, by which Kubernetes publishes services \
         (NodePort)"
    )]
    NodePorts {
        /// The policy.
        policy: PolicyName,
        /// The ports.
        ports: PortSet,
    },
    /// Ports of UDP servers of this host that are translated when it sends first.
    #[error(
        "policy {policy}: this host has UDP sockets with the ports {ports}, which are translated when it \
         sends first"
    )]
    FixedPorts {
        /// The policy.
        policy: PolicyName,
        /// The ports.
        ports: PortSet,
    },
    /// Few ports, each of which is in use for long.
    #[error(
        "policy {policy}: {ports} ports that a UDP connection uses for {seconds} s \
         (net.netfilter.nf_conntrack_udp_timeout) serve {} new ones a second to one destination",
        ports / (*seconds).max(1)
    )]
    SlowReuse {
        /// The policy.
        policy: PolicyName,
        /// The count of its ports.
        ports: u32,
        /// The timeout of a UDP connection without an answer.
        seconds: u32,
    },
    /// Connections for IPsec that a policy translates.
    #[error(
        "policy {policy} translates connections that IPsec policies protect ({count} outbound): they may \
         match another one after that, or none, and leave without protection"
    )]
    TranslatedIpsec {
        /// The policy.
        policy: PolicyName,
        /// The count of outbound IPsec policies.
        count: u32,
    },
    /// Packets that bypass enforcement.
    #[error(
        "flowtable {flowtable}: its connections bypass postrouting, and so the enforcement of policy \
         {policy}"
    )]
    Flowtable {
        /// An enforced policy.
        policy: PolicyName,
        /// The flowtable.
        flowtable: Object,
    },
    /// Connections whose port a helper selects.
    #[error(
        "conntrack helper {helper}: connections that it expects keep the port that it selects, whatever \
         the policy"
    )]
    Helper {
        /// The helper.
        helper: Object,
    },
    /// A connection tracking table that is nearly full.
    #[error(
        "the connection tracking table has {entries} of {max} entries: new connections are dropped when \
         it is full"
    )]
    ConntrackFull {
        /// Its entries.
        entries: u32,
        /// Its size.
        max: u32,
    },
    /// Connections that failed.
    #[error(
        "connections failed, {count} since the start of this network namespace: NAT found no free port, or \
         another connection had the same addresses and ports"
    )]
    InsertFailed {
        /// How many.
        count: u64,
    },
    /// Connections that were forgotten.
    #[error(
        "connections were forgotten early, because the connection tracking table was full: {count}"
    )]
    EarlyDrops {
        /// How many.
        count: u64,
    },
}

impl Finding {
    /// The stable name of this kind of finding, for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::OtherUplink { .. } => "other-uplink",
            Self::ReservedPorts { .. } => "reserved-ports",
            Self::NodePorts { .. } => "node-ports",
            Self::FixedPorts { .. } => "fixed-ports",
            Self::SlowReuse { .. } => "slow-reuse",
            Self::TranslatedIpsec { .. } => "translated-ipsec",
            Self::Flowtable { .. } => "flowtable",
            Self::Helper { .. } => "helper",
            Self::ConntrackFull { .. } => "conntrack-full",
            Self::InsertFailed { .. } => "insert-failed",
            Self::EarlyDrops { .. } => "early-drops",
        }
    }

    /// The policy that it concerns, if it is one.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::ReservedPorts { policy, .. }
            | Self::NodePorts { policy, .. }
            | Self::FixedPorts { policy, .. }
            | Self::SlowReuse { policy, .. }
            | Self::TranslatedIpsec { policy, .. }
            | Self::Flowtable { policy, .. } => Some(policy),
            Self::OtherUplink { .. }
            | Self::Helper { .. }
            | Self::ConntrackFull { .. }
            | Self::InsertFailed { .. }
            | Self::EarlyDrops { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ephport_core::Family;

    use super::*;

    #[test]
    fn every_finding_has_its_name_and_message() {
        let policy = || "a".parse::<PolicyName>().unwrap();
        let ports = || "5060,30000-30009".parse::<PortSet>().unwrap();
        let object = || Object { family: "ip", table: "t".into(), name: "x".into() };
        let interface = "wg0".parse().unwrap();
        let (family, vrf) = (Family::Ipv4, None);
        let route = DefaultRoute::new(interface, 51_820, family, vrf, true);
        let cases = [
            (
                Finding::OtherUplink { route },
                "other-uplink: interface wg0 is an uplink, because of a default route (table 51820, two \
                 half routes): policies for the uplinks apply to it",
            ),
            (
                Finding::ReservedPorts { policy: policy(), ports: ports() },
                "reserved-ports: policy a: connections get the ports 5060,30000-30009, which \
                 net.ipv4.ip_local_reserved_ports reserves",
            ),
            (
                Finding::NodePorts { policy: policy(), ports: ports() },
                "node-ports: policy a: connections get the ports 5060,30000-30009, by which Kubernetes \
                 publishes services (NodePort)",
            ),
            (
                Finding::FixedPorts { policy: policy(), ports: ports() },
                "fixed-ports: policy a: this host has UDP sockets with the ports 5060,30000-30009, which \
                 are translated when it sends first",
            ),
            (
                Finding::SlowReuse { policy: policy(), ports: 240, seconds: 30 },
                "slow-reuse: policy a: 240 ports that a UDP connection uses for 30 s \
                 (net.netfilter.nf_conntrack_udp_timeout) serve 8 new ones a second to one destination",
            ),
            (
                Finding::TranslatedIpsec { policy: policy(), count: 1 },
                "translated-ipsec: policy a translates connections that IPsec policies protect (1 \
                 outbound): they may match another one after that, or none, and leave without protection",
            ),
            (
                Finding::Flowtable { policy: policy(), flowtable: object() },
                "flowtable: flowtable x of table ip t: its connections bypass postrouting, and so the \
                 enforcement of policy a",
            ),
            (
                Finding::Helper { helper: object() },
                "helper: conntrack helper x of table ip t: connections that it expects keep the port that \
                 it selects, whatever the policy",
            ),
            (
                Finding::ConntrackFull { entries: 81, max: 100 },
                "conntrack-full: the connection tracking table has 81 of 100 entries: new connections are \
                 dropped when it is full",
            ),
            (
                Finding::InsertFailed { count: 1 },
                "insert-failed: connections failed, 1 since the start of this network namespace: NAT found \
                 no free port, or another connection had the same addresses and ports",
            ),
            (
                Finding::EarlyDrops { count: 1 },
                "early-drops: connections were forgotten early, because the connection tracking table was \
                 full: 1",
            ),
        ];
        for (finding, text) in cases {
            assert_eq!(format!("{}: {finding}", finding.name()), text);
            assert_eq!(finding.policy().is_some(), text.contains("policy a"), "{text}");
        }
    }
}
