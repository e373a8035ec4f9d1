//! Attributes as the fields of a struct.

use crate::netlink::{Attr, CodecError, Writer};

/// A value that one attribute holds.
pub(crate) trait Field: Sized {
    /// Writes the attribute `kind`.
    fn put(&self, w: &mut Writer, kind: u16);
    /// Reads the attribute.
    fn take(attr: Attr<'_>) -> Result<Self, CodecError>;
}

impl Field for u32 {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.u32_be(kind, *self);
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.u32_be()
    }
}

impl Field for u64 {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.u64_be(kind, *self);
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.u64_be()
    }
}

impl Field for u8 {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.u8(kind, *self);
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.u8()
    }
}

impl Field for String {
    fn put(&self, w: &mut Writer, kind: u16) {
        w.string(kind, self);
    }

    fn take(attr: Attr<'_>) -> Result<Self, CodecError> {
        attr.string().map(Into::into)
    }
}

/// A field of a struct: one that must be there, or one that may.
pub(crate) trait Slot: Sized {
    /// What the attribute holds.
    type Value: Field;
    /// Writes the attribute, if the field has one.
    fn put(&self, w: &mut Writer, kind: u16);
    /// The field, from the attribute if there was one.
    fn fill(
        value: Option<Self::Value>,
        object: &'static str,
        kind: u16,
    ) -> Result<Self, CodecError>;
}

impl<T: Field> Slot for T {
    type Value = T;

    fn put(&self, w: &mut Writer, kind: u16) {
        Field::put(self, w, kind);
    }

    fn fill(value: Option<T>, object: &'static str, kind: u16) -> Result<Self, CodecError> {
        value.ok_or(CodecError::Missing { object, kind })
    }
}

impl<T: Field> Slot for Option<T> {
    type Value = T;

    fn put(&self, w: &mut Writer, kind: u16) {
        if let Some(value) = self {
            value.put(w, kind);
        }
    }

    fn fill(value: Option<T>, _object: &'static str, _kind: u16) -> Result<Self, CodecError> {
        Ok(value)
    }
}

/// Fills `slot` from `attr`; an attribute stands once.
pub(crate) fn set<T: Field>(
    slot: &mut Option<T>,
    attr: Attr<'_>,
    object: &'static str,
) -> Result<(), CodecError> {
    match slot.replace(T::take(attr)?) {
        None => Ok(()),
        Some(_) => Err(CodecError::Twice { object, kind: attr.kind }),
    }
}

/// Attributes of one object: their numbers, with the kernel's names for them.
pub(crate) type Names = &'static [(u16, &'static str)];

/// Names for these constants of the kernel.
macro_rules! names {
    ($($kind:ident),* $(,)?) => {
        &[$( ($crate::uapi::$kind, stringify!($kind)), )*]
    };
}

/// Defines a struct whose fields are attributes, in the order in which the kernel lists them, with
/// `write` and `read`. Reading is strict: an unknown attribute is an error, so that a caller can
/// keep the bytes instead of losing it.
macro_rules! attributes {
    (
        $(#[$meta:meta])*
        $name:ident($object:literal) {
            $( $(#[$field_meta:meta])* $field:ident: $type:ty = $kind:ident, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $name {
            /// The kernel's name for it.
            pub const NAME: &'static str = $object;

            /// The kernel's names for its attributes.
            pub(crate) const ATTRIBUTES: $crate::nftables::schema::Names =
                $crate::nftables::schema::names![$( $kind ),*];

            pub(crate) fn write(&self, w: &mut $crate::netlink::Writer) {
                $( $crate::nftables::schema::Slot::put(&self.$field, w, $crate::uapi::$kind); )*
                let _ = w;
            }

            pub(crate) fn read(
                attrs: $crate::netlink::Attrs<'_>,
            ) -> Result<Self, $crate::netlink::CodecError> {
                use $crate::nftables::schema::{Slot, set};
                $( let mut $field: Option<<$type as Slot>::Value> = None; )*
                for attr in attrs {
                    let attr = attr?;
                    match attr.kind {
                        $( $crate::uapi::$kind => set(&mut $field, attr, $object)?, )*
                        kind => {
                            return Err($crate::netlink::CodecError::Unknown { object: $object, kind });
                        }
                    }
                }
                Ok(Self {
                    $( $field: Slot::fill($field, $object, $crate::uapi::$kind)?, )*
                })
            }
        }
    };
}

pub(crate) use {attributes, names};
