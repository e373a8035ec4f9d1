//! The virtual machine (net/netfilter/nf_tables_core.c), over one packet.

use std::net::IpAddr;

use ephport_core::{Address, Port, PortRange};

use super::packet::Packet;
use super::registers::Registers;
use super::sets::{find, representatives};
use super::{InterpretError, Translation};
use crate::expr::{Cmp, CmpOp, Data, Expr, Lookup, Masq, Nat, Range, RangeOp, Register, Verdict};
use crate::object::{Element, Rule};
use crate::ruleset::{FilledSet, Ruleset};
use crate::uapi::{
    NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY, NF_NAT_RANGE_PROTO_SPECIFIED,
    NFPROTO_IPV6, NFT_NAT_SNAT,
};

/// The kernel's own bound on chains within chains (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;

/// How a chain can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Accepted,
    Dropped,
    /// NAT was told something.
    Translated(Translation),
    /// The end was reached, or a `return`.
    Left,
}

/// An end, and the rules that led to it.
type Ended = (End, Vec<(String, usize)>);

/// What a rule does.
enum Effect {
    NoMatch,
    Verdict(Verdict),
    Translated(Translation),
}

pub(super) struct Machine<'a> {
    ruleset: &'a Ruleset,
    packet: Packet<'a>,
}

/// Why a rule cannot be run: the expression at fault.
struct Stuck<'a>(&'a Expr);

impl<'a> Machine<'a> {
    pub(super) fn new(ruleset: &'a Ruleset, packet: Packet<'a>) -> Self {
        Self { ruleset, packet }
    }

    /// Every way in which a base chain can end.
    pub(super) fn run(&self, chain: &str) -> Result<Vec<Ended>, InterpretError> {
        let mut ends = self.chain(chain, MAX_DEPTH)?;
        ends.dedup();
        Ok(ends)
    }

    fn chain(&self, name: &str, depth: usize) -> Result<Vec<Ended>, InterpretError> {
        let exists = self.ruleset.chains.iter().any(|chain| chain.name == name);
        let Some(depth) = depth.checked_sub(1).filter(|_| exists) else {
            return Err(InterpretError::Chain { chain: name.into() });
        };
        let mut ended = Vec::new();
        for (index, rule) in self.ruleset.rules_of(name).enumerate() {
            let mut goes_on = false;
            for effect in self.rule(rule, index)? {
                goes_on |= self.follow(effect, (name, index), depth, &mut ended)?;
            }
            if !goes_on {
                return Ok(ended);
            }
        }
        ended.push((End::Left, Vec::new()));
        Ok(ended)
    }

    /// Adds the ends that an effect leads to; whether the next rule may be reached.
    fn follow(
        &self,
        effect: Effect,
        at: (&str, usize),
        depth: usize,
        ended: &mut Vec<Ended>,
    ) -> Result<bool, InterpretError> {
        let here = || vec![(at.0.to_string(), at.1)];
        let (inner, comes_back) = match effect {
            Effect::NoMatch | Effect::Verdict(Verdict::Continue | Verdict::Break) => {
                return Ok(true);
            }
            Effect::Translated(translation) => {
                (vec![(End::Translated(translation), here())], false)
            }
            Effect::Verdict(Verdict::Accept) => (vec![(End::Accepted, here())], false),
            Effect::Verdict(Verdict::Drop | Verdict::Other(_)) => {
                (vec![(End::Dropped, here())], false)
            }
            Effect::Verdict(Verdict::Return) => (vec![(End::Left, here())], false),
            Effect::Verdict(Verdict::Goto(chain)) => (self.inner(&chain, at, depth)?, false),
            Effect::Verdict(Verdict::Jump(chain)) => (self.inner(&chain, at, depth)?, true),
        };
        let is_back = |(end, _): &Ended| comes_back && *end == End::Left;
        let goes_on = inner.iter().any(is_back);
        ended.extend(inner.into_iter().filter(|end| !is_back(end)));
        Ok(goes_on)
    }

    fn inner(
        &self,
        chain: &str,
        at: (&str, usize),
        depth: usize,
    ) -> Result<Vec<Ended>, InterpretError> {
        let mut ends = self.chain(chain, depth)?;
        for (_, trail) in &mut ends {
            trail.insert(0, (at.0.to_string(), at.1));
        }
        Ok(ends)
    }

    fn rule(&self, rule: &Rule, index: usize) -> Result<Vec<Effect>, InterpretError> {
        self.exprs(&rule.exprs, Registers::new()).map_err(|Stuck(expr)| {
            let chain = rule.chain.clone();
            InterpretError::Expression { chain, index, what: expr.to_string() }
        })
    }

    /// Everything that the rest of a rule can do.
    fn exprs<'e>(
        &self,
        exprs: &'e [Expr],
        mut registers: Registers,
    ) -> Result<Vec<Effect>, Stuck<'e>> {
        let mut rest = exprs;
        while let [expr, next @ ..] = rest {
            rest = next;
            let stuck = || Stuck(expr);
            let goes_on = match expr {
                Expr::Meta(meta) => load(&mut registers, meta.dreg, self.packet.meta(meta)),
                Expr::Payload(from) => load(&mut registers, from.dreg, self.packet.payload(from)),
                Expr::Fib(fib) => load(&mut registers, fib.dreg, self.packet.fib(fib)),
                Expr::Ct(ct) => load(&mut registers, ct.dreg, self.packet.ct(ct)),
                Expr::Bitwise(bitwise) => bitwise_of(&mut registers, bitwise),
                Expr::Numgen(numgen) if numgen.offset == 0 => {
                    registers.draw(numgen.dreg, numgen.modulus).map(|()| true)
                }
                Expr::Hash(hash) => registers.draw(hash.dreg, hash.modulus).map(|()| true),
                Expr::Byteorder(order) => registers.turn(order.dreg).map(|()| true),
                Expr::Cmp(cmp) => compare(&registers, cmp),
                Expr::Range(range) => in_range(&registers, range),
                Expr::Counter(_) => Some(true),
                Expr::Lookup(lookup) => {
                    return self.lookup(lookup, &registers, rest, expr);
                }
                Expr::Immediate(immediate) => match &immediate.data {
                    Data::Verdict(verdict) => return Ok(vec![Effect::Verdict(verdict.clone())]),
                    Data::Value(bytes) => registers.set(immediate.dreg, bytes).map(|()| true),
                },
                Expr::Masq(masq) => {
                    let translation = masquerade(&registers, masq).ok_or_else(stuck)?;
                    return Ok(vec![Effect::Translated(translation)]);
                }
                Expr::Nat(nat) => {
                    let translation = source_nat(&registers, nat).ok_or_else(stuck)?;
                    return Ok(vec![Effect::Translated(translation)]);
                }
                Expr::Numgen(_) | Expr::Opaque(_) => None,
            };
            if !goes_on.ok_or_else(stuck)? {
                return Ok(vec![Effect::NoMatch]);
            }
        }
        Ok(vec![Effect::Verdict(Verdict::Continue)])
    }

    /// Goes on with each value that the key can have.
    fn lookup<'e>(
        &self,
        lookup: &Lookup,
        registers: &Registers,
        rest: &'e [Expr],
        expr: &'e Expr,
    ) -> Result<Vec<Effect>, Stuck<'e>> {
        let stuck = || Stuck(expr);
        let filled = self.ruleset.sets.iter().find(|filled| filled.set.name == lookup.set);
        let filled = filled.ok_or_else(stuck)?;
        let mut effects = Vec::new();
        for element in found(filled, lookup, registers).ok_or_else(stuck)? {
            let data = element.map(|element| &element.data);
            match (data, lookup.dreg) {
                (None, None) if lookup.is_inverted() => {
                    effects.extend(self.exprs(rest, registers.clone())?);
                }
                (Some(_), None) if !lookup.is_inverted() => {
                    effects.extend(self.exprs(rest, registers.clone())?);
                }
                (Some(Some(Data::Verdict(verdict))), Some(Register::VERDICT)) => {
                    effects.push(Effect::Verdict(verdict.clone()));
                }
                (Some(Some(Data::Value(bytes))), Some(dreg)) => {
                    let mut registers = registers.clone();
                    registers.set(dreg, bytes).ok_or_else(stuck)?;
                    effects.extend(self.exprs(rest, registers)?);
                }
                (Some(_), Some(_)) => return Err(stuck()),
                _ => effects.push(Effect::NoMatch),
            }
        }
        Ok(effects)
    }
}

/// What a set holds for the key in a register: nothing or an element; several answers for a number
/// that is not known.
fn found<'s>(
    filled: &'s FilledSet,
    lookup: &Lookup,
    registers: &Registers,
) -> Option<Vec<Option<&'s Element>>> {
    let Some(drawn) = registers.drawn(lookup.sreg) else {
        let len = usize::try_from(filled.set.key_len?).ok()?;
        return Some(vec![find(filled, registers.bytes(lookup.sreg, len)?)]);
    };
    // Neighbouring numbers mostly have the same answer; each answer is needed once.
    let mut answers: Vec<Option<&Element>> = Vec::new();
    for number in representatives(filled, drawn) {
        let answer = find(filled, &drawn.bytes_of(number));
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    Some(answers)
}

/// Loads what a packet has; without it the rule does not match.
fn load(registers: &mut Registers, dreg: Register, value: Option<Vec<u8>>) -> Option<bool> {
    match value {
        None => Some(false),
        Some(bytes) => registers.set(dreg, &bytes).map(|()| true),
    }
}

fn bitwise_of(registers: &mut Registers, bitwise: &crate::expr::Bitwise) -> Option<bool> {
    let len = usize::try_from(bitwise.len).ok()?;
    let source = registers.bytes(bitwise.sreg, len)?.to_vec();
    let (mask, xor) = (bitwise.mask.bytes()?, bitwise.xor.bytes()?);
    let result: Vec<_> =
        source.iter().zip(mask).zip(xor).map(|((byte, mask), xor)| byte & mask ^ xor).collect();
    registers.set(bitwise.dreg, &result).map(|()| true)
}

/// The bytes are one number in network order.
fn compare(registers: &Registers, cmp: &Cmp) -> Option<bool> {
    let expected = cmp.data.bytes()?;
    let found = registers.bytes(cmp.sreg, expected.len())?;
    Some(match cmp.op {
        CmpOp::Eq => found == expected,
        CmpOp::Neq => found != expected,
        CmpOp::Lt => found < expected,
        CmpOp::Lte => found <= expected,
        CmpOp::Gt => found > expected,
        CmpOp::Gte => found >= expected,
    })
}

fn in_range(registers: &Registers, range: &Range) -> Option<bool> {
    let (from, to) = (range.from.bytes()?, range.to.bytes()?);
    let found = registers.bytes(range.sreg, from.len())?;
    let is_inside = (from..=to).contains(&found);
    Some(is_inside == (range.op == RangeOp::Eq))
}

fn masquerade(registers: &Registers, masq: &Masq) -> Option<Translation> {
    let flags = masq.flags.unwrap_or(0);
    let ports = match flags & NF_NAT_RANGE_PROTO_SPECIFIED {
        0 => None,
        _ => ports(registers, masq.proto_min, masq.proto_max)?,
    };
    Some(Translation { ports, address: Address::Masquerade, shuffles: shuffles(flags) })
}

fn source_nat(registers: &Registers, nat: &Nat) -> Option<Translation> {
    if nat.kind != NFT_NAT_SNAT {
        return None;
    }
    let address = match nat.addr_min {
        None => Address::Keep,
        Some(register) if nat.family == u32::from(NFPROTO_IPV6) => {
            let octets: [u8; 16] = registers.bytes(register, 16)?.try_into().ok()?;
            Address::Fixed(IpAddr::from(octets))
        }
        Some(register) => {
            let octets: [u8; 4] = registers.bytes(register, 4)?.try_into().ok()?;
            Address::Fixed(IpAddr::from(octets))
        }
    };
    let ports = ports(registers, nat.proto_min, nat.proto_max)?;
    Some(Translation { ports, address, shuffles: shuffles(nat.flags.unwrap_or(0)) })
}

/// The range in two registers; the kernel turns one round whose ends are.
#[allow(clippy::option_option)] // no range, or no meaning
fn ports(
    registers: &Registers,
    min: Option<Register>,
    max: Option<Register>,
) -> Option<Option<PortRange>> {
    let port = |register| {
        let bytes = registers.bytes(register, 2)?.try_into().ok()?;
        Port::new(u16::from_be_bytes(bytes)).ok()
    };
    let Some(min) = min else { return Some(None) };
    let low = port(min)?;
    let high = max.map_or(Some(low), port)?;
    PortRange::new(low.min(high), low.max(high)).ok().map(Some)
}

fn shuffles(flags: u32) -> bool {
    flags & (NF_NAT_RANGE_PROTO_RANDOM | NF_NAT_RANGE_PROTO_RANDOM_FULLY) != 0
}
