//! The owner of a table, and its fingerprint.
//!
//! The comment of the table names the owner. The comment of the first rule is the fingerprint: the version
//! of ephport-nft and a checksum of the table. A rule can be replaced without the others, the comment of a
//! table only with the table.

use std::fmt;

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
        self.signed_by(OWNER)
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
        self.signed_by(id.owner())
    }

    fn signed_by(mut self, owner: &str) -> Result<Self, CodecError> {
        self.table.userdata = Some(Comment::new(owner).to_userdata());
        let fingerprint = Fingerprint { version: VERSION.into(), checksum: self.checksum()? };
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
pub struct Fingerprint {
    /// The version of ephport-nft.
    pub version: String,
    /// The checksum of the table.
    pub checksum: Checksum,
}

impl Fingerprint {
    pub(crate) fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.split(' ');
        let (tool, version, checksum) = (words.next()?, words.next()?, words.next()?);
        let checksum = u64::from_str_radix(checksum, 16).ok().map(Checksum)?;
        (tool == OWNER && words.next().is_none())
            .then(|| Self { version: version.into(), checksum })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OWNER} {} {}", self.version, self.checksum)
    }
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
        let fingerprint = Fingerprint { version: "0.1.0".into(), checksum: Checksum(0xab) };
        assert_eq!(fingerprint.to_string(), "ephport-nft 0.1.0 00000000000000ab");
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        for foreign in [
            "",
            "ephport-nft",
            "my own table",
            "ephport-nft 0.1.0 xyz",
            "ephport-nft 0.1.0 ab more",
        ] {
            assert_eq!(Fingerprint::parse(foreign), None, "{foreign}");
        }
    }
}
