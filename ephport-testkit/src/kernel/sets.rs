//! Sets and maps: `nf_tables_newset`, `nf_tables_delset`.

use std::sync::Arc;

use ephport_nft::Errno;
use ephport_nft::uapi::{
    NFT_DATA_VERDICT, NFT_SET_ANONYMOUS, NFT_SET_MAP, NFTA_SET_DATA_LEN, NFTA_SET_DATA_TYPE,
    NFTA_SET_DESC, NFTA_SET_DESC_SIZE, NFTA_SET_FLAGS, NFTA_SET_HANDLE, NFTA_SET_ID,
    NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_TABLE, NFTA_SET_USERDATA,
    NLM_F_CREATE, NLM_F_EXCL,
};

use super::batch::Transaction;
use super::request::{Answer, Request, number};
use super::ruleset::{Set, Table};
use super::{NFTA_SET_GC_INTERVAL, NFTA_SET_POLICY, NFTA_SET_TIMEOUT, NLM_F_NONREC, NLM_F_REPLACE};

/// `NFT_SET_*`, all.
const FLAGS: u32 = 0x1ff;
/// `NFT_SET_OBJECT` and `NFT_SET_EVAL`
const OBJECT: u32 = 0x40;
const EVAL: u32 = 0x20;
/// The types from here on are reserved (`NFT_DATA_RESERVED_MASK`).
const RESERVED: u32 = 0xffff_ff00;
/// `NFT_DATA_VALUE_MAXLEN`
const MAX_LEN: u32 = 64;
/// `sizeof(struct nft_verdict)`
const VERDICT_LEN: u32 = 16;

impl Table {
    pub(super) fn set_at(&self, name: &[u8]) -> Option<usize> {
        self.sets.iter().position(|set| set.name == name)
    }
}

impl Transaction<'_> {
    pub(super) fn new_set(&mut self, request: &Request<'_>) -> Answer {
        let set = specified(request)?;
        let id = request.u32(NFTA_SET_ID)?.ok_or(Errno::EINVAL)?;
        let at = self.table(request, NFTA_SET_TABLE)?;
        let table = self.ruleset.edit(at)?;
        if let Some(old) = table.set(&set.name) {
            let is_same = (old.key_type, old.key_len, old.data_type, old.data_len, old.flags)
                == (set.key_type, set.key_len, set.data_type, set.data_len, set.flags);
            return match old {
                _ if request.has(NLM_F_EXCL) => Err(request.bad_attr(NFTA_SET_NAME, Errno::EEXIST)),
                _ if request.has(NLM_F_REPLACE) => Err(Errno::EOPNOTSUPP.into()),
                old if old.has(NFT_SET_ANONYMOUS) => Err(Errno::EOPNOTSUPP.into()),
                _ if !is_same => Err(request.bad_attr(NFTA_SET_NAME, Errno::EEXIST)),
                _ => Ok(()),
            };
        }
        if !request.has(NLM_F_CREATE) {
            return Err(Errno::ENOENT.into());
        }
        let name = set_name(table, &set.name)?;
        let handle = self.handles.next_in(table.handle);
        self.set_ids.push((id, table.handle, name.clone()));
        if set.has(NFT_SET_ANONYMOUS) {
            self.unbound.push((table.handle, name.clone()));
        }
        table.sets.push(Set { name, handle, ..set });
        Ok(())
    }

    pub(super) fn delete_set(&mut self, request: &Request<'_>) -> Answer {
        let at = self.table(request, NFTA_SET_TABLE)?;
        let table = self.ruleset.edit(at)?;
        let (found, attribute) = match request.u64(NFTA_SET_HANDLE)? {
            Some(handle) => {
                (table.sets.iter().position(|set| set.handle == handle), NFTA_SET_HANDLE)
            }
            None => (table.set_at(request.required_name(NFTA_SET_NAME)?), NFTA_SET_NAME),
        };
        let at = found.ok_or_else(|| request.bad_attr(attribute, Errno::ENOENT))?;
        let Some(set) = table.sets.get(at) else { return Err(Errno::ENOENT.into()) };
        let is_filled = request.has(NLM_F_NONREC) && !set.elements.is_empty();
        if is_filled || table.lookups_of(&set.name) > 0 {
            return Err(request.bad_attr(attribute, Errno::EBUSY));
        }
        table.sets.remove(at);
        Ok(())
    }
}

/// The set that a message specifies, without a handle.
fn specified(request: &Request<'_>) -> Answer<Set> {
    let name = request.required_name(NFTA_SET_NAME)?.to_vec();
    request.required_name(NFTA_SET_TABLE)?;
    let key_len = request.u32(NFTA_SET_KEY_LEN)?.ok_or(Errno::EINVAL)?;
    request.attr(NFTA_SET_ID).ok_or(Errno::EINVAL)?;
    let key_type = request.u32(NFTA_SET_KEY_TYPE)?.unwrap_or(0);
    if key_type & RESERVED == RESERVED || !(1..=MAX_LEN).contains(&key_len) {
        return Err(Errno::EINVAL.into());
    }
    let flags = request.u32(NFTA_SET_FLAGS)?.unwrap_or(0);
    let excluded = [NFT_SET_MAP | OBJECT, EVAL | OBJECT];
    if flags & !FLAGS != 0 || excluded.iter().any(|both| flags & both == *both) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (data_type, data_len) = data_of(request, flags)?;
    let desc = request.attr(NFTA_SET_DESC);
    let mut size = 0;
    for attr in desc.iter().flat_map(|desc| desc.nested()) {
        let attr = attr.map_err(|_| Errno::EINVAL)?;
        if attr.attribute_type == NFTA_SET_DESC_SIZE {
            size = number(attr)?;
        }
    }
    let kept = [NFTA_SET_TIMEOUT, NFTA_SET_GC_INTERVAL, NFTA_SET_POLICY];
    let other = kept.into_iter().filter_map(|kept| Some((kept, request.bytes(kept)?)));
    Ok(Set {
        name,
        handle: 0,
        flags,
        key_type,
        key_len,
        data_type,
        data_len,
        size,
        description: request.bytes(NFTA_SET_DESC),
        userdata: request.bytes(NFTA_SET_USERDATA),
        other: other.collect(),
        elements: Arc::default(),
    })
}

/// The type and length of a map's values.
fn data_of(request: &Request<'_>, flags: u32) -> Answer<(u32, u32)> {
    let is_map = flags & NFT_SET_MAP != 0;
    let Some(data_type) = request.u32(NFTA_SET_DATA_TYPE)? else {
        return if is_map { Err(Errno::EINVAL.into()) } else { Ok((0, 0)) };
    };
    if !is_map || (data_type & RESERVED == RESERVED && data_type != NFT_DATA_VERDICT) {
        return Err(Errno::EINVAL.into());
    }
    if data_type == NFT_DATA_VERDICT {
        return Ok((data_type, VERDICT_LEN));
    }
    let data_len = request.u32(NFTA_SET_DATA_LEN)?.ok_or(Errno::EINVAL)?;
    if !(1..=MAX_LEN).contains(&data_len) {
        return Err(Errno::EINVAL.into());
    }
    Ok((data_type, data_len))
}

/// `nf_tables_set_alloc_name`: `%d` is the lowest number that makes a new name.
fn set_name(table: &Table, name: &[u8]) -> Answer<Vec<u8>> {
    let Some(at) = name.iter().position(|byte| *byte == b'%') else { return Ok(name.to_vec()) };
    let (before, after) = name.split_at(at);
    let Some(after) = after.strip_prefix(b"%d").filter(|after| !after.contains(&b'%')) else {
        return Err(Errno::EINVAL.into());
    };
    let numbered = |number: usize| [before, number.to_string().as_bytes(), after].concat();
    let free = (0..=table.sets.len()).map(numbered).find(|name| table.set(name).is_none());
    Ok(free.ok_or(Errno::ENFILE)?)
}
