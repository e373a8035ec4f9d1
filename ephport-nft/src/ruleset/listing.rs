//! A ruleset as text in nft's own syntax.
//!
//! A rule is a program over registers; to write it down, each register's content is followed as a
//! term (`meta l4proto`, `th sport`, a constant) until an expression uses it. A rule that nft has
//! no words for is printed as a comment, so that the text never says less than the table does.

use std::fmt;

use super::Ruleset;
use super::bytecode::family;
use crate::expr::{Bitwise, Cmp, CmpOp, Data, Expr, Immediate, Masq, Payload, Register};
use crate::object::{Chain, Rule};
use crate::uapi::{
    ARPHRD_LOOPBACK, NF_ACCEPT, NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC, NF_NAT_RANGE_PERSISTENT,
    NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY, NFPROTO_IPV4, NFPROTO_IPV6,
    NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_META_OIFNAME, NFT_META_OIFTYPE, RTN_BROADCAST,
    RTN_MULTICAST, RTN_UNICAST,
};

/// Prints a ruleset so that `nft -f` loads the same.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a>(pub(super) &'a Ruleset);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ruleset { table, chains, .. } = self.0;
        writeln!(f, "table {} {} {{", family(table.family), table.name)?;
        if let Some(comment) = table.comment() {
            writeln!(f, "\tcomment \"{}\"", comment.as_str())?;
        }
        for (i, chain) in chains.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.chain(f, chain)?;
        }
        writeln!(f, "}}")
    }
}

impl Listing<'_> {
    fn chain(self, f: &mut fmt::Formatter<'_>, chain: &Chain) -> fmt::Result {
        writeln!(f, "\tchain {} {{", chain.name)?;
        if let (Some(hook), Some(kind)) = (chain.hook, &chain.kind) {
            let at = if hook.number == NF_INET_POST_ROUTING { "postrouting" } else { "unknown" };
            let policy = if chain.policy == Some(NF_ACCEPT) { "accept" } else { "drop" };
            let priority = Priority(hook.priority);
            writeln!(f, "\t\ttype {kind} hook {at} priority {priority}; policy {policy};")?;
        }
        for rule in self.0.rules_of(&chain.name) {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

/// A priority as nft writes it in postrouting: relative to where source NAT is.
struct Priority(i32);

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 - NF_IP_PRI_NAT_SRC {
            0 => f.write_str("srcnat"),
            above @ 1..=10 => write!(f, "srcnat + {above}"),
            below @ -10..=-1 => write!(f, "srcnat - {}", -below),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// One line that `nft` reads, or a comment where nft has no words for the rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(statements) = statements(&self.exprs) {
            f.write_str(&statements.join(" "))?;
        } else {
            f.write_str("# nft has no words for this rule:")?;
            self.exprs.iter().try_for_each(|expr| write!(f, " {expr}"))?;
        }
        match self.comment() {
            Some(comment) => write!(f, " comment \"{}\"", comment.as_str()),
            None => Ok(()),
        }
    }
}

/// What a register holds.
#[derive(Clone)]
enum Term {
    Meta(u32),
    Payload(Payload),
    TcpFlags(u8),
    DestinationType,
    Constant(Vec<u8>),
}

/// The registers of the virtual machine, as far as the rule has set them.
#[derive(Default)]
struct Registers(Vec<(Register, Term)>);

impl Registers {
    fn set(&mut self, register: Register, term: Term) {
        self.0.retain(|(held, _)| *held != register);
        self.0.push((register, term));
    }

    fn term(&self, register: Register) -> Option<&Term> {
        self.0.iter().find(|(held, _)| *held == register).map(|(_, term)| term)
    }

    /// The port in a register.
    fn port(&self, register: Register) -> Option<u16> {
        match self.term(register)? {
            Term::Constant(bytes) => bytes.as_slice().try_into().ok().map(u16::from_be_bytes),
            _ => None,
        }
    }
}

/// The rule's statements, or `None` when one of its expressions has no words in nft.
fn statements(mut exprs: &[Expr]) -> Option<Vec<String>> {
    let mut registers = Registers::default();
    let mut statements = Vec::new();
    while let [expr, rest @ ..] = exprs {
        exprs = rest;
        match expr {
            Expr::Meta(meta) => registers.set(meta.dreg, Term::Meta(meta.key)),
            Expr::Payload(load) => registers.set(load.dreg, Term::Payload(load.clone())),
            Expr::Fib(fib) if *fib == crate::expr::Fib::DESTINATION_TYPE => {
                registers.set(fib.dreg, Term::DestinationType);
            }
            Expr::Bitwise(bitwise) => registers.set(bitwise.dreg, masked(&registers, bitwise)?),
            Expr::Cmp(low) => {
                let term = registers.term(low.sreg)?;
                match rest {
                    [Expr::Cmp(high), rest @ ..] if is_range(low, high) => {
                        statements.push(range(term, low, high)?);
                        exprs = rest;
                    }
                    _ => statements.push(comparison(term, low)?),
                }
            }
            Expr::Counter(counter) => {
                let (packets, bytes) = (counter.packets, counter.bytes);
                statements.push(format!("counter packets {packets} bytes {bytes}"));
            }
            Expr::Immediate(Immediate { data: Data::Verdict(verdict), .. }) => {
                statements.push(verdict.to_string());
            }
            Expr::Immediate(Immediate { dreg, data: Data::Value(bytes) }) => {
                registers.set(*dreg, Term::Constant(bytes.clone()));
            }
            Expr::Masq(masq) => statements.push(masquerade(&registers, masq)?),
            _ => return None,
        }
    }
    Some(statements)
}

fn masked(registers: &Registers, bitwise: &Bitwise) -> Option<Term> {
    let Term::Payload(load) = registers.term(bitwise.sreg)? else { return None };
    let [mask] = bitwise.mask.bytes()? else { return None };
    let plain = *bitwise == Bitwise { dreg: bitwise.dreg, ..Bitwise::mask(&[*mask]) };
    (plain && load.loads_same(&Payload::TCP_FLAGS)).then_some(Term::TcpFlags(*mask))
}

fn is_range(low: &Cmp, high: &Cmp) -> bool {
    low.sreg == high.sreg && low.op == CmpOp::Gte && high.op == CmpOp::Lte
}

fn range(term: &Term, low: &Cmp, high: &Cmp) -> Option<String> {
    let Term::Payload(load) = term else { return None };
    let port = |cmp: &Cmp| cmp.data.bytes()?.try_into().ok().map(u16::from_be_bytes);
    let (low, high) = (port(low)?, port(high)?);
    load.loads_same(&Payload::SOURCE_PORT).then(|| format!("th sport {low}-{high}"))
}

fn comparison(term: &Term, cmp: &Cmp) -> Option<String> {
    let bytes = cmp.data.bytes()?;
    let op = cmp.op.symbol();
    match term {
        Term::Meta(NFT_META_OIFNAME) => Some(format!("oifname {op}\"{}\"", interface(bytes)?)),
        Term::Meta(NFT_META_OIFTYPE) if bytes == ARPHRD_LOOPBACK.to_ne_bytes() => {
            Some(format!("meta oiftype {op}loopback"))
        }
        Term::Meta(NFT_META_NFPROTO) => match bytes {
            [NFPROTO_IPV4] => Some(format!("meta nfproto {op}ipv4")),
            [NFPROTO_IPV6] => Some(format!("meta nfproto {op}ipv6")),
            _ => None,
        },
        Term::Meta(NFT_META_L4PROTO) => {
            let [number] = bytes else { return None };
            let protocol = ephport_core::Protocol::from_number(*number);
            let name = protocol.map_or(number.to_string(), |protocol| protocol.to_string());
            Some(format!("meta l4proto {op}{name}"))
        }
        Term::Payload(load) if load.loads_same(&Payload::SOURCE_PORT) => {
            let port = u16::from_be_bytes(bytes.try_into().ok()?);
            Some(format!("th sport {op}{port}"))
        }
        Term::TcpFlags(mask) => {
            let [flags] = bytes else { return None };
            let op = if op.is_empty() { "== " } else { op };
            Some(format!("tcp flags & ({}) {op}{}", tcp_flags(*mask), tcp_flags(*flags)))
        }
        Term::DestinationType => {
            let number = u32::from_ne_bytes(bytes.try_into().ok()?);
            Some(format!("fib daddr type {op}{}", address_type(number)?))
        }
        _ => None,
    }
}

/// All 16 bytes of a register are a name, fewer are a prefix.
fn interface(bytes: &[u8]) -> Option<String> {
    let name = bytes.split(|byte| *byte == 0).next()?;
    let name = str::from_utf8(name).ok()?;
    let is_whole = bytes.len() == 16;
    Some(if is_whole { name.into() } else { format!("{name}*") })
}

fn tcp_flags(bits: u8) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let set = NAMES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    let names: Vec<_> = set.map(|(_, name)| *name).collect();
    if names.is_empty() { "0x0".into() } else { names.join(" | ") }
}

fn address_type(number: u32) -> Option<&'static str> {
    let types =
        [(RTN_UNICAST, "unicast"), (RTN_BROADCAST, "broadcast"), (RTN_MULTICAST, "multicast")];
    types.into_iter().find(|(value, _)| u32::from(*value) == number).map(|(_, name)| name)
}

/// `nft` would print ports that the kernel ignores; such a rule has no words here.
fn masquerade(registers: &Registers, masq: &Masq) -> Option<String> {
    if masq.ignores_its_ports() {
        return None;
    }
    let mut words = vec!["masquerade".to_string()];
    words.extend(match (masq.proto_min, masq.proto_max) {
        (None, None) => None,
        (Some(only), None) => Some(format!("to :{}", registers.port(only)?)),
        (low, high) => Some(format!("to :{}-{}", registers.port(low?)?, registers.port(high?)?)),
    });
    let flags = nat_flags(masq.flags.unwrap_or(0));
    words.extend((!flags.is_empty()).then(|| flags.join(",")));
    Some(words.join(" "))
}

fn nat_flags(flags: u32) -> Vec<&'static str> {
    let names = [
        (NF_NAT_RANGE_PROTO_RANDOM, "random"),
        (NF_NAT_RANGE_PROTO_RANDOM_FULLY, "fully-random"),
        (NF_NAT_RANGE_PERSISTENT, "persistent"),
    ];
    names.into_iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| name).collect()
}
