//! Sets as rustables values.

use ::rustables::set::{SetElement, SetElementList};
use ::rustables::{ProtocolFamily, Set};

use super::Lack;
use crate::expr::Data;
use crate::object::{Element, Elements};
use crate::ruleset::FilledSet;

/// A set of single keys, and its elements in messages that netlink can hold. The kernel asks for the
/// set's number in the transaction; rules look it up by its name.
pub(super) fn set(
    filled: &FilledSet,
    id: u32,
    family: ProtocolFamily,
) -> Result<(Set, Vec<SetElementList>), Lack> {
    let essence = filled.set.essence();
    if essence.is_map() {
        return Err(Lack::Map);
    }
    if essence.is_interval() {
        return Err(Lack::Interval);
    }
    if essence.size.is_some() || !essence.other.is_empty() {
        return Err(Lack::Attribute);
    }
    let set = Set {
        family,
        table: Some(essence.table),
        name: Some(essence.name),
        flags: essence.flags,
        key_type: essence.key_type,
        key_len: essence.key_len,
        id: Some(id),
        userdata: filled.set.userdata.clone(),
        timeout: None,
    };
    let lists = filled.portions().into_iter().map(|portion| list(portion, family));
    Ok((set, lists.collect::<Result<_, _>>()?))
}

fn list(portion: Elements, family: ProtocolFamily) -> Result<SetElementList, Lack> {
    let mut list = SetElementList {
        family,
        table: Some(portion.table),
        set: Some(portion.set),
        elements: None,
    };
    for element in portion.elements {
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
    to.key.get_or_insert_default().set_value(bytes);
    Ok(to)
}
