//! The owner of a table, and its fingerprint.
//!
//! The comment of the table names the owner. The comment of the first rule is the fingerprint: the version
//! of ephport-nft, a checksum of the table, and one of each fact of the host that the table depends on. A rule
//! can be replaced without the others, the comment of a table only with the table.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ephport_core::{Address, Family, HostFacts, Interfaces, Origin, OutInterfaces, ResolvedPolicy};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::TableState;
use super::layout::{OWNER, POSTROUTING, TableId};
use crate::netlink::CodecError;
use crate::nftables::{Comment, Rule};

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl TableState {
    /// The fingerprint in the comment of the first rule.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        fingerprint_of(self.rules_of(POSTROUTING).next()?)
    }

    /// The table with its owner and its fingerprint in comments.
    ///
    /// # Errors
    /// A rule or set that is too long for netlink.
    pub fn signed(self) -> Result<Self, CodecError> {
        let facts = self.fingerprint().map(|fingerprint| fingerprint.facts).unwrap_or_default();
        self.signed_by(OWNER, facts)
    }

    /// The table with its owner and its fingerprint, compiled from these policies.
    pub(crate) fn signed_for(self, policies: &[ResolvedPolicy]) -> Result<Self, CodecError> {
        self.signed_by(OWNER, FactChecksums::of_policies(policies))
    }

    /// The same state in another table, with its own name, owner and priority of the NAT chain.
    ///
    /// # Errors
    /// A rule or set that is too long for netlink.
    pub fn in_table(mut self, id: &TableId) -> Result<Self, CodecError> {
        id.name().clone_into(&mut self.table.name);
        for chain in &mut self.chains {
            id.name().clone_into(&mut chain.table);
            if let Some(hook) = chain.hook.as_mut().filter(|_| chain.name == POSTROUTING) {
                hook.priority = id.priority();
            }
        }
        self.sets.iter_mut().for_each(|set| id.name().clone_into(&mut set.spec.table));
        self.rules.iter_mut().for_each(|rule| id.name().clone_into(&mut rule.table));
        self.timeouts.iter_mut().for_each(|object| id.name().clone_into(&mut object.table));
        let facts = self.fingerprint().map(|fingerprint| fingerprint.facts).unwrap_or_default();
        self.signed_by(id.owner(), facts)
    }

    fn signed_by(mut self, owner: &str, facts: FactChecksums) -> Result<Self, CodecError> {
        self.table.userdata = Some(Comment::new(owner).to_userdata());
        let fingerprint =
            Fingerprint { version: VERSION.into(), checksum: self.checksum()?, facts };
        if let Some(first) = self.rules.iter_mut().find(|rule| rule.chain == POSTROUTING) {
            first.userdata = Some(Comment::new(&fingerprint.to_string()).to_userdata());
        }
        Ok(self)
    }

    /// The checksum of the [normalized view](TableState::normalized). It guards against accidents, not
    /// against a process that changes both the table and the checksum.
    ///
    /// # Errors
    /// A rule or set that is too long for netlink.
    pub fn checksum(&self) -> Result<Checksum, CodecError> {
        let mut checksum = Checksum::EMPTY;
        self.normalized().encodings(|bytes| {
            checksum = checksum.and(&bytes.len().to_be_bytes()).and(bytes);
        })?;
        Ok(checksum)
    }
}

/// The state of a table when it was written, and the version of ephport-nft that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fingerprint {
    /// The version of ephport-nft.
    pub version: String,
    /// The checksum of the table.
    pub checksum: Checksum,
    /// The checksums of the facts of the host that it depends on.
    pub facts: FactChecksums,
}

impl Fingerprint {
    pub(crate) fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.split(' ');
        let (tool, version, checksum) = (words.next()?, words.next()?, words.next()?);
        let checksum = u64::from_str_radix(checksum, 16).ok().map(Checksum)?;
        let facts = FactChecksums::parse(words)?;
        (tool == OWNER).then(|| Self { version: version.into(), checksum, facts })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, checksum, facts } = self;
        write!(f, "{OWNER} {version} {checksum}{facts}")
    }
}

/// The checksum of each fact of the host that a table depends on; `None` for one that it does not depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FactChecksums {
    uplinks: Option<u32>,
    local_ports: Option<u32>,
    kept_sources: Option<KeptSources>,
}

/// The checksum of the addresses of this host that are kept, of those in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct KeptSources {
    scope: Hull,
    checksum: u32,
}

/// A network of each family that includes all addresses of policies' scopes; `None` where no address is in
/// scope. So that it fits in a comment, its prefix has at most 16 bits of an IPv4 and 32 of an IPv6 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Hull {
    ipv4: Option<Ipv4Net>,
    ipv6: Option<Ipv6Net>,
}

/// A fact of the host that differs from the one that a table was applied for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangedFact {
    /// The uplinks.
    Uplinks,
    /// The host's own ports.
    LocalPorts,
    /// The addresses that are kept although the output interface does not have them.
    KeptSources,
}

impl FactChecksums {
    fn of_policies(policies: &[ResolvedPolicy]) -> Self {
        let uplinks = policies.iter().find_map(|policy| {
            let is_uplinks = policy.policy.spec().scope.out_interfaces == OutInterfaces::Uplinks;
            match &policy.out_interfaces {
                Interfaces::Matching(patterns) if is_uplinks => Some(short(patterns.iter())),
                _ => None,
            }
        });
        let local = policies.iter().find_map(|policy| policy.local_ports.as_ref());
        Self {
            uplinks,
            local_ports: local.map(|ports| short([ports])),
            kept_sources: KeptSources::of_policies(policies),
        }
    }

    /// The facts of the host that are not those of the table.
    #[must_use]
    pub fn changed(&self, host: &HostFacts) -> Vec<ChangedFact> {
        let kept_now = self.kept_sources.map_or(0, |kept| kept.scope.checksum(host));
        let found = [
            (self.uplinks, short(&host.uplinks), ChangedFact::Uplinks),
            (self.local_ports, short(host.own_ports()), ChangedFact::LocalPorts),
            (self.kept_sources.map(|kept| kept.checksum), kept_now, ChangedFact::KeptSources),
        ];
        let is_changed = |then: Option<u32>, now| then.is_some_and(|then| then != now);
        let changed = found.into_iter().filter(|(then, now, _)| is_changed(*then, *now));
        changed.map(|(.., fact)| fact).collect()
    }

    /// Whether the table depends on the uplinks.
    #[must_use]
    pub fn has_uplinks(&self) -> bool {
        self.uplinks.is_some()
    }

    fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut facts = Self::default();
        while let Some(name) = words.next() {
            let checksum = u32::from_str_radix(words.next()?, 16).ok()?;
            match name {
                "uplinks" => facts.uplinks = Some(checksum),
                "local-ports" => facts.local_ports = Some(checksum),
                _ => {
                    let scope = Hull::parse(name.strip_prefix("kept-sources")?)?;
                    facts.kept_sources = Some(KeptSources { scope, checksum });
                }
            }
        }
        Some(facts)
    }
}

/// Each with a space before it.
impl fmt::Display for FactChecksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, checksum) in [("uplinks", self.uplinks), ("local-ports", self.local_ports)] {
            checksum.map_or(Ok(()), |checksum| write!(f, " {name} {checksum:08x}"))?;
        }
        self.kept_sources.map_or(Ok(()), |KeptSources { scope, checksum }| {
            write!(f, " kept-sources{scope} {checksum:08x}")
        })
    }
}

impl KeptSources {
    /// `None` if no policy keeps addresses of this host.
    fn of_policies(policies: &[ResolvedPolicy]) -> Option<Self> {
        let keeps = |policy: &&ResolvedPolicy| {
            let is_local = policy.origin != Origin::Forwarded && policy.in_interfaces.is_empty();
            policy.address == Address::Auto && is_local
        };
        let mut keeping = policies.iter().filter(keeps).peekable();
        let kept = &keeping.peek()?.kept_sources;
        let scope = keeping.fold(Hull::default(), Hull::including);
        let in_scope = kept.iter().filter(|address| scope.contains(**address));
        Some(Self { scope, checksum: short(in_scope) })
    }
}

impl Hull {
    const ALL: Self = Self {
        ipv4: Some(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        ipv6: Some(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    };
    const MAX_IPV4_LEN: u8 = 16;
    const MAX_IPV6_LEN: u8 = 32;

    /// The hull of these and of a policy's sources.
    fn including(mut self, policy: &ResolvedPolicy) -> Self {
        let all = [Ipv4Net::default().into(), Ipv6Net::default().into()];
        let sources = if policy.sources.is_empty() { &all } else { policy.sources.as_slice() };
        let is_in_scope =
            |net: &&IpNet| policy.families.iter().any(|family| family == Family::of_network(**net));
        sources.iter().filter(is_in_scope).for_each(|net| self.add(*net));
        self
    }

    fn add(&mut self, net: IpNet) {
        match net {
            IpNet::V4(net) => {
                let mut hull = self.ipv4.unwrap_or(net);
                while !hull.contains(&net) || hull.prefix_len() > Self::MAX_IPV4_LEN {
                    hull = hull.supernet().unwrap_or_default();
                }
                self.ipv4 = Some(hull);
            }
            IpNet::V6(net) => {
                let mut hull = self.ipv6.unwrap_or(net);
                while !hull.contains(&net) || hull.prefix_len() > Self::MAX_IPV6_LEN {
                    hull = hull.supernet().unwrap_or_default();
                }
                self.ipv6 = Some(hull);
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|net| net.contains(&address)),
            IpAddr::V6(address) => self.ipv6.is_some_and(|net| net.contains(&address)),
        }
    }

    /// The checksum of the addresses of the host in this hull that are kept.
    fn checksum(&self, host: &HostFacts) -> u32 {
        short(host.kept_sources.iter().filter(|address| self.contains(**address)))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::ALL);
        }
        let mut hull = Self::default();
        for net in text.strip_prefix('@')?.split('@').filter(|net| !net.is_empty()) {
            hull.add(net.parse().ok()?);
        }
        Some(hull)
    }
}

/// Nothing for all addresses, else each network after an `@`.
impl fmt::Display for Hull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return Ok(());
        }
        if let (None, None) = (self.ipv4, self.ipv6) {
            return f.write_str("@");
        }
        self.ipv4.map_or(Ok(()), |net| write!(f, "@{net}"))?;
        self.ipv6.map_or(Ok(()), |net| write!(f, "@{net}"))
    }
}

/// The lower half of the checksum of these values as text.
fn short<T: ToString>(values: impl IntoIterator<Item = T>) -> u32 {
    let add = |checksum: Checksum, value: T| checksum.and(value.to_string().as_bytes()).and(&[0]);
    let Checksum(all) = values.into_iter().fold(Checksum::EMPTY, add);
    u32::try_from(all & u64::from(u32::MAX)).unwrap_or_default()
}

/// The fingerprint in the comment of a rule: it does not describe what the rule does.
pub(crate) fn fingerprint_of(rule: &Rule) -> Option<Fingerprint> {
    Fingerprint::parse(rule.comment()?.as_str())
}

/// A 64-bit FNV-1a hash (draft-eastlake-fnv): short enough for a comment, and the same in every
/// build, which the standard library's hashers do not promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum(pub u64);

impl Checksum {
    /// The checksum of no bytes.
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// The checksum of all bytes before and these.
    #[must_use]
    fn and(self, bytes: &[u8]) -> Self {
        const PRIME: u64 = 0x0100_0000_01b3;
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        Self(bytes.iter().fold(self.0, mix))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_fnv_1a() {
        // From the test vectors of draft-eastlake-fnv.
        assert_eq!(Checksum::EMPTY.and(b"").0, 0xcbf2_9ce4_8422_2325);
        assert_eq!(Checksum::EMPTY.and(b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Checksum::EMPTY.and(b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn only_own_fingerprints_are_parsed() {
        let checksum = Checksum(0xab);
        let facts = FactChecksums::default();
        let fingerprint = Fingerprint { version: "0.1.0".into(), checksum, facts };
        assert_eq!(fingerprint.to_string(), "ephport-nft 0.1.0 00000000000000ab");
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint.clone()));
        for scope in ["", "@", "@10.0.0.0/8", "@fd00::/8", "@255.255.0.0/16@ffff:ffff::/32"] {
            let kept = KeptSources { scope: Hull::parse(scope).unwrap(), checksum: 0xffff_ffff };
            let facts =
                FactChecksums { uplinks: Some(1), local_ports: Some(2), kept_sources: Some(kept) };
            let bound = Fingerprint { facts, ..fingerprint.clone() };
            assert!(bound.to_string().contains(&format!("kept-sources{scope} ")), "{bound}");
            assert_eq!(Fingerprint::parse(&bound.to_string()), Some(bound.clone()));
            assert!(bound.to_string().len() <= 127, "the longest comment that nft prints");
        }
        for foreign in [
            "",
            "ephport-nft",
            "my own table",
            "ephport-nft 0.1.0 xyz",
            "ephport-nft 0.1.0 ab more",
            "ephport-nft 0.1.0 ab more 12",
            "ephport-nft 0.1.0 ab uplinks x",
            "ephport-nft 0.1.0 ab kept-sources10.0.0.0/8 1",
            "ephport-nft 0.1.0 ab kept-sources@x 1",
        ] {
            assert_eq!(Fingerprint::parse(foreign), None, "{foreign}");
        }
    }

    /// Only addresses that a policy can keep make a table outdated.
    #[test]
    fn kept_sources_out_of_scope_change_nothing() {
        let host = |kept: &[&str]| {
            let kept_sources = kept.iter().map(|address| address.parse().unwrap()).collect();
            let mut host = HostFacts::default();
            host.kept_sources = kept_sources;
            host
        };
        let then = host(&["10.9.9.9", "2001:db8::9"]);
        let more_v4 = host(&["10.9.9.9", "198.51.100.9", "2001:db8::9"]);
        let more_v6 = host(&["10.9.9.9", "2001:db8::9", "2001:db8::a"]);
        for (policy, v4, v6) in [
            ("", true, true),
            ("families = [\"ipv4\"]", true, false),
            ("sources = [\"10.1.0.0/16\", \"10.9.0.0/16\"]", false, false),
            ("sources = [\"198.51.100.0/24\"]", true, false),
            ("sources = [\"2001:db8::/64\"]", false, true),
            ("origin = \"forwarded\"", false, false),
            ("in-interfaces = [\"br0\"]", false, false),
            ("address = \"keep\"", false, false),
        ] {
            let text = format!(
                "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\nto-ports = \"49152-61000\"\n{policy}\n"
            );
            let document: ephport_core::Document = text.parse().unwrap();
            let facts = FactChecksums::of_policies(&document.resolve(&then).unwrap());
            let is_changed = |host| facts.changed(host) == [ChangedFact::KeptSources];
            assert!(facts.changed(&then).is_empty(), "{policy}");
            assert_eq!((is_changed(&more_v4), is_changed(&more_v6)), (v4, v6), "{policy}");
        }
    }
}
