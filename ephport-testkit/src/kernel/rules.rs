//! Rules: `nf_tables_newrule`, `nf_tables_delrule`.

use std::sync::Arc;

use ephport_nft::Errno;
use ephport_nft::netlink::{Attr, Writer};
use ephport_nft::nftables::expr::{Data, Expr, Immediate, Lookup, ObjRef, Register, Verdict};
use ephport_nft::uapi::{
    NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NFT_LOOKUP_F_INV, NFT_NAT_SNAT,
    NFT_SET_ANONYMOUS, NFTA_LIST_ELEM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE,
    NFTA_RULE_POSITION, NFTA_RULE_TABLE, NFTA_RULE_USERDATA, NLM_F_APPEND, NLM_F_CREATE,
    NLM_F_EXCL,
};

use super::NLM_F_REPLACE;
use super::batch::Transaction;
use super::request::{Answer, Request};
use super::ruleset::{Reference, Rule, Table};
use super::validate::validate_table;

/// The expressions of a kernel with every module.
const KNOWN: [&str; 38] = [
    "bitwise",
    "byteorder",
    "cmp",
    "connlimit",
    "counter",
    "ct",
    "dup",
    "dynset",
    "exthdr",
    "fib",
    "flow_offload",
    "fwd",
    "hash",
    "immediate",
    "inner",
    "last",
    "limit",
    "log",
    "lookup",
    "masq",
    "meta",
    "nat",
    "notrack",
    "numgen",
    "objref",
    "osf",
    "payload",
    "queue",
    "quota",
    "range",
    "redir",
    "reject",
    "rt",
    "socket",
    "synproxy",
    "tproxy",
    "tunnel",
    "xfrm",
];

impl Transaction<'_> {
    pub(super) fn new_rule(&mut self, request: &Request<'_>) -> Answer {
        let at = self.table(request, NFTA_RULE_TABLE)?;
        let table = self.ruleset.edit(at)?;
        let name = request.required_name(NFTA_RULE_CHAIN)?;
        let no_chain = || request.bad_attr(NFTA_RULE_CHAIN, Errno::ENOENT);
        let chain_at = table.chain_at(name).ok_or_else(no_chain)?;
        let rule_at = |table: &Table, attribute: u16| {
            let Some(handle) = request.u64(attribute)? else { return Ok(None) };
            let rules = table.chains.get(chain_at).map_or(&[][..], |chain| &chain.rules);
            let found = rules.iter().position(|rule| rule.handle == handle);
            found.map(Some).ok_or_else(|| request.bad_attr(attribute, Errno::ENOENT))
        };
        let old = rule_at(table, NFTA_RULE_HANDLE)?;
        let (handle, before) = match request.u64(NFTA_RULE_HANDLE)? {
            Some(_) if request.has(NLM_F_EXCL) => {
                return Err(request.bad_attr(NFTA_RULE_HANDLE, Errno::EEXIST));
            }
            Some(_) if !request.has(NLM_F_REPLACE) => return Err(Errno::EOPNOTSUPP.into()),
            Some(handle) => (handle, None),
            None if !request.has(NLM_F_CREATE) || request.has(NLM_F_REPLACE) => {
                return Err(Errno::EINVAL.into());
            }
            None => {
                let handle = self.handles.next_in(table.handle);
                (handle, rule_at(table, NFTA_RULE_POSITION)?)
            }
        };
        let sets: Vec<_> = self.set_ids.iter().filter(|(_, of, _)| *of == table.handle).collect();
        let (expressions, references) = expressions(request, table, &sets)?;
        self.unbound.retain(|(of, name)| {
            *of != table.handle || !references.contains(&Reference::Set(name.clone()))
        });
        let userdata = request.bytes(NFTA_RULE_USERDATA);
        let rule = Arc::new(Rule { handle, expressions, references, userdata });
        let Some(chain) = table.chains.get_mut(chain_at) else { return Err(no_chain()) };
        match (old, before) {
            (Some(at), _) => {
                let slot = chain.rules.get_mut(at).ok_or(Errno::ENOENT)?;
                let replaced = std::mem::replace(slot, rule);
                table.drop_anonymous_sets(&[replaced]);
            }
            (None, before) if request.has(NLM_F_APPEND) => {
                let at = before.map_or(chain.rules.len(), |at| at + 1);
                chain.rules.insert(at, rule);
            }
            (None, before) => chain.rules.insert(before.unwrap_or(0), rule),
        }
        if self.validates {
            validate_table(table)?;
        }
        Ok(())
    }

    pub(super) fn delete_rule(&mut self, request: &Request<'_>) -> Answer {
        let at = self.table(request, NFTA_RULE_TABLE)?;
        let table = self.ruleset.edit(at)?;
        let Some(name) = request.name(NFTA_RULE_CHAIN) else {
            let all = table.chains.iter_mut().flat_map(|chain| chain.rules.drain(..));
            let all: Vec<_> = all.collect();
            table.drop_anonymous_sets(&all);
            return Ok(());
        };
        let no_chain = || request.bad_attr(NFTA_RULE_CHAIN, Errno::ENOENT);
        let at = table.chain_at(name).ok_or_else(no_chain)?;
        let Some(chain) = table.chains.get_mut(at) else { return Err(no_chain()) };
        let gone = match request.u64(NFTA_RULE_HANDLE)? {
            None => std::mem::take(&mut chain.rules),
            Some(handle) => {
                let found = chain.rules.iter().position(|rule| rule.handle == handle);
                let at = found.ok_or_else(|| request.bad_attr(NFTA_RULE_HANDLE, Errno::ENOENT))?;
                vec![chain.rules.remove(at)]
            }
        };
        table.drop_anonymous_sets(&gone);
        Ok(())
    }
}

/// The expressions of a rule as they are dumped, and what they use.
fn expressions(
    request: &Request<'_>,
    table: &Table,
    sets: &[&(u32, u64, Vec<u8>)],
) -> Answer<(Vec<u8>, Vec<Reference>)> {
    let Some(list) = request.attr(NFTA_RULE_EXPRESSIONS) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let items = list.nested().collect::<Result<Vec<_>, _>>().map_err(|_| Errno::EINVAL)?;
    let mut parsed = Vec::with_capacity(items.len());
    for item in &items {
        if item.attribute_type != NFTA_LIST_ELEM {
            return Err(Errno::EINVAL.into());
        }
        parsed.push((*item, known(*item).map_err(|errno| request.bad(*item, errno))?));
    }
    let (mut w, mut references) = (Writer::new(), Vec::new());
    for (item, expr) in parsed {
        let expr = initialized(expr, table, sets, &mut references)
            .map_err(|errno| request.bad(item, errno))?;
        expr.encode(&mut w);
    }
    Ok((w.finish().map_err(|_| Errno::EINVAL)?, references))
}

/// `nf_tables_expr_parse`: the expression, if the kernel knows it.
fn known(item: Attr<'_>) -> Result<Expr, Errno> {
    let expr = Expr::decode(item).map_err(|_| Errno::EINVAL)?;
    if KNOWN.contains(&expr.name()) { Ok(expr) } else { Err(Errno::ENOENT) }
}

/// `nf_tables_newexpr`: what an expression uses exists.
fn initialized(
    expr: Expr,
    table: &Table,
    sets: &[&(u32, u64, Vec<u8>)],
    references: &mut Vec<Reference>,
) -> Result<Expr, Errno> {
    match &expr {
        Expr::Lookup(lookup) => {
            let lookup = looked_up(lookup, table, sets, references)?;
            return Ok(lookup.into());
        }
        Expr::Immediate(Immediate { data: Data::Verdict(verdict), .. }) => {
            references.extend(chain_of(verdict, table)?.map(Reference::Chain));
        }
        Expr::ObjRef(ObjRef { object_type, name }) => {
            let mut objects = table.objects.iter();
            let name = name.as_bytes();
            objects
                .find(|object| object.kind == *object_type && object.name == name)
                .ok_or(Errno::ENOENT)?;
            references.push(Reference::Object(*object_type, name.to_vec()));
        }
        Expr::Masq(_) => references.push(Reference::Nat(1 << NF_INET_POST_ROUTING)),
        Expr::Nat(nat) => references.push(Reference::Nat(if nat.nat_type == NFT_NAT_SNAT {
            1 << NF_INET_POST_ROUTING | 1 << 1
        } else {
            1 << NF_INET_PRE_ROUTING | 1 << NF_INET_LOCAL_OUT
        })),
        _ => {}
    }
    Ok(expr)
}

/// `nft_verdict_init`: the chain of a verdict, which exists and is no base chain.
pub(super) fn chain_of(verdict: &Verdict, table: &Table) -> Result<Option<Vec<u8>>, Errno> {
    let (Verdict::Jump(name) | Verdict::Goto(name)) = verdict else { return Ok(None) };
    let chain = table.chain(name.as_bytes()).ok_or(Errno::ENOENT)?;
    if chain.base.is_some() { Err(Errno::EOPNOTSUPP) } else { Ok(Some(chain.name.clone())) }
}

/// `nft_lookup_init`
fn looked_up(
    lookup: &Lookup,
    table: &Table,
    sets: &[&(u32, u64, Vec<u8>)],
    references: &mut Vec<Reference>,
) -> Result<Lookup, Errno> {
    let by_id = || {
        let id = lookup.set_id?;
        let (_, _, name) = sets.iter().rev().find(|(known, _, _)| *known == id)?;
        table.set(name)
    };
    let set = table.set(lookup.set.as_bytes()).or_else(by_id).ok_or(Errno::ENOENT)?;
    let flags = lookup.flags.unwrap_or(0);
    let is_inverted = flags & NFT_LOOKUP_F_INV != 0;
    let is_wrong = flags & !NFT_LOOKUP_F_INV != 0
        || lookup.dreg.is_some() && !set.is_map()
        || lookup.dreg.is_some() && is_inverted
        || lookup.dreg.is_some_and(|to| (to == Register::VERDICT) != set.is_verdict_map());
    if is_wrong {
        return Err(Errno::EINVAL);
    }
    let is_used = table.lookups_of(&set.name) > 0
        || references.iter().any(|used| matches!(used, Reference::Set(name) if *name == set.name));
    if is_used && set.has(NFT_SET_ANONYMOUS) {
        return Err(Errno::EBUSY);
    }
    references.push(Reference::Set(set.name.clone()));
    let name = String::from_utf8(set.name.clone()).map_err(|_| Errno::EINVAL)?;
    Ok(Lookup { set: name, set_id: None, flags: Some(flags), ..lookup.clone() })
}
