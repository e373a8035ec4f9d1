//! The chains that rewrite ports between virtual and real ones.

use ephport_core::{Distribution, Effect, Flow, Port, PortRange, PortSet};

use super::packet::Packet;
use super::path::InterpretError;
use super::run;
use crate::nftables::expr::Payload;
use crate::table::layout::{REMAP_IN, REMAP_OUT};
use crate::table::{Set, TableState};

/// The effect of the chain that translates together with that of the chain that rewrites the translated port.
///
/// Ports that no map of the table has as a key are not told apart by the rules.
///
/// # Errors
/// [`InterpretError::Uneven`] where two translated ports become one.
pub fn remapped(table: &TableState, flow: &Flow, effect: Effect) -> Result<Effect, InterpretError> {
    let Effect::Translated(mut translation) = effect else { return Ok(effect) };
    let keys: PortSet = keys(table).map(PortRange::from).collect();
    let keys = keys.intersection(&translation.ports);
    let others = translation.ports.difference(&keys);
    let mut sent = others.clone();
    let representative = others.ports().next();
    for port in keys.ports().chain(representative) {
        let real = sent_port(table, flow, port)?;
        if real != port && !keys.contains(port) {
            return Err(InterpretError::Uneven);
        }
        sent = sent.union(&real.into());
    }
    if sent == translation.ports {
        return Ok(Effect::Translated(translation));
    }
    if sent.count() != translation.ports.count() {
        return Err(InterpretError::Uneven);
    }
    translation.keep = translation.keep.map(|port| sent_port(table, flow, port)).transpose()?;
    translation.selection.distribution = Some(Distribution::Remap);
    translation.ports = sent;
    Ok(Effect::Translated(translation))
}

/// The keys of the maps whose values are ports.
fn keys(table: &TableState) -> impl Iterator<Item = Port> {
    table.sets.iter().filter(|set| set.is_port_map()).flat_map(Set::port_key_set)
}

/// The source port of the first packet of a connection on the wire that was translated to `port`.
///
/// # Errors
/// [`InterpretError`]
pub fn sent_port(table: &TableState, flow: &Flow, port: Port) -> Result<Port, InterpretError> {
    let packet = Packet::leaving(flow, port).translated();
    Ok(rewritten(table, REMAP_OUT, &packet, &Payload::SOURCE_PORT)?.unwrap_or(port))
}

/// The destination port that conntrack sees of a packet of `flow`, which comes in by its input interface for an
/// address of this host; `None` if the packet is dropped.
///
/// # Errors
/// [`InterpretError`]
pub fn received_port(table: &TableState, flow: &Flow) -> Result<Option<Port>, InterpretError> {
    let packet = Packet::arriving(flow);
    if has_chain(table, REMAP_IN)
        && run(table, REMAP_IN, &packet)?.iter().any(|path| path.is_dropped)
    {
        return Ok(None);
    }
    let port = rewritten(table, REMAP_IN, &packet, &Payload::DESTINATION_PORT)?;
    Ok(port.or_else(|| Port::new(flow.destination().port()).ok()))
}

fn has_chain(table: &TableState, name: &str) -> bool {
    table.chains.iter().any(|chain| chain.name == name)
}

/// The port that a chain writes in the place of `field`.
fn rewritten(
    table: &TableState,
    chain: &str,
    packet: &Packet<'_>,
    field: &Payload,
) -> Result<Option<Port>, InterpretError> {
    if !has_chain(table, chain) {
        return Ok(None);
    }
    match run(table, chain, packet)?.as_slice() {
        [path] => match path.written {
            None => Ok(None),
            Some(written) if (written.base, written.offset) == (field.base, field.offset) => {
                Ok(Port::new(u16::from_be_bytes(written.value)).ok())
            }
            Some(_) => Err(InterpretError::Undecided),
        },
        _ => Err(InterpretError::Undecided),
    }
}
