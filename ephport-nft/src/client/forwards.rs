//! The ports that NAT rules of other tables send on, to other hosts or ports.
//!
//! Where ports are rewritten before conntrack, such a rule would not see its port. Rules are read by the names of
//! their expressions, as far as they compare ports and addresses; a rule whose ports are not seen names its table.

use std::collections::BTreeSet;

use ephport_core::{HostFacts, Port, PortRange, PortSet};

use super::interference::{Packets, Ports, expression, family_name, text};
use super::{Client, Error};
use crate::netlink::{Attr, CodecError, NfGenMsg, Reader, Transport};
use crate::nftables::Origin;
use crate::table::layout::FAMILY;
use crate::uapi::{
    NFPROTO_UNSPEC, NFT_MSG_GETRULE, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, NFT_NAT_DNAT,
    NFT_SET_ELEM_INTERVAL_END, NFTA_DATA_VALUE, NFTA_NAT_TYPE, NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NFTA_TARGET_NAME, NLM_F_DUMP,
};

/// The tables of iptables' legacy kernel interface in this network namespace, IPv4 and IPv6, which nf_tables does
/// not list.
const LEGACY: [(&str, &str); 2] = [
    ("iptables", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables", "/proc/thread-self/net/ip6_tables_names"),
];

/// A table of another program: the number and the name of its family, and its name.
struct Other {
    nfproto: u8,
    family: &'static str,
    name: String,
}

impl<T: Transport> Client<T> {
    /// Adds to the facts of a host the ports that other tables send on: a policy with `spread = "remap"` excludes
    /// them from its set. Reading them costs a dump of the rules of the other tables.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be read.
    pub fn read_forwards(&mut self, host: &mut HostFacts) -> Result<(), Error> {
        let ((ports, unseen), _) = self.settled(|client| client.forwards(host))?;
        host.forwarded_ports = ports;
        host.unseen_forwards = unseen.into_iter().map(Into::into).collect();
        Ok(())
    }

    fn forwards(&mut self, host: &HostFacts) -> Result<(PortSet, BTreeSet<String>), Error> {
        let (mut forwarded, mut unseen) = (PortSet::EMPTY, self.in_its_namespace(legacy)?);
        for other in self.tables_of_others()? {
            let mut found = Vec::new();
            let names = [(NFTA_RULE_TABLE, other.name.as_str())];
            self.list(NFT_MSG_GETRULE, NLM_F_DUMP, other.nfproto, &names, |_, body| {
                found.extend(forward(body, host)?);
                Ok(())
            })?;
            found.dedup();
            for ports in found {
                let ranges = match ports {
                    Ports::Within(ranges) => Some(ranges),
                    Ports::InSet(set) => self.ports_of_set(&other, &set)?,
                    Ports::Any => None,
                };
                match ranges {
                    Some(ranges) => forwarded = forwarded.union(&port_set(&ranges)),
                    None => {
                        unseen.insert(format!("table {} {}", other.family, other.name));
                    }
                }
            }
        }
        Ok((forwarded, unseen))
    }

    /// The tables that may have NAT rules. One whose name is not UTF-8 cannot be asked for its rules alone.
    fn tables_of_others(&mut self) -> Result<Vec<Other>, Error> {
        let name = self.table.name().to_string();
        let own = Origin { family: FAMILY, table: name.as_bytes() };
        let mut tables = Vec::new();
        self.list(NFT_MSG_GETTABLE, NLM_F_DUMP, NFPROTO_UNSPEC, &[], |_, body| {
            let origin = Origin::peek(body)?;
            let nfproto = NfGenMsg::decode(&mut Reader::new(body))?.family;
            let name = String::from_utf8(origin.table.to_vec());
            if let (Some(family), Ok(name), true) =
                (family_name(&mut Reader::new(body))?, name, origin != own)
            {
                tables.push(Other { nfproto, family, name });
            }
            Ok(())
        })?;
        Ok(tables)
    }

    /// The ranges of a set of ports; `None` for a set with other keys.
    fn ports_of_set(&mut self, of: &Other, set: &str) -> Result<Option<Vec<(u16, u16)>>, Error> {
        let (mut keys, mut is_ports) = (Vec::new(), true);
        let names = [(NFTA_SET_ELEM_LIST_TABLE, of.name.as_str()), (NFTA_SET_ELEM_LIST_SET, set)];
        self.list(NFT_MSG_GETSETELEM, NLM_F_DUMP, of.nfproto, &names, |_, body| {
            let mut reader = Reader::new(body);
            NfGenMsg::decode(&mut reader)?;
            for attr in reader.attrs() {
                let attr = attr?;
                if attr.attribute_type != NFTA_SET_ELEM_LIST_ELEMENTS {
                    continue;
                }
                for element in attr.nested() {
                    match key(element?)? {
                        Some(key) => keys.push(key),
                        None => is_ports = false,
                    }
                }
            }
            Ok(())
        })?;
        Ok(is_ports.then(|| ranges(keys)))
    }
}

/// The nat tables of iptables' legacy interface: what they do is not seen.
fn legacy() -> BTreeSet<String> {
    let has_nat = |path: &str| {
        std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == "nat"))
    };
    let found = LEGACY.into_iter().filter(|(_, path)| has_nat(path));
    found.map(|(name, _)| format!("table nat of {name}-legacy")).collect()
}

fn port_set(ranges: &[(u16, u16)]) -> PortSet {
    let range = |(first, last): &(u16, u16)| {
        let (first, last) = (Port::new((*first).max(1)).ok()?, Port::new(*last).ok()?);
        PortRange::new(first, last).ok()
    };
    ranges.iter().filter_map(range).collect()
}

/// The destination ports of a rule that sends packets for this host on; `None` if it does not.
fn forward(body: &[u8], host: &HostFacts) -> Result<Option<Ports>, CodecError> {
    let mut reader = Reader::new(body);
    let Some(family) = family_name(&mut reader)? else { return Ok(None) };
    let (mut packets, mut forwards) = (Packets::default(), false);
    for attr in reader.attrs() {
        let attr = attr?;
        if attr.attribute_type != NFTA_RULE_EXPRESSIONS {
            continue;
        }
        for element in attr.nested() {
            let (name, data) = expression(element?)?;
            packets.add(family, &name, data);
            forwards |= is_forward(&name, data)?;
        }
    }
    Ok(packets.ports_here(host).filter(|_| forwards).cloned())
}

/// Whether an expression sends packets to another address or port.
fn is_forward(name: &str, data: Option<Attr<'_>>) -> Result<bool, CodecError> {
    let mut is_forward = matches!(name, "redir" | "tproxy");
    for attr in data.into_iter().flat_map(Attr::nested) {
        let attr = attr?;
        is_forward |= match (name, attr.attribute_type) {
            ("nat", NFTA_NAT_TYPE) => attr.u32_be()? == NFT_NAT_DNAT,
            ("target", NFTA_TARGET_NAME) => {
                matches!(text(attr.value).as_str(), "DNAT" | "REDIRECT" | "TPROXY" | "NETMAP")
            }
            _ => false,
        };
    }
    Ok(is_forward)
}

/// A port that is an element's key, and whether it is the first one after a range; `None` for another key.
fn key(element: Attr<'_>) -> Result<Option<(u16, bool)>, CodecError> {
    let (mut port, mut is_end) = (None, false);
    for attr in element.nested() {
        let attr = attr?;
        match attr.attribute_type {
            NFTA_SET_ELEM_KEY => {
                for value in attr.nested() {
                    let value = value?;
                    if value.attribute_type == NFTA_DATA_VALUE {
                        port = value.value.try_into().ok().map(u16::from_be_bytes);
                    }
                }
            }
            NFTA_SET_ELEM_FLAGS => is_end = attr.u32_be()? & NFT_SET_ELEM_INTERVAL_END != 0,
            _ => {}
        }
    }
    Ok(port.map(|port| (port, is_end)))
}

/// The ranges of a set with these keys, in which each range has its first port and the one after its last; in a set
/// without ranges no key is such an end.
fn ranges(mut keys: Vec<(u16, bool)>) -> Vec<(u16, u16)> {
    keys.sort_unstable_by_key(|(port, is_end)| (*port, !is_end));
    let has_ends = keys.iter().any(|(_, is_end)| *is_end);
    let mut found = Vec::new();
    let mut keys = keys.into_iter().peekable();
    while let Some((first, is_end)) = keys.next() {
        if is_end {
            continue;
        }
        let end = keys.peek().filter(|(_, is_end)| *is_end).map(|(end, _)| end.saturating_sub(1));
        let last = if has_ends { end.unwrap_or(u16::MAX) } else { first };
        found.push((first, last));
    }
    found
}
