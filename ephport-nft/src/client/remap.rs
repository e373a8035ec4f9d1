//! Open connections where the rewriting of ports changes.
//!
//! Conntrack has the virtual port of a connection that is rewritten, and the real port of any other. When a
//! policy begins or ends to rewrite ports, or rewrites others, each open connection must keep its port on the
//! wire. So its entry in conntrack's table is replaced by one with the port that conntrack sees from then on:
//!
//! 1. The new table is installed with two chains more, which drop the packets with the ports of such connections.
//! 2. Conntrack's entries are replaced.
//! 3. The two chains are removed.
//!
//! That takes milliseconds, in which packets are lost and sent again. After an error in between the table of before
//! is installed again; connections whose entries were replaced by then end. A process that is killed in between
//! leaves a table that `status` reports as drifted; the next `apply` ends the connections that still have a virtual
//! port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ephport_core::{Flow, InterfaceName, Port, Protocol};

use super::{Applied, Client, Error, Installed, OpenError};
use crate::conntrack::{self, Connection, Connections, Filter, Renumbered, Sent};
use crate::host;
use crate::interpret::{received_port, sent_port};
use crate::netlink::Transport;
use crate::nftables::expr::{
    Bitwise, Cmp, CmpOp, Ct, Expr, Immediate, Lookup, Meta, Payload, Register, Verdict,
};
use crate::nftables::value::port_bytes;
use crate::nftables::{Chain, Hook, Rule, Table};
use crate::table::layout::{
    FAMILY, HELD_PORTS, HOLD_IN, HOLD_OUT, REMAP_IN_PRIORITY, REMAP_OUT_PRIORITY,
};
use crate::table::{Set, SetName, TableState};
use crate::uapi::{
    IP_CT_NEW, NF_ACCEPT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NFT_META_L4PROTO,
};

/// The virtual and the real ports that a table rewrites.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rewritten {
    pairs: BTreeSet<(Port, Port)>,
    /// Virtual ports of an earlier table, of which the real ones are not known.
    lost: BTreeSet<Port>,
}

impl Rewritten {
    fn of(table: &TableState) -> Self {
        let maps = table.sets.iter().filter(|set| set.is_real_ports_map());
        let pairs = maps.flat_map(Set::port_pairs).collect();
        let held = table.sets.iter().filter(|set| set.spec.name == HELD_PORTS);
        Self { pairs, lost: held.flat_map(Set::port_key_set).collect() }
    }

    fn virtual_ports(&self) -> BTreeSet<Port> {
        self.pairs.iter().map(|(port, _)| *port).chain(self.lost.iter().copied()).collect()
    }

    fn real_ports(&self) -> BTreeSet<Port> {
        self.pairs.iter().map(|(_, port)| *port).collect()
    }
}

impl<T: Transport> Client<T> {
    /// Installs `desired`. Open connections keep their ports on the wire.
    pub(super) fn install(&mut self, desired: &TableState) -> Result<Applied, Error> {
        Ok(self.install_where(desired, |_| true)?.unwrap_or(Applied::Unchanged))
    }

    /// The same over a table that `accepts` accepts; `None` if it does not.
    pub(super) fn install_where(
        &mut self,
        desired: &TableState,
        accepts: impl Fn(&Installed) -> bool,
    ) -> Result<Option<Applied>, Error> {
        let ignores_connections = self.sockets.is_none();
        let new = Rewritten::of(desired);
        let is_same = |installed: &Installed| {
            ignores_connections || installed.table().map(Rewritten::of).unwrap_or_default() == new
        };
        for _ in 0..self.bounds.tries {
            let direct = self.install_over(desired, |found| accepts(found) && is_same(found))?;
            if direct.is_some() {
                return Ok(direct);
            }
            let installed = self.installed()?;
            if !accepts(&installed) {
                return Ok(None);
            }
            // Otherwise another process changed the table in between.
            if !is_same(&installed) {
                return self.install_held(desired, &installed, accepts);
            }
        }
        Err(Error::Busy { tries: self.bounds.tries })
    }

    /// Installs `desired` over `installed`, which rewrites other ports: packets of open connections are held.
    fn install_held(
        &mut self,
        desired: &TableState,
        installed: &Installed,
        accepts: impl Fn(&Installed) -> bool,
    ) -> Result<Option<Applied>, Error> {
        let before = installed.table();
        let none = || TableState::empty(desired.table.clone());
        let old = before.cloned().unwrap_or_else(none);
        let affected = self.affected(&old, desired)?;
        let first = self.install_over(&held(desired, &old, &affected), accepts);
        let first = self.or_restored(before, first, Error::is_unconfirmed)?;
        if first.is_none() {
            return Ok(None);
        }
        let renumbered = self.renumber(&old, desired);
        let last = renumbered.and_then(|()| self.install_over(desired, |_| true));
        self.or_restored(before, last, |_| true)?;
        Ok(first)
    }

    /// The result. After an error for which the table may be another one than before, that is installed again.
    fn or_restored<R>(
        &mut self,
        before: Option<&TableState>,
        result: Result<R, Error>,
        may_be_other: impl Fn(&Error) -> bool,
    ) -> Result<R, Error> {
        result.map_err(|error| {
            if !may_be_other(&error) {
                return error;
            }
            let restored = match before {
                Some(table) => self.install_over(table, |_| true).map(|_| ()),
                None => self.delete_table().map(|_| ()),
            };
            restored.map_or(Error::Unconfirmed, |()| error)
        })
    }

    /// The result of what follows [`leave_remapped`](Self::leave_remapped).
    pub(super) fn or_rewriting<R>(
        &mut self,
        rewriting: Option<&TableState>,
        result: Result<R, Error>,
    ) -> Result<R, Error> {
        match rewriting {
            Some(_) => self.or_restored(rewriting, result, |_| true),
            None => result,
        }
    }

    /// Gives the open connections their ports on the wire before the table is removed. The table that rewrote
    /// them, while their packets are held.
    pub(super) fn leave_remapped(&mut self) -> Result<Option<TableState>, Error> {
        if self.sockets.is_none() {
            return Ok(None);
        }
        let Some(names) = self.port_maps()? else { return Ok(None) };
        if names.is_empty() {
            return Ok(None);
        }
        let Some(old) = self.installed()?.table().cloned() else { return Ok(None) };
        let none = TableState::empty(old.table.clone());
        let affected = self.affected(&old, &none)?;
        let first = self.install_over(&held(&old, &old, &affected), |_| true);
        self.or_restored(Some(&old), first, Error::is_unconfirmed)?;
        let renumbered = self.renumber(&old, &none);
        self.or_restored(Some(&old), renumbered, |_| true)?;
        Ok(Some(old))
    }

    /// The connections whose port conntrack sees otherwise under `new`, each with that port.
    fn affected(&mut self, old: &TableState, new: &TableState) -> Result<Vec<Renumbered>, Error> {
        let error = |error: conntrack::ConntrackError| Error::OpenConnections(error.into());
        let addresses = self
            .in_its_namespace(host::addresses)?
            .map_err(|error| Error::OpenConnections(OpenError::Conntrack(error.into())))?;
        let addresses = addresses.into_iter().map(|own| (own.address, own.interface));
        let change = Change {
            lost: Rewritten::of(old).lost,
            ports: ports(old, new),
            addresses: addresses.collect(),
            tables: [old, new],
        };
        let mut renumbered = Vec::new();
        let entries = Connections::with_transport(&mut self.transport, Filter::default());
        for connection in entries.map_err(error)? {
            renumbered.extend(change.of(&connection.map_err(error)?));
        }
        Ok(renumbered)
    }

    /// Replaces the entries of these connections.
    fn renumber(&mut self, old: &TableState, new: &TableState) -> Result<(), Error> {
        let affected = self.affected(old, new)?;
        self.continued = conntrack::renumber(&mut self.transport, &affected)
            .map_err(|error| Error::OpenConnections(error.into()))?;
        self.ended = affected.len().saturating_sub(self.continued);
        Ok(())
    }

    /// The connections that continue with their ports after the last [`apply`](Client::apply) or
    /// [`remove`](Client::remove) changed how ports are rewritten, and those that were ended.
    #[must_use]
    pub fn renumbered(&self) -> (usize, usize) {
        (self.continued, self.ended)
    }
}

/// The ports that one of the tables rewrites, in conntrack or on the wire.
fn ports(old: &TableState, new: &TableState) -> BTreeSet<Port> {
    let both = [old, new].map(Rewritten::of);
    both.iter().flat_map(|table| [table.virtual_ports(), table.real_ports()]).flatten().collect()
}

/// A change from one table to another.
struct Change<'a> {
    ports: BTreeSet<Port>,
    lost: BTreeSet<Port>,
    addresses: BTreeMap<IpAddr, Option<InterfaceName>>,
    tables: [&'a TableState; 2],
}

impl Change<'_> {
    /// The new port of a connection; `None` if it keeps the one that it has.
    fn of(&self, connection: &Connection) -> Option<Renumbered> {
        let sent = Sent::from_connection(connection)?;
        let port = Port::new(sent.outside.port()).ok().filter(|port| self.ports.contains(port))?;
        let interface = self.addresses.get(&sent.outside.ip())?.clone()?;
        if self.addresses.contains_key(&sent.destination.ip()) {
            return None;
        }
        if self.lost.contains(&port) {
            return connection.status.is_source_nat().then_some((*connection, None));
        }
        let [old, new] = self.tables;
        let out =
            Flow::new(sent.protocol, sent.source, sent.destination, interface.clone()).ok()?;
        let is_translated = connection.status.is_source_nat();
        let real = if is_translated { sent_port(old, &out, port).ok()? } else { port };
        let here = SocketAddr::new(sent.outside.ip(), real.get());
        let back = Flow::new(sent.protocol, sent.destination, here, interface.clone()).ok()?;
        let received = received_port(new, &back.with_in_interface(interface)).ok()?;
        // One on a port that is only virtual now cannot keep it.
        let is_sent = |port: &Port| !is_translated || sent_port(new, &out, *port) == Ok(real);
        let kept = received.filter(is_sent);
        (kept != Some(port)).then(|| (*connection, kept.map(Port::get)))
    }
}

/// The same table with chains that drop packets with ports whose meaning changes, and packets of the affected
/// connections while conntrack does not know them: they would begin anew, with another port.
fn held(desired: &TableState, old: &TableState, affected: &[Renumbered]) -> TableState {
    let mut table = desired.clone();
    let set = |name: &str, ports: BTreeSet<Port>| {
        let keys = ports.into_iter().map(|port| port_bytes(port).to_vec());
        let mut set = Set::port_keys(SetName::Named(name), keys);
        set.spec.table.clone_from(&desired.table.name);
        set
    };
    let own = affected.iter();
    let own = own.filter_map(|(connection, _)| Port::new(connection.original.source_port()?).ok());
    table.sets.push(set(HOLD_OUT, own.collect()));
    let before = Rewritten::of(old);
    let incoming: BTreeSet<_> =
        before.real_ports().union(&Rewritten::of(desired).real_ports()).copied().collect();
    let ways = [
        (HOLD_IN, NF_INET_PRE_ROUTING, REMAP_IN_PRIORITY - 1, Payload::DESTINATION_PORT, incoming),
        (
            HOLD_OUT,
            NF_INET_POST_ROUTING,
            REMAP_OUT_PRIORITY - 1,
            Payload::SOURCE_PORT,
            before.virtual_ports(),
        ),
    ];
    for (name, hook, priority, port, ports) in ways {
        table.chains.push(Chain {
            hook: Some(Hook::new(hook, priority)),
            policy: Some(NF_ACCEPT),
            chain_type: Some("filter".into()),
            ..Chain::regular(FAMILY, &desired.table.name, name)
        });
        let set_name = if name == HOLD_OUT { HELD_PORTS } else { HOLD_IN };
        table.sets.push(set(set_name, ports));
        for known in Protocol::ALL {
            let held = [port.clone().into(), Lookup::within(set_name).into(), dropped()];
            let exprs = l4proto(known).into_iter().chain(held);
            table.rules.push(rule(&desired.table, name, exprs.collect()));
        }
    }
    for known in Protocol::ALL.into_iter().filter(|known| known.has_ports()) {
        table.rules.push(rule(&desired.table, HOLD_OUT, unknown(known)));
    }
    table
}

/// Drops what begins a connection with the source port of an affected one.
fn unknown(protocol: Protocol) -> Vec<Expr> {
    let new = Bitwise::mask(&crate::nftables::value::ct_state_bit(IP_CT_NEW).to_ne_bytes());
    let begins = [
        Ct::STATE.into(),
        new.into(),
        Cmp::new(CmpOp::Neq, &[0; 4]).into(),
        Ct::ORIGINAL_SOURCE_PORT.into(),
        Lookup::within(HOLD_OUT).into(),
        dropped(),
    ];
    l4proto(protocol).into_iter().chain(begins).collect()
}

fn rule(table: &Table, chain: &str, exprs: Vec<Expr>) -> Rule {
    Rule::new(FAMILY, &table.name, chain, exprs)
}

fn l4proto(protocol: Protocol) -> [Expr; 2] {
    let load = Meta { key: NFT_META_L4PROTO, dreg: Register::R1 };
    [load.into(), Cmp::new(CmpOp::Eq, &[protocol.number()]).into()]
}

fn dropped() -> Expr {
    Immediate::verdict(Verdict::Drop).into()
}
