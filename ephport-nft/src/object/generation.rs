//! The generation (`NFTA_GEN_*`): a number that every committed transaction raises.

use crate::uapi::NFTA_GEN_ID;
use crate::wire::{NfGenMsg, Reader, WireError};

/// The number of the ruleset of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// Reads the body of a message about it.
    pub fn read(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        NfGenMsg::read(&mut reader)?;
        for attr in reader.attrs() {
            let attr = attr?;
            if attr.kind == NFTA_GEN_ID {
                return attr.u32_be().map(Self);
            }
        }
        Err(WireError::Missing { object: "generation", kind: NFTA_GEN_ID })
    }
}
