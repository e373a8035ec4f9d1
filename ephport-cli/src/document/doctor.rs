//! The document of `doctor`.

use schemars::JsonSchema;
use serde::Serialize;

/// What is found on a host.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Doctor {
    /// The version of this format.
    pub(crate) version: u32,
    /// The release of the kernel.
    pub(crate) kernel: String,
    /// Whether the kernel has tables that outlive their owner (Linux 6.9); null if it was not asked.
    pub(crate) has_owned_tables: Option<bool>,
    /// The interfaces with a default route.
    pub(crate) uplinks: Vec<Uplink>,
    /// The ports from which the kernel selects those of the host's own sockets; null if unknown.
    pub(crate) own_ports: Option<Vec<super::PortRange>>,
    /// The NAT chains of postrouting. The first that matches a connection decides.
    pub(crate) nat_chains: Vec<NatChain>,
    /// The connections in the connection tracking table; null if it cannot be read.
    pub(crate) conntrack_entries: Option<u32>,
    /// The connections that the table may contain; null before Linux 4.18.
    pub(crate) conntrack_max_entries: Option<u32>,
    /// The policies that were examined.
    pub(crate) policies: Vec<String>,
    /// The findings; none if all is right.
    pub(crate) findings: Vec<Finding>,
    /// What could not be checked; none if everything was.
    pub(crate) warnings: Vec<super::Warning>,
}

/// An interface with a default route.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Uplink {
    /// Its name.
    pub(crate) interface: String,
    /// Its address family.
    pub(crate) family: String,
    /// The routing table of the route.
    pub(crate) table: u32,
    /// The VRF of that table.
    pub(crate) vrf: Option<String>,
}

/// A NAT chain of postrouting.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NatChain {
    /// Its priority: the lowest comes first.
    pub(crate) priority: i32,
    /// The family of its table.
    pub(crate) family: String,
    /// The name of its table.
    pub(crate) table: String,
    /// Its name.
    pub(crate) chain: String,
}

/// Something to look at, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Finding {
    /// The stable name of this kind of finding.
    pub(crate) kind: String,
    /// The policy that it concerns.
    pub(crate) policy: Option<String>,
    /// The finding as a sentence.
    pub(crate) message: String,
    /// What to do.
    pub(crate) fix: String,
}
