//! The meaning of rules: each rule is decoded once into typed [`Statement`]s.
//!
//! A rule is a program over registers. To decode it, the content of each register is followed as an
//! [`Operand`] (`meta l4proto`, `th sport`, a constant) until an expression uses it. The text for nft,
//! differences between tables, and the NAT statements of the interpreter are all made from the statements.
//!
//! A rule that nft has no syntax for is printed as a comment, from the first such statement on as
//! bytecode, so that the text always contains the whole table.

mod bytecode;
mod nat;
mod operand;
mod policies;
mod print;
mod sets;
mod statement;

use std::fmt;

pub use bytecode::Bytecode;
pub use nat::{Argument, NatStatement, NatTarget};
pub use operand::{AddressField, IcmpField, Operand};
pub use policies::InstalledPolicy;
pub use sets::SetRef;
pub(crate) use sets::element_texts;
pub use statement::{Decoded, MatchValue, Statement, decode};

use crate::nftables::expr::Expr;
use crate::nftables::value::family_name;
use crate::nftables::{Chain, CtTimeout, Rule, Table};
use crate::table::{Normalized, TableState, fingerprint_of};
use crate::uapi::{
    NF_ACCEPT, NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_SRC, NF_IP_PRI_RAW,
};

/// A table as text that `nft -f` loads.
#[derive(Debug)]
pub struct Listing<'a> {
    view: Normalized<'a>,
    /// In the order in which they are printed.
    chains: Vec<&'a Chain>,
    /// Whether counters are printed as they are, and the fingerprint.
    is_whole: bool,
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.view.table;
        writeln!(f, "table {} {} {{", family_name(table.family).unwrap_or("unknown"), table.name)?;
        if let Some(comment) = table.comment() {
            writeln!(f, "\tcomment \"{}\"", comment.as_str())?;
        }
        for object in &self.view.timeouts {
            timeout(f, object)?;
        }
        for set in self.view.named_sets() {
            sets::declaration(f, set)?;
            writeln!(f)?;
        }
        for (i, chain) in self.chains.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.chain(f, chain)?;
        }
        writeln!(f, "}}")
    }
}

/// Timeouts as a part of their table, and an empty line.
fn timeout(f: &mut fmt::Formatter<'_>, object: &CtTimeout) -> fmt::Result {
    let Some(protocol) = object.protocol() else {
        return writeln!(f, "\t# nft cannot print ct timeout {}\n", object.name);
    };
    let l3proto = object.data.as_ref().and_then(|data| u8::try_from(data.l3proto?).ok());
    let l3proto = l3proto.and_then(family_name).unwrap_or("inet");
    let timeouts = object.timeouts();
    let states = timeouts.states().iter();
    let states: Vec<_> =
        states.map(|(state, seconds)| format!("{} : {seconds}", state.name())).collect();
    writeln!(f, "\tct timeout {} {{\n\t\tprotocol {protocol}\n\t\tl3proto {l3proto}", object.name)?;
    writeln!(f, "\t\tpolicy = {{ {} }}\n\t}}\n", states.join(", "))
}

impl Listing<'_> {
    fn chain(&self, f: &mut fmt::Formatter<'_>, chain: &Chain) -> fmt::Result {
        writeln!(f, "\tchain {} {{", chain.name)?;
        let declaration = chain_to_nft(chain);
        if !declaration.is_empty() {
            writeln!(f, "\t\t{declaration}")?;
        }
        for rule in self.view.rules_of(&chain.name) {
            writeln!(f, "\t\t{}", line(rule, &self.view, self.is_whole))?;
        }
        writeln!(f, "\t}}")
    }
}

/// A priority as nft prints it: relative to that of source NAT, or to that of connection tracking's predecessor,
/// `raw`.
struct Priority(i32);

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == NF_IP_PRI_RAW {
            return f.write_str("raw");
        }
        match self.0.saturating_sub(NF_IP_PRI_NAT_SRC) {
            0 => f.write_str("srcnat"),
            above @ 1..=10 => write!(f, "srcnat + {above}"),
            below @ -10..=-1 => write!(f, "srcnat - {}", -below),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// One line that `nft` reads, or a comment where nft has no syntax for the rule. A whole line has the
/// counters as they are, and the fingerprint.
fn line(rule: &Rule, table: &Normalized<'_>, is_whole: bool) -> String {
    let (text, rest) = nft_and_rest(rule, table, is_whole);
    let mark = if rest.iter().any(|expr| matches!(expr, Expr::Opaque(_))) {
        "# ephport does not know all of this rule: "
    } else if !rest.is_empty() {
        "# nft cannot list all of this rule: "
    } else {
        ""
    };
    let comment = rule.comment().filter(|_| is_whole || fingerprint_of(rule).is_none());
    let comment = comment.map_or(String::new(), |c| format!(" comment \"{}\"", c.as_str()));
    format!("{mark}{text}{comment}")
}

/// The rule without its comment as nft prints it, and from the first statement that nft has no syntax
/// for as bytecode.
pub(crate) fn rule_to_nft(rule: &Rule, table: &Normalized<'_>) -> String {
    nft_and_rest(rule, table, false).0
}

fn nft_and_rest<'r>(
    rule: &'r Rule,
    table: &Normalized<'_>,
    is_whole: bool,
) -> (String, &'r [Expr]) {
    let (mut texts, mut printed) = (Vec::new(), 0);
    for Decoded { statement, exprs } in decode(rule, table) {
        let text = match statement {
            Statement::Counter(_) if !is_whole => Some("counter packets 0 bytes 0".into()),
            statement => statement.to_nft(),
        };
        let Some(text) = text else { break };
        texts.push(text);
        printed += exprs.len();
    }
    let rest = rule.exprs.get(printed..).unwrap_or_default();
    texts.extend(
        rest.iter().map(
            |expr| {
                if is_whole { expr.to_string() } else { expr.normalized().to_string() }
            },
        ),
    );
    (texts.join(" "), rest)
}

/// The declaration of a base chain: its hook, and the verdict at its end; empty for another chain.
pub(crate) fn chain_to_nft(chain: &Chain) -> String {
    let (Some(hook), Some(kind)) = (&chain.hook, &chain.chain_type) else { return String::new() };
    let at = match hook.number {
        NF_INET_PRE_ROUTING => "prerouting",
        NF_INET_POST_ROUTING => "postrouting",
        _ => "unknown",
    };
    let policy = if chain.policy == Some(NF_ACCEPT) { "accept" } else { "drop" };
    format!("type {kind} hook {at} priority {}; policy {policy};", Priority(hook.priority))
}

impl TableState {
    /// The table as text that `nft -f` loads.
    #[must_use]
    pub fn to_nft(&self) -> Listing<'_> {
        let chains = self.chains.iter().collect();
        Listing { view: self.normalized(), chains, is_whole: true }
    }

    /// The table as instructions that `nft --debug=netlink` prints.
    #[must_use]
    pub fn bytecode(&self) -> Bytecode<'_> {
        Bytecode(self)
    }

    /// Each rule as a line of [`to_nft`](Self::to_nft), in the order of `rules`.
    #[must_use]
    pub fn rule_listings(&self) -> Vec<String> {
        let view = self.normalized();
        self.rules.iter().map(|rule| line(rule, &view, true)).collect()
    }
}

impl<'a> Normalized<'a> {
    /// The table as text: its counters at zero, its chains by name, and without the fingerprint.
    #[must_use]
    pub fn to_nft(self) -> Listing<'a> {
        let chains = self.chains.clone();
        Listing { view: self, chains, is_whole: false }
    }
}

/// A line of [`TableState::to_nft`], without the contents of sets.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let empty = TableState::empty(Table::new(self.family, &self.table));
        f.write_str(&line(self, &empty.normalized(), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::expr::{Hash, Payload, Register};
    use crate::table::layout::{FAMILY, TABLE};

    #[test]
    fn priorities_near_source_nat_are_relative() {
        let cases = [
            (100, "srcnat"),
            (90, "srcnat - 10"),
            (110, "srcnat + 10"),
            (89, "89"),
            (111, "111"),
            (i32::MIN, "-2147483648"),
        ];
        for (priority, text) in cases {
            assert_eq!(Priority(priority).to_string(), text);
        }
    }

    #[test]
    fn hash_beyond_all_registers_is_not_nft() {
        let hash = Hash {
            sreg: Register(u32::MAX),
            dreg: Register(1),
            len: u32::MAX,
            modulus: 2,
            seed: None,
            offset: None,
            hash_type: 0,
        };
        let load = Payload { dreg: Register(u32::MAX), ..Payload::SOURCE_PORT };
        let rule = Rule::new(FAMILY, TABLE, "c", vec![load.into(), hash.into()]);
        assert!(rule.to_string().starts_with("# nft cannot list all of this rule: "));
    }
}
