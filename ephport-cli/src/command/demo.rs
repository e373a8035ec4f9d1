//! `ephport-nft demo`

use std::error::Error;
use std::io::{self, IsTerminal};

use ephport_core::{Policy, PolicySpec, PortRange, Target};
use ephport_nft::{Client, Plan, host};

use super::Failure;
use crate::Exit;
use crate::args::OutputArgs;
use crate::colour::When;
use crate::demo::{self, Style};
use crate::document::{Demo, Group, VERSION};
use crate::output::Output;
use crate::render::Block;

pub(crate) fn run(args: OutputArgs, when: When, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let summary = if args.json {
        let summary = demo::run(&mut io::sink(), Style::default(), &install)?;
        let groups = |groups: &[demo::Group]| groups.iter().map(group).collect();
        let (before, after) = (groups(&summary.before), groups(&summary.after));
        let all_inside = summary.all_inside;
        output.document(&Demo { version: VERSION, before, after, all_inside });
        summary
    } else {
        let is_terminal = io::stdout().is_terminal();
        let colour = when.is_coloured(|name| std::env::var_os(name), is_terminal);
        demo::run(output.colours(), Style { colour }, &install)?
    };
    Ok(if summary.all_inside { Exit::Success } else { Exit::Failure })
}

/// Do what `ephport-nft apply --to-ports 49152-61000` does.
fn install() -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let (first, last) = demo::ALLOWED.into_inner();
    let range = PortRange::new(first.try_into()?, last.try_into()?)?;
    let policy = Policy::new(PolicySpec::to(Target::Ports(range.into())))?;
    let plan = Plan::new(&[policy], &host::facts()?)?;
    Client::open()?.apply(&plan)?;
    Ok(plan.resolved.iter().flat_map(|policy| Block::policy(policy).lines()).collect())
}

fn group(group: &demo::Group) -> Group {
    Group {
        opener: group.opener.name().into(),
        protocol: group.protocol.to_string().to_lowercase(),
        family: if group.ipv6 { "ipv6" } else { "ipv4" }.into(),
        source_ports: group.ports.clone(),
        inside: group.inside(),
    }
}
