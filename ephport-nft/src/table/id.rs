//! The identity of a table: what makes it that of one program.
//!
//! Several programs that embed the library, and the command `ephport-nft`, share a host when each has a table of
//! its own:
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PortRange};
//! use ephport_nft::{Plan, TableId};
//!
//! let id = TableId::new("node-agent", "node agent 2.1")?.with_priority(95)?;
//! let range: PortRange = "49152-61000".parse()?;
//! let policy = Policy::to(range).build()?;
//! let plan = Plan::new(&[policy], &HostFacts::with_uplinks(["eth0".parse()?]))?.in_table(&id)?;
//! assert!(plan.table.to_nft().to_string().contains("table inet node-agent {"));
//! // let mut client = Client::open()?.for_table(id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use thiserror::Error;

use super::layout::{FAMILY, OWNER, PRIORITY, TABLE, owner};
use crate::nftables::{Comment, Table};
use crate::uapi::NF_IP_PRI_CONNTRACK;

/// `NFT_NAME_MAXLEN` without the closing NUL (linux/netfilter/nf_tables.h).
const MAX_NAME: usize = 255;

/// The words of nft's grammar: `nft list ruleset | nft -f -` fails on a host with a table of such a name
/// (`src/scanner.l` of nftables 1.0.6 and later).
const RESERVED: &[&str] = &[
    "accept",
    "add",
    "ah",
    "all",
    "and",
    "arp",
    "auto-merge",
    "bridge",
    "cgroup",
    "chain",
    "comment",
    "comp",
    "constant",
    "continue",
    "counter",
    "cpu",
    "create",
    "ct",
    "day",
    "dccp",
    "define",
    "delete",
    "describe",
    "destroy",
    "device",
    "devices",
    "dnat",
    "drop",
    "dst",
    "dup",
    "dynamic",
    "ecn",
    "element",
    "elements",
    "eq",
    "esp",
    "ether",
    "exists",
    "expires",
    "export",
    "exthdr",
    "fib",
    "flags",
    "flow",
    "flowtable",
    "flush",
    "frag",
    "fwd",
    "gc-interval",
    "ge",
    "geneve",
    "get",
    "goto",
    "gre",
    "gretap",
    "gt",
    "handle",
    "hash",
    "hbh",
    "hook",
    "hour",
    "ibriport",
    "ibrname",
    "icmp",
    "icmpv6",
    "igmp",
    "iif",
    "iifgroup",
    "iifname",
    "iiftype",
    "import",
    "in",
    "include",
    "index",
    "inet",
    "insert",
    "interval",
    "ip",
    "ip6",
    "ipsec",
    "jhash",
    "jump",
    "last",
    "le",
    "limit",
    "list",
    "log",
    "lshift",
    "lt",
    "map",
    "mark",
    "masquerade",
    "meta",
    "meter",
    "mh",
    "missing",
    "monitor",
    "ne",
    "netdev",
    "nftrace",
    "not",
    "notrack",
    "numgen",
    "obriport",
    "obrname",
    "offload",
    "oif",
    "oifgroup",
    "oifname",
    "oiftype",
    "or",
    "osf",
    "pkttype",
    "policy",
    "position",
    "priority",
    "queue",
    "quota",
    "random",
    "redefine",
    "redirect",
    "reject",
    "rename",
    "replace",
    "reset",
    "return",
    "rshift",
    "rt",
    "rt0",
    "rt2",
    "rtclassid",
    "rule",
    "ruleset",
    "sctp",
    "secmark",
    "set",
    "size",
    "skgid",
    "skuid",
    "snat",
    "socket",
    "srh",
    "symhash",
    "synproxy",
    "table",
    "tcp",
    "th",
    "time",
    "timeout",
    "tproxy",
    "type",
    "typeof",
    "udp",
    "udplite",
    "undefine",
    "update",
    "vlan",
    "vmap",
    "vni",
    "vxlan",
    "xor",
    "xt",
];

/// The identity of a table: its name, its owner and the priority of its NAT chain.
///
/// The default is the table of the command `ephport-nft`. A program that embeds the library and shares the
/// host with that command, or with another such program, chooses a name and an owner of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    name: String,
    owner: String,
    priority: i32,
}

/// A name of a table or an owner that nf_tables or nft would not accept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableIdError {
    /// A name that nft cannot print and read back.
    #[error(
        "table name {0:?} is not valid: expected a letter, then letters, digits, `/`, `_`, `-` and `.`, \
         at most 255"
    )]
    Name(String),
    /// A word of nft's grammar: no ruleset with a table of this name can be loaded by nft.
    #[error(
        "table name {0:?} is a word of nft's grammar: expected another name, such as \"{0}-ports\""
    )]
    Reserved(String),
    /// An owner that does not fit in a comment.
    #[error(
        "owner {0:?} is not valid: expected 1 to 127 bytes without control characters, quotes and \
         backslashes"
    )]
    Owner(String),
    /// A priority at which the kernel refuses NAT chains.
    #[error(
        "priority {0} is not valid for NAT: expected more than -200, the priority of conntrack"
    )]
    Priority(i32),
}

impl TableId {
    /// The table with this name, owned by `owner`.
    ///
    /// # Errors
    /// When either is not valid.
    pub fn new(name: &str, owner: &str) -> Result<Self, TableIdError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(is_part)
            && name.len() <= MAX_NAME;
        if !is_name {
            return Err(TableIdError::Name(name.into()));
        }
        if RESERVED.contains(&name) {
            return Err(TableIdError::Reserved(name.into()));
        }
        if owner.is_empty() || Comment::new(owner).as_str() != owner {
            return Err(TableIdError::Owner(owner.into()));
        }
        Ok(Self { name: name.into(), owner: owner.into(), priority: PRIORITY })
    }

    /// The same table with its NAT chain at this priority; [`PRIORITY`] by default. Lower ones come first, and the
    /// first table that translates a connection decides. Tables that match the same connections need different
    /// priorities: of several at the same one, the table that was installed last comes first.
    ///
    /// # Errors
    /// When the kernel accepts no NAT chain there.
    pub fn with_priority(self, priority: i32) -> Result<Self, TableIdError> {
        if priority <= NF_IP_PRI_CONNTRACK {
            return Err(TableIdError::Priority(priority));
        }
        Ok(Self { priority, ..self })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its owner: the comment of the table.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The priority of its NAT chain.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Whether the table has this name and owner.
    pub(crate) fn owns(&self, table: &Table) -> bool {
        table.family == FAMILY
            && table.name == self.name
            && owner(table).as_ref() == Some(&self.owner)
    }
}

impl Default for TableId {
    fn default() -> Self {
        Self { name: TABLE.into(), owner: OWNER.into(), priority: PRIORITY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_message() {
        let table = TableId::new("nat.1", "me").unwrap();
        let cases = [
            (
                TableId::new("9", "me"),
                "table name \"9\" is not valid: expected a letter, then letters, digits, `/`, `_`, `-` \
                 and `.`, at most 255",
            ),
            (
                TableId::new("counter", "me"),
                "table name \"counter\" is a word of nft's grammar: expected another name, such as \
                 \"counter-ports\"",
            ),
            (
                TableId::new("nat", "a\"b"),
                "owner \"a\\\"b\" is not valid: expected 1 to 127 bytes without control characters, \
                 quotes and backslashes",
            ),
            (
                table.clone().with_priority(-200),
                "priority -200 is not valid for NAT: expected more than -200, the priority of conntrack",
            ),
        ];
        for (result, message) in cases {
            assert_eq!(result.unwrap_err().to_string(), message);
        }
        assert!(table.with_priority(-199).is_ok());
    }
}
