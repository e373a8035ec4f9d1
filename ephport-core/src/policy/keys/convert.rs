//! Values of keys that are more than one text: from the parts of a policy, and back.

use crate::allocation::block_table::BlockTable;
use crate::allocation::explicit_blocks::ExplicitBlocks;
use crate::net::family::{Families, Family};
use crate::net::interface::InterfacePatterns;
use crate::net::protocol::Protocol;
use crate::policy::scope::OutInterfaces;
use crate::policy::spec::{PolicySpec, Target};
use crate::policy::timeouts::Timeouts;
use crate::policy::value::{Input, InputError, Value, ValueError};

pub(super) fn out_interfaces(out: &OutInterfaces) -> Value {
    match out {
        OutInterfaces::Uplinks | OutInterfaces::Any => Value::text(out),
        OutInterfaces::Matching(patterns) => Value::list(patterns),
    }
}

pub(super) fn set_out_interfaces(
    spec: &mut PolicySpec,
    input: &Input<'_>,
) -> Result<(), InputError> {
    spec.scope.out_interfaces = if input.is("any") {
        OutInterfaces::Any
    } else if input.is("uplinks") {
        OutInterfaces::Uplinks
    } else {
        let patterns = InterfacePatterns::new(input.interfaces()?).map_err(InputError::first)?;
        OutInterfaces::Matching(patterns)
    };
    Ok(())
}

pub(super) fn families(families: Families) -> Value {
    Value::list(families.iter())
}

pub(super) fn set_families(spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
    let families: Vec<Family> = input.each(str::parse)?;
    spec.scope.families = match families.as_slice() {
        [first, rest @ ..] if rest.iter().all(|family| family == first) => (*first).into(),
        _ => Families::Both,
    };
    Ok(())
}

pub(super) fn set_protocols(spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
    let protocols = input.each(str::parse::<Protocol>)?;
    spec.scope.protocols = if input.items().is_empty() { None } else { Some(protocols) };
    Ok(())
}

pub(super) fn set_mark(spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
    spec.scope.mark = if input.items().is_empty() { None } else { Some(input.one()?) };
    Ok(())
}

pub(super) fn timeouts(timeouts: &Timeouts) -> Value {
    Value::Table(timeouts.iter().map(|(timer, seconds)| (timer.to_string(), seconds)).collect())
}

pub(super) fn set_timeouts(spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
    let mut timeouts = Timeouts::default();
    let is_none = input.is("none");
    for (item, text) in input.items().iter().enumerate().filter(|_| !is_none) {
        let mut parts = text.split(',');
        let added = parts.try_for_each(|part| timeouts.add(part.trim()));
        added.map_err(|error| InputError { item, error: error.into() })?;
    }
    spec.timeouts = (!input.items().is_empty()).then_some(timeouts);
    Ok(())
}

pub(super) fn to_ports(spec: &PolicySpec) -> Option<Value> {
    match &spec.target {
        Target::Ports(ports) => Some(Value::Ports(ports.clone())),
        Target::Local => Some(Value::text("local")),
        Target::MapE(_) | Target::Blocks(_) => None,
    }
}

pub(super) fn set_to_ports(spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
    spec.target = if input.is("local") { Target::Local } else { input.ports()?.into() };
    Ok(())
}

pub(super) fn map_e(spec: &PolicySpec) -> Option<Value> {
    match &spec.target {
        Target::MapE(map_e) => Some(Value::text(map_e)),
        _ => None,
    }
}

pub(super) fn blocks(spec: &PolicySpec) -> Option<Value> {
    let Target::Blocks(table) = &spec.target else { return None };
    if table.file().is_some() {
        return None;
    }
    Some(match &**table {
        BlockTable::Plan(plan) => Value::text(plan),
        table @ BlockTable::Explicit(_) => Value::list(table),
    })
}

pub(super) fn set_blocks(spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
    let table = match input.items() {
        [text] => text.parse::<BlockTable>().map_err(InputError::first)?,
        items => {
            let block = |(item, text): (usize, &&str)| {
                text.parse().map_err(|error| InputError { item, error: ValueError::Blocks(error) })
            };
            let blocks = items.iter().enumerate().map(block).collect::<Result<Vec<_>, _>>()?;
            BlockTable::Explicit(ExplicitBlocks::new(blocks).map_err(InputError::first)?)
        }
    };
    spec.target = table.into();
    Ok(())
}

pub(super) fn blocks_file(spec: &PolicySpec) -> Option<Value> {
    let Target::Blocks(table) = &spec.target else { return None };
    table.file().map(Value::text)
}

pub(super) fn set_blocks_file(spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
    spec.target = BlockTable::Explicit(input.blocks_file()?).into();
    Ok(())
}
