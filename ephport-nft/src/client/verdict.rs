//! The result of a batch.

use super::error::{Cause, Error, Rejection};
use super::location::RequestLocation;
use super::module::Module;
use super::request::Request;
use crate::log;
use crate::netlink::{Ack, Errno};
use crate::plan::transaction::Batch;

/// The meaning of the kernel's answers to the batch that began at `seq`.
pub(super) fn verdict(batch: &Batch, seq: u32, answers: &[Ack]) -> Result<CommitResult, Error> {
    // Others are late answers to earlier requests.
    let answers = answers.iter().filter(|ack| ack.seq.wrapping_sub(seq) <= batch.len());
    // An operation that fails makes later ones fail: the first failure is the cause.
    let failures = answers.clone().filter(|ack| ack.errno.is_some());
    let Some(failure) = failures.min_by_key(|ack| ack.seq.wrapping_sub(seq)) else {
        let last = seq.wrapping_add(batch.len());
        let confirmed = answers.clone().any(|ack| ack.seq == last);
        return Ok(if confirmed {
            CommitResult::Committed
        } else {
            CommitResult::Unclear(Error::Dropped)
        });
    };
    let index = failure.seq.wrapping_sub(seq).checked_sub(1);
    let index = index.and_then(|index| usize::try_from(index).ok());
    let operation = index.and_then(|index| batch.operations().get(index));
    match (failure.errno.unwrap_or(Errno::EIO), operation) {
        (Errno::ERESTART, _) => Ok(CommitResult::Outdated),
        // Without the capability the kernel processes no operation.
        (Errno::EPERM, None) => Err(Error::NotPermitted { task: "changing" }),
        (Errno::EPERM, Some(operation)) => {
            Err(Error::Owned { table: operation.table().into(), port_id: None })
        }
        (Errno::EOPNOTSUPP, None) => Err(Error::NoNfTables),
        (errno, _) => Err(refused(batch, errno, index, failure)),
    }
}

fn refused(batch: &Batch, errno: Errno, index: Option<usize>, failure: &Ack) -> Error {
    let request = Request::at(batch.operations(), index);
    let operation = index.and_then(|index| batch.operations().get(index));
    let message = operation.and_then(|operation| operation.message(failure.seq).ok());
    let location = failure.offset.zip(message);
    let location = location.and_then(|(offset, message)| RequestLocation::at(offset, &message));
    let missing = operation.filter(|_| errno == Errno::ENOENT);
    let error = match missing.and_then(|operation| Module::missing(operation, location.as_ref())) {
        Some(module) => Error::NoModule { request, module },
        None => Error::Rejected(Box::new(Rejection {
            cause: Cause::of(&request, errno, location.as_ref()),
            request,
            errno,
            message: failure.message.clone(),
            offset: failure.offset,
            location,
        })),
    };
    log::refusal(&error);
    error
}

/// The result of a batch without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommitResult {
    /// It was committed.
    Committed,
    /// It was not: another process changed the ruleset since its generation was read.
    Outdated,
    /// Only the ruleset shows it; the error is for the case that it was not committed.
    Unclear(Error),
}
