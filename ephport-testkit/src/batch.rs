//! Datagrams of any messages, also of wrong ones.

use ephport_nft::CodecError;
use ephport_nft::netlink::{Header, NfGenMsg, Writer};
use ephport_nft::uapi::{
    NFNL_BATCH_GENID, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES,
    NFPROTO_UNSPEC, NLM_F_ACK, NLM_F_REQUEST,
};

/// A batch of nf_tables messages, for a [`Transport`](ephport_nft::client::Transport) to the fake kernel or to
/// a real one.
///
/// ```
/// use ephport_nft::client::Transport;
/// use ephport_nft::nftables::Table;
/// use ephport_nft::uapi::{NFPROTO_INET, NFT_MSG_NEWTABLE, NLM_F_CREATE};
/// use ephport_testkit::{Batch, Kernel};
///
/// let kernel = Kernel::new();
/// let mut batch = Batch::new(1, None);
/// batch.push(NFT_MSG_NEWTABLE, NLM_F_CREATE, |w| Table::new(NFPROTO_INET, "t").encode(w));
/// kernel.socket().send(&batch.finish()?)?;
/// assert!(kernel.table("t").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    w: Writer,
    seq: u32,
}

impl Batch {
    /// A batch whose beginning has the sequence number `seq`. The kernel accepts it at this generation only,
    /// or at any.
    #[must_use]
    pub fn new(seq: u32, generation: Option<u32>) -> Self {
        let mut batch = Self { w: Writer::new(), seq };
        batch.bound(NFNL_MSG_BATCH_BEGIN, |w| {
            if let Some(generation) = generation {
                w.u32_be(NFNL_BATCH_GENID, generation);
            }
        });
        batch
    }

    fn bound(&mut self, message_type: u16, attributes: impl FnOnce(&mut Writer)) {
        let header = Header { message_type, flags: NLM_F_REQUEST, seq: self.seq };
        let body = NfGenMsg { family: NFPROTO_UNSPEC, resource: NFNL_SUBSYS_NFTABLES };
        self.w.message(header, |w| {
            w.raw(&body.to_bytes());
            attributes(w);
        });
    }

    /// Adds a message, an `NFT_MSG_*`, with these `NLM_F_*` beside those of each request that asks for an
    /// acknowledgement. `body` begins with `struct nfgenmsg`.
    pub fn push(&mut self, message: u16, flags: u16, body: impl FnOnce(&mut Writer)) {
        self.seq = self.seq.wrapping_add(1);
        let flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        self.w.message(Header::nf_tables(message, flags, self.seq), body);
    }

    /// The datagram.
    ///
    /// # Errors
    /// A length that does not fit its field.
    pub fn finish(mut self) -> Result<Vec<u8>, CodecError> {
        self.seq = self.seq.wrapping_add(1);
        self.bound(NFNL_MSG_BATCH_END, |_| {});
        self.w.finish()
    }
}
