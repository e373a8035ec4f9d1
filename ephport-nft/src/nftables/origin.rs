//! The table that an object belongs to, and objects that are not decoded.

use std::fmt;

use crate::netlink::{CodecError, NfGenMsg, Reader};
use crate::uapi::{
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWFLOWTABLE, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_OBJECT_CONNLIMIT, NFT_OBJECT_COUNTER, NFT_OBJECT_CT_EXPECT,
    NFT_OBJECT_CT_HELPER, NFT_OBJECT_CT_TIMEOUT, NFT_OBJECT_LIMIT, NFT_OBJECT_QUOTA,
    NFT_OBJECT_SECMARK, NFT_OBJECT_SYNPROXY, NFT_OBJECT_TUNNEL, NFTA_CHAIN_NAME, NFTA_OBJ_NAME,
    NFTA_OBJ_TYPE, NFTA_TABLE_NAME,
};

/// The family and the name of the table that an object belongs to. The name is bytes: the kernel accepts
/// names that are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// An `NFPROTO_*`.
    pub family: u8,
    /// The table's name, without its NUL.
    pub table: &'a [u8],
}

impl<'a> Origin<'a> {
    /// The origin of the object in the body of a message. Nothing else of the object is decoded.
    ///
    /// The name of the table is attribute 1 of every object: of a table its own name.
    pub fn peek(body: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let family = NfGenMsg::decode(&mut reader)?.family;
        let table = name(reader, NFTA_TABLE_NAME)?
            .ok_or(CodecError::Missing { object: "object", attribute: NFTA_TABLE_NAME })?;
        Ok(Self { family, table })
    }

    /// Whether this is the table with this family and name.
    #[must_use]
    pub fn is(&self, family: u8, table: &str) -> bool {
        self.family == family && self.table == table.as_bytes()
    }
}

/// The bytes of a name, without the NUL.
fn name(attrs: Reader<'_>, attribute: u16) -> Result<Option<&[u8]>, CodecError> {
    for attr in attrs.attrs() {
        let attr = attr?;
        if attr.attribute_type == attribute {
            return Ok(Some(attr.value.strip_suffix(&[0]).unwrap_or(attr.value)));
        }
    }
    Ok(None)
}

/// An object in our table that no policy compiles to: a counter, quota, flowtable or the like, or an
/// object whose names are not UTF-8. Only its kind and its name are known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UnknownObject {
    /// The kind of message about it, an `NFT_MSG_NEW*`.
    pub message: u16,
    /// The type of a named object, an `NFT_OBJECT_*`.
    pub object_type: Option<u32>,
    /// Its name; of a rule the name of its chain, of elements that of their set.
    pub name: Vec<u8>,
}

impl UnknownObject {
    /// The object in the body of a message.
    pub fn peek(message: u16, body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        NfGenMsg::decode(&mut reader)?;
        // NFTA_RULE_CHAIN, NFTA_SET_NAME and NFTA_FLOWTABLE_NAME have the number of NFTA_OBJ_NAME.
        let attribute = if message == NFT_MSG_NEWCHAIN { NFTA_CHAIN_NAME } else { NFTA_OBJ_NAME };
        let name = name(reader, attribute)?.unwrap_or_default().to_vec();
        let mut attrs = reader.attrs().map_while(Result::ok);
        let object_type = match message {
            NFT_MSG_NEWOBJ => attrs.find(|attr| attr.attribute_type == NFTA_OBJ_TYPE),
            _ => None,
        };
        Ok(Self { message, object_type: object_type.and_then(|attr| attr.u32_be().ok()), name })
    }

    /// nft's name for its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.message, self.object_type) {
            (NFT_MSG_NEWCHAIN, _) => "chain",
            (NFT_MSG_NEWRULE, _) => "rule of chain",
            (NFT_MSG_NEWSET, _) => "set",
            (NFT_MSG_NEWSETELEM, _) => "elements of set",
            (NFT_MSG_NEWFLOWTABLE, _) => "flowtable",
            (_, Some(NFT_OBJECT_COUNTER)) => "counter",
            (_, Some(NFT_OBJECT_QUOTA)) => "quota",
            (_, Some(NFT_OBJECT_CT_HELPER)) => "ct helper",
            (_, Some(NFT_OBJECT_LIMIT)) => "limit",
            (_, Some(NFT_OBJECT_CONNLIMIT)) => "ct count",
            (_, Some(NFT_OBJECT_TUNNEL)) => "tunnel",
            (_, Some(NFT_OBJECT_CT_TIMEOUT)) => "ct timeout",
            (_, Some(NFT_OBJECT_SECMARK)) => "secmark",
            (_, Some(NFT_OBJECT_CT_EXPECT)) => "ct expectation",
            (_, Some(NFT_OBJECT_SYNPROXY)) => "synproxy",
            _ => "object",
        }
    }
}

/// Kind and name, with bytes that are not printable ASCII escaped.
impl fmt::Display for UnknownObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;

    fn body(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(&NfGenMsg::new(1).to_bytes());
        write(&mut w);
        w.finish().unwrap()
    }

    #[test]
    fn only_the_table_of_an_object_is_read() {
        let bytes = body(|w| {
            w.bytes(1, b"t\xff\0");
            w.bytes(3, &[]);
        });
        assert_eq!(Origin::peek(&bytes), Ok(Origin { family: 1, table: b"t\xff" }));
        assert!(!Origin::peek(&bytes).unwrap().is(1, "t"));
        assert!(Origin { family: 1, table: b"t" }.is(1, "t"));
        assert!(!Origin { family: 2, table: b"t" }.is(1, "t"));
        let missing = CodecError::Missing { object: "object", attribute: 1 };
        assert_eq!(Origin::peek(&body(|_| {})), Err(missing));
    }

    #[test]
    fn unknown_objects_have_kind_and_name() {
        let object = body(|w| {
            w.string(1, "t");
            w.bytes(2, b"a\x1b\xff\0");
            w.u32_be(3, 1);
        });
        let read = |message| UnknownObject::peek(message, &object).unwrap().to_string();
        assert_eq!(read(NFT_MSG_NEWOBJ), "counter a\\x1b\\xff");
        assert_eq!(read(NFT_MSG_NEWFLOWTABLE), "flowtable a\\x1b\\xff");
        assert_eq!(read(NFT_MSG_NEWRULE), "rule of chain a\\x1b\\xff");
    }
}
