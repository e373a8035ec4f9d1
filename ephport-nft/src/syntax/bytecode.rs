//! A table as instructions of the virtual machine, as `nft --debug=netlink` (1.0) prints them.

use std::fmt;

use crate::nftables::expr::{Data, words};
use crate::nftables::value::family_name;
use crate::table::{Set, TableState};

/// The sets and rules of a table, printed as instructions.
#[derive(Clone, Copy, Debug)]
pub struct Bytecode<'a>(pub(super) &'a TableState);

impl fmt::Display for Bytecode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.sets.iter().try_for_each(|filled| elements(f, filled))?;
        for rule in &self.0.rules {
            writeln!(
                f,
                "{} {} {}",
                family_name(rule.family).unwrap_or("unknown"),
                rule.table,
                rule.chain
            )?;
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
        match element.data() {
            Some(Data::Value(bytes)) => write!(f, " {}", plain(&bytes))?,
            Some(verdict) => write!(f, " {verdict}")?,
            None => {}
        }
        writeln!(f, " {} [end]", element.flags().unwrap_or(0))?;
    }
    writeln!(f)
}
