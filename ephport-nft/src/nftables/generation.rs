//! The generation (`NFTA_GEN_*`): a number that every committed transaction raises.

use crate::netlink::{CodecError, NfGenMsg, Reader};
use crate::nftables::schema::{Slot, set};
use crate::uapi::{NFTA_GEN_ID, NFTA_GEN_PROC_NAME, NFTA_GEN_PROC_PID};

const OBJECT: &str = "generation";

/// The number of the ruleset of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// Reads the body of a message about it.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        Commit::read(body).map(|commit| commit.generation)
    }
}

/// A transaction that was committed, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// What it made of the ruleset.
    pub generation: Generation,
    /// The process, as the initial pid namespace numbers it; since Linux 4.14.
    pub pid: Option<u32>,
    /// The name of its thread, at most 15 bytes (`comm` of proc(5)).
    pub process: Option<String>,
}

impl Commit {
    /// Reads the body of a message about it.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        NfGenMsg::read(&mut reader)?;
        let (mut generation, mut pid, mut process) = (None, None, None);
        for attr in reader.attrs() {
            let attr = attr?;
            match attr.kind {
                NFTA_GEN_ID => set(&mut generation, attr, OBJECT)?,
                NFTA_GEN_PROC_PID => set(&mut pid, attr, OBJECT)?,
                // A thread may call itself by any bytes.
                NFTA_GEN_PROC_NAME => {
                    let name = attr.value.strip_suffix(&[0]).unwrap_or(attr.value);
                    process = Some(String::from_utf8_lossy(name).into_owned());
                }
                _ => {}
            }
        }
        let generation = Slot::fill(generation, OBJECT, NFTA_GEN_ID).map(Generation)?;
        Ok(Self { generation, pid, process })
    }
}
