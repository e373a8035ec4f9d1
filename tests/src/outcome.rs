//! What the meaning of policies allows for one packet, to be compared with the packet on the wire.

use std::net::{IpAddr, SocketAddr};

use ephport_core::decision::{CtState, enforcing_policy, evaluate};
use ephport_core::{Address, Flow, Port, PortSet, ResolvedPolicy};

use crate::{ROUTER_V4, ROUTER_V6, of_family};

/// The sources with which the first packet of a connection may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The source address.
    pub address: IpAddr,
    /// The source ports; none if the packet is dropped.
    pub ports: PortSet,
    /// Whether a policy translates the connection.
    pub is_translated: bool,
}

impl Outcome {
    /// The outcome of `flow` under `policies` on the router of [`Routed`](crate::Routed), if no other
    /// connection has its destination: a permitted port is free then.
    #[must_use]
    pub fn of(policies: &[ResolvedPolicy], flow: &Flow) -> Self {
        let source = flow.source().ip();
        let translation = evaluate(policies, flow).matched.map(|matched| matched.translation);
        let (address, possible): (_, PortSet) = match &translation {
            None => (source, flow.source_port().into()),
            Some(translation) => {
                let ports = match translation.keep {
                    Some(port) => port.into(),
                    None => translation.ports.clone(),
                };
                let address = match translation.address {
                    Address::Fixed(address) => address,
                    Address::Keep => source,
                    _ => of_family(source, ROUTER_V4, ROUTER_V6),
                };
                (address, ports)
            }
        };
        let ports = match enforcing_policy(policies, flow, CtState::New) {
            Some(policy) => {
                possible.intersection(&policy.permitted_source_ports(flow.protocol(), source))
            }
            None => possible,
        };
        Self { address, ports, is_translated: translation.is_some() }
    }

    /// Whether a packet may be sent from this source.
    #[must_use]
    pub fn contains(&self, source: SocketAddr) -> bool {
        self.address == source.ip()
            && Port::new(source.port()).is_ok_and(|port| self.ports.contains(port))
    }
}
