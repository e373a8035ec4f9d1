//! Statements: the decoded meaning of a rule.

use super::nat::NatStatement;
use super::operand::{Operand, Registers};
use super::sets::SetRef;
use crate::nftables::Rule;
use crate::nftables::expr::{
    Cmp, CmpOp, Counter, Data, Expr, Immediate, ObjRef, PayloadWrite, RangeOp, Register, Verdict,
};
use crate::nftables::value;
use crate::table::Normalized;
use crate::uapi::{NFT_META_L4PROTO, NFT_META_NFPROTO};

/// A part of a rule that does one thing: some loads, and the expression that uses them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Statement<'a> {
    /// The rule continues if the operand compares so with the value.
    Match {
        /// The operand.
        operand: Operand<'a>,
        /// Whether the match is inverted (`!=`).
        is_inverted: bool,
        /// The value.
        value: MatchValue<'a>,
    },
    /// Packets are counted.
    Counter(&'a Counter),
    /// An object of the table is used: timeouts are assigned to the connection.
    Object(&'a ObjRef),
    /// The connection is translated.
    Nat(NatStatement<'a>),
    /// A port of the packet is rewritten.
    Write {
        /// The expression that writes.
        write: &'a PayloadWrite,
        /// The value.
        value: Operand<'a>,
        /// The transport protocol of the packets for which the rule continues.
        protocol: Option<u8>,
    },
    /// The verdict.
    Verdict(&'a Verdict),
    /// The verdict that a map has for the operand.
    Vmap {
        /// The key.
        key: Operand<'a>,
        /// The map.
        map: SetRef<'a>,
    },
    /// Expressions that are none of these.
    Raw(&'a [Expr]),
}

/// The value of a match.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MatchValue<'a> {
    /// The same bytes.
    Bytes(&'a [u8]),
    /// Bytes that compare so with these; neither equal nor unequal.
    Order(CmpOp, &'a [u8]),
    /// Bytes from the first to the last.
    Range(&'a [u8], &'a [u8]),
    /// A key of the set.
    Set(SetRef<'a>),
}

/// A statement with the expressions that it is decoded from.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    /// The statement.
    pub statement: Statement<'a>,
    /// The expressions: together, those of all statements are the rule's.
    pub exprs: &'a [Expr],
}

/// The statements of a rule of this table, in order. Each expression belongs to exactly one of them.
#[must_use]
pub fn decode<'a>(rule: &'a Rule, table: &'a Normalized<'a>) -> Vec<Decoded<'a>> {
    let mut registers = Registers::new(value::family(rule.family));
    let mut statements = Vec::new();
    let (mut rest, mut start, mut at) = (rule.exprs.as_slice(), 0, 0);
    while let [expr, next @ ..] = rest {
        if registers.load(expr, at, table).is_some() {
            (rest, at) = (next, at + 1);
            continue;
        }
        let found = statement(&mut registers, rest, table);
        let (found, count) = found.map_or((None, 1), |(found, count)| (Some(found), count));
        // A load that the statement does not use would be lost.
        let found = found.filter(|_| registers.all_used());
        at += count;
        rest = rest.get(count..).unwrap_or_default();
        let exprs = rule.exprs.get(start..at).unwrap_or_default();
        start = at;
        let statement = found.unwrap_or(Statement::Raw(exprs));
        follow(&mut registers, &statement);
        statements.push(Decoded { statement, exprs });
    }
    if let Some(exprs @ [_, ..]) = rule.exprs.get(start..) {
        statements.push(Decoded { statement: Statement::Raw(exprs), exprs });
    }
    statements
}

/// The statement that the expressions start with, and the number of them that it has.
fn statement<'a>(
    registers: &mut Registers<'a>,
    exprs: &'a [Expr],
    table: &'a Normalized<'a>,
) -> Option<(Statement<'a>, usize)> {
    let (expr, next) = exprs.split_first()?;
    let statement = match expr {
        Expr::Cmp(low) => {
            let operand = registers.take(low.sreg)?;
            if let Some(Expr::Cmp(high)) = next.first()
                && let Some(value) = range(low, high)
            {
                return Some((Statement::Match { operand, is_inverted: false, value }, 2));
            }
            comparison(operand, low)?
        }
        Expr::Range(range) => {
            let operand = registers.take(range.sreg)?;
            let value = MatchValue::Range(range.from.bytes()?, range.to.bytes()?);
            Statement::Match { operand, is_inverted: range.op == RangeOp::Neq, value }
        }
        Expr::Lookup(lookup) => {
            let (operand, set) = registers.looked_up(lookup, table)?;
            match lookup.dreg {
                None => {
                    let value = MatchValue::Set(set);
                    Statement::Match { operand, is_inverted: lookup.is_inverted(), value }
                }
                Some(Register::VERDICT) => Statement::Vmap { key: operand, map: set },
                Some(_) => return None,
            }
        }
        Expr::PayloadWrite(write) => {
            let value = registers.take(write.sreg)?;
            Statement::Write { write, value, protocol: registers.protocol }
        }
        Expr::Counter(counter) => Statement::Counter(counter),
        Expr::ObjRef(object) => Statement::Object(object),
        Expr::Immediate(Immediate { data: Data::Verdict(verdict), .. }) => {
            Statement::Verdict(verdict)
        }
        Expr::Masq(masq) => Statement::Nat(NatStatement::from_masq(masq, &mut |register, len| {
            registers.constant(register, len)
        })?),
        Expr::Nat(nat) => Statement::Nat(NatStatement::from_nat(nat, &mut |register, len| {
            registers.constant(register, len)
        })?),
        _ => return None,
    };
    Some((statement, 1))
}

/// Two comparisons of one register that are a range together.
fn range<'a>(low: &'a Cmp, high: &'a Cmp) -> Option<MatchValue<'a>> {
    let is_range = low.sreg == high.sreg && low.op == CmpOp::Gte && high.op == CmpOp::Lte;
    let (low, high) = (low.data.bytes()?, high.data.bytes()?);
    is_range.then_some(MatchValue::Range(low, high))
}

fn comparison<'a>(operand: Operand<'a>, cmp: &'a Cmp) -> Option<Statement<'a>> {
    let bytes = cmp.data.bytes()?;
    let value = match cmp.op {
        CmpOp::Eq | CmpOp::Neq => MatchValue::Bytes(bytes),
        op => MatchValue::Order(op, bytes),
    };
    Some(Statement::Match { operand, is_inverted: cmp.op == CmpOp::Neq, value })
}

/// Later loads of addresses are for the family that the rule has matched, and ports for the protocol.
fn follow(registers: &mut Registers<'_>, statement: &Statement<'_>) {
    if let Statement::Match {
        operand: Operand::Meta(NFT_META_NFPROTO),
        is_inverted: false,
        value: MatchValue::Bytes([nfproto]),
    } = statement
    {
        registers.family = value::family(*nfproto).or(registers.family);
    }
    if let Statement::Match {
        operand: Operand::Meta(NFT_META_L4PROTO),
        is_inverted: false,
        value: MatchValue::Bytes([protocol]),
    } = statement
    {
        registers.protocol = Some(*protocol);
    }
}
