//! The virtual machine (net/netfilter/nf_tables_core.c), run on one packet.

use ephport_core::{ConnectionTimeouts, Family};

use super::packet::{Fact, Facts, OPEN_ID};
use super::path::{By, Draw, InterpretError, Path, Written};
use super::registers::Registers;
use super::sets::answers;
use crate::nftables::expr::{
    Bitwise, Byteorder, Cmp, CmpOp, Data, Expr, Hash, Immediate, Lookup, Meta, Numgen, ObjRef,
    PayloadWrite, Range, RangeOp, Register, Verdict,
};
use crate::nftables::{ElementRef, Rule, value};
use crate::syntax::NatTarget;
use crate::table::TableState;
use crate::table::layout::{is_open_set, timeouts_of};
use crate::uapi::{
    NFT_BITWISE_MASK_XOR, NFT_BYTEORDER_HTON, NFT_BYTEORDER_NTOH, NFT_HASH_JENKINS,
    NFT_LOOKUP_F_INV, NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_NG_INCREMENTAL, NFT_NG_RANDOM,
    NFT_OBJECT_CT_TIMEOUT,
};

/// The kernel's limit on nested chains (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;

/// The end of a chain for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accepted,
    Dropped,
    Translated(NatTarget),
    Written(Written),
    /// The last rule was passed, or one returned.
    Returned,
}

/// An end, and the way to it.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    end: End,
    /// The rules, each by its chain and its index in that chain.
    trail: Vec<(String, usize)>,
    /// The number that was generated on the way, if one was.
    draw: Option<Draw>,
    /// The timeouts that were assigned on the way.
    timeouts: ConnectionTimeouts,
}

impl Ended {
    /// The end of a chain.
    fn returned() -> Self {
        let timeouts = ConnectionTimeouts::default();
        Self { end: End::Returned, trail: Vec::new(), draw: None, timeouts }
    }

    fn at((chain, index): (&str, usize), end: End) -> Self {
        Self { end, trail: vec![(chain.into(), index)], ..Self::returned() }
    }
}

impl From<Ended> for Path {
    fn from(Ended { end, trail, draw, timeouts }: Ended) -> Self {
        let target = match end {
            End::Translated(target) => Some(target),
            End::Accepted | End::Dropped | End::Returned | End::Written(_) => None,
        };
        let written = match end {
            End::Written(written) => Some(written),
            _ => None,
        };
        Self { target, is_dropped: end == End::Dropped, written, trail, draw, timeouts }
    }
}

/// A step of a rule, and the number that was generated for it.
type Drawn = (Step, Option<Draw>);

/// The result of a rule.
enum Step {
    NoMatch,
    Verdict(Verdict),
    Translated(NatTarget),
    /// Bytes are written, and no other rule of the chain sees them.
    Written(Written),
}

pub(super) struct Machine<'a> {
    table: &'a TableState,
    packet: &'a dyn Facts,
}

/// The expression that cannot be run.
struct Stuck<'a>(&'a Expr);

impl<'a> Machine<'a> {
    pub(super) fn new(table: &'a TableState, packet: &'a dyn Facts) -> Self {
        Self { table, packet }
    }

    /// All paths of the packet through a base chain.
    pub(super) fn run(&self, chain: &str) -> Result<Vec<Path>, InterpretError> {
        Ok(self.chain(chain, MAX_DEPTH)?.into_iter().map(Path::from).collect())
    }

    fn chain(&self, name: &str, depth: usize) -> Result<Vec<Ended>, InterpretError> {
        let exists = self.table.chains.iter().any(|chain| chain.name == name);
        let Some(depth) = depth.checked_sub(1).filter(|_| exists) else {
            return Err(InterpretError::Chain { chain: name.into() });
        };
        let mut ended = Vec::new();
        for (index, rule) in self.table.rules_of(name).enumerate() {
            let mut continues = false;
            let assigned = self.assigned(rule, index)?;
            for (effect, draw) in self.rule(rule, index)? {
                let before = ended.len();
                continues |= self.follow(effect, (name, index), depth, &mut ended)?;
                for end in ended.iter_mut().skip(before) {
                    end.draw = end.draw.take().or_else(|| draw.clone());
                    if end.timeouts.is_empty() {
                        end.timeouts.clone_from(&assigned);
                    }
                }
            }
            if !continues {
                return Ok(ended);
            }
        }
        ended.push(Ended::returned());
        Ok(ended)
    }

    /// The timeouts that the rule assigns to a connection that it matches. Only rules that assign them last, and
    /// then end the chain, are known.
    fn assigned(&self, rule: &Rule, index: usize) -> Result<ConnectionTimeouts, InterpretError> {
        let is_assignment = |expr: &Expr| matches!(expr, Expr::ObjRef(_));
        let Some(at) = rule.exprs.iter().position(is_assignment) else {
            return Ok(ConnectionTimeouts::default());
        };
        let unknown = |expr: &Expr| InterpretError::Expression {
            chain: rule.chain.clone(),
            index,
            what: expr.to_string(),
        };
        let (assignment, rest) = (&rule.exprs[at], &rule.exprs[at + 1..]);
        let is_known = |expr: &&Expr| {
            matches!(expr, Expr::Counter(_) | Expr::Immediate(_) | Expr::Masq(_) | Expr::Nat(_))
        };
        if let Some(other) = rest.iter().find(|expr| !is_known(expr)) {
            return Err(unknown(other));
        }
        let ends = |expr: &Expr| match expr {
            Expr::Immediate(immediate) => immediate.dreg == Register::VERDICT,
            _ => matches!(expr, Expr::Masq(_) | Expr::Nat(_)),
        };
        let object = match assignment {
            Expr::ObjRef(ObjRef { object_type: NFT_OBJECT_CT_TIMEOUT, name }) => {
                self.table.timeout(name).filter(|_| rest.last().is_some_and(ends))
            }
            _ => None,
        };
        let object = object.ok_or_else(|| unknown(assignment))?;
        let l4proto = Meta { key: NFT_META_L4PROTO, dreg: Register::R1 };
        let number = object.protocol().map(|protocol| vec![protocol.number()]);
        let is_of = number.map(Fact::Bytes) == Some(self.packet.meta(&l4proto));
        let timeouts = object.normalized(timeouts_of(&object.name).as_ref()).timeouts();
        Ok(if is_of { timeouts } else { ConnectionTimeouts::default() })
    }

    /// Add the ends that a step leads to; whether the next rule may be reached.
    fn follow(
        &self,
        effect: Step,
        at: (&str, usize),
        depth: usize,
        ended: &mut Vec<Ended>,
    ) -> Result<bool, InterpretError> {
        let here = |end| (vec![Ended::at(at, end)], false);
        let (inner, returns) = match effect {
            Step::NoMatch | Step::Verdict(Verdict::Continue | Verdict::Break) => {
                return Ok(true);
            }
            Step::Translated(target) => here(End::Translated(target)),
            Step::Written(written) => here(End::Written(written)),
            Step::Verdict(Verdict::Accept) => here(End::Accepted),
            Step::Verdict(Verdict::Drop | Verdict::Other(_)) => here(End::Dropped),
            Step::Verdict(Verdict::Return) => here(End::Returned),
            Step::Verdict(Verdict::Goto(chain)) => (self.inner(&chain, at, depth)?, false),
            Step::Verdict(Verdict::Jump(chain)) => (self.inner(&chain, at, depth)?, true),
        };
        let is_return = |inner: &Ended| returns && inner.end == End::Returned;
        let continues = inner.iter().any(is_return);
        ended.extend(inner.into_iter().filter(|end| !is_return(end)));
        Ok(continues)
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

    /// All steps that the rest of a rule can lead to.
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
            let continues = match expr {
                Expr::Meta(meta) => load(&mut registers, meta.dreg, self.packet.meta(meta)),
                Expr::Payload(from) => load(&mut registers, from.dreg, self.packet.payload(from)),
                Expr::Fib(fib) => load(&mut registers, fib.dreg, self.packet.fib(fib)),
                Expr::Rt(rt) => load(&mut registers, rt.dreg, self.packet.rt(rt)),
                Expr::Ct(ct) => load(&mut registers, ct.dreg, self.packet.ct(ct)),
                Expr::Bitwise(bitwise) => bitwise_of(&mut registers, bitwise),
                Expr::Numgen(numgen) => generate(&mut registers, numgen),
                Expr::Hash(hash) => hashed(&mut registers, hash),
                Expr::Byteorder(order) => converted(&mut registers, order),
                Expr::Cmp(cmp) => compare(&registers, cmp),
                Expr::Range(range) => in_range(&registers, range),
                // See `assigned`.
                Expr::Counter(_) | Expr::ObjRef(_) => Some(true),
                Expr::PayloadWrite(write) => {
                    let step = written(&registers, write, rest).ok_or_else(stuck)?;
                    return Ok(vec![(step, draw)]);
                }
                Expr::Lookup(lookup) => {
                    return self.lookup(lookup, &registers, draw.as_ref(), rest, expr);
                }
                Expr::Immediate(immediate) => match &immediate.data {
                    Data::Verdict(verdict) if immediate.dreg == Register::VERDICT => {
                        return Ok(vec![(Step::Verdict(known(verdict).ok_or_else(stuck)?), draw)]);
                    }
                    Data::Verdict(_) => None,
                    Data::Value(bytes) => registers.set(immediate.dreg, bytes).map(|()| true),
                },
                Expr::Masq(_) | Expr::Nat(_) => {
                    let nat = registers.nat_statement(expr).ok_or_else(stuck)?;
                    let target = nat.target().ok_or_else(stuck)?;
                    // Other families are passed over (`nft_nat_inet_eval`).
                    if nat.family.is_none_or(|family| self.is_of(family)) {
                        return Ok(vec![(Step::Translated(target), draw)]);
                    }
                    Some(true)
                }
                Expr::Opaque(_) => None,
            };
            if !continues.ok_or_else(stuck)? {
                return Ok(vec![(Step::NoMatch, draw)]);
            }
        }
        Ok(vec![(Step::Verdict(Verdict::Continue), draw)])
    }

    /// Whether the packet is of this family.
    fn is_of(&self, family: Family) -> bool {
        let meta = Meta { key: NFT_META_NFPROTO, dreg: Register::R1 };
        self.packet.meta(&meta) == Fact::Bytes(vec![value::nfproto(family)])
    }

    /// All steps that follow from a lookup, one for each value that the key can have.
    fn lookup<'e>(
        &self,
        lookup: &Lookup,
        registers: &Registers,
        draw: Option<&Draw>,
        rest: &'e [Expr],
        expr: &'e Expr,
    ) -> Result<Vec<Drawn>, Stuck<'e>> {
        let stuck = || Stuck(expr);
        let filled = self.table.set(&lookup.set).ok_or_else(stuck)?;
        // The kernel refuses a map without a register for its value, and a register without a map.
        let is_fit = lookup.dreg.is_some() == filled.spec.is_map()
            && !(lookup.is_inverted() && filled.spec.is_map())
            && lookup.flags.unwrap_or(0) & !NFT_LOOKUP_F_INV == 0;
        if is_open_set(&filled.spec) {
            let id = registers.bytes(lookup.sreg, OPEN_ID.to_be_bytes().len()).ok_or_else(stuck)?;
            let is_open = id == OPEN_ID.to_be_bytes();
            if is_open == lookup.is_inverted() {
                return Ok(vec![(Step::NoMatch, draw.cloned())]);
            }
            return self.exprs(rest, registers.clone(), draw.cloned());
        }
        let answers = answers(filled, lookup, registers).filter(|_| is_fit).ok_or_else(stuck)?;
        let mut steps = Vec::new();
        for (element, drawn) in answers {
            // No policy needs a number that depends on another one.
            if drawn.is_some() && draw.is_some() {
                return Err(stuck());
            }
            let draw = drawn.or_else(|| draw.cloned());
            let mut registers = registers.clone();
            match (element.map(ElementRef::data), lookup.dreg) {
                (None, _) if !lookup.is_inverted() => steps.push((Step::NoMatch, draw)),
                (Some(_), None) if lookup.is_inverted() => steps.push((Step::NoMatch, draw)),
                (Some(Some(Data::Verdict(verdict))), Some(Register::VERDICT)) => {
                    steps.push((Step::Verdict(known(&verdict).ok_or_else(stuck)?), draw));
                }
                (Some(Some(Data::Verdict(_))), _) => return Err(stuck()),
                (Some(Some(Data::Value(bytes))), Some(dreg)) => {
                    registers.set(dreg, &bytes).ok_or_else(stuck)?;
                    steps.extend(self.exprs(rest, registers, draw)?);
                }
                _ => steps.extend(self.exprs(rest, registers, draw)?),
            }
        }
        Ok(steps)
    }
}

/// The bytes that are written. Only rules that then end the chain are known: the others of the chain would see
/// the new bytes.
fn written(registers: &Registers, write: &PayloadWrite, rest: &[Expr]) -> Option<Step> {
    let accept = Expr::from(Immediate::verdict(Verdict::Accept));
    let value = registers.bytes(write.sreg, usize::try_from(write.len).ok()?)?;
    let PayloadWrite { base, offset, .. } = *write;
    let written = Written { base, offset, value: value.try_into().ok()? };
    (rest == [accept]).then_some(Step::Written(written))
}

/// A verdict with a name: the kernel refuses others, or they send the packet to another process.
fn known(verdict: &Verdict) -> Option<Verdict> {
    (!matches!(verdict, Verdict::Other(_))).then(|| verdict.clone())
}

fn generate(registers: &mut Registers, numgen: &Numgen) -> Option<bool> {
    let by = match (numgen.numgen_type, numgen.offset) {
        (NFT_NG_INCREMENTAL, 0) => By::RoundRobin,
        (NFT_NG_RANDOM, 0) => By::Weighted,
        _ => return None,
    };
    registers.draw(numgen.dreg, numgen.modulus, by).map(|()| true)
}

fn hashed(registers: &mut Registers, hash: &Hash) -> Option<bool> {
    if hash.hash_type != NFT_HASH_JENKINS || hash.offset.is_some_and(|offset| offset != 0) {
        return None;
    }
    let of = registers.bytes(hash.sreg, usize::try_from(hash.len).ok()?)?;
    // Without a seed the kernel generates one for each rule.
    let by = By::Hash { of, seed: hash.seed? };
    registers.draw(hash.dreg, hash.modulus, by).map(|()| true)
}

/// Converts all bytes of a generated number; both operations are the same.
fn converted(registers: &mut Registers, order: &Byteorder) -> Option<bool> {
    let is_known = [NFT_BYTEORDER_HTON, NFT_BYTEORDER_NTOH].contains(&order.op);
    let is_whole = (order.len, order.size) == (4, 4);
    registers.turn(order.sreg, order.dreg).filter(|()| is_known && is_whole).map(|()| true)
}

/// Load a fact about the packet; without it the rule does not match.
fn load(registers: &mut Registers, dreg: Register, fact: Fact) -> Option<bool> {
    match fact {
        Fact::Bytes(bytes) => registers.set(dreg, &bytes).map(|()| true),
        Fact::Absent => Some(false),
        Fact::Unknown => None,
    }
}

fn bitwise_of(registers: &mut Registers, bitwise: &Bitwise) -> Option<bool> {
    let len = usize::try_from(bitwise.len).ok()?;
    let source = registers.bytes(bitwise.sreg, len)?;
    let (mask, xor) = (bitwise.mask.bytes()?, bitwise.xor.bytes()?);
    // The kernel refuses other lengths. Linux 5.6 added other operations.
    if mask.len() != len || xor.len() != len || bitwise.op.unwrap_or(0) != NFT_BITWISE_MASK_XOR {
        return None;
    }
    let result: Vec<_> =
        source.iter().zip(mask).zip(xor).map(|((byte, mask), xor)| byte & mask ^ xor).collect();
    registers.set(bitwise.dreg, &result).map(|()| true)
}

/// Compare the bytes as one number in network order.
fn compare(registers: &Registers, cmp: &Cmp) -> Option<bool> {
    let expected = cmp.data.bytes()?;
    let found = registers.bytes(cmp.sreg, expected.len())?;
    let found = found.as_slice();
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
    // The kernel refuses ends of different lengths.
    if from.len() != to.len() {
        return None;
    }
    let found = registers.bytes(range.sreg, from.len())?;
    let is_inside = (from..=to).contains(&found.as_slice());
    Some(is_inside == (range.op == RangeOp::Eq))
}
