//! What only all chains together show: the depth of jumps, and translations in a chain or at a hook where
//! they do not work (`nft_table_validate`).

use ephport_nft::Errno;

use super::ruleset::{Base, Chain, ChainType, Reference, Ruleset, Table};

/// Too many links, of errno(3).
const EMLINK: Errno = Errno::from_raw(31);

/// `NFT_JUMP_STACK_SIZE`
const MAX_DEPTH: usize = 16;

/// The first failure of a table.
pub(super) fn validate(ruleset: &Ruleset) -> Result<(), Errno> {
    ruleset.tables.iter().try_for_each(|table| validate_table(table))
}

pub(super) fn validate_table(table: &Table) -> Result<(), Errno> {
    for chain in &table.chains {
        if let Some(base) = &chain.base {
            visit(table, base, chain, 0)?;
        }
    }
    Ok(())
}

/// `nft_chain_validate`
fn visit(table: &Table, base: &Base, chain: &Chain, depth: usize) -> Result<(), Errno> {
    if depth == MAX_DEPTH {
        return Err(EMLINK);
    }
    for reference in chain.rules.iter().flat_map(|rule| &rule.references) {
        match reference {
            Reference::Nat(hooks) => {
                let is_right = base.chain_type == ChainType::Nat && hooks & (1 << base.hook) != 0;
                if !is_right {
                    return Err(Errno::EOPNOTSUPP);
                }
            }
            Reference::Chain(name) => jump(table, base, name, depth)?,
            Reference::Set(name) => {
                let map = table.set(name).filter(|set| set.is_verdict_map());
                let elements = map.iter().flat_map(|map| map.elements.iter());
                for name in elements.filter_map(|element| element.chain.as_ref()) {
                    jump(table, base, name, depth)?;
                }
            }
            Reference::Object(..) => {}
        }
    }
    Ok(())
}

fn jump(table: &Table, base: &Base, name: &[u8], depth: usize) -> Result<(), Errno> {
    table.chain(name).map_or(Ok(()), |chain| visit(table, base, chain, depth + 1))
}
