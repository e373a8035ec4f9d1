//! Registers, and the values and verdicts in them (`NFTA_DATA_*`).

use std::fmt;

use crate::netlink::{Attr, CodecError, Writer};
use crate::nftables::bytes::Bytes;
use crate::nftables::schema::{Attribute, Inside, attributes, required, schema, set};
use crate::uapi::{
    NF_ACCEPT, NF_DROP, NFT_BREAK, NFT_CONTINUE, NFT_GOTO, NFT_JUMP, NFT_REG_1, NFT_REG_2,
    NFT_REG_3, NFT_REG_VERDICT, NFT_RETURN, NFTA_DATA_VALUE, NFTA_DATA_VERDICT,
};

/// A register number (`enum nft_registers`): 0 is the verdict, 1 to 4 are 16 bytes wide, 8 to 23 are the
/// same room in units of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u32);

impl Register {
    /// The verdict.
    pub const VERDICT: Self = Self(NFT_REG_VERDICT);
    /// The first data register.
    pub const R1: Self = Self(NFT_REG_1);
    /// The second data register.
    pub const R2: Self = Self(NFT_REG_2);
    /// The third data register.
    pub const R3: Self = Self(NFT_REG_3);

    /// The length of a slot, in bytes (`NFT_REG32_SIZE`).
    pub const SLOT_LEN: usize = 4;
    /// The number of slots of all data registers.
    pub const SLOTS: usize = 16;

    /// The slot in which the register begins, from 0; `None` for the verdict and for numbers that no
    /// register has (`nft_parse_register`).
    #[must_use]
    pub fn slot(self) -> Option<usize> {
        let number = usize::try_from(self.0).ok()?;
        match number {
            1..=4 => Some((number - 1) * 4),
            8..=23 => Some(number - 8),
            _ => None,
        }
    }
}

impl Attribute for Register {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.u32_be(attribute_type, self.0);
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.u32_be().map(Self)
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reg {}", self.0)
    }
}

/// The content of a register, as a constant of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Bytes, in the order of the packet.
    Value(Bytes),
    /// A verdict.
    Verdict(Box<Verdict>),
}

required!(Register, Data, Box<Data>);

impl Data {
    /// These bytes.
    #[must_use]
    pub fn value(bytes: &[u8]) -> Self {
        Self::Value(bytes.into())
    }

    /// This verdict.
    #[must_use]
    pub fn verdict(verdict: Verdict) -> Self {
        Self::Verdict(Box::new(verdict))
    }

    /// The bytes, if it is not a verdict.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Value(bytes) => Some(bytes),
            Self::Verdict(_) => None,
        }
    }
}

impl Attribute for Data {
    const INSIDE: Inside = Inside::Attributes(schema![
        NFTA_DATA_VALUE: Inside::Value,
        NFTA_DATA_VERDICT: VerdictAttributes::INSIDE,
    ]);

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.nested(attribute_type, |w| match self {
            Self::Value(bytes) => w.bytes(NFTA_DATA_VALUE, bytes),
            Self::Verdict(verdict) => verdict.attributes().encode(w, NFTA_DATA_VERDICT),
        });
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        const OBJECT: &str = "data";
        let (mut value, mut verdict): (Option<Bytes>, Option<VerdictAttributes>) = (None, None);
        for attr in attr.nested() {
            let attr = attr?;
            match attr.attribute_type {
                NFTA_DATA_VALUE => set(&mut value, attr, OBJECT)?,
                NFTA_DATA_VERDICT => set(&mut verdict, attr, OBJECT)?,
                attribute => return Err(CodecError::Unknown { object: OBJECT, attribute }),
            }
        }
        match (value, verdict) {
            (Some(value), None) => Ok(Self::Value(value)),
            (None, Some(verdict)) => verdict.try_into().map(Self::verdict),
            (None, None) => {
                Err(CodecError::Missing { object: OBJECT, attribute: attr.attribute_type })
            }
            (Some(_), Some(_)) => {
                Err(CodecError::Twice { object: OBJECT, attribute: attr.attribute_type })
            }
        }
    }
}

/// The next step after a rule (`enum nft_verdicts` and `NF_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet continues; the base chain ends.
    Accept,
    /// The packet is dropped.
    Drop,
    /// The next expression.
    Continue,
    /// The next rule, as if an expression had not matched.
    Break,
    /// The calling chain, or the base chain's policy.
    Return,
    /// This chain, then the next rule.
    Jump(String),
    /// This chain, then the calling chain.
    Goto(String),
    /// A verdict with another number.
    Other(u32),
}

attributes! {
    VerdictAttributes("verdict") {
        code: u32 = NFTA_VERDICT_CODE,
        chain: Option<String> = NFTA_VERDICT_CHAIN,
    }
}

impl Verdict {
    fn attributes(&self) -> VerdictAttributes {
        let (code, chain) = match self {
            Self::Accept => (NF_ACCEPT, None),
            Self::Drop => (NF_DROP, None),
            Self::Continue => (NFT_CONTINUE.cast_unsigned(), None),
            Self::Break => (NFT_BREAK.cast_unsigned(), None),
            Self::Return => (NFT_RETURN.cast_unsigned(), None),
            Self::Jump(chain) => (NFT_JUMP.cast_unsigned(), Some(chain.clone())),
            Self::Goto(chain) => (NFT_GOTO.cast_unsigned(), Some(chain.clone())),
            Self::Other(code) => (*code, None),
        };
        VerdictAttributes { code, chain }
    }
}

impl TryFrom<VerdictAttributes> for Verdict {
    type Error = CodecError;

    fn try_from(VerdictAttributes { code, chain }: VerdictAttributes) -> Result<Self, CodecError> {
        Ok(match (code, code.cast_signed(), chain) {
            (_, NFT_JUMP, Some(chain)) => Self::Jump(chain),
            (_, NFT_GOTO, Some(chain)) => Self::Goto(chain),
            (_, _, Some(_)) | (_, NFT_JUMP | NFT_GOTO, None) => {
                return Err(CodecError::Value { what: "verdict", value: code });
            }
            (NF_ACCEPT, ..) => Self::Accept,
            (NF_DROP, ..) => Self::Drop,
            (_, NFT_CONTINUE, _) => Self::Continue,
            (_, NFT_BREAK, _) => Self::Break,
            (_, NFT_RETURN, _) => Self::Return,
            (code, ..) => Self::Other(code),
        })
    }
}

/// As nft writes it.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Break => f.write_str("break"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Other(code) => write!(f, "verdict {code:#x}"),
        }
    }
}

/// As `nft --debug=netlink` prints it: bytes as 32-bit words in the order of this machine, the last one
/// filled with zeros.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self {
            Self::Value(bytes) => return f.write_str(&register_words(bytes)),
            Self::Verdict(verdict) => &**verdict,
        };
        match verdict {
            Verdict::Jump(chain) => write!(f, "jump -> {chain}"),
            Verdict::Goto(chain) => write!(f, "goto -> {chain}"),
            verdict => verdict.fmt(f),
        }
    }
}

pub(crate) fn register_words(bytes: &[u8]) -> String {
    let word = |chunk: &[u8]| {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        format!("{:#010x}", u32::from_ne_bytes(word))
    };
    bytes.chunks(4).map(word).collect::<Vec<_>>().join(" ")
}
