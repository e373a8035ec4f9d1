//! The ports of one customer among those who share an IPv4 address: the port-mapping algorithm of
//! RFC 7597 §5.1, which MAP-E, MAP-T and Lightweight 4over6 have in common.
//!
//! The 16 bits of a port are cut in three. The customer has every port with its PSID in the middle:
//!
//! ```text
//! |  A: a bits (offset)  |  PSID: k bits (psid-len)  |  m bits  |
//! ```
//!
//! When there are offset bits, ports whose offset bits are all 0 are excluded: with the
//! default, 6, the system ports 0-1023; with 4, the ports 0-4095.
//!
//! ```
//! use ephport_core::PsidRule;
//!
//! let ports = PsidRule::new(6, 8, 0x34)?.ports();
//! assert_eq!((ports.ranges().len(), ports.count()), (63, 252));
//! assert!(ports.to_string().starts_with("1232-1235,2256-2259,"));
//! # Ok::<(), ephport_core::PsidError>(())
//! ```

use std::fmt;

use thiserror::Error;

use crate::allocation::range;
use crate::net::port_set::PortSet;

/// The bits of a port.
const PORT_BITS: u8 = 16;

/// A Port Set Identifier, and its position in a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PsidRule {
    offset: u8,
    len: u8,
    psid: u16,
}

impl PsidRule {
    /// The default offset: it excludes the system ports 0-1023.
    pub const DEFAULT_OFFSET: u8 = 6;
    /// The largest offset.
    pub const MAX_OFFSET: u8 = PORT_BITS - 1;
    /// The longest PSID.
    pub const MAX_LEN: u8 = PORT_BITS;

    /// The port set `psid` of those with `offset` (RFC 7597's a, 0 to 15) bits before, and `len`
    /// (k, 0 to 16) bits for the PSID. All customers of one address have the same two.
    pub fn new(offset: u8, len: u8, psid: u16) -> Result<Self, PsidError> {
        Self::check_bits(offset, len)?;
        if u32::from(psid) >= 1 << len {
            return Err(PsidError::TooLarge { psid, len });
        }
        if len == PORT_BITS && psid == 0 {
            return Err(PsidError::OnlyPortZero);
        }
        Ok(Self { offset, len, psid })
    }

    /// Whether offset and PSID fit in a port together.
    pub(super) fn check_bits(offset: u8, len: u8) -> Result<(), PsidError> {
        if offset > Self::MAX_OFFSET {
            return Err(PsidError::Offset { offset });
        }
        if len > PORT_BITS - offset {
            return Err(PsidError::TooManyBits { offset, len });
        }
        Ok(())
    }

    /// The number of bits before the PSID, 0 to 15: RFC 7597's a.
    #[must_use]
    pub const fn offset(self) -> u8 {
        self.offset
    }

    /// How many bits the PSID has, 0 to 16: RFC 7597's k. 2^k customers share the address.
    #[must_use]
    pub const fn psid_len(self) -> u8 {
        self.len
    }

    /// The Port Set Identifier, below 2^k.
    #[must_use]
    pub const fn psid(self) -> u16 {
        self.psid
    }

    /// The customer's ports, never none: 2^a - 1 ranges of 2^m ports, or one range when a is 0.
    #[must_use]
    pub fn ports(self) -> PortSet {
        let after_psid = PORT_BITS - self.offset - self.len;
        let first_of_offset = u32::from(self.offset > 0);
        let range_of = |offset_bits: u32| {
            let first =
                offset_bits << (PORT_BITS - self.offset) | u32::from(self.psid) << after_psid;
            range(first.max(1), first + ((1 << after_psid) - 1))
        };
        (first_of_offset..1 << self.offset).filter_map(range_of).collect()
    }
}

/// `psid=52,psid-len=8,offset=6`.
impl fmt::Display for PsidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "psid={},psid-len={},offset={}", self.psid, self.len, self.offset)
    }
}

/// Why numbers do not name a port set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PsidError {
    /// No bit would be left for the PSID.
    #[error("offset {offset} is too large: expected 0 to 15")]
    Offset {
        /// The offset.
        offset: u8,
    },
    /// Offset and PSID do not fit in a port.
    #[error(
        "offset {offset} and psid-len {len} make {} bits: a port has 16, \
         so psid-len is at most {} here", u16::from(*offset) + u16::from(*len), 16 - offset
    )]
    TooManyBits {
        /// The offset.
        offset: u8,
        /// The length of the PSID.
        len: u8,
    },
    /// The PSID needs more bits than it has.
    #[error("psid {psid} does not fit in {len} bits: expected 0 to {}", (1u32 << len) - 1)]
    TooLarge {
        /// The PSID.
        psid: u16,
        /// The length that it should have.
        len: u8,
    },
    /// The customer's one port is 0.
    #[error("psid 0 of 16 bits has only port 0, which is not a port: expected 1 to 65535")]
    OnlyPortZero,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn set(offset: u8, len: u8, psid: u16) -> String {
        let ports = PsidRule::new(offset, len, psid).unwrap().ports();
        match ports.ranges() {
            [a, b, .., y, z] => format!("{} ranges: {a},{b} ... {y},{z}", ports.ranges().len()),
            _ => ports.to_string(),
        }
    }

    #[test]
    fn example_of_rfc_7597_appendix_a() {
        assert_eq!(set(6, 8, 0x34), "63 ranges: 1232-1235,2256-2259 ... 63696-63699,64720-64723");
    }

    #[test]
    fn port_sets_of_ends_and_other_offsets() {
        assert_eq!(set(6, 8, 0), "63 ranges: 1024-1027,2048-2051 ... 63488-63491,64512-64515");
        assert_eq!(set(6, 8, 255), "63 ranges: 2044-2047,3068-3071 ... 64508-64511,65532-65535");
        assert_eq!(set(4, 8, 52), "15 ranges: 4928-4943,9024-9039 ... 58176-58191,62272-62287");
        assert_eq!(set(0, 6, 0), "1-1023");
        assert_eq!(set(0, 6, 1), "1024-2047");
        assert_eq!(set(0, 0, 0), "1-65535");
        assert_eq!(set(6, 0, 0), "1024-65535");
        assert_eq!(set(0, 16, 443), "443");
        assert_eq!(set(1, 15, 0), "32768");
    }

    #[test]
    fn errors_name_the_accepted_values() {
        let cases = [(16, 0, 0), (6, 11, 0), (6, 8, 256), (6, 0, 1), (0, 16, 0)];
        let messages = cases.map(|(offset, len, psid)| {
            let error = PsidRule::new(offset, len, psid).unwrap_err();
            format!("{offset} {len} {psid} => {error}\n")
        });
        expect![[r#"
            16 0 0 => offset 16 is too large: expected 0 to 15
            6 11 0 => offset 6 and psid-len 11 make 17 bits: a port has 16, so psid-len is at most 10 here
            6 8 256 => psid 256 does not fit in 8 bits: expected 0 to 255
            6 0 1 => psid 1 does not fit in 0 bits: expected 0 to 0
            0 16 0 => psid 0 of 16 bits has only port 0, which is not a port: expected 1 to 65535
        "#]].assert_eq(&messages.concat());
    }
}
