//! Short values, without an allocation of their own.

use std::fmt;
use std::ops::Deref;

/// The most bytes that need no allocation.
const INLINE: usize = 22;

/// Bytes: up to 22 in place, which fits an address of IPv6, and outside address and ports of a block. A table has
/// two values in each of a million elements.
#[derive(Clone)]
pub struct Bytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE]),
    Long(Box<[u8]>),
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(bytes);
                Self(Repr::Inline(len, inline))
            }
            _ => Self(Repr::Long(bytes.into())),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Repr::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_values_are_kept() {
        assert_eq!(size_of::<Bytes>(), 24);
        for len in [0, 1, 21, 22, 23, 300] {
            let bytes = vec![7; len];
            let kept = Bytes::from(bytes.clone());
            assert_eq!(*kept, *bytes);
            assert_eq!(format!("{kept:?}"), format!("{bytes:?}"));
        }
    }
}
