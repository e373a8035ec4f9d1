//! `ephport-nft import`

use std::io::Read;

use ephport_core::import::iptables::{Imported, Skipped};
use ephport_core::import::map_e::target;
use ephport_core::import::nacl::Action;
use ephport_core::{
    AddressRange, Document, Families, Family, NetworkAcl, NetworkAcls, Policy, PolicyError,
    PolicySpec, PortRange, PortSet, Protocol, ValueError,
};

use super::{Failure, read_bytes, read_input};
use crate::Exit;
use crate::args::Import;
use crate::document::{ImportDocument, ImportNote};
use crate::output::Output;

pub(crate) fn run(
    args: Import,
    input: &mut dyn Read,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    match args {
        Import::Iptables { ipv4, ipv6, command, output: format } => {
            let named = [(ipv4, Family::Ipv4), (ipv6, Family::Ipv6)];
            let family =
                named.into_iter().find(|(is_named, _)| *is_named).map(|(_, family)| family);
            let imported = if command.is_empty() {
                Imported::parse(read_bytes(input).map_err(Failure::Input)?, family)
            } else {
                Imported::from_args(&command, family)
            };
            let notes = imported.notes.iter().map(ImportNote::from).collect();
            let found = Found { policies: imported.policies, skipped: imported.skipped, notes };
            found.print(format.json, Failure::NoTranslation, output)
        }
        Import::Nacl { remote, acl, subnet, output: format } => {
            let mut acls: NetworkAcls = read_input(input)?.parse()?;
            if let Some(id) = acl {
                acls = acls.of_id(&id)?;
            }
            if let Some(id) = subnet {
                acls = acls.of_subnet(&id)?;
            }
            nacl(&acls, &remote)?.print(format.json, Failure::NoReplyPorts, output)
        }
        Import::MapE { target: given, output: format } => {
            let target = match given {
                Some(target) => target,
                None => target(&read_input(input)?)?,
            };
            let mut spec = PolicySpec::to(target);
            (spec.name, spec.scope.families) = (name("map-e")?, Families::Ipv4);
            let policies = vec![Policy::new(spec)?];
            let found = Found { policies, skipped: Vec::new(), notes: Vec::new() };
            found.print(format.json, Failure::NoTranslation, output)
        }
    }
}

/// What the input became.
struct Found {
    policies: Vec<Policy>,
    skipped: Vec<Skipped>,
    notes: Vec<ImportNote>,
}

impl Found {
    /// Prints the policies; what is skipped goes to standard error unless it is in the JSON document.
    /// `none` is the failure without policies.
    fn print(self, json: bool, none: Failure, output: &mut Output<'_>) -> Result<Exit, Failure> {
        let is_empty = self.policies.is_empty();
        if json {
            output.document(&ImportDocument::new(&self.policies, &self.skipped, self.notes));
        } else {
            let (out, err) = output.streams();
            for note in &self.notes {
                writeln!(err, "note: {}", note.message)?;
            }
            for skipped in &self.skipped {
                writeln!(err, "skipped: {skipped}")?;
            }
            // One by one: the text of all of them needs as much memory as the policies.
            for (at, policy) in self.policies.into_iter().enumerate() {
                let separator = if at == 0 { "" } else { "\n" };
                write!(out, "{separator}{}", Document::from(policy).to_toml())?;
            }
        }
        if is_empty { Err(none) } else { Ok(Exit::Success) }
    }
}

/// The source ports whose replies get through, by protocol.
#[derive(PartialEq)]
struct Replies {
    tcp: PortSet,
    udp: PortSet,
}

/// A policy for each family and protocol whose replies get through somewhere; one for those that
/// agree.
fn nacl(acls: &NetworkAcls, remote: &[AddressRange]) -> Result<Found, Failure> {
    let mut found = Vec::new();
    let families = families(acls, remote);
    let note = |note| ImportNote::nacl("", &note);
    let mut notes: Vec<_> = acls.document_notes().into_iter().map(note).collect();
    for (family, remotes) in &families {
        let over = match family {
            _ if families.len() == 1 => "",
            Family::Ipv4 => "over IPv4: ",
            Family::Ipv6 => "over IPv6: ",
        };
        notes.extend(acls.notes(remotes).iter().map(|note| ImportNote::nacl(over, note)));
        let ports = |protocol| client_ports(&acls.reply_ports(protocol, remotes));
        found.push((*family, Replies { tcp: ports(Protocol::Tcp), udp: ports(Protocol::Udp) }));
    }
    let policies = match found.as_slice() {
        [(_, v4), (_, v6)] if v4 == v6 => reply_policies("", Families::Both, v4)?,
        found => {
            let policies = found.iter().map(|(family, replies)| match family {
                Family::Ipv4 => reply_policies("ipv4-", Families::Ipv4, replies),
                Family::Ipv6 => reply_policies("ipv6-", Families::Ipv6, replies),
            });
            policies.collect::<Result<Vec<_>, _>>()?.concat()
        }
    };
    Ok(Found { policies, skipped: Vec::new(), notes })
}

/// The remote networks by family; without any, all of each family that the ACLs allow something in.
fn families(acls: &NetworkAcls, remote: &[AddressRange]) -> Vec<(Family, Vec<AddressRange>)> {
    let entries = || acls.acls().iter().flat_map(NetworkAcl::entries);
    let allowed = |family| {
        entries()
            .any(|entry| entry.action == Action::Allow && Family::of(entry.remote.addr()) == family)
    };
    let of_family = |family, all| {
        let mut named = remote.to_vec();
        named.retain(|range| range.family() == family);
        if remote.is_empty() && allowed(family) {
            named.push(all);
        }
        (family, named)
    };
    let v4 = of_family(Family::Ipv4, AddressRange::ALL_IPV4);
    let v6 = of_family(Family::Ipv6, AddressRange::ALL_IPV6);
    [v4, v6].into_iter().filter(|(_, remotes)| !remotes.is_empty()).collect()
}

/// Privileged ports are let in for the sake of servers.
fn client_ports(ports: &PortSet) -> PortSet {
    ports.intersection(&PortRange::EPHEMERAL.into())
}

fn reply_policies(
    prefix: &str,
    families: Families,
    replies: &Replies,
) -> Result<Vec<Policy>, Failure> {
    let targets = if replies.tcp == replies.udp {
        vec![("replies", None, &replies.tcp)]
    } else {
        let only = |protocol| Some([protocol].into_iter().collect());
        vec![
            ("tcp-replies", only(Protocol::Tcp), &replies.tcp),
            ("udp-replies", only(Protocol::Udp), &replies.udp),
        ]
    };
    let usable = targets.into_iter().filter(|(_, _, ports)| !ports.is_empty());
    usable
        .map(|(suffix, protocols, ports)| {
            let mut spec = PolicySpec::to(ports.clone());
            spec.name = name(&format!("{prefix}{suffix}"))?;
            (spec.scope.protocols, spec.scope.families) = (protocols, families);
            Ok(Policy::new(spec)?)
        })
        .collect()
}

fn name(text: &str) -> Result<ephport_core::PolicyName, Failure> {
    Ok(text
        .parse()
        .map_err(|error| PolicyError::Value { key: "name", error: ValueError::Name(error) })?)
}
