//! Named objects: `nf_tables_newobj`, `nf_tables_delobj`.

use ephport_nft::Errno;
use ephport_nft::uapi::{
    NFT_OBJECT_COUNTER, NFT_OBJECT_CT_TIMEOUT, NFT_OBJECT_QUOTA, NFTA_OBJ_DATA, NFTA_OBJ_HANDLE,
    NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE, NLM_F_EXCL,
};

use super::NLM_F_REPLACE;
use super::batch::Transaction;
use super::request::{Answer, Request};
use super::ruleset::{Object, Table};

/// The types of objects that this kernel has.
const KNOWN: [u32; 3] = [NFT_OBJECT_COUNTER, NFT_OBJECT_QUOTA, NFT_OBJECT_CT_TIMEOUT];

impl Transaction<'_> {
    pub(super) fn new_object(&mut self, request: &Request<'_>) -> Answer {
        let object_type = request.u32(NFTA_OBJ_TYPE)?.ok_or(Errno::EINVAL)?;
        let name = request.required_name(NFTA_OBJ_NAME)?.to_vec();
        let data = request.attr(NFTA_OBJ_DATA).ok_or(Errno::EINVAL)?.value.to_vec();
        let at = self.table(request, NFTA_OBJ_TABLE)?;
        let table = self.ruleset.edit(at)?;
        if object_at(table, object_type, &name).is_some() {
            return match () {
                () if request.has(NLM_F_EXCL) => {
                    Err(request.bad_attr(NFTA_OBJ_NAME, Errno::EEXIST))
                }
                () if request.has(NLM_F_REPLACE) => Err(Errno::EOPNOTSUPP.into()),
                () => Ok(()),
            };
        }
        if !KNOWN.contains(&object_type) {
            return Err(Errno::ENOENT.into());
        }
        let handle = self.handles.next_in(table.handle);
        table.objects.push(Object { kind: object_type, name, handle, data });
        Ok(())
    }

    pub(super) fn delete_object(&mut self, request: &Request<'_>) -> Answer {
        let object_type = request.u32(NFTA_OBJ_TYPE)?.ok_or(Errno::EINVAL)?;
        let by_handle = request.u64(NFTA_OBJ_HANDLE)?;
        if by_handle.is_none() {
            request.required_name(NFTA_OBJ_NAME)?;
        }
        let at = self.table(request, NFTA_OBJ_TABLE)?;
        let table = self.ruleset.edit(at)?;
        let (found, attribute) = if let Some(handle) = by_handle {
            let is_it = |object: &Object| object.kind == object_type && object.handle == handle;
            (table.objects.iter().position(is_it), NFTA_OBJ_HANDLE)
        } else {
            let name = request.required_name(NFTA_OBJ_NAME)?;
            (object_at(table, object_type, name), NFTA_OBJ_NAME)
        };
        let at = found.ok_or_else(|| request.bad_attr(attribute, Errno::ENOENT))?;
        let is_used = table.objects.get(at).is_some_and(|object| table.uses_of(object) > 0);
        if is_used {
            return Err(request.bad_attr(attribute, Errno::EBUSY));
        }
        table.objects.remove(at);
        Ok(())
    }
}

fn object_at(table: &Table, object_type: u32, name: &[u8]) -> Option<usize> {
    let is_it = |object: &Object| object.kind == object_type && object.name == name;
    table.objects.iter().position(is_it)
}
