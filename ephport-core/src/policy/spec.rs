//! The parts of a policy.

use crate::allocation::block_table::BlockTable;
use crate::allocation::map_e::MapE;
use crate::net::port::PortRange;
use crate::net::port_set::PortSet;
use crate::policy::address::Address;
use crate::policy::name::PolicyName;
use crate::policy::scope::Scope;
use crate::policy::selection::{Distribution, NatFlags};
use crate::policy::timeouts::Timeouts;
use crate::word::words;

/// The parts of a policy; [`Policy::new`](crate::Policy::new) checks them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PolicySpec {
    /// The name.
    pub name: PolicyName,
    /// The connections to which the policy applies.
    pub scope: Scope,
    /// The source ports that are translated; by default the ephemeral ports.
    pub source_ports: PortSet,
    /// Ports among them that are not translated.
    pub exempt: PortSet,
    /// The ports to which they are translated.
    pub target: Target,
    /// Ports that are removed from the target.
    pub except_ports: PortSet,
    /// The flags of the kernel's NAT.
    pub flags: NatFlags,
    /// The distribution over several ranges; `None` chooses it by their sizes.
    pub spread: Option<Distribution>,
    /// Whether one socket gets one range for all destinations, by a hash of its address and port
    /// (endpoint-independent mapping, RFC 4787 section 4.1): another name of [`Distribution::Hash`].
    pub per_source_stable: bool,
    /// The source address after translation.
    pub address: Address,
    /// The packets of a TCP connection from which translation may start.
    pub pick_up: PickUp,
    /// The timeouts of the connections; `None` is the default of the target, see
    /// [`timeouts`](Self::timeouts).
    pub timeouts: Option<Timeouts>,
    /// Whether packets with another source port are dropped.
    pub enforce: bool,
    /// What enforcement does to connections that were open when the policy was first applied.
    pub open_connections: OpenConnections,
    /// What enforcement does to connections that a conntrack helper expected (FTP, SIP, TFTP).
    pub expected_connections: ExpectedConnections,
}

impl PolicySpec {
    /// The parts of a policy with this target, and the default for all else.
    #[must_use]
    pub fn to(target: impl Into<Target>) -> Self {
        Self {
            name: PolicyName::default(),
            scope: Scope::default(),
            source_ports: PortRange::EPHEMERAL.into(),
            exempt: PortSet::EMPTY,
            target: target.into(),
            except_ports: PortSet::EMPTY,
            flags: NatFlags::default(),
            spread: None,
            per_source_stable: false,
            address: Address::default(),
            pick_up: PickUp::default(),
            timeouts: None,
            enforce: false,
            open_connections: OpenConnections::default(),
            expected_connections: ExpectedConnections::default(),
        }
    }

    /// The timeouts of the connections: by default short ones for DNS with MAP-E, and those of the host
    /// elsewhere.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        match (&self.timeouts, &self.target) {
            (Some(timeouts), _) => timeouts.clone(),
            (None, Target::MapE(_)) => Timeouts::dns(),
            (None, _) => Timeouts::default(),
        }
    }
}

/// The ports that a policy permits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// These ports; not empty.
    Ports(PortSet),
    /// The host's own `ip_local_port_range` less `ip_local_reserved_ports`, as they are when the
    /// policy is applied.
    Local,
    /// The port set of a MAP-E customer.
    MapE(Box<MapE>),
    /// A block for each source.
    Blocks(Box<BlockTable>),
}

impl From<PortSet> for Target {
    fn from(ports: PortSet) -> Self {
        Self::Ports(ports)
    }
}

impl From<PortRange> for Target {
    fn from(ports: PortRange) -> Self {
        Self::Ports(ports.into())
    }
}

impl From<MapE> for Target {
    fn from(map_e: MapE) -> Self {
        Self::MapE(Box::new(map_e))
    }
}

impl From<BlockTable> for Target {
    fn from(blocks: BlockTable) -> Self {
        Self::Blocks(Box::new(blocks))
    }
}

/// The packets of a TCP connection from which translation may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PickUp {
    /// Only the opening segment (SYN without ACK, RST or FIN): connections that were open before the
    /// policy was applied keep their port.
    #[default]
    Opening,
    /// Any packet that is the first for conntrack, as in iptables. The first NAT rule on a host then
    /// breaks the TCP connections that are open.
    Any,
}

words!(PickUp, "opening or any", Opening = "opening", Any = "any");

/// What enforcement does to connections that were open when the policy was first applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OpenConnections {
    /// They continue with the source port that they have.
    #[default]
    Keep,
    /// They are dropped unless their source port is permitted.
    Drop,
}

words!(OpenConnections, "keep or drop", Keep = "keep", Drop = "drop");

/// What enforcement does to connections that a conntrack helper expected (FTP, SIP, TFTP): NAT binds
/// them before any rule, mostly without another port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExpectedConnections {
    /// They pass and are counted.
    #[default]
    Pass,
    /// They are dropped unless their source port is permitted.
    Drop,
}

words!(ExpectedConnections, "pass or drop", Pass = "pass", Drop = "drop");
