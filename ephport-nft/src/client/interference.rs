//! Rules of other tables that make ephport's policies void.
//!
//! Among the nat chains of postrouting, the first that binds a connection decides on its source address
//! and port. Packets that are not tracked have no connection, and are not translated. A port that is written
//! after translation is the one that is sent. Only what decides on these is read of other tables, by the names
//! of their expressions; all else is skipped.

mod packets;

pub(super) use self::packets::{Packets, Ports};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ephport_core::HostFacts;

use super::{Client, Error};
use crate::doctor::NatChain;
use crate::netlink::{Attr, CodecError, NfGenMsg, Reader, Transport};
use crate::nftables::Origin;
use crate::table::layout::FAMILY;
use crate::uapi::{
    NF_INET_POST_ROUTING, NF_NETDEV_EGRESS, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6,
    NFPROTO_NETDEV, NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE,
    NFT_OBJECT_CT_TIMEOUT, NFT_PAYLOAD_TRANSPORT_HEADER, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME,
    NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_CHAIN_USE, NFTA_EXPR_DATA, NFTA_EXPR_NAME,
    NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_OBJREF_IMM_TYPE, NFTA_PAYLOAD_BASE,
    NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_SREG, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE, NFTA_TARGET_INFO, NFTA_TARGET_NAME, NLM_F_DUMP, XT_CT_NOTRACK,
};

/// The rules of a chain of another table, through which connections are sent with a port that no policy
/// selected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interference {
    /// The family of its table: `ip`, `ip6`, `inet` or `netdev`.
    pub family: &'static str,
    /// The name of its table. Bytes that are not UTF-8 are replaced.
    pub table: String,
    /// The name of the chain.
    pub chain: String,
    /// What its rules do.
    pub effect: InterferingEffect,
}

/// What rules of another table do to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InterferingEffect {
    /// They bind connections in postrouting before ephport's chain; lower priorities come first.
    EarlierNat {
        /// The priority of the chain.
        priority: i32,
    },
    /// They keep packets from connection tracking.
    NoTrack,
    /// They write source ports after translation.
    LaterPorts,
    /// They assign timeouts to connections.
    Timeouts {
        /// Whether they can run after ephport's rules. The last assignment decides up to Linux 6.18, the first in 7.3.
        is_later: bool,
    },
}

impl Interference {
    /// The stable name of its kind, for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.effect {
            InterferingEffect::EarlierNat { .. } => "earlier-nat",
            InterferingEffect::NoTrack => "notrack",
            InterferingEffect::LaterPorts => "later-ports",
            InterferingEffect::Timeouts { .. } => "other-timeouts",
        }
    }
}

impl fmt::Display for Interference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, effect } = self;
        write!(f, "chain {chain} of table {family} {table} ")?;
        match effect {
            InterferingEffect::EarlierNat { priority } => write!(
                f,
                "(nat, postrouting, priority {priority}) comes before ephport's: connections that it \
                 translates keep the port that it selects"
            ),
            InterferingEffect::NoTrack => f.write_str(
                "has `notrack` rules: packets that they match are not translated",
            ),
            InterferingEffect::LaterPorts => f.write_str(
                "writes source ports after translation: packets that it matches are sent with its ports",
            ),
            InterferingEffect::Timeouts { is_later: false } => f.write_str(
                "assigns timeouts too: connections that ephport translates get those of their policy instead; \
                 on Linux 7.3 they keep the chain's",
            ),
            InterferingEffect::Timeouts { is_later: true } => f.write_str(
                "assigns timeouts too, after ephport's: connections that it matches keep its timeouts; on \
                 Linux 7.3 those of their policy",
            ),
        }
    }
}

impl<T: Transport> Client<T> {
    /// The rules of other tables that make the policies of the client's table void for what they match. Rules
    /// that keep only packets of servers of this `host` from connection tracking, or to them, are none: no
    /// policy translates those.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be read.
    pub fn interferences(&mut self, host: &HostFacts) -> Result<Vec<Interference>, Error> {
        let mut all = self.all_interferences(host)?;
        all.retain(|other| !matches!(other.effect, InterferingEffect::Timeouts { .. }));
        Ok(all)
    }

    /// The rules of other tables that assign timeouts to connections, as policies with timeouts do. They make no
    /// policy void.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be read.
    pub fn timeout_conflicts(&mut self, host: &HostFacts) -> Result<Vec<Interference>, Error> {
        let mut all = self.all_interferences(host)?;
        all.retain(|other| matches!(other.effect, InterferingEffect::Timeouts { .. }));
        Ok(all)
    }

    fn all_interferences(&mut self, host: &HostFacts) -> Result<Vec<Interference>, Error> {
        let (others, _) = self.settled(|client| client.others(host))?;
        Ok(others.interferences(self.table.priority()))
    }

    /// The chains and rules of other tables. Those of the client's own table may be many, and are not read.
    fn others(&mut self, host: &HostFacts) -> Result<Others, Error> {
        let mut others = Others::default();
        let name = self.table.name().to_string();
        let own = Origin { family: FAMILY, table: name.as_bytes() };
        let mut tables = Vec::new();
        self.list(NFT_MSG_GETTABLE, NLM_F_DUMP, NFPROTO_UNSPEC, &[], |_, body| {
            let origin = Origin::peek(body)?;
            if origin != own {
                tables.push((origin.family, String::from_utf8(origin.table.to_vec())));
            }
            Ok(())
        })?;
        if tables.is_empty() {
            return Ok(others);
        }
        others.chains = self.hooked_chains()?;
        others.chains.retain(|(family, table, _), _| (*family, table) != ("inet", &name));
        for (family, name) in &tables {
            // The rules of a table whose name is not UTF-8 are among all of its family.
            let name = name.as_deref().ok().map(|name| (NFTA_RULE_TABLE, name));
            self.list(NFT_MSG_GETRULE, NLM_F_DUMP, *family, name.as_slice(), |_, body| {
                if Origin::peek(body)? != own {
                    others.effects.extend(rule(body, host)?);
                }
                Ok(())
            })?;
        }
        Ok(others)
    }
}

impl<T: Transport> Client<T> {
    fn hooked_chains(&mut self) -> Result<BTreeMap<ChainId, Hooked>, Error> {
        let mut chains = BTreeMap::new();
        self.list(NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_UNSPEC, &[], |_, body| {
            chains.extend(chain(body)?);
            Ok(())
        })?;
        Ok(chains)
    }

    /// The NAT chains of postrouting, by priority.
    pub(crate) fn nat_chains(&mut self) -> Result<Vec<NatChain>, Error> {
        let (chains, _) = self.settled(Self::hooked_chains)?;
        let is_nat = |(id, hooked): &(ChainId, Hooked)| {
            id.0 != "netdev" && hooked.is_nat && hooked.hook == NF_INET_POST_ROUTING
        };
        let found = chains.into_iter().filter(is_nat);
        let mut found: Vec<_> = found
            .map(|((family, table, chain), Hooked { priority, .. })| NatChain {
                priority,
                family,
                table,
                chain,
            })
            .collect();
        found.sort();
        Ok(found)
    }
}

/// A chain, by the family, the table and its name.
type ChainId = (&'static str, String, String);

/// The chains of all tables with a hook, and what the rules of all chains do.
#[derive(Default)]
struct Others {
    chains: BTreeMap<ChainId, Hooked>,
    effects: BTreeSet<(ChainId, InterferingEffect)>,
}

/// The hook of a chain.
struct Hooked {
    is_nat: bool,
    hook: u32,
    priority: i32,
    /// The count of its rules, and of references to it.
    rules: u32,
}

impl Others {
    /// The chains that interfere with a nat chain of postrouting of this priority.
    fn interferences(self, ours: i32) -> Vec<Interference> {
        let Self { chains, effects } = self;
        let earlier = chains.iter().filter(|(id, hooked)| {
            let is_postrouting = id.0 != "netdev" && hooked.hook == NF_INET_POST_ROUTING;
            is_postrouting && hooked.is_nat && hooked.rules > 0 && hooked.priority < ours
        });
        let earlier = earlier.map(|(id, hooked)| {
            (id.clone(), InterferingEffect::EarlierNat { priority: hooked.priority })
        });
        // Whether the rules of the chain run after translation. A chain without a hook may be reached
        // from each of its table.
        let is_after = |((family, table, _), hooked): (&ChainId, &Hooked)| {
            let is_egress = *family == "netdev" && hooked.hook == NF_NETDEV_EGRESS;
            let is_postrouting = *family != "netdev" && hooked.hook == NF_INET_POST_ROUTING;
            (is_egress || is_postrouting && hooked.priority > ours)
                .then(|| (*family, table.clone()))
        };
        let after: BTreeSet<_> = chains.iter().filter_map(is_after).collect();
        let is_later = |id: &ChainId| match chains.get_key_value(id) {
            Some(hooked) => is_after(hooked).is_some(),
            None => after.contains(&(id.0, id.1.clone())),
        };
        let effective = |(id, effect): (ChainId, InterferingEffect)| match effect {
            InterferingEffect::LaterPorts => is_later(&id).then_some((id, effect)),
            InterferingEffect::Timeouts { .. } => {
                let is_later = is_later(&id);
                Some((id, InterferingEffect::Timeouts { is_later }))
            }
            _ => Some((id, effect)),
        };
        let earlier: Vec<_> = earlier.collect();
        let all = earlier.into_iter().chain(effects.into_iter().filter_map(effective));
        all.map(|((family, table, chain), effect)| Interference { family, table, chain, effect })
            .collect()
    }
}

/// The name of a family with hooks on the way out; `None` for others.
pub(super) fn family_name(body: &mut Reader<'_>) -> Result<Option<&'static str>, CodecError> {
    Ok(match NfGenMsg::decode(body)?.family {
        NFPROTO_IPV4 => Some("ip"),
        NFPROTO_IPV6 => Some("ip6"),
        NFPROTO_INET => Some("inet"),
        NFPROTO_NETDEV => Some("netdev"),
        _ => None,
    })
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
}

/// The chain of an `NFT_MSG_NEWCHAIN`, if it has a hook.
fn chain(body: &[u8]) -> Result<Option<(ChainId, Hooked)>, CodecError> {
    let mut reader = Reader::new(body);
    let Some(family) = family_name(&mut reader)? else { return Ok(None) };
    let (mut table, mut name, mut hook) = (String::new(), String::new(), None);
    let (mut is_nat, mut rules) = (false, 0);
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_CHAIN_TABLE => table = text(attr.value),
            NFTA_CHAIN_NAME => name = text(attr.value),
            NFTA_CHAIN_TYPE => is_nat = text(attr.value) == "nat",
            NFTA_CHAIN_USE => rules = attr.u32_be()?,
            NFTA_CHAIN_HOOK => hook = Some(attr),
            _ => {}
        }
    }
    let Some(attrs) = hook else { return Ok(None) };
    let (mut hook, mut priority) = (None, 0);
    for attr in attrs.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_HOOK_HOOKNUM => hook = Some(attr.u32_be()?),
            NFTA_HOOK_PRIORITY => priority = attr.u32_be()?.cast_signed(),
            _ => {}
        }
    }
    Ok(hook.map(|hook| ((family, table, name), Hooked { is_nat, hook, priority, rules })))
}

/// The chain of an `NFT_MSG_NEWRULE`, and what the rule does; `None` if that is nothing of interest.
fn rule(body: &[u8], host: &HostFacts) -> Result<Option<(ChainId, InterferingEffect)>, CodecError> {
    let mut reader = Reader::new(body);
    let Some(family) = family_name(&mut reader)? else { return Ok(None) };
    let (mut table, mut chain, mut found) = (String::new(), String::new(), None);
    let mut packets = Packets::default();
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_RULE_TABLE => table = text(attr.value),
            NFTA_RULE_CHAIN => chain = text(attr.value),
            NFTA_RULE_EXPRESSIONS => {
                for element in attr.nested() {
                    let (name, data) = expression(element?)?;
                    packets.add(family, &name, data);
                    found = effect(&name, data)?.or(found);
                }
            }
            _ => {}
        }
    }
    let found = found
        .filter(|effect| *effect != InterferingEffect::NoTrack || !packets.are_of_servers(host));
    Ok(found.map(|effect| ((family, table, chain), effect)))
}

/// The name of an expression, and its attributes.
pub(super) fn expression(element: Attr<'_>) -> Result<(String, Option<Attr<'_>>), CodecError> {
    let (mut name, mut data) = (String::new(), None);
    for attr in element.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_EXPR_NAME => name = text(attr.value),
            NFTA_EXPR_DATA => data = Some(attr),
            _ => {}
        }
    }
    Ok((name, data))
}

/// What an expression does.
fn effect(name: &str, data: Option<Attr<'_>>) -> Result<Option<InterferingEffect>, CodecError> {
    Ok(match (name, data) {
        ("notrack", _) => Some(InterferingEffect::NoTrack),
        ("target", Some(data)) => target(data)?,
        ("payload", Some(data)) if writes_source_port(data)? => Some(InterferingEffect::LaterPorts),
        ("objref", Some(data)) if assigns_timeouts(data)? => Some(TIMEOUTS),
        _ => None,
    })
}

const TIMEOUTS: InterferingEffect = InterferingEffect::Timeouts { is_later: false };

/// Whether an object is used that has timeouts of connections.
fn assigns_timeouts(data: Attr<'_>) -> Result<bool, CodecError> {
    for attr in data.nested() {
        let attr = attr?;
        if attr.attribute_type == NFTA_OBJREF_IMM_TYPE {
            return Ok(attr.u32_be()? == NFT_OBJECT_CT_TIMEOUT);
        }
    }
    Ok(false)
}

/// The offset and length of the name of timeouts in `struct xt_ct_target_info_v1`.
const XT_CT_TIMEOUT: (usize, usize) = (28, 32);

/// What a target of iptables does: `CT --notrack`, `NOTRACK` or `CT --timeout` (linux/netfilter/xt_CT.h).
fn target(data: Attr<'_>) -> Result<Option<InterferingEffect>, CodecError> {
    let (mut name, mut flags, mut has_timeouts) = (String::new(), 0, false);
    for attr in data.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_TARGET_NAME => name = text(attr.value),
            NFTA_TARGET_INFO => {
                let first = attr.value.first_chunk::<2>();
                flags = first.map_or(0, |bytes| u16::from_ne_bytes(*bytes));
                let (offset, len) = XT_CT_TIMEOUT;
                let timeout = attr.value.get(offset..offset + len);
                has_timeouts = timeout.is_some_and(|name| name.first() != Some(&0));
            }
            _ => {}
        }
    }
    Ok(match name.as_str() {
        "NOTRACK" => Some(InterferingEffect::NoTrack),
        "CT" if flags & XT_CT_NOTRACK != 0 => Some(InterferingEffect::NoTrack),
        "CT" if has_timeouts => Some(TIMEOUTS),
        _ => None,
    })
}

/// Whether a payload expression writes the source port, the first two bytes of the transport header.
fn writes_source_port(data: Attr<'_>) -> Result<bool, CodecError> {
    let (mut base, mut offset, mut writes) = (0, 0, false);
    for attr in data.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_PAYLOAD_BASE => base = attr.u32_be()?,
            NFTA_PAYLOAD_OFFSET => offset = attr.u32_be()?,
            NFTA_PAYLOAD_SREG => writes = true,
            _ => {}
        }
    }
    Ok(writes && base == NFT_PAYLOAD_TRANSPORT_HEADER && offset < 2)
}
