//! Tables: `nf_tables_newtable`, `nf_tables_deltable`.

use std::sync::Arc;

use ephport_nft::Errno;
use ephport_nft::uapi::{
    NFPROTO_ARP, NFPROTO_BRIDGE, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV,
    NFPROTO_UNSPEC, NFT_TABLE_F_DORMANT, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, NFTA_TABLE_FLAGS,
    NFTA_TABLE_HANDLE, NFTA_TABLE_NAME, NFTA_TABLE_USERDATA, NLM_F_EXCL,
};

use super::batch::Transaction;
use super::request::{Answer, Request};
use super::ruleset::Table;
use super::{NLM_F_NONREC, NLM_F_REPLACE};

const FLAGS: u32 = NFT_TABLE_F_DORMANT | NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST;

impl Transaction<'_> {
    pub(super) fn new_table(&mut self, request: &Request<'_>) -> Answer {
        let families =
            [NFPROTO_INET, NFPROTO_IPV4, NFPROTO_ARP, NFPROTO_NETDEV, NFPROTO_BRIDGE, NFPROTO_IPV6];
        if !families.contains(&request.family) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let name = request.required_name(NFTA_TABLE_NAME)?;
        let flags = request.u32(NFTA_TABLE_FLAGS)?;
        match self.ruleset.table(request.family, name, self.port_id) {
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) if request.has(NLM_F_EXCL) => {
                return Err(request.bad_attr(NFTA_TABLE_NAME, Errno::EEXIST));
            }
            Ok(_) if request.has(NLM_F_REPLACE) => return Err(Errno::EOPNOTSUPP.into()),
            Ok(at) => return self.update_table(at, flags),
        }
        let flags = flags.unwrap_or(0);
        if flags & !FLAGS != 0 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let owner = if flags & NFT_TABLE_F_OWNER == 0 { 0 } else { self.port_id };
        self.ruleset.tables.push(Arc::new(Table {
            family: request.family,
            name: name.to_vec(),
            handle: self.handles.next_table(),
            flags,
            owner,
            is_updated: false,
            has_changed_chain: false,
            userdata: request.bytes(NFTA_TABLE_USERDATA),
            chains: Vec::new(),
            sets: Vec::new(),
            objects: Vec::new(),
        }));
        Ok(())
    }

    /// `nf_tables_updtable`
    fn update_table(&mut self, at: usize, flags: Option<u32>) -> Answer {
        let port_id = self.port_id;
        let table = self.ruleset.edit(at)?;
        let Some(flags) = flags.filter(|flags| *flags != table.flags) else { return Ok(()) };
        let has_owner = table.flags & NFT_TABLE_F_OWNER != 0;
        let wants_owner = flags & NFT_TABLE_F_OWNER != 0;
        let is_refused = flags & !FLAGS != 0
            || (has_owner && !wants_owner)
            || (wants_owner && !has_owner && !table.is_orphan())
            || (flags ^ table.flags) & NFT_TABLE_F_PERSIST != 0;
        if is_refused {
            return Err(Errno::EOPNOTSUPP.into());
        }
        // `nft_table_pending_update`
        if table.is_updated || table.has_changed_chain {
            return Err(Errno::EINVAL.into());
        }
        table.is_updated = true;
        if wants_owner && !has_owner {
            table.owner = port_id;
        }
        table.flags = flags;
        Ok(())
    }

    pub(super) fn delete_table(&mut self, request: &Request<'_>) -> Answer {
        let by_name = request.name(NFTA_TABLE_NAME);
        let by_handle = request.u64(NFTA_TABLE_HANDLE)?;
        if request.family == NFPROTO_UNSPEC || (by_name.is_none() && by_handle.is_none()) {
            self.flush_tables(request.family, by_name);
            return Ok(());
        }
        let at = if let Some(handle) = by_handle {
            self.table_by_handle(handle)
        } else {
            self.ruleset.table(request.family, by_name.unwrap_or_default(), self.port_id)
        };
        let attribute = if by_handle.is_some() { NFTA_TABLE_HANDLE } else { NFTA_TABLE_NAME };
        let at = at.map_err(|errno| request.bad_attr(attribute, errno))?;
        let uses = self.ruleset.tables.get(at).map_or(0, |table| table.uses());
        if request.has(NLM_F_NONREC) && uses > 0 {
            return Err(Errno::EBUSY.into());
        }
        self.ruleset.tables.remove(at);
        Ok(())
    }

    /// `nft_table_lookup_byhandle`
    fn table_by_handle(&self, handle: u64) -> Result<usize, Errno> {
        let mut tables = self.ruleset.tables.iter().enumerate();
        match tables.find(|(_, table)| table.handle == handle) {
            Some((_, table)) if table.is_owned_by_other(self.port_id) => Err(Errno::EPERM),
            Some((at, _)) => Ok(at),
            None => Err(Errno::ENOENT),
        }
    }

    /// `nft_flush`: `nft flush ruleset` skips the tables of others.
    fn flush_tables(&mut self, family: u8, name: Option<&[u8]>) {
        let port_id = self.port_id;
        self.ruleset.tables.retain(|table| {
            let is_chosen = (family == NFPROTO_UNSPEC || table.family == family)
                && name.is_none_or(|name| table.name == name);
            !is_chosen || table.is_owned_by_other(port_id)
        });
    }
}
