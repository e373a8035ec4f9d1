//! Sets and maps in nft's words.

use std::fmt;

use super::values::{address, interface, port, protocol, suffix_len};
use crate::nftables::datatype::{
    self, IFNAME, INET_PROTO, INET_SERVICE, INTEGER, IPV4_ADDR, IPV6_ADDR, concatenation,
};
use crate::nftables::expr::{Data, words};
use crate::nftables::{Element, SetSpec};
use crate::table::Set;
use crate::table::set::KeyRange;
use crate::uapi::{NFT_DATA_VERDICT, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP};

const PORT_RANGE: u32 = concatenation(INET_SERVICE, INET_SERVICE);
const IPV4_BLOCK: u32 = concatenation(IPV4_ADDR, INET_SERVICE);
const IPV6_BLOCK: u32 = concatenation(IPV6_ADDR, INET_SERVICE);

/// How a rule names a set: by its name, or by all that is in it.
pub(super) fn reference(filled: &Set) -> Option<String> {
    let is_said = flag_names(&filled.spec).is_some();
    match elements(filled)? {
        _ if !is_said => None,
        _ if !filled.spec.is_anonymous() => {
            types(&filled.spec).map(|_| format!("@{}", filled.spec.name))
        }
        elements if elements.is_empty() => None,
        elements => Some(format!("{{ {elements} }}")),
    }
}

/// A named set as a part of its table.
pub(super) fn declaration(f: &mut fmt::Formatter<'_>, filled: &Set) -> fmt::Result {
    let set = &filled.spec;
    let noun = if set.is_map() { "map" } else { "set" };
    let said = types(set).zip(flag_names(set)).zip(elements(filled));
    let Some(((types, flags), elements)) = said else {
        return writeln!(f, "\t# nft has no words for {noun} {}", set.name);
    };
    writeln!(f, "\t{noun} {} {{\n\t\ttype {types}", set.name)?;
    if !flags.is_empty() {
        writeln!(f, "\t\tflags {}", flags.join(","))?;
    }
    if let Some(size) = set.size() {
        writeln!(f, "\t\tsize {size}")?;
    }
    if !elements.is_empty() {
        writeln!(f, "\t\telements = {{ {elements} }}")?;
    }
    writeln!(f, "\t}}")
}

fn types(set: &SetSpec) -> Option<String> {
    let key = datatype::name(set.key_type?)?;
    if !set.is_map() {
        return Some(key.into());
    }
    let data = match set.data_type? {
        NFT_DATA_VERDICT => "verdict",
        PORT_RANGE => "inet_service . inet_service",
        IPV4_BLOCK => "interval ipv4_addr . inet_service",
        IPV6_BLOCK => "interval ipv6_addr . inet_service",
        _ => return None,
    };
    Some(format!("{key} : {data}"))
}

/// The flags that a declaration says, if we know all there are.
fn flag_names(set: &SetSpec) -> Option<Vec<&'static str>> {
    let names = [(NFT_SET_CONSTANT, "constant"), (NFT_SET_INTERVAL, "interval")];
    let flags = set.flags.unwrap_or(0) & !NFT_SET_MAP;
    let known = NFT_SET_CONSTANT | NFT_SET_INTERVAL;
    let is_known = set.is_anonymous() || flags & !known == 0;
    let set = names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name);
    is_known.then(|| set.collect())
}

fn elements(filled: &Set) -> Option<String> {
    let words = filled.ranges()?.into_iter().map(|range| element(&filled.spec, &range));
    words.collect::<Option<Vec<_>>>().map(|words| words.join(", "))
}

fn element(set: &SetSpec, range: &KeyRange<'_>) -> Option<String> {
    let Element { data, flags, other, .. } = range.element;
    let keys = keys(set, range.first, &range.last)?;
    match data {
        _ if flags.is_some() || !other.is_empty() => None,
        None => Some(keys),
        Some(data) => Some(format!("{keys} : {}", value(set, data)?)),
    }
}

/// Each element of an essence in nft's words, or as bytecode prints it where nft has none.
pub(crate) fn element_words(filled: &Set) -> Vec<String> {
    let plain = |range: &KeyRange<'_>| {
        let keys = format!("{}-{}", words(range.first), words(&range.last));
        let data = range.element.data.as_ref();
        data.map_or(keys.clone(), |data| format!("{keys} : {data}"))
    };
    let ranges = filled.ranges().unwrap_or_default();
    ranges
        .iter()
        .map(|range| element(&filled.spec, range).unwrap_or_else(|| plain(range)))
        .collect()
}

fn keys(set: &SetSpec, first: &[u8], last: &[u8]) -> Option<String> {
    let key = |bytes: &[u8]| match set.key_type? {
        INET_SERVICE => port(bytes),
        INET_PROTO => protocol(bytes),
        IPV4_ADDR | IPV6_ADDR => address(bytes).map(|address| address.to_string()),
        INTEGER if set.is_interval() => {
            Some(u32::from_be_bytes(bytes.try_into().ok()?).to_string())
        }
        INTEGER => Some(u32::from_ne_bytes(bytes.try_into().ok()?).to_string()),
        IFNAME if bytes.len() == 16 => interface(bytes).map(|name| format!("\"{name}\"")),
        _ => None,
    };
    let is_address = matches!(set.key_type?, IPV4_ADDR | IPV6_ADDR);
    match prefix_len(first, last) {
        _ if first == last => key(first),
        Some(len) if is_address => Some(format!("{}/{len}", key(first)?)),
        _ => Some(format!("{}-{}", key(first)?, key(last)?)),
    }
}

/// How many bits are the same, if these are all the keys that begin with them.
fn prefix_len(first: &[u8], last: &[u8]) -> Option<u32> {
    let differing = first.iter().zip(last).map(|(a, b)| a ^ b);
    let free = suffix_len(differing.clone())?;
    let starts_at_zero = first.iter().zip(differing).all(|(byte, free)| byte & free == 0);
    let bits = u32::try_from(first.len()).ok()?.checked_mul(8)?;
    starts_at_zero.then(|| bits.saturating_sub(free))
}

fn value(set: &SetSpec, data: &Data) -> Option<String> {
    let bytes = match data {
        Data::Verdict(verdict) => return Some(verdict.to_string()),
        Data::Value(bytes) => bytes.as_slice(),
    };
    match set.data_type? {
        PORT_RANGE if bytes.len() == 8 => {
            let (first, last) = bytes.split_at_checked(4)?;
            Some(format!("{} . {}", slot(first)?, slot(last)?))
        }
        IPV4_BLOCK | IPV6_BLOCK if bytes.len().is_multiple_of(2) => {
            let (first, last) = bytes.split_at_checked(bytes.len() / 2)?;
            let ((outside, low), (same, high)) = (block_end(first)?, block_end(last)?);
            // nft takes a map of nothing but single ports for one without ranges.
            (outside == same && low != high).then(|| format!("{outside} . {low}-{high}"))
        }
        _ => None,
    }
}

/// An address and a port.
fn block_end(bytes: &[u8]) -> Option<(String, String)> {
    let (outside, port) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    Some((address(outside)?.to_string(), slot(port)?))
}

/// A port in a register of its own.
fn slot(bytes: &[u8]) -> Option<String> {
    match bytes {
        [bytes @ .., 0, 0] => port(bytes),
        _ => None,
    }
}
