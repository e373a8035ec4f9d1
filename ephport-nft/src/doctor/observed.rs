//! What other programs set up on the host, as far as findings depend on it.

use std::collections::BTreeSet;
use std::fmt;

use crate::client::{Client, Error};
use crate::conntrack::Statistics;
use crate::host;
use crate::netlink::{Attr, CodecError, NfGenMsg, Reader, Transport};
use crate::nftables::{Origin, UnknownObject};
use crate::uapi::{
    NFPROTO_ARP, NFPROTO_BRIDGE, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV,
    NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE, NFT_MSG_GETOBJ, NFT_MSG_GETRULE,
    NFT_MSG_NEWCHAIN, NFT_OBJECT_CT_HELPER, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS, NFTA_TARGET_INFO, NFTA_TARGET_NAME, NLM_F_DUMP,
};

/// What other programs set up on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observed {
    /// The NAT chains of postrouting, the one that decides first at the front.
    pub nat_chains: Vec<NatChain>,
    /// The conntrack helpers that rules assign.
    pub helpers: Vec<Object>,
    /// The flowtables.
    pub flowtables: Vec<Object>,
    /// Whether kube-proxy has rules.
    pub is_kubernetes: bool,
    /// The counts of connection tracking; `None` if they cannot be read.
    pub statistics: Option<Statistics>,
    /// The sysctl `net.netfilter.nf_conntrack_udp_timeout`, in seconds; `None` if it cannot be read.
    pub udp_timeout: Option<u32>,
    /// The count of outbound IPsec policies; `None` if they cannot be read.
    pub ipsec_policies: Option<u32>,
}

/// An object of nf_tables: its table and its name. Bytes that are not printable are escaped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// The family of its table.
    pub family: &'static str,
    /// The name of its table.
    pub table: String,
    /// Its name; of a helper that iptables assigns, that of the chain.
    pub name: String,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, name } = self;
        write!(f, "{name} of table {family} {table}")
    }
}

/// A NAT chain of postrouting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatChain {
    /// Its priority: among the chains that match a connection, the one with the lowest decides.
    pub priority: i32,
    /// The family of its table.
    pub family: &'static str,
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl fmt::Display for NatChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, family, table, chain } = self;
        write!(f, "{priority} {family} {table} {chain}")
    }
}

impl Observed {
    /// Reads this thread's network namespace.
    ///
    /// # Errors
    /// [`Error`] when the ruleset cannot be read. What else cannot be read is `None`.
    pub fn read<T: Transport>(client: &mut Client<T>) -> Result<Self, Error> {
        let udp_timeout = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
        let udp_timeout = std::fs::read_to_string(udp_timeout).ok();
        let mut observed = Self {
            nat_chains: client.nat_chains()?,
            statistics: Statistics::read().ok(),
            udp_timeout: udp_timeout.and_then(|text| text.trim().parse().ok()),
            ipsec_policies: host::ipsec_policies().ok(),
            ..Self::default()
        };
        let (ruleset, _) = client.settled(Ruleset::read)?;
        observed.helpers = ruleset.helpers.into_iter().collect();
        observed.flowtables = ruleset.flowtables.into_iter().collect();
        observed.is_kubernetes = ruleset.is_kubernetes;
        Ok(observed)
    }
}

/// What is read of all tables.
#[derive(Default)]
struct Ruleset {
    helpers: BTreeSet<Object>,
    flowtables: BTreeSet<Object>,
    is_kubernetes: bool,
}

impl Ruleset {
    fn read<T: Transport>(client: &mut Client<T>) -> Result<Self, Error> {
        let mut ruleset = Self::default();
        client.list(NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_UNSPEC, &[], |_, body| {
            let chain = UnknownObject::peek(NFT_MSG_NEWCHAIN, body)?;
            let is_nftables = Origin::peek(body)?.table.starts_with(b"kube-proxy");
            ruleset.is_kubernetes |= is_nftables || chain.name.starts_with(b"KUBE-");
            Ok(())
        })?;
        client.list(NFT_MSG_GETRULE, NLM_F_DUMP, NFPROTO_UNSPEC, &[], |_, body| {
            if assigns_helper(body)? {
                ruleset.helpers.insert(object(NFTA_RULE_CHAIN, body)?);
            }
            Ok(())
        })?;
        for (request, is_object) in [(NFT_MSG_GETOBJ, true), (NFT_MSG_GETFLOWTABLE, false)] {
            let listed = client.list(request, NLM_F_DUMP, NFPROTO_UNSPEC, &[], |message, body| {
                let found = UnknownObject::peek(message & 0xff, body)?;
                if !is_object {
                    ruleset.flowtables.insert(object(NFTA_RULE_CHAIN, body)?);
                } else if found.object_type == Some(NFT_OBJECT_CT_HELPER) {
                    ruleset.helpers.insert(object(NFTA_RULE_CHAIN, body)?);
                }
                Ok(())
            });
            match listed {
                // This kernel has none.
                Ok(()) | Err(Error::NoNfTables) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ruleset)
    }
}

/// The object in a message. `NFTA_OBJ_NAME` and `NFTA_FLOWTABLE_NAME` have the number of
/// `NFTA_RULE_CHAIN`.
fn object(name: u16, body: &[u8]) -> Result<Object, CodecError> {
    let Origin { family, table } = Origin::peek(body)?;
    let mut reader = Reader::new(body);
    NfGenMsg::decode(&mut reader)?;
    let mut value = &[][..];
    for attr in reader.attrs() {
        let attr = attr?;
        if attr.attribute_type == name {
            value = attr.value.strip_suffix(&[0]).unwrap_or(attr.value);
        }
    }
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    Ok(Object { family: family_name(family), table: text(table), name: text(value) })
}

fn family_name(family: u8) -> &'static str {
    match family {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        NFPROTO_ARP => "arp",
        NFPROTO_BRIDGE => "bridge",
        NFPROTO_NETDEV => "netdev",
        _ => "unknown",
    }
}

/// Whether a rule has iptables' target `CT --helper` (linux/netfilter/xt_CT.h).
fn assigns_helper(body: &[u8]) -> Result<bool, CodecError> {
    let mut reader = Reader::new(body);
    NfGenMsg::decode(&mut reader)?;
    for attr in reader.attrs() {
        let attr = attr?;
        if attr.attribute_type == NFTA_RULE_EXPRESSIONS {
            for element in attr.nested() {
                if is_helper(element?)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// The place of the helper's name in `struct xt_ct_target_info`: after flags, zone and two masks of events.
const HELPER: usize = 12;

fn is_helper(element: Attr<'_>) -> Result<bool, CodecError> {
    let (mut name, mut data) = (&[][..], None);
    for attr in element.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_EXPR_NAME => name = attr.value,
            NFTA_EXPR_DATA => data = Some(attr),
            _ => {}
        }
    }
    let Some(data) = data.filter(|_| name == b"target\0") else { return Ok(false) };
    let (mut target, mut info) = (&[][..], &[][..]);
    for attr in data.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_TARGET_NAME => target = attr.value,
            NFTA_TARGET_INFO => info = attr.value,
            _ => {}
        }
    }
    Ok(target == b"CT\0" && info.get(HELPER).is_some_and(|first| *first != 0))
}
