//! Whose a table is, and whether it still is what was applied.
//!
//! The table's comment names its owner. The comment of the first rule holds our version and a digest
//! of all the rest: a rule can be replaced alone, a table's comment only with the table.

use std::fmt;

use super::Ruleset;
use crate::compile::POSTROUTING;
use crate::object::{Comment, Rule, Table};
use crate::wire::{WireError, Writer};

/// The name in the comment of each table and signature of ours.
const TOOL: &str = "ephport-nft";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the table's comment names us.
pub(crate) fn is_ours(table: &Table) -> bool {
    table.comment().is_some_and(|comment| comment.as_str() == TOOL)
}

impl Ruleset {
    /// The signature in the comment of the first rule.
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        Signature::parse(self.rules_of(POSTROUTING).next()?.comment()?.as_str())
    }

    /// The same ruleset, signed.
    ///
    /// # Errors
    /// When a rule or set is too long for netlink.
    pub fn signed(mut self) -> Result<Self, WireError> {
        let signature = Signature { version: VERSION.into(), digest: self.digest()? };
        self.table.userdata = Some(Comment::new(TOOL).to_userdata());
        if let Some(first) = self.signed_rule() {
            first.userdata = Some(Comment::new(&signature.to_string()).to_userdata());
        }
        Ok(self)
    }

    /// A digest of the table's flags, the chains, sets and rules as they were asked for, to tell whether they were
    /// changed. It guards against accidents, not against somebody who changes both.
    ///
    /// # Errors
    /// When a rule or set is too long for netlink.
    pub fn digest(&self) -> Result<Digest, WireError> {
        let mut essence = self.essence();
        if let Some(first) = essence.signed_rule() {
            first.userdata = None;
        }
        let mut w = Writer::new();
        // A dormant table is as good as none.
        essence.table.flags.iter().for_each(|flags| w.u32_be(4, *flags));
        essence.chains.iter().for_each(|chain| w.nested(0, |w| chain.write(w)));
        essence.rules.iter().for_each(|rule| w.nested(1, |w| rule.write(w)));
        for filled in &essence.sets {
            w.nested(2, |w| filled.set.write(w));
            filled.portions().iter().for_each(|portion| w.nested(3, |w| portion.write(w)));
        }
        w.finish().map(|bytes| Digest::of(&bytes))
    }

    fn signed_rule(&mut self) -> Option<&mut Rule> {
        self.rules.iter_mut().find(|rule| rule.chain == POSTROUTING)
    }
}

/// What a table was when it was written, and by which version of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The version of ephport-nft.
    pub version: String,
    /// Of the chains, sets and rules.
    pub digest: Digest,
}

impl Signature {
    pub(crate) fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.split(' ');
        let (tool, version, digest) = (words.next()?, words.next()?, words.next()?);
        let digest = u64::from_str_radix(digest, 16).ok().map(Digest)?;
        (tool == TOOL && words.next().is_none()).then(|| Self { version: version.into(), digest })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOOL} {} {}", self.version, self.digest)
    }
}

/// A 64-bit FNV-1a hash (draft-eastlake-fnv): short enough for a comment, and the same in every
/// build, which the standard library's hashers do not promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub u64);

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        Self(bytes.iter().fold(OFFSET_BASIS, mix))
    }
}

impl fmt::Display for Digest {
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
        assert_eq!(Digest::of(b"").0, 0xcbf2_9ce4_8422_2325);
        assert_eq!(Digest::of(b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Digest::of(b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn only_our_own_signature_is_read() {
        let signature = Signature { version: "0.1.0".into(), digest: Digest(0xab) };
        assert_eq!(signature.to_string(), "ephport-nft 0.1.0 00000000000000ab");
        assert_eq!(Signature::parse(&signature.to_string()), Some(signature));
        for foreign in [
            "",
            "ephport-nft",
            "my own table",
            "ephport-nft 0.1.0 xyz",
            "ephport-nft 0.1.0 ab more",
        ] {
            assert_eq!(Signature::parse(foreign), None, "{foreign}");
        }
    }
}
