//! Sets and maps as nft prints them.

use std::fmt;

use crate::nftables::datatype::{
    self, IFNAME, INET_PROTO, INET_SERVICE, INTEGER, IPV4_ADDR, IPV6_ADDR, concatenation,
};
use crate::nftables::expr::{Data, words};
use crate::nftables::{Element, SetSpec, value};
use crate::table::layout::is_open_set;
use crate::table::{KeyRange, Normalized, NormalizedSet};
use crate::uapi::{NFT_DATA_VERDICT, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP};

const PORT_RANGE: u32 = concatenation(INET_SERVICE, INET_SERVICE);
const IPV4_BLOCK: u32 = concatenation(IPV4_ADDR, INET_SERVICE);
const IPV6_BLOCK: u32 = concatenation(IPV6_ADDR, INET_SERVICE);

/// A set that a rule looks up.
#[derive(Clone, Copy, Debug)]
pub struct SetRef<'a> {
    /// The name in the table.
    pub name: &'a str,
    /// The set; `None` if the table has none of this name.
    set: Option<&'a NormalizedSet<'a>>,
}

impl<'a> SetRef<'a> {
    pub(super) fn new(name: &'a str, table: &'a Normalized<'a>) -> Self {
        Self { name, set: table.set(name) }
    }

    /// The specification.
    #[must_use]
    pub fn spec(&self) -> Option<&'a SetSpec> {
        self.set.map(|set| set.spec)
    }

    /// Whether the set belongs to the rule that looks it up.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.spec().is_some_and(SetSpec::is_anonymous)
    }

    /// The length of a value in a map, in bytes.
    pub(super) fn value_len(&self) -> Option<usize> {
        usize::try_from(self.spec()?.data_len?).ok()
    }

    /// The name, or the elements of an anonymous set, as a part of a rule.
    pub(super) fn to_nft(self) -> Option<String> {
        let set = self.set?;
        flag_names(set.spec)?;
        let elements = elements(set)?;
        if !set.spec.is_anonymous() {
            return types(set.spec).map(|_| format!("@{}", set.spec.name));
        }
        (!elements.is_empty()).then(|| format!("{{ {elements} }}"))
    }
}

/// Anonymous sets are compared by their content, others by their names.
impl PartialEq for SetRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.is_anonymous(), other.is_anonymous()) {
            (true, true) => self.set == other.set,
            (false, false) => self.name == other.name,
            _ => false,
        }
    }
}

/// A named set as a part of its table.
pub(super) fn declaration(f: &mut fmt::Formatter<'_>, set: &NormalizedSet<'_>) -> fmt::Result {
    let spec = set.spec;
    let noun = if spec.is_map() { "map" } else { "set" };
    let parts = types(spec).zip(flag_names(spec)).zip(elements(set));
    let Some(((types, flags), elements)) = parts else {
        return writeln!(f, "\t# nft cannot print {noun} {}", spec.name);
    };
    writeln!(f, "\t{noun} {} {{\n\t\t{types}", spec.name)?;
    if !flags.is_empty() {
        writeln!(f, "\t\tflags {}", flags.join(","))?;
    }
    if let Some(size) = spec.size() {
        writeln!(f, "\t\tsize {size}")?;
    }
    if !elements.is_empty() {
        writeln!(f, "\t\telements = {{ {elements} }}")?;
    }
    writeln!(f, "\t}}")
}

/// The types of a declaration.
fn types(set: &SetSpec) -> Option<String> {
    if is_open_set(set) {
        return Some("typeof ct id".into());
    }
    let key = datatype::name(set.key_type?)?;
    if !set.is_map() {
        return Some(format!("type {key}"));
    }
    let data = match set.data_type? {
        NFT_DATA_VERDICT => "verdict",
        INET_SERVICE => "inet_service",
        PORT_RANGE => "inet_service . inet_service",
        IPV4_BLOCK => "interval ipv4_addr . inet_service",
        IPV6_BLOCK => "interval ipv6_addr . inet_service",
        other => datatype::name(other)?,
    };
    Some(format!("type {key} : {data}"))
}

/// The flags of a declaration; `None` if a named set has another one.
fn flag_names(set: &SetSpec) -> Option<Vec<&'static str>> {
    let names = [(NFT_SET_CONSTANT, "constant"), (NFT_SET_INTERVAL, "interval")];
    let flags = set.flags.unwrap_or(0) & !NFT_SET_MAP;
    let known = NFT_SET_CONSTANT | NFT_SET_INTERVAL;
    let is_known = set.is_anonymous() || flags & !known == 0;
    let set = names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name);
    is_known.then(|| set.collect())
}

fn elements(set: &NormalizedSet<'_>) -> Option<String> {
    let texts = set.ranges()?.into_iter().map(|range| element(set.spec, &range));
    texts.collect::<Option<Vec<_>>>().map(|texts| texts.join(", "))
}

/// Each element as nft prints it, or as bytecode where nft cannot print it.
pub(crate) fn element_texts(set: &NormalizedSet<'_>) -> Vec<String> {
    let plain = |range: &KeyRange<'_>| {
        let keys = format!("{}-{}", words(range.first), words(&range.last));
        let data = range.element.data();
        data.map_or(keys.clone(), |data| format!("{keys} : {data}"))
    };
    let ranges = set.ranges().unwrap_or_default();
    ranges.iter().map(|range| element(set.spec, range).unwrap_or_else(|| plain(range))).collect()
}

fn element(set: &SetSpec, range: &KeyRange<'_>) -> Option<String> {
    let Element { data, flags, other, .. } = range.element.to_element()?;
    let keys = keys(set, range.first, &range.last)?;
    match data {
        _ if flags.is_some_and(|flags| flags != 0) || !other.is_empty() => None,
        None => Some(keys),
        Some(data) => Some(format!("{keys} : {}", value(set, &data)?)),
    }
}

fn keys(set: &SetSpec, first: &[u8], last: &[u8]) -> Option<String> {
    let key = |bytes: &[u8]| match set.key_type? {
        INET_SERVICE => port(bytes),
        INET_PROTO => value::protocol(bytes),
        IPV4_ADDR | IPV6_ADDR => value::address(bytes).map(|address| address.to_string()),
        INTEGER if bytes.len() == 2 => port(bytes),
        INTEGER if set.is_interval() => {
            Some(u32::from_be_bytes(bytes.try_into().ok()?).to_string())
        }
        INTEGER => value::number(bytes).map(|number| number.to_string()),
        IFNAME if bytes.len() == value::IFNAMSIZ => {
            value::interface(bytes).map(|name| format!("\"{name}\""))
        }
        _ => None,
    };
    let is_address = matches!(set.key_type?, IPV4_ADDR | IPV6_ADDR);
    match prefix_len(first, last) {
        _ if first == last => key(first),
        Some(len) if is_address => Some(format!("{}/{len}", key(first)?)),
        _ => Some(format!("{}-{}", key(first)?, key(last)?)),
    }
}

/// A port, or the number 0 in place of one.
pub(super) fn port(bytes: &[u8]) -> Option<String> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?).to_string())
}

/// The number of leading bits that are the same, if the range contains all keys that start with them.
fn prefix_len(first: &[u8], last: &[u8]) -> Option<u32> {
    let differing = first.iter().zip(last).map(|(a, b)| a ^ b);
    let free = suffix_len(differing.clone())?;
    let starts_at_zero = first.iter().zip(differing).all(|(byte, free)| byte & free == 0);
    let bits = u32::try_from(first.len()).ok()?.checked_mul(8)?;
    starts_at_zero.then(|| bits.saturating_sub(free))
}

/// The number of bits that are set, if they are the last ones.
pub(super) fn suffix_len(bytes: impl Iterator<Item = u8>) -> Option<u32> {
    let bits = bytes.fold(0u128, |bits, byte| bits << 8 | u128::from(byte));
    (bits & bits.wrapping_add(1) == 0).then(|| bits.count_ones())
}

fn value(set: &SetSpec, data: &Data) -> Option<String> {
    let bytes = match data {
        Data::Verdict(verdict) => return Some(verdict.to_string()),
        Data::Value(bytes) => &**bytes,
    };
    match set.data_type? {
        INET_SERVICE => port(bytes),
        IPV4_ADDR | IPV6_ADDR => value::address(bytes).map(|address| address.to_string()),
        PORT_RANGE if bytes.len() == 8 => {
            let (first, last) = bytes.split_at_checked(4)?;
            Some(format!("{} . {}", slot(first)?, slot(last)?))
        }
        IPV4_BLOCK | IPV6_BLOCK if bytes.len().is_multiple_of(2) => {
            let (first, last) = bytes.split_at_checked(bytes.len() / 2)?;
            let ((outside, low), (same, high)) = (block_end(first)?, block_end(last)?);
            // nft reads a map with only single ports as one without ranges.
            (outside == same && low != high).then(|| format!("{outside} . {low}-{high}"))
        }
        _ => None,
    }
}

/// An address and a port.
fn block_end(bytes: &[u8]) -> Option<(String, String)> {
    let (outside, port) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    Some((value::address(outside)?.to_string(), slot(port)?))
}

/// A port in a slot of its own.
fn slot(bytes: &[u8]) -> Option<String> {
    match bytes {
        [bytes @ .., 0, 0] => port(bytes),
        _ => None,
    }
}
