//! The registers of the virtual machine: 64 bytes, of which some may be a number not known here.

use super::By;
use crate::nftables::expr::Register;

/// Bytes of a register of 4 and of one of 16 bytes (linux/netfilter/nf_tables.h).
const SLOT: usize = 4;
const WIDE: usize = 16;
const ROOM: usize = 64;

/// The registers. What nothing was written to cannot be read, as newer kernels have it
/// (`nft_validate_register_load`): older ones would find zeros there.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    bytes: [Option<u8>; ROOM],
    drawn: Option<Drawn>,
}

/// Any number from 0 on, in a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    at: usize,
    /// How it was drawn.
    pub(super) by: By,
    /// The first number that it is not.
    pub(super) below: u32,
    /// Whether its bytes are in network order; else in that of the machine.
    pub(super) is_network: bool,
}

impl Drawn {
    /// The number's bytes.
    pub(super) fn bytes_of(&self, number: u32) -> [u8; 4] {
        if self.is_network { number.to_be_bytes() } else { number.to_ne_bytes() }
    }
}

impl Registers {
    pub(super) fn new() -> Self {
        Self { bytes: [None; ROOM], drawn: None }
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

    /// Makes room for `len` bytes in whole slots; a number that was there is no more.
    fn room(&mut self, at: usize, len: usize) -> Option<&mut [Option<u8>]> {
        let end = at + len.next_multiple_of(SLOT);
        self.drawn.take_if(|drawn| drawn.at < end && at < drawn.at + SLOT);
        self.bytes.get_mut(at..end)
    }

    /// Writes bytes; the rest of the last slot becomes zero.
    pub(super) fn set(&mut self, register: Register, value: &[u8]) -> Option<()> {
        let room = self.room(Self::at(register)?, value.len())?;
        let padded = value.iter().copied().chain(std::iter::repeat(0));
        room.iter_mut().zip(padded).for_each(|(to, byte)| *to = Some(byte));
        Some(())
    }

    /// Leaves any number below `below` in a register.
    pub(super) fn draw(&mut self, register: Register, below: u32, by: By) -> Option<()> {
        let at = Self::at(register)?;
        self.room(at, SLOT)?.fill(None);
        self.drawn = Some(Drawn { at, by, below, is_network: false });
        Some(())
    }

    /// Turns the byte order of a drawn number, into this register.
    pub(super) fn turn(&mut self, from: Register, to: Register) -> Option<()> {
        let at = Self::at(to)?;
        let drawn = self.drawn(from)?.clone();
        self.room(at, SLOT)?.fill(None);
        self.drawn = Some(Drawn { at, is_network: !drawn.is_network, ..drawn });
        Some(())
    }

    /// The number drawn into a register, if it holds one.
    pub(super) fn drawn(&self, register: Register) -> Option<&Drawn> {
        let at = Self::at(register)?;
        self.drawn.as_ref().filter(|drawn| drawn.at == at)
    }

    /// The first `len` bytes of a register, if all of them are known.
    pub(super) fn bytes(&self, register: Register, len: usize) -> Option<Vec<u8>> {
        let at = Self::at(register)?;
        self.bytes.get(at..at.checked_add(len)?)?.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(register: u32, value: &[u8]) -> Registers {
        let mut registers = Registers::new();
        registers.set(Register(register), value).unwrap();
        registers
    }

    #[test]
    fn narrow_registers_are_the_slots_of_wide_ones() {
        let registers = filled(2, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(registers.bytes(Register(13), 4), Some(vec![5, 6, 7, 8]));
        assert_eq!(registers.bytes(Register::R2, 6), Some(vec![1, 2, 3, 4, 5, 6]));
        let registers = filled(13, &[9; 4]);
        assert_eq!(registers.bytes(Register::R2, 4), None, "the slot before it is empty");
    }

    #[test]
    fn what_nothing_was_written_to_cannot_be_read() {
        let registers = filled(1, &[7, 8]);
        assert_eq!(registers.bytes(Register(8), 4), Some(vec![7, 8, 0, 0]), "a whole slot");
        assert_eq!(registers.bytes(Register::R1, 5), None);
        assert_eq!(registers.bytes(Register::R2, 1), None);
    }

    #[test]
    fn there_are_sixteen_slots_and_no_more() {
        let mut registers = Registers::new();
        for missing in [0, 5, 7, 24, u32::MAX] {
            assert_eq!(registers.set(Register(missing), &[1]), None, "{missing}");
            assert_eq!(registers.bytes(Register(missing), 1), None, "{missing}");
        }
        assert_eq!(registers.set(Register(23), &[1; 4]), Some(()));
        assert_eq!(registers.set(Register(23), &[1; 5]), None);
        assert_eq!(registers.set(Register(4), &[1; 16]), Some(()));
    }

    #[test]
    fn a_drawn_number_has_no_bytes_until_it_is_written_over() {
        let mut registers = filled(1, &[1; 8]);
        registers.draw(Register(9), 10, By::RoundRobin).unwrap();
        assert_eq!(registers.bytes(Register::R1, 8), None);
        assert_eq!(registers.bytes(Register::R1, 4), Some(vec![1; 4]));
        assert_eq!(registers.drawn(Register::R1), None);
        assert_eq!(registers.drawn(Register(9)).map(|drawn| drawn.below), Some(10));
        registers.set(Register::R1, &[2; 5]).unwrap();
        assert_eq!(registers.drawn(Register(9)), None);
        assert_eq!(registers.bytes(Register(9), 4), Some(vec![2, 0, 0, 0]));
    }

    #[test]
    fn a_drawn_number_can_be_turned_and_nothing_else_can() {
        let mut registers = filled(2, &[1; 4]);
        registers.draw(Register::R1, 10, By::Weighted).unwrap();
        assert_eq!(registers.turn(Register::R2, Register::R1), None);
        registers.turn(Register::R1, Register::R2).unwrap();
        let turned = registers.drawn(Register::R2).unwrap();
        assert_eq!(turned.bytes_of(1), [0, 0, 0, 1]);
        assert_eq!(registers.drawn(Register::R1), None, "there is one number");
        assert_eq!(registers.bytes(Register::R2, 4), None);
    }
}
