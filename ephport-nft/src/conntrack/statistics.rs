//! The kernel's counts of connection tracking in one network namespace.

use super::{ConntrackError, header};
use crate::netlink::{CodecError, NfGenMsg, Reader, Socket, Transport, Writer, dump};
use crate::uapi::{
    CTA_STATS_DROP, CTA_STATS_EARLY_DROP, CTA_STATS_FOUND, CTA_STATS_GLOBAL_ENTRIES,
    CTA_STATS_GLOBAL_MAX_ENTRIES, CTA_STATS_INSERT_FAILED, CTA_STATS_INVALID,
    IPCTNL_MSG_CT_GET_STATS, IPCTNL_MSG_CT_GET_STATS_CPU, NFPROTO_UNSPEC, NLM_F_ACK, NLM_F_DUMP,
    NLM_F_REQUEST,
};

/// The counts of a network namespace. The counters are sums over all processors since the namespace
/// was made; each is a 32-bit number a processor, and wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The connections in the table.
    pub entries: u32,
    /// The connections that the table may contain (`net.netfilter.nf_conntrack_max`); since Linux 4.18.
    pub max_entries: Option<u32>,
    /// The packets for which an entry was found.
    pub found: u64,
    /// The packets in state INVALID.
    pub invalid: u64,
    /// The connections that were not inserted because another one had the same tuple. Source NAT
    /// that found no free port ends so, and the packet is dropped.
    pub insert_failed: u64,
    /// The packets that were dropped because their connection was not inserted.
    pub drop: u64,
    /// The connections that were removed early because the table was full.
    pub early_drop: u64,
}

impl Statistics {
    /// Reads the counts of this thread's network namespace.
    pub fn read() -> Result<Self, ConntrackError> {
        Self::read_over(&mut Socket::netfilter()?)
    }

    /// Reads the counts over `transport`.
    pub fn read_over(transport: &mut impl Transport) -> Result<Self, ConntrackError> {
        let mut statistics = Self::default();
        // Acknowledged, because the answer is one message without an end.
        let request = request(IPCTNL_MSG_CT_GET_STATS, NLM_F_REQUEST | NLM_F_ACK, 1)?;
        dump(transport, &request, 1, |kind, body| {
            if kind == header(IPCTNL_MSG_CT_GET_STATS, 0, 0).message_type {
                statistics.read_global(body)?;
            }
            Ok(())
        })?;
        let request = self::request(IPCTNL_MSG_CT_GET_STATS_CPU, NLM_F_REQUEST | NLM_F_DUMP, 2)?;
        dump(transport, &request, 2, |kind, body| {
            if kind == header(IPCTNL_MSG_CT_GET_STATS_CPU, 0, 0).message_type {
                statistics.add_processor(body)?;
            }
            Ok(())
        })?;
        Ok(statistics)
    }

    fn read_global(&mut self, body: &[u8]) -> Result<(), CodecError> {
        let mut reader = Reader::new(body);
        NfGenMsg::decode(&mut reader)?;
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.attribute_type {
                CTA_STATS_GLOBAL_ENTRIES => self.entries = attr.u32_be()?,
                CTA_STATS_GLOBAL_MAX_ENTRIES => self.max_entries = Some(attr.u32_be()?),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_processor(&mut self, body: &[u8]) -> Result<(), CodecError> {
        let mut reader = Reader::new(body);
        NfGenMsg::decode(&mut reader)?;
        for attr in reader.attrs() {
            let attr = attr?;
            let counter = match attr.attribute_type {
                CTA_STATS_FOUND => &mut self.found,
                CTA_STATS_INVALID => &mut self.invalid,
                CTA_STATS_INSERT_FAILED => &mut self.insert_failed,
                CTA_STATS_DROP => &mut self.drop,
                CTA_STATS_EARLY_DROP => &mut self.early_drop,
                _ => continue,
            };
            *counter += u64::from(attr.u32_be()?);
        }
        Ok(())
    }
}

fn request(message: u16, flags: u16, seq: u32) -> Result<Vec<u8>, CodecError> {
    let mut w = Writer::new();
    let body = NfGenMsg::new(NFPROTO_UNSPEC).to_bytes();
    w.message(header(message, flags, seq), |w| w.raw(&body));
    w.finish()
}
