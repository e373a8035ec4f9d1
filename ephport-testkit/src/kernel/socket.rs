//! A socket to the fake kernel.

use std::collections::VecDeque;
use std::fmt;

use ephport_nft::Errno;
use ephport_nft::client::Transport;
use ephport_nft::netlink::{Header, Message, Messages, NetlinkError, NfGenMsg, Writer};
use ephport_nft::uapi::{
    NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFT_MSG_GETGEN, NFT_MSG_NEWGEN, NFTA_GEN_ID,
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR,
    NLMSGERR_ATTR_OFFS,
};

use super::Kernel;
use super::dump::{Dump, Query};
use super::faults::{Fault, Faults};
use super::request::{Failure, Request};

/// The messages of one datagram of a dump, unless [`Socket::with_slices`] says otherwise.
const SLICE: usize = 32;

/// What others do before a call.
type Act = Box<dyn FnMut(&Kernel) + Send>;

/// A socket of nfnetlink. When it is dropped, its tables with the flag `owner` go or become orphans.
pub struct Socket {
    kernel: Kernel,
    port_id: u32,
    slice: usize,
    queue: VecDeque<Vec<u8>>,
    dump: Option<Dump>,
    /// Answers were lost, which the next call reports.
    is_overrun: bool,
    faults: Option<Faults>,
    before_each_call: Option<Act>,
}

impl Socket {
    pub(super) fn new(kernel: Kernel, port_id: u32) -> Self {
        Self {
            kernel,
            port_id,
            slice: SLICE,
            queue: VecDeque::new(),
            dump: None,
            is_overrun: false,
            faults: None,
            before_each_call: None,
        }
    }

    /// The same socket, whose dumps have `count` messages in each datagram.
    #[must_use]
    pub fn with_slices(mut self, count: usize) -> Self {
        self.slice = count.max(1);
        self
    }

    /// The same socket with faults.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = Some(faults);
        self
    }

    /// The same socket: before each of its calls, others act on the kernel through their own sockets.
    #[must_use]
    pub fn before_each_call(mut self, act: impl FnMut(&Kernel) + Send + 'static) -> Self {
        self.before_each_call = Some(Box::new(act));
        self
    }

    /// What precedes each call; an error when the client has ended.
    fn step(&mut self) -> Result<(), Errno> {
        if let Some(act) = &mut self.before_each_call {
            act(&self.kernel);
        }
        self.kernel.lock().tick();
        let (is_dead, is_now) = self.faults.as_mut().map_or((false, false), Faults::is_dead);
        if is_now {
            self.strike(Fault::Death);
        }
        if is_dead { Err(Errno::EBADF) } else { Ok(()) }
    }

    fn strike(&mut self, fault: Fault) {
        self.kernel.lock().struck.push(fault);
    }

    fn batch(&mut self, datagram: &[u8], messages: &[Message<'_>]) -> Result<(), NetlinkError> {
        let operations = messages.len().saturating_sub(2);
        let is_empty = operations == 0;
        let fault = self.faults.as_mut().and_then(|faults| faults.of_batch(operations));
        let fault = fault.filter(|fault| {
            !is_empty || !matches!(fault, Fault::Refused(..) | Fault::EndLost | Fault::SpuriousAcks)
        });
        if let Some(fault) = fault {
            self.strike(fault);
        }
        let (mut sent, mut refused) = (datagram, None);
        match fault {
            Some(Fault::NotSent(errno)) => {
                return Err(NetlinkError::Send { len: datagram.len(), errno });
            }
            Some(Fault::EndLost) => sent = without_end(datagram, messages),
            Some(Fault::Refused(at, errno)) => refused = Some((at, errno)),
            Some(Fault::SpuriousAcks) => {
                refused = Some((operations - 1, Errno::ENOENT));
                for message in messages.iter().filter(|m| m.header.flags & NLM_F_ACK != 0) {
                    self.queue.push_back(acknowledgement(message.header, None));
                }
            }
            _ => {}
        }
        let acks = self.kernel.lock().receive(self.port_id, sent, refused);
        self.queue
            .extend(acks.into_iter().map(|(header, failure)| acknowledgement(header, failure)));
        self.lose(fault);
        Ok(())
    }

    fn lose(&mut self, fault: Option<Fault>) {
        if matches!(fault, Some(Fault::Overrun | Fault::AnswersLost)) {
            self.queue.clear();
            self.is_overrun = fault == Some(Fault::Overrun);
        }
    }

    /// A request that is no batch.
    fn request(&mut self, message: Message<'_>, len: usize) -> Result<(), NetlinkError> {
        let fault = self.faults.as_mut().and_then(Faults::of_dump);
        if let Some(Fault::NotSent(errno)) = fault {
            self.strike(Fault::NotSent(errno));
            return Err(NetlinkError::Send { len, errno });
        }
        let header = message.header;
        match header.nf_tables_message() {
            Some(NFT_MSG_GETGEN) => {
                let generation = self.kernel.lock().generation;
                self.queue.push_back(new_generation(header, generation));
                if header.flags & NLM_F_ACK != 0 {
                    self.queue.push_back(acknowledgement(header, None));
                }
            }
            Some(kind) if header.flags & NLM_F_DUMP == NLM_F_DUMP => {
                self.start_dump(kind, message, fault);
            }
            Some(_) => {
                let failure = Some(Errno::EOPNOTSUPP.into());
                self.queue.push_back(acknowledgement(header, failure));
            }
            // Another subsystem: it has no objects.
            None => self.queue.push_back(done(header, None)),
        }
        if fault == Some(Fault::AnswersLost) {
            self.strike(Fault::AnswersLost);
            self.queue.clear();
            self.dump = None;
        }
        Ok(())
    }

    fn start_dump(&mut self, kind: u16, message: Message<'_>, fault: Option<Fault>) {
        let header = message.header;
        if self.dump.is_some() {
            return self.queue.push_back(acknowledgement(header, Some(Errno::EBUSY.into())));
        }
        if let Some(Fault::DumpFailed(errno)) = fault {
            self.strike(Fault::DumpFailed(errno));
            return self.queue.push_back(done(header, Some(errno)));
        }
        let state = self.kernel.lock();
        let started = Request::parse(message)
            .and_then(|request| Dump::new(header, Query::of(kind, &request), state.now()));
        drop(state);
        match started {
            Ok(dump) => {
                self.dump = Some(dump);
                self.next_slice();
                self.repeat(fault);
            }
            Err(failure) => self.queue.push_back(acknowledgement(header, Some(failure))),
        }
    }

    /// The transaction that another process prepares moves the objects of the next slice.
    fn repeat(&mut self, fault: Option<Fault>) {
        let Some(dump) = self.dump.as_mut().filter(|dump| dump.sent > 0) else { return };
        if fault == Some(Fault::Repeated) {
            dump.sent -= 1;
            self.strike(Fault::Repeated);
        }
    }

    fn next_slice(&mut self) {
        let state = self.kernel.lock();
        let Some(dump) = &mut self.dump else { return };
        let (datagram, is_last) = dump.slice(self.slice, state.now());
        drop(state);
        if is_last {
            self.dump = None;
        }
        self.queue.push_back(datagram);
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.step().map_err(|errno| NetlinkError::Receive { errno })?;
        let fault = self.faults.as_mut().and_then(Faults::of_receive);
        if let Some(fault) = fault {
            self.strike(fault);
            if let Fault::NotReceived(errno) = fault {
                return Err(NetlinkError::Receive { errno });
            }
            self.lose(Some(fault));
        }
        if std::mem::take(&mut self.is_overrun) {
            return Err(NetlinkError::Receive { errno: Errno::ENOBUFS });
        }
        if self.queue.is_empty() {
            self.next_slice();
        }
        Ok(self.queue.pop_front())
    }
}

impl Transport for Socket {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let len = datagram.len();
        self.step().map_err(|errno| NetlinkError::Send { len, errno })?;
        let messages: Vec<_> = Messages::new(datagram).map_while(Result::ok).collect();
        match messages.first() {
            None => Ok(()),
            Some(first) if first.header.message_type == NFNL_MSG_BATCH_BEGIN => {
                self.batch(datagram, &messages)
            }
            Some(first) => self.request(*first, len),
        }
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.next()
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        self.next()?.ok_or(NetlinkError::Silent { seconds: 0 })
    }

    fn port_id(&self) -> Option<u32> {
        Some(self.port_id)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.kernel.lock().close(self.port_id);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("port_id", &self.port_id).finish_non_exhaustive()
    }
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().unwrap_or_default()
}

/// `netlink_ack`, for a socket with NETLINK_EXT_ACK and NETLINK_CAP_ACK.
fn acknowledgement(request: Header, failure: Option<Failure>) -> Vec<u8> {
    let offset = failure.and_then(|failure| failure.offset);
    let flags = NLM_F_CAPPED | if offset.is_some() { NLM_F_ACK_TLVS } else { 0 };
    let code = failure.map_or(0, |failure| -failure.errno.raw());
    written(|w| {
        w.message(Header { message_type: NLMSG_ERROR, flags, seq: request.seq }, |w| {
            w.raw(&code.to_ne_bytes());
            w.message(request, |_| {});
            if let Some(offset) = offset {
                w.u32_ne(NLMSGERR_ATTR_OFFS, offset);
            }
        });
    })
}

fn new_generation(request: Header, generation: u32) -> Vec<u8> {
    written(|w| {
        w.message(Header::nf_tables(NFT_MSG_NEWGEN, 0, request.seq), |w| {
            w.raw(&NfGenMsg::new(0).to_bytes());
            w.u32_be(NFTA_GEN_ID, generation);
        });
    })
}

/// The end of a dump.
fn done(request: Header, errno: Option<Errno>) -> Vec<u8> {
    let code = errno.map_or(0, |errno| -errno.raw());
    written(|w| {
        let header = Header { message_type: NLMSG_DONE, flags: NLM_F_MULTI, seq: request.seq };
        w.message(header, |w| w.raw(&code.to_ne_bytes()));
    })
}

/// The datagram without its last message, if that ends the batch.
fn without_end<'a>(datagram: &'a [u8], messages: &[Message<'_>]) -> &'a [u8] {
    let last = messages.last().filter(|last| last.header.message_type == NFNL_MSG_BATCH_END);
    let len = last.map_or(0, |last| last.body.len() + 16);
    datagram.get(..datagram.len().saturating_sub(len)).unwrap_or(datagram)
}
