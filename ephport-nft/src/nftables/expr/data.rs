//! Values and verdicts: the nested attribute `NFTA_DATA_*`.

use std::fmt;

use super::words;
use crate::netlink::{Attr, CodecError, Writer};
use crate::nftables::schema::{Field, Names, attributes, names, set};
use crate::uapi::{
    NF_ACCEPT, NF_DROP, NFT_BREAK, NFT_CONTINUE, NFT_GOTO, NFT_JUMP, NFT_RETURN, NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
};

/// A register's content given in the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Bytes, in the order of the packet.
    Value(Vec<u8>),
    /// What to do next.
    Verdict(Verdict),
}

impl Data {
    /// These bytes.
    #[must_use]
    pub fn value(bytes: &[u8]) -> Self {
        Self::Value(bytes.to_vec())
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

impl Field for Data {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.nested(kind, |w| match self {
            Self::Value(bytes) => w.bytes(NFTA_DATA_VALUE, bytes),
            Self::Verdict(verdict) => w.nested(NFTA_DATA_VERDICT, |w| verdict.to_wire().write(w)),
        });
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        const OBJECT: &str = "data";
        let mut data = None;
        for attr in attr.nested() {
            set(&mut data, attr?, OBJECT)?;
        }
        let Inner(data) = data.ok_or(CodecError::Missing { object: OBJECT, kind: attr.kind })?;
        Ok(data)
    }
}

/// What stands inside the nested attribute.
struct Inner(Data);

impl Field for Inner {
    fn put(&self, w: &mut Writer, kind: u16) {
        self.0.put(w, kind);
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        match attr.kind {
            NFTA_DATA_VALUE => Ok(Self(Data::Value(attr.value.to_vec()))),
            NFTA_DATA_VERDICT => {
                VerdictAttrs::read(attr.nested())?.try_into().map(Data::Verdict).map(Self)
            }
            kind => Err(CodecError::Unknown { object: "data", kind }),
        }
    }
}

/// What to do next (`enum nft_verdicts` and `NF_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on; the base chain is done.
    Accept,
    /// The packet is gone.
    Drop,
    /// The next rule.
    Continue,
    /// The next rule, as if an expression had not matched.
    Break,
    /// Back to the calling chain, or to the base chain's policy.
    Return,
    /// Into this chain and back.
    Jump(String),
    /// Into this chain, not back.
    Goto(String),
    /// One that we have no name for.
    Other(u32),
}

/// What stands inside [`Data`] and, one deeper, inside its verdict.
pub(crate) const DATA_ATTRIBUTES: Names = names![NFTA_DATA_VALUE, NFTA_DATA_VERDICT];
pub(crate) const VERDICT_ATTRIBUTES: Names = VerdictAttrs::ATTRIBUTES;

attributes! {
    VerdictAttrs("verdict") {
        code: u32 = NFTA_VERDICT_CODE,
        chain: Option<String> = NFTA_VERDICT_CHAIN,
    }
}

impl Verdict {
    fn to_wire(&self) -> VerdictAttrs {
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
        VerdictAttrs { code, chain }
    }
}

impl TryFrom<VerdictAttrs> for Verdict {
    type Error = CodecError;

    fn try_from(VerdictAttrs { code, chain }: VerdictAttrs) -> Result<Self, CodecError> {
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

/// As `nft --debug=netlink` prints it.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(bytes) => f.write_str(&words(bytes)),
            Self::Verdict(Verdict::Jump(chain)) => write!(f, "jump -> {chain}"),
            Self::Verdict(Verdict::Goto(chain)) => write!(f, "goto -> {chain}"),
            Self::Verdict(verdict) => verdict.fmt(f),
        }
    }
}
