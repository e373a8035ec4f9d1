//! The effect of all paths of a connection together.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ephport_core::decision::HASH_SEED;
use ephport_core::{Distribution, Effect, Port, PortRange, PortSelection, PortSet, Translation};

use super::path::{By, Draw, InterpretError, Path};
use crate::nftables::value;
use crate::syntax::NatTarget;

/// The effect of these paths on a connection from `source`.
pub fn combine(paths: &[Path], source: SocketAddr) -> Result<Effect, InterpretError> {
    let targets: Vec<_> = paths.iter().filter_map(|path| path.target).collect();
    let timeouts = paths.first().map(|path| path.timeouts.clone()).unwrap_or_default();
    let is_assigned = targets.is_empty() && !timeouts.is_empty();
    if is_assigned || paths.iter().any(|path| path.timeouts != timeouts) {
        return Err(InterpretError::Undecided);
    }
    let Some(NatTarget { address, flags, .. }) = targets.first().copied() else {
        return match paths.iter().filter(|path| path.is_dropped).count() {
            0 => Ok(Effect::Untouched),
            all if all == paths.len() => Ok(Effect::Dropped),
            _ => Err(InterpretError::Undecided),
        };
    };
    let is_same = |other: &NatTarget| (other.address, other.flags) == (address, flags);
    if targets.len() < paths.len() || !targets.iter().all(is_same) {
        return Err(InterpretError::Undecided);
    }
    let port = Port::new(source.port()).unwrap_or(Port::MIN);
    let ports: PortSet =
        targets.iter().map(|target| target.ports.unwrap_or(any_like(port))).collect();
    let distribution = distribution(paths, source)?;
    let is_kept = flags.keep_permitted_ports() && distribution.is_none() && ports.contains(port);
    let selection = PortSelection::new(flags, distribution);
    let keep = is_kept.then_some(port);
    let translation = Translation::new(ports, keep, address, selection);
    Ok(Effect::Translated(translation.with_timeouts(timeouts)))
}

/// The ports from which the kernel selects without a range (`nf_nat_l4proto_unique_tuple`).
fn any_like(port: Port) -> PortRange {
    let (first, last) = match port.get() {
        ..512 => (1, 511),
        512..1024 => (600, 1023),
        _ => return PortRange::EPHEMERAL,
    };
    let range = Port::new(first).and_then(|first| PortRange::new(first, Port::new(last)?));
    range.unwrap_or(PortRange::EPHEMERAL)
}

/// The distribution of paths, each a translation, over their ranges.
fn distribution(
    paths: &[Path],
    source: SocketAddr,
) -> Result<Option<Distribution>, InterpretError> {
    if let [Path { draw: None, .. }] = paths {
        return Ok(None);
    }
    let Some(Path { draw: Some(Draw { by, below, .. }), .. }) = paths.first() else {
        return Err(InterpretError::Uneven);
    };
    let distribution = match by {
        By::RoundRobin => Distribution::RoundRobin,
        By::Weighted => Distribution::Weighted,
        By::Hash { of, seed: HASH_SEED } if *of == hashed(source) => Distribution::Hash,
        By::Hash { .. } => return Err(InterpretError::Uneven),
    };
    let mut numbers: BTreeMap<PortRange, u64> = BTreeMap::new();
    for Path { target, draw, .. } in paths {
        let draw = draw.as_ref().filter(|draw| (&draw.by, draw.below) == (by, *below));
        match (draw, target.and_then(|target| target.ports)) {
            (Some(draw), Some(range)) => {
                *numbers.entry(range).or_default() += u64::from(draw.numbers);
            }
            _ => return Err(InterpretError::Uneven),
        }
    }
    // Round-robin gives each range the same share, the others give it a share by its size.
    let weight = |range: &PortRange| match distribution {
        Distribution::RoundRobin => 1,
        Distribution::Weighted | Distribution::Hash | Distribution::Remap => {
            u64::from(range.count())
        }
    };
    let all: u64 = numbers.keys().map(weight).sum();
    let is_fair =
        |(range, numbers): (&PortRange, &u64)| numbers * all == weight(range) * u64::from(*below);
    if numbers.iter().all(is_fair) { Ok(Some(distribution)) } else { Err(InterpretError::Uneven) }
}

/// The bytes that are hashed: the source address, and the source port in a slot of its own.
fn hashed(source: SocketAddr) -> Vec<u8> {
    let mut bytes = value::address_bytes(source.ip());
    bytes.extend(source.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes
}
