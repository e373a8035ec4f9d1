//! Layout of ephport's table: every name, priority and comment in it.
//!
//! | chain | type, hook, priority | contents |
//! |---|---|---|
//! | `postrouting` | nat, postrouting, srcnat - 10 | the rules of each policy, with its name as comment |
//! | `enforce` | filter, postrouting, 300 | the rules of enforcing policies |
//! | `remap-in`, `POLICY/in` | filter, prerouting, raw | real to virtual ports |
//! | `remap-out`, `POLICY/out` | filter, postrouting, 299 | virtual to real ports |
//! | `POLICY/ports` | regular | the distribution over several ranges |
//! | `POLICY/FIRST-LAST` | regular | the translation to one range |
//!
//! Timeouts of connections are objects like `POLICY/udp.unreplied-2.replied-2`. The maps of ports are `POLICY/real` and `POLICY/virtual`. The map of a policy's blocks is `POLICY/blocks4` or `POLICY/blocks6`. The set `POLICY/open` has the numbers
//! of the connections that were open when enforcement was first applied.

use std::net::IpAddr;

use ephport_core::{ConnectionTimeouts, Family, PolicyName, PortRange, Protocol, TimeoutState};

pub use super::id::{TableId, TableIdError};
use crate::nftables::{Rule, SetSpec, Table};
use crate::uapi::{NF_IP_PRI_NAT_SRC, NF_IP_PRI_RAW, NFPROTO_INET, NFT_SET_CONSTANT};

/// The default name of the table that contains all of ephport's rules. Nothing outside it is ever changed.
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

/// After translation, which happens at 100 whatever the priority of the chain that asked for it, and after
/// the chains of other tools: with conntrack's own hooks, the last of postrouting.
pub const ENFORCE_PRIORITY: i32 = 300;

/// The chain in which the real destination port of packets that come in becomes the virtual one.
pub const REMAP_IN: &str = "remap-in";

/// After defragmentation at -400, before conntrack at -200.
pub const REMAP_IN_PRIORITY: i32 = NF_IP_PRI_RAW;

/// The chain in which the virtual source port of packets that go out becomes the real one.
pub const REMAP_OUT: &str = "remap-out";

/// After translation and the chains of other tools, and before enforcement, which judges the real port.
pub const REMAP_OUT_PRIORITY: i32 = ENFORCE_PRIORITY - 1;

/// The chains that drop packets while the rewriting changes, and the set of the virtual ports before.
pub(crate) const HOLD_IN: &str = "hold-in";
pub(crate) const HOLD_OUT: &str = "hold-out";
pub(crate) const HELD_PORTS: &str = "held";

/// The chain that rewrites the ports of a policy's packets on their way in.
pub(crate) fn remap_in_chain(policy: &PolicyName) -> String {
    format!("{policy}/in")
}

/// The chain that rewrites the ports of a policy's packets on their way out.
pub(crate) fn remap_out_chain(policy: &PolicyName) -> String {
    format!("{policy}/out")
}

/// The chain after one of these that rewrites the inner header of ICMP errors.
pub(crate) fn errors_chain(chain: &str, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{chain}/icmp"),
        Family::Ipv6 => format!("{chain}/icmpv6"),
    }
}

/// The chain that translates to a policy's virtual range.
pub(crate) fn virtual_range_chain(policy: &PolicyName) -> String {
    format!("{policy}/translate")
}

/// The map from a policy's virtual ports to the real ones, where they differ.
pub(crate) fn real_ports_map(policy: &PolicyName) -> String {
    format!("{policy}{REAL}")
}

/// The end of the name of such a map.
pub(crate) const REAL: &str = "/real";

/// The map from a policy's real ports to the virtual ones, where they differ.
pub(crate) fn virtual_ports_map(policy: &PolicyName) -> String {
    format!("{policy}/virtual")
}

/// The chain that selects one of several ranges.
pub(crate) fn ports_chain(policy: &PolicyName) -> String {
    format!("{policy}/ports")
}

/// The chain that translates to one range; in a branch of chains for one kind of address, its own.
pub(crate) fn range_chain(policy: &PolicyName, branch: Option<&str>, range: PortRange) -> String {
    match branch {
        None => format!("{policy}/{range}"),
        Some(branch) => format!("{policy}/{branch}/{range}"),
    }
}

/// The chain that decides whether a source address is kept or masqueraded.
pub(crate) fn address_chain(policy: &PolicyName) -> String {
    format!("{policy}/address")
}

/// The chain that translates, or selects one of several ranges, for one kind of address.
pub(crate) fn branch_chain(policy: &PolicyName, branch: &str) -> String {
    format!("{policy}/{branch}")
}

/// The chain that permits and drops the packets in the scope of an enforced policy.
pub(crate) fn enforce_chain(policy: &PolicyName) -> String {
    format!("{policy}/enforce")
}

/// The chain that permits one block of ports.
pub(crate) fn enforce_block_chain(policy: &PolicyName, block: PortRange) -> String {
    format!("{policy}/enforce/{block}")
}

/// The map from the sources of one family to the chain of their block.
pub(crate) fn enforce_map(policy: &PolicyName, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{policy}/enforce4"),
        Family::Ipv6 => format!("{policy}/enforce6"),
    }
}

/// The object with timeouts of a policy: like `home/udp.unreplied-2.replied-2`. The kernel changes no object, so
/// that each has the name of its timeouts.
pub(crate) fn timeout_object(policy: &PolicyName, timeouts: &ConnectionTimeouts) -> String {
    let protocol = timeouts.protocol().map_or("none", Protocol::name);
    let states = timeouts.states().iter();
    let states = states.map(|(state, seconds)| format!(".{}-{seconds}", state.name()));
    format!("{policy}/{protocol}{}", states.collect::<String>())
}

/// The timeouts that the name of such an object names; `None` for another name.
pub(crate) fn timeouts_of(name: &str) -> Option<ConnectionTimeouts> {
    let (_, timeouts) = name.rsplit_once('/')?;
    let mut parts = timeouts.split('.');
    let protocol = parts.next()?;
    let states = parts.map(|part| {
        let (state, seconds) = part.rsplit_once('-')?;
        let mut known = TimeoutState::ALL.into_iter();
        let is_named =
            |known: &TimeoutState| known.name() == state && known.protocol().name() == protocol;
        Some((known.find(is_named)?, seconds.parse().ok()?))
    });
    let timeouts = ConnectionTimeouts::new(states.collect::<Option<Vec<_>>>()?);
    (!timeouts.is_empty()).then_some(timeouts)
}

/// The set of the connections that were open when the enforced policy was first applied.
pub(crate) fn open_set(policy: &PolicyName) -> String {
    format!("{policy}{OPEN}")
}

/// The end of the name of a set of open connections.
const OPEN: &str = "/open";

/// Whether the set contains open connections. Its elements are a state of the host and no part of a policy,
/// like the value of a counter. The flag `constant` makes the kernel refuse changes of the elements while a
/// rule uses the set.
#[must_use]
pub fn is_open_set(set: &SetSpec) -> bool {
    set.name.ends_with(OPEN) && set.flags == Some(NFT_SET_CONSTANT)
}

/// The map of the blocks of one family.
pub(crate) fn block_map(policy: &PolicyName, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{policy}/blocks4"),
        Family::Ipv6 => format!("{policy}/blocks6"),
    }
}

/// The map of the outside addresses of one family, by the high bits of the source.
pub(crate) fn address_map(policy: &PolicyName, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{policy}/addresses4"),
        Family::Ipv6 => format!("{policy}/addresses6"),
    }
}

/// The chain or map of one shard of a map: the name of the map, and the first bits of the sources in
/// hexadecimal.
pub(crate) fn shard(map: &str, source: IpAddr, len: u8) -> String {
    let digits = usize::from(len.div_ceil(4));
    match source {
        IpAddr::V4(source) => format!("{map}/{:.digits$}", format!("{:08x}", source.to_bits())),
        IpAddr::V6(source) => format!("{map}/{:.digits$}", format!("{:032x}", source.to_bits())),
    }
}

/// The chain with a part of a base chain's rules: the base chain itself is the first, from 0.
pub(crate) fn part(chain: &str, part: usize) -> String {
    if part == 0 { chain.into() } else { format!("{chain}.{}", part + 1) }
}

/// Whether it is a part of the base chain in which connections are translated.
pub(crate) fn translates(chain: &str) -> bool {
    let rest = chain.strip_prefix(POSTROUTING);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The policy of a rule: the comment of a base chain's rule names it, or the name of its chain does.
#[must_use]
pub fn policy_of(rule: &Rule) -> Option<PolicyName> {
    let named = rule.comment().and_then(|comment| comment.as_str().parse().ok());
    named.or_else(|| rule.chain.split_once('/')?.0.parse().ok())
}

/// The owner that the comment of a table names.
#[must_use]
pub fn owner(table: &Table) -> Option<String> {
    table.comment().map(|comment| comment.as_str().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_timeouts_name_them() {
        let policy = "a-1.b".parse().unwrap();
        for (text, name) in [
            ("udp-replied=2", "a-1.b/udp.replied-2"),
            ("tcp-close=3,tcp-syn-sent=20", "a-1.b/tcp.syn_sent-20.close-3"),
        ] {
            let timeouts: ephport_core::Timeouts = text.parse().unwrap();
            let protocol = if text.starts_with("udp") { Protocol::Udp } else { Protocol::Tcp };
            let timeouts = timeouts.of(protocol, None);
            assert_eq!(timeout_object(&policy, &timeouts), name);
            assert_eq!(timeouts_of(name), Some(timeouts));
        }
        for name in ["a", "a/udp", "a/udp.close-3", "a/tcp.close-x", "a/tcp.close"] {
            assert_eq!(timeouts_of(name), None, "{name}");
        }
    }
}
