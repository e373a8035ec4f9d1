//! Bodies of the fuzz targets (feature `fuzz`): each accepts any text, and panics when a promise is
//! broken. What reads a text reads what it prints as the same value; an error has a message.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::str::FromStr;

use crate::allocation::block_table::BlockTable;
use crate::allocation::map_e::MapE;
use crate::flow::Flow;
use crate::host::HostFacts;
use crate::import::iptables::Imported;
use crate::import::map_e::target as map_e_target;
use crate::import::nacl::NetworkAcls;
use crate::net::address_range::AddressRange;
use crate::net::interface::{InterfaceName, InterfacePattern};
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, Protocols};
use crate::policy::PolicyName;
use crate::policy::file::Document;
use crate::policy::scope::OutInterfaces;

/// What a target calls.
pub type Body = fn(&str);

/// Every body, by the name of its target.
pub const TARGETS: [(&str, Body); 8] = [
    ("block_table", block_table),
    ("document", document),
    ("flow", flow),
    ("iptables", iptables),
    ("map_e", map_e),
    ("nacl", nacl),
    ("port_set", port_set),
    ("word", word),
];

/// The value of a text, printed and read again.
fn round_trip<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + PartialEq + Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            let again = printed.parse().map_err(|error: T::Err| error.to_string());
            assert_eq!(again.as_ref(), Ok(&value), "{text:?} printed as {printed:?}");
            Some(value)
        }
        Err(error) => {
            assert_ne!(error.to_string(), "", "{text:?}");
            None
        }
    }
}

/// Sets of ports.
///
/// # Panics
/// When a promise is broken.
pub fn port_set(text: &str) {
    let Some(set) = round_trip::<PortSet>(text) else { return };
    let others = set.complement();
    assert_eq!(others.complement(), set);
    assert_eq!(others.union(&set), PortRange::ALL.into());
    assert!(others.intersection(&set).is_empty());
}

/// The short texts: ports, names, networks and the like.
///
/// # Panics
/// When a promise is broken.
pub fn word(text: &str) {
    round_trip::<Port>(text);
    round_trip::<PortRange>(text);
    round_trip::<Protocol>(text);
    round_trip::<Protocols>(text);
    round_trip::<InterfaceName>(text);
    round_trip::<InterfacePattern>(text);
    round_trip::<OutInterfaces>(text);
    round_trip::<PolicyName>(text);
    round_trip::<AddressRange>(text);
}

/// Connections.
///
/// # Panics
/// When a promise is broken.
pub fn flow(text: &str) {
    round_trip::<Flow>(text);
}

/// MAP-E parameters, and what OpenWrt writes of them.
///
/// # Panics
/// When a promise is broken.
pub fn map_e(text: &str) {
    if let Err(error) = map_e_target(text) {
        assert_ne!(error.to_string(), "", "{text:?}");
    }
    let Some(map_e) = round_trip::<MapE>(text) else { return };
    assert!(!map_e.ports().is_empty());
}

/// Tables of blocks: whose a port is, is known both ways.
///
/// # Panics
/// When a promise is broken.
pub fn block_table(text: &str) {
    let Some(table) = round_trip::<BlockTable>(text) else { return };
    for block in table.iter().take(64) {
        assert_eq!(table.block_of(block.source), Some(block));
        for port in [block.ports.first(), block.ports.last()] {
            let outside = block.outside.unwrap_or(block.source);
            assert_eq!(table.source_of(outside, port), Some(block.source));
        }
    }
}

/// Policy files.
///
/// # Panics
/// When a promise is broken.
pub fn document(text: &str) {
    match text.parse::<Document>() {
        Ok(document) => written(&document),
        Err(error) => assert_ne!(error.to_string(), "", "{text:?}"),
    }
}

/// A printed document reads back, and is bound to a host or has an error with a message.
fn written(document: &Document) {
    let toml = document.to_toml();
    assert_eq!(toml.parse().as_ref(), Ok(document), "{toml}");
    for policy in document.policies() {
        assert!(policy.example_flow().is_some(), "{toml}");
    }
    for warning in document.warnings() {
        assert_ne!(warning.to_string(), "", "{toml}");
    }
    if let Err(error) = document.resolve(&HostFacts::default()) {
        assert_ne!(error.to_string(), "", "{toml}");
    }
}

/// Rules of iptables: what they become can be written to a policy file.
///
/// # Panics
/// When a promise is broken.
pub fn iptables(text: &str) {
    let imported = Imported::parse(text, None);
    for message in imported.skipped.iter().map(ToString::to_string) {
        assert!(!message.is_empty() && message.len() < 8000 && !message.contains(char::is_control));
    }
    if let Ok(document) = imported.document() {
        written(&document);
    }
}

/// Network ACLs: a port that is good for all is good for each that a port can reach.
///
/// # Panics
/// When a promise is broken.
pub fn nacl(text: &str) {
    let acls = match text.parse::<NetworkAcls>() {
        Ok(acls) => acls,
        Err(error) => return assert_ne!(error.to_string(), "", "{text:?}"),
    };
    let remotes = [AddressRange::ALL_IPV4, AddressRange::ALL_IPV6];
    for note in acls.notes(&remotes) {
        assert_ne!(note.to_string(), "");
    }
    for protocol in Protocol::ALL {
        let good = acls.reply_ports(protocol, &remotes);
        for acl in acls.acls() {
            let ends =
                |remote| [AddressRange::from(remote).first(), AddressRange::from(remote).last()];
            let addresses = acl.entries().iter().flat_map(|entry| ends(entry.remote));
            for address in addresses.collect::<Vec<IpAddr>>() {
                let here = acl.reply_ports_from(protocol, address);
                if here.intersection(&PortRange::EPHEMERAL.into()).is_empty() {
                    continue;
                }
                assert!(good.difference(&here).is_empty(), "{address}: {good} and {here}");
            }
        }
    }
}
