//! `ephport-nft usage`

mod metrics;
mod outside;
mod picture;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use ephport_core::{PermittedPorts, ResolvedPolicy};
use ephport_nft::client::State;
use ephport_nft::conntrack::{
    Connections, DestinationUsage, Filter, PolicyUsage, Statistics, Usage,
};
use ephport_nft::{Client, InstalledPolicy, TableState, host};

use super::{Failure, document, plan};
use crate::Exit;
use crate::args::UsageArgs;
use crate::document::{
    self, ConntrackDocument, DestinationDocument, PolicyUsageDocument, UsageDocument, VERSION,
};
use crate::output::Output;
use crate::render::{self, Block};

/// The most destinations that are listed for each policy.
const MOST: usize = 10;

pub(crate) fn run(args: UsageArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let policies = plan(&document(args.source)?, output)?.resolved;
    if args.outside {
        return outside::run(&policies, args.output.json, output);
    }
    loop {
        let report = Report::read(&policies)?;
        match args.watch {
            None if args.output.json => output.document(&report.document()),
            None if args.openmetrics => write!(output, "{}", report.metrics()),
            None => writeln!(output, "{}", report.lines().join("\n")),
            Some(_) => refresh(&report.lines(), output),
        }
        match args.watch {
            Some(seconds) if !output.is_lost() => thread::sleep(Duration::from_secs(seconds)),
            _ => return Ok(Exit::Success),
        }
    }
}

/// Prints `lines` in place of what a terminal shows; elsewhere, after an empty line.
fn refresh(lines: &[String], output: &mut Output<'_>) {
    if io::stdout().is_terminal() {
        // Home; the rest of each line; the rest of the screen: nothing flickers.
        let text = lines.join("\x1b[K\n");
        let _ = write!(output.colours(), "\x1b[H{text}\x1b[K\n\x1b[J");
    } else {
        writeln!(output, "{}\n", lines.join("\n"));
    }
    output.flush();
}

/// The dump that has every connection of the policies.
fn filter(policies: &[ResolvedPolicy]) -> Filter {
    let families = |family| policies.iter().all(|policy| policy.families == family);
    let family = if families(ephport_core::Families::Ipv4) {
        Some(ephport_core::Family::Ipv4)
    } else if families(ephport_core::Families::Ipv6) {
        Some(ephport_core::Family::Ipv6)
    } else {
        None
    };
    Filter { family, ..Filter::default() }
}

/// The usage of the policies at one moment.
struct Report<'a> {
    usage: Usage<'a>,
    statistics: Statistics,
    state: State,
    /// The rules of each policy with their counters, if ephport's table has some.
    installed: Vec<Option<InstalledPolicy>>,
}

impl<'a> Report<'a> {
    fn read(policies: &'a [ResolvedPolicy]) -> Result<Self, Failure> {
        let addresses = host::addresses().map_err(Failure::Host)?;
        let mut usage = Usage::new(policies, &addresses);
        for connection in Connections::open(filter(policies))? {
            usage.add(&connection?);
        }
        let status = Client::open()?.installed()?.status(None);
        let is_ours = matches!(status.state, State::Intact | State::Drifted);
        let table = status.installed.table().filter(|_| is_ours);
        let found = table.map(TableState::policies).unwrap_or_default();
        let of = |policy: &ResolvedPolicy| {
            found.iter().find(|installed| installed.name == policy.name).cloned()
        };
        let installed = policies.iter().map(of).collect();
        Ok(Self { usage, statistics: Statistics::read()?, state: status.state, installed })
    }

    /// Each policy with its rules and its fullest destinations.
    fn policies(
        &self,
    ) -> impl Iterator<Item = (&PolicyUsage<'a>, Option<&InstalledPolicy>, Vec<DestinationUsage>)>
    {
        let policies = self.usage.policies().iter().zip(&self.installed).enumerate();
        policies.map(|(index, (usage, installed))| {
            (usage, installed.as_ref(), self.usage.fullest(index, MOST))
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (usage, installed, fullest) in self.policies() {
            lines.extend(policy(usage, installed).lines());
            lines.push(String::new());
            lines.extend(picture::picture(&usage.ports, &usage.used));
            if !fullest.is_empty() {
                lines.push(String::new());
                lines.extend(destinations(usage, &fullest));
            }
            lines.push(String::new());
        }
        lines.extend(self.conntrack().lines());
        lines
    }

    fn conntrack(&self) -> Block {
        let Statistics { entries, max_entries, insert_failed, drop, early_drop, .. } =
            self.statistics;
        let mut block = Block::new("connection tracking");
        block.row(
            "entries",
            match max_entries {
                None => entries.to_string(),
                Some(max) => format!("{entries} of {max}, {}", percent(entries.into(), max.into())),
            },
        );
        block.row(
            "insert failures",
            format!("{}: no free port, or a duplicate", counted(insert_failed, "connection")),
        );
        block.row("drops", counted(drop, "packet"));
        block.row(
            "early drops",
            format!("{}, because the table was full", counted(early_drop, "connection")),
        );
        if self.usage.unknown() > 0 {
            block.row(
                "not counted",
                format!(
                    "{}, forwarded without source NAT: conntrack does not record the direction",
                    counted(self.usage.unknown(), "connection")
                ),
            );
        }
        block
    }

    fn document(&self) -> UsageDocument {
        let Statistics {
            entries,
            max_entries,
            found,
            invalid,
            insert_failed,
            drop,
            early_drop,
            ..
        } = self.statistics;
        let policies = self.policies().map(|(usage, installed, fullest)| PolicyUsageDocument {
            policy: usage.policy.name.to_string(),
            ports: document::ports(&usage.ports),
            port_count: usage.ports.count(),
            used_ports: document::ports(&usage.used.to_set()),
            used_port_count: usage.used.count(),
            connections: usage.connections,
            exempt: usage.exempt,
            outside: usage.outside,
            attempts: installed.map(|installed| installed.attempts),
            drops: installed.filter(|i| i.enforces).map(|i| i.drops),
            destinations: fullest.iter().map(DestinationDocument::new).collect(),
        });
        UsageDocument {
            version: VERSION,
            policies: policies.collect(),
            conntrack: ConntrackDocument {
                entries,
                max_entries,
                found,
                invalid,
                insert_failed,
                drops: drop,
                early_drops: early_drop,
            },
            not_counted: self.usage.unknown(),
        }
    }
}

/// The summary of a policy.
fn policy(usage: &PolicyUsage<'_>, installed: Option<&InstalledPolicy>) -> Block {
    let PolicyUsage { policy, ports, used, connections, exempt, outside, .. } = usage;
    let mut block = Block::new(format!("policy {}", policy.name));
    let whose = match &policy.permitted {
        PermittedPorts::Set(_) => String::new(),
        PermittedPorts::Blocks(blocks) => format!(", in blocks of {} sources", blocks.count()),
    };
    let used = used.count();
    block.row("ports", format!("{}{whose}", ports.count()));
    block.row(
        "in use",
        format!(
            "{used}, {}, by {}",
            percent(used.into(), ports.count().into()),
            counted(*connections, "connection")
        ),
    );
    if *exempt > 0 {
        block.row(
            "exempt",
            format!("{} with an exempt or privileged port", counted(*exempt, "connection")),
        );
    }
    block.row(
        "outside",
        match outside {
            0 => "0 connections".into(),
            count => format!(
                "{}; listed by `ephport-nft usage --outside`",
                counted(*count, "connection")
            ),
        },
    );
    block.row(
        "drops",
        match installed {
            None => "none: the policy is not installed".into(),
            Some(installed) if !installed.enforces => "none: the policy is not enforced".into(),
            Some(installed) => format!("{}, by enforcement", counted(installed.drops, "packet")),
        },
    );
    block
}

/// The fullest destinations, the fullest first.
fn destinations(usage: &PolicyUsage<'_>, fullest: &[DestinationUsage]) -> Vec<String> {
    let mut lines = vec!["  fullest destinations".to_string()];
    let is_block = matches!(usage.policy.permitted, PermittedPorts::Blocks(_));
    let first = fullest.first().map(|destination| destination.source);
    let several = fullest.iter().any(|destination| Some(destination.source) != first);
    for destination in fullest {
        let DestinationUsage { protocol, destination: to, ports, capacity, source, .. } =
            destination;
        let at_least = if destination.error == 0 { "" } else { ">=" };
        let share = percent((*ports).into(), (*capacity).into());
        let count = format!("{at_least}{ports}/{capacity}");
        let source = if is_block || several { format!("  from {source}") } else { String::new() };
        let to = render::destination(*protocol, *to);
        lines.push(format!("  {share:>7}  {count:>11}  {protocol} {to}{source}"));
    }
    lines
}

/// A count with its noun.
fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `part` of `whole` with one decimal.
fn percent(part: u64, whole: u64) -> String {
    let tenths = part.saturating_mul(1000) / whole.max(1);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_rounded_down() {
        for (part, whole, text) in
            [(0, 0, "0.0 %"), (1, 3, "33.3 %"), (999, 1000, "99.9 %"), (5, 5, "100.0 %")]
        {
            assert_eq!(percent(part, whole), text);
        }
    }
}
