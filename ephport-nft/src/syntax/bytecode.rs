//! A ruleset as the virtual machine's instructions, in the manner of `nft --debug=netlink` (1.0).

use std::fmt;

use super::{Set, TableState};
use crate::nftables::expr::{Data, words};
use crate::uapi::{NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6};

/// Prints a ruleset's sets and rules as instructions.
#[derive(Clone, Copy, Debug)]
pub struct Bytecode<'a>(pub(super) &'a TableState);

impl fmt::Display for Bytecode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.sets.iter().try_for_each(|filled| elements(f, filled))?;
        for rule in &self.0.rules {
            writeln!(f, "{} {} {}", family(rule.family), rule.table, rule.chain)?;
            rule.exprs.iter().try_for_each(|expr| writeln!(f, "  {expr}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn elements(f: &mut fmt::Formatter<'_>, Set { spec: set, elements }: &Set) -> fmt::Result {
    write!(f, "{} {} {:x}", set.name, set.table, set.flags.unwrap_or(0))?;
    if let Some(size) = set.size() {
        write!(f, " size {size}")?;
    }
    writeln!(f)?;
    for element in elements {
        let plain = |bytes: &[u8]| words(bytes).replace("0x", "");
        write!(f, "  element {} :", plain(element.key_bytes().unwrap_or_default()))?;
        match &element.data {
            Some(Data::Value(bytes)) => write!(f, " {}", plain(bytes))?,
            Some(verdict) => write!(f, " {verdict}")?,
            None => {}
        }
        writeln!(f, " {} [end]", element.flags.unwrap_or(0))?;
    }
    writeln!(f)
}

/// nft's name for an `NFPROTO_*`.
pub(super) fn family(number: u8) -> &'static str {
    match number {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        _ => "unknown",
    }
}
