//! Chains: `nf_tables_newchain`, `nf_tables_delchain`.

use ephport_nft::Errno;
use ephport_nft::netlink::Attr;
use ephport_nft::uapi::{
    NF_ACCEPT, NF_DROP, NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING, NF_IP_PRI_CONNTRACK, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6,
    NFT_CHAIN_BASE, NFTA_CHAIN_FLAGS, NFTA_CHAIN_HANDLE, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY,
    NLM_F_EXCL,
};

use super::batch::Transaction;
use super::request::{Answer, Request, number, without_nul};
use super::ruleset::{Base, Chain, ChainType, Table};
use super::{NFTA_CHAIN_USERDATA, NLM_F_NONREC, NLM_F_REPLACE};

/// `NF_INET_LOCAL_IN`
const LOCAL_IN: u32 = 1;

impl Table {
    pub(super) fn chain_at(&self, name: &[u8]) -> Option<usize> {
        self.chains.iter().position(|chain| chain.name == name)
    }

    fn chain_by_handle(&self, handle: u64) -> Option<usize> {
        self.chains.iter().position(|chain| chain.handle == handle)
    }
}

impl Transaction<'_> {
    pub(super) fn new_chain(&mut self, request: &Request<'_>) -> Answer {
        let at = self.table(request, NFTA_CHAIN_TABLE)?;
        let table = self.ruleset.edit(at)?;
        let (found, attribute) = match request.u64(NFTA_CHAIN_HANDLE)? {
            Some(handle) => {
                let found = table.chain_by_handle(handle);
                let missing = || request.bad_attr(NFTA_CHAIN_HANDLE, Errno::ENOENT);
                (Some(found.ok_or_else(missing)?), NFTA_CHAIN_HANDLE)
            }
            None => (table.chain_at(request.required_name(NFTA_CHAIN_NAME)?), NFTA_CHAIN_NAME),
        };
        let found = found.and_then(|at| table.chains.get_mut(at));
        let policy = policy(request, found.as_deref())?;
        let flags = request.u32(NFTA_CHAIN_FLAGS)?;
        let flags = flags.or(found.as_ref().map(|chain| chain.flags)).unwrap_or(0);
        if flags & !CHAIN_FLAGS != 0 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        if let Some(chain) = found {
            if request.has(NLM_F_EXCL) {
                return Err(request.bad_attr(attribute, Errno::EEXIST));
            }
            if request.has(NLM_F_REPLACE) {
                return Err(Errno::EOPNOTSUPP.into());
            }
            update_chain(request, chain, policy, flags, attribute)?;
            table.has_changed_chain = true;
            return Ok(());
        }
        let base = match request.attr(NFTA_CHAIN_HOOK) {
            Some(_) if table.is_updated => return Err(Errno::EINVAL.into()),
            Some(hook) => {
                Some(Base { policy: policy.unwrap_or(NF_ACCEPT), ..new_hook(request, hook)? })
            }
            None if flags & NFT_CHAIN_BASE != 0 => return Err(Errno::EINVAL.into()),
            None if flags != 0 => return Err(Errno::EOPNOTSUPP.into()),
            None => None,
        };
        let name = request.required_name(NFTA_CHAIN_NAME)?.to_vec();
        let handle = self.handles.next_in(table.handle);
        let flags = if base.is_some() { flags | NFT_CHAIN_BASE } else { flags };
        let userdata = request.bytes(NFTA_CHAIN_USERDATA);
        table.chains.push(Chain { name, handle, flags, base, userdata, rules: Vec::new() });
        Ok(())
    }

    pub(super) fn delete_chain(&mut self, request: &Request<'_>) -> Answer {
        let at = self.table(request, NFTA_CHAIN_TABLE)?;
        let table = self.ruleset.edit(at)?;
        let (found, attribute) = match request.u64(NFTA_CHAIN_HANDLE)? {
            Some(handle) => (table.chain_by_handle(handle), NFTA_CHAIN_HANDLE),
            None => (table.chain_at(request.required_name(NFTA_CHAIN_NAME)?), NFTA_CHAIN_NAME),
        };
        let at = found.ok_or_else(|| request.bad_attr(attribute, Errno::ENOENT))?;
        let Some(chain) = table.chains.get(at) else { return Err(Errno::ENOENT.into()) };
        let name = chain.name.clone();
        let is_used = !chain.rules.is_empty() || table.jumps_to(&name) > 0;
        if request.has(NLM_F_NONREC) && is_used {
            return Err(Errno::EBUSY.into());
        }
        // A jump from one of its own rules counts, although the rule goes with it.
        let jumps = table.jumps_to(&name);
        let rules = table.chains.get_mut(at).map(|chain| std::mem::take(&mut chain.rules));
        table.drop_anonymous_sets(&rules.unwrap_or_default());
        if jumps > 0 {
            return Err(request.bad_attr(attribute, Errno::EBUSY));
        }
        table.has_changed_chain |= table.chains.remove(at).base.is_some();
        Ok(())
    }
}

/// `NFT_CHAIN_FLAGS`
const CHAIN_FLAGS: u32 = 0x7;

fn policy(request: &Request<'_>, chain: Option<&Chain>) -> Answer<Option<u32>> {
    let Some(policy) = request.u32(NFTA_CHAIN_POLICY)? else { return Ok(None) };
    let is_base = match chain {
        Some(chain) => chain.base.is_some(),
        None => request.attr(NFTA_CHAIN_HOOK).is_some(),
    };
    match policy {
        _ if !is_base => Err(request.bad_attr(NFTA_CHAIN_POLICY, Errno::EOPNOTSUPP)),
        NF_DROP | NF_ACCEPT => Ok(Some(policy)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `nf_tables_updchain`, without the renaming of chains.
fn update_chain(
    request: &Request<'_>,
    chain: &mut Chain,
    policy: Option<u32>,
    flags: u32,
    attribute: u16,
) -> Answer {
    if chain.flags != flags | (chain.flags & NFT_CHAIN_BASE) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if let Some(hook) = request.attr(NFTA_CHAIN_HOOK) {
        let Some(base) = &chain.base else {
            return Err(request.bad_attr(attribute, Errno::EEXIST));
        };
        let (number, priority) = hook_numbers(hook)?;
        if number.is_some_and(|number| number != base.hook)
            || priority.is_some_and(|priority| priority != base.priority)
        {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let chain_type = match request.attr(NFTA_CHAIN_TYPE) {
            None => base.chain_type,
            Some(_) => chain_type(request)?,
        };
        if chain_type != base.chain_type {
            return Err(request.bad_attr(attribute, Errno::EEXIST));
        }
    }
    if let (Some(base), Some(policy)) = (&mut chain.base, policy) {
        base.policy = policy;
    }
    Ok(())
}

/// `nft_chain_parse_hook` of a new chain; its policy is that of the caller.
fn new_hook(request: &Request<'_>, hook: Attr<'_>) -> Answer<Base> {
    let (Some(hook), Some(priority)) = hook_numbers(hook)? else {
        return Err(request.bad_attr(NFTA_CHAIN_NAME, Errno::ENOENT));
    };
    let chain_type = match request.attr(NFTA_CHAIN_TYPE) {
        None => ChainType::Filter,
        Some(_) => chain_type(request)?,
    };
    let is_ip = [NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6].contains(&request.family);
    if !is_ip || !chain_type.hooks().contains(&hook) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if chain_type == ChainType::Nat && priority <= NF_IP_PRI_CONNTRACK {
        return Err(Errno::EOPNOTSUPP.into());
    }
    Ok(Base { hook, priority, chain_type, policy: NF_ACCEPT })
}

fn hook_numbers(hook: Attr<'_>) -> Answer<(Option<u32>, Option<i32>)> {
    let (mut hooknum, mut priority) = (None, None);
    for attr in hook.nested() {
        let attr = attr.map_err(|_| Errno::EINVAL)?;
        match attr.attribute_type {
            NFTA_HOOK_HOOKNUM => hooknum = Some(number(attr)?),
            NFTA_HOOK_PRIORITY => priority = Some(number(attr)?.cast_signed()),
            _ => {}
        }
    }
    Ok((hooknum, priority))
}

fn chain_type(request: &Request<'_>) -> Answer<ChainType> {
    match request.attr(NFTA_CHAIN_TYPE).map(|attr| without_nul(attr.value)) {
        Some(b"filter") => Ok(ChainType::Filter),
        Some(b"nat") => Ok(ChainType::Nat),
        Some(b"route") => Ok(ChainType::Route),
        _ => Err(request.bad_attr(NFTA_CHAIN_TYPE, Errno::ENOENT)),
    }
}

impl ChainType {
    /// The hooks of the IP families at which it can be.
    fn hooks(self) -> &'static [u32] {
        const NAT: [u32; 4] =
            [NF_INET_PRE_ROUTING, LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING];
        const ALL: [u32; 5] = [
            NF_INET_PRE_ROUTING,
            LOCAL_IN,
            NF_INET_FORWARD,
            NF_INET_LOCAL_OUT,
            NF_INET_POST_ROUTING,
        ];
        match self {
            Self::Filter => &ALL,
            Self::Nat => &NAT,
            Self::Route => &[NF_INET_LOCAL_OUT],
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}
