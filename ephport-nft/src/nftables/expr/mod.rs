//! The instructions of nf_tables' virtual machine.
//!
//! A rule is a list of expressions that run in order over registers; an expression that does not
//! match ends its rule. All numbers in messages are in network order, and so are packet data and
//! the values they are compared with (net/netfilter/nft_*.c, linux/netfilter/nf_tables.h).
//!
//! An unknown expression, or a known one with an unknown attribute, is kept whole as [`Opaque`].

mod action;
mod compare;
mod compute;
mod data;
mod load;

pub use action::{Counter, Masq, Nat, ObjRef};
pub use compare::{Cmp, CmpOp, Lookup, Range, RangeOp};
pub use compute::{Bitwise, Byteorder, Hash, Numgen};
pub(crate) use data::register_words as words;
pub use data::{Data, Register, Verdict};
pub use load::{Ct, Fib, Immediate, Meta, Payload, PayloadWrite, Rt};

use std::borrow::Cow;
use std::fmt;

use super::schema::{Attribute, Inside, Item, Schema, set};
use crate::netlink::{Attr, CodecError, Writer};
use crate::uapi::{NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM};

/// `$name: $type` is the variant of the expression `$name`: `$type` is `$name`, or a box of it where it is large,
/// so that the others stay small.
macro_rules! expressions {
    ($($name:ident: $type:ty,)*) => {
        /// One expression of a rule.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Expr {
            $(
                #[allow(missing_docs, reason = "the struct documents itself")]
                $name($type),
            )*
            /// An unknown expression, or a known one with an unknown attribute, whole.
            Opaque(Box<Opaque>),
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

            /// What is nested in `NFTA_EXPR_DATA` of the expression with this name.
            pub(crate) fn schema(name: &str) -> Schema {
                $(
                    if name == $name::NAME {
                        return $name::SCHEMA;
                    }
                )*
                &[]
            }

            fn encode_data(&self, w: &mut Writer) {
                match self {
                    $( Self::$name(expr) => expr.encode(w, NFTA_EXPR_DATA), )*
                    Self::Opaque(opaque) => {
                        opaque.data.iter().for_each(|data| w.bytes(NFTA_EXPR_DATA, data));
                    }
                }
            }

            fn decode_known(name: &str, data: Attr<'_>) -> Result<Self, CodecError> {
                // One name can belong to two: `payload` loads or writes.
                $(
                    if name == $name::NAME
                        && let Ok(expr) = $name::decode(data)
                    {
                        return Ok(expr.into());
                    }
                )*
                Err(CodecError::Unknown { object: "expression", attribute: data.attribute_type })
            }
        }

        $(
            impl From<$name> for Expr {
                fn from(expr: $name) -> Self {
                    Self::$name(expr.into())
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
    Bitwise: Bitwise,
    Byteorder: Byteorder,
    Cmp: Cmp,
    Counter: Counter,
    Ct: Ct,
    Fib: Fib,
    Hash: Box<Hash>,
    Immediate: Immediate,
    Lookup: Box<Lookup>,
    Masq: Masq,
    Meta: Meta,
    Nat: Box<Nat>,
    Numgen: Numgen,
    ObjRef: ObjRef,
    Payload: Payload,
    PayloadWrite: Box<PayloadWrite>,
    Range: Box<Range>,
    Rt: Rt,
}

/// Of many thousands of rules, most of the memory is for expressions.
const _: () = assert!(size_of::<Expr>() <= 48);

impl Expr {
    /// The expression with counters at zero, and without what the kernel adds when it lists it.
    #[must_use]
    pub fn normalized(&self) -> Cow<'_, Self> {
        Cow::Owned(match self {
            Self::Counter(_) => Counter::default().into(),
            Self::Hash(hash) => hash.normalized().into(),
            Self::Lookup(lookup) => lookup.normalized().into(),
            Self::Masq(masq) => masq.normalized().into(),
            Self::Nat(nat) => nat.normalized().into(),
            other => return Cow::Borrowed(other),
        })
    }

    /// Encodes it as an item of a list of expressions.
    pub fn encode(&self, w: &mut Writer) {
        w.nested(NFTA_LIST_ELEM, |w| self.encode_inside(w));
    }

    /// Decodes an item of a list of expressions. What is unknown is kept as [`Opaque`].
    ///
    /// # Errors
    /// Only when the item itself has no name or is cut off.
    pub fn decode(element: Attr<'_>) -> Result<Self, CodecError> {
        const OBJECT: &str = "expression";
        let mut name: Option<String> = None;
        let mut data: Option<Attr<'_>> = None;
        for attr in element.nested() {
            let attr = attr?;
            match attr.attribute_type {
                NFTA_EXPR_NAME => set(&mut name, attr, OBJECT)?,
                NFTA_EXPR_DATA if data.is_none() => data = Some(attr),
                attribute => return Err(CodecError::Unknown { object: OBJECT, attribute }),
            }
        }
        let name = name.ok_or(CodecError::Missing { object: OBJECT, attribute: NFTA_EXPR_NAME })?;
        let known = data.and_then(|data| Self::decode_known(&name, data).ok());
        Ok(known.unwrap_or_else(|| Opaque::new(name, data.map(|data| data.value.to_vec())).into()))
    }
}

impl Item for Expr {
    const LIST: &'static str = "expression list";
    const LISTED: Inside = Inside::Expressions;

    fn encode_inside(&self, w: &mut Writer) {
        w.string(NFTA_EXPR_NAME, self.name());
        self.encode_data(w);
    }

    fn decode_item(attr: Attr<'_>) -> Result<Self, CodecError> {
        Self::decode(attr)
    }
}

/// An unknown expression as bytes, so that it is read back and written whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque {
    name: String,
    data: Option<Vec<u8>>,
}

impl Opaque {
    /// An expression with this name and the content of its `NFTA_EXPR_DATA`, if it has one.
    #[must_use]
    pub fn new(name: String, data: Option<Vec<u8>>) -> Self {
        Self { name, data }
    }

    /// The kernel's name for its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<Opaque> for Expr {
    fn from(opaque: Opaque) -> Self {
        Self::Opaque(opaque.into())
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.data.iter().flatten().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}
