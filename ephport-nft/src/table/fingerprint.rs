//! The owner of a table, and its fingerprint.
//!
//! The comment of the table names the owner. The comment of the first rule is the fingerprint: the version
//! of ephport-nft, a checksum of the table, and one of each fact of the host that the table depends on. A rule
//! can be replaced without the others, the comment of a table only with the table.

use std::fmt;

use ephport_core::{Address, HostFacts, Interfaces, OutInterfaces, ResolvedPolicy};

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
        let view = self.normalized();
        view.encodings().try_fold(Checksum::EMPTY, |checksum, w| {
            let bytes = w.finish()?;
            Ok(checksum.and(&bytes.len().to_be_bytes()).and(&bytes))
        })
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
    kept_sources: Option<u32>,
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
        let kept = policies.iter().find(|policy| policy.address == Address::Auto);
        Self {
            uplinks,
            local_ports: local.map(|ports| short([ports])),
            kept_sources: kept.map(|policy| short(&policy.kept_sources)),
        }
    }

    /// The facts of the host that are not those of the table.
    #[must_use]
    pub fn changed(&self, host: &HostFacts) -> Vec<ChangedFact> {
        let found = [
            (self.uplinks, short(&host.uplinks), ChangedFact::Uplinks),
            (self.local_ports, short(host.own_ports()), ChangedFact::LocalPorts),
            (self.kept_sources, short(&host.kept_sources), ChangedFact::KeptSources),
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
            let checksum = u32::from_str_radix(words.next()?, 16).ok();
            let fact = match name {
                "uplinks" => &mut facts.uplinks,
                "local-ports" => &mut facts.local_ports,
                "kept-sources" => &mut facts.kept_sources,
                _ => return None,
            };
            *fact = Some(checksum?);
        }
        Some(facts)
    }
}

/// Each with a space before it.
impl fmt::Display for FactChecksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = [
            ("uplinks", self.uplinks),
            ("local-ports", self.local_ports),
            ("kept-sources", self.kept_sources),
        ];
        for (name, checksum) in facts {
            checksum.map_or(Ok(()), |checksum| write!(f, " {name} {checksum:08x}"))?;
        }
        Ok(())
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
        let facts = FactChecksums {
            uplinks: Some(1),
            local_ports: Some(2),
            kept_sources: Some(0xffff_ffff),
        };
        let bound = Fingerprint { facts, ..fingerprint };
        assert_eq!(Fingerprint::parse(&bound.to_string()), Some(bound.clone()));
        assert!(bound.to_string().len() <= 127, "the longest comment that nft prints");
        for foreign in [
            "",
            "ephport-nft",
            "my own table",
            "ephport-nft 0.1.0 xyz",
            "ephport-nft 0.1.0 ab more",
            "ephport-nft 0.1.0 ab more 12",
            "ephport-nft 0.1.0 ab uplinks x",
        ] {
            assert_eq!(Fingerprint::parse(foreign), None, "{foreign}");
        }
    }
}
