//! Timeouts of connections.
//!
//! A rule assigns them just before it translates the connection: the kernel assigns none once a connection is
//! confirmed, and the first packet of each connection only is here.

use ephport_core::{ConnectionTimeouts, PermittedPorts, PortSet, Protocol, ResolvedPolicy};

use super::Program;
use super::scope::Packets;
use crate::nftables::CtTimeout;
use crate::nftables::expr::{Expr, ObjRef};
use crate::table::layout::{FAMILY, TABLE, timeout_object};

/// Some destination ports of a policy's scope, and what assigns the timeouts of their connections.
pub(super) type Group = (PortSet, Option<Expr>);

impl Program {
    /// The destination ports in scope by their timeouts; the first group with a port decides.
    pub(super) fn timeout_groups(
        &mut self,
        policy: &ResolvedPolicy,
        protocol: Protocol,
    ) -> Vec<Group> {
        let mut left = policy.destination_ports.clone();
        let mut groups = Vec::new();
        for (ports, timeouts) in policy.timeouts.groups(protocol) {
            let in_scope = policy.destination_ports.intersection(&ports);
            if !in_scope.intersection(&left).is_empty() {
                groups.push((in_scope, self.assigned(policy, &timeouts)));
            }
            left = left.difference(&ports);
        }
        groups
    }

    /// The groups of the rules of the base chain: those of a table of blocks in shards assign none, because the
    /// chains of the shards do.
    pub(super) fn base_groups(
        &mut self,
        policy: &ResolvedPolicy,
        packets: &Packets<'_>,
        protocol: Protocol,
    ) -> Vec<Group> {
        let is_sharded = match (&policy.permitted, packets.family) {
            (PermittedPorts::Blocks(blocks), Some(family)) => self.is_sharded(blocks, family),
            _ => false,
        };
        if is_sharded {
            return vec![(policy.destination_ports.clone(), None)];
        }
        self.timeout_groups(policy, protocol)
    }

    /// Assigns these timeouts, after they are added to the table; `None` for those of the host.
    fn assigned(&mut self, policy: &ResolvedPolicy, timeouts: &ConnectionTimeouts) -> Option<Expr> {
        if timeouts.is_empty() {
            return None;
        }
        let name = timeout_object(&policy.name, timeouts);
        if !self.timeouts.iter().any(|known| known.name == name) {
            self.timeouts.push(CtTimeout::new(FAMILY, TABLE, &name, timeouts));
        }
        Some(ObjRef::timeout(&name).into())
    }
}
