//! `ephport-nft show`

use ephport_core::{Origin, PermittedPorts, PolicyName, PortRange, PortSet};
use ephport_nft::Plan;
use thiserror::Error;

use super::{Failure, document, plan};
use crate::Exit;
use crate::args::{Format, ShowArgs};
use crate::document::{Show, VERSION, rules};
use crate::output::Output;
use crate::render::Block;

pub(crate) fn run(args: ShowArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let format = if args.json { Format::Json } else { args.format };
    let document = document(args.source)?;
    if format == Format::Toml {
        write!(output, "{}", document.to_toml());
        return Ok(Exit::Success);
    }
    let plan = plan(&document, output)?;
    match format {
        Format::Bytecode => write!(output, "{}", plan.table.bytecode()),
        Format::Json => {
            let policies = plan.resolved.iter().map(Into::into).collect();
            output.document(&Show { version: VERSION, policies, rules: rules(&plan.table) });
        }
        Format::Summary => {
            let blocks = plan.resolved.iter().map(|policy| Block::policy(policy).lines());
            writeln!(
                output,
                "{}",
                blocks.map(|lines| lines.join("\n")).collect::<Vec<_>>().join("\n\n")
            );
        }
        Format::Sysctl => write!(output, "{}", sysctl(&plan)?),
        Format::Nft | Format::Toml => write!(output, "{}", plan.table.to_nft()),
    }
    Ok(Exit::Success)
}

/// The reason why policies are no sysctls: a network namespace has one set of local ports.
#[derive(Debug, Error)]
pub(crate) enum SysctlError {
    #[error("no policy applies to this host's own sockets: expected one with origin local or both")]
    NotLocal,
    #[error("policy {policy}: blocks are no sysctl: expected the same ports for all sources")]
    Blocks { policy: PolicyName },
    #[error("policy {policy}: no port from 1024 up: the kernel selects no others by itself")]
    Privileged { policy: PolicyName },
    #[error(
        "policies {first} and {second} permit different ports, and the sysctls contain one set: \
         expected one policy for this host's own sockets"
    )]
    Different { first: PolicyName, second: PolicyName },
}

/// The sysctls by which the host's own sockets select from the permitted ports, without NAT.
fn sysctl(plan: &Plan) -> Result<String, SysctlError> {
    let local = plan.resolved.iter().filter(|policy| policy.origin != Origin::Forwarded);
    let mut found: Option<(&PolicyName, PortSet)> = None;
    for policy in local {
        let name = &policy.name;
        let PermittedPorts::Set(ports) = &policy.permitted else {
            return Err(SysctlError::Blocks { policy: name.clone() });
        };
        let ports = ports.intersection(&PortRange::EPHEMERAL.into());
        match &found {
            Some((first, same)) if *same != ports => {
                let (first, second) = ((*first).clone(), name.clone());
                return Err(SysctlError::Different { first, second });
            }
            _ => found = Some((name, ports)),
        }
    }
    let (policy, ports) = found.ok_or(SysctlError::NotLocal)?;
    let ends = (ports.ranges().first(), ports.ranges().last());
    let (Some(first), Some(last)) = ends else {
        return Err(SysctlError::Privileged { policy: policy.clone() });
    };
    let (first, last) = (first.first(), last.last());
    let hull = PortRange::new(first, last).map_or(PortSet::EMPTY, PortSet::from);
    let reserved = hull.difference(&ports);
    let reserved = if reserved.is_empty() { String::new() } else { format!(" {reserved}") };
    Ok(format!(
        "# Sockets of this host select a source port from {ports}.\n\
         net.ipv4.ip_local_port_range = {first} {last}\n\
         net.ipv4.ip_local_reserved_ports ={reserved}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn show_errors_name_policy_and_accepted_values() {
        let name = |name: &str| name.parse::<PolicyName>().unwrap();
        let cases = [
            (
                SysctlError::NotLocal,
                "no policy applies to this host's own sockets: \
                 expected one with origin local or both",
            ),
            (
                SysctlError::Blocks { policy: name("a") },
                "policy a: blocks are no sysctl: expected the same ports for all sources",
            ),
            (
                SysctlError::Privileged { policy: name("a") },
                "policy a: no port from 1024 up: the kernel selects no others by itself",
            ),
            (
                SysctlError::Different { first: name("a"), second: name("b") },
                "policies a and b permit different ports, and the sysctls contain one set: \
                 expected one policy for this host's own sockets",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(error.to_string(), message);
        }
    }
}
