//! `ephport-nft import`

use std::io::Write;

use ephport_core::import::iptables::Imported;
use ephport_core::{
    AddressRange, Document, Families, Family, NetworkAcls, Policy, PolicySpec, PortSet, Protocol,
    Protocols, Scope, Target,
};

use super::{Failure, read_input};
use crate::Exit;
use crate::args::Import;

pub(crate) fn run(args: Import, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Failure> {
    match args {
        Import::Iptables { command } => {
            let imported = if command.is_empty() {
                Imported::of_text(&read_input()?)
            } else {
                Imported::of_command(&command)
            };
            iptables(&imported, out, err)
        }
        Import::Nacl { remote } => nacl(&read_input()?.parse()?, remote, out, err),
        Import::MapE { map_e } => {
            let scope = Scope { families: Families::Ipv4, ..Scope::default() };
            let target = Target::Ports(map_e.ports());
            let spec = PolicySpec { scope, name: name("map-e")?, ..PolicySpec::to(target) };
            print(&Policy::new(spec)?.into(), out)
        }
    }
}

/// Prints the policies; what cannot be said goes to standard error, and fails if it is all.
fn iptables(
    imported: &Imported,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    for left_out in &imported.left_out {
        writeln!(err, "left out: {left_out}")?;
    }
    if imported.policies.is_empty() {
        writeln!(err, "error: no rule was found that names the ports to masquerade to")?;
        return Ok(Exit::Failure);
    }
    print(&imported.document()?, out)
}

/// The source ports whose replies get through, by protocol.
#[derive(PartialEq)]
struct Replies {
    tcp: PortSet,
    udp: PortSet,
}

/// A policy for each family and protocol whose replies get through somewhere; one for those that
/// agree.
fn nacl(
    acls: &NetworkAcls,
    remote: Vec<AddressRange>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let remotes = match remote.as_slice() {
        [] => vec![AddressRange::ALL_IPV4, AddressRange::ALL_IPV6],
        _ => remote,
    };
    for note in acls.notes(&remotes) {
        writeln!(err, "note: {note}")?;
    }
    let replies = |family| {
        let of_family: Vec<_> =
            remotes.iter().copied().filter(|range| range.family() == family).collect();
        let ports = |protocol| acls.reply_ports(protocol, &of_family);
        let replies = Replies { tcp: ports(Protocol::Tcp), udp: ports(Protocol::Udp) };
        (!of_family.is_empty()).then_some(replies)
    };
    let (v4, v6) = (replies(Family::Ipv4), replies(Family::Ipv6));
    let mut policies = Vec::new();
    if v4 == v6 {
        policies.extend(v4.map(|v4| reply_policies("", Families::Both, v4)).transpose()?);
    } else {
        policies.extend(v4.map(|v4| reply_policies("ipv4-", Families::Ipv4, v4)).transpose()?);
        policies.extend(v6.map(|v6| reply_policies("ipv6-", Families::Ipv6, v6)).transpose()?);
    }
    let policies: Vec<_> = policies.into_iter().flatten().collect();
    if policies.is_empty() {
        return Err(Failure::NoReplyPorts);
    }
    print(&Document::new(policies)?, out)
}

fn reply_policies(
    prefix: &str,
    families: Families,
    replies: Replies,
) -> Result<Vec<Policy>, Failure> {
    let targets = if replies.tcp == replies.udp {
        vec![("replies", Protocols::DEFAULT, replies.tcp)]
    } else {
        let only = |protocol| [protocol].into_iter().collect();
        vec![
            ("tcp-replies", only(Protocol::Tcp), replies.tcp),
            ("udp-replies", only(Protocol::Udp), replies.udp),
        ]
    };
    let usable = targets.into_iter().filter(|(_, _, ports)| !ports.is_empty());
    usable
        .map(|(suffix, protocols, ports)| {
            let scope = Scope { protocols, families, ..Scope::default() };
            let name = name(&format!("{prefix}{suffix}"))?;
            Ok(Policy::new(PolicySpec { scope, name, ..PolicySpec::to(Target::Ports(ports)) })?)
        })
        .collect()
}

fn name(text: &str) -> Result<ephport_core::PolicyName, Failure> {
    Ok(text.parse()?)
}

fn print(document: &Document, out: &mut dyn Write) -> Result<Exit, Failure> {
    write!(out, "{}", document.to_toml())?;
    Ok(Exit::Success)
}
