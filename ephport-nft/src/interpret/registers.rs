//! The registers of the virtual machine: 64 bytes, of which four may be a generated number.

use super::path::By;
use crate::nftables::expr::{Expr, Register};
use crate::syntax::{NatStatement, Operand};

/// The length of a slot and of all registers, in bytes (linux/netfilter/nf_tables.h).
const SLOT: usize = Register::SLOT_LEN;
const ALL: usize = SLOT * Register::SLOTS;

/// The registers. Bytes to which nothing was written cannot be read: newer kernels refuse such a rule
/// (`nft_validate_register_load`), older ones read zeros.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    bytes: [Option<u8>; ALL],
    drawn: Option<Drawn>,
}

/// A generated number in a register: any number from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    at: usize,
    /// The generator.
    pub(super) by: By,
    /// The limit: the number is below it.
    pub(super) below: u32,
    /// Whether the bytes are in network order; else in the byte order of the host.
    pub(super) is_network: bool,
}

impl Drawn {
    /// The bytes of this number.
    pub(super) fn bytes_of(&self, number: u32) -> [u8; 4] {
        if self.is_network { number.to_be_bytes() } else { number.to_ne_bytes() }
    }
}

impl Registers {
    pub(super) fn new() -> Self {
        Self { bytes: [None; ALL], drawn: None }
    }

    /// The offset of a register, in bytes.
    fn at(register: Register) -> Option<usize> {
        Some(register.slot()? * Register::SLOT_LEN)
    }

    /// The slots for `len` bytes; a generated number in them is overwritten.
    fn room(&mut self, at: usize, len: usize) -> Option<&mut [Option<u8>]> {
        let end = at + len.next_multiple_of(SLOT);
        self.drawn.take_if(|drawn| drawn.at < end && at < drawn.at + SLOT);
        self.bytes.get_mut(at..end)
    }

    /// Write bytes, and zeros to the rest of the last slot.
    pub(super) fn set(&mut self, register: Register, value: &[u8]) -> Option<()> {
        let room = self.room(Self::at(register)?, value.len())?;
        let padded = value.iter().copied().chain(std::iter::repeat(0));
        room.iter_mut().zip(padded).for_each(|(to, byte)| *to = Some(byte));
        Some(())
    }

    /// Write any number below `below`.
    pub(super) fn draw(&mut self, register: Register, below: u32, by: By) -> Option<()> {
        let at = Self::at(register)?;
        self.room(at, SLOT)?.fill(None);
        self.drawn = Some(Drawn { at, by, below, is_network: false });
        Some(())
    }

    /// Convert the byte order of a generated number, into the register `to`.
    pub(super) fn turn(&mut self, from: Register, to: Register) -> Option<()> {
        let at = Self::at(to)?;
        let drawn = self.drawn(from)?.clone();
        self.room(at, SLOT)?.fill(None);
        self.drawn = Some(Drawn { at, is_network: !drawn.is_network, ..drawn });
        Some(())
    }

    /// The generated number in a register, if there is one.
    pub(super) fn drawn(&self, register: Register) -> Option<&Drawn> {
        let at = Self::at(register)?;
        self.drawn.as_ref().filter(|drawn| drawn.at == at)
    }

    /// The first `len` bytes of a register, if all of them are known.
    pub(super) fn bytes(&self, register: Register, len: usize) -> Option<Vec<u8>> {
        let at = Self::at(register)?;
        self.bytes.get(at..at.checked_add(len)?)?.iter().copied().collect()
    }

    /// The statement of a `masq` or `nat` expression over these registers.
    pub(super) fn nat_statement(&self, expr: &Expr) -> Option<NatStatement<'static>> {
        let contents = &mut |register, len| {
            self.bytes(register, len).map(|bytes| Operand::Constant(bytes.into()))
        };
        match expr {
            Expr::Masq(masq) => NatStatement::from_masq(masq, contents),
            Expr::Nat(nat) => NatStatement::from_nat(nat, contents),
            _ => None,
        }
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
    fn narrow_registers_are_slots_of_wide_ones() {
        let registers = filled(2, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(registers.bytes(Register(13), 4), Some(vec![5, 6, 7, 8]));
        assert_eq!(registers.bytes(Register::R2, 6), Some(vec![1, 2, 3, 4, 5, 6]));
        let registers = filled(13, &[9; 4]);
        assert_eq!(registers.bytes(Register::R2, 4), None, "the slot before it is empty");
    }

    #[test]
    fn unwritten_bytes_cannot_be_read() {
        let registers = filled(1, &[7, 8]);
        assert_eq!(registers.bytes(Register(8), 4), Some(vec![7, 8, 0, 0]), "a whole slot");
        assert_eq!(registers.bytes(Register::R1, 5), None);
        assert_eq!(registers.bytes(Register::R2, 1), None);
    }

    #[test]
    fn sixteen_slots_exist() {
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
    fn generated_number_has_no_bytes() {
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
    fn only_generated_numbers_are_converted() {
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
