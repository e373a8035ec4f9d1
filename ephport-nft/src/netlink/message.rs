//! Message headers: `struct nlmsghdr` and `struct nfgenmsg`.

use super::{CodecError, Reader};
use crate::uapi::{NFNETLINK_V0, NFNL_SUBSYS_NFTABLES};

/// Length of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

/// `struct nlmsghdr` without its length and port id; the kernel sets the port id of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `nlmsg_type`.
    pub message_type: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: an answer carries the number of its request.
    pub seq: u32,
}

impl Header {
    /// The header of an nf_tables message: subsystem in the upper byte, `NFT_MSG_*` in the lower.
    #[must_use]
    pub fn nf_tables(message: u16, flags: u16, seq: u32) -> Self {
        Self { message_type: NFNL_SUBSYS_NFTABLES << 8 | message, flags, seq }
    }

    /// The `NFT_MSG_*` number, when this is an nf_tables message.
    #[must_use]
    pub fn nf_tables_message(self) -> Option<u16> {
        (self.message_type >> 8 == NFNL_SUBSYS_NFTABLES).then_some(self.message_type & 0xff)
    }

    pub(super) fn to_bytes(self, len: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.message_type.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.seq.to_ne_bytes());
        bytes
    }

    fn decode(reader: &mut Reader<'_>) -> Result<(Self, u32, usize), CodecError> {
        let len = usize::try_from(reader.u32_ne("nlmsghdr")?).unwrap_or(usize::MAX);
        let message_type = reader.u16_ne("nlmsghdr")?;
        let flags = reader.u16_ne("nlmsghdr")?;
        let seq = reader.u32_ne("nlmsghdr")?;
        let port_id = reader.u32_ne("nlmsghdr")?;
        Ok((Self { message_type, flags, seq }, port_id, len))
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// `nlmsg_pid`: the port id of the socket that the message is addressed to, or, of an event, of the
    /// socket whose request caused it.
    pub port_id: u32,
    /// The bytes after the header.
    pub body: &'a [u8],
}

/// The messages of a datagram; ends after the first error.
#[derive(Clone, Debug)]
pub struct Messages<'a>(Option<Reader<'a>>);

impl<'a> Messages<'a> {
    /// The messages in `datagram`.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Self {
        Self(Some(Reader::new(datagram)))
    }

    fn decode(mut reader: Reader<'a>) -> Result<(Message<'a>, Reader<'a>), CodecError> {
        let (header, port_id, len) = Header::decode(&mut reader)?;
        let body = len.checked_sub(HEADER_LEN).ok_or(CodecError::Truncated {
            what: "nlmsghdr",
            need: HEADER_LEN,
            have: len,
        })?;
        let body = reader.slice("message body", body)?;
        reader.skip_padding(len);
        Ok((Message { header, port_id, body }, reader))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.0.take().filter(|reader| !reader.rest().is_empty())?;
        Some(Self::decode(reader).map(|(message, rest)| {
            self.0 = Some(rest);
            message
        }))
    }
}

/// `struct nfgenmsg`: the fixed body of every netfilter message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NfGenMsg {
    /// `nfgen_family`, an `NFPROTO_*`.
    pub family: u8,
    /// `res_id`: the subsystem for batch messages, the generation's low bits in answers.
    pub resource: u16,
}

impl NfGenMsg {
    /// The body of a request for this family.
    #[must_use]
    pub fn new(family: u8) -> Self {
        Self { family, resource: 0 }
    }

    /// The encoded bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.resource.to_be_bytes();
        [self.family, NFNETLINK_V0, high, low]
    }

    /// Decodes it at the start of a message's body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let [family, _version, high, low] = reader.array("nfgenmsg")?;
        Ok(Self { family, resource: u16::from_be_bytes([high, low]) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Writer;

    proptest! {
        #[test]
        fn encoded_messages_are_decoded(
            messages in prop::collection::vec(
                (any::<(u16, u16, u32)>(), prop::collection::vec(any::<u8>(), 0..40)),
                0..6,
            )
        ) {
            let mut writer = Writer::new();
            for ((message_type, flags, seq), body) in &messages {
                let header = Header { message_type: *message_type, flags: *flags, seq: *seq };
                writer.message(header, |w| w.raw(body));
            }
            let bytes = writer.finish().unwrap();
            let read: Vec<_> = Messages::new(&bytes).map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), messages.len());
            for (message, ((message_type, flags, seq), body)) in read.iter().zip(&messages) {
                let header = Header { message_type: *message_type, flags: *flags, seq: *seq };
                prop_assert_eq!(message.header, header);
                prop_assert_eq!(message.body, &body[..]);
            }
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = Messages::new(&bytes).count();
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let mut writer = Writer::new();
        writer.message(Header::nf_tables(1, 2, 3), |w| w.raw(&NfGenMsg::new(1).to_bytes()));
        let bytes = writer.finish().unwrap();
        for cut in 1..bytes.len() {
            assert!(Messages::new(&bytes[..cut]).any(|message| message.is_err()), "{cut}");
        }
    }
}
