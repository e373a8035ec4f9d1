//! Sets as rustables values.

use ::rustables::set::{SetElement, SetElementList};
use ::rustables::{ProtocolFamily, Set as RustablesSet};

use super::Lack;
use crate::nftables::expr::Data;
use crate::nftables::{Element, Elements};
use crate::table::Set;
use crate::table::layout::is_open_set;

/// A set of single keys, and its elements in messages of a size that netlink allows. The kernel asks for the
/// set's number in the transaction; rules look it up by its name.
pub(super) fn set(
    filled: &Set,
    id: u32,
    family: ProtocolFamily,
) -> Result<(RustablesSet, Vec<SetElementList>), Lack> {
    if is_open_set(&filled.spec) {
        return Err(Lack::OpenConnections);
    }
    let normalized = filled.spec.normalized();
    if normalized.is_map() {
        return Err(Lack::Map);
    }
    if normalized.is_interval() {
        return Err(Lack::Interval);
    }
    if normalized.description.is_some() || !normalized.other.is_empty() {
        return Err(Lack::Attribute);
    }
    let set = RustablesSet {
        family,
        table: Some(normalized.table),
        name: Some(normalized.name),
        flags: normalized.flags,
        key_type: normalized.key_type,
        key_len: normalized.key_len,
        id: Some(id),
        userdata: filled.spec.userdata.clone(),
        timeout: None,
    };
    let lists = filled.chunks().into_iter().map(|chunk| list(chunk, family));
    Ok((set, lists.collect::<Result<_, _>>()?))
}

fn list(chunk: Elements, family: ProtocolFamily) -> Result<SetElementList, Lack> {
    let mut list =
        SetElementList { family, table: Some(chunk.table), set: Some(chunk.set), elements: None };
    for element in chunk.elements.to_vec() {
        list.elements.get_or_insert_default().add_value(key(element)?);
    }
    Ok(list)
}

fn key(element: Element) -> Result<SetElement, Lack> {
    let Element { key: Some(Data::Value(bytes)), data: None, flags: None, userdata: None, other } =
        element
    else {
        return Err(Lack::Attribute);
    };
    if !other.is_empty() {
        return Err(Lack::Attribute);
    }
    let mut to = SetElement::default();
    to.key.get_or_insert_default().set_value(bytes.to_vec());
    Ok(to)
}
