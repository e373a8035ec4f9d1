//! `ephport-nft status`
//!
//! The table's fingerprint tells that it was changed, the policy what: that is compared with the policy
//! file if there is one and it is what was applied. A file that was edited since would make the
//! edits look like somebody's changes of the table.

use std::io::{self, Write};
use std::path::Path;

use ephport_nft::plan::drift;
use ephport_nft::table::Fingerprint;
use ephport_nft::{Client, Drift, Installed, TableState};
use serde_json::json;

use super::{DEFAULT_FILE, Failure, Request, read_document};
use crate::Exit;
use crate::args::OutputArgs;
use crate::render;

pub(crate) fn run(
    args: OutputArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let installed = Client::open()?.installed()?;
    let state = state(&installed);
    let drifted = Drifted::of(&installed, err);
    if args.json {
        let (version, rules) = match &installed {
            Installed::Absent => (None, Vec::new()),
            Installed::Foreign(ruleset) => (None, render::rules_json(ruleset)),
            Installed::Ours { ruleset, fingerprint, .. } => {
                let version = fingerprint.as_ref().map(|fingerprint| fingerprint.version.as_str());
                (version, render::rules_json(ruleset))
            }
        };
        let result = json!({
            "state": state,
            "version": version,
            "compared_with": drifted.is_compared().then_some(DEFAULT_FILE),
            "drift": render::drifts_json(&drifted.drifts),
            "rules": rules,
        });
        writeln!(out, "{result:#}")?;
    } else {
        print(out, &installed, state, &drifted)?;
    }
    let intact = matches!(installed, Installed::Ours { intact: true, .. });
    Ok(if intact { Exit::Success } else { Exit::Differs })
}

/// What is known of how the table drifted.
#[derive(Default)]
struct Drifted {
    drifts: Vec<Drift>,
    policy: Policy,
}

/// What was to be had of the policy that was applied.
#[derive(Default)]
enum Policy {
    /// It is not needed.
    #[default]
    None,
    /// There is no policy file, or none that can be read.
    Unknown,
    /// The policy file is not what was applied.
    Other,
    /// The policy file is what was applied.
    Same,
}

impl Drifted {
    fn of(installed: &Installed, err: &mut dyn Write) -> Self {
        let Installed::Ours { ruleset, fingerprint, intact: false } = installed else {
            return Self::default();
        };
        let (desired, policy) = match policy_file(err) {
            None => (None, Policy::Unknown),
            // Without a fingerprint, nothing speaks against the file.
            Some(file) if is_of(fingerprint.as_ref(), &file) => (Some(file), Policy::Same),
            Some(_) => (None, Policy::Other),
        };
        let drifts = match desired {
            Some(desired) => drift::drift(ruleset, &desired),
            None => drift::evident(ruleset),
        };
        Self { drifts, policy }
    }

    fn is_compared(&self) -> bool {
        matches!(self.policy, Policy::Same)
    }
}

fn is_of(fingerprint: Option<&Fingerprint>, file: &TableState) -> bool {
    let checksum = |fingerprint: &Fingerprint| fingerprint.checksum;
    fingerprint.is_none() || fingerprint.map(checksum) == file.fingerprint().as_ref().map(checksum)
}

/// The policy file, compiled. One that cannot be is no reason not to tell the table's state.
fn policy_file(err: &mut dyn Write) -> Option<TableState> {
    if !Path::new(DEFAULT_FILE).exists() {
        return None;
    }
    match read_document(DEFAULT_FILE.into()).and_then(|document| Request::new(&document, err)) {
        Ok(request) => Some(request.ruleset),
        Err(failure) => {
            let _ = writeln!(err, "warning: nothing to compare with: {failure}");
            None
        }
    }
}

fn state(installed: &Installed) -> &'static str {
    match installed {
        Installed::Absent => "absent",
        Installed::Foreign(_) => "foreign",
        Installed::Ours { intact: false, .. } => "drifted",
        Installed::Ours { intact: true, .. } => "intact",
    }
}

fn print(
    out: &mut dyn Write,
    installed: &Installed,
    state: &str,
    drifted: &Drifted,
) -> io::Result<()> {
    match installed {
        Installed::Absent => writeln!(out, "{state}: there is no table inet ephport"),
        Installed::Foreign(_) => {
            writeln!(out, "{state}: table inet ephport exists, but ephport did not make it")
        }
        Installed::Ours { ruleset, fingerprint, intact } => {
            let by = match fingerprint {
                Some(fingerprint) => format!("written by ephport-nft {}", fingerprint.version),
                None => "without its fingerprint".into(),
            };
            writeln!(out, "{state}: table inet ephport, {by}")?;
            if !intact {
                writeln!(out, "  somebody changed it since; apply the policy again to mend it")?;
                print_drift(out, drifted)?;
            }
            print_rules(out, ruleset)
        }
    }
}

fn print_drift(out: &mut dyn Write, Drifted { drifts, policy }: &Drifted) -> io::Result<()> {
    let name = "name the policy that was applied to see all: `ephport-nft diff FILE`, or its flags";
    match policy {
        Policy::None => {}
        Policy::Unknown => writeln!(out, "  {name}")?,
        Policy::Other => {
            writeln!(
                out,
                "  {DEFAULT_FILE} is not what was applied, or not for this host as it is;"
            )?;
            writeln!(out, "  {name}")?;
        }
        Policy::Same => writeln!(out, "  compared with {DEFAULT_FILE}:")?,
    }
    drifts.iter().try_for_each(|drift| writeln!(out, "  {drift}"))
}

fn print_rules(out: &mut dyn Write, ruleset: &TableState) -> io::Result<()> {
    writeln!(out, "{:>12}  rule", "connections")?;
    let listings = render::listings(ruleset);
    for (rule, listing) in ruleset.rules.iter().zip(listings) {
        let count = rule.counter().map_or(String::new(), |counter| counter.packets.to_string());
        writeln!(out, "{count:>12}  {listing}")?;
    }
    Ok(())
}
