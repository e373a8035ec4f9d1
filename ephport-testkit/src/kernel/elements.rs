//! Elements of sets and maps: `nf_tables_newsetelem`, `nf_tables_delsetelem`.

use std::sync::Arc;

use ephport_nft::Errno;
use ephport_nft::netlink::Attr;
use ephport_nft::nftables::Element as Listed;
use ephport_nft::nftables::expr::Data;
use ephport_nft::uapi::{
    NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_ELEM_INTERVAL_END, NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_SET_ID,
    NFTA_SET_ELEM_LIST_TABLE, NLM_F_EXCL,
};

use super::batch::Transaction;
use super::request::{Answer, Failure, Request};
use super::rules::chain_of;
use super::ruleset::{Element, Set, Table};
use super::validate::validate_table;

impl Transaction<'_> {
    pub(super) fn new_elements(&mut self, request: &Request<'_>) -> Answer {
        let list = request.attr(NFTA_SET_ELEM_LIST_ELEMENTS).ok_or(Errno::EINVAL)?;
        let at = self.table(request, NFTA_SET_ELEM_LIST_TABLE)?;
        let name = self.set_name(request, at)?;
        let validates = self.validates;
        let table = self.ruleset.edit(at)?;
        let missing = || request.bad_attr(NFTA_SET_ELEM_LIST_SET, Errno::ENOENT);
        let at = table.set_at(&name).ok_or_else(missing)?;
        let Some(set) = table.sets.get(at) else { return Err(missing()) };
        if set.is_fixed_in_use() && table.lookups_of(&name) > 0 {
            return Err(Errno::EBUSY.into());
        }
        let is_exclusive = request.has(NLM_F_EXCL);
        let mut elements = set.elements.to_vec();
        let (spec, failure) = (set.clone(), |attr, errno| request.bad(attr, errno));
        let mut result = Ok(());
        for attr in list.nested() {
            let Ok(attr) = attr else { return Err(Errno::EINVAL.into()) };
            let added = element(attr, &spec, table)
                .and_then(|element| insert(&mut elements, element, &spec, is_exclusive));
            if let Err(errno) = added {
                result = Err(failure(attr, errno));
                break;
            }
        }
        if let Some(set) = table.sets.get_mut(at) {
            set.elements = Arc::new(elements);
        }
        result?;
        if validates {
            validate_table(table)?;
        }
        Ok(())
    }

    pub(super) fn delete_elements(&mut self, request: &Request<'_>) -> Answer {
        let at = self.table(request, NFTA_SET_ELEM_LIST_TABLE)?;
        let name = request.required_name(NFTA_SET_ELEM_LIST_SET)?;
        let table = self.ruleset.edit(at)?;
        let missing = || request.bad_attr(NFTA_SET_ELEM_LIST_SET, Errno::ENOENT);
        let at = table.set_at(name).ok_or_else(missing)?;
        let is_used = table.lookups_of(name) > 0;
        let Some(set) = table.sets.get_mut(at) else { return Err(missing()) };
        if set.has(NFT_SET_ANONYMOUS) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        if is_used && set.has(NFT_SET_CONSTANT) {
            return Err(Errno::EBUSY.into());
        }
        let Some(list) = request.attr(NFTA_SET_ELEM_LIST_ELEMENTS) else {
            set.elements = Arc::default();
            return Ok(());
        };
        for attr in list.nested() {
            let attr = attr.map_err(|_| Errno::EINVAL)?;
            let (key, flags) = key_of(attr, set).map_err(|errno| request.bad(attr, errno))?;
            let is_it = |element: &Element| element.key == key && element.flags == flags;
            let found = set.elements.iter().position(is_it);
            let at = found.ok_or_else(|| request.bad(attr, Errno::ENOENT))?;
            Arc::make_mut(&mut set.elements).remove(at);
        }
        Ok(())
    }

    /// The name of the set that the message names, or numbers in this transaction.
    fn set_name(&self, request: &Request<'_>, at: usize) -> Result<Vec<u8>, Failure> {
        let table = self.ruleset.tables.get(at).ok_or(Errno::ENOENT)?;
        let name = request.name(NFTA_SET_ELEM_LIST_SET);
        if let Some(set) = name.and_then(|name| table.set(name)) {
            return Ok(set.name.clone());
        }
        let id = request.u32(NFTA_SET_ELEM_LIST_SET_ID)?;
        let mut ids = self.set_ids.iter().rev();
        let known = ids.find(|(known, of, _)| Some(*known) == id && *of == table.handle);
        let known = known.map(|(_, _, name)| name.clone());
        known.ok_or_else(|| request.bad_attr(NFTA_SET_ELEM_LIST_SET, Errno::ENOENT))
    }
}

/// Key and flags of an element.
fn key_of(attr: Attr<'_>, set: &Set) -> Result<(Vec<u8>, u32), Errno> {
    let listed = Listed::decode(attr).map_err(|_| Errno::EINVAL)?;
    let flags = listed.flags.unwrap_or(0);
    if flags & !NFT_SET_ELEM_INTERVAL_END != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags != 0 && !set.is_interval() {
        return Err(Errno::EINVAL);
    }
    let key = listed.key_bytes().ok_or(Errno::EINVAL)?;
    if u32::try_from(key.len()) != Ok(set.key_len) {
        return Err(Errno::EINVAL);
    }
    Ok((key.to_vec(), flags))
}

/// The element of a message (`nft_add_set_elem`): of the set's lengths, with a value in a map only.
fn element(attr: Attr<'_>, set: &Set, table: &Table) -> Result<Element, Errno> {
    let (key, flags) = key_of(attr, set)?;
    let listed = Listed::decode(attr).map_err(|_| Errno::EINVAL)?;
    let ends = flags & NFT_SET_ELEM_INTERVAL_END != 0;
    let userdata = listed.userdata.map(|userdata| *userdata);
    let is_wrong = match &listed.data {
        None => set.is_map() && !ends,
        Some(_) => !set.is_map() || ends,
    };
    if is_wrong || (ends && userdata.is_some()) {
        return Err(Errno::EINVAL);
    }
    let chain = match &listed.data {
        Some(Data::Verdict(verdict)) if set.is_verdict_map() => chain_of(verdict, table)?,
        Some(Data::Value(bytes)) if !set.is_verdict_map() => {
            if u32::try_from(bytes.len()) != Ok(set.data_len) {
                return Err(Errno::EINVAL);
            }
            None
        }
        Some(_) => return Err(Errno::EINVAL),
        None => None,
    };
    let mut attrs = attr.nested().map_while(Result::ok);
    let data = attrs.find(|attr| attr.attribute_type == NFTA_SET_ELEM_DATA);
    Ok(Element { key, flags, data: data.map(|data| data.value.to_vec()), chain, userdata })
}

/// `nft_setelem_insert`. The elements are in the order of their keys; at one key, a range ends before the next
/// begins.
fn insert(
    elements: &mut Vec<Element>,
    new: Element,
    set: &Set,
    is_exclusive: bool,
) -> Result<(), Errno> {
    let rank = |element: &Element| !is_end(element);
    let found = elements
        .binary_search_by(|old| old.key.cmp(&new.key).then_with(|| rank(old).cmp(&rank(&new))));
    let at = match found {
        Ok(at) => {
            let is_same = elements.get(at).is_some_and(|old| old.data == new.data);
            return if is_same && !is_exclusive { Ok(()) } else { Err(Errno::EEXIST) };
        }
        Err(at) => at,
    };
    if set.is_interval() && overlaps(elements, &new, set) {
        return Err(Errno::EEXIST);
    }
    if set.size != 0 && elements.len() >= usize::try_from(set.size).unwrap_or(usize::MAX) {
        return Err(Errno::ENFILE);
    }
    elements.insert(at, new);
    Ok(())
}

fn is_end(element: &Element) -> bool {
    element.flags & NFT_SET_ELEM_INTERVAL_END != 0
}

/// `__nft_rbtree_insert`: a range begins in another one, or ends without a beginning.
fn overlaps(elements: &[Element], new: &Element, set: &Set) -> bool {
    let below = |old: &Element| old.key < new.key || (old.key == new.key && is_end(old));
    let at = elements.partition_point(below);
    let before = at.checked_sub(1).and_then(|at| elements.get(at));
    let after = elements.get(at);
    if is_end(new) {
        before.is_some_and(is_end) || after.is_some_and(is_end)
    } else {
        !set.has(NFT_SET_ANONYMOUS) && before.is_some_and(|old| !is_end(old))
    }
}
