//! A rule's expressions as nft's statements.

use super::sets;
use super::terms::{Registers, Term, comparison, is_range, masked, range};
use super::{Set, nat};
use crate::nftables::Rule;
use crate::nftables::expr::{Data, Expr, Immediate, Lookup, Register};
use crate::uapi::{NFPROTO_IPV4, NFPROTO_IPV6};

/// A rule as far as nft has words for it.
pub(super) struct Said<'a> {
    /// The statements from its start.
    pub(super) statements: Vec<String>,
    /// The expressions behind them, from the first that they do not say.
    pub(super) rest: &'a [Expr],
}

/// The rule's statements, up to the first expression that has no words in nft.
pub(super) fn statements<'a>(rule: &'a Rule, sets: &[Set]) -> Said<'a> {
    let family = Some(rule.family).filter(|family| [NFPROTO_IPV4, NFPROTO_IPV6].contains(family));
    let mut registers = Registers::new(family);
    let mut statements = Vec::new();
    let mut exprs = rule.exprs.as_slice();
    // Loads are said by the statement that uses them: one register's, surely by the next one.
    let (mut said, mut rest, mut loaded) = (0, exprs, Vec::new());
    while let [expr, behind @ ..] = exprs {
        match load(&mut registers, expr, sets) {
            Some(Load::Into(dreg)) => {
                loaded.push(dreg);
                exprs = behind;
                continue;
            }
            Some(Load::None) => {}
            None => return Said { statements: first(statements, said), rest },
        }
        let Some((statement, behind)) = statement(&mut registers, exprs, sets) else {
            return Said { statements: first(statements, said), rest };
        };
        statements.push(statement);
        exprs = behind;
        let uses_loads = !matches!(expr, Expr::Counter(_) | Expr::Immediate(_));
        if loaded.is_empty() || uses_loads && loaded.windows(2).all(|pair| pair[0] == pair[1]) {
            (said, rest) = (statements.len(), exprs);
            loaded.clear();
        }
    }
    Said { statements, rest: &[] }
}

fn first(mut statements: Vec<String>, count: usize) -> Vec<String> {
    statements.truncate(count);
    statements
}

/// The statement that the expressions begin with, and what is behind it.
fn statement<'a>(
    registers: &mut Registers,
    exprs: &'a [Expr],
    sets: &[Set],
) -> Option<(String, &'a [Expr])> {
    let (expr, mut rest) = exprs.split_first()?;
    let statement = match expr {
        Expr::Cmp(low) => match rest {
            [Expr::Cmp(high), behind @ ..] if is_range(low, high) => {
                rest = behind;
                range(registers.term(low.sreg)?, low, high)?
            }
            _ => comparison(registers, low)?,
        },
        Expr::Lookup(lookup) => looked_up(registers, lookup, sets)?,
        Expr::Counter(counter) => {
            let (packets, bytes) = (counter.packets, counter.bytes);
            format!("counter packets {packets} bytes {bytes}")
        }
        Expr::Immediate(Immediate { data: Data::Verdict(verdict), .. }) => verdict.to_string(),
        Expr::Masq(masq) => nat::masquerade(registers, masq)?,
        Expr::Nat(nat) => nat::source(registers, nat)?,
        _ => return None,
    };
    Some((statement, rest))
}

/// Whether an expression only fills a register.
enum Load {
    Into(Register),
    None,
}

/// Follows an expression that only fills a register; `None` when nft has no words for what it loads.
fn load(registers: &mut Registers, expr: &Expr, sets: &[Set]) -> Option<Load> {
    let (dreg, term) = match expr {
        Expr::Meta(meta) => (meta.dreg, Term::Meta(meta.key)),
        Expr::Payload(load) => (load.dreg, Term::payload(load, registers.family())),
        Expr::Ct(ct) => (ct.dreg, Term::ct(ct)),
        Expr::Fib(fib) if *fib == crate::nftables::expr::Fib::DESTINATION_TYPE => {
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
            _ => return Some(Load::None),
        },
        _ => return Some(Load::None),
    };
    registers.set(dreg, term);
    Some(Load::Into(dreg))
}

/// A lookup as a statement, or as the term that a later expression uses.
fn looked_up(registers: &Registers, lookup: &Lookup, sets: &[Set]) -> Option<String> {
    let filled = sets.iter().find(|filled| filled.spec.name == lookup.set)?;
    let key = registers.term(lookup.sreg)?.key_of(&filled.spec)?;
    let content = sets::reference(filled)?;
    let between = match lookup.dreg {
        None if lookup.is_inverted() => "!= ",
        None => "",
        Some(Register::VERDICT) => "vmap ",
        Some(_) => "map ",
    };
    Some(format!("{key} {between}{content}"))
}
