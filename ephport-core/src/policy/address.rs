//! The source address after translation.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::word::WordError;

/// What happens to the source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Address {
    /// A source that is valid outside stays, the rest is masqueraded. Valid outside are: an address of the
    /// output interface; an address of a loopback or dummy interface of this host, and a global one of
    /// another interface without a default route; a forwarded source outside
    /// [`PRIVATE_NETWORKS`](crate::decision::PRIVATE_NETWORKS). With MAP-E ports no other address than the
    /// customer's is valid outside: every source is masqueraded.
    #[default]
    Auto,
    /// It becomes an address of the output interface: in IPv4 the primary one, in IPv6 the one that
    /// source address selection finds (RFC 6724).
    Masquerade,
    /// It stays.
    Keep,
    /// It becomes this one; only connections of its family are in scope.
    Fixed(IpAddr),
}

impl FromStr for Address {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        const EXPECTED: &str = "auto, masquerade, keep or an address like 192.0.2.1";
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "masquerade" => Ok(Self::Masquerade),
            "keep" => Ok(Self::Keep),
            _ => text.parse().map(Self::Fixed).map_err(|_| WordError { expected: EXPECTED }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Keep => f.write_str("keep"),
            Self::Fixed(address) => address.fmt(f),
        }
    }
}
