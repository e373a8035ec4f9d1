//! A checked reader of netlink attributes: it never indexes, casts or trusts a length.

use super::{ATTR_HEADER, CodecError, align};
use crate::uapi::{NLA_F_NESTED, NLA_F_NET_BYTEORDER};

/// A reader of bytes from the start of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that are left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let have = self.0.len();
        let (head, rest) =
            self.0.split_first_chunk().ok_or(CodecError::Truncated { what, need: N, have })?;
        self.0 = rest;
        Ok(*head)
    }

    /// The next `len` bytes.
    pub fn slice(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], CodecError> {
        let have = self.0.len();
        let (head, rest) =
            self.0.split_at_checked(len).ok_or(CodecError::Truncated { what, need: len, have })?;
        self.0 = rest;
        Ok(head)
    }

    /// 16 bits in the order of this machine.
    pub fn u16_ne(&mut self, what: &'static str) -> Result<u16, CodecError> {
        self.array(what).map(u16::from_ne_bytes)
    }

    /// 32 bits in the order of this machine.
    pub fn u32_ne(&mut self, what: &'static str) -> Result<u32, CodecError> {
        self.array(what).map(u32::from_ne_bytes)
    }

    /// The bytes that are left, as attributes.
    #[must_use]
    pub fn attrs(self) -> Attrs<'a> {
        Attrs(Some(self))
    }

    /// Skips the padding after `len` bytes; at the end of a message it may be missing.
    pub(super) fn skip_padding(&mut self, len: usize) {
        let padding = (align(len) - len).min(self.0.len());
        self.0 = self.0.get(padding..).unwrap_or_default();
    }
}

/// The attributes in a run of bytes; ends after the first error.
#[derive(Clone, Debug)]
pub struct Attrs<'a>(Option<Reader<'a>>);

impl<'a> Attrs<'a> {
    /// The bytes that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0.map_or(&[], Reader::rest)
    }

    fn decode(mut reader: Reader<'a>) -> Result<(Attr<'a>, Reader<'a>), CodecError> {
        let len = usize::from(reader.u16_ne("nlattr")?);
        let attribute_type = reader.u16_ne("nlattr")? & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);
        let body = len.checked_sub(ATTR_HEADER).ok_or(CodecError::Truncated {
            what: "nlattr",
            need: ATTR_HEADER,
            have: len,
        })?;
        let value = reader.slice("attribute value", body)?;
        reader.skip_padding(len);
        Ok((Attr { attribute_type, value }, reader))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.0.take().filter(|reader| !reader.0.is_empty())?;
        Some(Self::decode(reader).map(|(attr, rest)| {
            self.0 = Some(rest);
            attr
        }))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// `nla_type`, without its flag bits.
    pub attribute_type: u16,
    /// The value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// Length of `struct nlattr`, before the value.
    pub(crate) const HEADER_LEN: usize = ATTR_HEADER;

    /// Exactly `N` bytes.
    pub(crate) fn array<const N: usize>(self, what: &'static str) -> Result<[u8; N], CodecError> {
        self.value.try_into().map_err(|_| CodecError::Size {
            attribute: self.attribute_type,
            what,
            need: N,
            have: self.value.len(),
        })
    }

    /// One byte.
    pub fn u8(self) -> Result<u8, CodecError> {
        self.array("u8").map(u8::from_ne_bytes)
    }

    /// 16 bits in network order.
    pub fn u16_be(self) -> Result<u16, CodecError> {
        self.array("u16").map(u16::from_be_bytes)
    }

    /// 32 bits in network order.
    pub fn u32_be(self) -> Result<u32, CodecError> {
        self.array("u32").map(u32::from_be_bytes)
    }

    /// 32 bits in the order of this machine.
    pub fn u32_ne(self) -> Result<u32, CodecError> {
        self.array("u32").map(u32::from_ne_bytes)
    }

    /// 64 bits in network order.
    pub fn u64_be(self) -> Result<u64, CodecError> {
        self.array("u64").map(u64::from_be_bytes)
    }

    /// A UTF-8 string that ends with its only NUL.
    pub fn string(self) -> Result<&'a str, CodecError> {
        let text = match self.value.split_last() {
            Some((0, text)) if !text.contains(&0) => text,
            _ => return Err(CodecError::NotAString { attribute: self.attribute_type }),
        };
        str::from_utf8(text).map_err(|_| CodecError::NotAString { attribute: self.attribute_type })
    }

    /// The attributes inside.
    #[must_use]
    pub fn nested(self) -> Attrs<'a> {
        Reader::new(self.value).attrs()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            for attr in Reader::new(&bytes).attrs().map_while(Result::ok) {
                let _ = (attr.string(), attr.u32_be(), attr.u64_be(), attr.nested().count());
            }
        }
    }

    #[test]
    fn attribute_shorter_than_header_is_error() {
        let header = [3u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
        let bytes = [&header[..], &[9; 4]].concat();
        let mut attrs = Reader::new(&bytes).attrs();
        let error = CodecError::Truncated { what: "nlattr", need: 4, have: 3 };
        assert_eq!(attrs.next(), Some(Err(error)));
        assert_eq!(attrs.next(), None);
    }

    #[test]
    fn strings_need_their_one_nul() {
        let read = |value| Attr { attribute_type: 1, value }.string();
        assert_eq!(read(b"inet\0"), Ok("inet"));
        for bad in [&b"inet"[..], b"", b"a\0b\0", b"\xff\0"] {
            assert_eq!(read(bad), Err(CodecError::NotAString { attribute: 1 }));
        }
    }
}
