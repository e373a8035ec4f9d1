//! A fault at any call between the client and the kernel: the result is true.

mod scripted;

use ephport_nft::Errno;
use ephport_nft::netlink::{NetlinkError, Transport};
use ephport_nft::table::Normalized;
use ephport_nft::{Applied, Client, Error, Installed, TableState};
use scripted::{BatchFault, Kernel, ListFault, ruleset};

/// Every error number of errno(3) on Linux.
fn errnos() -> impl Iterator<Item = Errno> {
    (1..=133).map(Errno::from_raw)
}

/// What happens at one call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It fails; what is queued stays queued.
    Fails(Errno),
    /// It fails, and all that was queued is lost.
    Loses(Errno),
    /// All that was queued is lost without a word.
    LosesSilently,
    /// The datagram does not fit the buffer.
    Cut,
    /// What comes is not netlink.
    Garbage,
}

/// A kernel whose connection has one fault, at the call with this number.
struct Faulty<'a> {
    kernel: &'a mut Kernel,
    calls: u32,
    at: u32,
    fault: Fault,
}

impl Faulty<'_> {
    fn strikes(&mut self) -> bool {
        self.calls += 1;
        assert!(self.calls < 1000, "it never ends");
        self.calls == self.at
    }

    /// The result of a call that receives, if the fault strikes: then the kernel is not asked.
    fn fault(&mut self) -> Option<Result<Option<Vec<u8>>, NetlinkError>> {
        if !self.strikes() {
            return None;
        }
        if matches!(self.fault, Fault::Loses(_) | Fault::LosesSilently) {
            self.kernel.answers.clear();
        }
        Some(match self.fault {
            Fault::Fails(errno) | Fault::Loses(errno) => Err(NetlinkError::Receive { errno }),
            Fault::LosesSilently => Ok(None),
            Fault::Cut => Err(NetlinkError::Cut { room: 65_536 }),
            Fault::Garbage => Ok(Some(vec![3; 21])),
        })
    }
}

impl Transport for &mut Faulty<'_> {
    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let len = datagram.len();
        if self.strikes() {
            match self.fault {
                Fault::Fails(errno) => return Err(NetlinkError::Send { len, errno }),
                Fault::Cut => return Err(NetlinkError::TooLarge { len, room: 20 }),
                _ => {}
            }
        }
        (&mut *self.kernel).send(datagram)
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.fault().unwrap_or_else(|| (&mut *self.kernel).poll())
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        match self.fault() {
            Some(received) => received?.ok_or(NetlinkError::Silent { seconds: 10 }),
            None => (&mut *self.kernel).receive(),
        }
    }
}

/// What the client is asked to do.
#[derive(Clone, Copy, Debug)]
enum Task {
    Read,
    Apply,
    Remove,
}

/// The kernel's table before, the desired one, and the kernel's table after.
struct Tables<'a> {
    before: Option<Normalized<'a>>,
    desired: Normalized<'a>,
    after: Option<Normalized<'a>>,
}

/// Does the task; what was read, if that was the task.
fn perform(
    task: Task,
    transport: impl Transport,
    desired: &TableState,
) -> Result<Option<Installed>, Error> {
    let mut nft = Client::with_transport(transport);
    match task {
        Task::Read => nft.installed().map(Some),
        Task::Apply => nft.apply(desired).map(|_| None),
        Task::Remove => nft.remove().map(|_| None),
    }
}

fn is_true(task: Task, verdict: &Result<Option<Installed>, Error>, tables: &Tables<'_>) -> bool {
    let Tables { before, desired, after } = tables;
    match (task, verdict) {
        (Task::Read, Ok(Some(Installed::Absent))) => after.is_none() && before.is_none(),
        (Task::Read, Ok(Some(Installed::Ours { ruleset, intact: true, .. }))) => {
            *after == Some(ruleset.normalized()) && after == before
        }
        (Task::Apply, Ok(None)) => after.as_ref() == Some(desired),
        (Task::Remove, Ok(None)) => after.is_none(),
        (Task::Apply, Err(Error::Unconfirmed)) => {
            after == before || after.as_ref() == Some(desired)
        }
        (Task::Remove, Err(Error::Unconfirmed)) => after == before || after.is_none(),
        (_, Err(_)) => after == before,
        _ => false,
    }
}

/// The three tasks with a kernel without a table, with another one, and with the desired one.
fn tasks() -> impl Iterator<Item = (Task, Option<TableState>, TableState)> {
    let (other, desired) = (ruleset("1024-2047,3000-3999"), ruleset("49152-61000"));
    [Task::Read, Task::Apply, Task::Remove].into_iter().flat_map(move |task| {
        [None, Some(other.clone()), Some(desired.clone())].map(|held| (task, held, desired.clone()))
    })
}

/// How each task ends with `fault` at call 1, 2, 3 and so on, until it comes too late to strike.
fn at_every_call(
    fault: Fault,
    mut check: impl FnMut(Task, u32, &Result<Option<Installed>, Error>, &Tables<'_>),
) -> u32 {
    let mut struck = 0;
    for (task, held, desired) in tasks() {
        for at in 1.. {
            let mut kernel = Kernel { ruleset: held.clone(), ..Kernel::default() };
            let mut transport = Faulty { kernel: &mut kernel, calls: 0, at, fault };
            let verdict = perform(task, &mut transport, &desired);
            if transport.calls < at {
                break;
            }
            let after = kernel.ruleset.as_ref().map(TableState::normalized);
            let before = held.as_ref().map(TableState::normalized);
            check(task, at, &verdict, &Tables { before, desired: desired.normalized(), after });
            struck += 1;
        }
    }
    struck
}

#[test]
fn no_fault_at_any_call_lies() {
    let faults = errnos().map(Fault::Fails);
    let lost = [Fault::Loses(Errno::ENOBUFS), Fault::LosesSilently, Fault::Cut, Fault::Garbage];
    let mut struck = 0;
    for fault in faults.chain(lost) {
        struck += at_every_call(fault, |task, at, verdict, tables| {
            assert!(is_true(task, verdict, tables), "{fault:?} at {at}: {task:?}: {verdict:?}");
            // After a single fault the ruleset always shows the result.
            assert_ne!(*verdict, Err(Error::Unconfirmed), "{fault:?} at {at}: {task:?}");
        });
    }
    assert!(struck > 5_000, "{struck}");
}

#[test]
fn committed_transaction_without_its_answer_is_a_success() {
    for fault in [Fault::Loses(Errno::ENOBUFS), Fault::LosesSilently, Fault::Cut] {
        let mut carried_out = 0;
        at_every_call(fault, |task, at, verdict, tables| {
            if tables.after != tables.before {
                assert_eq!(*verdict, Ok(None), "{fault:?} at {at}: {task:?}");
                carried_out += 1;
            }
        });
        // Of the four tasks that change something, each at its poll for answers at least.
        assert!(carried_out >= 4, "{fault:?}: {carried_out}");
    }
}

/// A kernel that loses its answer to a transaction, and then answers nothing more.
#[test]
fn unreadable_ruleset_after_a_transaction_is_unconfirmed() {
    struct DeadAfterBatch(Kernel);
    impl Transport for DeadAfterBatch {
        fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
            (&mut self.0).send(datagram)
        }
        fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
            match self.0.batches {
                0 => (&mut self.0).poll(),
                _ => Err(NetlinkError::Receive { errno: Errno::ENOBUFS }),
            }
        }
        fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
            match self.0.batches {
                0 => (&mut self.0).receive(),
                _ => Err(NetlinkError::Silent { seconds: 10 }),
            }
        }
    }
    let error = Client::with_transport(DeadAfterBatch(Kernel::default()))
        .apply(&ruleset("49152-61000"))
        .unwrap_err();
    assert_eq!(error, Error::Unconfirmed);
}

#[test]
fn rejected_transactions_change_nothing() {
    let desired = ruleset("49152-61000");
    let operations = 5;
    // ERESTART is retried.
    for errno in errnos().filter(|errno| *errno != Errno::ERESTART) {
        for (at, acked) in (0..=operations).flat_map(|at| [(at, false), (at, true)]) {
            let batch_faults = [BatchFault::Fails { at: vec![(at, errno)], acked }].into();
            let mut kernel = Kernel { batch_faults, ..Kernel::default() };
            let verdict = Client::with_transport(&mut kernel).apply(&desired);
            assert!(verdict.is_err(), "{errno} at {at}");
            assert_eq!((kernel.ruleset, kernel.batches), (None, 1), "{errno} at {at}");
        }
    }
}

#[test]
fn refused_dumps_are_errors_or_retried() {
    let desired = ruleset("49152-61000");
    for errno in errnos() {
        for place in 0..4 {
            let interrupted = (0..place).map(|_| ListFault::Interrupted);
            let list_faults = interrupted.chain([ListFault::Refused(errno)]).collect();
            let ruleset = Some(desired.clone());
            let mut kernel = Kernel { ruleset, list_faults, ..Kernel::default() };
            let verdict = Client::with_transport(&mut kernel).apply(&desired);
            assert!(matches!(verdict, Ok(Applied::Unchanged) | Err(_)), "{errno}: {verdict:?}");
            assert_ne!(verdict, Err(Error::Unconfirmed), "{errno}");
            let held = kernel.ruleset.as_ref().map(TableState::normalized);
            assert_eq!((held, kernel.batches), (Some(desired.normalized()), 0));
        }
    }
}
