//! What goes wrong between a client and its kernel, by a seed.

use ephport_nft::Errno;

use crate::Random;

/// A fault, as it struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The datagram was not sent.
    NotSent(Errno),
    /// The kernel refused the operation with this index.
    Refused(usize, Errno),
    /// The end of the batch was lost: the kernel acknowledged it and committed nothing.
    EndLost,
    /// Answers did not fit in the buffer: the next call reports it, ENOBUFS.
    Overrun,
    /// Answers were lost without a report.
    AnswersLost,
    /// The kernel acknowledged every operation before it reported failures, as 6.16.12 does when it loads a
    /// module.
    SpuriousAcks,
    /// The dump ended with an error.
    DumpFailed(Errno),
    /// The dump listed objects twice: another transaction was prepared between two slices.
    Repeated,
    /// The call that receives failed.
    NotReceived(Errno),
    /// The client ended: no call reaches the kernel any more.
    Death,
}

/// Faults at random calls.
#[derive(Clone, Debug)]
pub struct Faults {
    random: Random,
    per_mille: u32,
    /// Whether the end of a batch can be lost.
    loses_ends: bool,
    /// The calls until the client ends.
    until_death: Option<u32>,
}

/// Errors of operations that a kernel short of memory, modules or features has.
const REFUSALS: [Errno; 6] =
    [Errno::ENOMEM, Errno::ENOENT, Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EBUSY, Errno::EEXIST];

/// Errors of the calls of a socket.
const CALLS: [Errno; 5] =
    [Errno::ENOBUFS, Errno::ENOMEM, Errno::EINTR, Errno::EIO, Errno::ECONNREFUSED];

impl Faults {
    /// Faults in about `per_mille` of 1000 calls, as the seed decides.
    #[must_use]
    pub fn new(seed: u64, per_mille: u32) -> Self {
        Self { random: Random::new(seed), per_mille, loses_ends: true, until_death: None }
    }

    /// The same without [`Fault::EndLost`]: no kernel loses a part of a datagram, and with a commit of another
    /// process at the same time nothing distinguishes it from a success.
    #[must_use]
    pub fn with_whole_batches(self) -> Self {
        Self { loses_ends: false, ..self }
    }

    /// The same, and the client ends after this count of calls.
    #[must_use]
    pub fn with_death(self, calls: u32) -> Self {
        Self { until_death: Some(calls), ..self }
    }

    /// Whether the client has ended, or ends at this call; and whether this is the call.
    pub(super) fn is_dead(&mut self) -> (bool, bool) {
        match &mut self.until_death {
            None => (false, false),
            Some(u32::MAX) => (true, false),
            Some(0) => {
                self.until_death = Some(u32::MAX);
                (true, true)
            }
            Some(left) => {
                *left -= 1;
                (false, false)
            }
        }
    }

    /// The fault of a batch of so many operations, if there is one.
    pub(super) fn of_batch(&mut self, operations: usize) -> Option<Fault> {
        self.random.chance(self.per_mille).then(|| match self.random.below(6) {
            0 => Fault::NotSent(self.errno(&CALLS)),
            1 if self.loses_ends => Fault::EndLost,
            2 => Fault::Overrun,
            1 | 3 => Fault::AnswersLost,
            kind => {
                let (at, errno) = (self.random.below(operations), self.errno(&REFUSALS));
                self.is_spurious(kind == 4, Fault::Refused(at, errno))
            }
        })
    }

    fn is_spurious(&mut self, may_be: bool, fault: Fault) -> Fault {
        if may_be && self.random.chance(300) { Fault::SpuriousAcks } else { fault }
    }

    /// The fault of a request for a dump.
    pub(super) fn of_dump(&mut self) -> Option<Fault> {
        self.random.chance(self.per_mille).then(|| match self.random.below(4) {
            0 => Fault::NotSent(self.errno(&CALLS)),
            1 => Fault::DumpFailed(self.errno(&CALLS)),
            2 => Fault::AnswersLost,
            _ => Fault::Repeated,
        })
    }

    /// The fault of a call that receives.
    pub(super) fn of_receive(&mut self) -> Option<Fault> {
        let is_struck = self.random.chance(self.per_mille / 4);
        is_struck.then(|| match self.random.below(3) {
            0 => Fault::Overrun,
            _ => Fault::NotReceived(self.errno(&CALLS)),
        })
    }

    fn errno(&mut self, errnos: &[Errno]) -> Errno {
        self.random.pick(errnos).copied().unwrap_or(Errno::EIO)
    }
}
