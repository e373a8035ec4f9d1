//! The kernel's answer to a request: `struct nlmsgerr` with its extended attributes.

use super::{CodecError, Errno, Message, Reader};
use crate::uapi::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS};

/// Length of `struct nlmsghdr`, which an answer quotes from its request.
const QUOTED_HEADER: usize = 16;

/// The kernel's answer to the request with number `seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The number of the request.
    pub seq: u32,
    /// The failure, or `None` for success.
    pub errno: Option<Errno>,
    /// `NLMSGERR_ATTR_MSG`: a text. nf_tables rarely sends one.
    pub message: Option<String>,
    /// `NLMSGERR_ATTR_OFFS`: the offset of the fault, in bytes from the start of the request.
    pub offset: Option<u32>,
}

impl Ack {
    /// Decodes an `NLMSG_ERROR` message. The sequence number is that of the quoted request.
    pub fn decode(message: Message<'_>) -> Result<Self, CodecError> {
        let mut reader = Reader::new(message.body);
        let code = i32::from_ne_bytes(reader.array("nlmsgerr")?);
        let quoted_len = reader.u32_ne("quoted nlmsghdr")?;
        let _type_and_flags = reader.u32_ne("quoted nlmsghdr")?;
        let seq = reader.u32_ne("quoted nlmsghdr")?;
        let _port_id = reader.u32_ne("quoted nlmsghdr")?;
        let errno = Errno::from_answer(code);
        let mut ack = Self { seq, errno, message: None, offset: None };
        if message.header.flags & NLM_F_ACK_TLVS != 0 {
            if message.header.flags & NLM_F_CAPPED == 0 {
                let quoted_len = usize::try_from(quoted_len).unwrap_or(usize::MAX);
                let quoted = quoted_len.saturating_sub(QUOTED_HEADER);
                reader.slice("quoted request", quoted)?;
                reader.skip_padding(quoted);
            }
            ack.decode_extended(reader)?;
        }
        Ok(ack)
    }

    fn decode_extended(&mut self, reader: Reader<'_>) -> Result<(), CodecError> {
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.attribute_type {
                NLMSGERR_ATTR_MSG => self.message = Some(attr.string()?.into()),
                NLMSGERR_ATTR_OFFS => self.offset = Some(attr.u32_ne()?),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Header, Messages, Writer};
    use crate::uapi::NLMSG_ERROR;

    /// An answer as the kernel sends it: code, the quoted request, then the extended attributes.
    fn answer(flags: u16, code: i32, quoted_body: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.message(Header { message_type: NLMSG_ERROR, flags, seq: 7 }, |w| {
            w.raw(&code.to_ne_bytes());
            w.message(Header::nf_tables(6, 1, 7), |w| w.raw(quoted_body));
            w.u32_ne(NLMSGERR_ATTR_OFFS, 48);
            w.string(NLMSGERR_ATTR_MSG, "no");
        });
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Ack, CodecError> {
        Ack::decode(Messages::new(bytes).next().unwrap()?)
    }

    #[test]
    fn extended_answers_follow_the_quoted_request() {
        let expected = Ack {
            seq: 7,
            errno: Some(Errno::EINVAL),
            message: Some("no".into()),
            offset: Some(48),
        };
        assert_eq!(read(&answer(NLM_F_ACK_TLVS, -22, &[1, 2, 3, 4, 5])), Ok(expected.clone()));
        assert_eq!(read(&answer(NLM_F_ACK_TLVS | NLM_F_CAPPED, -22, &[])), Ok(expected));
    }

    #[test]
    fn without_flag_header_ends_the_ack() {
        let expected = Ack { seq: 7, errno: None, message: None, offset: None };
        assert_eq!(read(&answer(0, 0, &[])), Ok(expected));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = answer(NLM_F_ACK_TLVS, -22, &[1, 2, 3, 4]);
        for cut in 1..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
