//! The instructions of nf_tables' virtual machine, one file each.
//!
//! A rule is a list of expressions that run in order over registers; an expression that does not
//! match ends its rule. All numbers are in network order on the wire, and so are packet data and
//! the values they are compared with (net/netfilter/nft_*.c, linux/netfilter/nf_tables.h).
//!
//! An expression that we do not know, or one of a known kind that holds an attribute we do not
//! know, is kept whole as [`Opaque`].

mod bitwise;
mod byteorder;
mod cmp;
mod counter;
mod ct;
mod data;
mod fib;
mod hash;
mod immediate;
mod lookup;
mod masq;
mod meta;
mod nat;
mod numgen;
mod opaque;
mod payload;
mod range;
mod register;

pub use bitwise::Bitwise;
pub use byteorder::Byteorder;
pub use cmp::{Cmp, CmpOp};
pub use counter::Counter;
pub use ct::Ct;
pub(crate) use data::{DATA_ATTRIBUTES, VERDICT_ATTRIBUTES};
pub use data::{Data, Verdict};
pub use fib::Fib;
pub use hash::Hash;
pub use immediate::Immediate;
pub use lookup::Lookup;
pub use masq::Masq;
pub use meta::Meta;
pub use nat::Nat;
pub use numgen::Numgen;
pub use opaque::Opaque;
pub use payload::Payload;
pub use range::{Range, RangeOp};
pub use register::Register;

use std::fmt;

use crate::netlink::{Attr, CodecError, Writer};
use crate::nftables::schema::{Names, set};
use crate::uapi::{NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM};

macro_rules! expressions {
    ($($name:ident,)*) => {
        /// One expression of a rule.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Expr {
            $(
                #[allow(missing_docs)] // The struct documents itself.
                $name($name),
            )*
            /// One that we have no name for, whole.
            Opaque(Opaque),
        }

        impl Expr {
            /// The kernel's name for its kind.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $( Self::$name(_) => $name::NAME, )*
                    Self::Opaque(opaque) => opaque.name(),
                }
            }

            /// The attributes of this kind; none for a kind that we have no name for.
            pub(crate) fn attributes(name: &str) -> Names {
                match name {
                    $( $name::NAME => $name::ATTRIBUTES, )*
                    _ => &[],
                }
            }

            fn write_data(&self, w: &mut Writer) {
                match self {
                    $( Self::$name(expr) => w.nested(NFTA_EXPR_DATA, |w| expr.write(w)), )*
                    Self::Opaque(opaque) => opaque.write_data(w),
                }
            }

            fn read_known(name: &str, data: Attr<'_>) -> Result<Self, CodecError> {
                match name {
                    $( $name::NAME => $name::read(data.nested()).map(Self::$name), )*
                    _ => Err(CodecError::Unknown { object: "expression", kind: data.kind }),
                }
            }
        }

        $(
            impl From<$name> for Expr {
                fn from(expr: $name) -> Self {
                    Self::$name(expr)
                }
            }
        )*

        /// As `nft --debug=netlink` prints it.
        impl fmt::Display for Expr {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( Self::$name(expr) => write!(f, "[ {expr} ]"), )*
                    Self::Opaque(opaque) => write!(f, "[ {opaque} ]"),
                }
            }
        }
    };
}

expressions! {
    Bitwise, Byteorder, Cmp, Counter, Ct, Fib, Hash, Immediate, Lookup, Masq, Meta, Nat, Numgen,
    Payload, Range,
}

impl Expr {
    /// The expression as it was asked for: counters at zero, and without what the kernel fills in
    /// by itself.
    #[must_use]
    pub fn normalized(&self) -> Self {
        match self {
            Self::Counter(_) => Counter::default().into(),
            Self::Hash(hash) => hash.normalized().into(),
            Self::Lookup(lookup) => lookup.normalized().into(),
            Self::Masq(masq) => masq.normalized().into(),
            Self::Nat(nat) => nat.normalized().into(),
            other => other.clone(),
        }
    }

    /// Writes it as an element of a list of expressions.
    pub fn write(&self, w: &mut Writer) {
        w.nested(NFTA_LIST_ELEM, |w| {
            w.string(NFTA_EXPR_NAME, self.name());
            self.write_data(w);
        });
    }

    /// Reads an element of a list of expressions. What we cannot name is kept as [`Opaque`].
    ///
    /// # Errors
    /// Only when the element itself has no name or is cut off.
    pub fn read(element: Attr<'_>) -> Result<Self, CodecError> {
        const OBJECT: &str = "expression";
        let mut name: Option<String> = None;
        let mut data: Option<Attr<'_>> = None;
        for attr in element.nested() {
            let attr = attr?;
            match attr.kind {
                NFTA_EXPR_NAME => set(&mut name, attr, OBJECT)?,
                NFTA_EXPR_DATA if data.is_none() => data = Some(attr),
                kind => return Err(CodecError::Unknown { object: OBJECT, kind }),
            }
        }
        let name = name.ok_or(CodecError::Missing { object: OBJECT, kind: NFTA_EXPR_NAME })?;
        let known = data.and_then(|data| Self::read_known(&name, data).ok());
        Ok(known.unwrap_or_else(|| Opaque::new(name, data.map(|data| data.value.to_vec())).into()))
    }
}

impl From<Opaque> for Expr {
    fn from(opaque: Opaque) -> Self {
        Self::Opaque(opaque)
    }
}

/// Bytes as nft prints register contents: 32-bit words in the order of this machine, the last one
/// filled up with zeros.
pub(crate) fn words(bytes: &[u8]) -> String {
    let word = |chunk: &[u8]| {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        format!("{:#010x}", u32::from_ne_bytes(word))
    };
    bytes.chunks(4).map(word).collect::<Vec<_>>().join(" ")
}
