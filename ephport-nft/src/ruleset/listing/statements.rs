//! A rule's expressions as nft's statements.

use super::sets;
use super::terms::{Registers, Term, comparison, is_range, masked, range};
use super::{FilledSet, nat};
use crate::expr::{Data, Expr, Immediate, Lookup, Register};
use crate::object::Rule;
use crate::uapi::{NFPROTO_IPV4, NFPROTO_IPV6};

/// The rule's statements, or `None` when one of its expressions has no words in nft.
pub(super) fn statements(rule: &Rule, sets: &[FilledSet]) -> Option<Vec<String>> {
    let family = Some(rule.family).filter(|family| [NFPROTO_IPV4, NFPROTO_IPV6].contains(family));
    let mut registers = Registers::new(family);
    let mut statements = Vec::new();
    let mut exprs = rule.exprs.as_slice();
    while let [expr, rest @ ..] = exprs {
        exprs = rest;
        if load(&mut registers, expr, sets)? {
            continue;
        }
        statements.push(match expr {
            Expr::Cmp(low) => match rest {
                [Expr::Cmp(high), rest @ ..] if is_range(low, high) => {
                    exprs = rest;
                    range(registers.term(low.sreg)?, low, high)?
                }
                _ => comparison(&mut registers, low)?,
            },
            Expr::Lookup(lookup) => looked_up(&registers, lookup, sets)?,
            Expr::Counter(counter) => {
                let (packets, bytes) = (counter.packets, counter.bytes);
                format!("counter packets {packets} bytes {bytes}")
            }
            Expr::Immediate(Immediate { data: Data::Verdict(verdict), .. }) => verdict.to_string(),
            Expr::Masq(masq) => nat::masquerade(&registers, masq)?,
            Expr::Nat(nat) => nat::source(&registers, nat)?,
            _ => return None,
        });
    }
    Some(statements)
}

/// Follows an expression that only fills a register; whether it is one.
fn load(registers: &mut Registers, expr: &Expr, sets: &[FilledSet]) -> Option<bool> {
    let (dreg, term) = match expr {
        Expr::Meta(meta) => (meta.dreg, Term::Meta(meta.key)),
        Expr::Payload(load) => (load.dreg, Term::payload(load, registers.family())),
        Expr::Ct(ct) => (ct.dreg, Term::ct(ct)),
        Expr::Fib(fib) if *fib == crate::expr::Fib::DESTINATION_TYPE => {
            (fib.dreg, Term::DestinationType)
        }
        Expr::Numgen(numgen) => (numgen.dreg, Term::numgen(numgen)?),
        Expr::Hash(hash) => (hash.dreg, Term::Number(registers.hash(hash)?)),
        Expr::Byteorder(order) => (order.dreg, registers.in_network_order(order)?),
        Expr::Bitwise(bitwise) => (bitwise.dreg, masked(registers, bitwise)?),
        Expr::Immediate(Immediate { dreg, data: Data::Value(bytes) }) => {
            (*dreg, Term::Constant(bytes.clone()))
        }
        Expr::Lookup(lookup) => match lookup.dreg {
            Some(dreg) if dreg != Register::VERDICT => {
                (dreg, Term::Mapped(looked_up(registers, lookup, sets)?))
            }
            _ => return Some(false),
        },
        _ => return Some(false),
    };
    registers.set(dreg, term);
    Some(true)
}

/// A lookup as a statement, or as the term that a later expression uses.
fn looked_up(registers: &Registers, lookup: &Lookup, sets: &[FilledSet]) -> Option<String> {
    let filled = sets.iter().find(|filled| filled.set.name == lookup.set)?;
    let key = registers.term(lookup.sreg)?.key_of(&filled.set)?;
    let content = sets::reference(filled)?;
    let between = match lookup.dreg {
        None if lookup.is_inverted() => "!= ",
        None => "",
        Some(Register::VERDICT) => "vmap ",
        Some(_) => "map ",
    };
    Some(format!("{key} {between}{content}"))
}
