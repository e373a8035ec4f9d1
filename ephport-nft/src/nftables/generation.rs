//! The generation (`NFTA_GEN_*`): a number that every committed transaction raises.

use super::schema::set;
use crate::netlink::{CodecError, Message, NfGenMsg, Reader};
use crate::uapi::{NFTA_GEN_ID, NFTA_GEN_PROC_NAME, NFTA_GEN_PROC_PID};

/// The number of the ruleset of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// The number of the next committed transaction. The kernel skips 0.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }

    /// Decodes the body of a message about it.
    pub fn decode(body: &[u8]) -> Result<Self, CodecError> {
        decode(body).map(|(generation, ..)| generation)
    }
}

/// A committed transaction and its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The generation that it began.
    pub generation: Generation,
    /// The port id of the netlink socket that sent it, which identifies its author:
    /// [`Client::port_id`](crate::Client::port_id) of that client.
    pub port_id: u32,
    /// The thread that sent it, as the initial pid namespace numbers it; since Linux 4.14. It is the
    /// process only if the process has one thread.
    pub thread: Option<u32>,
    /// The name of that thread, at most 15 bytes (`comm` of proc(5)).
    pub thread_name: Option<String>,
}

impl Commit {
    /// Whether the socket with this port id sent it: [`Client::port_id`](crate::Client::port_id) for own changes.
    #[must_use]
    pub fn is_of(&self, port_id: u32) -> bool {
        self.port_id == port_id
    }

    /// Decodes a message about it.
    pub fn decode(message: Message<'_>) -> Result<Self, CodecError> {
        let (generation, thread, name) = decode(message.body)?;
        // A thread's name is any bytes.
        let thread_name = name.map(|bytes| {
            String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(&bytes)).into_owned()
        });
        Ok(Self { generation, port_id: message.port_id, thread, thread_name })
    }
}

/// The generation, the thread that began it and the bytes of the thread's name.
type Decoded = (Generation, Option<u32>, Option<Vec<u8>>);

fn decode(body: &[u8]) -> Result<Decoded, CodecError> {
    const OBJECT: &str = "generation";
    let mut reader = Reader::new(body);
    NfGenMsg::decode(&mut reader)?;
    let (mut generation, mut thread, mut name) = (None, None, None);
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_GEN_ID => set(&mut generation, attr, OBJECT)?,
            NFTA_GEN_PROC_PID => set(&mut thread, attr, OBJECT)?,
            NFTA_GEN_PROC_NAME => set(&mut name, attr, OBJECT)?,
            _ => {}
        }
    }
    let missing = CodecError::Missing { object: OBJECT, attribute: NFTA_GEN_ID };
    Ok((generation.map(Generation).ok_or(missing)?, thread, name))
}
