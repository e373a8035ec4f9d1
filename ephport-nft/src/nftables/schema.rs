//! The attributes of an object or expression, declared once.
//!
//! [`attributes!`] turns a list of fields and attribute types into a struct with its encoder, its decoder
//! and the names of its attributes, from which the location of a fault in a request is derived. All
//! decoders skip padding (`NFTA_*_PAD`, which kernels without efficient unaligned access send before
//! 64-bit values) and the attributes in which the kernel only lists its own bookkeeping (it ignores them as
//! input, or refuses the object), accept an attribute at most once, and drop no other: an object keeps
//! attributes that have no field in `other`, an expression with such an attribute is an error, so that
//! the caller keeps its bytes.

use super::bytes::Bytes;
use crate::netlink::{Attr, CodecError, Writer};
use crate::uapi::NFTA_LIST_ELEM;

/// An attribute without a field of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAttr {
    /// `nla_type`, without its flag bits.
    pub attribute_type: u16,
    /// The value, without padding.
    pub value: Vec<u8>,
}

impl From<Attr<'_>> for RawAttr {
    fn from(attr: Attr<'_>) -> Self {
        Self { attribute_type: attr.attribute_type, value: attr.value.to_vec() }
    }
}

/// Encodes attributes that have no field.
pub(crate) fn encode_other(w: &mut Writer, other: &[RawAttr]) {
    for attr in other {
        w.bytes(attr.attribute_type, &attr.value);
    }
}

/// An attribute of an object: its type, the kernel's name for it, and what is nested in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) attribute_type: u16,
    pub(crate) name: &'static str,
    pub(crate) inside: Inside,
}

/// The attributes of one object.
pub(crate) type Schema = &'static [Entry];

/// What an attribute contains.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Inside {
    /// A value.
    Value,
    /// Attributes.
    Attributes(Schema),
    /// A list of expressions.
    Expressions,
    /// A list of set elements with these attributes.
    Elements(Schema),
}

/// A value in one attribute.
pub(crate) trait Attribute: Sized {
    /// What is nested in it.
    const INSIDE: Inside = Inside::Value;
    /// Appends the attribute.
    fn encode(&self, w: &mut Writer, attribute_type: u16);
    /// The value of an attribute.
    fn decode(attr: Attr<'_>) -> Result<Self, CodecError>;
}

/// A field of a struct: an attribute that is required, optional, or empty by default.
pub(crate) trait Slot: Sized {
    /// The value of the attribute.
    type Value: Attribute;
    /// Appends the attribute, if the field has a value.
    fn encode(&self, w: &mut Writer, attribute_type: u16);
    /// The field, from the value of the attribute if there was one.
    fn fill(
        value: Option<Self::Value>,
        object: &'static str,
        attribute: u16,
    ) -> Result<Self, CodecError>;
}

impl<T: Attribute> Slot for Option<T> {
    type Value = T;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        if let Some(value) = self {
            value.encode(w, attribute_type);
        }
    }

    fn fill(value: Option<T>, _object: &'static str, _attribute: u16) -> Result<Self, CodecError> {
        Ok(value)
    }
}

/// Makes these types required fields.
macro_rules! required {
    ($($type:ty),* $(,)?) => {
        $(
            impl $crate::nftables::schema::Slot for $type {
                type Value = Self;

                fn encode(&self, w: &mut $crate::netlink::Writer, attribute_type: u16) {
                    $crate::nftables::schema::Attribute::encode(self, w, attribute_type);
                }

                fn fill(
                    value: Option<Self>,
                    object: &'static str,
                    attribute: u16,
                ) -> Result<Self, $crate::netlink::CodecError> {
                    value.ok_or($crate::netlink::CodecError::Missing { object, attribute })
                }
            }
        )*
    };
}

/// Implements [`Attribute`] with a method of [`Writer`] and one of [`Attr`].
macro_rules! values {
    ($($type:ty: $encode:ident, $decode:ident;)*) => {
        $(
            impl Attribute for $type {
                fn encode(&self, w: &mut Writer, attribute_type: u16) {
                    w.$encode(attribute_type, *self);
                }

                fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
                    attr.$decode()
                }
            }
        )*
        required!($($type),*);
    };
}

values! {
    u8: u8, u8;
    u16: u16_be, u16_be;
    u32: u32_be, u32_be;
    u64: u64_be, u64_be;
}
required!(i32, String);

impl Attribute for i32 {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.u32_be(attribute_type, self.cast_unsigned());
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.u32_be().map(u32::cast_signed)
    }
}

impl Attribute for String {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.string(attribute_type, self);
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.string().map(Into::into)
    }
}

/// Bytes whose meaning is not nf_tables' own: user data.
impl Attribute for Vec<u8> {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.bytes(attribute_type, self);
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        Ok(attr.value.to_vec())
    }
}

/// A key or value of an element, or a constant of an expression.
impl Attribute for Bytes {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.bytes(attribute_type, self);
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        Ok(attr.value.into())
    }
}

/// A value that is rare and large, so that the expressions without it stay small.
impl<T: Attribute> Attribute for Box<T> {
    const INSIDE: Inside = T::INSIDE;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        T::encode(self, w, attribute_type);
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        T::decode(attr).map(Self::new)
    }
}

/// An item of a list, in an attribute `NFTA_LIST_ELEM` of its own.
pub(crate) trait Item: Sized {
    /// The list, for errors.
    const LIST: &'static str;
    /// What the list contains.
    const LISTED: Inside;
    /// Appends what is inside of the item.
    fn encode_inside(&self, w: &mut Writer);
    /// The item.
    fn decode_item(attr: Attr<'_>) -> Result<Self, CodecError>;
}

impl<T: Item> Attribute for Vec<T> {
    const INSIDE: Inside = T::LISTED;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.nested(attribute_type, |w| {
            for item in self {
                w.nested(NFTA_LIST_ELEM, |w| item.encode_inside(w));
            }
        });
    }

    fn decode(list: Attr<'_>) -> Result<Self, CodecError> {
        // The exact room: tables have many lists, and most are short.
        let mut all = Self::with_capacity(list.nested().count());
        for item in items(list) {
            all.push(item?);
        }
        Ok(all)
    }
}

/// The items of a list.
pub(crate) fn items<T: Item>(list: Attr<'_>) -> impl Iterator<Item = Result<T, CodecError>> {
    list.nested().map(|attr| match attr? {
        attr if attr.attribute_type == NFTA_LIST_ELEM => T::decode_item(attr),
        attr => Err(CodecError::Unknown { object: T::LIST, attribute: attr.attribute_type }),
    })
}

/// A list that is empty when its attribute is missing.
impl<T: Item> Slot for Vec<T> {
    type Value = Self;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        Attribute::encode(self, w, attribute_type);
    }

    fn fill(value: Option<Self>, _: &'static str, _: u16) -> Result<Self, CodecError> {
        Ok(value.unwrap_or_default())
    }
}

/// Sets `slot` from `attr`, which must be the first of its type.
pub(crate) fn set<T: Attribute>(
    slot: &mut Option<T>,
    attr: Attr<'_>,
    object: &'static str,
) -> Result<(), CodecError> {
    match slot.replace(T::decode(attr)?) {
        None => Ok(()),
        Some(_) => Err(CodecError::Twice { object, attribute: attr.attribute_type }),
    }
}

/// Entries of a schema: the constants of these types, each with what is nested in it.
macro_rules! schema {
    ($($attribute:ident: $inside:expr),* $(,)?) => {
        &[$(
            $crate::nftables::schema::Entry {
                attribute_type: $crate::uapi::$attribute,
                name: stringify!($attribute),
                inside: $inside,
            },
        )*]
    };
}

/// Defines a struct whose fields are attributes, in the order in which the kernel lists them.
///
/// `message Name("noun", family)` is an object: the body of a message, after `struct nfgenmsg` with its
/// family. Without `message` the attributes are nested in one attribute. `other` after the fields is the
/// field that keeps unknown attributes. Skipped are the attribute types that `padding` and `bookkeeping`
/// name: the latter are about the kernel's object, not about the one to add, and are never sent.
macro_rules! attributes {
    (
        $(#[$meta:meta])*
        message $name:ident($object:literal, $family:ident)
        { $($fields:tt)* } other $(, padding $pad:ident)* $(, bookkeeping $own:ident)*
    ) => {
        $crate::nftables::schema::attributes! {
            @define $(#[$meta])* $name($object) [$family] [other] [$($pad)* $($own)*] { $($fields)* }
        }

        impl $name {
            /// Encodes the body of a message about it.
            pub fn encode(&self, w: &mut $crate::netlink::Writer) {
                w.raw(&$crate::netlink::NfGenMsg::new(self.$family).to_bytes());
                self.encode_attributes(w);
            }

            /// Decodes the body of a message about it.
            pub fn decode(body: &[u8]) -> Result<Self, $crate::netlink::CodecError> {
                let mut reader = $crate::netlink::Reader::new(body);
                let family = $crate::netlink::NfGenMsg::decode(&mut reader)?.family;
                Self::decode_attributes(reader.attrs(), family)
            }
        }
    };
    (
        $(#[$meta:meta])*
        $name:ident($object:literal)
        { $($fields:tt)* } $($other:ident)? $(, padding $pad:ident)*
    ) => {
        $crate::nftables::schema::attributes! {
            @define $(#[$meta])* $name($object) [] [$($other)?] [$($pad)*] { $($fields)* }
        }

        impl $crate::nftables::schema::Attribute for $name {
            const INSIDE: $crate::nftables::schema::Inside =
                $crate::nftables::schema::Inside::Attributes(Self::SCHEMA);

            fn encode(&self, w: &mut $crate::netlink::Writer, attribute_type: u16) {
                w.nested(attribute_type, |w| self.encode_attributes(w));
            }

            fn decode(
                attr: $crate::netlink::Attr<'_>,
            ) -> Result<Self, $crate::netlink::CodecError> {
                Self::decode_attributes(attr.nested())
            }
        }

        $crate::nftables::schema::required!($name);
    };
    (
        @define $(#[$meta:meta])* $name:ident($object:literal)
        [$($family:ident)?] [$($other:ident)?] [$($skipped:ident)*]
        { $( $(#[$field_meta:meta])* $field:ident: $type:ty = $attribute:ident, )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $(
                /// The table's family, an `NFPROTO_*`.
                pub $family: u8,
            )?
            $( $(#[$field_meta])* pub $field: $type, )*
            $(
                /// Attributes without a field of their own.
                pub $other: Vec<$crate::nftables::schema::RawAttr>,
            )?
        }

        impl $name {
            /// The kernel's name for it.
            pub const NAME: &'static str = $object;

            /// The kernel's names for its attributes.
            pub(crate) const SCHEMA: $crate::nftables::schema::Schema =
                $crate::nftables::schema::schema![$(
                    $attribute: <<$type as $crate::nftables::schema::Slot>::Value
                        as $crate::nftables::schema::Attribute>::INSIDE
                ),*];

            fn encode_attributes(&self, w: &mut $crate::netlink::Writer) {
                $(
                    $crate::nftables::schema::Slot::encode(
                        &self.$field, w, $crate::uapi::$attribute,
                    );
                )*
                $( $crate::nftables::schema::encode_other(w, &self.$other); )?
            }

            fn decode_attributes(
                attrs: $crate::netlink::Attrs<'_> $(, $family: u8)?
            ) -> Result<Self, $crate::netlink::CodecError> {
                use $crate::nftables::schema::{Slot, set};
                $( let mut $field: Option<<$type as Slot>::Value> = None; )*
                $( let mut $other = Vec::new(); )?
                for attr in attrs {
                    let attr = attr?;
                    match attr.attribute_type {
                        $( $crate::uapi::$attribute => set(&mut $field, attr, $object)?, )*
                        $( $crate::uapi::$skipped => {} )*
                        $( _ => $other.push(attr.into()), )?
                        #[allow(unreachable_patterns, reason = "where `other` matches the rest")]
                        attribute => {
                            return Err($crate::netlink::CodecError::Unknown {
                                object: $object,
                                attribute,
                            });
                        }
                    }
                }
                Ok(Self {
                    $( $family, )?
                    $( $field: Slot::fill($field, $object, $crate::uapi::$attribute)?, )*
                    $( $other, )?
                })
            }
        }
    };
}

pub(crate) use {attributes, required, schema};
