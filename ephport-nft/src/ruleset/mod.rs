//! One table with all that is in it, as a value: what a policy compiles to, and what the kernel
//! says it has.

mod bytecode;
mod essence;
mod filled_set;
mod listing;
mod sets;

pub use bytecode::Bytecode;
pub use filled_set::FilledSet;
pub use listing::Listing;
pub use sets::SetName;
pub(crate) use sets::merged_networks;

use std::fmt;

use crate::object::{Chain, Comment, Rule, Table};
use crate::uapi::NFPROTO_INET;
use crate::wire::{WireError, Writer};

/// The table that holds all of ephport's rules. Nothing outside it is ever changed.
pub const TABLE: &str = "ephport";

/// That table's family: IPv4 and IPv6 together.
pub const FAMILY: u8 = NFPROTO_INET;

/// A table with its chains, sets and rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The table.
    pub table: Table,
    /// Its chains, in the order of their creation.
    pub chains: Vec<Chain>,
    /// Its sets, with their elements.
    pub sets: Vec<FilledSet>,
    /// Its rules, chain by chain, each in order.
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// The rules of one chain.
    pub fn rules_of(&self, chain: &str) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }

    /// The set of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&FilledSet> {
        self.sets.iter().find(|filled| filled.set.name == name)
    }

    /// A digest of the chains, sets and rules as they were asked for, to tell whether they were changed.
    /// It guards against accidents, not against somebody who changes both.
    ///
    /// # Errors
    /// When a rule or set is too long for netlink.
    pub fn digest(&self) -> Result<Digest, WireError> {
        let essence = self.essence();
        let mut w = Writer::new();
        essence.chains.iter().for_each(|chain| w.nested(0, |w| chain.write(w)));
        essence.rules.iter().for_each(|rule| w.nested(1, |w| rule.write(w)));
        for filled in &essence.sets {
            w.nested(2, |w| filled.set.write(w));
            filled.portions().iter().for_each(|portion| w.nested(3, |w| portion.write(w)));
        }
        w.finish().map(|bytes| Digest::of(&bytes))
    }

    /// The same ruleset, signed in its table's comment with our name, version and the digest.
    ///
    /// # Errors
    /// As [`Ruleset::digest`].
    pub fn signed(mut self) -> Result<Self, WireError> {
        let signature = Signature { version: VERSION.into(), digest: self.digest()? };
        self.table.userdata = Some(Comment::new(&signature.to_string()).to_userdata());
        Ok(self)
    }

    /// The signature in the table's comment, if ephport wrote it.
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        Signature::parse(self.table.comment()?.as_str())
    }

    /// As text that `nft -f` loads.
    #[must_use]
    pub fn listing(&self) -> Listing<'_> {
        Listing(self)
    }

    /// As the instructions that `nft --debug=netlink` prints.
    #[must_use]
    pub fn bytecode(&self) -> Bytecode<'_> {
        Bytecode(self)
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who wrote a table, and what the table was when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The version of ephport-nft.
    pub version: String,
    /// Of the chains, sets and rules.
    pub digest: Digest,
}

impl Signature {
    const TOOL: &'static str = "ephport-nft";

    fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.split(' ');
        let (tool, version, digest) = (words.next()?, words.next()?, words.next()?);
        let digest = u64::from_str_radix(digest, 16).ok().map(Digest)?;
        (tool == Self::TOOL && words.next().is_none())
            .then(|| Self { version: version.into(), digest })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", Self::TOOL, self.version, self.digest)
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
