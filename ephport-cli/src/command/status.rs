//! `ephport-nft status`

use std::io::{self, Write};

use ephport_nft::{Installed, Nftables, Ruleset};
use serde_json::json;

use super::Failure;
use crate::Exit;
use crate::args::OutputArgs;
use crate::render;

pub(crate) fn run(args: OutputArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let installed = Nftables::open()?.installed()?;
    let state = state(&installed);
    if args.json {
        let (version, rules) = match &installed {
            Installed::Absent => (None, Vec::new()),
            Installed::Foreign(ruleset) => (None, render::rules_json(ruleset)),
            Installed::Ours { ruleset, signature, .. } => {
                let version = signature.as_ref().map(|signature| signature.version.as_str());
                (version, render::rules_json(ruleset))
            }
        };
        writeln!(out, "{:#}", json!({ "state": state, "version": version, "rules": rules }))?;
    } else {
        print(out, &installed, state)?;
    }
    let intact = matches!(installed, Installed::Ours { intact: true, .. });
    Ok(if intact { Exit::Success } else { Exit::Differs })
}

fn state(installed: &Installed) -> &'static str {
    match installed {
        Installed::Absent => "absent",
        Installed::Foreign(_) => "foreign",
        Installed::Ours { intact: false, .. } => "drifted",
        Installed::Ours { intact: true, .. } => "intact",
    }
}

fn print(out: &mut dyn Write, installed: &Installed, state: &str) -> io::Result<()> {
    match installed {
        Installed::Absent => writeln!(out, "{state}: there is no table inet ephport"),
        Installed::Foreign(_) => {
            writeln!(out, "{state}: table inet ephport exists, but ephport did not make it")
        }
        Installed::Ours { ruleset, signature, intact } => {
            let by = match signature {
                Some(signature) => format!("written by ephport-nft {}", signature.version),
                None => "without its signature".into(),
            };
            writeln!(out, "{state}: table inet ephport, {by}")?;
            if !intact {
                writeln!(out, "  somebody changed it since; apply the policy again to mend it")?;
            }
            print_rules(out, ruleset)
        }
    }
}

fn print_rules(out: &mut dyn Write, ruleset: &Ruleset) -> io::Result<()> {
    writeln!(out, "{:>12}  rule", "connections")?;
    let listings = render::listings(ruleset);
    for (rule, listing) in ruleset.rules.iter().zip(listings) {
        let count = rule.counter().map_or(String::new(), |counter| counter.packets.to_string());
        writeln!(out, "{count:>12}  {listing}")?;
    }
    Ok(())
}
