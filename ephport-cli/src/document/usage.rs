//! The documents of `usage` and `whose`.

use ephport_core::ResolvedPolicy;
use ephport_nft::conntrack::{Connection, DestinationUsage, Sent};
use schemars::JsonSchema;
use serde::Serialize;

use super::PortRange;

/// The ports in use.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UsageDocument {
    /// The version of this format.
    pub(crate) version: u32,
    /// The policies, in order of precedence.
    pub(crate) policies: Vec<PolicyUsageDocument>,
    /// The state of connection tracking.
    pub(crate) conntrack: ConntrackDocument,
    /// The connections that are forwarded without source NAT: conntrack does not record in which
    /// direction, and no policy names their sources.
    pub(crate) not_counted: u64,
}

/// The ports in use of one policy.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyUsageDocument {
    /// The policy.
    pub(crate) policy: String,
    /// The ports to which the policy translates.
    pub(crate) ports: Vec<PortRange>,
    /// How many these are.
    pub(crate) port_count: u32,
    /// The ports in use by a connection to any destination.
    pub(crate) used_ports: Vec<PortRange>,
    /// How many these are.
    pub(crate) used_port_count: u32,
    /// The connections with one of `ports`.
    pub(crate) connections: u64,
    /// The connections with an exempt port, or a privileged one that is not translated.
    pub(crate) exempt: u64,
    /// The connections with any other source port.
    pub(crate) outside: u64,
    /// The translations that the kernel attempted; null if the policy is not installed.
    pub(crate) attempts: Option<u64>,
    /// The packets that enforcement dropped; null if the policy is not enforced.
    pub(crate) drops: Option<u64>,
    /// The ten fullest destinations, the fullest first.
    pub(crate) destinations: Vec<DestinationDocument>,
}

/// The ports in use to one destination.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DestinationDocument {
    /// The protocol.
    protocol: String,
    /// The address of the destination.
    address: String,
    /// The port of the destination; 0 for ICMP.
    port: u16,
    /// The source address whose ports these are: after NAT, or, with blocks, before NAT.
    source: String,
    /// The conntrack zone; 0 is the default zone.
    zone: u16,
    /// The ports in use.
    ports: u32,
    /// How many more they may be; 0 unless there were more than 28,672 destinations.
    ports_error: u32,
    /// The ports that there are.
    port_count: u32,
    /// The share in use, 0 to 1.
    ratio: f64,
}

impl DestinationDocument {
    pub(crate) fn new(usage: &DestinationUsage) -> Self {
        Self {
            protocol: usage.protocol.to_string(),
            address: usage.destination.ip().to_string(),
            port: usage.destination.port(),
            source: usage.source.to_string(),
            zone: usage.zone,
            ports: usage.ports,
            ports_error: usage.error,
            port_count: usage.capacity,
            ratio: usage.ratio(),
        }
    }
}

/// The state of connection tracking in this network namespace.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConntrackDocument {
    /// The connections in the table.
    pub(crate) entries: u32,
    /// The connections that the table may contain; null before Linux 4.18.
    pub(crate) max_entries: Option<u32>,
    /// The packets for which a connection was found.
    pub(crate) found: u64,
    /// The packets in state INVALID.
    pub(crate) invalid: u64,
    /// The connections that were not inserted: no free port, or a duplicate.
    pub(crate) insert_failed: u64,
    /// The packets that were dropped because their connection was not inserted.
    pub(crate) drops: u64,
    /// The connections that were removed because the table was full.
    pub(crate) early_drops: u64,
}

/// The connections outside the ports of their policy.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(dead_code)] // It is printed one connection at a time.
pub(crate) struct OutsideDocument {
    /// The version of this format.
    version: u32,
    /// The connections outside.
    outside: Vec<OutsideConnection>,
    /// The connections in scope of a policy.
    connections: u64,
    /// The connections that are forwarded without source NAT: conntrack does not record in which
    /// direction, and no policy names their sources.
    not_counted: u64,
}

/// A connection outside the ports of its policy.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OutsideConnection {
    /// The policy.
    policy: String,
    /// The protocol.
    protocol: String,
    /// The source before NAT.
    source: Endpoint,
    /// The source after NAT.
    sent_as: Endpoint,
    /// The destination after NAT.
    destination: Endpoint,
    /// Whether NAT changed the source.
    is_translated: bool,
    /// The seconds until the entry expires without packets; null if the kernel does not report it.
    timeout: Option<u32>,
}

/// An address with a port.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Endpoint {
    /// The address.
    address: String,
    /// The port, or the identifier of ICMP; 0 for its destination.
    port: u16,
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(endpoint: std::net::SocketAddr) -> Self {
        Self { address: endpoint.ip().to_string(), port: endpoint.port() }
    }
}

impl OutsideConnection {
    pub(crate) fn new(policy: &ResolvedPolicy, connection: &Connection, sent: &Sent) -> Self {
        Self {
            policy: policy.name.to_string(),
            protocol: sent.protocol.to_string(),
            source: sent.source.into(),
            sent_as: sent.outside.into(),
            destination: sent.destination.into(),
            is_translated: connection.status.is_source_nat(),
            timeout: connection.timeout,
        }
    }
}

/// The source that had a port.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WhoseDocument {
    /// The version of this format.
    pub(crate) version: u32,
    /// The address and port that were asked for.
    pub(crate) sent_as: Endpoint,
    /// The time since which the policies were installed that answer for `--at`; null without it.
    pub(crate) recorded_at: Option<String>,
    /// The sources, one for each policy that gives the port to one.
    pub(crate) sources: Vec<SourceDocument>,
}

/// A source that has a port by a policy.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SourceDocument {
    /// The policy.
    pub(crate) policy: String,
    /// The source address before NAT.
    pub(crate) source: String,
    /// The source address after NAT, if the policy names it.
    pub(crate) outside: Option<String>,
    /// The block of ports of the source.
    pub(crate) ports: Vec<PortRange>,
    /// The protocols of the policy.
    pub(crate) protocols: Vec<String>,
}
