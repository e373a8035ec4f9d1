//! Whose a table is, and whether it still is what was applied.
//!
//! The table's comment names its owner. The comment of the first rule holds our version and a checksum
//! of all the rest: a rule can be replaced alone, a table's comment only with the table.

use std::fmt;

use super::TableState;
use super::layout::{OWNER, POSTROUTING, TableId};
use crate::netlink::{CodecError, Writer};
use crate::nftables::{Comment, Rule};

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl TableState {
    /// The fingerprint in the comment of the first rule.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::parse(self.rules_of(POSTROUTING).next()?.comment()?.as_str())
    }

    /// The same ruleset, signed.
    ///
    /// # Errors
    /// When a rule or set is too long for netlink.
    pub fn signed(self) -> Result<Self, CodecError> {
        self.signed_by(OWNER)
    }

    /// The same state in another table, with its own name, owner and priority of the NAT chain.
    ///
    /// # Errors
    /// When a rule or set is too long for netlink.
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
        let fingerprint = Fingerprint { version: VERSION.into(), checksum: self.checksum()? };
        self.table.userdata = Some(Comment::new(owner).to_userdata());
        if let Some(first) = self.signed_rule() {
            first.userdata = Some(Comment::new(&fingerprint.to_string()).to_userdata());
        }
        Ok(self)
    }

    /// A checksum of the table's flags, the chains, sets and rules as they were asked for, to tell whether they were
    /// changed. It guards against accidents, not against somebody who changes both.
    ///
    /// # Errors
    /// When a rule or set is too long for netlink.
    pub fn checksum(&self) -> Result<Checksum, CodecError> {
        let mut essence = self.normalized();
        if let Some(first) = essence.signed_rule() {
            first.userdata = None;
        }
        let mut w = Writer::new();
        // A dormant table is as good as none.
        essence.table.flags.iter().for_each(|flags| w.u32_be(4, *flags));
        essence.chains.iter().for_each(|chain| w.nested(0, |w| chain.encode(w)));
        essence.rules.iter().for_each(|rule| w.nested(1, |w| rule.encode(w)));
        for filled in &essence.sets {
            w.nested(2, |w| filled.spec.encode(w));
            filled.chunks().iter().for_each(|chunk| w.nested(3, |w| chunk.encode(w)));
        }
        for object in &essence.unknown {
            w.nested(5, |w| w.bytes(object.message, &object.name));
        }
        w.finish().map(|bytes| Checksum::of(&bytes))
    }

    /// Remove the fingerprint.
    #[doc(hidden)]
    pub fn unsign(&mut self) {
        if let Some(first) = self.signed_rule() {
            first.userdata = None;
        }
    }

    fn signed_rule(&mut self) -> Option<&mut Rule> {
        self.rules.iter_mut().find(|rule| rule.chain == POSTROUTING)
    }
}

/// What a table was when it was written, and by which version of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The version of ephport-nft.
    pub version: String,
    /// Of the chains, sets and rules.
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

/// A 64-bit FNV-1a hash (draft-eastlake-fnv): short enough for a comment, and the same in every
/// build, which the standard library's hashers do not promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum(pub u64);

impl Checksum {
    fn of(bytes: &[u8]) -> Self {
        const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        Self(bytes.iter().fold(OFFSET_BASIS, mix))
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
    fn the_digest_is_fnv_1a() {
        // From the test vectors of draft-eastlake-fnv.
        assert_eq!(Checksum::of(b"").0, 0xcbf2_9ce4_8422_2325);
        assert_eq!(Checksum::of(b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Checksum::of(b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn only_our_own_signature_is_read() {
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
