//! The registers of the virtual machine: 64 bytes, of which some may be a number not known here.

use crate::expr::Register;

/// Bytes of a register of 4 and of one of 16 bytes (linux/netfilter/nf_tables.h).
const SLOT: usize = 4;
const WIDE: usize = 16;
const ROOM: usize = 64;

/// The registers.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    bytes: [u8; ROOM],
    drawn: Option<Drawn>,
}

/// Any number from 0 on, in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    at: usize,
    /// The first number that it is not.
    pub(super) below: u32,
    /// Whether its bytes are in network order; else in that of the machine.
    pub(super) is_network: bool,
}

impl Drawn {
    /// The number's bytes.
    pub(super) fn bytes_of(self, number: u32) -> [u8; 4] {
        if self.is_network { number.to_be_bytes() } else { number.to_ne_bytes() }
    }
}

impl Registers {
    pub(super) fn new() -> Self {
        Self { bytes: [0; ROOM], drawn: None }
    }

    /// Where a register begins (`nft_parse_register`).
    fn at(register: Register) -> Option<usize> {
        let number = usize::try_from(register.0).ok()?;
        match number {
            1..=4 => Some((number - 1) * WIDE),
            8..=23 => Some((number - 8) * SLOT),
            _ => None,
        }
    }

    /// Writes bytes; the rest of the last slot becomes zero.
    pub(super) fn set(&mut self, register: Register, value: &[u8]) -> Option<()> {
        let at = Self::at(register)?;
        let room = self.bytes.get_mut(at..at + value.len().next_multiple_of(SLOT))?;
        room.fill(0);
        room.get_mut(..value.len())?.copy_from_slice(value);
        self.drawn = self.drawn.filter(|drawn| drawn.at != at);
        Some(())
    }

    /// Leaves any number below `below` in a register.
    pub(super) fn draw(&mut self, register: Register, below: u32) -> Option<()> {
        let at = Self::at(register)?;
        self.drawn = Some(Drawn { at, below, is_network: false });
        Some(())
    }

    /// Turns the byte order of a drawn number.
    pub(super) fn turn(&mut self, register: Register) -> Option<()> {
        let drawn = self.drawn(register)?;
        self.drawn = Some(Drawn { is_network: !drawn.is_network, ..drawn });
        Some(())
    }

    /// The number drawn into a register, if it holds one.
    pub(super) fn drawn(&self, register: Register) -> Option<Drawn> {
        let at = Self::at(register)?;
        self.drawn.filter(|drawn| drawn.at == at)
    }

    /// The first `len` bytes of a register that holds no drawn number.
    pub(super) fn bytes(&self, register: Register, len: usize) -> Option<&[u8]> {
        let at = Self::at(register)?;
        if self.drawn.is_some_and(|drawn| drawn.at < at + len && at < drawn.at + SLOT) {
            return None;
        }
        self.bytes.get(at..at + len)
    }
}
