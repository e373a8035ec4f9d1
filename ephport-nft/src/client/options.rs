//! How a client and its events are opened, and what bounds their calls.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::events::{Events, watching};
use super::{Client, Error};
use crate::netlink::{Interrupt, Limit, Namespace, Socket, Transport};

/// The maximum count of attempts to change the ruleset while other processes change it too.
///
/// In each attempt at least one other process succeeded, so that all of many concurrent writers finish;
/// the bound only ends an endless race.
const MAX_TRIES: u32 = 128;

/// How a [`Client`] or [`Events`] are opened.
///
/// Once a call has sent a transaction, neither deadline nor interrupt ends it before its result is known. So after
/// [`Error::DeadlineExceeded`], [`Error::Cancelled`] and [`Error::Busy`] the kernel's ruleset is as before.
///
/// ```no_run
/// use std::time::Duration;
///
/// use ephport_nft::client::{Interrupt, Options};
/// use ephport_nft::{Client, Namespace};
///
/// let interrupt = Interrupt::new()?;
/// let namespace = Namespace::open("/run/netns/blue")?;
/// let mut client = Options::new()
///     .in_namespace(&namespace)
///     .deadline(Duration::from_secs(2))
///     .tries(16.try_into()?)
///     .interrupted_by(&interrupt)
///     .open()?;
/// println!("{:?}", client.installed()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options<'a> {
    namespace: Option<&'a Namespace>,
    receive_buffer: Option<usize>,
    bounds: Bounds,
}

/// What bounds each call of a client.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    deadline: Option<Duration>,
    pub(super) tries: u32,
    interrupt: Option<Interrupt>,
    /// The call in progress, if there is one.
    call: Option<Call>,
}

/// A call in progress.
#[derive(Clone, Copy, Debug)]
struct Call {
    until: Option<Instant>,
    /// Whether it sent a transaction: it then continues until its result is known.
    has_sent: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { deadline: None, tries: MAX_TRIES, interrupt: None, call: None }
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Options<'a> {
    /// This thread's network namespace, at most 128 attempts and no deadline.
    pub fn new() -> Self {
        Self { namespace: None, receive_buffer: None, bounds: Bounds::default() }
    }

    /// In this network namespace. [`Namespace::run`] names what that needs.
    pub fn in_namespace(self, namespace: &'a Namespace) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// A receive buffer of this many bytes: SO_RCVBUF, which `net.core.rmem_max` bounds without CAP_NET_ADMIN. The
    /// default is the kernel's for a client, and 4 MiB for events.
    pub fn receive_buffer(self, bytes: usize) -> Self {
        Self { receive_buffer: Some(bytes), ..self }
    }

    /// End each call that has not sent a transaction after this time: [`Error::DeadlineExceeded`].
    ///
    /// It is compared before each attempt and in each wait. What the kernel is doing continues: a dump is read to
    /// its end, and a transaction that was sent is awaited. [`Events`] have no deadline:
    /// [`Events::next_within`] has a time of its own.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.bounds.deadline = Some(time);
        self
    }

    /// At most this many attempts to read or change the ruleset while other processes change it; 128 by
    /// default. Then the call ends with [`Error::Busy`].
    pub fn tries(mut self, tries: NonZeroU32) -> Self {
        self.bounds.tries = tries.get();
        self
    }

    /// End calls and waits when another thread raises this interrupt. As for a deadline, a transaction that was
    /// sent is awaited.
    pub fn interrupted_by(mut self, interrupt: &Interrupt) -> Self {
        self.bounds.interrupt = Some(interrupt.clone());
        self
    }

    /// Open a client.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::Namespace`].
    pub fn open(self) -> Result<Client, Error> {
        let sockets = || (Socket::netfilter(), Socket::sock_diag());
        let (socket, sockets) = match self.namespace {
            Some(namespace) => namespace.run(sockets)?,
            None => sockets(),
        };
        let mut client = Client { sockets: Some(sockets), ..Client::with_transport(socket?) };
        if let Some(namespace) = self.namespace {
            client.namespace = Some(namespace.try_clone()?);
        }
        if let Some(bytes) = self.receive_buffer {
            client.transport.make_receive_room(bytes);
        }
        client.bounds = self.bounds;
        Ok(client)
    }

    /// Open the events of the network namespace from now on, with the objects of the default table decoded.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::Netlink`], [`Error::Namespace`].
    pub fn events(self) -> Result<Events, Error> {
        let socket = match self.namespace {
            Some(namespace) => namespace.run(Socket::nf_tables_events)?,
            None => Socket::nf_tables_events(),
        };
        let mut socket = socket.map_err(watching)?;
        if let Some(bytes) = self.receive_buffer {
            socket.make_receive_room(bytes);
        }
        let interrupt = self.bounds.interrupt;
        socket.set_limit(Limit { until: None, interrupt: interrupt.clone() });
        Ok(Events::with_transport(socket).interrupted_by(interrupt))
    }

    /// A client over a substitute of the kernel. It does not consider connections that are open.
    pub fn with_transport<T: Transport>(self, transport: T) -> Client<T> {
        Client { bounds: self.bounds, ..Client::with_transport(transport) }
    }
}

impl<T: Transport> Client<T> {
    /// Runs a call whose deadline begins now, unless it is a part of another one.
    pub(super) fn bounded<R>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if self.bounds.call.is_some() {
            return call(self);
        }
        let until = self.bounds.deadline.and_then(|time| Instant::now().checked_add(time));
        self.bounds.call = Some(Call { until, has_sent: false });
        self.transport.set_limit(self.limit());
        let result = call(self);
        self.bounds.call = None;
        self.transport.set_limit(Limit::default());
        result
    }

    /// Whether a call is in progress.
    pub(super) fn is_in_call(&self) -> bool {
        self.bounds.call.is_some()
    }

    /// What ends the waits of the call in progress: nothing once it has sent a transaction.
    fn limit(&self) -> Limit {
        match self.bounds.call {
            Some(Call { until, has_sent: false }) => {
                Limit { until, interrupt: self.bounds.interrupt.clone() }
            }
            _ => Limit::default(),
        }
    }

    /// Whether the call in progress may continue.
    pub(super) fn check_limit(&self) -> Result<(), Error> {
        Ok(self.limit().check()?)
    }

    /// Lets the call in progress wait for the result of a transaction that is sent now.
    pub(super) fn begin_transaction(&mut self) -> Result<(), Error> {
        self.check_limit()?;
        self.set_sent(true);
        Ok(())
    }

    /// The kernel did not begin the first transaction of the call.
    pub(super) fn end_refused_transaction(&mut self, has_sent: bool) {
        self.set_sent(has_sent);
    }

    /// Whether the call in progress has sent a transaction that the kernel may have committed.
    pub(super) fn has_sent(&self) -> bool {
        self.bounds.call.is_some_and(|call| call.has_sent)
    }

    fn set_sent(&mut self, has_sent: bool) {
        if let Some(call) = &mut self.bounds.call {
            call.has_sent = has_sent;
        }
        self.transport.set_limit(self.limit());
    }
}
