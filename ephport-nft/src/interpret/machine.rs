//! The virtual machine (net/netfilter/nf_tables_core.c), over one packet.

use std::net::IpAddr;

use ephport_core::{Address, Port, PortRange};

use super::packet::Packet;
use super::registers::Registers;
use super::sets::{find, representatives};
use super::{By, Draw, InterpretError, Translation};
use crate::expr::{
    Byteorder, Cmp, CmpOp, Data, Expr, Hash, Lookup, Masq, Nat, Numgen, Range, RangeOp, Register,
    Verdict,
};
use crate::object::{Element, Rule};
use crate::ruleset::{FilledSet, Ruleset};
use crate::uapi::{
    NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, NFPROTO_IPV6,
    NFT_HASH_JENKINS, NFT_NAT_SNAT, NFT_NG_INCREMENTAL, NFT_NG_RANDOM,
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

/// An end, and what led to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) end: End,
    /// The rules, each by its chain and its place in it.
    pub(super) trail: Vec<(String, usize)>,
    /// The last number drawn that made a difference.
    pub(super) draw: Option<Draw>,
}

impl Ended {
    fn at((chain, index): (&str, usize), end: End) -> Self {
        Self { end, trail: vec![(chain.into(), index)], draw: None }
    }
}

/// What a rule does, and the number that it drew for that.
type Drawn = (Effect, Option<Draw>);

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
        self.chain(chain, MAX_DEPTH)
    }

    fn chain(&self, name: &str, depth: usize) -> Result<Vec<Ended>, InterpretError> {
        let exists = self.ruleset.chains.iter().any(|chain| chain.name == name);
        let Some(depth) = depth.checked_sub(1).filter(|_| exists) else {
            return Err(InterpretError::Chain { chain: name.into() });
        };
        let mut ended = Vec::new();
        for (index, rule) in self.ruleset.rules_of(name).enumerate() {
            let mut goes_on = false;
            for (effect, draw) in self.rule(rule, index)? {
                let before = ended.len();
                goes_on |= self.follow(effect, (name, index), depth, &mut ended)?;
                for inner in ended.iter_mut().skip(before).filter(|inner| inner.draw.is_none()) {
                    inner.draw.clone_from(&draw);
                }
            }
            if !goes_on {
                return Ok(ended);
            }
        }
        ended.push(Ended { end: End::Left, trail: Vec::new(), draw: None });
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
        let here = |end| (vec![Ended::at(at, end)], false);
        let (inner, comes_back) = match effect {
            Effect::NoMatch | Effect::Verdict(Verdict::Continue | Verdict::Break) => {
                return Ok(true);
            }
            Effect::Translated(translation) => here(End::Translated(translation)),
            Effect::Verdict(Verdict::Accept) => here(End::Accepted),
            Effect::Verdict(Verdict::Drop | Verdict::Other(_)) => here(End::Dropped),
            Effect::Verdict(Verdict::Return) => here(End::Left),
            Effect::Verdict(Verdict::Goto(chain)) => (self.inner(&chain, at, depth)?, false),
            Effect::Verdict(Verdict::Jump(chain)) => (self.inner(&chain, at, depth)?, true),
        };
        let is_back = |inner: &Ended| comes_back && inner.end == End::Left;
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
        for Ended { trail, .. } in &mut ends {
            trail.insert(0, (at.0.to_string(), at.1));
        }
        Ok(ends)
    }

    fn rule(&self, rule: &Rule, index: usize) -> Result<Vec<Drawn>, InterpretError> {
        self.exprs(&rule.exprs, Registers::new(), None).map_err(|Stuck(expr)| {
            let chain = rule.chain.clone();
            InterpretError::Expression { chain, index, what: expr.to_string() }
        })
    }

    /// Everything that the rest of a rule can do.
    fn exprs<'e>(
        &self,
        exprs: &'e [Expr],
        mut registers: Registers,
        draw: Option<Draw>,
    ) -> Result<Vec<Drawn>, Stuck<'e>> {
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
                Expr::Numgen(numgen) => generate(&mut registers, numgen),
                Expr::Hash(hash) => hashed(&mut registers, hash),
                Expr::Byteorder(order) => turned(&mut registers, order),
                Expr::Cmp(cmp) => compare(&registers, cmp),
                Expr::Range(range) => in_range(&registers, range),
                Expr::Counter(_) => Some(true),
                Expr::Lookup(lookup) => {
                    return self.lookup(lookup, &registers, draw, rest, expr);
                }
                Expr::Immediate(immediate) => match &immediate.data {
                    Data::Verdict(verdict) => {
                        return Ok(vec![(Effect::Verdict(verdict.clone()), draw)]);
                    }
                    Data::Value(bytes) => registers.set(immediate.dreg, bytes).map(|()| true),
                },
                Expr::Masq(masq) => {
                    let translation = masquerade(&registers, masq).ok_or_else(stuck)?;
                    return Ok(vec![(Effect::Translated(translation), draw)]);
                }
                // It passes over packets of another family (`nft_nat_inet_eval`).
                Expr::Nat(nat) if !self.packet.is_of(nat.family) => Some(true),
                Expr::Nat(nat) => {
                    let translation = source_nat(&registers, nat).ok_or_else(stuck)?;
                    return Ok(vec![(Effect::Translated(translation), draw)]);
                }
                Expr::Opaque(_) => None,
            };
            if !goes_on.ok_or_else(stuck)? {
                return Ok(vec![(Effect::NoMatch, draw)]);
            }
        }
        Ok(vec![(Effect::Verdict(Verdict::Continue), draw)])
    }

    /// Goes on with each value that the key can have.
    fn lookup<'e>(
        &self,
        lookup: &Lookup,
        registers: &Registers,
        draw: Option<Draw>,
        rest: &'e [Expr],
        expr: &'e Expr,
    ) -> Result<Vec<Drawn>, Stuck<'e>> {
        let stuck = || Stuck(expr);
        let filled = self.ruleset.sets.iter().find(|filled| filled.set.name == lookup.set);
        let filled = filled.ok_or_else(stuck)?;
        // The kernel refuses a value for what is not there.
        if lookup.is_inverted() && lookup.dreg.is_some() {
            return Err(stuck());
        }
        let mut effects = Vec::new();
        for (element, drawn) in found(filled, lookup, registers).ok_or_else(stuck)? {
            let draw = drawn.or_else(|| draw.clone());
            let data = element.map(|element| &element.data);
            match (data, lookup.dreg) {
                (None, None) if lookup.is_inverted() => {
                    effects.extend(self.exprs(rest, registers.clone(), draw)?);
                }
                (Some(_), None) if !lookup.is_inverted() => {
                    effects.extend(self.exprs(rest, registers.clone(), draw)?);
                }
                (Some(Some(Data::Verdict(verdict))), Some(Register::VERDICT)) => {
                    effects.push((Effect::Verdict(verdict.clone()), draw));
                }
                (Some(Some(Data::Value(bytes))), Some(dreg)) => {
                    let mut registers = registers.clone();
                    registers.set(dreg, bytes).ok_or_else(stuck)?;
                    effects.extend(self.exprs(rest, registers, draw)?);
                }
                (Some(_), Some(_)) => return Err(stuck()),
                _ => effects.push((Effect::NoMatch, draw)),
            }
        }
        Ok(effects)
    }
}

/// What a set holds for the key in a register: nothing or an element; for a number that is not
/// known all answers, each with its share of the numbers.
#[allow(clippy::type_complexity)] // an answer and its draw
fn found<'s>(
    filled: &'s FilledSet,
    lookup: &Lookup,
    registers: &Registers,
) -> Option<Vec<(Option<&'s Element>, Option<Draw>)>> {
    let Some(drawn) = registers.drawn(lookup.sreg) else {
        let len = usize::try_from(filled.set.key_len?).ok()?;
        return Some(vec![(find(filled, registers.bytes(lookup.sreg, len)?), None)]);
    };
    let mut answers: Vec<(Option<&Element>, u32)> = Vec::new();
    for (number, count) in representatives(filled, drawn)? {
        let answer = find(filled, &drawn.bytes_of(number));
        match answers.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, numbers)) => *numbers += count,
            None => answers.push((answer, count)),
        }
    }
    let share = |numbers| Draw { by: drawn.by.clone(), numbers, below: drawn.below };
    Some(answers.into_iter().map(|(answer, numbers)| (answer, Some(share(numbers)))).collect())
}

fn generate(registers: &mut Registers, numgen: &Numgen) -> Option<bool> {
    let by = match (numgen.kind, numgen.offset) {
        (NFT_NG_INCREMENTAL, 0) => By::Turn,
        (NFT_NG_RANDOM, 0) => By::Chance,
        _ => return None,
    };
    registers.draw(numgen.dreg, numgen.modulus, by).map(|()| true)
}

fn hashed(registers: &mut Registers, hash: &Hash) -> Option<bool> {
    if hash.kind != NFT_HASH_JENKINS || hash.offset.is_some_and(|offset| offset != 0) {
        return None;
    }
    // Without a seed the kernel takes another for each rule, and nothing is stable.
    hash.seed?;
    let of = registers.bytes(hash.sreg, usize::try_from(hash.len).ok()?)?.to_vec();
    registers.draw(hash.dreg, hash.modulus, By::Hash(of)).map(|()| true)
}

/// Of a drawn number alone, and of all of its bytes.
fn turned(registers: &mut Registers, order: &Byteorder) -> Option<bool> {
    let is_whole = order.len == 4 && order.size == 4;
    registers.turn(order.sreg, order.dreg).filter(|()| is_whole).map(|()| true)
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
        // Without registers the kernel would take the range 0-0.
        _ => Some(ports(registers, masq.proto_min, masq.proto_max)??),
    };
    Some(Translation { ports, address: Address::Masquerade, flags: how(flags) })
}

fn source_nat(registers: &Registers, nat: &Nat) -> Option<Translation> {
    if nat.kind != NFT_NAT_SNAT {
        return None;
    }
    let fixed = |register| {
        let address = if nat.family == u32::from(NFPROTO_IPV6) {
            IpAddr::from(<[u8; 16]>::try_from(registers.bytes(register, 16)?).ok()?)
        } else {
            IpAddr::from(<[u8; 4]>::try_from(registers.bytes(register, 4)?).ok()?)
        };
        Some(Address::Fixed(address))
    };
    let address = match nat.addr_min {
        None => Address::Keep,
        // The kernel refuses it.
        Some(_) if nat.family == u32::from(NFPROTO_INET) => return None,
        Some(register) => fixed(register)?,
    };
    // A range of addresses is nothing that a policy asks for.
    if nat.addr_max.is_some_and(|register| fixed(register) != Some(address)) {
        return None;
    }
    let ports = ports(registers, nat.proto_min, nat.proto_max)?;
    Some(Translation { ports, address, flags: how(nat.flags.unwrap_or(0)) })
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

/// Without what the registers say themselves.
fn how(flags: u32) -> u32 {
    flags & !(NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED)
}
