//! `ephport-nft demo`

use std::error::Error;
use std::io::{self, IsTerminal, Write};

use ephport_core::{Policy, PolicySpec, PortRange, Target};
use ephport_nft::Client;
use serde_json::{Value, json};

use super::{Failure, Request};
use crate::Exit;
use crate::args::OutputArgs;
use crate::demo::{self, Group, Style, Summary};
use crate::render;

pub(crate) fn run(args: OutputArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let summary = if args.json {
        let summary = demo::run(&mut io::sink(), Style::default(), &install)?;
        writeln!(out, "{:#}", summary_json(&summary))?;
        summary
    } else {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        demo::run(out, Style { colour }, &install)?
    };
    Ok(if summary.all_inside { Exit::Success } else { Exit::Failure })
}

/// What `ephport-nft apply --to-ports 49152-61000` does.
fn install() -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let (first, last) = demo::ALLOWED.into_inner();
    let range = PortRange::new(first.try_into()?, last.try_into()?)?;
    let policy = Policy::new(PolicySpec::to(Target::Ports(range.into())))?;
    let request = Request::new(&policy.into(), &mut io::sink())?;
    Client::open()?.apply(&request.ruleset)?;
    Ok(request.policies.iter().map(render::policy).collect())
}

fn summary_json(summary: &Summary) -> Value {
    let groups = |groups: &[Group]| groups.iter().map(group_json).collect::<Vec<_>>();
    json!({
        "before": groups(&summary.before),
        "after": groups(&summary.after),
        "all_inside": summary.all_inside,
    })
}

fn group_json(group: &Group) -> Value {
    json!({
        "opener": group.opener.name(),
        "protocol": group.protocol.to_string(),
        "ipv6": group.ipv6,
        "source_ports": group.ports,
        "inside": group.inside(),
    })
}
