//! A ruleset as the virtual machine's instructions, in the manner of `nft --debug=netlink` (1.0).

use std::fmt;

use super::Ruleset;
use crate::uapi::{NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6};

/// Prints a ruleset's rules as instructions.
#[derive(Clone, Copy, Debug)]
pub struct Bytecode<'a>(pub(super) &'a Ruleset);

impl fmt::Display for Bytecode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.0.rules {
            writeln!(f, "{} {} {}", family(rule.family), rule.table, rule.chain)?;
            rule.exprs.iter().try_for_each(|expr| writeln!(f, "  {expr}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
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
