//! Expressions as rustables values.
//!
//! In a message an attribute has a number and a length, but no type, and rustables accepts any of its lists
//! of attributes under any name. So an expression that it lacks is built from the attributes of another
//! expression with the same numbers and sizes.

use ::rustables::ProtocolFamily;
use ::rustables::expr as to;
use to::{ExpressionVariant, RawExpression};

use super::Lack;
use crate::nftables::expr::{
    Bitwise, Cmp, CmpOp, Counter, Ct, Data, Expr, Fib, Immediate, Lookup, Masq, Meta, Nat, Payload,
    Register, Rt, Verdict,
};
use crate::uapi::{NFT_BITWISE_MASK_XOR, NFT_NAT_SNAT};

/// A normalized expression of ours; the flags of `nat` that its registers imply are not asked for.
pub(super) fn expression(expr: &Expr) -> Result<RawExpression, Lack> {
    match expr {
        Expr::Bitwise(expr) => bitwise(expr),
        Expr::Cmp(expr) => cmp(expr),
        Expr::Counter(expr) => Ok(counter(expr)),
        Expr::Ct(expr) => ct(expr),
        Expr::Fib(expr) => fib(expr),
        Expr::Immediate(expr) => immediate(expr),
        Expr::Lookup(expr) => lookup(expr),
        Expr::Masq(expr) => masq(expr),
        Expr::Meta(expr) => meta(expr),
        Expr::Nat(expr) => nat(expr),
        Expr::Payload(expr) => payload(expr),
        Expr::Rt(expr) => rt(expr),
        Expr::Byteorder(_)
        | Expr::Hash(_)
        | Expr::Numgen(_)
        | Expr::Opaque(_)
        | Expr::PayloadWrite(_)
        | Expr::Range(_) => Err(Lack::Expression),
        Expr::ObjRef(_) => Err(Lack::Timeouts),
    }
}

fn register(register: Register) -> Result<to::Register, Lack> {
    register.0.try_into().map_err(|_| Lack::Register)
}

fn bytes(data: &Data) -> Result<&[u8], Lack> {
    data.bytes().ok_or(Lack::Expression)
}

/// These attributes, under the name of another expression.
fn under_name(name: &str, attributes: impl Into<ExpressionVariant>) -> RawExpression {
    RawExpression::default().with_name(name).with_data(attributes)
}

fn bitwise(expr: &Bitwise) -> Result<RawExpression, Lack> {
    if expr.op.is_some_and(|op| op != NFT_BITWISE_MASK_XOR) {
        return Err(Lack::Expression);
    }
    let both = to::Bitwise::new(bytes(&expr.mask)?, bytes(&expr.xor)?);
    let both = both.map_err(|_| Lack::Expression)?;
    let both = both.with_len(expr.len).with_sreg(register(expr.sreg)?);
    Ok(both.with_dreg(register(expr.dreg)?).into())
}

fn cmp(expr: &Cmp) -> Result<RawExpression, Lack> {
    let op = match expr.op {
        CmpOp::Eq => to::CmpOp::Eq,
        CmpOp::Neq => to::CmpOp::Neq,
        CmpOp::Lt => to::CmpOp::Lt,
        CmpOp::Lte => to::CmpOp::Lte,
        CmpOp::Gt => to::CmpOp::Gt,
        CmpOp::Gte => to::CmpOp::Gte,
    };
    Ok(to::Cmp::new(op, bytes(&expr.data)?).with_sreg(register(expr.sreg)?).into())
}

fn counter(expr: &Counter) -> RawExpression {
    to::Counter::default().with_nb_bytes(expr.bytes).with_nb_packets(expr.packets).into()
}

/// A register and a number, as `payload` has them; rustables has only two of the keys. A direction
/// is a single byte after them, which no other expression has.
fn ct(expr: &Ct) -> Result<RawExpression, Lack> {
    if expr.direction.is_some() {
        return Err(Lack::CtAddress);
    }
    let data = to::Payload::default().with_dreg(register(expr.dreg)?).with_base(expr.key);
    Ok(under_name(Ct::NAME, data))
}

/// A register and two numbers, as `payload` has them.
fn fib(expr: &Fib) -> Result<RawExpression, Lack> {
    let data = to::Payload::default().with_dreg(register(expr.dreg)?);
    Ok(under_name(Fib::NAME, data.with_base(expr.result).with_offset(expr.flags)))
}

/// A register and a number, as `payload` has them.
fn rt(expr: &Rt) -> Result<RawExpression, Lack> {
    let data = to::Payload::default().with_dreg(register(expr.dreg)?);
    Ok(under_name(Rt::NAME, data.with_base(expr.key)))
}

fn immediate(expr: &Immediate) -> Result<RawExpression, Lack> {
    let verdict = match &expr.data {
        Data::Value(bytes) => {
            return Ok(to::Immediate::new_data(bytes.to_vec(), register(expr.dreg)?).into());
        }
        Data::Verdict(verdict) => &**verdict,
    };
    let kind = match verdict {
        Verdict::Accept => to::VerdictKind::Accept,
        Verdict::Drop => to::VerdictKind::Drop,
        Verdict::Continue => to::VerdictKind::Continue,
        Verdict::Break => to::VerdictKind::Break,
        Verdict::Return => to::VerdictKind::Return,
        Verdict::Jump(chain) => to::VerdictKind::Jump { chain: chain.clone() },
        Verdict::Goto(chain) => to::VerdictKind::Goto { chain: chain.clone() },
        Verdict::Other(_) => return Err(Lack::Expression),
    };
    Ok(to::Immediate::new_verdict(kind).with_dreg(register(expr.dreg)?).into())
}

fn lookup(expr: &Lookup) -> Result<RawExpression, Lack> {
    if expr.flags.is_some() {
        return Err(Lack::LookupFlags);
    }
    let mut to = to::Lookup::default().with_set(&expr.set).with_sreg(register(expr.sreg)?);
    if let Some(dreg) = expr.dreg {
        to.set_dreg(register(dreg)?);
    }
    Ok(to.into())
}

/// Four bytes and two registers, as `lookup` has them. rustables' own `Masquerade` is without
/// ports: sent in its place, it would permit every port.
fn masq(expr: &Masq) -> Result<RawExpression, Lack> {
    let mut data = to::Lookup::default();
    if let Some(flags) = expr.flags {
        // A number of all flags that there are is ASCII.
        let bytes = String::from_utf8(flags.to_be_bytes().to_vec());
        data.set_set(bytes.map_err(|_| Lack::Expression)?);
    }
    if let Some(min) = expr.proto_min {
        data.set_sreg(register(min)?);
    }
    if let Some(max) = expr.proto_max {
        data.set_dreg(register(max)?);
    }
    Ok(under_name(Masq::NAME, data))
}

fn meta(expr: &Meta) -> Result<RawExpression, Lack> {
    let dreg = register(expr.dreg)?;
    // A key without a name there has its register and number where `payload` has them.
    Ok(match to::MetaType::try_from(expr.key) {
        Ok(key) => to::Meta::new(key).with_dreg(dreg).into(),
        Err(_) => {
            under_name(Meta::NAME, to::Payload::default().with_dreg(dreg).with_base(expr.key))
        }
    })
}

/// One address and one port; no other expression has attributes with the numbers of the ends of ranges.
fn nat(expr: &Nat) -> Result<RawExpression, Lack> {
    if expr.addr_max.is_some() || expr.proto_max.is_some() {
        return Err(Lack::NatRange);
    }
    if expr.flags.is_some() {
        return Err(Lack::NatFlags);
    }
    let kind = if expr.nat_type == NFT_NAT_SNAT { to::NatType::SNat } else { to::NatType::DNat };
    let family = i32::try_from(expr.family).ok().map(ProtocolFamily::try_from);
    Ok(to::Nat {
        nat_type: Some(kind),
        family: Some(family.and_then(Result::ok).ok_or(Lack::Expression)?),
        ip_register: expr.addr_min.map(register).transpose()?,
        port_register: expr.proto_min.map(register).transpose()?,
    }
    .into())
}

fn payload(expr: &Payload) -> Result<RawExpression, Lack> {
    let data = to::Payload::default().with_dreg(register(expr.dreg)?).with_base(expr.base);
    Ok(data.with_offset(expr.offset).with_len(expr.len).into())
}
