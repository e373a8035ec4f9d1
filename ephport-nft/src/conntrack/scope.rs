//! The policy that applies to a tracked connection.
//!
//! Conntrack does not record interfaces. The output interface of a connection is that of its
//! translated source address, if this host has that address. A source address that is translated to
//! an address of no interface can be in scope of every policy. A connection that is forwarded without
//! source NAT has an unknown direction: only a policy with `sources` applies to it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ephport_core::{
    Family, InterfaceName, Origin, PermittedPorts, Port, PortSet, Protocol, ResolvedPolicy,
};

use super::{Connection, Layer4};
use crate::host::LocalAddress;
use crate::nftables::value;

/// The side of an outgoing connection that is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// The protocol.
    pub protocol: Protocol,
    /// The source before NAT; the port of ICMP is the identifier.
    pub source: SocketAddr,
    /// The source after NAT.
    pub outside: SocketAddr,
    /// The destination after NAT; the port of ICMP is 0.
    pub destination: SocketAddr,
}

/// The place of a connection's source port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// One of the ports of the policy, or of the source's block.
    Permitted,
    /// An exempt port, or a privileged one that the policy does not translate.
    Exempt,
    /// Any other port.
    Outside,
}

/// The scopes of policies on a host.
#[derive(Debug)]
pub struct Scopes<'a> {
    policies: Vec<Scope<'a>>,
    /// The interfaces of this host's addresses.
    interfaces: HashMap<IpAddr, Option<InterfaceName>>,
    broadcasts: Vec<IpAddr>,
}

#[derive(Debug)]
struct Scope<'a> {
    policy: &'a ResolvedPolicy,
    /// The ports beside the set that enforcement permits.
    exempt: PortSet,
}

impl Sent {
    /// The outgoing side of a connection; `None` for one without ports or an identifier that a policy translates.
    #[must_use]
    pub fn from_connection(connection: &Connection) -> Option<Self> {
        let Connection { original, reply, .. } = connection;
        let protocol = Protocol::from_number(original.protocol)?;
        let (own, outside, remote) = match (original.layer4, reply.layer4) {
            (Layer4::Ports { source: own, .. }, Layer4::Ports { source, destination }) => {
                (own, destination, source)
            }
            (Layer4::Icmp { id: own, icmp_type, .. }, Layer4::Icmp { id: outside, .. })
                if icmp_type == value::echo_request(Family::of(original.source)) =>
            {
                (own, outside, 0)
            }
            _ => return None,
        };
        Some(Self {
            protocol,
            source: SocketAddr::new(original.source, own),
            outside: SocketAddr::new(reply.destination, outside),
            destination: SocketAddr::new(reply.source, remote),
        })
    }
}

/// The reason why no policy applies to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoScope {
    /// It is not outgoing, or out of every scope.
    OutOfScope,
    /// It is forwarded without source NAT: conntrack does not record its direction.
    Unknown,
}

impl<'a> Scopes<'a> {
    /// The scopes of `policies` on a host with these addresses.
    #[must_use]
    pub fn new(policies: &'a [ResolvedPolicy], addresses: &[LocalAddress]) -> Self {
        let scope = |policy: &'a ResolvedPolicy| {
            let exempt = policy.permitted_source_ports.difference(&policy.permitted.ports());
            Scope { policy, exempt }
        };
        let interfaces = addresses.iter().map(|local| (local.address, local.interface.clone()));
        Self {
            policies: policies.iter().map(scope).collect(),
            interfaces: interfaces.collect(),
            broadcasts: addresses.iter().filter_map(|local| local.broadcast).collect(),
        }
    }

    /// The index of the policy that applies to `connection`, its outgoing side, and the place of its
    /// source port.
    pub(super) fn find(
        &self,
        connection: &Connection,
    ) -> Result<(usize, Sent, Placement), NoScope> {
        let sent = Sent::from_connection(connection).ok_or(NoScope::OutOfScope)?;
        let is_local = |address| self.interfaces.contains_key(&address);
        let is_translated = connection.status.is_source_nat();
        let is_inbound = !is_translated && is_local(connection.original.destination);
        let destination = sent.destination.ip();
        if is_inbound || is_local(destination) || !self.is_unicast(destination) {
            return Err(NoScope::OutOfScope);
        }
        let is_forwarded = !is_local(sent.source.ip());
        let path = Path {
            out_interface: self.interfaces.get(&sent.outside.ip()).and_then(Option::as_ref),
            is_forwarded,
            is_translated,
            is_transit: is_forwarded && !is_translated && !is_local(sent.outside.ip()),
        };
        self.first(&sent, &path)
    }

    fn is_unicast(&self, address: IpAddr) -> bool {
        let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        !address.is_multicast() && !is_broadcast && !self.broadcasts.contains(&address)
    }

    /// The first policy that translates the connection's source port, or else the first policy that
    /// applies to it.
    fn first(&self, sent: &Sent, path: &Path<'_>) -> Result<(usize, Sent, Placement), NoScope> {
        let mut unknown = false;
        let mut first = None;
        for (index, scope) in self.policies.iter().enumerate() {
            if !scope.covers(sent, path) {
                continue;
            }
            if path.is_transit && scope.policy.sources.is_empty() {
                unknown = true;
                continue;
            }
            first.get_or_insert((index, scope));
            let port = Port::new(sent.source.port());
            if port.is_ok_and(|port| scope.policy.translates(sent.protocol, port)) {
                first = Some((index, scope));
                break;
            }
        }
        match first {
            Some((index, scope)) => {
                let sent = if path.is_translated { scope.on_wire(sent) } else { *sent };
                Ok((index, sent, scope.placement(&sent)))
            }
            None if unknown => Err(NoScope::Unknown),
            None => Err(NoScope::OutOfScope),
        }
    }
}

/// The path of a connection through this host.
struct Path<'a> {
    /// The interface of the translated source address, if it is known.
    out_interface: Option<&'a InterfaceName>,
    /// Whether the connection begins at another host.
    is_forwarded: bool,
    /// Whether its source is translated.
    is_translated: bool,
    /// Whether it is forwarded without source NAT.
    is_transit: bool,
}

impl Scope<'_> {
    fn covers(&self, sent: &Sent, path: &Path<'_>) -> bool {
        let policy = self.policy;
        let is_forwarded = path.is_forwarded;
        let needs_forwarded =
            policy.origin == Origin::Forwarded || !policy.in_interfaces.is_empty();
        let needs_local = policy.origin == Origin::Local;
        let is_origin = !(needs_forwarded && !is_forwarded || needs_local && is_forwarded);
        let is_interface = path.out_interface.is_none_or(|name| {
            let is_excepted = policy.except_interfaces.iter().any(|p| p.matches(name));
            policy.out_interfaces.contains(name) && !is_excepted
        });
        let (source, destination) = (sent.source.ip(), sent.destination);
        is_origin
            && is_interface
            && policy.endpoints_out_of_scope(sent.protocol, source, destination).is_none()
            && self.has_ports(source)
    }

    fn has_ports(&self, source: IpAddr) -> bool {
        match &self.policy.permitted {
            PermittedPorts::Set(_) => true,
            PermittedPorts::Blocks(blocks) => blocks.block_of(source).is_some(),
        }
    }

    /// The same connection with the real port for a virtual one.
    fn on_wire(&self, sent: &Sent) -> Sent {
        let mut sent = *sent;
        let virtual_port = Port::new(sent.outside.port()).ok();
        let real = self.policy.remap.as_ref().zip(virtual_port);
        if let Some(port) = real.and_then(|(remap, port)| remap.real(port)) {
            sent.outside.set_port(port.get());
        }
        sent
    }

    fn placement(&self, sent: &Sent) -> Placement {
        let Ok(port) = Port::new(sent.outside.port()) else { return Placement::Outside };
        let is_permitted = match &self.policy.permitted {
            PermittedPorts::Set(ports) => ports.contains(port),
            PermittedPorts::Blocks(blocks) => {
                blocks.block_of(sent.source.ip()).is_some_and(|block| block.ports.contains(port))
            }
        };
        if is_permitted {
            Placement::Permitted
        } else if sent.protocol.has_ports() && self.exempt.contains(port) {
            Placement::Exempt
        } else {
            Placement::Outside
        }
    }
}
