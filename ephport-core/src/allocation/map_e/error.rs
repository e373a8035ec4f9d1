//! Why a text or numbers do not give a customer's ports.

use ipnet::{Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::allocation::psid::PsidError;

/// Every key that a text may have.
pub(super) const KEYS: [&str; 7] =
    ["psid", "psid-len", "offset", "ipv6-prefix", "ipv4-prefix", "ea-len", "delegated"];

/// Why a text or numbers do not give a customer's ports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapEError {
    /// A part without `=`.
    #[error("`{text}` is not KEY=VALUE: expected for example psid=52,psid-len=8,offset=6")]
    NotAPair {
        /// The part.
        text: Box<str>,
    },
    /// A key that is not one of MAP-E's.
    #[error("unknown key `{key}`: expected {}", KEYS.join(", "))]
    UnknownKey {
        /// The key.
        key: Box<str>,
    },
    /// A key given twice.
    #[error("`{key}` is given twice: expected once")]
    Repeated {
        /// The key.
        key: Box<str>,
    },
    /// A key that is needed.
    #[error(
        "`{key}` is missing: expected psid=52,psid-len=8,offset=6, or \
         ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,\
         delegated=2001:db8:12:3400::/56"
    )]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Not a number, or too large a number.
    #[error("{key} `{text}`: expected a number from 0 to {max}")]
    Number {
        /// The key.
        key: &'static str,
        /// Its value.
        text: Box<str>,
        /// The largest number that is accepted.
        max: Box<str>,
    },
    /// Not a prefix of the right family.
    #[error("{key} `{text}`: expected a prefix like {example}")]
    Prefix {
        /// The key.
        key: &'static str,
        /// Its value.
        text: Box<str>,
        /// An example of one.
        example: &'static str,
    },
    /// The port set does not exist.
    #[error(transparent)]
    Psid(#[from] PsidError),
    /// More EA bits than MAP-E has, or than follow the prefix.
    #[error("ea-len {ea_len} is too large: after {ipv6_prefix} expected 0 to {available}")]
    EaLen {
        /// The number of EA bits.
        ea_len: u8,
        /// The rule's IPv6 prefix.
        ipv6_prefix: Ipv6Net,
        /// The most that there may be.
        available: u8,
    },
    /// A PSID is given beside no EA bits and a prefix that is not one address.
    #[error(
        "psid is given beside ea-len {ea_len} and ipv4-prefix {ipv4_prefix}: \
         expected ea-len=0 and one address (/32), or no psid"
    )]
    PsidTwice {
        /// The number of EA bits.
        ea_len: u8,
        /// The rule's IPv4 prefix.
        ipv4_prefix: Ipv4Net,
    },
    /// The length of the PSID is not the number of EA bits after the address.
    #[error(
        "psid-len {psid_len} disagrees with ea-len {ea_len} and ipv4-prefix {ipv4_prefix}, \
         which have {derived} bits for the PSID: expected one of the two numbers to change"
    )]
    PsidLen {
        /// The length that is given.
        psid_len: u8,
        /// The number of EA bits.
        ea_len: u8,
        /// The rule's IPv4 prefix.
        ipv4_prefix: Ipv4Net,
        /// The length that follows from them.
        derived: u8,
    },
    /// The PSID is not that of the delegated prefix.
    #[error("psid {psid} disagrees with the delegated prefix, which has PSID {derived}: omit psid")]
    OtherPsid {
        /// The PSID that is given.
        psid: u16,
        /// The PSID of the prefix.
        derived: u16,
    },
    /// A PSID in the form of DHCP and OpenWrt, with bits after its length.
    #[error(
        "psid {psid} of {len} bits: a rule of OpenWrt has it in the upper bits of 16: \
         expected a multiple of {}", 1u32 << (16 - len)
    )]
    PsidBits {
        /// The PSID that is given.
        psid: u16,
        /// Its length.
        len: u8,
    },
    /// The delegated prefix is not of this rule.
    #[error("delegated prefix {delegated} is not of this rule: expected one inside {ipv6_prefix}")]
    Outside {
        /// The delegated prefix.
        delegated: Ipv6Net,
        /// The rule's IPv6 prefix.
        ipv6_prefix: Ipv6Net,
    },
    /// The delegated prefix does not contain all the EA bits.
    #[error("delegated prefix {delegated} ends among the EA bits: expected /{expected} or longer")]
    TooShort {
        /// The delegated prefix.
        delegated: Ipv6Net,
        /// The shortest length.
        expected: u8,
    },
}
