//! Layout of ephport's table: every name, priority and comment in it.
//!
//! | chain | type, hook, priority | contents |
//! |---|---|---|
//! | `postrouting` | nat, postrouting, srcnat - 10 | the rules of each policy, with its name as comment |
//! | `enforce` | filter, postrouting, srcnat + 10 | the rules of enforcing policies |
//! | `POLICY/ports` | regular | the distribution over several ranges |
//! | `POLICY/FIRST-LAST` | regular | the translation to one range |
//!
//! The map of a policy's blocks is `POLICY/blocks4` or `POLICY/blocks6`.

use ephport_core::{Family, PolicyName, PortRange};

use crate::nftables::{Rule, Table};
use crate::uapi::{NF_IP_PRI_NAT_SRC, NFPROTO_INET};

/// The table that contains all of ephport's rules. Nothing outside it is ever changed.
pub const TABLE: &str = "ephport";

/// The family of that table: IPv4 and IPv6.
pub const FAMILY: u8 = NFPROTO_INET;

/// The comment of the table, and the first word of the fingerprint.
pub const OWNER: &str = "ephport-nft";

/// The chain in which connections are translated.
pub const POSTROUTING: &str = "postrouting";

/// Before Docker, kube-proxy and iptables at 100, systemd-networkd at 101 and firewalld at 110: among
/// nat chains the first that binds a connection wins.
pub const PRIORITY: i32 = NF_IP_PRI_NAT_SRC - 10;

/// The chain in which packets with a source port outside the permitted set are dropped.
pub const ENFORCE: &str = "enforce";

/// After translation, which happens at 100 whatever the priority of the chain that asked for it.
pub const ENFORCE_PRIORITY: i32 = NF_IP_PRI_NAT_SRC + 10;

/// The chain that selects one of several ranges.
pub(crate) fn ports_chain(policy: &PolicyName) -> String {
    format!("{policy}/ports")
}

/// The chain that translates to one range.
pub(crate) fn range_chain(policy: &PolicyName, range: PortRange) -> String {
    format!("{policy}/{range}")
}

/// The map of the blocks of one family.
pub(crate) fn block_map(policy: &PolicyName, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{policy}/blocks4"),
        Family::Ipv6 => format!("{policy}/blocks6"),
    }
}

/// The policy of a rule: the comment of a base chain's rule names it, or the name of its chain does.
#[must_use]
pub fn policy_of(rule: &Rule) -> Option<PolicyName> {
    let named = rule.comment().and_then(|comment| comment.as_str().parse().ok());
    named.or_else(|| rule.chain.split_once('/')?.0.parse().ok())
}

/// Whether the comment of the table names ephport as its owner.
pub(crate) fn is_owned(table: &Table) -> bool {
    table.comment().is_some_and(|comment| comment.as_str() == OWNER)
}
