//! A message to the kernel, parsed, and the failure that the kernel answers.

use ephport_nft::Errno;
use ephport_nft::netlink::{Attr, Header, Message, NfGenMsg, Reader};

/// The refusal of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) errno: Errno,
    /// `NL_SET_BAD_ATTR`: the offset of an attribute from the start of the message.
    pub(super) offset: Option<u32>,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self { errno, offset: None }
    }
}

/// The result of a message.
pub(super) type Answer<T = ()> = Result<T, Failure>;

/// A message of nf_tables: its header, family and attributes.
pub(super) struct Request<'a> {
    pub(super) header: Header,
    pub(super) family: u8,
    attrs: Vec<Attr<'a>>,
    /// The address of the message's first byte.
    start: usize,
}

/// Length of `struct nlmsghdr` and of `struct nlattr`.
const HEADER: usize = 16;
const ATTR_HEADER: usize = 4;

impl<'a> Request<'a> {
    /// Parses a message; malformed attributes are EINVAL.
    pub(super) fn parse(message: Message<'a>) -> Answer<Self> {
        let mut reader = Reader::new(message.body);
        let family = NfGenMsg::decode(&mut reader).map_err(|_| Errno::EINVAL)?.family;
        let attrs = reader.attrs().collect::<Result<_, _>>().map_err(|_| Errno::EINVAL)?;
        let start = message.body.as_ptr().addr().wrapping_sub(HEADER);
        Ok(Self { header: message.header, family, attrs, start })
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.header.flags & flag == flag
    }

    /// The attribute of this type; of several the last, as `nla_parse` takes it.
    pub(super) fn attr(&self, attribute_type: u16) -> Option<Attr<'a>> {
        self.attrs.iter().rev().find(|attr| attr.attribute_type == attribute_type).copied()
    }

    /// A name, without its NUL.
    pub(super) fn name(&self, attribute_type: u16) -> Option<&'a [u8]> {
        self.attr(attribute_type).map(|attr| without_nul(attr.value))
    }

    /// A name that must be there.
    pub(super) fn required_name(&self, attribute_type: u16) -> Answer<&'a [u8]> {
        Ok(self.name(attribute_type).ok_or(Errno::EINVAL)?)
    }

    pub(super) fn u32(&self, attribute_type: u16) -> Answer<Option<u32>> {
        self.attr(attribute_type).map(number).transpose()
    }

    pub(super) fn u64(&self, attribute_type: u16) -> Answer<Option<u64>> {
        let attr = self.attr(attribute_type);
        Ok(attr.map(Attr::u64_be).transpose().map_err(|_| Errno::ERANGE)?)
    }

    /// The bytes of an attribute, if it is there and not empty.
    pub(super) fn bytes(&self, attribute_type: u16) -> Option<Vec<u8>> {
        self.attr(attribute_type).map(|attr| attr.value.to_vec()).filter(|bytes| !bytes.is_empty())
    }

    /// The failure with the offset of this attribute, if it is there.
    pub(super) fn bad_attr(&self, attribute_type: u16, errno: Errno) -> Failure {
        match self.attr(attribute_type) {
            Some(attr) => self.bad(attr, errno),
            None => errno.into(),
        }
    }

    /// The failure with the offset of an attribute of this message.
    pub(super) fn bad(&self, attr: Attr<'_>, errno: Errno) -> Failure {
        let value = attr.value.as_ptr().addr();
        let offset = value.wrapping_sub(ATTR_HEADER).wrapping_sub(self.start);
        Failure { errno, offset: u32::try_from(offset).ok() }
    }
}

pub(super) fn number(attr: Attr<'_>) -> Answer<u32> {
    Ok(attr.u32_be().map_err(|_| Errno::ERANGE)?)
}

pub(super) fn without_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}
